"""Images that are there twice: within a split they weigh double, across splits they make validation too kind.

A group is a set of images that show the same: the same bytes, near duplicates, frames of one video. Who finds them is
no matter here; groups hold places in the list of all images, one split after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError

CLOSE = 0.01  # parts of the image: a coordinate further off is another label


@dataclass(frozen=True)
class Leaks:
    """What several images of a group mean for S splits and C classes.

    Attributes:
        splits: Names of the splits.
        train: The one whose twins make the others' AP too kind.
        images: Images of each, shape (S,), int64.
        copies: Images of each that repeat another one of it: all but one of a group, shape (S,), int64.
        twins: Images of the row's split with a twin in the column's, shape (S, S), int64; on the diagonal those with a
            twin in their own.
        leaked: Which images of each split have a twin in train, a tuple of arrays of shape (N_s,), bool; all False for
            train itself.
        pairs: Per other split, the first few leaked images and their twins in train, as places in their splits.
        class_images: Images of the class in each split, shape (S, C), int64.
        class_leaked: Those with a twin in train, shape (S, C), int64.
    """

    splits: tuple[str, ...]
    train: str
    images: np.ndarray
    copies: np.ndarray
    twins: np.ndarray
    leaked: tuple[np.ndarray, ...]
    pairs: tuple[tuple[tuple[int, int], ...], ...]
    class_images: np.ndarray
    class_leaked: np.ndarray

    @property
    def class_share(self) -> np.ndarray:
        """Share of the class's images with a twin in train, shape (S, C), float64; nan without images."""
        counts = np.where(self.class_images > 0, self.class_images, np.nan)
        return self.class_leaked / counts


def find_leaks(
    splits: Mapping[str, ClassStats], groups: Sequence[Sequence[int]], train: str = "train", examples: int = 5
) -> Leaks:
    """Say which images are there twice, within a split and across splits, and which classes that concerns.

    Args:
        splits: The class occurrences of every split; its images are counted on from those of the split before.
        groups: Places in the list of all images, in any order; a place may be in several groups.
        train: The split whose twins make the others' AP too kind.
        examples: How many leaked images of a split are named.

    Raises:
        LTError: A place is outside the images, `train` is no split, or the splits differ in their classes.
    """
    names = tuple(splits)
    if train not in splits:
        raise LTError(f"split {train} is missing: found {', '.join(names) or 'none'}")
    if len({s.num_classes for s in splits.values()}) > 1:
        raise LTError("the splits differ in their number of classes")
    borders = np.cumsum([0, *(s.num_images for s in splits.values())])
    members, at = _members(groups, borders), names.index(train)
    twin = _twin_in(members, len(names), int(borders[-1]))
    parts = [twin[a:b] for a, b in pairwise(borders.tolist())]
    leaked = tuple(np.zeros(len(x), bool) if s == at else x[:, at] for s, x in enumerate(parts))
    counts = [s.images_with(x.astype(float)) for s, x in zip(splits.values(), leaked, strict=True)]
    return Leaks(
        splits=names,
        train=train,
        images=np.diff(borders),
        copies=_copies(members, len(names)),
        twins=np.array([x.sum(axis=0) for x in parts], np.int64),
        leaked=leaked,
        pairs=_pairs(members, leaked, borders, at, examples),
        class_images=np.array([s.image_counts for s in splits.values()], np.int64),
        class_leaked=np.array(counts).astype(np.int64),
    )


class _Members(NamedTuple):
    """Every place once per group, by group and place; its group, and its split."""

    place: np.ndarray
    group: np.ndarray
    split: np.ndarray


def _members(groups: Sequence[Sequence[int]], borders: np.ndarray) -> _Members:
    size = int(borders[-1])
    place = np.array([i for g in groups for i in g], np.int64)
    if len(place) and not (place.min() >= 0 and place.max() < size):
        bad = place[(place < 0) | (place >= size)][0]
        raise LTError(f"a group of twins names image {bad}, but there are {size} images")
    group = np.repeat(np.arange(len(groups), dtype=np.int64), [len(g) for g in groups])
    keys = np.unique(group * max(size, 1) + place)
    place = keys % max(size, 1)
    return _Members(place, keys // max(size, 1), np.searchsorted(borders, place, side="right") - 1)


def _twin_in(members: _Members, splits: int, size: int) -> np.ndarray:
    """Whether an image has a twin in a split, shape (N, S), bool."""
    place, group, split = members
    held = np.zeros((int(group.max(initial=-1)) + 1, splits), np.int64)
    np.add.at(held, (group, split), 1)
    others = held[group]
    others[np.arange(len(place)), split] -= 1  # itself
    twin = np.zeros((size, splits), bool)
    np.logical_or.at(twin, place, others > 0)
    return twin


def _copies(members: _Members, splits: int) -> np.ndarray:
    """Images that repeat an earlier one of their split, shape (S,), int64."""
    place, group, split = members
    later = np.zeros(len(place), bool)
    later[1:] = (group[1:] == group[:-1]) & (split[1:] == split[:-1])  # by place, so the images of a split are together
    _, once = np.unique(place[later], return_index=True)
    return np.bincount(split[later][once], minlength=splits)


def _pairs(
    members: _Members, leaked: Sequence[np.ndarray], borders: np.ndarray, train: int, examples: int
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """The first leaked images of every split, each with its first twin in train."""
    found = []
    for s, flags in enumerate(leaked):
        shown = []
        for i in np.flatnonzero(flags)[:examples].tolist():
            groups = members.group[members.place == i + borders[s]]
            twins = members.place[np.isin(members.group, groups) & (members.split == train)]
            shown.append((i, int(twins.min() - borders[train])))
        found.append(tuple(shown))
    return tuple(found)


# Labels of one picture ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Conflict:
    """Two copies of an image whose labels differ.

    Attributes:
        first: Place of the first image of the group.
        second: Place of the one that differs from it.
        what: "one has no labels", "other classes" or "other boxes".
    """

    first: int
    second: int
    what: str


def label_conflicts(groups: Sequence[Sequence[int]], stats: ClassStats, box: np.ndarray) -> list[Conflict]:
    """Images of the same bytes whose labels differ: at least one of them is wrong.

    Every image of a group is compared with the group's first. Boxes are the same if every one has one of its class in
    the other image of which no coordinate is more than 1 % of the image away.

    Args:
        groups: Places in the list of all images; of exact copies, as near duplicates may well differ.
        stats: Class occurrences of all images, N.
        box: Centre x, centre y, width and height of every box, shape (M, 4), in the order of `stats.classes`.

    Raises:
        LTError: A place is outside the images, or `box` does not fit.
    """
    if np.shape(box) != (len(stats.classes), 4):
        raise LTError(f"box of shape {np.shape(box)}: expected four numbers for each of {len(stats.classes)} boxes")
    place, group, _ = _members(groups, np.array([0, stats.num_images]))
    found = []
    for same in np.split(place, np.flatnonzero(group[1:] != group[:-1]) + 1):
        for other in same[1:].tolist():
            if what := _difference(stats, box, int(same[0]), other):
                found.append(Conflict(int(same[0]), other, what))
    return found


def _difference(stats: ClassStats, box: np.ndarray, one: int, two: int) -> str:
    """How the labels of two images differ; nothing if they do not."""
    a, b = (slice(stats.offsets[i], stats.offsets[i + 1]) for i in (one, two))
    first, second = stats.classes[a], stats.classes[b]
    if not len(first) or not len(second):
        return "one has no labels" if len(first) != len(second) else ""
    if not np.array_equal(np.sort(first), np.sort(second)):
        return "other classes"
    far = np.abs(box[a][:, None] - box[b][None]).max(axis=2) > CLOSE
    apart = far | (first[:, None] != second[None])
    return "other boxes" if apart.all(axis=0).any() or apart.all(axis=1).any() else ""


def joined(parts: Sequence[ClassStats]) -> ClassStats:
    """The statistics of several splits as one, image after image.

    Raises:
        LTError: There is no split, or their classes differ.
    """
    if not parts or len({s.num_classes for s in parts}) > 1:
        raise LTError("the splits differ in their number of classes" if parts else "there is no split")
    lengths = np.concatenate([np.diff(s.offsets) for s in parts])
    flat = np.concatenate([s.classes for s in parts])
    return ClassStats.from_flat(flat, lengths, parts[0].num_classes, parts[0].names, parts[0].frequency)
