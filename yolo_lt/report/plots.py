"""Pictures, drawn with matplotlib and without a display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.files import replacing

# Okabe and Ito's colours, told apart with every common colour vision; the markers say the same without colour
STYLE = {"head": ("#0072B2", "o"), "medium": ("#E69F00", "s"), "tail": ("#D55E00", "^")}

BELOW = {"frameon": False, "fontsize": 8, "loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
LEAST_SPAN = 0.02  # of an axis of AP: below it lies noise, which must not look like a result


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """A figure in this package's style, written whole to `path` at the end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)


def rank_plot(path: Path, plan: Plan) -> Path:
    """Images and expected draws per class against the class' rank, both axes logarithmic."""
    counts = plan.stats.image_counts
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    rank = np.empty(len(counts), int)
    rank[order] = np.arange(1, len(order) + 1)
    with _figure(path, (7, 4.5)) as figure:
        axes = figure.subplots()
        for name in BIN_NAMES:
            ids = getattr(plan.bins, name)
            colour, marker = STYLE[name]
            axes.plot(rank[ids], counts[ids], marker, color=colour, label=f"{name} ({len(ids)} classes)")
        if plan.samples:
            drawn = counts[order] * plan.exposure[order]
            axes.plot(
                rank[order],
                drawn,
                "-",
                color="#555555",
                lw=1,
                label="after the sampler, same number of draws",
            )
        axes.set(xscale="log", yscale="log", xlabel="class rank", ylabel="training images")
        axes.set_title(f"{plan.stats.num_images} images, bins {plan.bins.rule}", fontsize=10, loc="left")
        axes.grid(True, which="major", alpha=0.3)
        axes.legend(frameon=False)
    return path


def calibration_plot(path: Path, content: dict[str, Any]) -> Path:
    """The curve over strengths by which one was chosen, and what every class got, against its training images.

    Args:
        path: Where the picture goes.
        content: calibration.json with a curve.
    """
    with _figure(path, (10, 4.8)) as figure:
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
    axes.plot(x, values, "ko-", label=f"{what}, which decides")
    axes.set(xlabel=f"strength of {content['method']}", ylabel=what)
    axes.axvline(content["strength"], color="#555555", lw=1, ls=":", label=f"chosen: {content['strength']:g}")
    beside, ap = axes.twinx(), [list(p["ap"].values()) for p in curve]
    for budget, marker, colour in zip(curve[0]["ap"], "^sv", ("#0072B2", "#E69F00", "#D55E00"), strict=True):
        label = f"AP, {budget} an image"
        beside.plot(x, [p["ap"][budget] for p in curve], f"{marker}-", color=colour, lw=1, ms=4, label=label)
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
        colour, marker = STYLE[name]
        moved = [c["scale"] * -3 + c["shift"] + 3 for c in inside]
        axes.plot([c["train_images"] for c in inside], moved, marker, color=colour, label=name, alpha=0.7)
    axes.set(xscale="log", xlabel="training images of the class", ylabel="change of a logit of -3 (confidence 0.05)")
    axes.axhline(0, color="#555555", lw=1)
    axes.set_title("what every class gets", fontsize=10, loc="left")
    axes.grid(True, alpha=0.3)
    axes.legend(**{**BELOW, "ncols": 3})
