"""The pictures of RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_records import Value

from yolo_lt.report.drawing import INK, MUTED, STYLE, TAIL, picture

COLUMNS = 2  # panels beside each other


def draw_changes(path: Path, points: dict[str, tuple[Value, Value]], base: str, limit: float) -> None:
    """A line of the picture per row: the differences of head and tail with their intervals; dotted, the limit."""
    with picture(path, (7.2, 1.1 + 0.34 * len(points))) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=INK, lw=1)
        axes.axvline(limit, color=MUTED, lw=1, ls=":")
        for i, (_, values) in enumerate(points.items()):
            for name, v, shift in zip(("head", "tail"), values, (0.14, -0.14), strict=True):
                look = STYLE[name]
                axes.plot([v.low, v.high], [i + shift] * 2, color=look.colour, lw=1.6)
                label = {"label": name} if i == 0 else {}
                axes.plot(v.mean, i + shift, look.marker, color=look.colour, **label)
        axes.set(yticks=np.arange(len(points)), xlabel=f"AP50, difference to {base}")
        axes.set_yticklabels(list(points))
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.legend(loc="best")


def draw_frontier(path: Path, sets: Mapping[str, Mapping[str, tuple[Value, Value]]], goal: Mapping[str, float]) -> None:
    """A panel per set: what each row does to the head, and how many times stock's tail it has; the goal is shaded."""
    lines = -(-len(sets) // COLUMNS)
    with picture(path, (5 * min(COLUMNS, len(sets)), 4.2 * lines)) as figure:
        panels = figure.subplots(lines, min(COLUMNS, len(sets)), sharex=True, sharey=True, squeeze=False)
        used, spare = panels.flat[: len(sets)], panels.flat[len(sets) :]
        for axes in spare:
            axes.remove()
        for axes, (name, rows) in zip(used, sets.items(), strict=True):
            axes.axhline(1, color=INK, lw=1)
            axes.axvline(0, color=INK, lw=1)
            _crosses(axes, rows)
            axes.set(title=name, xlabel="head AP50, difference to stock", ylabel="tail AP50, times stock's")
            axes.label_outer()
        right = max(used[0].get_xlim()[1], 0.03)  # of all panels, which share both axes
        top = max(used[0].get_ylim()[1], goal["ratio"] + 0.1)
        for axes in used:
            axes.fill_between([goal["lower"], right], goal["ratio"], top, color=TAIL, alpha=0.12, lw=0)
        used[0].set(xlim=(None, right), ylim=(None, top))


def _crosses(axes: Any, rows: Mapping[str, tuple[Value, Value]]) -> None:
    """A cross of intervals per row; the names are outside, so that those of neighbours do not meet."""
    middle = np.median([head.mean for head, _ in rows.values()]) if rows else 0
    for row, (head, tail) in rows.items():
        axes.plot([head.low, head.high], [tail.mean] * 2, color=MUTED, lw=1.2)
        axes.plot([head.mean] * 2, [tail.low, tail.high], color=MUTED, lw=1.2)
        axes.plot(head.mean, tail.mean, STYLE["tail"].marker, color=TAIL)
        shift, side = ((-5, 4), "right") if head.mean < middle else ((5, 4), "left")
        axes.annotate(row, (head.mean, tail.mean), shift, textcoords="offset points", ha=side, fontsize=9)
