"""ClassStats: how often every class occurs, per image and per instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from yolo_lt.dataset.rows import borders
from yolo_lt.errors import LTError


@dataclass(frozen=True)
class ClassStats:
    """Class occurrences of one split, in compressed rows: image i holds `classes[offsets[i]:offsets[i + 1]]`.

    Attributes:
        classes: Class ids of all boxes, image after image, with repeats, shape (M,), int32.
        offsets: Row borders, shape (N + 1,), int64.
        names: Class names, length C.
        frequency: The data set's own letter r, c or f per class (LVIS), if it has them.
        incidences: The distinct (image, class) pairs, sorted: image indices and class ids, each shape (P,), int32
            (int64 if N * C needs it). Counted at once, because everything else is made from them.
    """

    classes: np.ndarray
    offsets: np.ndarray
    names: tuple[str, ...]
    frequency: tuple[str, ...] | None = None
    incidences: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the distinct pairs."""
        object.__setattr__(self, "incidences", _distinct_pairs(self.classes, self.offsets, self.num_classes))

    @classmethod
    def from_lists(
        cls,
        lists: Sequence[Sequence[int]],
        num_classes: int,
        names: Sequence[str] | None = None,
        frequency: Sequence[str] | None = None,
    ) -> ClassStats:
        """Build from one list of class ids per image, with repeats.

        Raises:
            LTError: A class id is outside 0..num_classes-1.
        """
        rows = [np.asarray(x).reshape(-1) for x in lists if len(x)]
        flat = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        return cls.from_flat(flat, np.array([len(x) for x in lists], np.int64), num_classes, names, frequency)

    @classmethod
    def from_flat(
        cls,
        flat: np.ndarray,
        lengths: np.ndarray,
        num_classes: int,
        names: Sequence[str] | None = None,
        frequency: Sequence[str] | None = None,
    ) -> ClassStats:
        """Build from the class ids of all boxes, image after image, shape (M,), and the boxes per image, shape (N,).

        Raises:
            LTError: A class id is outside 0..num_classes-1.
        """
        offsets = borders(lengths)
        # two numbers first: masks over millions of boxes are made only for the message; a nan fails the comparison too
        if len(flat) and not (flat.min() >= 0 and flat.max() < num_classes):
            bad = np.flatnonzero(~((flat >= 0) & (flat < num_classes)))[0]
            image = int(np.searchsorted(offsets, bad, side="right")) - 1
            raise LTError(f"image {image}: class id {flat[bad]:.10g} is outside 0..{num_classes - 1}")
        named = tuple(names) if names else tuple(f"class_{c}" for c in range(num_classes))
        return cls(flat.astype(np.int32), offsets, named, tuple(frequency) if frequency else None)

    def select(self, keep: np.ndarray) -> ClassStats:
        """The statistics of some images alone; `keep` has shape (N,), bool."""
        lengths = np.diff(self.offsets)
        return ClassStats(self.classes[np.repeat(keep, lengths)], borders(lengths[keep]), self.names, self.frequency)

    @property
    def num_images(self) -> int:
        """Images of the split, with or without labels."""
        return len(self.offsets) - 1

    @property
    def num_classes(self) -> int:
        """Classes of the data set, occurring or not."""
        return len(self.names)

    @cached_property
    def instance_counts(self) -> np.ndarray:
        """Boxes per class, shape (C,), int64."""
        return np.bincount(self.classes, minlength=self.num_classes)

    @cached_property
    def image_counts(self) -> np.ndarray:
        """Images that hold the class at least once, shape (C,), int64."""
        return np.bincount(self.incidences[1], minlength=self.num_classes)

    @property
    def image_classes(self) -> list[np.ndarray]:
        """Class ids of every image, with repeats: N arrays."""
        return list(self)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Class ids image after image."""
        return (self.classes[a:b] for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True))

    def per_image_max(self, values: np.ndarray, empty: float) -> np.ndarray:
        """Largest of a per-class value over the classes of every image, shape (N,), float64; `empty` without labels."""
        image, cls = self.incidences
        out = np.full(self.num_images, -np.inf)
        np.maximum.at(out, image, np.asarray(values, np.float64)[cls])
        return np.where(np.diff(self.offsets) > 0, out, empty)

    def images_with(self, image_weights: np.ndarray) -> np.ndarray:
        """Sum of a per-image weight over the images that hold the class, shape (C,), float64."""
        image, cls = self.incidences
        return np.bincount(cls, weights=image_weights[image], minlength=self.num_classes)


def _distinct_pairs(classes: np.ndarray, offsets: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct (image, class) pairs of compressed rows, sorted, each shape (P,)."""
    images = len(offsets) - 1
    dtype = np.int32 if images * num_classes < 2**31 else np.int64
    keys = np.repeat((np.arange(images) * num_classes).astype(dtype), np.diff(offsets))
    keys += classes
    keys.sort(kind="stable")  # a merge sort: the images are in order already, so only the short rows cost time
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    keys = keys[np.flatnonzero(first)]  # a mask in its place is several times slower
    return keys // num_classes, keys % num_classes


def imbalance(counts: np.ndarray) -> dict[str, float]:
    """Imbalance of one count per class, over the classes that occur.

    Returns:
        ratio (most to least frequent), gini (0 even, to 1), entropy (of the class shares, 1 even, to 0) and effective
        (the exponential of the entropy: how many equally frequent classes would be as diverse).
    """
    n = np.sort(counts[counts > 0].astype(np.float64))
    if not len(n):
        return {"ratio": 0.0, "gini": 0.0, "entropy": 0.0, "effective": 0.0}
    share = n / n.sum()
    nats = float(-(share * np.log(share)).sum())
    rank = np.arange(1, len(n) + 1)
    gini = float((2 * rank - len(n) - 1) @ n / (len(n) * n.sum()))
    entropy = nats / np.log(len(n)) if len(n) > 1 else 1.0
    return {"ratio": float(n[-1] / n[0]), "gini": gini, "entropy": entropy, "effective": float(np.exp(nats))}
