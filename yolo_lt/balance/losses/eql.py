"""Equalization loss: foreground anchors of other classes give rare classes no negative gradient (Tan et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.targets import Positives
from yolo_lt.balance.losses.weighted_bce import Terms


class EQL(Loss):
    """EQL v1: weight 1 - E(row) T(f_c) (1 - [y > 0]) on every entry.

    E is 1 on foreground rows, T is 1 for classes with image frequency f_c below `eql_lambda`. Background rows still
    push rare classes down, and in a dense head they are nearly all of the rows, so expect a small effect.

    Args:
        image_counts: Training images per class, shape (C,).
        num_images: All training images.
        eql_lambda: The frequency below which a class is rare; 1.77e-3 is the original's value for LVIS v0.5.

    Source: Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020, equations 3 to 5 (sigmoid).
    """

    def __init__(self, image_counts: Sequence[int] | np.ndarray, num_images: int, eql_lambda: float = 1.77e-3) -> None:
        frequency = np.asarray(image_counts, np.float64) / num_images
        self.rare = torch.from_numpy(np.flatnonzero(frequency < eql_lambda))

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """0 on the rare classes' negatives of foreground rows."""
        kept = like.new_ones(z.shape[2])
        kept[self.rare.to(like.device)] = 0
        return Terms(rows=kept)
