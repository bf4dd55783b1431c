"""The rows on the held-out training images of several sets at once, and the rule `choice` of accuracy.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from accuracy_records import Runs

BASE = "stock"


class Candidate(NamedTuple):
    """Means over sets and seeds, against the base with the same seeds."""

    row: str
    base: str
    rare: float  # geometric mean over the sets of the ratios of AP50, medium and tail classes together
    head: float  # differences of AP50
    all: float

    def allowed(self, drop: float) -> bool:
        """Whether neither head nor all classes lose more than that."""
        return min(self.head, self.all) >= -drop


def bases(matrix: dict[str, Any]) -> dict[str, str]:
    """What the matrix says a row is to be compared with, by row."""
    return {row: on["base"] for row, on in matrix["rows"].items() if "base" in on}


def candidates(found: dict[str, dict[str, Runs]], rule: dict[str, Any]) -> list[Candidate]:
    """Our rows that have every set and seed of the rule, those that multiply the rare classes most first."""
    rows = [c for c in screened(found, rule["sets"], rule["seeds"], {}) if not c.row.startswith(BASE)]
    return sorted(rows, key=lambda c: c.rare, reverse=True)


def screened(
    found: dict[str, dict[str, Runs]], names: Sequence[str], seeds: Sequence[int], bases: Mapping[str, str]
) -> list[Candidate]:
    """The rows that have every one of these sets and seeds, against what `bases` names, else against stock.

    Args:
        found: Records by set, row and seed.
        names: The sets.
        seeds: The seeds.
        bases: Row to compare with, by row.
    """
    sets = [found.get(name, {}) for name in names]
    whole = [row for row in sets[0] if all(set(seeds) <= set(rows.get(row, ())) for rows in sets)]
    pairs = [(row, bases.get(row, BASE)) for row in whole]
    return [candidate(row, base, sets, seeds) for row, base in pairs if base in whole and base != row]


def candidate(row: str, base: str, sets: Sequence[dict[str, Runs]], seeds: Sequence[int]) -> Candidate:
    """One row against another."""
    pairs = [([rows[row][s] for s in seeds], [rows[base][s] for s in seeds]) for rows in sets]
    ratios = [mean(ours, "medium", "tail") / mean(theirs, "medium", "tail") for ours, theirs in pairs]
    head = [mean(ours, "head") - mean(theirs, "head") for ours, theirs in pairs]
    overall = [mean(ours, "head", "medium", "tail") - mean(theirs, "head", "medium", "tail") for ours, theirs in pairs]
    return Candidate(row, base, float(np.exp(np.mean(np.log(ratios)))), float(np.mean(head)), float(np.mean(overall)))


def mean(runs: list[dict[str, Any]], *bins: str) -> float:
    """AP50, mean over the classes of these bins that have an object, and over the runs."""
    values = [[c["AP50"] for c in r["per_class"] if c["bin"] in bins and c["AP50"] is not None] for r in runs]
    return float(np.mean([np.mean(v) for v in values]))


def apart(found: dict[str, dict[str, Runs]], rule: dict[str, Any]) -> float:
    """How far two seeds of stock are from each other on a set at most, in AP50 of all."""
    sides = [found.get(name, {}).get(BASE, {}) for name in rule["sets"]]
    values = [[mean([runs[s]], "head", "medium", "tail") for s in rule["seeds"] if s in runs] for runs in sides]
    return max((float(np.ptp(v)) for v in values if v), default=0.0)


def chosen(rows: list[Candidate], drop: float) -> str | None:
    """The row that the rule takes; None where it allows none."""
    return next((c.row for c in rows if c.allowed(drop)), None)
