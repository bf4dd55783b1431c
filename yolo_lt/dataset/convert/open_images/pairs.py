"""Pairs of an image and a class as whole numbers, image * C + class, of which millions are compared at once."""

from __future__ import annotations

import numpy as np

from yolo_lt.dataset.rows import Boxes, Lists


def pairs_of(image: np.ndarray, cls: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Pairs, sorted, without repeats, shape (P,), int32, or int64 if N * C needs it.

    Args:
        image: Indices of N images, shape (n,).
        cls: Indices of C classes, shape (n,).
        images: N.
        classes: C.
    """
    keys = image.astype(np.int32 if images * classes < 1 << 31 else np.int64)
    np.multiply(keys, classes, out=keys)
    np.add(keys, cls, out=keys, casting="same_kind")
    return _distinct(keys)


def pairs_of_boxes(boxes: Boxes, classes: int) -> np.ndarray:
    """The pairs that have a box."""
    images = len(boxes.offsets) - 1
    return pairs_of(_rows(boxes.offsets), boxes.cls, images, classes)


def pairs_of_lists(lists: Lists, classes: int) -> np.ndarray:
    """The pairs of lists, one per image."""
    return pairs_of(_rows(lists.offsets), lists.classes, len(lists), classes)


def _rows(offsets: np.ndarray) -> np.ndarray:
    """Row of every element, shape (M,), int32."""
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))


def as_lists(pairs: np.ndarray, images: int, classes: int) -> Lists:
    """Sorted pairs without repeats as lists, one per image."""
    offsets = np.zeros(images + 1, np.int64)
    np.cumsum(np.bincount(pairs // classes, minlength=images), out=offsets[1:])
    return Lists((pairs % classes).astype(np.int32), offsets)


def union(*parts: np.ndarray) -> np.ndarray:
    """What is in any of them, sorted, without repeats."""
    return _distinct(np.concatenate(parts))


def among(pairs: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of them are among sorted ones, shape (len(pairs),), bool."""
    if not len(known):
        return np.zeros(len(pairs), bool)
    return known[np.minimum(np.searchsorted(known, pairs), len(known) - 1)] == pairs


def _distinct(keys: np.ndarray) -> np.ndarray:
    """Sorted in place, as a copy of millions would be dear, and without repeats."""
    keys.sort()
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return keys[new]
