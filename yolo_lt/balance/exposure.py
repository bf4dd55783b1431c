"""Realised exposure: what reached the network, counted, against what the sampler asked for. Pure numpy."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.files import csv_text

HEADER = ("epoch", "class_id", "name", "bin", "asked", "tiles", "boxes")
PASTED = "pasted"  # a further column where tail paste acts


class Exposure:
    """Counts of one epoch.

    Attributes:
        tiles: How often every source image was drawn, as the first or a partner image, shape (N,), int64.
        boxes: Boxes per class that reached the network after cropping, pasted ones included, shape (C,), int64.
        pasted: Instances per class that tail paste added to source images, shape (C,), int64.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reset()

    def reset(self) -> None:
        """Forget the epoch."""
        self.tiles = np.zeros(self.plan.stats.num_images, np.int64)
        self.boxes = np.zeros(self.plan.stats.num_classes, np.int64)
        self.pasted = np.zeros(self.plan.stats.num_classes, np.int64)

    def add(self, tiles: Sequence[Sequence[int]], classes: np.ndarray, pasted: Sequence[Sequence[int]] = ()) -> None:
        """Count one batch: source images and pasted classes of each of its images, and the classes of its boxes."""
        for counts, found in ((self.tiles, tiles), (self.pasted, pasted)):
            counts += np.bincount(np.fromiter((i for image in found for i in image), np.int64), minlength=len(counts))
        self.boxes += np.bincount(classes.astype(np.int64).reshape(-1), minlength=len(self.boxes))

    @property
    def header(self) -> tuple[str, ...]:
        """The columns of `rows`."""
        return (*HEADER, PASTED) if self.plan.paste_share else HEADER

    def rows(self, epoch: int) -> list[tuple]:
        """One row per class under `header`: tiles that hold the class, as asked by the factors and as counted."""
        stats, asked = self.plan.stats, self.plan.asked * self.tiles.sum()
        tiles = stats.images_with(self.tiles.astype(np.float64))
        labels = self.plan.bins.labels(stats.num_classes)
        return [
            (epoch, c, stats.names[c], str(labels[c]), float(asked[c]), int(tiles[c]), int(self.boxes[c]))
            + ((int(self.pasted[c]),) if self.plan.paste_share else ())
            for c in range(stats.num_classes)
        ]


def append(path: Path, rows: list[tuple], header: tuple[str, ...] = HEADER) -> None:
    """Append rows to exposure.csv; the header comes with the first."""
    text = csv_text(rows if path.exists() else [header, *rows])
    with path.open("a", encoding="utf-8") as f:
        f.write(text)


def read(path: Path) -> list[dict[str, str]]:
    """Whole rows of exposure.csv; a line that a killed process left unfinished is dropped."""
    with path.open(encoding="utf-8", newline="") as f:
        return [r for r in csv.DictReader(f) if r.get("boxes") and r["epoch"].isdigit()]


def bin_totals(rows: Iterable[dict[str, Any]]) -> list[tuple]:
    """One row per bin over class rows with the columns of exposure.csv: name, asked tiles, tiles, boxes, pasted."""
    totals = {name: np.zeros(4) for name in BIN_NAMES}
    for row in rows:
        if row["bin"] in totals:
            totals[row["bin"]] += [float(row.get(k) or 0) for k in ("asked", "tiles", "boxes", PASTED)]
    return [(name, *total) for name, total in totals.items() if total.any()]
