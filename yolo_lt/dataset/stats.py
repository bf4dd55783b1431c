"""ClassStats: how often every class occurs, per image and per instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from yolo_lt.errors import LTError


@dataclass(frozen=True)
class ClassStats:
    """Class occurrences of one split, in compressed rows: image i holds `classes[offsets[i]:offsets[i + 1]]`.

    Attributes:
        classes: Class ids of all boxes, image after image, with repeats, shape (M,), int32.
        offsets: Row borders, shape (N + 1,), int64.
        names: Class names, length C.
        frequency: The data set's own letter r, c or f per class (LVIS), if it has them.
    """

    classes: np.ndarray
    offsets: np.ndarray
    names: tuple[str, ...]
    frequency: tuple[str, ...] | None = None

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
        offsets = np.zeros(len(lists) + 1, dtype=np.int64)
        np.cumsum([len(x) for x in lists], out=offsets[1:])
        rows = [np.asarray(x).reshape(-1) for x in lists if len(x)]
        classes = np.concatenate(rows).astype(np.int32) if rows else np.zeros(0, np.int32)
        bad = np.flatnonzero((classes < 0) | (classes >= num_classes))
        if len(bad):
            image = int(np.searchsorted(offsets, bad[0], side="right")) - 1
            raise LTError(f"image {image}: class id {classes[bad[0]]} is outside 0..{num_classes - 1}")
        named = tuple(names) if names else tuple(f"class_{c}" for c in range(num_classes))
        return cls(classes, offsets, named, tuple(frequency) if frequency else None)

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
    def incidences(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct (image, class) pairs, sorted: image indices and class ids, each shape (P,)."""
        images = np.repeat(np.arange(self.num_images), np.diff(self.offsets))
        pairs = np.unique(images * self.num_classes + self.classes)
        return pairs // self.num_classes, pairs % self.num_classes

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
        out = np.full(self.num_images, empty, dtype=np.float64)
        filled = np.flatnonzero(np.diff(self.offsets))
        if len(filled):  # reduceat is wrong on empty rows, so only the filled ones are given to it
            out[filled] = np.maximum.reduceat(np.asarray(values, np.float64)[self.classes], self.offsets[filled])
        return out

    def images_with(self, image_weights: np.ndarray) -> np.ndarray:
        """Sum of a per-image weight over the images that hold the class, shape (C,), float64."""
        image, cls = self.incidences
        return np.bincount(cls, weights=image_weights[image], minlength=self.num_classes)


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
