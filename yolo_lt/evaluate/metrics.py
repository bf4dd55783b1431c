"""Precision, recall and AP from matches, for any whole-number weight per image.

Weight 1 everywhere is the ordinary metric; bootstrap replicates are other weights. There is one calculation for both,
on integers until the last division, so that a replicate equals the metric of the data set with its images repeated.

Only true positives raise recall, so precision is needed at those alone: `prepare` finds them once, and a weighting
costs two running sums. Copies of an image are counted next to each other: all copies of a detection stand side by
side among equal scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from yolo_lt.evaluate.arrays import stable_argsort
from yolo_lt.evaluate.matching import COCO_POINTS, Matches

RECALL_POINTS = np.linspace(0.0, 1.0, COCO_POINTS)
POINTS_AND_END = np.append(RECALL_POINTS, np.inf)
METRICS = ("AP", "AP50", "AP75", "AR")


@dataclass(frozen=True)
class Curves:
    """What the precision-recall curves of all classes and thresholds need, whatever the images weigh.

    An event is a detection that is right or ignored at a threshold; events stand by class, threshold, then rank. Of
    events with no wrong detection between them the last has the highest recall and precision under every weighting,
    so curves are computed at those only: the points.

    Attributes:
        stream_image: Image of every detection down to its class's last event, shape (S,), intp.
        class_start: First position of each class in the stream, shape (C,).
        image: Image of every event, shape (E,), intp.
        right: 1 for a true positive, 0 for an ignored detection, shape (E,), int32.
        segment_start: First event of each (class, threshold), shape (C * T + 1,).
        event: Events up to and with every point's, shape (P,).
        place: Detections in the stream up to and with every point's, shape (P,).
        cell: Row of every point in a (C * T, R + 1) table, as an offset, shape (P,).
        segment_points: Points of each (class, threshold), shape (C * T,).
        class_points: Points of each class, shape (C,).
        gt_image: Image index of every (image, class) with ground truth, shape (M,), intp.
        gt_class: Class index, shape (M,), intp.
        gt_count: Boxes that count, shape (M,), int32.
        iou_thresholds: Shape (T,), float64.
        every_recall: Precision is read at every recall that is reached, not at `RECALL_POINTS`.
        all_right: No event is an ignored detection.
    """

    stream_image: np.ndarray
    class_start: np.ndarray
    image: np.ndarray
    right: np.ndarray
    segment_start: np.ndarray
    event: np.ndarray
    place: np.ndarray
    cell: np.ndarray
    segment_points: np.ndarray
    class_points: np.ndarray
    gt_image: np.ndarray
    gt_class: np.ndarray
    gt_count: np.ndarray
    iou_thresholds: np.ndarray
    every_recall: bool = False
    all_right: bool = False


def prepare(matches: Matches) -> Curves:
    """Do the sorting that no image weight changes."""
    num_classes, levels = len(matches.category_ids), len(matches.iou_thresholds)
    cell, segment = _events(matches)
    det = cell // levels
    last = np.full(num_classes, -1)
    np.maximum.at(last, matches.cls[det], det)
    kept = np.arange(len(matches.cls)) <= last[matches.cls]  # what follows the last event changes no curve
    point = _points(det, segment)
    return Curves(
        stream_image=matches.image[kept].astype(np.intp),
        class_start=np.searchsorted(matches.cls[kept], np.arange(num_classes)),
        image=matches.image[det].astype(np.intp),
        right=matches.tp.reshape(-1)[cell].astype(np.int32),
        segment_start=np.searchsorted(segment, np.arange(num_classes * levels + 1)),
        event=point + 1,
        place=np.cumsum(kept)[det[point]],
        cell=segment[point] * (len(RECALL_POINTS) + 1),
        segment_points=np.bincount(segment[point], minlength=num_classes * levels),
        class_points=np.bincount(segment[point] // levels, minlength=num_classes),
        gt_image=matches.gt_image.astype(np.intp),
        gt_class=matches.gt_class.astype(np.intp),
        gt_count=matches.gt_count,
        iou_thresholds=matches.iou_thresholds,
        every_recall=matches.recall_points == 0,
        all_right=not matches.ignore.any(),
    )


def _events(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Cell (detection * T + threshold index) and segment (class * T + threshold index) of every event, each (E,)."""
    levels = len(matches.iou_thresholds)
    cell = np.flatnonzero(matches.tp | matches.ignore)
    segment = matches.cls[cell // levels].astype(np.int64) * levels + cell % levels
    order = stable_argsort(segment, len(matches.category_ids) * levels)
    return cell[order], segment[order]


def _points(det: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """Events that are not followed at once by another event of their segment."""
    ends = np.ones(len(det), bool)
    ends[:-1] = (np.diff(segment) > 0) | (np.diff(det) > 1)
    return np.flatnonzero(ends)


def weighted_curves(curves: Curves, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall when image i counts weights[i] times.

    Args:
        curves: From `prepare`.
        weights: Whole numbers >= 0, shape (N,); the sum over all detections must stay below 2^31.

    Returns:
        Interpolated precision (C, T, R), recall (C, T), both float64 and meaningless where a class has no ground
        truth, and the ground-truth boxes per class (C,), int64. Image weight 0 leaves no trace of the image.
    """
    counts = _counts(curves, weights)
    table = _table(curves, counts.precision, _reached(curves, counts.truths, counts.found))
    return table, counts.recall, counts.truths


class _Counts(NamedTuple):
    """What one weighting gives: true positives and precision at every point (P,), recall (C, T), boxes (C,)."""

    found: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    truths: np.ndarray


def _counts(curves: Curves, weights: np.ndarray) -> _Counts:
    weights = np.asarray(weights, dtype=np.int32)
    num_classes = len(curves.class_start)
    boxes = weights[curves.gt_image] * curves.gt_count
    truths = np.bincount(curves.gt_class, weights=boxes, minlength=num_classes).astype(np.int64)
    found, counted, total = _running_counts(curves, weights)
    precision = counted + np.spacing(1)  # COCOeval's guard against 0 / 0, kept for equal digits
    np.divide(found, precision, out=precision)
    recall = total.reshape(num_classes, len(curves.iou_thresholds)) / np.maximum(truths, 1)[:, None]
    return _Counts(found, precision, recall, truths)


def _running_counts(curves: Curves, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives and counted detections so far at every point (P,), and true positives per segment (C * T,)."""
    weight = weights.take(curves.image)
    right = weight if curves.all_right else weight * curves.right
    found, total = _within_segments(curves, right)
    run = _sums(weights.take(curves.stream_image))
    counted = run.take(curves.place)
    counted -= np.repeat(run[curves.class_start], curves.class_points)
    if not curves.all_right:
        counted -= _within_segments(curves, weight - right)[0]
    return found, counted, total


def _sums(values: np.ndarray) -> np.ndarray:
    """Running sum with a leading 0, int32."""
    out = np.empty(len(values) + 1, np.int32)
    out[0] = 0
    np.cumsum(values, dtype=np.int32, out=out[1:])
    return out


def _within_segments(curves: Curves, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Running sum over events that starts again in every segment, at every point; and the total of each segment."""
    run = _sums(values)
    start = run[curves.segment_start]
    sums = run.take(curves.event)
    sums -= np.repeat(start[:-1], curves.segment_points)
    return sums, np.diff(start)


def _reached(curves: Curves, truths: np.ndarray, found: np.ndarray) -> np.ndarray:
    """How many of the recall points each point's recall reaches, 0..R.

    Recall is a whole number over the class's ground truth: the recall points are looked up once per class and whole
    number, which is far fewer than points on curves.
    """
    sizes = truths + 1
    offset = np.cumsum(sizes) - sizes
    hits = np.arange(sizes.sum()) - np.repeat(offset, sizes)
    reach = points_reached(hits / np.repeat(np.maximum(truths, 1), sizes))
    row = np.repeat(offset, curves.class_points)
    row += found
    return reach.take(row)


def points_reached(recall: np.ndarray) -> np.ndarray:
    """How many of `RECALL_POINTS` are at or below each recall in [0, 1]; what searchsorted says, ten times faster.

    100 times the recall, cut to a whole number, is at most one off, whichever way the product was rounded.
    """
    near = (recall * (len(RECALL_POINTS) - 1)).astype(np.intp)
    return near + (POINTS_AND_END[near] <= recall) + (POINTS_AND_END[near + 1] <= recall)


def _table(curves: Curves, precision: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Best precision at or beyond every recall point, shape (C, T, R); 0 beyond the last recall."""
    shape = (len(curves.class_start), len(curves.iou_thresholds), len(RECALL_POINTS) + 1)
    table = np.zeros(shape)
    cell = curves.cell + reached
    if len(cell):
        starts = np.flatnonzero(np.r_[True, cell[1:] != cell[:-1]])
        table.reshape(-1)[cell[starts]] = np.maximum.reduceat(precision, starts)
    return np.maximum.accumulate(table[:, :, :0:-1], axis=2)[:, :, ::-1]


def precision_recall(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of COCOeval.accumulate for one area range and one cap.

    Returns:
        Precision at 101 recall points, shape (T, R, C), and recall, shape (T, C), float64; -1 for a class without
        ground truth.
    """
    precision, recall, truths = weighted_curves(prepare(matches), np.ones(len(matches.image_ids), np.int32))
    precision[truths == 0], recall[truths == 0] = -1, -1
    return precision.transpose(1, 2, 0), recall.T


def weighted_metrics(curves: Curves, weights: np.ndarray) -> np.ndarray:
    """AP, AP50, AP75 and AR of every class when image i counts weights[i] times.

    Returns:
        Shape (C, 4), float64, columns as in `METRICS`; NaN where the class has no ground truth with a weight, or the
        threshold is not among the protocol's.
    """
    if curves.every_recall:
        counts = _counts(curves, weights)
        ap, recall, truths = _area(curves, counts), counts.recall, counts.truths
    else:
        precision, recall, truths = weighted_curves(curves, weights)
        ap = precision.mean(axis=2)
    columns = [ap.mean(axis=1), _at(ap, curves, 0.5), _at(ap, curves, 0.75), recall.mean(axis=1)]
    values = np.stack(columns, axis=1)
    values[truths == 0] = np.nan
    return values


def _area(curves: Curves, counts: _Counts) -> np.ndarray:
    """AP as the area under the curve of best precision at or beyond every recall that is reached, shape (C, T).

    Of right detections with no wrong one between them the last has the best precision, so the points are enough.
    """
    segments = len(curves.segment_points)
    segment = np.repeat(np.arange(segments), curves.segment_points)
    lift = 2.0 * (segments - segment)  # keeps the running maximum from one segment out of the segment before
    best = np.maximum.accumulate((counts.precision + lift)[::-1])[::-1] - lift
    first = np.r_[True, segment[1:] != segment[:-1]] if len(segment) else np.zeros(0, bool)
    gained = np.where(first, counts.found, np.diff(counts.found, prepend=0))
    area = np.bincount(segment, gained * best, segments).reshape(counts.recall.shape)
    return area / np.maximum(counts.truths, 1)[:, None]


def class_metrics(matches: Matches) -> np.ndarray:
    """AP, AP50, AP75 and AR of every class, shape (C, 4), float64; NaN without ground truth."""
    return weighted_metrics(prepare(matches), np.ones(len(matches.image_ids), np.int32))


def _at(ap: np.ndarray, curves: Curves, threshold: float) -> np.ndarray:
    """The column of one IoU threshold, shape (C,)."""
    level = np.flatnonzero(np.abs(curves.iou_thresholds - threshold) < 1e-9)
    return ap[:, level[0]] if len(level) else np.full(len(ap), np.nan)


def set_means(values: np.ndarray, sets: Sequence[np.ndarray]) -> np.ndarray:
    """Means over sets of classes, of those that have a value.

    Args:
        values: Per class, shape (C, 4), NaN where there is none.
        sets: Class indices of each set.

    Returns:
        Shape (len(sets), 4); NaN where no class of the set has a value.
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    sums = np.array([filled[s].sum(axis=0) for s in sets]).reshape(-1, values.shape[1])
    counts = np.array([known[s].sum(axis=0) for s in sets]).reshape(-1, values.shape[1])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def named(names: Sequence[str], values: np.ndarray) -> dict[str, Any]:
    """Names to numbers, or to pairs of numbers; None for NaN."""
    return {name: None if np.isnan(v).any() else v.tolist() for name, v in zip(names, values, strict=True)}
