"""The pictures of RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from accuracy_records import Value

from yolo_lt.report.drawing import INK, MUTED, STYLE, TAIL, picture


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
    with picture(path, (4.4 * len(sets), 3.9)) as figure:
        panels = np.atleast_1d(figure.subplots(1, len(sets), sharey=True))
        for axes, (name, rows) in zip(panels, sets.items(), strict=True):
            axes.axhline(1, color=INK, lw=1)
            axes.axvline(0, color=INK, lw=1)
            for row, (head, tail) in rows.items():
                axes.plot([head.low, head.high], [tail.mean] * 2, color=MUTED, lw=1.2)
                axes.plot([head.mean] * 2, [tail.low, tail.high], color=MUTED, lw=1.2)
                axes.plot(head.mean, tail.mean, STYLE["tail"].marker, color=TAIL)
                axes.annotate(row, (head.mean, tail.mean), (4, 4), textcoords="offset points", fontsize=9)
            axes.set(title=name, xlabel="head AP50, difference to stock")
        top = max(panels[0].get_ylim()[1], goal["ratio"] + 0.1)  # of all panels, which share it
        for axes in panels:
            right = max(axes.get_xlim()[1], 0.03)
            axes.fill_between([goal["lower"], right], goal["ratio"], top, color=TAIL, alpha=0.12, lw=0)
            axes.set(xlim=(None, right), ylim=(None, top))
        panels[0].set_ylabel("tail AP50, times stock's")
