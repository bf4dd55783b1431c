"""Detections against ground truth: one greedy pass per image and class, from which every number follows.

The rule is that of COCO's box protocol (Lin et al. 2014, and what pycocotools' COCOeval does with it), which LVIS
shares: detections of an image and class, best score first, each take the free box with the highest IoU at or above the
threshold; boxes that count come before those that do not; a crowd region may be taken any number of times, and its IoU
is the intersection over the detection's own area; a detection on a box that does not count is neither right nor wrong.
Pairs of boxes are found once; every range of areas only assigns them anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from yolo_lt.evaluate.arrays import Detections, GroundTruth, run_ranks, run_starts, stable_argsort
from yolo_lt.evaluate.overlaps import Boxes, Pairs, overlapping

IOU_THRESHOLDS = np.linspace(0.5, 0.95, int(np.round((0.95 - 0.5) / 0.05)) + 1)
AREA_ALL = (0.0, 1e5**2)  # COCO's range 'all' is not without end: what lies outside is ignored
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}
COCO_POINTS = 101  # recall 0, .01 ... 1


@dataclass(frozen=True)
class Matches:
    """Which detections are right, at every IoU threshold.

    Detections stand in the order in which they are counted: by class, then falling score; equal scores by image, then
    as in the input. The ground truth is a sparse table of (image, class, number of boxes that count).

    Attributes:
        image: Image index, shape (D,), int32.
        cls: Class index, shape (D,), int32, non-decreasing.
        score: Shape (D,), float64.
        tp: Matched to a box that counts, shape (D, T), bool.
        ignore: Neither right nor wrong (crowd, area out of range, some objects not boxed), shape (D, T), bool; never
            together with `tp`.
        iou: IoU with the box taken at the lowest threshold, 0 without one, shape (D,), float64.
        gt_image: Image index of every (image, class) with ground truth, shape (M,), int32.
        gt_class: Class index, shape (M,), int32.
        gt_count: Boxes that count, shape (M,), int32, positive.
        image_ids: Sorted image ids, shape (N,), int64 or str.
        category_ids: Sorted category ids, shape (C,), int64.
        iou_thresholds: Shape (T,), float64.
        max_det: The protocol's cap on detections; 0 means none.
        protocol: Whose rules were applied.
        recall_points: Recalls at which precision is read; 0: at every one that is reached.
    """

    image: np.ndarray
    cls: np.ndarray
    score: np.ndarray
    tp: np.ndarray
    ignore: np.ndarray
    iou: np.ndarray
    gt_image: np.ndarray
    gt_class: np.ndarray
    gt_count: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    iou_thresholds: np.ndarray
    max_det: int
    protocol: str = "coco"
    recall_points: int = COCO_POINTS


class Truth(NamedTuple):
    """Boxes by what may meet, file order kept within; each (G,)."""

    key: np.ndarray
    boxes: Boxes
    area: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    order: np.ndarray  # position in the ground truth

    @classmethod
    def of(cls, gt: GroundTruth, key: np.ndarray) -> Truth:
        """The boxes, sorted by a key, for example their image and class, shape (G,)."""
        order = np.argsort(key, kind="stable")
        ignored = np.zeros(len(order), bool) if gt.ignored is None else gt.ignored[order]
        return cls(key[order], Boxes.of(gt, order), gt.area[order], gt.crowd[order], gt.crowd[order] | ignored, order)


class Candidates(NamedTuple):
    """What every range of areas shares: detections in counting order, boxes, the pairs that could match.

    Attributes:
        gt: The truth, and its boxes by image and class in `truth`.
        image: Image index of every detection, shape (D,), int32; likewise `cls` and `score`, as in `Matches`.
        area: Width times height, shape (D,), float64.
        forgiven: Detections that cannot be wrong, for want of labels, shape (D,), bool.
        pairs: Which detections overlap which boxes.
    """

    gt: GroundTruth
    truth: Truth
    image: np.ndarray
    cls: np.ndarray
    score: np.ndarray
    area: np.ndarray
    forgiven: np.ndarray
    pairs: Pairs


def candidates(gt: GroundTruth, dets: Detections, max_det: int = 0) -> Candidates:
    """Order and cap the detections and find the pairs of one image and class.

    Args:
        gt: The truth.
        dets: The detections; those with class -1 are left out (the cap is per image and class, so they cannot count
            towards it).
        max_det: Detections kept per image and class, best first; 0 keeps all.
    """
    classes = len(gt.category_ids)
    order = counting_order(dets, len(gt.image_ids), classes)
    by_image = stable_argsort(dets.image[order], len(gt.image_ids))
    key = dets.image[order] * classes + dets.cls[order]
    if max_det and (over := run_ranks(run_starts(key[by_image]), len(key)) >= max_det).any():
        kept = np.ones(len(order), bool)
        kept[by_image[over]] = False
        order, key, by_image = order[kept], key[kept], (np.cumsum(kept) - 1)[by_image[~over]]
    truth, least = Truth.of(gt, gt.image * classes + gt.cls), IOU_THRESHOLDS[0]
    pairs = overlapping(dets, order[by_image], key[by_image], truth.boxes, truth.key, truth.crowd, least)
    return Candidates(
        gt=gt,
        truth=truth,
        image=dets.image[order].astype(np.int32),
        cls=dets.cls[order].astype(np.int32),
        score=dets.score[order],
        area=(dets.box[:, 2] * dets.box[:, 3])[order],
        forgiven=among(key, gt.partial),
        pairs=pairs._replace(det=by_image[pairs.det]),
    )


def match(gt: GroundTruth, dets: Detections, max_det: int = 100) -> Matches:
    """Match detections to ground truth by the COCO box protocol, area range 'all'.

    Args:
        gt: The truth.
        dets: The detections, see `candidates`.
        max_det: Detections kept per image and class, best first; 0 keeps all.

    Returns:
        The matches, equal to pycocotools' COCOeval with maxDets=[max_det] and useCats=1. One difference is intended:
        an annotation with id 0 is an annotation like any other.
    """
    return assigned(candidates(gt, dets, max_det), max_det)


def assigned(found: Candidates, max_det: int, area: tuple[float, float] = AREA_ALL) -> Matches:
    """The matches within a range of areas: boxes and unmatched detections outside it are ignored.

    Of small, medium and large ones, most detections lie outside; what is ignored at every threshold is then left out.
    """
    gt, truth = found.gt, found.truth
    ignored = truth.ignored | _outside(truth.area, area)
    excused = found.forgiven | _outside(found.area, area)
    kept, pairs = np.arange(len(excused)), found.pairs
    if area != AREA_ALL:
        kept, pairs = _that_matter(pairs, excused)
    tp, ignore, iou = assign(pairs, len(kept), truth.key, ignored, truth.crowd, IOU_THRESHOLDS)
    ignore |= excused[kept, None] & ~tp
    if area != AREA_ALL:
        says = ~ignore.all(axis=1)
        kept, tp, ignore, iou = kept[says], tp[says], ignore[says], iou[says]
    return Matches(
        image=found.image[kept],
        cls=found.cls[kept],
        score=found.score[kept],
        tp=tp,
        ignore=ignore,
        iou=iou,
        **counted(truth.key[~ignored], len(gt.category_ids)),
        image_ids=gt.image_ids,
        category_ids=gt.category_ids,
        iou_thresholds=IOU_THRESHOLDS.copy(),
        max_det=max_det,
    )


def _that_matter(pairs: Pairs, excused: np.ndarray) -> tuple[np.ndarray, Pairs]:
    """Positions of all detections but those that can only be ignored, and the pairs by these positions."""
    kept = ~excused
    kept[pairs.det] = True
    return np.flatnonzero(kept), pairs._replace(det=(np.cumsum(kept) - 1)[pairs.det])


def counted(key: np.ndarray, num_classes: int) -> dict[str, Any]:
    """The gt_ columns of `Matches` from the sorted keys image * num_classes + class of the boxes that count."""
    starts = run_starts(key)
    image, cls = np.divmod(key[starts], max(num_classes, 1))
    columns = {"gt_image": image, "gt_class": cls, "gt_count": np.diff(np.r_[starts, len(key)])}
    return {name: column.astype(np.int32) for name, column in columns.items()}


def among(key: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
    """Which keys are among sorted ones, shape (len(key),), bool; None holds nothing."""
    if pairs is None or not len(pairs):
        return np.zeros(len(key), bool)
    return pairs[np.minimum(np.searchsorted(pairs, key), len(pairs) - 1)] == key


def _outside(area: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return (area < bounds[0]) | (area > bounds[1])


def counting_order(dets: Detections, num_images: int, num_classes: int) -> np.ndarray:
    """Positions of the listed detections by class, then falling score; equal scores by image, then as they came."""
    listed = np.flatnonzero(dets.cls >= 0)
    order = listed[stable_argsort(dets.image[listed], num_images)]
    order = order[np.argsort(-dets.score[order], kind="stable")]
    return order[stable_argsort(dets.cls[order], num_classes)]


def assign(
    pairs: Pairs, num_dets: int, group: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greedy assignment at all thresholds: tp (D, T), ignore (D, T), IoU at the lowest threshold (D,).

    The greedy rule is sequential only within a group. So the first detection of all groups is assigned in one step,
    then the second of all groups, and so on: as many steps as the busiest group has candidates.

    Args:
        pairs: Pairs within groups, detections of a group together and best first.
        num_dets: D.
        group: Group of every box, shape (G,).
        ignored: Boxes that do not count, shape (G,), bool.
        crowd: Boxes that may be taken again, shape (G,), bool.
        thresholds: Rising IoU thresholds, shape (T,).
    """
    shape = (num_dets, len(thresholds))
    tp, ignore, iou = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(num_dets)
    pairs, cuts = _in_rounds(pairs, group, ignored)
    free = np.ones((len(group), shape[1]), bool)
    for a, b in pairwise(cuts):
        step = pairs.at(slice(a, b))
        starts = run_starts(step.det)
        pick = _first_fit(step, starts, free, crowd, thresholds)
        row, level = np.nonzero(pick < b - a)
        pick, det = pick[row, level], step.det[starts][row]
        g = step.gt[pick]
        free[g, level] = False
        ignore[det, level] = ignored[g]
        tp[det, level] = ~ignored[g]
        lowest = level == 0
        iou[det[lowest]] = step.iou[pick[lowest]]
    return tp, ignore, iou


def _in_rounds(pairs: Pairs, group: np.ndarray, ignored: np.ndarray) -> tuple[Pairs, np.ndarray]:
    """Pairs by round, then detection, then preference; and where the rounds begin and end.

    Preference of a detection: boxes that count before ignored ones, then the higher IoU, then the later box.
    """
    seq_starts = run_starts(pairs.det)
    seq = np.repeat(np.arange(len(seq_starts)), np.diff(np.r_[seq_starts, len(pairs.det)]))
    groups = group[pairs.gt[seq_starts]]
    turn = run_ranks(run_starts(groups), len(groups))[seq]
    order = np.arange(len(turn))
    several = np.flatnonzero(np.bincount(seq, minlength=len(seq_starts))[seq] > 1)  # most have one candidate
    unsure = pairs.at(several)
    order[several] = several[np.lexsort((-unsure.gt, -unsure.iou, ignored[unsure.gt], seq[several]))]
    order = order[stable_argsort(turn[order], int(turn.max(initial=0)) + 1)]
    rounds = np.r_[run_starts(turn[order]), len(order)]
    return pairs.at(order), rounds


def _first_fit(
    step: Pairs, starts: np.ndarray, free: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Per detection and threshold the first pair that can be taken, or the number of pairs; shape (dets, T)."""
    fits = (step.iou[:, None] >= thresholds) & (free[step.gt] | crowd[step.gt, None])
    position = np.where(fits, np.arange(len(fits))[:, None], len(fits))
    return np.minimum.reduceat(position, starts, axis=0)
