"""What surrounds the classes, as tables: by bin, of every class, and of the tail classes with narrow contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from yolo_lt.balance.advice import narrow_classes
from yolo_lt.dataset.bins import BIN_NAMES, Bins
from yolo_lt.dataset.diagnosis.context import Context, neighbours
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.report.blocks import ClassTable, Table
from yolo_lt.report.words import percent

NOTES = {
    "contexts of expected": "Contexts: distinct sets of other classes, over those of other classes on as many images.",
    "cells": "Cells: effective share of a 3 x 3 grid that holds centres, at most a ninth per box.",
    "size": "Size: median of the square root of the area, in parts of the image.",
}


def known(value: float | None) -> float | None:
    """A number as tables show it: None where it is not known."""
    return None if value is None or np.isnan(value) else float(value)


def by_bin(context: Context, bins: Bins) -> Table | None:
    """Means over the classes of every bin; columns of what is unknown are left out."""
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "boxes per image": context.per_image,
            "in the fullest": context.fullest_share,
            "alone": context.alone,
            "contexts of expected": context.contexts / context.contexts_expected,
            "scenes per image": context.scenes / context.images,
            "cells": context.cells,
            "size": context.sizes[:, 1],
        }
    columns = {name: values for name, values in columns.items() if not np.isnan(values).all()}
    members = {name: ids for name in BIN_NAMES if len(ids := getattr(bins, name))}
    rows = [(name, len(ids), *(_mean(values[ids]) for values in columns.values())) for name, ids in members.items()]
    note = " ".join(text for key, text in NOTES.items() if key in columns)
    head = "what surrounds the classes, mean by bin"
    return Table(("bin", "classes", *columns), rows, head, note) if rows else None


def _mean(values: np.ndarray) -> float | None:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else None


def narrowest(context: Context, stats: ClassStats, bins: Bins, most: int) -> Table | None:
    """The tail classes with narrow contexts, then those with the fewest images."""
    narrow = narrow_classes(context)
    order = sorted(bins.tail.tolist(), key=lambda c: (not narrow[c], context.images[c], c))[:most]
    if not order:
        return None
    columns = _columns(context, stats, bins)
    del columns["class id"], columns["bin"]
    head = f"{len(order)} of {len(bins.tail)} tail classes, those with narrow contexts first, then by images"
    return Table(list(columns), [[column(c) for column in columns.values()] for c in order], head)


def every_class(context: Context, stats: ClassStats, bins: Bins) -> ClassTable | None:
    """One row per class that occurs, the most images first."""
    order = np.argsort(-context.images, kind="stable")
    there = order[context.images[order] > 0].tolist()
    columns = _columns(context, stats, bins)
    return ClassTable(list(columns), [[column(c) for column in columns.values()] for c in there]) if there else None


Column = Callable[[int], Any]


def _columns(context: Context, stats: ClassStats, bins: Bins) -> dict[str, Column]:
    """What to show of a class that occurs; what is unknown of every class is left out."""
    labels = bins.labels(stats.num_classes)
    columns: dict[str, Column] = {
        "class id": lambda c: c,
        "name": lambda c: stats.names[c],
        "bin": lambda c: str(labels[c]),
        "images": lambda c: int(context.images[c]),
        "boxes per image": lambda c: known(context.per_image[c]),
        "in the fullest": lambda c: known(context.fullest_share[c]),
        "alone": lambda c: known(context.alone[c]),
        "contexts": lambda c: int(context.contexts[c]),
        "expected": lambda c: known(context.contexts_expected[c]),
    }
    if not np.isnan(context.scenes).all():
        columns["scenes"] = lambda c: int(context.scenes[c])
    if not np.isnan(context.cells).all():
        columns |= {
            "cells": lambda c: known(float(context.cells[c])),
            "size": lambda c: known(float(context.sizes[c, 1])),
        }
    if any(beside := _beside(context, stats)):
        columns["most often beside"] = lambda c: beside[c] or "-"
    return columns


def _beside(context: Context, stats: ClassStats) -> Sequence[str]:
    """The two classes that every class is most often beside, with the share of its images and the lift."""
    near = neighbours(context.shared, stats.num_images, 2)
    rows = zip(near.ids.tolist(), near.share.tolist(), near.lift.tolist(), strict=True)
    return [", ".join(_neighbour(stats, *one) for one in zip(*row, strict=True) if one[0] >= 0) for row in rows]


def _neighbour(stats: ClassStats, c: int, share: float, lift: float) -> str:
    times = f"{lift:,.0f}" if lift >= 10 else f"{lift:.2g}"
    return f"{stats.names[c]} ({percent(share)}, lift {times})"
