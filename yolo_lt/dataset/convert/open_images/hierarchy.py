"""Labels of Open Images expanded by its class hierarchy: a cat is an animal, so its box is that of an animal, too.

Source: the Open Images Challenge expands its ground truth by these rules before it is scored (Kuznetsova et al., The
Open Images Dataset V4, IJCV 2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yolo_lt.dataset.convert.open_images.pairs import among, as_lists, pairs_of, pairs_of_boxes, pairs_of_lists, union
from yolo_lt.dataset.convert.source import Split
from yolo_lt.dataset.federated import LISTS
from yolo_lt.dataset.rows import Boxes
from yolo_lt.errors import LTError

PIECE = 1 << 20  # boxes or pairs at a time: copies of all of them at once would take gigabytes
BECAME_BOTH = "classes of an image became both present and absent by the hierarchy, and count as present"


@dataclass(frozen=True)
class _Steps:
    """Where the classes lead.

    Attributes:
        first: Where the ends of every class begin, shape (C,), int64.
        count: How many it has, shape (C,), int64.
        end: The classes to which they lead, class after class, shape (K,), int64.
    """

    first: np.ndarray
    count: np.ndarray
    end: np.ndarray


def expand(split: Split, parents: Mapping[str, set[str]]) -> Split:
    """Let boxes, groups and positive labels hold for all ancestors, and negative labels for all descendants.

    Only ancestors and descendants that are categories count. A copy equal in class and box to a box that the image has,
    or gets from another class, is not added; boxes of single objects and of groups are compared among themselves. A
    class that becomes both positive and negative in an image is positive.

    Not exhaustive are then the classes of an image
    - that have a group, their own or of a descendant;
    - that are positive without a box of a single object, their own or of a descendant;
    - that were not exhaustive although they have such a box of their own;
    - and all ancestors of these: an unboxed cat is an unboxed animal.
    So an ancestor that was verified but never boxed, as only the most specific class is, becomes exhaustive by the
    boxes of its descendants, if each of them that is known to be there is exhaustive. The Challenge scores it so.

    Args:
        split: The split as annotated.
        parents: All ancestors of every label.

    Returns:
        The split, with a copy of a box behind its original. Lists that are None stay so. It shares the repairs of the
        given one, which get to know how many classes became both.

    Raises:
        LTError: None of the categories is in the hierarchy.
    """
    labels = split.categories.labels or split.categories.names
    if not any(label in parents for label in labels):
        shown = ", ".join(labels[:3])
        raise LTError(
            f"None of the {len(labels)} categories ({shown}, ...) is in the label hierarchy, so nothing can be "
            "expanded; the categories' labels and the hierarchy's must be of one kind, such as /m/01yrx."
        )
    up, down = _steps(parents, labels)
    objects, source = _with_copies(split.objects, up)
    groups, _ = _with_copies(split.groups, up)
    return replace(
        split,
        objects=objects,
        groups=groups,
        outline=split.outline and split.outline.take(source),
        **_lists(split, objects, groups, up, down),
    )


def _steps(parents: Mapping[str, set[str]], labels: Sequence[str]) -> tuple[_Steps, _Steps]:
    """From every class to its ancestors, and to its descendants, that are categories."""
    places: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        places.setdefault(label, []).append(i)
    related = [
        (i, j)
        for i, label in enumerate(labels)
        for ancestor in parents.get(label, ())
        if ancestor != label
        for j in places.get(ancestor, ())
    ]
    below, above = np.array(sorted(related), np.int64).reshape(-1, 2).T
    return _grouped(below, above, len(labels)), _grouped(above, below, len(labels))


def _grouped(start: np.ndarray, end: np.ndarray, classes: int) -> _Steps:
    count = np.bincount(start, minlength=classes)
    return _Steps(np.cumsum(count) - count, count, end[np.argsort(start, kind="stable")])


def _spread(cls: np.ndarray, steps: _Steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every entry, and behind it its copies.

    Returns:
        Place of the original, class, and whether it is a copy, of every entry and copy, each (m,); int64, int32, bool.
    """
    sizes = steps.count[cls] + 1
    source = np.repeat(np.arange(len(cls)), sizes)
    rank = np.arange(len(source)) - (np.cumsum(sizes) - sizes)[source]
    copied = rank > 0
    out = cls[source].astype(np.int32)
    out[copied] = steps.end[steps.first[out[copied]] + rank[copied] - 1]
    return source, out, copied


def _with_copies(boxes: Boxes, steps: _Steps) -> tuple[Boxes, np.ndarray]:
    """Boxes with their copies, and the place of every one's original."""
    first = np.searchsorted(boxes.offsets, range(0, len(boxes), PIECE))
    borders = [0, *first[1:].tolist(), len(boxes.offsets) - 1]
    pieces = (_copies_of_some(boxes, a, b, steps) for a, b in itertools.pairwise(borders))
    source, cls = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    box = np.empty((len(source), 4), boxes.box.dtype)
    for at in range(0, len(source), PIECE):
        box[at : at + PIECE] = boxes.box[source[at : at + PIECE]]
    return Boxes(np.searchsorted(source, boxes.offsets.astype(np.int32)), cls, box), source


def _copies_of_some(boxes: Boxes, a: int, b: int, steps: _Steps) -> tuple[np.ndarray, np.ndarray]:
    """Place of the original, and class, of the boxes of images a to b - 1 and of their copies, each (m,), int32."""
    start, end = boxes.offsets[[a, b]]
    part = Boxes(boxes.offsets[a : b + 1] - start, boxes.cls[start:end], boxes.box[start:end])
    source, cls, copied = _spread(part.cls, steps)
    kept = np.ones(len(cls), bool)
    kept[_surplus(part, source, cls, copied)] = False
    return (source[kept] + start).astype(np.int32), cls[kept]


def _surplus(boxes: Boxes, source: np.ndarray, cls: np.ndarray, copied: np.ndarray) -> np.ndarray:
    """Places of the copies that an image has already, as a box or as an earlier copy."""
    at = np.flatnonzero(_twins(boxes)[source])  # where one box alone has these coordinates, its copies differ in class
    box, copy = boxes.box[source[at]], copied[at]
    image = np.searchsorted(boxes.offsets, source[at], side="right") - 1
    order = np.lexsort((copy, cls[at], *box.T, image))  # within equal ones originals first, then as they came
    columns = (image, cls[at], *box.T)
    same = np.all([column[order[1:]] == column[order[:-1]] for column in columns], axis=0)
    return at[order[1:][same & copy[order[1:]]]]


def _twins(boxes: Boxes) -> np.ndarray:
    """Which boxes may have their coordinates in common with another one of their image, (M,), bool; few others."""
    digest = boxes.image.astype(np.uint64)
    bits = np.ascontiguousarray(boxes.box).view(f"u{boxes.box.itemsize}")
    for column in bits.T:
        digest = (digest ^ column) * np.uint64(0x9E3779B97F4A7C15)
        digest ^= digest >> np.uint64(29)
    ordered = np.sort(digest)
    return among(digest, ordered[1:][ordered[1:] == ordered[:-1]])


def _lists(split: Split, objects: Boxes, groups: Boxes, up: _Steps, down: _Steps) -> dict[str, Any]:
    """Those lists that the split has, given its boxes with their copies."""
    classes = len(split.categories.names)
    yes, no, partial = (
        pairs_of_lists(rows, classes) if rows else np.zeros(0, np.int64)
        for rows in (split.positive, split.negative, split.not_exhaustive)
    )
    single, group = pairs_of_boxes(objects, classes), pairs_of_boxes(groups, classes)
    positive = union(_spread_pairs(yes, up, split), single, group)
    negative = _spread_pairs(no, down, split)
    both = among(negative, positive)
    if both.any():
        split.repairs[BECAME_BOTH] = int(both.sum())
    own = partial[among(partial, pairs_of_boxes(split.objects, classes))]
    some = union(group, own) if split.positive is None else union(group, own, positive[~among(positive, single)])
    found = (positive, negative[~both], _spread_pairs(some, up, split))
    return {
        name: as_lists(pairs, len(split.images), classes)
        for name, pairs in zip(LISTS, found, strict=True)
        if getattr(split, name) is not None
    }


def _spread_pairs(pairs: np.ndarray, steps: _Steps, split: Split) -> np.ndarray:
    """Pairs and their copies."""
    classes = len(split.categories.names)
    spread = [pairs[:0]]
    for at in range(0, len(pairs), PIECE):
        image, cls = np.divmod(pairs[at : at + PIECE], classes)
        source, cls, _ = _spread(cls, steps)
        spread.append(pairs_of(image[source], cls, len(split.images), classes))
    return union(*spread)
