"""Precision-recall curves by bin, for drawing: what AP50 is the mean of, see `curves`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from yolo_lt.evaluate.binned import ROWS, Sets
from yolo_lt.evaluate.matching import Matches
from yolo_lt.evaluate.metrics import RECALL_POINTS, precision_recall, set_means
from yolo_lt.evaluate.pool import scored

DIGITS = 4


def curves(matches: Matches, sets: Sets) -> dict[str, Any]:
    """The `curves` entry: interpolated precision (the best at or beyond a recall) at 101 recalls, IoU 0.5.

    The curve of a bin is the mean over its classes with ground truth at every recall (coco, lvis, lvis_fixed), or the
    curve of its classes pooled into one (lvis_pool). Its mean over the recalls is then the bin's AP50. openimages
    reads precision at every recall that is reached, so that there the mean of the curve is only close to AP50.

    Args:
        matches: From a protocol.
        sets: Class indices by bin.

    Returns:
        `iou`; `recall`, 0 to 1 in steps of 0.01; and under all, head, medium and tail as many precisions, with four
        decimals; None for a bin that was not asked for, or has no ground truth.
    """
    averaged, members = scored(_at_half(matches), list(sets.values()))
    precision = precision_recall(averaged)[0][0].T  # (C, 101), -1 without ground truth
    means = set_means(np.where(precision < 0, np.nan, precision), members)
    entry: dict[str, Any] = {"iou": 0.5, "recall": np.round(RECALL_POINTS, 2).tolist(), **dict.fromkeys(ROWS)}
    for name, row in zip(sets, means, strict=True):
        entry[name] = None if np.isnan(row).any() else np.round(row, DIGITS).tolist()
    return entry


def _at_half(matches: Matches) -> Matches:
    """The matches at IoU 0.5 alone, the lowest threshold of every protocol; a tenth of the work."""
    lowest = {name: getattr(matches, name)[:, :1] for name in ("tp", "ignore")}
    return replace(matches, **lowest, iou_thresholds=matches.iou_thresholds[:1])
