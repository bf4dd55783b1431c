"""Which images the classifier fails on: confident false positives, and objects that it misses. Pure numpy."""

from __future__ import annotations

import numpy as np

from yolo_lt.evaluate.arrays import Detections, GroundTruth, take
from yolo_lt.evaluate.matching import match


def hard_cases(
    gt: GroundTruth, dets: Detections, missable: np.ndarray, conf: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """Confident false positives and missed objects per image, at IoU 0.5.

    Args:
        gt: The truth, N images.
        dets: Detections; those below `conf` do not count.
        missable: Class indices whose missed objects count.
        conf: The confidence from which a detection would be shown.

    Returns:
        False positives and missed objects, each shape (N,), int64.
    """
    shown = dets.score >= conf
    matches = match(gt, take(dets, shown), max_det=0)
    size = len(gt.image_ids)
    right, ignored = matches.tp[:, 0], matches.ignore[:, 0]
    false = np.bincount(matches.image[~right & ~ignored], minlength=size)
    wanted = np.isin(matches.gt_class, missable)
    objects = np.bincount(matches.gt_image[wanted], weights=matches.gt_count[wanted], minlength=size)
    found = np.bincount(matches.image[right & np.isin(matches.cls, missable)], minlength=size)
    return false.astype(np.int64), (objects - found).astype(np.int64)
