"""What limits the rows on a set: the kinds of error that cost them AP50, and how many images a class needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from accuracy_records import Runs
from scipy.stats import spearmanr

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
EDGES = (1, 4, 8, 16, 32, 64, 128)  # of a class's training images


def error_rows(rows: dict[str, Runs], bins: Sequence[str]) -> list[list[str]]:
    """By row and bin: AP50, and by how much each kind of error lowers it (TIDE, Bolya et al., ECCV 2020)."""
    lines = []
    for row, runs in rows.items():
        for name in bins:
            shares = [r["errors"]["shares"][name] for r in runs.values()]
            values = [mean([s["AP50"] for s in shares]), *(mean([s["loss"][k] for s in shares]) for k in KINDS)]
            lines.append([row, name, *(f"{v:.3f}" for v in values)])
    return lines


def image_rows(rows: dict[str, Runs]) -> tuple[list[str], list[list[str]]]:
    """Header, and by row AP50 of the classes with so many training images, mean over classes and seeds.

    Last Spearman's rank correlation of both over the classes, mean over seeds: what is left of the long tail in AP50.
    """
    counts = by_images(next(iter(next(iter(rows.values())).values())))
    there = [i for i, classes in counts.items() if classes]
    head = [*(f"{span(i)} ({len(counts[i])})" for i in there), "rank correlation"]
    lines = []
    for row, runs in rows.items():
        found = [by_images(r) for r in runs.values()]
        ranks = mean([rank_correlation(r) for r in runs.values()])
        lines.append([row, *(f"{mean([v for f in found for v in f[i]]):.3f}" for i in there), f"{ranks:+.2f}"])
    return head, lines


def by_images(record: dict[str, Any]) -> dict[int, list[float]]:
    """AP50 of the classes that have an object in val, by the place of their training images in EDGES."""
    grouped: dict[int, list[float]] = {i: [] for i in range(len(EDGES))}
    for c in record["per_class"]:
        if c["AP50"] is not None and c["train_images"] >= EDGES[0]:
            grouped[int(np.searchsorted(EDGES, c["train_images"], side="right")) - 1].append(c["AP50"])
    return grouped


def rank_correlation(record: dict[str, Any]) -> float:
    """Of AP50 and training images, over the classes that have both."""
    pairs = [(c["train_images"], c["AP50"]) for c in record["per_class"] if c["AP50"] is not None and c["train_images"]]
    return float(spearmanr(np.array(pairs)).statistic)


def span(i: int) -> str:
    """The training images of a group."""
    return f"{EDGES[i]}+" if i + 1 == len(EDGES) else f"{EDGES[i]}-{EDGES[i + 1] - 1}"


def mean(values: Sequence[float | None]) -> float:
    """Mean of what is known."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else float("nan")
