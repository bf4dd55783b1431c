"""Rows of different lengths as flat arrays: a list of classes per row, and the boxes of every image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lists:
    """One list of class ids per row, in compressed form: row r has `classes[offsets[r]:offsets[r + 1]]`.

    Attributes:
        classes: Shape (M,), int32.
        offsets: Shape (R + 1,), int64.
    """

    classes: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Iterable[int]]) -> Lists:
        """From lists; sorted, without repeats."""
        unique = [np.unique(np.fromiter(row, np.int32)) for row in rows]
        flat = np.concatenate(unique) if unique else np.zeros(0, np.int32)
        return cls(flat.astype(np.int32), np.cumsum([0, *map(len, unique)], dtype=np.int64))

    @classmethod
    def from_pairs(cls, row: np.ndarray, classes: np.ndarray, rows: int) -> Lists:
        """From the rows and classes of pairs in any order, each shape (P,); sorted, without repeats."""
        order = np.lexsort((classes, row))
        row, classes = row[order], classes[order]
        new = np.ones(len(row), bool)
        new[1:] = (row[1:] != row[:-1]) | (classes[1:] != classes[:-1])
        offsets = np.searchsorted(row[new], np.arange(rows + 1))
        return cls(classes[new].astype(np.int32), offsets.astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __bool__(self) -> bool:
        return True  # None alone means that nothing is known: `lists and lists.take(rows)`

    def __getitem__(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.classes[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Classes of every row, shape (R,), int64."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Lists:
        """These rows, in this order; shape (R,), integers."""
        at, offsets = _positions(self.offsets, rows)
        return Lists(self.classes[at], offsets)

    @classmethod
    def joined(cls, parts: Sequence[Lists]) -> Lists:
        """The rows of several, one after the other."""
        return cls(np.concatenate([p.classes for p in parts]), _joined_offsets([p.offsets for p in parts]))

    def renumbered(self, new: np.ndarray) -> Lists:
        """With other class ids, given for every class, shape (C,); what has -1 is left out."""
        row = np.repeat(np.arange(len(self)), self.lengths)
        kept = new[self.classes] >= 0
        return Lists.from_pairs(row[kept], new[self.classes[kept]], len(self))


@dataclass(frozen=True)
class Boxes:
    """Boxes of N images, image after image: image i has those from `offsets[i]` to `offsets[i + 1]`.

    Attributes:
        offsets: Shape (N + 1,), int64.
        cls: Class of every box, shape (M,), int32.
        box: Centre x, centre y, width and height in parts of the image's size, inside the image, shape (M, 4), float32
            or float64.
    """

    offsets: np.ndarray
    cls: np.ndarray
    box: np.ndarray

    def __len__(self) -> int:
        return len(self.cls)

    def __bool__(self) -> bool:
        return True  # as of `Lists`: no boxes in known images are not none at all

    @classmethod
    def none(cls, images: int) -> Boxes:
        """No boxes in so many images."""
        return cls(np.zeros(images + 1, np.int64), np.zeros(0, np.int32), np.zeros((0, 4), np.float32))

    @classmethod
    def joined(cls, parts: Sequence[Boxes]) -> Boxes:
        """The images of several, one after the other."""
        columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("cls", "box"))
        return cls(_joined_offsets([p.offsets for p in parts]), *columns)

    def of(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Classes (n,) and boxes (n, 4) of an image."""
        at = slice(self.offsets[image], self.offsets[image + 1])
        return self.cls[at], self.box[at]

    @property
    def image(self) -> np.ndarray:
        """Image of every box, shape (M,), int64."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def positions(self, images: np.ndarray) -> np.ndarray:
        """Where the boxes of these images are; -1 is an image without boxes. Shape (N,), integers."""
        return _positions(self.offsets, images)[0]

    def take(self, images: np.ndarray) -> Boxes:
        """The boxes of these images, in this order; -1 is an image without boxes. Shape (N,), integers."""
        at, offsets = _positions(self.offsets, images)
        return Boxes(offsets, self.cls[at], self.box[at])

    def renumbered(self, new: np.ndarray) -> Boxes:
        """With other class ids, given for every class, shape (C,); what has -1 is left out."""
        kept = new[self.cls] >= 0
        before = np.append(0, np.cumsum(kept))
        return Boxes(before[self.offsets], new[self.cls[kept]].astype(np.int32), self.box[kept])


def borders(lengths: np.ndarray) -> np.ndarray:
    """Row borders from row lengths: (N,) to (N + 1,), int64."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _joined_offsets(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The borders of rows that follow each other."""
    starts = np.cumsum([0, *(p[-1] for p in parts[:-1])])
    return np.concatenate([parts[0][:1], *(p[1:] + start for p, start in zip(parts, starts, strict=True))])


def _positions(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the elements of some rows are, and the borders of these rows; row -1 is empty."""
    lengths = np.append(np.diff(offsets), 0)[rows]
    new = borders(lengths)
    return np.arange(new[-1]) + np.repeat(np.append(offsets[:-1], 0)[rows] - new[:-1], lengths), new
