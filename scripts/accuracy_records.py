"""The records of bench_accuracy.py as numbers: means over seeds, paired differences and ratios with their intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy_run import SCALE

from yolo_lt.evaluate.bootstrap import percentile_interval
from yolo_lt.evaluate.compare import drawn_means

HUGE = 1e6  # in place of a ratio to nothing, so that quantiles between it and others exist
Runs = dict[int, dict[str, Any]]  # by seed


class Value(NamedTuple):
    """A mean over seeds, and its 95 % interval over images and seeds."""

    mean: float
    low: float
    high: float


def read(results: Path) -> dict[str, dict[str, Runs]]:
    """Every record, by set, row and seed."""
    found: dict[str, dict[str, Runs]] = {}
    for path in sorted(results.glob("*/*-s*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(record["set"], {}).setdefault(record["row"], {})[record["seed"]] = record
    return found


def value(runs: Sequence[dict[str, Any]], bin_: str, metric: str) -> Value:
    """Mean over the runs."""
    return Value(_mean(runs, bin_, metric), *_interval(_drawn(runs, bin_, metric)))


def difference(ours: Runs, base: Runs, bin_: str, metric: str) -> Value:
    """Mean of ours - base over the seeds that both have, seed by seed on the same images."""
    a, b = paired(ours, base)
    replicates = _drawn(a, bin_, metric) - _drawn(b, bin_, metric)
    return Value(_mean(a, bin_, metric) - _mean(b, bin_, metric), *_interval(replicates))


def ratio(ours: Runs, base: Runs, bin_: str, metric: str) -> Value:
    """Mean of ours over mean of base, over the seeds that both have."""
    a, b = paired(ours, base)
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = _drawn(a, bin_, metric) / _drawn(b, bin_, metric)
        point = np.float64(_mean(a, bin_, metric)) / _mean(b, bin_, metric)
    return Value(float(point), *_interval(np.where(np.isinf(replicates), HUGE, replicates)))


def cost(ours: Runs, base: Runs) -> float:
    """CPU time of the trainings over that of base, all steps counted: the median over the seeds that both have."""
    pairs = zip(*paired(ours, base), strict=True)
    return float(np.median([a["cpu_seconds"] / b["cpu_seconds"] for a, b in pairs]))


def paired(ours: Runs, base: Runs) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs of the seeds that both have, in order.

    Raises:
        ValueError: They share no seed, or differ in ground truth or iterations.
    """
    seeds = sorted(set(ours) & set(base))
    pairs = [(ours[s], base[s]) for s in seeds]
    if not pairs or any(a[k] != b[k] for a, b in pairs for k in ("gt_sha256", "iterations", "start_sha256")):
        raise ValueError(f"records that cannot be paired: seeds {sorted(ours)} and {sorted(base)}")
    return [a for a, _ in pairs], [b for _, b in pairs]


def _mean(runs: Sequence[dict[str, Any]], bin_: str, metric: str) -> float:
    return float(np.mean(np.array([r["metrics"][bin_][metric] for r in runs], float)))  # None is NaN


def _drawn(runs: Sequence[dict[str, Any]], bin_: str, metric: str) -> np.ndarray:
    """Replicates of the mean: the images drawn as in every other run on the set, and the seeds drawn as well."""
    values = np.array([r["replicates"][bin_][metric] for r in runs], float) / SCALE
    return drawn_means(values)


def _interval(replicates: np.ndarray) -> tuple[float, float]:
    low, high = percentile_interval(replicates)
    return float(low), float(high)
