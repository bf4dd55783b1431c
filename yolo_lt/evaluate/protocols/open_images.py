"""The box protocol of the Open Images Challenge.

One IoU threshold, 0.5, and AP as the area under the whole curve. A detection counts only where somebody verified
whether the image shows its class. It is compared with one box, the one that it overlaps most: if a better detection
has that box, there is no second choice. A group-of box stands for many objects but is one box to be found: of the
detections that it absorbs, those at least half inside it that found no box of their own, the best is right and the
others do not count.

Source: Kuznetsova et al., The Open Images Dataset V4, 2020, and the rules of TensorFlow's evaluator for the Challenge
(group-of boxes of weight 1). The evaluator leaves the order of equal scores to numpy's sort; here it is that of
`Matches`. Labels are expected as they are to be scored; `hierarchy.expand` copies them to their ancestors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from yolo_lt.errors import LTError
from yolo_lt.evaluate.arrays import Detections, GroundTruth, best_of_groups, run_starts, take
from yolo_lt.evaluate.matching import Matches, among, candidates, counted
from yolo_lt.evaluate.overlaps import Pairs

IOU_THRESHOLD = 0.5  # also the part of a detection that must lie in a group


def choose(gt: GroundTruth, dets: Detections, max_det: int) -> tuple[GroundTruth, Detections, int]:
    """The best `max_det` of every image, whatever their class; then those whose class is verified on the image.

    Verified is what has an image-level label, positive or negative, or a box. Detections of categories that the ground
    truth does not list take their place among the best, and are then dropped, as are boxes without width or height.

    Raises:
        LTError: The ground truth has no image-level labels.
    """
    if gt.negative is None and gt.positive is None:
        raise LTError(
            "protocol=openimages needs verified image-level labels (pos_category_ids and neg_category_ids of every "
            "image), and this ground truth has none; where every class was looked for in every image, use "
            "protocol=coco."
        )
    dets = best_of_groups(dets, dets.image, len(gt.image_ids), max_det)
    sound = (dets.cls >= 0) & (dets.box[:, 2:] > 0).all(axis=1)
    return replace(gt, ignored=None, partial=None), take(dets, sound & _verified(gt, dets)), 0


def _verified(gt: GroundTruth, dets: Detections) -> np.ndarray:
    """Whether image and class have a label or a box, shape (D,), bool; meaningless where the class is -1."""
    classes = len(gt.category_ids)
    key = dets.image * classes + dets.cls
    boxed = np.unique(gt.image * classes + gt.cls)
    return among(key, gt.negative) | among(key, gt.positive) | among(key, boxed)


def match(gt: GroundTruth, dets: Detections) -> Matches:
    """Match what was chosen; detections of class -1 are left out. `max_det` and `protocol` are the caller's to set."""
    found = candidates(gt, dets)
    tp, ignore, iou = _assign(found.pairs, len(found.score), found.truth.crowd)
    return Matches(
        image=found.image,
        cls=found.cls,
        score=found.score,
        tp=tp[:, None],
        ignore=ignore[:, None],
        iou=iou,
        **counted(found.truth.key, len(gt.category_ids)),
        image_ids=gt.image_ids,
        category_ids=gt.category_ids,
        iou_thresholds=np.array([IOU_THRESHOLD]),
        max_det=0,
        protocol="openimages",
        recall_points=0,
    )


def _assign(pairs: Pairs, num_dets: int, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tp, ignore and IoU with the box taken, each (D,).

    Nothing here is sequential: without a second choice, a box belongs to the first detection that prefers it.

    Args:
        pairs: Pairs within an image and class, its detections together and best first, boxes in file order.
        num_dets: D.
        group: Which boxes are groups, shape (G,), bool.
    """
    tp, ignore, iou = np.zeros(num_dets, bool), np.zeros(num_dets, bool), np.zeros(num_dets)
    in_group = group[pairs.gt]
    taken = _first_of_box(_preferred(pairs.at(~in_group)))
    tp[taken.det], iou[taken.det] = True, taken.iou
    absorbed = _preferred(pairs.at(in_group & ~tp[pairs.det]))
    ignore[absorbed.det] = True
    hit = _first_of_box(absorbed).det
    tp[hit], ignore[hit] = True, False
    return tp, ignore, iou


def _preferred(pairs: Pairs) -> Pairs:
    """Of every detection the pair with the highest IoU; of equal ones the earlier box."""
    starts = run_starts(pairs.det)
    highest = np.maximum.reduceat(pairs.iou, starts) if len(starts) else pairs.iou
    best = pairs.at(pairs.iou == np.repeat(highest, np.diff(np.r_[starts, len(pairs.det)])))
    return best.at(run_starts(best.det))


def _first_of_box(pairs: Pairs) -> Pairs:
    """Of every box the first pair."""
    return pairs.at(np.unique(pairs.gt, return_index=True)[1])
