"""Whole groups of images on the sides of a split, and moves that bring classes to sides and shares nearer.

The sums are whole numbers, and costs are summed in a fixed order: the result is the same on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolo_lt.dataset.subset.flips import BATCH, LEAST, Rows

MOST_LOOKS = 20_000  # at groups that may supply one class with a side
ALL_LOOKS = 400_000  # for all classes
CANDIDATES = 200  # groups that may supply one class: of more than that one will do
CHAIN = 6  # groups that change sides together
TRIES = 300  # groups that may begin such an exchange, per round
WORK = 30_000_000  # entries that are looked at in a round, about: where there are many groups, single moves are enough
GOOD = 1e-6  # mean squared relative error at which no exchange is tried
ROUNDS = 10
WORTHWHILE = 1e-3  # part of the cost that a round has to save, or it is the last


@dataclass(frozen=True)
class Sides:
    """Groups on S sides; arrays that change in place.

    Attributes:
        rows: What every group (their `image`) adds to every column, its images to the last; K columns.
        wished: What every side should have of them, shape (S, K), float64.
        weight: Of a column's squared error, shape (K,), float64.
        needed: A column that is on that side has to stay there, shape (S, K), bool.
        side: Shape (G,), int64; changes.
        total: What every side has, shape (S, K), float64; changes.
        present: Groups on every side that hold the column, shape (S, K), int64; changes.
        order: Decides between groups that serve alike, shape (G,), a permutation.
        members: Groups that hold the column, K lists.
    """

    rows: Rows
    wished: np.ndarray
    weight: np.ndarray
    needed: np.ndarray
    side: np.ndarray
    total: np.ndarray
    present: np.ndarray
    order: np.ndarray
    members: list[list[int]]

    @classmethod
    def of(cls, rows: Rows, shares: np.ndarray, side: np.ndarray, order: np.ndarray) -> Sides:
        """From a first arrangement, which changes with it."""
        sides, flat = len(shares), side[rows.image] * rows.columns + rows.column
        total = np.bincount(flat, weights=rows.count, minlength=sides * rows.columns).reshape(sides, -1)
        present = np.bincount(flat, minlength=sides * rows.columns).reshape(sides, -1)
        all_of = total.sum(0)
        weight = 1 / np.maximum(all_of, 1) ** 2
        weight[-1] *= max(np.count_nonzero(all_of[:-1]), 1)  # images weigh as much as all classes
        needed = np.tile(present.sum(0) >= sides, (sides, 1))
        return cls(rows, shares[:, None] * all_of, weight, needed, side, total, present, order, members_of(rows, order))

    def columns(self, group: int) -> np.ndarray:
        """What a group holds."""
        return self.rows.column[self.rows.starts[group] : self.rows.starts[group + 1]]

    def last_of(self, group: int) -> int:
        """Of how many needed classes a group is the last on its side."""
        column, side = self.columns(group), self.side[group]
        return int((self.needed[side, column] & (self.present[side, column] == 1)).sum())

    def move(self, group: int, to: int) -> bool:
        """Put a group on another side; True."""
        entries = slice(self.rows.starts[group], self.rows.starts[group + 1])
        columns, count, old = self.rows.column[entries], self.rows.count[entries], self.side[group]
        self.total[old, columns] -= count
        self.total[to, columns] += count
        self.present[old, columns] -= 1
        self.present[to, columns] += 1
        self.side[group] = to
        return True

    def cost(self, side: int | np.ndarray, column: np.ndarray, change: np.ndarray | float = 0.0) -> np.ndarray:
        """Weighted squared errors of columns on a side, were they changed by so much."""
        error = self.total[side, column] + change - self.wished[side, column]
        return self.weight[column] * error * error

    def gain(self, group: int, to: int) -> float:
        """Change of the cost if a group were moved to another side."""
        entries = slice(self.rows.starts[group], self.rows.starts[group + 1])
        column, count, old = self.rows.column[entries], self.rows.count[entries], int(self.side[group])
        change = self.cost(old, column, -count) - self.cost(old, column)
        return float((change + self.cost(to, column, count) - self.cost(to, column)).sum())

    def gains(self, needed: np.ndarray) -> np.ndarray:
        """The same for every side and group, shape (S, G), float64; infinite if a side would lose what it needs."""
        column, count = self.rows.kinds
        sides = np.arange(len(self.wished))[:, None]
        leave = self.cost(sides, column, -count) - self.cost(sides, column)
        leave[(needed & (self.present == 1))[:, column]] = np.inf
        enter = self.cost(sides, column, count) - self.cost(sides, column)
        old = self.rows.per_image(leave[self.side[self.rows.image], self.rows.kind])
        gains = np.stack([old + self.rows.per_image(side[self.rows.kind]) for side in enter])
        gains[self.side, np.arange(len(self.side))] = np.inf
        return gains

    def all_cost(self) -> float:
        """The cost of all sides."""
        return float(self.cost(np.arange(len(self.wished))[:, None], np.arange(self.rows.columns)).sum())


def members_of(rows: Rows, order: np.ndarray) -> list[list[int]]:
    """The groups of every column, those that hold most of it first."""
    sort = np.lexsort((order[rows.image], -rows.count, rows.column))
    borders = np.searchsorted(rows.column[sort], np.arange(1, rows.columns))
    return [x.tolist() for x in np.split(rows.image[sort], borders)]


def repair(split: Sides) -> None:
    """Bring every class to every side, if it is in enough groups; the rarest first."""
    hard, held = split.needed.copy(), split.present.sum(0)
    split.needed[int(np.argmax(split.wished[:, -1]))] = True  # where classes in few groups are, rather than anywhere
    left = ALL_LOOKS
    for _ in range(2):
        for column in np.argsort(held, kind="stable").tolist():
            for to in np.flatnonzero(hard[:, column] & (split.present[:, column] == 0)).tolist():
                left -= _supply(split, column, to, min(MOST_LOOKS, left))
        split.needed[:] = hard  # what still lacks a side may have one of theirs
    split.needed[:] |= (split.present > 0) & (held < len(hard))


def _supply(split: Sides, column: int, to: int, most: int) -> int:
    """Bring a class to a side by moves that leave no needed class without; how many groups were looked at.

    A move may take the last group of other classes from a side, which then have to be supplied in turn: a search in
    depth in which no group moves twice, as on the direct way to any arrangement. If it fails, nothing has moved.
    """
    first = _suppliers(split, column, to)
    frames = [([(column, to)], iter(first))]  # what is missing, and the groups that may supply the last of it
    moved: list[tuple[int, int]] = []
    looks = len(first)
    while frames:
        if len(moved) == len(frames):  # back from a dead end
            split.move(*moved.pop())
        missing, groups = frames[-1]
        frozen = {g for g, _ in moved}
        found = next((g for g in groups if g not in frozen), None) if looks <= most else None
        if found is None:
            frames.pop()
            continue
        moved.append((found, int(split.side[found])))
        split.move(found, missing[-1][1])
        missing = [(c, s) for c, s in (*missing, *_torn(split, *moved[-1])) if not split.present[s, c]]
        if not missing:
            break
        suppliers = _suppliers(split, *missing[-1])
        looks += len(suppliers)
        frames.append((missing, iter(suppliers)))
    return looks


def _torn(split: Sides, group: int, old: int) -> list[tuple[int, int]]:
    """What a side lacks since a group has left it."""
    columns = split.columns(group)
    return [(c, old) for c in columns[split.needed[old, columns] & (split.present[old, columns] == 0)].tolist()]


def _suppliers(split: Sides, column: int, to: int) -> list[int]:
    """Groups of a class that are on another side: those that the fewest classes need there first, then by cost."""
    groups = [g for g in split.members[column] if split.side[g] != to]
    if len(groups) > CANDIDATES:
        groups = sorted(groups, key=lambda g: (split.rows.starts[g + 1] - split.rows.starts[g], split.order[g]))
    return sorted(groups[:CANDIDATES], key=lambda g: (split.last_of(g), split.gain(g, to), split.order[g]))


def balance(split: Sides) -> None:
    """Move groups as long as that brings the shares nearer: alone, then in exchange for others."""
    _move_singly(split)
    for _ in range(ROUNDS):
        before = split.all_cost()
        if before < GOOD * split.rows.columns:
            return
        _exchange(split)
        _move_singly(split)
        if split.all_cost() > before * (1 - WORTHWHILE):
            return


def _move_singly(split: Sides) -> None:
    """Move single groups that no side needs where they are, many between two looks at all of them."""
    while True:
        gains = split.gains(split.needed)
        to, best = gains.argmin(0), gains.min(0)
        groups = np.flatnonzero(best < -LEAST)
        if len(groups) > BATCH:
            groups = groups[best[groups] <= np.partition(best[groups], BATCH)[BATCH]]
        groups = groups[np.lexsort((split.order[groups], best[groups]))][:BATCH]
        good = (g for g in groups.tolist() if not split.last_of(g) and split.gain(g, int(to[g])) < -LEAST)
        if not sum(split.move(g, int(to[g])) for g in good):
            return


def _exchange(split: Sides) -> None:
    """Move groups together with those that have to take their place, and with the best other one."""
    gains = split.gains(np.zeros_like(split.needed))
    to, best = gains.argmin(0).tolist(), gains.min(0)
    tries = min(TRIES, WORK // max(len(split.rows.image), 1))
    for group in np.lexsort((split.order, best))[:tries].tolist():
        moved: list[tuple[int, int]] = []
        gain = _move_and_supply(split, group, to[group], moved) if split.side[group] != to[group] else 0.0
        if moved and -LEAST <= gain < np.inf:
            gain += _best_other(split, moved)
        if gain >= -LEAST:
            for change in reversed(moved):
                split.move(*change)


def _best_other(split: Sides, moved: list[tuple[int, int]]) -> float:
    """Move the group besides those that have moved for which that is best; the change of the cost."""
    gains = split.gains(split.needed)
    gains[:, [g for g, _ in moved]] = np.inf
    side, group = (int(x) for x in np.unravel_index(np.argmin(gains), gains.shape))
    moved.append((group, int(split.side[group])))
    split.move(group, side)
    return float(gains[side, group])


def _move_and_supply(split: Sides, group: int, to: int, moved: list[tuple[int, int]]) -> float:
    """Move a group, and a group for every class that its side lacks then, and so on; the change of the cost.

    Infinite if `CHAIN` moves are not enough. The moves, with the sides before them, are added to `moved`.
    """
    gain = split.gain(group, to)
    moved.append((group, int(split.side[group])))
    split.move(group, to)
    missing = _torn(split, *moved[-1])
    while missing:
        column, side = missing.pop()
        if split.present[side, column]:
            continue
        frozen = {g for g, _ in moved}
        found = next((g for g in _suppliers(split, column, side) if g not in frozen), None)
        if found is None or len(moved) == CHAIN:
            return np.inf
        gain += split.gain(found, side)
        moved.append((found, int(split.side[found])))
        split.move(found, side)
        missing += _torn(split, *moved[-1])
    return gain
