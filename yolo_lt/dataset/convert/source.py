"""One split of a foreign data set as every converter reads it: images, boxes, and what was looked for where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from yolo_lt.dataset.convert.outlines import Outlines
from yolo_lt.dataset.federated import EVERYTHING, LISTS, FederatedIndex
from yolo_lt.dataset.rows import Boxes, Lists

# what files and folders call a split, and what the data YAML calls it
SPLITS = dict.fromkeys(("train", "training"), "train") | {"minival": "minival"}
SPLITS |= dict.fromkeys(("val", "valid", "validation"), "val") | dict.fromkeys(("test", "testing"), "test")


@dataclass(frozen=True)
class Categories:
    """The classes of a source, C of them; a label's class id is the place in these.

    Attributes:
        names: What they are called.
        ids: Their ids in the source's files, int64.
        frequency: One letter r, c or f per class (LVIS), or None.
        labels: What a class hierarchy calls them (Open Images' /m/...), or None.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    frequency: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        categories: Its classes.
        images: Names of the N images as paths with `/`, none twice.
        objects: A box for every single object.
        groups: Boxes that stand for many objects (COCO's crowds, Open Images' groups): no labels, but evaluation and
            the federated index know them.
        positive, negative, not_exhaustive: Classes known to be in every image, known not to be, and with only some
            objects boxed, N rows each; None where every class was looked for in every image.
        outline: The coordinates of every object's label line; None where the source has no outlines.
        repairs: What had to be mended or left out, in words, and how often.
    """

    categories: Categories
    images: tuple[str, ...]
    objects: Boxes
    groups: Boxes
    positive: Lists | None = None
    negative: Lists | None = None
    not_exhaustive: Lists | None = None
    outline: Outlines | None = None
    repairs: Counter[str] = field(default_factory=Counter)


def index_of(split: Split) -> FederatedIndex | None:
    """The federated index of a split; None where every class was looked for in every image and nothing is a group."""
    if split.negative is not None and split.positive is not None:
        row, positive, negative = np.arange(len(split.images)), split.positive, split.negative
        partial = split.not_exhaustive or Lists.of([[] for _ in split.images])
    elif split.not_exhaustive is not None and len(split.not_exhaustive.classes):
        row, partial = _alike(split.not_exhaustive)
        positive = Lists.of([[]] * len(partial))
        negative = Lists.of([range(len(split.categories.names))] * len(partial))
    else:
        return None
    groups = replace(split.groups, box=split.groups.box.astype(np.float32)) if len(split.groups) else None
    names, labels = split.categories.names, split.categories.labels
    return FederatedIndex(names, split.images, row, positive, negative, partial, groups, labels)


def _alike(lists: Lists) -> tuple[np.ndarray, Lists]:
    """The row of every image among the lists that differ, shape (N,), int64; an empty list needs none."""
    rows: dict[bytes, int] = {}
    row = np.full(len(lists), EVERYTHING, np.int64)
    for i in np.flatnonzero(lists.lengths).tolist():
        row[i] = rows.setdefault(lists[i].tobytes(), len(rows))
    return row, Lists.of([np.frombuffer(classes, np.int32) for classes in rows])


def image_counts(boxes: Boxes, classes: int) -> np.ndarray:
    """Images that hold a box of every class, shape (C,), int64."""
    pairs = Lists.from_pairs(boxes.image, boxes.cls, len(boxes.offsets) - 1)
    return np.bincount(pairs.classes, minlength=classes)


def keep_classes(split: Split, classes: Sequence[int]) -> Split:
    """The split with some of its classes alone, numbered anew in their order.

    Every image stays that says something about them: where every class was looked for that is each of them, else those
    in which one of the kept classes is, or is known not to be.

    Args:
        split: The split, C classes.
        classes: Kept classes, in 0..C-1, none twice.
    """
    old = split.categories
    new = np.full(len(old.names), -1)
    new[list(classes)] = np.arange(len(classes))
    lists = {name: rows and rows.renumbered(new) for name in LISTS for rows in [getattr(split, name)]}
    images = np.arange(len(split.images))
    if split.negative is not None:
        images = images[np.any([rows.lengths for rows in lists.values() if rows is not None], axis=0)]
    kept = np.flatnonzero(new[split.objects.cls] >= 0)
    objects = split.objects.renumbered(new)
    return replace(
        split,
        categories=_some(old, classes),
        images=tuple(split.images[i] for i in images.tolist()),
        objects=objects.take(images),
        groups=split.groups.renumbered(new).take(images),
        **{name: rows and rows.take(images) for name, rows in lists.items()},
        outline=split.outline and split.outline.take(kept[objects.positions(images)]),
    )


def _some(categories: Categories, classes: Sequence[int]) -> Categories:
    columns = (getattr(categories, f.name) for f in fields(Categories))
    return Categories(*(column and tuple(column[c] for c in classes) for column in columns))
