"""How a point per class is drawn against its training images: bands of the bins, a logarithmic axis, tooltips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.report.drawing import PAPER, STYLE, Tips, legend_below
from yolo_lt.report.names import number_of

MANY = 100  # classes from which markers are see-through
LABEL_GAP = 0.24  # of the axes' width, from the middle of one band's words to the next
ORDER = ("all", "unseen", *reversed(BIN_NAMES))  # from left to right


class Point(NamedTuple):
    """A class: its name, bin ("all" without bins), training images and what is drawn of it."""

    name: str
    bin: str
    images: int
    value: float

    @property
    def place(self) -> str:
        """Where it lies, in words."""
        return f"{'' if self.bin == 'all' else f'{self.bin}, '}{number_of(self.images, 'training image')}"


class Band(NamedTuple):
    """A bin as an interval of training images."""

    name: str
    low: float
    high: float


class What(NamedTuple):
    """What a chart shows of every class.

    Attributes:
        points: The classes.
        means: The same of each bin.
        word: What stands before a mean.
        form: How a value is written.
        sizes: Classes of each bin, with those that are not drawn.
    """

    points: list[Point]
    means: dict[str, float]
    word: str
    form: str
    sizes: dict[str, int]

    def mean_text(self, name: str) -> str:
        """The mean of a bin."""
        return f"{self.word} {self.form.format(self.means[name])}"


def classes_of(count: int) -> str:
    """So many classes."""
    return number_of(count, "class", "classes")


def bands(points: Sequence[Point]) -> list[Band]:
    """The bins as intervals that share borders, tail first; none where they are no intervals of the counts."""
    ends = {}
    for name in reversed(BIN_NAMES):
        if counts := [p.images for p in points if p.bin == name]:
            ends[name] = (min(counts), max(counts))
    pairs = list(zip(list(ends.values()), list(ends.values())[1:], strict=False))
    mixed = any((p.bin == "unseen") != (p.images == 0) for p in points)
    if mixed or any(low[1] >= high[0] for low, high in pairs):
        return []
    outer = [0.0, *(float(np.sqrt(low[1] * high[0])) for low, high in pairs), float("inf")]
    return [Band(name, *outer[i : i + 2]) for i, name in enumerate(ends)]


def scatter(axes: Any, what: What) -> Tips:
    """Markers by bin, with tooltips; what each bin is stands over its band, or in a legend where there are none."""
    zero = count_axis(axes, "x", [p.images for p in what.points])
    axes.set_xlabel("training images of the class")
    axes.grid(True, axis="y")
    zones = _zones(what, zero, axes.get_xlim())
    for zone in zones:
        axes.axvspan(zone.low, zone.high, color=STYLE[zone.name].colour, alpha=0.09, lw=0, zorder=0)
    groups = {name: inside for name in ORDER if (inside := [p for p in what.points if p.bin == name])}
    for name, inside in groups.items():
        xs = [p.images or zero for p in inside]
        marks_of(axes, name, xs, [p.value for p in inside], len(what.points))
        within = next((z[1:] for z in zones if z.name == name), (min(xs), max(xs)))
        _mean(axes, what, axes.get_xlim() if name == "all" else within, name)
    if zones:
        _label(axes, zones, [_words(what, zone.name) for zone in zones])
    else:
        legend_below(axes.figure, [_handle(what, name) for name in groups])
    return {f"points-{name}": [f"{p.name}: {p.place}, AP50 {what.form.format(p.value)}" for p in inside]
            for name, inside in groups.items()}  # fmt: skip


def _handle(what: What, name: str) -> Any:
    """What a legend shows of a bin: its marker, its line and words."""
    from matplotlib.lines import Line2D

    look, words = STYLE[name], [word for word in _words(what, name).split("\n") if word]
    line = look.line if name in what.means else ""
    return Line2D([], [], marker=look.marker, ls=line, color=look.colour, lw=look.width, ms=6, label=", ".join(words))


def _zones(what: What, zero: float, limits: tuple[float, float]) -> list[Band]:
    """The bands within the axes; classes without a training image have one of their own."""
    zones, start = bands(what.points), limits[0]
    if zones and any(not p.images for p in what.points):
        start = float(np.sqrt(zero * min(p.images for p in what.points if p.images)))
        zones = [Band("unseen", limits[0], start), *zones]
    return [Band(z.name, z.low or start, min(z.high, limits[1])) for z in zones]


def _words(what: What, name: str) -> str:
    """What stands over a band, in three lines: the bin, its classes, its mean."""
    drawn = sum(p.bin == name for p in what.points)
    size = max(what.sizes[name], drawn)
    classes = classes_of(size) if drawn == size else f"{drawn:,} of {size:,}"
    return "\n".join([name, classes, what.mean_text(name) if name in what.means else ""])


def marks_of(axes: Any, name: str, xs: Any, ys: Any, total: int) -> Any:
    """Markers of one bin, smaller and see-through where there are many."""
    look, size = STYLE[name], float(np.clip(10.5 - 2.3 * np.log10(max(total, 1)), 3.6, 7))
    edge = look.colour if look.marker == "x" else PAPER
    marks = axes.plot(xs, ys, look.marker, color=look.colour, ms=size, mec=edge, mew=1.4 if look.marker == "x" else 0.5)
    marks[0].set(clip_on=False, zorder=3, alpha=None if total < MANY else 0.75, gid=f"points-{name}")
    return marks[0]


def _mean(axes: Any, what: What, ends: Sequence[float], name: str) -> None:
    """The line of a bin: under a few points, which it must not hide; over many, which would hide it."""
    if name not in what.means:
        return
    look, over = STYLE[name], len(what.points) >= MANY
    ys, zorder = [what.means[name]] * 2, 4 if over else 2
    if over:
        axes.plot(ends, ys, color=PAPER, lw=look.width + 2, zorder=zorder)
    axes.plot(ends, ys, ls=look.line, color=look.colour, lw=look.width, zorder=zorder)


def _label(axes: Any, zones: Sequence[Band], words: Sequence[str]) -> None:
    """Words over the bands, moved apart where bands are narrow."""
    start, end = np.log(axes.get_xlim())
    middles = [(np.log(z.low * z.high) / 2 - start) / (end - start) for z in zones]
    for middle, text in zip(_apart(middles), words, strict=True):
        axes.text(middle, 1.03, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=9, linespacing=1.25)


def _apart(middles: Sequence[float]) -> list[float]:
    """Ascending places, each at least `LABEL_GAP` from the next."""
    moved: list[float] = []
    for middle in middles:
        moved.append(max(middle, moved[-1] + LABEL_GAP) if moved else middle)
    limit = 1.0 - LABEL_GAP / 3
    for i in reversed(range(len(moved))):
        moved[i] = limit = min(moved[i], limit)
        limit -= LABEL_GAP
    return moved


def count_axis(axes: Any, which: str, counts: Sequence[float] | np.ndarray) -> float:
    """A logarithmic axis of numbers from 1 with plain labels; returns where 0 is drawn, left of a gap."""
    from matplotlib.ticker import NullLocator

    some = [float(n) for n in counts if n > 0] or [1.0]
    span = max(float(np.log10(max(some) / min(some))), 0.3)
    low, high, zero = min(some) / 10 ** (span / 20), max(some) * 10 ** (span / 20), min(some) / 10 ** (span / 5)
    ticks, labels = count_ticks(low, high), []
    if len(some) < len(counts):
        low, labels = zero / 10 ** (span / 20), ["0"]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis.set_minor_locator(NullLocator())
    axis.set_ticks([zero] * len(labels) + ticks, labels=[*labels, *(f"{t:,.6g}" for t in ticks)])
    return zero


def count_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers from `low` to `high`, in steps that grow with the span; on a short span as many apart."""
    from matplotlib.ticker import MaxNLocator

    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(step * 10.0**k) for k in decades for step in steps if low <= step * 10.0**k <= high]
        if len(ticks) <= most:
            break
    if len(ticks) < 2:
        whole = MaxNLocator(4, integer=True, min_n_ticks=1)
        ticks = [float(t) for t in whole.tick_values(low, high) if low <= t <= high]
    return ticks
