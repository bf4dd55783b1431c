"""Stratified splits of images that come in groups: frames of a clip, near duplicates, photographs of one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolo_lt.dataset.stats import ClassStats
from yolo_lt.dataset.subset.flips import Rows
from yolo_lt.dataset.subset.moves import Sides, balance, members_of, repair
from yolo_lt.errors import LTError, UsageError


def grouped_split(stats: ClassStats, groups: np.ndarray, shares: Sequence[float], seed: int = 0) -> np.ndarray:
    """Put whole groups of images on sides, so that images and every class's instances are shared out as wished.

    Three steps. Iterative stratification: the class with the fewest groups left is served first, each of its groups
    goes to the side that lacks most of its instances, then of images. Repair: a class that is in at least as many
    groups as there are sides comes to every side, by moves of groups that may call for further moves. Balance: groups
    change sides as long as that brings the shares nearer.

    A class in fewer groups than sides is on the side with the largest share, if it can be. The repair is a search with
    a bound, so a class may lack a side although an arrangement exists; with two sides and classes in two groups each,
    as in chains of clips, it follows the only way there is. `unsplit` tells which classes lack a side.

    Args:
        stats: Class occurrences, N images.
        groups: Group of every image, shape (N,), any integers.
        shares: Wished share of every side, S of them, above 0, that sum to 1.
        seed: Decides among groups that would serve alike.

    Returns:
        Side of every image, 0 to S - 1, shape (N,), int64. No side is empty.

    Raises:
        UsageError: Shares that are none.
        LTError: Groups of another shape, or fewer of them than sides.

    Source: iterative stratification, Sechidis et al., ECML PKDD 2011; here over groups.
    """
    wished = _shares(shares)
    ids, rows = _group_rows(stats, groups)
    if len(rows.starts) - 1 < len(wished):
        raise LTError(f"{len(rows.starts) - 1} groups of images cannot fill {len(wished)} splits")
    order = np.random.default_rng(seed).permutation(len(rows.starts) - 1)
    split = Sides.of(rows, wished, _stratified(rows, wished, order), order)
    repair(split)
    balance(split)
    return split.side[ids]


def unsplit(stats: ClassStats, groups: np.ndarray, sides: np.ndarray) -> dict[int, str]:
    """Why some classes are not on every side.

    Args:
        stats: Class occurrences, N images.
        groups: Group of every image, shape (N,), integers.
        sides: Side of every image, shape (N,), as `grouped_split` gives them.

    Returns:
        Class id to reason, ascending; classes without instances are not in it.
    """
    ids, rows = _group_rows(stats, groups)
    count = int(np.max(sides, initial=-1)) + 1
    found = np.zeros((rows.columns, count), bool)
    side = np.zeros(len(rows.starts) - 1, np.int64)
    side[ids] = sides
    found[rows.column, side[rows.image]] = True
    held = np.bincount(rows.column, minlength=rows.columns)
    torn = np.flatnonzero(found.any(1) & ~found.all(1))
    return {c: _reason(int(held[c]), count) for c in torn.tolist() if c < stats.num_classes}


def _reason(groups: int, sides: int) -> str:
    if groups == 1:
        return "in one group only"
    if groups < sides:
        return f"in {groups} groups, fewer than splits"
    return "its groups are needed where they are by other classes"


def _shares(shares: Sequence[float]) -> np.ndarray:
    wished = np.asarray(shares, np.float64)
    if wished.ndim != 1 or len(wished) < 2 or not (wished > 0).all() or abs(wished.sum() - 1) > 1e-6:
        raise UsageError(f"shares={list(shares)}: expected two or more numbers above 0 that sum to 1")
    return wished / wished.sum()


def _group_rows(stats: ClassStats, groups: np.ndarray) -> tuple[np.ndarray, Rows]:
    """Group of every image from 0, and every group's instances per class and, in the last column, its images."""
    groups = np.asarray(groups)
    if groups.shape != (stats.num_images,) or groups.dtype.kind not in "iu":
        raise LTError(f"groups: expected {stats.num_images} integers, found shape {groups.shape} of {groups.dtype}")
    columns = stats.num_classes + 1
    unique, ids = np.unique(groups, return_inverse=True)
    boxes = np.repeat(ids, np.diff(stats.offsets)) * columns + stats.classes
    keys, count = np.unique(np.concatenate([boxes, ids * columns + stats.num_classes]), return_counts=True)
    return ids, Rows.of(keys // columns, keys % columns, count, len(unique), columns)


def _stratified(rows: Rows, shares: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Side of every group by iterative stratification, shape (G,), int64."""
    lacking = shares[:, None] * rows.per_column(rows.count)
    absent = np.ones(lacking.shape, bool)
    side = np.full(len(rows.starts) - 1, -1)
    left = np.bincount(rows.column, minlength=rows.columns)
    members = members_of(rows, order)
    while left.any():
        c = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for group in members[c]:
            if side[group] >= 0:
                continue
            entries = slice(rows.starts[group], rows.starts[group + 1])
            columns = rows.column[entries]
            s = _neediest(lacking, absent[:, c], c, int(left[c]))
            side[group] = s
            lacking[s, columns] -= rows.count[entries]
            absent[s, columns] = False
            left[columns] -= 1
    return side


def _neediest(lacking: np.ndarray, absent: np.ndarray, column: int, left: int) -> int:
    """The side that lacks most of a column; one without it, if the groups that are left have to go there."""
    without = np.flatnonzero(absent)
    sides = without if len(without) >= max(left, 1) else np.arange(len(absent))
    return int(max(sides.tolist(), key=lambda s: (lacking[s, column], lacking[s, -1])))
