"""Boxes that look wrong, found in labels that are in memory; `defects` then names the lines of their files. Pure numpy.

What Ultralytics drops while it reads is not in memory any more, so this finds what it trains on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError

NEAR = 0.95  # IoU above which two boxes are one object drawn twice; two people do not draw one object alike to 5 %
BEYOND = 0.01  # parts of the image that a box may reach beyond its edge, as Ultralytics tolerates in a coordinate
BLOCK = 1_000_000  # boxes that are compared at a time, about: bounds the memory
FURTHEST = 1000  # boxes of an image whose left edges lie between: bounds the time where a file has a box 10,000 times
TINY = 2.0  # pixels; boxes of a side below this are left out by Ultralytics' augmentation
NO_LABELS = ("classes.txt",)  # LabelImg, CVAT and others write the names of the classes beside the labels


@dataclass(frozen=True)
class Suspects:
    """Places in the labels of boxes that look wrong, each an ascending array, int64; a box may be in several.

    Attributes:
        invalid: A value is not finite.
        flat: No width or no height.
        beyond: More than 1 % of the image beyond its edge.
        tiny: A side under 2 pixels; empty where the images' sizes are unknown.
        repeated: The class and box of an earlier one of the image.
        doubled: Another box of the class overlaps it with an IoU above 0.95; the later of the two.
        contested: The same with a box of another class; the later of the two.
    """

    invalid: np.ndarray
    flat: np.ndarray
    beyond: np.ndarray
    tiny: np.ndarray
    repeated: np.ndarray
    doubled: np.ndarray
    contested: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """Boxes of every kind."""
        return {f.name: len(getattr(self, f.name)) for f in fields(self)}

    def images(self, stats: ClassStats) -> np.ndarray:
        """The images that hold such boxes, ascending, int64."""
        boxes = np.concatenate([getattr(self, f.name) for f in fields(self)])
        return np.unique(np.searchsorted(stats.offsets, boxes, side="right") - 1)


def find_suspects(stats: ClassStats, box: np.ndarray, shapes: np.ndarray | None = None) -> Suspects:
    """Find the boxes that look wrong.

    Oriented boxes and polygons are judged by the upright box around them: two that cross like an X are found as one,
    and told apart when the file is read.

    Args:
        stats: Class occurrences of N images and M boxes.
        box: Centre x, centre y, width and height in parts of the image's size, shape (M, 4), in the order of
            `stats.classes`.
        shapes: Height and width of every image in pixels, shape (N, 2); None if unknown.

    Raises:
        LTError: The arrays do not fit each other.
    """
    if np.shape(box) != (len(stats.classes), 4):
        raise LTError(f"box of shape {np.shape(box)}: expected four numbers for each of {len(stats.classes)} boxes")
    if shapes is not None and np.shape(shapes) != (stats.num_images, 2):
        raise LTError(f"shapes of shape {np.shape(shapes)}: expected two numbers for each of {stats.num_images} images")
    finite = _finite(box)
    sized = finite & (box[:, 2] > 0) & (box[:, 3] > 0)
    tiny = sized & _tiny(stats, box, shapes) if shapes is not None else np.zeros(len(box), bool)
    first = earlier_twins(stats.classes, stats.offsets, box)
    found = (~finite, finite & ~sized, sized & (_reach(box) > BEYOND), tiny, *(twin >= 0 for twin in first))
    return Suspects(*map(np.flatnonzero, found))


def _finite(box: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.isfinite(box[:, 0] + box[:, 1] + box[:, 2] + box[:, 3])  # several times as fast as all(axis=1)


def _reach(box: np.ndarray) -> np.ndarray:
    """How far a box reaches beyond the nearest edge, in parts of the image, shape (M,); negative inside."""
    x, y = (np.abs(box[:, i] - 0.5) + box[:, i + 2] / 2 for i in (0, 1))
    return np.maximum(x, y) - 0.5


def _tiny(stats: ClassStats, box: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    lengths = np.diff(stats.offsets)
    tall, wide = (np.repeat(np.asarray(shapes, np.float32)[:, i], lengths) * box[:, 3 - i] < TINY for i in (0, 1))
    return tall | wide


def earlier_twins(cls: np.ndarray, offsets: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every box the first earlier one of its image that is the same, nearly so, or the same but for its class.

    Boxes that are not finite or have a negative side have none. Of more than 1000 boxes that begin within 5 % of their
    width it is the first among the nearest.

    Args:
        cls: Classes, shape (M,).
        offsets: Row borders of the images, shape (N + 1,).
        box: Centre x, centre y, width and height, shape (M, 4).

    Returns:
        Three arrays of shape (M,), int64, -1 where there is none: of the same class and equal; of the same class, not
        equal, and with an IoU above 0.95; of another class with an IoU above 0.95 or equal.
    """
    cls, box, twins = np.asarray(cls), np.asarray(box), np.full((3, len(cls)), -1, np.int64)
    full = np.searchsorted(offsets, np.arange(0, len(cls), BLOCK)).tolist()  # the images that begin a block
    for first, last in pairwise([*full, len(offsets) - 1]):
        a, b = int(offsets[first]), int(offsets[last])
        found = _earlier_twins(cls[a:b], offsets[first : last + 1] - a, box[a:b])
        twins[:, a:b] = np.where(found >= 0, found + a, -1)
    return twins[0], twins[1], twins[2]


def _earlier_twins(cls: np.ndarray, offsets: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The three kinds of twins of the boxes of some images, shape (3, M)."""
    order, key, room = _sweep(offsets, box)
    twins = np.full((3, len(cls)), len(cls), np.int64)
    first, lag = np.arange(len(order)), 0
    while len(first) and lag < FURTHEST:
        lag += 1
        first = first[: np.searchsorted(first, len(order) - lag)]
        first = first[key[first + lag] - key[first] <= room[first]]
        a, b = _alike(order[first], order[first + lag], box)
        equal, one = (box[a] == box[b]).all(axis=1), cls[a] == cls[b]
        for twin, kind in zip(twins, (one & equal, one & ~equal, ~one), strict=True):
            np.minimum.at(twin, b[kind], a[kind])
    return np.where(twins < len(cls), twins, -1)


def _sweep(offsets: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finite boxes by image and left edge: their places, a number that rises in this order, and how far one may look.

    An IoU is at most that of the boxes' widths, so the left edges of two with an IoU above t differ by at most
    (1 - t) / t of either width. The number of an image begins 4 after that of the one before, so one comparison keeps
    both to the image and to the edge.
    """
    with np.errstate(invalid="ignore"):  # inf - inf
        left = np.clip(box[:, 0].astype(np.float64) - box[:, 2] / 2, -1, 2)
    number = np.repeat(np.arange(len(offsets) - 1) * 4.0, np.diff(offsets)) + left
    use = np.flatnonzero(_finite(box) & (box[:, 2] >= 0) & (box[:, 3] >= 0))
    order = use[np.argsort(number[use], kind="stable")]
    room = np.minimum(box[order, 2].astype(np.float64) * ((1 - NEAR) / NEAR), 0.5)
    room += 1e-8  # more than the digits that the number loses
    return order, number[order], room


def _alike(a: np.ndarray, b: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that are equal or overlap with an IoU above `NEAR`, the earlier place first."""
    one, two = box[a].astype(np.float64), box[b].astype(np.float64)
    low = np.maximum(one[:, :2] - one[:, 2:] / 2, two[:, :2] - two[:, 2:] / 2)
    high = np.minimum(one[:, :2] + one[:, 2:] / 2, two[:, :2] + two[:, 2:] / 2)
    inter = np.maximum(high - low, 0).prod(axis=1)
    union = one[:, 2:].prod(axis=1) + two[:, 2:].prod(axis=1) - inter
    alike = (inter > NEAR * union) | (one == two).all(axis=1)
    a, b = a[alike], b[alike]
    return np.minimum(a, b), np.maximum(a, b)


# Files ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gaps:
    """Where images and label files do not belong together.

    Attributes:
        missing: Images without a label file, as places in the list of images: Ultralytics takes them for background.
        empty: Images whose label file has no row, likewise: background that somebody has looked at.
        orphans: Label files that belong to no image, sorted.
        shared: Label files that belong to several images (`a.jpg` beside `a.png`), sorted: all get the same labels.
    """

    missing: tuple[int, ...]
    empty: tuple[int, ...]
    orphans: tuple[str, ...]
    shared: tuple[str, ...]


def find_gaps(labels: Sequence[str], boxes: Sequence[int] | np.ndarray, files: Iterable[str]) -> Gaps:
    """Compare the label files that images should have with those that there are.

    Args:
        labels: The label file of every image, N paths. An orphan is one of none of them, so these are the images of all
            splits whose labels lie in the same folders, also those that Ultralytics dropped.
        boxes: How many boxes each image has, shape (N,); of a dropped image any number above 0.
        files: The label files that there are, as absolute or as relative as `labels`. A `classes.txt`, which annotation
            tools write beside the labels, is none.

    Raises:
        LTError: `labels` and `boxes` differ in length.
    """
    if len(labels) != len(boxes):
        raise LTError(f"{len(labels)} label files, but {len(boxes)} numbers of boxes")
    there = {os.path.normpath(f) for f in files if os.path.basename(f) not in NO_LABELS}
    wanted = [os.path.normpath(label) for label in labels]
    often = Counter(wanted)
    return Gaps(
        missing=tuple(i for i, label in enumerate(wanted) if label not in there),
        empty=tuple(i for i, label in enumerate(wanted) if label in there and not boxes[i]),
        orphans=tuple(sorted(there - set(wanted))),
        shared=tuple(sorted(label for label, n in often.items() if n > 1 and label in there)),
    )
