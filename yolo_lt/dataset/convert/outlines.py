"""Outlines of objects as label lines have them: one polygon each, in parts of the image's size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import msgspec
import numpy as np

Join = Callable[[list[list[float]]], Sequence[np.ndarray]]  # parts, "x y x y ..." each -> pieces (k, 2) of one outline
Contours = Callable[[np.ndarray], list[list[float]]]  # mask (height, width), uint8, 0 or 1 -> parts

DIGITS = 6  # of a coordinate: a hundredth of a pixel in an image of 10,000
MOST_BITS = 60  # of a run in a packed mask: what is longer is none
FITS = 0.96  # IoU of an outline's bounds with the box, below which the box counts: it is what detection is scored by
MISFIT = "objects whose outline does not fit their box got the box as outline"
WITHOUT = "objects without a usable outline got their box as outline"

_parts = msgspec.json.Decoder(list[list[float]])
_parts_of_many = msgspec.json.Decoder(list[list[list[float]]])
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Outlines:
    """The outlines of M objects, read when they are asked for: `outlines(range(a, b))` gives what label lines have.

    Ultralytics takes the box of a line with an outline from the outline, and refuses a file that has lines of both
    kinds; so every object gets one.

    Attributes:
        raw: COCO's `segmentation` of every object, as it lies in the file.
        box: Their label boxes, shape (M, 4).
        size: Width and height of their images, shape (M, 2).
        join: Joins parts.
        contours: Makes parts of a mask; None: masks are not read.
        repairs: Counts where the box stood in.
    """

    raw: Sequence[msgspec.Raw]
    box: np.ndarray
    size: np.ndarray
    join: Join
    contours: Contours | None
    repairs: Counter[str]

    def __call__(self, objects: range) -> list[str]:
        """The coordinates of some objects, "x y x y ..." each; of many at once, as arrays are faster than objects."""
        box, size = self.box[objects.start : objects.stop], self.size[objects.start : objects.stop]
        rows = [self._row(m, parts) for m, parts in zip(objects, self._all_parts(objects), strict=True)]
        if not rows:
            return []
        lengths = np.fromiter(map(len, rows), np.int64, len(rows)) // 2
        points = np.fromiter(chain.from_iterable(rows), np.float64, 2 * lengths.sum()).reshape(-1, 2)
        points = np.clip(points / np.repeat(size, lengths, axis=0), 0, 1)
        texts = _as_texts(points, lengths)
        for m in np.flatnonzero(~_fit(points, lengths, box)).tolist():
            self.repairs[MISFIT] += 1
            texts[m] = corners(box[m])
        return texts

    def _row(self, m: int, parts: list[list[float]]) -> list[float]:
        """One outline of the usable parts, in pixels."""
        parts = [part for part in parts if len(part) >= 6 and len(part) % 2 == 0]
        if len(parts) == 1:
            return parts[0]
        if parts:
            return np.concatenate(self.join(parts)).ravel().tolist()
        self.repairs[WITHOUT] += 1
        return (_corners(self.box[m]).reshape(-1, 2) * self.size[m]).ravel().tolist()

    def take(self, at: np.ndarray) -> Outlines:
        """The outlines of some objects, by position."""
        return replace(self, raw=[self.raw[m] for m in at.tolist()], box=self.box[at], size=self.size[at])

    def _all_parts(self, objects: range) -> list[list[list[float]]]:
        """The parts of some outlines as they are in the file."""
        try:
            return _parts_of_many.decode(b"[" + b",".join(self.raw[objects.start : objects.stop]) + b"]")
        except msgspec.DecodeError:
            return [self._parts(m) for m in objects]

    def _parts(self, m: int) -> list[list[float]]:
        try:
            return _parts.decode(self.raw[m])
        except msgspec.DecodeError:
            return self._of_mask(m)

    def _of_mask(self, m: int) -> list[list[float]]:
        try:
            found = msgspec.json.decode(self.raw[m])
        except (msgspec.DecodeError, RecursionError):
            return []
        width, height = (int(s) for s in self.size[m])
        mask = decode_mask(found, height, width)
        return [] if mask is None or self.contours is None else self.contours(mask)


def _fit(points: np.ndarray, lengths: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Whether the bounds of outlines are those of their boxes, by IoU: (n,), bool."""
    starts = np.cumsum(lengths) - lengths
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    centre, half = box[:, :2], box[:, 2:] / 2
    shared = np.clip(np.minimum(high, centre + half) - np.maximum(low, centre - half), 0, None).prod(1)
    return shared >= FITS * ((high - low).prod(1) + box[:, 2:].prod(1) - shared)


def decode_mask(mask: Any, height: int, width: int) -> np.ndarray | None:
    """COCO's run-length mask as an array; pycocotools reads beyond its memory where the runs do not fill the image.

    Args:
        mask: `size`, [height, width], and `counts`, runs of 0 and 1 in turn down the columns: a list of numbers, or
            text that packs them.
        height: Of the image.
        width: Of the image.

    Returns:
        Shape (height, width), uint8, 0 or 1; None if it is no mask of this image.
    """
    if not isinstance(mask, dict) or mask.get("size") != [height, width]:
        return None
    counts = mask.get("counts")
    runs = _unpacked(counts) if isinstance(counts, str) else counts if isinstance(counts, list) else []
    if not all(type(n) is int and 0 <= n <= height * width for n in runs) or sum(runs) != height * width:
        return None
    return np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs).reshape(width, height).T


def _unpacked(text: str) -> list[int]:
    """The runs in COCO's packed form: five bits a letter, and from the fourth run on the change to the last but one."""
    runs: list[int] = []
    value = bits = 0
    for letter in text.encode():
        value |= (letter - 48 & 31) << bits
        bits += 5
        if bits > MOST_BITS:
            return []
        if letter - 48 & 32:
            continue
        value -= (1 << bits) if letter - 48 & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = bits = 0
    return runs


def corners(box: np.ndarray) -> str:
    """A label box as an outline of four points."""
    return as_text(_corners(box))


def _corners(box: np.ndarray) -> np.ndarray:
    left, top, right, bottom = *(box[:2] - box[2:] / 2), *(box[:2] + box[2:] / 2)
    return np.array([left, top, right, top, right, bottom, left, bottom])


def as_text(numbers: np.ndarray) -> str:
    """Numbers as a label line has them."""
    return _as_texts(numbers.reshape(1, -1), np.array([1]))[0]


def _as_texts(rows: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Numbers as label lines have them, so many rows to a line.

    A JSON encoder writes them several times faster than Python's formatting, and all lines at once.
    """
    ends = (np.cumsum(lengths) * rows.shape[1]).tolist()
    numbers = rows.round(DIGITS).ravel().tolist()
    text = _encode([numbers[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)])
    return text[2:-2].replace(b"],[", b"\n").replace(b",", b" ").decode().split("\n")
