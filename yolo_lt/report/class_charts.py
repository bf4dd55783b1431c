"""Charts with a point per class, against how many training images it has."""

from __future__ import annotations

from typing import Any

import numpy as np

from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.evaluate.binned import ROWS
from yolo_lt.report.drawing import INK, MUTED, Chart, Tips, legend_below
from yolo_lt.report.names import number_of, printable
from yolo_lt.report.scatter import ORDER, Point, What, classes_of, count_axis, marks_of, scatter

LEAST_CHANGE = 0.05  # of AP50 either way: below it lies noise, which must not look like a result


def ap_by_images(report: dict[str, Any]) -> Chart | None:
    """AP50 of every class against its training images, with that of each bin."""
    points = [_point(c, c["AP50"]) for c in _counted(report) if c["AP50"] is not None]
    if not any(p.images for p in points):
        return None
    means = {name: m["AP50"] for name, m in report["metrics"].items() if m is not None and m["AP50"] is not None}
    what = What(points, _bins_or_all(means), "AP50", "{:.3f}", _sizes(report))

    def draw(figure: Any) -> Tips:
        axes = figure.subplots()
        axes.set(ylim=(0, 1.02), ylabel="AP50")
        return scatter(axes, what)

    worst = min(points, key=lambda p: p.value)
    gone = len(report["per_class"]) - len(points)
    alt = [
        _alt("AP50", what),
        f"The lowest is {worst.name} ({worst.place}) with {worst.value:.3f}.",
        f"Not drawn: {classes_of(gone)} without ground truth, or without a known number of images." if gone else "",
    ]
    title = f"AP50 of each class by training images{_lines(what)}"
    return Chart("ap_by_images", title, " ".join(filter(None, alt)), draw)


def change_by_images(report: dict[str, Any], baseline: dict[str, Any]) -> Chart | None:
    """Change of AP50 of every class from another report's, against its training images."""
    before = {c["id"]: c["AP50"] for c in baseline["per_class"]}
    both = [c for c in _counted(report) if None not in (c["AP50"], before.get(c["id"]))]
    points = [_point(c, c["AP50"] - before[c["id"]]) for c in both]
    if not any(p.images for p in points):
        return None
    changes = {name: [p.value for p in points if name in ("all", p.bin)] for name in ROWS}
    means = {name: float(np.mean(values)) for name, values in changes.items() if values}
    what = What(points, _bins_or_all(means), "mean", "{:+.3f}", _sizes(report))

    def draw(figure: Any) -> Tips:
        axes = figure.subplots()
        most = max(LEAST_CHANGE, *(abs(p.value) for p in points)) * 1.08
        axes.axhline(0, color=INK, lw=1, zorder=1)
        axes.set(ylim=(-most, most), ylabel="change of AP50")
        return scatter(axes, what)

    low, high = (f(points, key=lambda p: p.value) for f in (min, max))
    rise, fall = sum(p.value > 0 for p in points), sum(p.value < 0 for p in points)
    alt = (
        f"{_alt('Change of AP50', what)} {classes_of(rise)} up, {classes_of(fall)} down: from {low.value:+.3f} "
        f"({low.name}, {low.place}) to {high.value:+.3f} ({high.name}, {high.place})."
    )
    title = f"Change of AP50 of each class by training images{_lines(what)}"
    return Chart("change_by_images", title, alt, draw)


def rank(plan: Plan) -> Chart:
    """Images and expected draws per class against the class' rank, both axes logarithmic."""
    counts = plan.stats.image_counts
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    drawn = counts[order] * plan.exposure[order] if plan.samples else np.zeros(0)
    members = {n: ids for n in BIN_NAMES if len(ids := np.array([c for c in getattr(plan.bins, n) if counts[c]]))}
    title = f"Training images of each class by rank; {plan.stats.num_images:,} images, bins {plan.bins.rule}"
    known = ", ".join(f"{name} {classes_of(len(ids))}" for name, ids in members.items())
    alt = f"Training images of each class over its rank by them, both logarithmic: {known or 'no class has any'}."
    if len(order):
        most, fewest = (f"{plan.stats.names[c]} ({counts[c]:,})" for c in order[[0, -1]])
        alt += f" {most} has most, {fewest} fewest."
    if len(drawn):
        alt += f" After the sampler classes are drawn {drawn.min():,.1f} to {drawn.max():,.1f} times."
    return Chart("class_rank", title, alt, lambda figure: _draw_rank(figure, plan, order, drawn, members), (5.6, 3.9))


def _draw_rank(figure: Any, plan: Plan, order: np.ndarray, drawn: np.ndarray, members: dict[str, np.ndarray]) -> Tips:
    axes, tips = figure.subplots(), {}
    counts, places = plan.stats.image_counts, dict(zip(order.tolist(), range(1, len(order) + 1), strict=True))
    for name, ids in members.items():
        marks = marks_of(axes, name, [places[c] for c in ids], counts[ids], len(order))
        marks.set_label(f"{name}: {classes_of(len(ids))}")
        tips[f"points-{name}"] = [f"{plan.stats.names[c]}: {number_of(counts[c], 'training image')}" for c in ids]
    if len(drawn):
        ranks = list(places.values())
        axes.plot(ranks, drawn, color=MUTED, lw=1.4, label="after the sampler, same number of draws")
    axes.set(xlabel="rank of the class", ylabel="training images")
    axes.grid(True)
    count_axis(axes, "x", list(places.values()))
    count_axis(axes, "y", [*counts[order], *drawn])
    legend_below(figure)
    return tips


def _counted(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [c for c in report["per_class"] if c.get("train_images") is not None]


def _point(entry: dict[str, Any], value: float) -> Point:
    return Point(printable(entry["name"]), entry["bin"] or "all", entry["train_images"], value)


def _bins_or_all(means: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in means.items() if name != "all"} or means


def _sizes(report: dict[str, Any]) -> dict[str, int]:
    """How many classes each bin has."""
    bins = [c["bin"] or "all" for c in report["per_class"]]
    return {name: bins.count(name) for name in ORDER}


def _lines(what: What) -> str:
    """What the title says of the lines, if there are any."""
    drawn = {p.bin for p in what.points} & set(what.means)
    return "; line: all" if "all" in drawn else "; lines: bins" if drawn else ""


def _alt(value: str, what: What) -> str:
    counts = [p.images for p in what.points]
    means = ", ".join(f"{name} {what.mean_text(name)}" for name in what.means)
    return (
        f"{value} of {classes_of(len(counts))} against training images, {min(counts):,} to {max(counts):,}, on a "
        f"logarithmic axis: {means}."
    )
