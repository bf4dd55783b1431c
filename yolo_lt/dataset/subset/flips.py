"""Choosing whole images so that sums over them reach targets: local search by flips of single images.

The sums are whole numbers, and costs are summed in a fixed order: the result is the same on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BATCH = 128  # flips between two looks at all images
CHAIN = 6  # images that are flipped together where no single flip improves
TRIES = 10  # images that such a chain may begin with, per sum and round
MOST_TRIES = 1000  # in all: each costs a look at all images per flip
LEAST = 1e-12  # a gain below it is rounding


@dataclass(frozen=True)
class Rows:
    """What every image adds to every sum: entry e adds `count[e]` of image `image[e]` to the sum `column[e]`.

    Attributes:
        image, column: Shape (E,), int64, sorted by image.
        count: Shape (E,), float64 that are whole numbers.
        starts: The entries of image i are from `starts[i]` to `starts[i + 1]`, shape (N + 1,), int64.
        columns: How many sums, K.
        kind, kinds: Entries of one column and count are of one kind: the kind of every entry, shape (E,), int64, and
            column and count of every kind. There are far fewer kinds than entries, so costs are taken per kind.
    """

    image: np.ndarray
    column: np.ndarray
    count: np.ndarray
    starts: np.ndarray
    columns: int
    kind: np.ndarray
    kinds: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, image: np.ndarray, column: np.ndarray, count: np.ndarray, images: int, columns: int) -> Rows:
        """From entries that are sorted by image, each shape (E,), int64."""
        kinds, kind = np.unique(column + columns * count, return_inverse=True)
        of_kinds = (kinds % columns, (kinds // columns).astype(np.float64)) if columns else (kinds, kinds)
        starts = np.searchsorted(image, np.arange(images + 1))
        return cls(image, column, count.astype(np.float64), starts, columns, kind.reshape(-1), of_kinds)

    def per_image(self, entries: np.ndarray) -> np.ndarray:
        """Sum over the entries of every image, shape (N,), float64."""
        return _sums(self.image, entries, len(self.starts) - 1)

    def per_column(self, entries: np.ndarray) -> np.ndarray:
        """Sum over the entries of every column, shape (K,), float64."""
        return _sums(self.column, entries, self.columns)


def _sums(place: np.ndarray, entries: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(place, weights=entries, minlength=size).astype(np.float64, copy=False)  # of nothing it is int64


@dataclass(frozen=True)
class Goal:
    """What a flip has to lessen: the relative error of every sum beyond `slack`, to a power, and its square a little.

    Attributes:
        slack: Absolute error that costs next to nothing, shape (K,), whole numbers.
        power: 2 spreads the excess over many sums, 1 leaves it to the fewest.
        centre: Weight of the squared error itself, from 0.
    """

    slack: np.ndarray
    power: int
    centre: float


@dataclass(frozen=True)
class Search:
    """A choice of images that is improved in place.

    Attributes:
        rows: What the images add to the sums.
        target: Shape (K,), float64 that are whole numbers.
        chosen: Shape (N,), bool; changes.
        barred: Images that cannot be chosen, shape (N,), bool.
        order: Decides between images that serve alike, shape (N,), a permutation.
        unit: One more as a relative error, shape (K,).
        total: The sums of the chosen images, shape (K,), float64 that are whole numbers; changes.
    """

    rows: Rows
    target: np.ndarray
    chosen: np.ndarray
    barred: np.ndarray
    order: np.ndarray
    unit: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, rows: Rows, target: np.ndarray, chosen: np.ndarray, barred: np.ndarray, order: np.ndarray) -> Search:
        """From a first choice, which is left as it is."""
        total = rows.per_column(rows.count * chosen[rows.image])
        unit = 1 / np.maximum(target, 1.0)
        return cls(rows, target.astype(np.float64), chosen.copy(), barred, order, unit, total)

    def cost(self, goal: Goal, total: np.ndarray, column: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Cost of the sums of some columns, all alike in shape."""
        error = np.abs(total - self.target[column])
        excess = np.maximum(error - goal.slack[column], 0) * self.unit[column]
        error = error * self.unit[column]
        return (excess if goal.power == 1 else excess * excess) + goal.centre * error * error

    def off(self, goal: Goal) -> np.ndarray:
        """The sums whose error is above the slack, ascending."""
        return np.flatnonzero(np.abs(self.total - self.target) > goal.slack)

    def gains(self, goal: Goal) -> np.ndarray:
        """Change of the cost if one image were flipped, shape (N,), float64; infinite for those that cannot be."""
        column, count = self.rows.kinds
        now = self.cost(goal, self.total)[column]
        both = [self.cost(goal, self.total[column] + change, column) - now for change in (count, -count)]
        gains = self.rows.per_image(np.stack(both)[self.chosen.view(np.int8)[self.rows.image], self.rows.kind])
        gains[self.barred] = np.inf
        return gains

    def flip(self, image: int, goal: Goal | None = None) -> bool:
        """Flip an image, with a goal only if that lessens the cost; whether it was flipped."""
        entries = slice(self.rows.starts[image], self.rows.starts[image + 1])
        column, count = self.rows.column[entries], self.rows.count[entries]
        new = self.total[column] + (-count if self.chosen[image] else count)
        if goal and (self.cost(goal, new, column) - self.cost(goal, self.total[column], column)).sum() > -LEAST:
            return False
        self.total[column], self.chosen[image] = new, not self.chosen[image]
        return True


def descend(search: Search, goal: Goal) -> None:
    """Flip single images as long as that lessens the cost, many between two looks at all of them."""
    while True:
        gains = search.gains(goal)
        images = np.flatnonzero(gains < -LEAST)
        if len(images) > BATCH:  # a threshold, as which of equal ones argpartition takes depends on the processor
            images = images[gains[images] <= np.partition(gains[images], BATCH)[BATCH]]
        images = images[np.lexsort((search.order[images], gains[images]))][:BATCH]
        if not sum(search.flip(i, goal) for i in images.tolist()):
            return


def descend_by_chains(search: Search, goal: Goal) -> None:
    """Flip several images at once for each sum above the slack, as long as their number falls and `MOST_TRIES` last."""
    tries, before, off = MOST_TRIES, search.rows.columns + 1, search.off(goal)
    while tries and len(off) < before:
        for column in off:
            for image, gain in _first_flips(search, goal, column)[:tries]:
                tries -= 1
                if _chain(search, goal, column, image, gain):
                    descend(search, goal)
                    break
        before, off = len(off), search.off(goal)


def _first_flips(search: Search, goal: Goal, column: int) -> list[tuple[int, float]]:
    """Images whose flip moves a sum towards its target, and their gains: the best of each count, then the next best."""
    entries = np.flatnonzero(search.rows.column == column)
    images = search.rows.image[entries]
    over = search.total[column] > search.target[column]
    entries = entries[(search.chosen[images] == over) & ~search.barred[images]]
    images = search.rows.image[entries]
    gains = search.gains(goal)[images]
    ranked = np.lexsort((search.order[images], gains, search.rows.count[entries]))
    count = search.rows.count[entries][ranked]
    rank = np.arange(len(ranked)) - np.searchsorted(count, count)
    ranked = ranked[np.lexsort((gains[ranked], rank))][:TRIES]
    return list(zip(images[ranked].tolist(), gains[ranked].tolist(), strict=True))


def _chain(search: Search, goal: Goal, column: int, image: int, gain: float) -> bool:
    """Flip an image and then the best others, until that lessens the cost and a sum's error.

    If `CHAIN` images do not, all are flipped back.
    """
    error, flipped = abs(search.total[column] - search.target[column]), [image]
    search.flip(image)
    while len(flipped) < CHAIN:
        gains = search.gains(goal)
        gains[flipped] = np.inf
        flipped.append(int(np.argmin(gains)))
        gain += gains[flipped[-1]]
        search.flip(flipped[-1])
        if gain < -LEAST and abs(search.total[column] - search.target[column]) < error:
            return True
    for i in flipped:
        search.flip(i)
    return False
