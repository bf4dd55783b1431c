"""Which row becomes recipe=recommended: the rule `choice` of accuracy.yaml, applied to the records."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from accuracy_records import Runs

BASE = "stock"


class Candidate(NamedTuple):
    """Means over the sets and seeds of the rule, against stock with the same seeds."""

    row: str
    rare: float  # geometric mean over the sets of the ratios of AP50, medium and tail classes together
    head: float  # differences of AP50
    all: float

    def allowed(self, drop: float) -> bool:
        """Whether neither head nor all classes lose more than that."""
        return min(self.head, self.all) >= -drop


def candidates(found: dict[str, dict[str, Runs]], rule: dict[str, Any]) -> list[Candidate]:
    """The rows that have every set and seed of the rule, those that multiply the rare classes most first.

    Args:
        found: Records by set, row and seed.
        rule: `sets` and `seeds`.
    """
    sets, seeds = [found.get(name, {}) for name in rule["sets"]], set(rule["seeds"])
    whole = [row for row in sets[0] if all(seeds <= set(rows.get(row, ())) for rows in sets)]
    if BASE not in whole:
        return []
    rows = [candidate(row, sets, sorted(seeds)) for row in whole if row != BASE]
    return sorted(rows, key=lambda c: c.rare, reverse=True)


def candidate(row: str, sets: list[dict[str, Runs]], seeds: list[int]) -> Candidate:
    """One row against stock."""
    pairs = [([rows[row][s] for s in seeds], [rows[BASE][s] for s in seeds]) for rows in sets]
    ratios = [mean(ours, "medium", "tail") / mean(base, "medium", "tail") for ours, base in pairs]
    head = [mean(ours, "head") - mean(base, "head") for ours, base in pairs]
    overall = [mean(ours, "head", "medium", "tail") - mean(base, "head", "medium", "tail") for ours, base in pairs]
    return Candidate(row, float(np.exp(np.mean(np.log(ratios)))), float(np.mean(head)), float(np.mean(overall)))


def mean(runs: list[dict[str, Any]], *bins: str) -> float:
    """AP50, mean over the classes of these bins that have an object, and over the runs."""
    values = [[c["AP50"] for c in r["per_class"] if c["bin"] in bins and c["AP50"] is not None] for r in runs]
    return float(np.mean([np.mean(v) for v in values]))


def chosen(rows: list[Candidate], drop: float) -> str | None:
    """The row that the rule takes; None where it allows none."""
    return next((c.row for c in rows if c.allowed(drop)), None)
