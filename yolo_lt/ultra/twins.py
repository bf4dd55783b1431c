"""Images that show the same: copies, near-duplicates, and what the user says belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from yolo_lt.dataset.diagnosis.duplicates import (
    connected,
    exact_duplicates,
    groups_from_file,
    groups_from_names,
    image_hashes,
    near_pairs,
)


@dataclass(frozen=True)
class Twins:
    """What belongs together among N images.

    Attributes:
        exact: Places of images of the same bytes, one list per group.
        groups: Places of images that show the same, exact copies and near-duplicates.
        together: A number per image, the same for images that show the same or are of one of the user's groups, shape
            (N,), int64.
        scenes: The same, where near-duplicates or groups were looked for; None elsewhere.
        notes: Sentences about what was found.
    """

    exact: list[list[int]]
    groups: list[list[int]]
    together: np.ndarray
    scenes: np.ndarray | None
    notes: tuple[str, ...]


def find_twins(files: Sequence[str], kind: str, named: str = "none") -> Twins:
    """Find them.

    Args:
        files: Paths of the images.
        kind: none; exact (or auto), of the same bytes; near, as well by a perceptual hash.
        named: The key `groups`: none, a CSV file, or a regular expression.
    """
    exact = [] if kind == "none" else exact_duplicates(files)
    pairs, notes = _chained(exact), list[str]()
    if kind == "near":
        hashes, valid, readable = image_hashes(files)
        pairs = np.concatenate([pairs, near_pairs(hashes, valid)])
        if lost := np.flatnonzero(~readable).tolist():
            notes.append(
                f"{len(lost)} images cannot be decoded and are compared byte by byte alone, such as {files[lost[0]]}"
            )
    groups = _members(connected(pairs, len(files)))
    if named != "none":
        given = groups_from_file(Path(named), files) if named.endswith(".csv") else groups_from_names(files, named)
        several = _members(given)
        notes.append(f"groups={named}: {len(several)} groups of {sum(map(len, several))} images")
        pairs = np.concatenate([pairs, _chained(several)])
    together = connected(pairs, len(files))
    return Twins(exact, groups, together, together if kind == "near" or named != "none" else None, tuple(notes))


def _members(groups: np.ndarray) -> list[list[int]]:
    """Places of the members of every group that has several."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [part.tolist() for part in parts if len(part) > 1]


def _chained(groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Pairs of neighbours, shape (P, 2), which connect every group."""
    pairs = [pair for group in groups for pair in pairwise(group)]
    return np.array(pairs, np.int64).reshape(-1, 2)
