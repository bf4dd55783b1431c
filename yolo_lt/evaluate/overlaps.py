"""Which boxes of one image overlap, and by how much: upright boxes, crowd regions, boxes that are turned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from yolo_lt.evaluate.arrays import Detections, GroundTruth, run_starts

PAIR_CHUNK = 1 << 18  # box pairs at a time: small enough to stay in cache, and memory stays flat


class Pairs(NamedTuple):
    """Detections and boxes that overlap enough: position of either, and IoU; each (P,)."""

    det: np.ndarray
    gt: np.ndarray
    iou: np.ndarray

    def at(self, index: np.ndarray | slice) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(column[index] for column in self))


class Boxes(NamedTuple):
    """Boxes in groups that can meet: left, top, right, bottom and area as rows (5, n); turned ones have an angle."""

    rows: np.ndarray
    angle: np.ndarray | None

    @classmethod
    def of(cls, boxes: GroundTruth | Detections, order: np.ndarray) -> Boxes:
        """Boxes in this order."""
        rows = np.empty((5, len(order)))
        rows[:4] = boxes.box.take(order, axis=0).T
        np.multiply(rows[2], rows[3], out=rows[4])
        rows[2:4] += rows[:2]
        return cls(rows, None if boxes.angle is None else boxes.angle[order])


def overlapping(
    dets: Detections,
    order: np.ndarray,
    det_key: np.ndarray,
    truth: Boxes,
    truth_key: np.ndarray,
    crowd: np.ndarray,
    least: float,
) -> Pairs:
    """All pairs of equal key with an IoU of at least `least`, by detection, then box.

    Args:
        dets: Detections.
        order: The order in which they are taken and, in the result, counted, shape (D,); equal keys stand together.
        det_key: What a detection may meet, for example its image and class, in that order, shape (D,).
        truth: Boxes, sorted by key.
        truth_key: Their keys, shape (G,), non-decreasing.
        crowd: Boxes whose IoU is the intersection over the detection's own area, shape (G,), bool.
        least: The lowest IoU that counts.
    """
    starts = run_starts(det_key)
    low = np.searchsorted(truth_key, det_key[starts], "left")
    count = np.searchsorted(truth_key, det_key[starts], "right") - low
    sizes = np.diff(np.r_[starts, len(det_key)])
    some = np.flatnonzero(np.repeat(count > 0, sizes))
    low, count = np.repeat(low, sizes * (count > 0)), np.repeat(count, sizes * (count > 0))
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for a, b in _chunks(count):
        n = count[a:b]
        g = np.arange(n.sum()) + np.repeat(low[a:b] - (np.cumsum(n) - n), n)
        boxes = Boxes.of(dets, order[some[a:b]])
        close = _close(np.repeat(np.arange(b - a), n), g, boxes, truth, crowd, least)
        found.append(close._replace(det=some[a:b][close.det]))
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _chunks(count: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of detections that have a bounded number of pairs together."""
    end = np.cumsum(count)
    total = int(end[-1]) if len(end) else 0
    cuts = np.unique(np.r_[0, np.searchsorted(end, np.arange(PAIR_CHUNK, total, PAIR_CHUNK)), len(count)])
    return pairwise(cuts.tolist())


def _close(d: np.ndarray, g: np.ndarray, dets: Boxes, truth: Boxes, crowd: np.ndarray, least: float) -> Pairs:
    """Those of the pairs that overlap by `least`."""
    if dets.angle is not None or truth.angle is not None:
        d, g, iou = _turned_iou(d, g, dets, truth, crowd)
    else:
        d, g, iou = _upright_iou(d, g, dets.rows, truth.rows, crowd)
    close = np.flatnonzero(iou >= least)
    return Pairs(d[close], g[close], iou[close])


def _upright_iou(d: np.ndarray, g: np.ndarray, dets: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> Pairs:
    """IoU of the pairs that touch, in COCO's order of operations."""
    (left, top, right, bottom, area), t = dets, truth
    width = np.minimum(right[d], t[2][g]) - np.maximum(left[d], t[0][g])
    near = np.flatnonzero(width > 0)
    d, g, width = d[near], g[near], width[near]
    height = np.minimum(bottom[d], t[3][g]) - np.maximum(top[d], t[1][g])
    near = np.flatnonzero(height > 0)
    d, g = d[near], g[near]
    return Pairs(d, g, _over_union(width[near] * height[near], area[d], t[4][g], crowd[g]))


def _over_union(inter: np.ndarray, area: np.ndarray, other: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    union = np.where(crowd, area, area + other - inter)
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes so small that their area is 0 in float64
        return inter / union


def _turned_iou(d: np.ndarray, g: np.ndarray, dets: Boxes, truth: Boxes, crowd: np.ndarray) -> Pairs:
    """IoU of the pairs whose circumscribed circles touch."""
    reach = _radius(dets.rows)[d] + _radius(truth.rows)[g]
    apart = _centres(dets.rows)[:, d] - _centres(truth.rows)[:, g]
    near = np.flatnonzero((apart**2).sum(axis=0) < reach**2)
    d, g = d[near], g[near]
    used_d, at_d = np.unique(d, return_inverse=True)
    used_g, at_g = np.unique(g, return_inverse=True)
    inter = _shared_area(_polygons(dets, used_d)[at_d], _polygons(truth, used_g)[at_g])
    return Pairs(d, g, _over_union(inter, dets.rows[4][d], truth.rows[4][g], crowd[g]))


def _shared_area(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area in which polygons a[i] and b[i] overlap, shape (P,)."""
    import shapely  # only turned boxes need it

    return shapely.area(shapely.intersection(a, b))


def _polygons(boxes: Boxes, index: np.ndarray) -> np.ndarray:
    """Turned boxes as shapely polygons, shape (n,)."""
    import shapely

    angle = np.zeros(len(index)) if boxes.angle is None else boxes.angle[index]
    half = np.maximum(boxes.rows[2:4, index] - boxes.rows[:2, index], 0) / 2  # a negative side is none
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = (np.outer(h, signs) for h, signs in zip(half, ([-1, 1, 1, -1], [-1, -1, 1, 1]), strict=True))
    turned = np.stack([x * cos[:, None] - y * sin[:, None], x * sin[:, None] + y * cos[:, None]], axis=2)
    return shapely.polygons(turned + _centres(boxes.rows)[:, index].T[:, None])


def _centres(rows: np.ndarray) -> np.ndarray:
    return (rows[:2] + rows[2:4]) / 2


def _radius(rows: np.ndarray) -> np.ndarray:
    return np.hypot(rows[2] - rows[0], rows[3] - rows[1]) / 2
