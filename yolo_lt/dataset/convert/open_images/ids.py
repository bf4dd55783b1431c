"""Image ids, of which a large split has tens of millions of lines: as numbers if they are like the official ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from yolo_lt.dataset.convert.open_images.pairs import union
from yolo_lt.errors import LTError

ENDING = ".jpg"
DIGITS = 16  # hexadecimal, lower case, in every official id

_digit = np.full(256, 255, np.uint8)
_digit[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_file_name = re.compile(r"[\w.-]+")


def encode_ids(ids: Sequence[str]) -> np.ndarray:
    """Ids as uint64 if all have 16 hexadecimal digits, else as the names of their files in UTF-8, shape (n,).

    Both are in the order of the names, which that of the ids is not where one begins with another one.
    """
    text = np.frombuffer("".join(ids).encode(), np.uint8)
    digits = _digit[text]
    if set(map(len, ids)) <= {DIGITS} and (digits < 16).all():
        halves = digits.reshape(-1, 2)
        return (halves[:, 0] << 4 | halves[:, 1]).view(">u8").astype(np.uint64)
    return np.array([f"{i}{ENDING}".encode() for i in ids])


def index_ids(pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The N distinct images, sorted, and the index of the image of every id in all pieces, shape (I,), int32.

    The pieces are given up: they and the indices take much memory.
    """
    if any(piece.dtype.kind == "S" for piece in pieces):
        pieces[:] = [np.array(list(_names(piece)), "S") if piece.dtype.kind == "u" else piece for piece in pieces]
    images = union(*pieces) if pieces else np.zeros(0, np.uint64)
    index = [np.searchsorted(images, piece).astype(np.int32) for piece in pieces]
    pieces.clear()
    return images, np.concatenate([np.zeros(0, np.int32), *index])


def paths_of(images: np.ndarray, folder: str, source: Path) -> tuple[str, ...]:
    """Paths of distinct images.

    Raises:
        LTError: An id cannot be part of a file's name.
    """
    paths = tuple(f"{folder}/{name.decode()}" for name in _names(images))
    for path in paths if images.dtype.kind == "S" else ():
        if not _file_name.fullmatch(path, len(folder) + 1):
            image = path[len(folder) + 1 : -len(ENDING)]
            raise LTError(f"{source}, or a file of image labels: the ImageID {image!r} cannot be part of a file's name")
    return paths


def _names(images: np.ndarray) -> Iterator[bytes]:
    """Names of files in UTF-8."""
    if images.dtype.kind == "S":
        return iter(images)
    return (f"{image:0{DIGITS}x}{ENDING}".encode() for image in images)
