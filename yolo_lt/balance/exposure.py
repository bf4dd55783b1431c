"""Realised exposure: what reached the network, counted, against what the sampler asked for. Pure numpy."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.files import csv_text

HEADER = ("epoch", "class_id", "name", "bin", "asked", "tiles", "boxes")


class Exposure:
    """Counts of one epoch.

    Attributes:
        tiles: How often every source image was drawn, as the first or a partner image, shape (N,), int64.
        boxes: Boxes per class that reached the network after cropping, shape (C,), int64.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reset()

    def reset(self) -> None:
        """Forget the epoch."""
        self.tiles = np.zeros(self.plan.stats.num_images, np.int64)
        self.boxes = np.zeros(self.plan.stats.num_classes, np.int64)

    def add(self, tiles: Sequence[Sequence[int]], classes: np.ndarray) -> None:
        """Count one batch: the source images of each of its images, and the classes of its boxes."""
        drawn = np.fromiter((i for image in tiles for i in image), np.int64)
        self.tiles += np.bincount(drawn, minlength=len(self.tiles))
        self.boxes += np.bincount(classes.astype(np.int64).reshape(-1), minlength=len(self.boxes))

    def rows(self, epoch: int) -> list[tuple]:
        """One row per class under `HEADER`: tiles that hold the class, as asked by the factors and as counted."""
        stats, asked = self.plan.stats, self.plan.asked * self.tiles.sum()
        tiles = stats.images_with(self.tiles.astype(np.float64))
        labels = self.plan.bins.labels(stats.num_classes)
        return [
            (epoch, c, stats.names[c], str(labels[c]), float(asked[c]), int(tiles[c]), int(self.boxes[c]))
            for c in range(stats.num_classes)
        ]


def append(path: Path, rows: list[tuple]) -> None:
    """Append rows to exposure.csv; the header comes with the first."""
    text = csv_text(rows if path.exists() else [HEADER, *rows])
    with path.open("a", encoding="utf-8") as f:
        f.write(text)


def read(path: Path) -> list[dict[str, str]]:
    """Whole rows of exposure.csv; a line that a killed process left unfinished is dropped."""
    with path.open(encoding="utf-8", newline="") as f:
        return [r for r in csv.DictReader(f) if r.get("boxes") and r["epoch"].isdigit()]


def bin_totals(path: Path) -> list[tuple]:
    """One row per bin over all epochs: name, asked tiles, tiles, boxes."""
    totals = {name: np.zeros(3) for name in BIN_NAMES}
    for row in read(path):
        if row["bin"] in totals:
            totals[row["bin"]] += [float(row["asked"]), float(row["tiles"]), float(row["boxes"])]
    return [(name, *total) for name, total in totals.items() if total.any()]
