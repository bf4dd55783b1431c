"""LVIS' federated protocol, and the two that Dave et al. derived from it, Fixed AP and AP-pool.

A detection counts only where its class was looked for: where it is boxed, or known to be absent. Where only some of a
class's objects are boxed, a detection that matches none is neither right nor wrong. Boxes and detections without area
do not take part (lvis-api drops them silently), `ignore` is honoured, and a crowd is an ordinary box.

Source: Gupta et al., LVIS, CVPR 2019, and lvis-api's LVISEval (v0.5, v1 and minival differ in their files alone); Dave
et al., "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details", 2021.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from yolo_lt.errors import LTError
from yolo_lt.evaluate.arrays import Detections, GroundTruth, best_of_groups, take, take_boxes


def choose(gt: GroundTruth, dets: Detections, max_det: int) -> tuple[GroundTruth, Detections, int]:
    """The best `max_det` of every image, whatever their class; then those whose class was looked for.

    Detections of categories that the ground truth does not list take their place among the best, and are then dropped.

    Raises:
        LTError: The ground truth is not federated.
    """
    return _federated(gt, best_of_groups(dets, dets.image, len(gt.image_ids), max_det))


def choose_fixed(gt: GroundTruth, dets: Detections, max_det: int) -> tuple[GroundTruth, Detections, int]:
    """The best `max_det` of every class over the whole data set, however many in an image (Fixed AP).

    Raises:
        LTError: The ground truth is not federated.
    """
    return _federated(gt, best_of_classes(gt, dets, max_det))


def best_of_classes(gt: GroundTruth, dets: Detections, size: int) -> Detections:
    """The best detections of every class over all images; unlisted categories are one class more."""
    return best_of_groups(dets, dets.cls + 1, len(gt.category_ids) + 1, size)


def _federated(gt: GroundTruth, dets: Detections) -> tuple[GroundTruth, Detections, int]:
    if gt.negative is None:
        raise LTError(
            "protocol=lvis needs federated ground truth (neg_category_ids of every image, or federated=INDEX for YOLO "
            "labels), and this has none; where every class was looked for in every image, use protocol=coco."
        )
    gt = replace(gt, **take_boxes(gt, gt.area > 0))
    gt = replace(gt, crowd=np.zeros(len(gt.cls), bool), positive=None)
    classes = len(gt.category_ids)
    looked_for = np.zeros(len(gt.image_ids) * classes + 1, bool)  # the last stays false: unlisted categories
    looked_for[gt.negative] = looked_for[gt.image * classes + gt.cls] = True
    key = np.where(dets.cls < 0, len(looked_for) - 1, dets.image * classes + dets.cls)
    solid = dets.box[:, 2] * dets.box[:, 3] > 0
    return gt, take(dets, looked_for[key] & solid), 0
