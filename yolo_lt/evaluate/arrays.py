"""Ground truth and detections as compact arrays: what readers make, protocols choose from, and the matcher takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GroundTruth:
    """The truth as compact arrays; image and class are indices into the sorted ids.

    Attributes:
        image_ids: Sorted image ids, shape (N,), int64 or str.
        category_ids: Sorted category ids, shape (C,), int64.
        names: Class names in the order of `category_ids`.
        image: Image index per box, shape (G,), int64, in file order (it decides between equal IoUs).
        cls: Class index per box, shape (G,), int64.
        box: x, y, width, height, shape (G, 4), float64; of a rotated box, before it is turned about its centre.
        area: The annotation's own area (it may be a mask's), shape (G,), float64.
        crowd: Boxes that stand for many objects (COCO's crowds, Open Images' groups), shape (G,), bool.
        frequency: One letter r, c or f per class, or None.
        image_counts: Training images per class as the file gives them (LVIS' image_count), shape (C,), int64, or None.
        ignored: Boxes that do not count (LVIS' `ignore`), shape (G,), bool, or None.
        angle: Radians by which each box is turned, shape (G,), float64, or None where boxes are upright.
        negative: (image, class) pairs known to hold no object, as sorted keys image * C + class, int64; None where the
            labels are not federated.
        positive: Likewise, known to hold one, whether or not it is boxed; the pairs with boxes need not be there.
        partial: Likewise, with only some of the objects boxed (LVIS' not_exhaustive_category_ids).
        labels: What a class hierarchy calls the classes (Open Images' freebase_id), or None: their names.
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
    image_counts: np.ndarray | None = None
    ignored: np.ndarray | None = None
    angle: np.ndarray | None = None
    negative: np.ndarray | None = None
    positive: np.ndarray | None = None
    partial: np.ndarray | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Detections:
    """Scored boxes; indices as in `GroundTruth`.

    Attributes:
        image: Image index, shape (D,), int64.
        cls: Class index, shape (D,), int64; -1 for a category that the ground truth does not list.
        box: x, y, width, height, shape (D, 4), float64; of a rotated box, before it is turned about its centre.
        score: Shape (D,), float64, finite.
        angle: Radians by which each box is turned, shape (D,), float64, or None where boxes are upright.
    """

    image: np.ndarray
    cls: np.ndarray
    box: np.ndarray
    score: np.ndarray
    angle: np.ndarray | None = None


BOX_FIELDS = ("image", "cls", "box", "area", "crowd", "ignored", "angle")


def take(dets: Detections, index: np.ndarray) -> Detections:
    """Some of the detections, by position or by mask."""
    columns: dict[str, Any] = {f.name: _at(getattr(dets, f.name), index) for f in fields(dets)}
    return Detections(**columns)


def take_boxes(gt: GroundTruth, index: np.ndarray) -> dict[str, Any]:
    """The columns of some of the boxes, for `dataclasses.replace`."""
    return {name: _at(getattr(gt, name), index) for name in BOX_FIELDS}


def _at(column: np.ndarray | None, index: np.ndarray) -> np.ndarray | None:
    """Rows by position or mask; numpy's `take` copies them several times faster than indexing does."""
    if column is None:
        return None
    return column.take(np.flatnonzero(index) if index.dtype == bool else index, axis=0)


def stable_argsort(index: np.ndarray, bound: int) -> np.ndarray:
    """Stable argsort of whole numbers below `bound`; numpy sorts 16-bit integers by radix, ten times faster."""
    return np.argsort(index.astype(np.uint16) if bound <= 1 << 16 else index, kind="stable")


def run_starts(*keys: np.ndarray) -> np.ndarray:
    """Where each run of neighbours equal in all keys begins, shape (runs,)."""
    new = np.ones(len(keys[0]), bool)
    new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.flatnonzero(new)


def run_ranks(starts: np.ndarray, size: int) -> np.ndarray:
    """Position of each element within its run, shape (size,)."""
    return np.arange(size) - np.repeat(starts, np.diff(np.r_[starts, size]))


def best_of_groups(dets: Detections, group: np.ndarray, bound: int, size: int) -> Detections:
    """The best detections of every group; of equal scores those that come first. What stays keeps its order.

    Args:
        dets: Detections.
        group: Whole numbers from 0, shape (D,), for example their images.
        bound: Groups there can be.
        size: How many of a group stay; 0: all.
    """
    kept = best_positions(dets.score, group, bound, size)
    return dets if len(kept) == len(group) else take(dets, kept)


def best_positions(score: np.ndarray, group: np.ndarray, bound: int, size: int) -> np.ndarray:
    """Positions of what `best_of_groups` keeps, rising."""
    if not size or not len(group) or np.bincount(group, minlength=bound).max() <= size:
        return np.arange(len(group))
    order = np.argsort(-score, kind="stable")
    order = order[stable_argsort(group[order], bound)]
    return np.sort(order[run_ranks(run_starts(group[order]), len(order)) < size])
