"""The picture of a calibration: by what its strength was chosen, and what every class got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.report.drawing import HEAD, INK, MUTED, STYLE, picture
from yolo_lt.report.scatter import count_axis

BELOW = {"frameon": False, "fontsize": 8, "loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
LEAST_SPAN = 0.02  # of an axis of AP: below it lies noise, which must not look like a result


def calibration_plot(path: Path, content: dict[str, Any]) -> Path:
    """The curve over strengths by which one was chosen, and what every class got, against its training images.

    Args:
        path: Where the picture goes.
        content: calibration.json with a curve.
    """
    with picture(path, (10, 4.8)) as figure:
        left, right = figure.subplots(1, 2)
        _curve(left, content)
        _class_maps(right, content["classes"])
    return path


def _curve(axes: Any, content: dict[str, Any]) -> None:
    """What decides over strengths, and AP beside it; the chosen strength marked."""
    holdout = content["holdout"]
    curve = sorted(holdout["curve"], key=lambda p: p["strength"])
    x, judge = [p["strength"] for p in curve], holdout["judge"]
    values = [abs(p["worth"]) for p in curve]
    what = {"f1": "best F1 at one confidence", "ap": "AP, mean over budgets", "log_loss": "log loss"}[judge]
    axes.plot(x, values, "o-", color=INK, label=f"{what}, which decides")
    axes.set(xlabel=f"strength of {content['method']}", ylabel=what)
    axes.axvline(content["strength"], color=MUTED, lw=1, ls=":", label=f"chosen: {content['strength']:g}")
    beside, ap = axes.twinx(), [list(p["ap"].values()) for p in curve]
    for budget, marker, line in zip(curve[0]["ap"], "^sv", ("-", "--", ":"), strict=True):
        label = f"AP, {budget} an image"
        beside.plot(x, [p["ap"][budget] for p in curve], marker, ls=line, color=HEAD, lw=1, ms=4, label=label)
    middle, half = (np.max(ap) + np.min(ap)) / 2, max(np.ptp(ap) / 2, LEAST_SPAN / 2)
    beside.set(ylabel="AP of all classes", ylim=(middle - 1.1 * half, middle + 1.1 * half))
    beside.spines["right"].set_visible(True)
    axes.set_title(f"cross-validated on {holdout['images']} held-out images", fontsize=10, loc="left")
    axes.grid(True, alpha=0.3)
    lines = [*axes.get_lines(), *beside.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], **BELOW)


def _class_maps(axes: Any, classes: list[dict[str, Any]]) -> None:
    """Where a logit of -3, a confidence of 0.05, went: scale and shift in one number."""
    for name in BIN_NAMES:
        inside = [c for c in classes if c["bin"] == name]
        look = STYLE[name]
        moved = [c["scale"] * -3 + c["shift"] + 3 for c in inside]
        axes.plot([c["train_images"] for c in inside], moved, look.marker, color=look.colour, label=name, alpha=0.7)
    axes.set(xlabel="training images of the class", ylabel="change of a logit of -3 (confidence 0.05)")
    count_axis(axes, "x", [c["train_images"] for c in classes if c["bin"] in BIN_NAMES])
    axes.axhline(0, color=MUTED, lw=1)
    axes.set_title("what every class gets", fontsize=10, loc="left")
    axes.grid(True, alpha=0.3)
    axes.legend(**{**BELOW, "ncols": 3})
