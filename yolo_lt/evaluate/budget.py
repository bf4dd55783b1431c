"""What survives a cap on the detections of a whole image: where classes compete, and rare ones lose. Pure numpy."""

from __future__ import annotations

import numpy as np

from yolo_lt.evaluate.arrays import Detections, GroundTruth, take
from yolo_lt.evaluate.matching import Matches, match

BUDGETS = (300, 100, 30)  # Ultralytics' max_det, COCO's cap, and what an application may show


def within_budget(dets: Detections, per_image: int) -> Detections:
    """The best detections of every image, whatever their class: what a lower max_det of NMS would have left.

    Args:
        dets: Detections.
        per_image: How many stay; equal scores stay in their order.

    Returns:
        The detections that stay, image by image, best first.
    """
    order = np.lexsort((-dets.score, dets.image))
    image = dets.image[order]
    first = np.searchsorted(image, image, "left")
    kept = order[np.arange(len(order)) - first < per_image]
    return take(dets, kept)


def budget_matches(gt: GroundTruth, dets: Detections, max_det: int = 100) -> dict[int, Matches]:
    """Matches of the detections within each of `BUDGETS`, by budget; `max_det` is the cap per image and class."""
    return {n: match(gt, within_budget(dets, n), max_det) for n in BUDGETS}
