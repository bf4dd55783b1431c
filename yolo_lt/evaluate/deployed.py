"""Two sets of detections of one network, before and after a calibration, as plain numbers by bin. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from yolo_lt.evaluate.binned import Sets
from yolo_lt.evaluate.bootstrap import image_weights, percentile_interval
from yolo_lt.evaluate.compare import paired_difference, seeds_interval
from yolo_lt.evaluate.matching import Matches
from yolo_lt.evaluate.metrics import METRICS, class_metrics, named, set_means
from yolo_lt.evaluate.operating import rates, reliability, shown_per_image

RATES = ("precision", "recall", "F1")


def average_precision(matches: Mapping[int, Matches], sets: Sets) -> dict[int, dict[str, dict[str, float | None]]]:
    """AP, AP50, AP75 and AR by detection budget and set of classes."""
    found = {}
    for budget, of_one in matches.items():
        means = set_means(class_metrics(of_one), list(sets.values()))
        found[budget] = {name: named(METRICS, row) for name, row in zip(sets, means, strict=True)}
    return found


def operating_point(matches: Matches, sets: Sets, conf: float | np.ndarray) -> dict[str, dict[str, float | None]]:
    """Precision, recall and F1 over all boxes of each set of classes, at IoU 0.5, with what was counted."""
    entries = {}
    for name, classes in sets.items():
        counts = shown_per_image(matches, classes, conf).sum(1)
        sizes = dict(zip(("n_right", "n_det", "n_gt"), counts.astype(int).tolist(), strict=True))
        entries[name] = {**named(RATES, rates(counts)), **sizes}
    return entries


def rates_intervals(
    matches: Matches, sets: Sets, conf: float | np.ndarray, replicates: int, seed: int = 0
) -> dict[str, dict[str, Any] | None]:
    """95 % intervals of precision, recall and F1 of each set of classes over resampled images; None without any."""
    if not replicates or not len(matches.image_ids):
        return dict.fromkeys(sets)
    counts = np.stack([shown_per_image(matches, classes, conf) for classes in sets.values()])
    drawn = [rates((counts @ w).T) for w in image_weights(len(matches.image_ids), replicates, seed)]
    bounds = percentile_interval(np.array(drawn))
    return {name: named(RATES, bounds[:, :, i].T) for i, name in enumerate(sets)}


def calibration_errors(matches: Matches, sets: Sets) -> dict[str, dict[str, float | None]]:
    """Expected calibration error of each set of classes, and over how many detections."""
    found = reliabilities(matches, sets)
    return {name: {key: entry[key] for key in ("ECE", "n_det")} for name, entry in found.items()}


def reliabilities(matches: Matches, sets: Sets) -> dict[str, dict[str, Any]]:
    """`calibration_errors`, with the bins of confidence that they are means over under `reliability`."""
    entries = {}
    for name, classes in sets.items():
        table = reliability(matches, classes)
        error = named(("ECE",), np.array([table.error]))
        columns = {key: column.tolist() for key, column in table._asdict().items()}
        entries[name] = {**error, "n_det": sum(columns["n_det"]), "reliability": columns}
    return entries


def change_of_ap(
    before: Mapping[int, Matches], after: Mapping[int, Matches], sets: Sets, replicates: int
) -> dict[int, dict[str, dict[str, Any]]]:
    """Paired difference after - before of AP, AP50, AP75 and AR by budget and set, as [value, low, high], 95 %."""
    found = {}
    for budget in before:
        pair = [after[budget]], [before[budget]]
        difference, bounds = paired_difference(*pair, list(sets.values()), max(replicates, 1))
        found[budget] = {
            name: _changes(METRICS, difference[i], bounds[:, i], replicates) for i, name in enumerate(sets)
        }
    return found


def change_of_rates(
    before: Matches, after: Matches, sets: Sets, confs: tuple[Any, Any], replicates: int
) -> dict[str, dict[str, Any]]:
    """Paired difference after - before of precision, recall and F1 by set, as [value, low, high], 95 %.

    Args:
        before: Matches.
        after: Matches on the same images.
        sets: Class indices by name.
        confs: The confidences of the two sides, each one number or one per class.
        replicates: Image resamples.
    """
    size = len(before.image_ids)
    weights = np.array([np.ones(size), *image_weights(size, max(replicates, 1), 0)])
    found = {}
    for name, classes in sets.items():
        sides = [
            rates(shown_per_image(m, classes, c) @ weights.T)
            for m, c in zip((before, after), confs, strict=True)
        ]  # fmt: skip
        change = sides[1] - sides[0]
        bounds = seeds_interval(change[:, 1:].T[None])
        found[name] = _changes(RATES, change[:, 0], bounds, replicates)
    return found


def _changes(names: tuple[str, ...], values: np.ndarray, bounds: np.ndarray, replicates: int) -> dict[str, Any]:
    """Each change as [value, low, high], without replicates as [value]; None where there is none."""
    rows = np.vstack([values, bounds])[: 3 if replicates else 1].T
    return {name: None if np.isnan(row[0]) else row.tolist() for name, row in zip(names, rows, strict=True)}
