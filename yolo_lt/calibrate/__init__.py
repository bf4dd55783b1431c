"""From a trained model to decisions: an affine map of the logits per class, and confidence thresholds per class.

Fitting is numpy and scipy; `fold.py` alone knows torch.
"""

from yolo_lt.calibrate.affine import CALIBRATORS, Affine, logit_affine

__all__ = ["CALIBRATORS", "Affine", "logit_affine"]
