"""Detections against ground truth: one greedy pass per image and class, from which every number follows.

The rule is that of COCO's box protocol (Lin et al. 2014, and what pycocotools' COCOeval does with it), area range
'all': detections of an image and class, best score first, each take the free ground-truth box with the highest IoU at
or above the threshold; real boxes come before ignored ones; a crowd region may be taken any number of times and its
IoU is intersection over the detection's own area; a detection on an ignored box is neither right nor wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import NamedTuple

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, int(np.round((0.95 - 0.5) / 0.05)) + 1)
AREA_ALL = (0.0, 1e5**2)  # COCO's range 'all' is not without end: what lies outside is ignored
PAIR_CHUNK = 1 << 18  # box pairs at a time: small enough to stay in cache, and memory stays flat


@dataclass(frozen=True)
class GroundTruth:
    """The truth as compact arrays; image and class are indices into the sorted ids.

    Attributes:
        image_ids: Sorted image ids, shape (N,), int64 or str.
        category_ids: Sorted category ids, shape (C,), int64.
        names: Class names in the order of `category_ids`.
        image: Image index per box, shape (G,), int64, in file order (it decides between equal IoUs).
        cls: Class index per box, shape (G,), int64.
        box: x, y, width, height, shape (G, 4), float64.
        area: The annotation's own area (it may be a mask's), shape (G,), float64.
        crowd: Boxes that stand for many objects, shape (G,), bool.
        frequency: One letter r, c or f per class, or None.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    names: tuple[str, ...]
    image: np.ndarray
    cls: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    frequency: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Detections:
    """Scored boxes; indices as in `GroundTruth`.

    Attributes:
        image: Image index, shape (D,), int64.
        cls: Class index, shape (D,), int64; -1 for a category that the ground truth does not list.
        box: x, y, width, height, shape (D, 4), float64.
        score: Shape (D,), float64, finite.
    """

    image: np.ndarray
    cls: np.ndarray
    box: np.ndarray
    score: np.ndarray


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
        ignore: Neither right nor wrong (crowd, area out of range), shape (D, T), bool; never together with `tp`.
        iou: IoU with the box taken at the lowest threshold, 0 without one, shape (D,), float64.
        gt_image: Image index of every (image, class) with ground truth, shape (M,), int32.
        gt_class: Class index, shape (M,), int32.
        gt_count: Boxes that count, shape (M,), int32, positive.
        image_ids: Sorted image ids, shape (N,), int64 or str.
        category_ids: Sorted category ids, shape (C,), int64.
        iou_thresholds: Shape (T,), float64.
        max_det: Detections kept per image and class; 0 means no cap.
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


class _Pairs(NamedTuple):
    """Boxes of one image and class that overlap enough to match: detection, ground truth, IoU; each (P,)."""

    det: np.ndarray
    gt: np.ndarray
    iou: np.ndarray


class _Truth(NamedTuple):
    """Ground truth by (image, class), file order kept within; each (G,), boxes as corners (4, G)."""

    key: np.ndarray
    corners: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray


def match(gt: GroundTruth, dets: Detections, max_det: int = 100) -> Matches:
    """Match detections to ground truth by the COCO box protocol, area range 'all'.

    Args:
        gt: The truth.
        dets: The detections; those with class -1 are left out (the cap is per image and class, so they cannot count
            towards it).
        max_det: Detections kept per image and class, best first; 0 keeps all.

    Returns:
        The matches, equal to pycocotools' COCOeval with maxDets=[max_det] and useCats=1. One difference is intended:
        an annotation with id 0 is an annotation like any other.
    """
    dets, by_image = _cap(*_in_order(dets, len(gt.image_ids), len(gt.category_ids)), max_det)
    truth = _truth(gt)
    pairs = _overlaps(dets, by_image, truth, len(gt.category_ids))
    tp, ignore, iou = _assign(pairs, dets, truth)
    ignore |= _out_of_range(dets.box[:, 2] * dets.box[:, 3])[:, None] & ~tp
    gt_image, gt_class, gt_count = _counted(truth, len(gt.category_ids))
    return Matches(
        image=dets.image.astype(np.int32),
        cls=dets.cls.astype(np.int32),
        score=dets.score,
        tp=tp,
        ignore=ignore,
        iou=iou,
        gt_image=gt_image,
        gt_class=gt_class,
        gt_count=gt_count,
        image_ids=gt.image_ids,
        category_ids=gt.category_ids,
        iou_thresholds=IOU_THRESHOLDS.copy(),
        max_det=max_det,
    )


def _counted(truth: _Truth, num_classes: int) -> tuple[np.ndarray, ...]:
    """Image, class and number of the boxes that count, one entry per image and class that has some; int32."""
    key = truth.key[~truth.ignore]
    starts = _run_starts(key)
    image, cls = np.divmod(key[starts], max(num_classes, 1))
    return tuple(a.astype(np.int32) for a in (image, cls, np.diff(np.r_[starts, len(key)])))


def _take(dets: Detections, index: np.ndarray) -> Detections:
    return Detections(*(getattr(dets, f.name)[index] for f in fields(dets)))


def _out_of_range(area: np.ndarray) -> np.ndarray:
    return (area < AREA_ALL[0]) | (area > AREA_ALL[1])


def _argsort(index: np.ndarray, bound: int) -> np.ndarray:
    """Stable argsort of indices below `bound`; numpy sorts 16-bit integers by radix, ten times faster."""
    return np.argsort(index.astype(np.uint16) if bound <= 1 << 16 else index, kind="stable")


def _in_order(dets: Detections, num_images: int, num_classes: int) -> tuple[Detections, np.ndarray]:
    """Listed detections in counting order, and the order that walks them image by image, class by class."""
    listed = np.flatnonzero(dets.cls >= 0)
    order = listed[_argsort(dets.image[listed], num_images)]
    order = order[np.argsort(-dets.score[order], kind="stable")]
    order = order[_argsort(dets.cls[order], num_classes)]
    return _take(dets, order), _argsort(dets.image[order], num_images)


def _run_starts(*keys: np.ndarray) -> np.ndarray:
    """Where each run of neighbours equal in all keys begins, shape (runs,)."""
    new = np.ones(len(keys[0]), bool)
    new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.flatnonzero(new)


def _run_ranks(starts: np.ndarray, size: int) -> np.ndarray:
    """Position of each element within its run, shape (size,)."""
    return np.arange(size) - np.repeat(starts, np.diff(np.r_[starts, size]))


def _cap(dets: Detections, by_image: np.ndarray, max_det: int) -> tuple[Detections, np.ndarray]:
    """The best `max_det` of every image and class."""
    starts = _run_starts(dets.image[by_image], dets.cls[by_image])
    kept = _run_ranks(starts, len(by_image)) < (max_det or len(by_image))
    if kept.all():
        return dets, by_image
    mask = np.zeros(len(by_image), bool)
    mask[by_image[kept]] = True
    return _take(dets, np.flatnonzero(mask)), (np.cumsum(mask) - 1)[by_image[kept]]


def _corners(box: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom and width times height as rows, shape (5, n)."""
    rows = np.empty((5, len(box)))
    rows[:4] = box.T
    np.multiply(rows[2], rows[3], out=rows[4])
    rows[2:4] += rows[:2]
    return rows


def _truth(gt: GroundTruth) -> _Truth:
    key = gt.image * len(gt.category_ids) + gt.cls
    order = np.argsort(key, kind="stable")
    ignore = gt.crowd | _out_of_range(gt.area)
    corners = _corners(gt.box[order])
    return _Truth(key[order], corners[:4], corners[4], gt.crowd[order], ignore[order])


def _overlaps(dets: Detections, by_image: np.ndarray, truth: _Truth, num_classes: int) -> _Pairs:
    """All pairs of one image and class with IoU at or above the lowest threshold, detections in `by_image` order."""
    key = dets.image[by_image] * num_classes + dets.cls[by_image]
    starts = _run_starts(key)
    low = np.searchsorted(truth.key, key[starts], "left")
    count = np.searchsorted(truth.key, key[starts], "right") - low
    sizes = np.diff(np.r_[starts, len(key)])
    low, count = np.repeat(low, sizes), np.repeat(count, sizes)
    some = np.flatnonzero(count)
    det = by_image[some]
    pairs = _chunked_pairs(low[some], count[some], _corners(dets.box[det]), truth)
    return pairs._replace(det=det[pairs.det])


def _chunked_pairs(low: np.ndarray, count: np.ndarray, corners: np.ndarray, truth: _Truth) -> _Pairs:
    """Each box of `corners` against truth[low : low + count], a bounded number of pairs at a time."""
    end = np.cumsum(count)
    total = int(end[-1]) if len(end) else 0
    cuts = np.unique(np.r_[0, np.searchsorted(end, np.arange(PAIR_CHUNK, total, PAIR_CHUNK)), len(count)])
    found = []
    for a, b in pairwise(cuts):
        n = count[a:b]
        d = np.repeat(np.arange(a, b), n)
        g = np.arange(n.sum()) + np.repeat(low[a:b] - (np.cumsum(n) - n), n)
        found.append(_close_pairs(d, g, corners, truth))
    if not found:
        return _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return _Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _close_pairs(d: np.ndarray, g: np.ndarray, corners: np.ndarray, truth: _Truth) -> _Pairs:
    """IoU of the pairs, in COCO's order of operations; those that reach the lowest threshold."""
    (left, top, right, bottom, area), t = corners, truth.corners
    width = np.minimum(right[d], t[2][g]) - np.maximum(left[d], t[0][g])
    near = np.flatnonzero(width > 0)
    d, g, width = d[near], g[near], width[near]
    height = np.minimum(bottom[d], t[3][g]) - np.maximum(top[d], t[1][g])
    near = np.flatnonzero(height > 0)
    d, g, inter = d[near], g[near], width[near] * height[near]
    union = np.where(truth.crowd[g], area[d], area[d] + truth.area[g] - inter)
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes so small that their area is 0 in float64
        iou = inter / union
    close = np.flatnonzero(iou >= IOU_THRESHOLDS[0])
    return _Pairs(d[close], g[close], iou[close])


def _assign(pairs: _Pairs, dets: Detections, truth: _Truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greedy assignment at all thresholds: tp (D, T), ignore (D, T), IoU at the lowest threshold (D,).

    The greedy rule is sequential only within an image and class. So the first detection of all groups is assigned in
    one step, then the second of all groups, and so on: as many steps as the busiest group has candidates.
    """
    shape = (len(dets.score), len(IOU_THRESHOLDS))
    tp, ignore, iou = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape[0])
    pairs, cuts = _in_rounds(pairs, truth)
    free = np.ones((len(truth.key), shape[1]), bool)
    for a, b in pairwise(cuts):
        step = _Pairs(*(column[a:b] for column in pairs))
        starts = _run_starts(step.det)
        pick = _first_fit(step, starts, free, truth.crowd)
        row, level = np.nonzero(pick < b - a)
        pick, det = pick[row, level], step.det[starts][row]
        g = step.gt[pick]
        free[g, level] = False
        ignore[det, level] = truth.ignore[g]
        tp[det, level] = ~truth.ignore[g]
        lowest = level == 0
        iou[det[lowest]] = step.iou[pick[lowest]]
    return tp, ignore, iou


def _in_rounds(pairs: _Pairs, truth: _Truth) -> tuple[_Pairs, np.ndarray]:
    """Pairs by round, then detection, then preference; and where the rounds begin and end.

    Preference of a detection: boxes that count before ignored ones, then the higher IoU, then the later box.
    """
    seq_starts = _run_starts(pairs.det)
    seq = np.repeat(np.arange(len(seq_starts)), np.diff(np.r_[seq_starts, len(pairs.det)]))
    group = truth.key[pairs.gt[seq_starts]]
    turn = _run_ranks(_run_starts(group), len(group))[seq]
    order = np.lexsort((-pairs.gt, -pairs.iou, truth.ignore[pairs.gt], seq, turn))
    rounds = np.r_[_run_starts(turn[order]), len(order)]
    return _Pairs(*(column[order] for column in pairs)), rounds


def _first_fit(step: _Pairs, starts: np.ndarray, free: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Per detection and threshold the first pair that can be taken, or the number of pairs; shape (dets, T)."""
    fits = (step.iou[:, None] >= IOU_THRESHOLDS) & (free[step.gt] | crowd[step.gt, None])
    position = np.where(fits, np.arange(len(fits))[:, None], len(fits))
    return np.minimum.reduceat(position, starts, axis=0)
