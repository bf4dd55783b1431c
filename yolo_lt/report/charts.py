"""Charts of a report: here those by frequency bin, in `class_charts` those with a point per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolo_lt.evaluate.binned import ROWS
from yolo_lt.report.class_charts import ap_by_images, change_by_images, rank
from yolo_lt.report.drawing import INK, MUTED, PAPER, STYLE, Chart, Tips, legend_below
from yolo_lt.report.names import number_of, printable

__all__ = [
    "Chart",
    "ap_by_images",
    "calibration_by_bin",
    "change_by_images",
    "difference_by_bin",
    "errors_by_bin",
    "exposure_by_bin",
    "pr_by_bin",
    "rank",
    "training_by_bin",
]

SHOWN = {"AP": "o", "AP50": "D", "AP75": "s"}  # of a difference, with their markers
FEW = 5  # detections: with fewer the precision of a step of confidence says nothing
MANY_EPOCHS = 40  # from there a marker per epoch is clutter
LEAST_SPAN = 0.02  # of an axis of differences: below it lies noise, which must not look like a result


def errors_by_bin(report: dict[str, Any], top: float | None = None) -> Chart | None:
    """AP50 that each kind of error costs, by bin.

    Args:
        report: The report.
        top: Where the axis ends, for charts that are read side by side.
    """
    shares = (report.get("errors") or {}).get("shares") or {}
    losses = {n: s["loss"] for n, s in shares.items() if s is not None and s["AP50"] is not None}
    losses = {n: loss for n, loss in losses.items() if n != "all"} or losses
    if not losses:
        return None
    kinds = list(next(iter(losses.values())))

    def draw(figure: Any) -> None:
        axes = _bars(figure, kinds)
        thick = min(0.5, 0.8 / len(losses))
        for i, (name, loss) in enumerate(losses.items()):
            at = np.arange(len(kinds)) + (i - (len(losses) - 1) / 2) * thick
            look = STYLE[name]
            axes.barh(at, list(loss.values()), thick, color=look.colour, hatch=look.hatch, ec=PAPER, label=name)
        most = max(0.01, *(v for loss in losses.values() for v in loss.values()))
        axes.set(xlabel="AP50 lost", xlim=(0, top or 1.05 * most))
        legend_below(figure)

    worst = {name: max(loss, key=loss.__getitem__) for name, loss in losses.items()}
    parts = "; ".join(f"{n} loses most to {kind} ({losses[n][kind]:.3f})" for n, kind in worst.items())
    alt = f"AP50 that is lost to each kind of error (TIDE), by bin: {parts}."
    height = 1.2 + len(kinds) * (0.2 + 0.1 * len(losses))
    return Chart("errors_by_bin", "AP50 lost to each kind of error (TIDE)", alt, draw, (5.2, height))


def pr_by_bin(report: dict[str, Any]) -> Chart | None:
    """Precision over recall at IoU 0.5, by bin."""
    curves = report.get("curves") or {}
    known = {name: curves[name] for name in ROWS if curves.get(name)}
    if not known:
        return None
    recall = curves["recall"]

    def draw(figure: Any) -> None:
        axes = _unit_square(figure, "recall", "precision")
        for name, curve in known.items():
            _line(axes, name, recall, curve, _with(name, "AP50", report["metrics"][name]), marked=False)
        legend_below(figure)

    half = int(np.argmin(np.abs(np.array(recall) - 0.5)))
    parts = ", ".join(f"{name} {curve[half]:.3f}" for name, curve in known.items())
    ends = ", ".join(f"{name} {_reach(recall, curve):.2f}" for name, curve in known.items())
    title = f"Precision over recall at IoU {curves['iou']:g}"
    alt = f"{title}, by bin. At recall 0.5 the precision is: {parts}. The recall that is reached: {ends}."
    return Chart("pr_by_bin", title, alt, draw, (5.2, 3.8))


def calibration_by_bin(report: dict[str, Any]) -> Chart | None:
    """Precision over confidence, by bin; the area of a point grows with its detections."""
    entries = {name: e for name in ROWS if (e := report["calibration"].get(name))}
    points = {name: p for name, e in entries.items() if (p := _reliable(e.get("reliability")))}
    if not points:
        return None

    def draw(figure: Any) -> Tips:
        axes, tips = _unit_square(figure, "confidence", "precision"), {}
        handles = axes.plot([0, 1], [0, 1], color=MUTED, lw=1, label="confidence = precision")
        for name, steps in points.items():
            x, y, n = np.array(steps).T
            look = STYLE[name]
            _line(axes, name, x, y, "", marked=False)
            handles += _line(axes, name, [], [], _with(name, "ECE", entries[name]), marked=True)
            dots = axes.scatter(x, y, 14 + 90 * np.sqrt(n / most), look.colour, marker=look.marker, ec=PAPER, lw=0.5)
            dots.set(clip_on=False, zorder=3, gid=f"points-{name}")
            tips[f"points-{name}"] = [_step_text(name, *step) for step in steps]
        legend_below(figure, handles)
        return tips

    most = max(n for steps in points.values() for _, _, n in steps)
    errors = ", ".join(f"{name} {entries[name]['ECE']:.3f}" for name in points if entries[name]["ECE"] is not None)
    lean = "; ".join(f"{name} {_lean(steps)}" for name, steps in points.items())
    alt = (
        f"Precision over confidence in steps, by bin, larger points for more detections; steps with fewer than {FEW} "
        f"detections are left out. Expected calibration error: {errors}. On average: {lean}."
    )
    title = f"Precision over confidence, in steps with at least {FEW} detections"
    return Chart("calibration_by_bin", title, alt, draw, (5.2, 4.0))


def exposure_by_bin(report: dict[str, Any]) -> Chart | None:
    """Tiles that the sampler was asked for and that were drawn, by bin."""
    rows = {name: r for name, r in ((report.get("training") or {}).get("exposure") or {}).items() if r}
    if not rows:
        return None
    ratios = {n: f"{r['tiles'] / r['asked']:.3f} of asked" if r["asked"] else "none asked" for n, r in rows.items()}
    ends = {name: max(r["asked"], r["tiles"]) for name, r in rows.items()}

    def draw(figure: Any) -> None:
        axes = _bars(figure, list(rows))
        for i, (name, row) in enumerate(rows.items()):
            colour = STYLE[name].colour
            axes.barh(i - 0.18, row["asked"], 0.32, color="none", ec=colour, hatch="////", lw=1)
            axes.barh(i + 0.18, row["tiles"], 0.32, color=colour, ec=colour, lw=1)
            beside = {"textcoords": "offset points", "va": "center", "fontsize": 9}
            axes.annotate(ratios[name], (ends[name], i), (5, 0), **beside)
        axes.set(xlabel="tiles, summed over the classes of the bin", xlim=(0, 1.35 * max(1, *ends.values())))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.locator_params(axis="x", nbins=5)
        legend_below(figure, _asked_and_drawn())

    parts = "; ".join(f"{n} {r['tiles']:,.0f} for {r['asked']:,.0f} ({ratios[n]})" for n, r in rows.items())
    alt = f"Tiles with a class of the bin, summed over its classes, as counted for those asked of the sampler: {parts}."
    return Chart("exposure_by_bin", "Tiles asked for and drawn, by bin", alt, draw, (5.2, 1.3 + 0.55 * len(rows)))


def training_by_bin(report: dict[str, Any]) -> Chart | None:
    """AP50 over the epochs of the training, by bin."""
    training = report.get("training") or {}
    rows = training.get("by_epoch") or {}
    columns = {
        name: list(zip(rows["epoch"], v, strict=True)) for name in ROWS if (v := (rows.get("AP50") or {}).get(name))
    }
    known = {name: p for name, pairs in columns.items() if (p := [(e, v) for e, v in pairs if v is not None])}
    if not any(len(pairs) > 1 for pairs in known.values()):
        return None  # one epoch is no course; its AP stands in the other charts

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, pairs in known.items():
            epochs, values = zip(*pairs, strict=True)
            _line(axes, name, epochs, values, name, marked=len(pairs) <= MANY_EPOCHS)
        axes.set(xlabel="epoch", ylabel="AP50", ylim=(0, 1.02))
        axes.grid(True)
        axes.locator_params(axis="x", integer=True)
        legend_below(figure)

    run = [f"{key} {printable(training[key])}" for key in ("recipe", "seed") if training.get(key) is not None]
    last = ", ".join(f"{name} {pairs[-1][1]:.3f}" for name, pairs in known.items())
    best = ", ".join(f"{name} {max(v for _, v in pairs):.3f}" for name, pairs in known.items())
    alt = (
        f"AP50 by bin after each of {number_of(len(rows['epoch']), 'epoch')}. After the last: {last}. At best: {best}."
    )
    return Chart("training_by_bin", ", ".join(["AP50 by epoch", *run]), alt, draw)


def difference_by_bin(difference: dict[str, Any], title: str) -> Chart | None:
    """Paired differences of AP, AP50 and AP75 by bin, with their intervals.

    Args:
        difference: By bin, as `compare` and `baseline` have it: [value, low, high] or [value] by metric, and `is`.
        title: What is compared to what.
    """
    rows = {name: r for name in ROWS if (r := difference.get(name)) and any(r[m] for m in SHOWN)}
    if not rows:
        return None
    intervals = any(len(r[m] or ()) > 1 for r in rows.values() for m in SHOWN)

    def draw(figure: Any) -> None:
        axes = _bars(figure, list(rows))
        axes.axvline(0, color=INK, lw=1, zorder=1)
        for i, (name, row) in enumerate(rows.items()):
            for offset, metric in zip((-0.24, 0, 0.24), SHOWN, strict=True):
                if row[metric]:
                    _interval(axes, i + offset, name, metric, row)
        most = max(LEAST_SPAN, *(abs(v) for row in rows.values() for m in SHOWN for v in row[m] or ()))
        axes.set(xlabel="difference (right of 0: better)", xlim=(-1.08 * most, 1.08 * most))
        legend_below(figure, _metric_handles(intervals))

    alt = " ".join(
        f"{m} by bin: {'; '.join(_difference_text(n, m, r) for n, r in rows.items() if r[m])}." for m in SHOWN
    )
    height = 1.4 + 0.62 * len(rows)
    return Chart("difference_by_bin", title, f"Paired differences. {alt}", draw, (5.2, height))


def _bars(figure: Any, labels: Sequence[str]) -> Any:
    """Axes for bars that lie, the first label on top."""
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    return axes


def _unit_square(figure: Any, x: str, y: str) -> Any:
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(True)
    return axes


def _line(axes: Any, name: str, x: Any, y: Any, label: str, marked: bool) -> Any:
    look = STYLE[name]
    marker = {"marker": look.marker, "ms": 5, "mec": PAPER, "mew": 0.5} if marked else {}
    return axes.plot(x, y, ls=look.line, color=look.colour, lw=look.width, label=label, **marker)


def _with(name: str, key: str, entry: Mapping[str, Any] | None) -> str:
    """A bin and its number, for a legend."""
    value = (entry or {}).get(key)
    return name if value is None else f"{name}, {key} {value:.3f}"


def _reach(recall: Sequence[float], curve: Sequence[float]) -> float:
    """The last recall with a precision."""
    return max((r for r, p in zip(recall, curve, strict=True) if p > 0), default=0.0)


def _reliable(steps: Mapping[str, Any] | None) -> list[tuple[float, float, int]]:
    """Confidence, precision and detections of the steps that have enough."""
    if not steps:
        return []
    rows = zip(steps["confidence"], steps["precision"], steps["n_det"], strict=True)
    return [(c, p, n) for c, p, n in rows if n >= FEW and None not in (c, p)]


def _step_text(name: str, confidence: float, precision: float, n: int) -> str:
    return f"{name}: confidence {confidence:.3f}, precision {precision:.3f}, {number_of(int(n), 'detection')}"


def _lean(steps: Sequence[tuple[float, float, int]]) -> str:
    """Whether confidences promise too much."""
    x, y, n = np.array(steps).T
    gap = float(np.average(y - x, weights=n))
    return f"precision {abs(gap):.3f} {'below' if gap < 0 else 'above'} confidence"


def _asked_and_drawn() -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(fc="none", ec=INK, hatch="////", label="asked for"), Patch(fc=INK, ec=INK, label="drawn")]


def _interval(axes: Any, y: float, name: str, metric: str, row: Mapping[str, Any]) -> None:
    """One difference; hollow where its interval holds 0."""
    look, (value, *bounds) = STYLE[name], row[metric]
    if bounds:
        axes.plot(bounds, [y, y], color=look.colour, lw=1.6, zorder=2)
    face = PAPER if row["is"][metric] == "no difference shown" else look.colour
    axes.plot([value], [y], SHOWN[metric], ms=6.5, mfc=face, mec=look.colour, mew=1.4, zorder=3)


def _metric_handles(intervals: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=INK, marker=marker, ls="", label=m) for m, marker in SHOWN.items()]
    hollow = Line2D([], [], color=INK, marker="o", mfc=PAPER, ls="", label="hollow: no difference shown")
    return [*lines, hollow] if intervals else lines


def _difference_text(name: str, metric: str, row: Mapping[str, Any]) -> str:
    value, *bounds = row[metric]
    interval = f" [{bounds[0]:+.3f}, {bounds[1]:+.3f}]" if bounds else ""
    said = f" ({row['is'][metric]})" if row["is"][metric] else ""
    return f"{name} {value:+.3f}{interval}{said}"
