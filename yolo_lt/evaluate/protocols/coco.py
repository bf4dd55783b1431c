"""COCO's box protocol: every class was looked for in every image, crowd regions take any number of detections."""

from __future__ import annotations

from dataclasses import replace

from yolo_lt.evaluate.arrays import Detections, GroundTruth


def choose(gt: GroundTruth, dets: Detections, max_det: int) -> tuple[GroundTruth, Detections, int]:
    """Everything counts; the cap is per image and class.

    pycocotools reads `iscrowd` and overwrites `ignore`, and knows nothing of classes that nobody looked for.
    """
    return replace(gt, ignored=None, negative=None, positive=None, partial=None), dets, max_det
