"""What make-lt and split did, as text: which counts were reached, and on which sides the classes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolo_lt.dataset.bins import BIN_NAMES, Bins
from yolo_lt.dataset.stats import ClassStats, imbalance
from yolo_lt.report.blocks import Table, show
from yolo_lt.report.names import printable
from yolo_lt.report.words import listed

REACHED = ("class_id", "name", "images", "wished images", "chosen images", "instances", "wished", "chosen", "reached")
MOST = 12  # rows of a table in the terminal


def reached(
    stats: ClassStats, kept: ClassStats, images: np.ndarray | None, instances: np.ndarray, missed: np.ndarray
) -> list[tuple]:
    """One row per class: what there is, what was wished, what was chosen.

    Args:
        stats: The whole set, C classes.
        kept: The chosen images.
        images: Wished images per class, shape (C,), or None.
        instances: Wished instances per class, shape (C,).
        missed: Classes that missed their wish.
    """
    lost = set(missed.tolist())
    columns = (stats.image_counts, images, kept.image_counts, stats.instance_counts, instances, kept.instance_counts)
    return [
        (c, name, *("" if column is None else int(column[c]) for column in columns), "no" if c in lost else "yes")
        for c, name in enumerate(stats.names)
    ]


def reached_text(stats: ClassStats, kept: ClassStats, rows: Sequence[tuple], tolerance: float, bins: Bins) -> str:
    """How large the subset is, how imbalanced, and which classes missed their wish, the worst first."""
    ratio = imbalance(kept.instance_counts)["ratio"]
    sizes = listed([f"{len(getattr(bins, name))} {name}" for name in BIN_NAMES])
    lines = [
        f"{kept.num_images} of {stats.num_images} images, {len(kept.classes)} of {len(stats.classes)} instances; the "
        f"commonest class has {ratio:.1f} times the instances of the rarest; {sizes} classes"
    ]
    missed = sorted((r for r in rows if r[-1] == "no"), key=lambda r: -abs(r[7] - r[6]) / max(r[6], 1))
    if not missed:
        return "\n".join([*lines, f"every class has the wished instances to within {tolerance:.0%}"])
    shown = [(printable(r[1]), r[5], r[6], r[7], f"{r[7] / max(r[6], 1) - 1:+.0%}") for r in missed[:MOST]]
    more = f"; the worst {MOST}" if len(missed) > MOST else ""
    lines.append(f"{len(missed)} classes miss their wish by more than {tolerance:.0%} (all are in make_lt.csv{more}):")
    return "\n".join([*lines, show(Table(("class", "available", "wished", "chosen", "off"), shown))])


def split_text(
    stats: ClassStats, groups: np.ndarray, sides: np.ndarray, names: Sequence[str], torn: Mapping[int, str]
) -> str:
    """How large the sides are, and which classes are not on all of them, and why.

    Args:
        stats: All images, N.
        groups: Group of every image, shape (N,).
        sides: Side of every image, shape (N,).
        names: What the sides are called.
        torn: Classes that are not on every side, and the reason.
    """
    rows: list[tuple[Any, ...]] = []
    for s, name in enumerate(names):
        part = stats.select(sides == s)
        present = int((part.image_counts > 0).sum())
        rows.append((name, part.num_images, part.num_images / max(stats.num_images, 1), len(part.classes), present))
    table = show(Table(("split", "images", "share", "instances", "classes"), rows))
    sizes = np.unique(groups, return_counts=True)[1]
    together = int((sizes > 1).sum())
    lines = [table, f"{together} groups of images stay together, {int(sizes[sizes > 1].sum())} images in all"]
    if torn:
        shown = [f"{printable(stats.names[c])} ({why})" for c, why in list(torn.items())[:MOST]]
        lines.append(
            f"{len(torn)} classes are not in every split: {', '.join(shown)}{' ...' if len(torn) > MOST else ''}"
        )
    else:
        lines.append("every class that occurs is in every split")
    return "\n".join(lines)
