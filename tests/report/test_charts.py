import copy
import re
import warnings
from functools import cache
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.report import charts
from yolo_lt.report.drawing import INK, MUTED, PALETTE, STYLE, canvas, save_png, svg
from yolo_lt.report.scatter import Point, bands, count_ticks

BINS = ("head", "medium", "tail")
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
# id, bin, training images, AP50; class 5 has no ground truth in the split
CLASSES = [
    *((0, "head", 1170, 0.98), (1, "head", 400, 0.6), (2, "medium", 190, 0.7), (3, "medium", 37, 0.14)),
    *((4, "tail", 22, 0.2), (5, "tail", 10, None), (6, "tail", 5, 0.4)),
]


def report(classes=CLASSES, bins=True):
    """What the charts read of a report, small enough to know every number."""
    rows = [
        {"id": i, "name": f"class {i}", "bin": b if bins else None, "train_images": n, "AP50": ap}
        for i, b, n, ap in classes
    ]
    known = ("all", *BINS) if bins else ("all",)
    members = {name: [c for c in rows if name in ("all", c["bin"])] for name in known}
    values = {name: [c["AP50"] for c in own if c["AP50"] is not None] for name, own in members.items()}
    mean = {name: float(np.mean(v)) if v else None for name, v in values.items()}
    kinds = {name: {k: (i + 1) * (j + 1) / 100 for j, k in enumerate(KINDS)} for i, name in enumerate(known)}
    steps = {"confidence": [0.1, 0.3, 0.55, 0.9], "precision": [0.05, 0.3, 0.4, 1.0], "n_det": [400, 40, 5, 4]}
    exposure = {name: {"asked": 1000.0 / (i + 1), "tiles": 990.0 / (i + 1)} for i, name in enumerate(BINS)}
    by_epoch = {n: [0.1 * (i + 1) + 0.01 * e for e in range(4)] for i, n in enumerate(known)}

    def by_bin(make):
        return dict.fromkeys(("all", *BINS)) | {name: make(i, name) for i, name in enumerate(known)}

    return {
        "per_class": rows,
        "metrics": by_bin(lambda _, name: {"AP50": mean[name]}),
        "errors": {"shares": by_bin(lambda _, name: {"AP50": mean[name], "loss": kinds[name]})},
        "curves": {
            "iou": 0.5,
            "recall": np.linspace(0, 1, 101).round(2).tolist(),
            **by_bin(lambda i, _: np.clip(np.linspace(1, -0.1 * i, 101), 0, 1).round(4).tolist()),
        },
        "calibration": {"floor": 0.05, **by_bin(lambda i, _: {"ECE": 0.1 * i + 0.01, "reliability": steps})},
        "training": {
            "seed": 3,
            "recipe": "rfs",
            "epochs": 4,
            "by_epoch": {"epoch": [1, 2, 3, 4], "AP50": by_epoch},
            "exposure": exposure,
        },
    }


def many(count=1203, seed=0):
    rng = np.random.default_rng(seed)
    images = np.minimum(np.round(10 ** rng.normal(1.4, 0.7, count)), 1900).astype(int)
    images[:20] = 0
    names = ["unseen" if n == 0 else "tail" if n <= 10 else "medium" if n <= 100 else "head" for n in images]
    found = [(i, b, int(n), float(v)) for i, (b, n, v) in enumerate(zip(names, images, rng.random(count), strict=True))]
    return report(found)


def entry(values, said):
    return {**dict(zip(("AP", "AP50", "AP75"), values, strict=True)), "AR": None, "is": said}


def difference(width=0.02):
    """Better in the tail, worse in the head, nothing shown of all."""

    def row(value):
        low, high = value - width, value + width
        said = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
        return entry([[value, low, high]] * 3, dict.fromkeys(("AP", "AP50", "AP75", "AR"), said))

    return {"all": row(0.01), "head": row(-0.05), "medium": None, "tail": row(0.08)}


def plan(recipe="rfs", counts=(60, 30, 9, 2), classes=None):
    lists = [[c] for c, n in enumerate(counts) for _ in range(n)]
    return make_plan(ClassStats.from_lists(lists, classes or len(counts)), config.resolve({"recipe": recipe}))


def drawn(chart):
    """The figure of a chart as it is drawn, and its tooltips."""
    with canvas(chart.size) as figure:
        tips = chart.draw(figure)
        figure.canvas.draw()
        return figure, tips


def points(figure, name):
    line = next(x for x in figure.axes[0].lines if x.get_gid() == f"points-{name}")
    return list(zip(*(np.asarray(v, float).tolist() for v in line.get_data()), strict=True))


def labels(figure):
    return [t.get_text() for legend in figure.legends for t in legend.get_texts()]


def shaded(axes):
    """The vertical bands, as data coordinates and colour, from left to right."""
    found = []
    for patch in axes.patches:
        box = axes.transData.inverted().transform(patch.get_window_extent())
        found.append((*box[:, 0].tolist(), to_hex(patch.get_facecolor()).lower()))
    return sorted(found)


def over_bands(figure):
    return [t.get_text().split("\n") for t in figure.axes[0].texts]


WITH_CHANGE = copy.deepcopy(report())
for one, change in zip(WITH_CHANGE["per_class"], (0.01, -0.2, 0.1, 0.0, 0.3, 0, -0.1), strict=True):
    one["AP50"] = None if one["AP50"] is None else one["AP50"] - change

EVERY = {
    "ap_by_images": lambda r: charts.ap_by_images(r),
    "errors_by_bin": lambda r: charts.errors_by_bin(r),
    "pr_by_bin": lambda r: charts.pr_by_bin(r),
    "calibration_by_bin": lambda r: charts.calibration_by_bin(r),
    "exposure_by_bin": lambda r: charts.exposure_by_bin(r),
    "training_by_bin": lambda r: charts.training_by_bin(r),
    "difference_by_bin": lambda r: charts.difference_by_bin(difference(), "this - that"),
    "change_by_images": lambda r: charts.change_by_images(r, WITH_CHANGE),
    "class_rank": lambda r: charts.rank(plan()),
}
ONE_BIN = [(i, "head", 37 + i, 0.1 * i) for i in range(6)]
MIXED = [(i, BINS[i % 3], n, ap) for i, _, n, ap in CLASSES]
CASES = {
    "plain": report,
    "no bins": lambda: report(bins=False),
    "one bin": lambda: report(ONE_BIN),
    "two classes": lambda: report([CLASSES[0], CLASSES[-1]]),
    "bins that mix": lambda: report(MIXED),
    "unseen": lambda: report([*CLASSES, (7, "unseen", 0, 0.1), (8, "unseen", 0, 0.0)]),
    "narrow": lambda: report([(0, "head", 1170, 0.1), (1, "medium", 1100, 0.2), (2, "tail", 1050, 0.5)]),
    "one class": lambda: report([CLASSES[0]]),
}


def shown_texts(figure):
    """Every word that is drawn, tick labels outside the axes' limits left out."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden |= {t.label1 for t in axis.get_major_ticks() if not low <= t.get_loc() <= high}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]


LAID_OUT = [(name, case) for name in EVERY for case in CASES if "images" in name or case in ("plain", "no bins")]


@pytest.mark.parametrize(("name", "case"), LAID_OUT)
def test_all_words_lie_in_the_picture_and_none_upon_another(name, case):
    chart = EVERY[name](CASES[case]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, _ = drawn(chart)
    boxes = {t: t.get_window_extent() for t in shown_texts(figure)}
    width, height = figure.bbox.size
    for text, box in boxes.items():
        assert box.x0 > -1, text
        assert box.y0 > -1, text
        assert box.x1 < width + 1, text
        assert box.y1 < height + 1, text
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        across, along = (min(getattr(a, k1), getattr(b, k1)) - max(getattr(a, k0), getattr(b, k0))
                         for k0, k1 in (("x0", "x1"), ("y0", "y1")))  # fmt: skip
        assert min(across, along) < 1, (one, other)


@cache
def as_svg(name):
    return svg(EVERY[name](report()))


@pytest.mark.parametrize("name", EVERY)
def test_every_chart_is_a_good_svg_in_the_colours_of_the_page(name):
    chart, text = EVERY[name](report()), as_svg(name)
    assert chart.name == name
    assert "\n" not in chart.title + chart.alt
    assert len(chart.title) > 10
    assert len(re.findall(r"\d", chart.alt)) > 3
    assert ElementTree.fromstring(text).get("aria-label") == chart.alt
    assert not re.search("#[0-9a-fA-F]{6}", text)
    assert set(re.findall(r"var\([^)]*\)", text)) <= set(PALETTE.values())
    assert svg(chart) == text
    assert len(text) < 40_000


def test_the_charts_of_a_page_share_no_id():
    ids = [i for name in EVERY for i in re.findall(r'\bid="([^"]*)"', as_svg(name))]
    assert len(ids) > 20
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", EVERY)
def test_every_chart_is_a_picture(tmp_path, name):
    assert save_png(tmp_path, EVERY[name](report())).stat().st_size > 5000


# AP50 against training images


def test_every_class_with_ground_truth_is_a_point_at_its_numbers():
    figure, tips = drawn(charts.ap_by_images(report()))
    assert points(figure, "head") == [(1170, 0.98), (400, 0.6)]
    assert points(figure, "medium") == [(190, 0.7), (37, 0.14)]
    assert points(figure, "tail") == [(22, 0.2), (5, 0.4)]
    assert tips == {
        "points-tail": [
            "class 4: tail, 22 training images, AP50 0.200",
            "class 6: tail, 5 training images, AP50 0.400",
        ],
        "points-medium": [
            "class 2: medium, 190 training images, AP50 0.700",
            "class 3: medium, 37 training images, AP50 0.140",
        ],
        "points-head": [
            "class 0: head, 1,170 training images, AP50 0.980",
            "class 1: head, 400 training images, AP50 0.600",
        ],
    }
    axes = figure.axes[0]
    assert axes.get_ylim() == (0, 1.02)
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["5", "10", "20", "50", "100", "200", "500", "1,000"]


def test_bins_are_bands_that_share_borders_with_their_means_across():
    figure, _ = drawn(charts.ap_by_images(report()))
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    found = shaded(axes)
    assert [colour for *_, colour in found] == [STYLE[n].colour.lower() for n in ("tail", "medium", "head")]
    borders = [low, np.sqrt(22 * 37), np.sqrt(190 * 400), high]
    np.testing.assert_allclose([b[:2] for b in found], list(pairwise(borders)), rtol=1e-6)
    assert all(patch.get_alpha() < 0.15 for patch in axes.patches)
    means = {line.get_color(): line for line in axes.lines if not line.get_gid()}
    for (left, right, _), (name, value) in zip(found, (("tail", 0.3), ("medium", 0.42), ("head", 0.79)), strict=True):
        np.testing.assert_allclose(means[STYLE[name].colour].get_xdata(), [left, right], rtol=1e-6)
        np.testing.assert_allclose(means[STYLE[name].colour].get_ydata(), value)
    assert over_bands(figure) == [
        ["tail", "2 of 3", "AP50 0.300"],
        ["medium", "2 classes", "AP50 0.420"],
        ["head", "2 classes", "AP50 0.790"],
    ]
    assert not figure.legends


def test_bins_that_are_no_intervals_get_no_bands_but_a_legend():
    figure, _ = drawn(charts.ap_by_images(report(MIXED)))
    assert shaded(figure.axes[0]) == []
    assert over_bands(figure) == []
    assert labels(figure) == [
        "tail, 1 of 2, AP50 0.700",
        "medium, 2 classes, AP50 0.400",
        "head, 3 classes, AP50 0.507",
    ]
    handles = figure.legends[0].legend_handles
    assert [h.get_marker() for h in handles] == ["^", "s", "o"]
    assert len({h.get_linestyle() + str(h._unscaled_dash_pattern) for h in handles}) == 3
    tail = next(x for x in figure.axes[0].lines if x.get_color() == STYLE["tail"].colour and not x.get_gid())
    assert list(tail.get_xdata()) == [190, 190]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([("tail", 5), ("tail", 10), ("medium", 11), ("head", 200)], ["tail", "medium", "head"]),
        ([("tail", 5), ("head", 200)], ["tail", "head"]),
        ([("head", 5)], ["head"]),
        ([("tail", 10), ("medium", 10)], []),
        ([("head", 5), ("tail", 10)], []),
        ([("all", 5), ("all", 9)], []),
        ([("tail", 5), ("unseen", 0), ("head", 9)], ["tail", "head"]),
        ([("tail", 5), ("unseen", 7), ("head", 9)], []),
        ([("tail", 0), ("head", 9)], []),
        ([], []),
    ],
)
def test_bands_are_there_only_where_bins_are_intervals(rows, names):
    found = bands([Point("c", name, images, 0.5) for name, images in rows])
    assert [band.name for band in found] == names
    if found:
        assert (found[0].low, found[-1].high) == (0, np.inf)
        assert all(a.high == b.low for a, b in pairwise(found))


def test_classes_without_a_training_image_stand_at_0_left_of_all_others():
    figure, tips = drawn(charts.ap_by_images(CASES["unseen"]()))
    axes = figure.axes[0]
    (x, _), (same, _) = points(figure, "unseen")
    assert x == same
    assert axes.get_xlim()[0] < x < 5 / 1.5
    assert (axes.get_xticklabels()[0].get_text(), axes.get_xticks()[0]) == ("0", x)
    assert over_bands(figure)[0] == ["unseen", "2 classes", ""]
    left, right, colour = shaded(axes)[0]
    assert left < x < right < 5
    assert colour == STYLE["unseen"].colour.lower()
    assert tips["points-unseen"][0] == "class 7: unseen, 0 training images, AP50 0.100"


def test_without_bins_all_classes_are_in_ink_with_one_line_across():
    figure, _ = drawn(charts.ap_by_images(report(bins=False)))
    axes = figure.axes[0]
    assert len(points(figure, "all")) == 6
    assert {to_hex(line.get_color()) for line in axes.lines} == {INK}
    across = next(line for line in axes.lines if not line.get_gid())
    assert tuple(across.get_xdata()) == axes.get_xlim()
    np.testing.assert_allclose(across.get_ydata(), np.mean([ap for *_, ap in CLASSES if ap is not None]))
    assert labels(figure) == ["all, 6 of 7, AP50 0.503"]


def test_the_words_for_the_ap_name_means_and_the_lowest_class():
    chart = charts.ap_by_images(report())
    assert "6 classes against training images, 5 to 1,170" in chart.alt
    assert "head AP50 0.790, medium AP50 0.420, tail AP50 0.300" in chart.alt
    assert "lowest is class 3 (medium, 37 training images) with 0.140" in chart.alt
    assert "Not drawn: 1 class " in chart.alt
    assert "Not drawn" not in charts.ap_by_images(report(ONE_BIN)).alt


@pytest.mark.parametrize("key", ["train_images", "AP50"])
def test_nothing_known_of_any_class_is_no_chart_of_classes(key):
    empty = report()
    for c in empty["per_class"]:
        c[key] = None
    assert charts.ap_by_images(empty) is None
    assert charts.change_by_images(empty, report()) is None
    if key == "AP50":
        assert charts.change_by_images(report(), empty) is None


def test_no_training_image_at_all_is_no_chart_of_classes():
    nothing = report([(0, "unseen", 0, 0.2)])
    assert charts.ap_by_images(nothing) is None
    assert charts.change_by_images(nothing, nothing) is None


def test_a_thousand_classes_are_a_small_svg_with_a_tooltip_each():
    big = many()
    chart = charts.ap_by_images(big)
    text = svg(chart)
    assert len(text) < 200_000
    assert text.count("<title>") == 1203
    figure, _ = drawn(chart)
    assert sum(len(points(figure, name)) for name in (*BINS, "unseen")) == 1203
    under, over = (max(x.get_zorder() for x in figure.axes[0].lines if bool(x.get_gid()) == p) for p in (True, False))
    assert over > under  # else a thousand markers hide the line


def test_names_of_classes_are_text_whatever_they_are():
    nasty = report()
    names = ["<script>alert(1)</script>", 'a & "b"', "$a$", "汉字", "\x00\x1bx", "]]>", "'"]
    for c, name in zip(nasty["per_class"], names, strict=True):
        c["name"] = name
    for chart in (charts.ap_by_images(nasty), charts.change_by_images(nasty, report())):
        text = svg(chart)
        titles = [e.text for e in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}title")]
        assert {t.partition(": ")[0] for t in titles} == {*names[:4], "\N{REPLACEMENT CHARACTER}" * 2 + "x", "'"}
        assert "<script" not in text


# change of AP50


def test_changes_are_those_of_the_same_class_whatever_the_order():
    turned = {**WITH_CHANGE, "per_class": WITH_CHANGE["per_class"][::-1]}
    figure, tips = drawn(charts.change_by_images(report(), turned))
    np.testing.assert_allclose(points(figure, "head"), [(1170, 0.01), (400, -0.2)])
    np.testing.assert_allclose(points(figure, "medium"), [(190, 0.1), (37, 0)], atol=1e-12)
    np.testing.assert_allclose(points(figure, "tail"), [(22, 0.3), (5, -0.1)])
    assert tips["points-tail"][0] == "class 4: tail, 22 training images, AP50 +0.300"
    assert over_bands(figure)[0] == ["tail", "2 of 3", "mean +0.100"]
    low, high = figure.axes[0].get_ylim()
    assert low == -high
    assert high > 0.3
    assert [0, 0] in [list(line.get_ydata()) for line in figure.axes[0].lines]


def test_a_class_that_the_baseline_lacks_has_no_change():
    fewer = {**WITH_CHANGE, "per_class": WITH_CHANGE["per_class"][1:]}
    figure, _ = drawn(charts.change_by_images(report(), fewer))
    assert len(points(figure, "head")) == 1


def test_noise_does_not_fill_the_axis_of_changes():
    figure, _ = drawn(charts.change_by_images(report(), report()))
    assert figure.axes[0].get_ylim()[1] >= 0.05


def test_the_words_for_changes_count_ups_and_downs():
    alt = charts.change_by_images(report(), WITH_CHANGE).alt
    assert "3 classes up, 2 classes down" in alt
    assert "from -0.200 (class 1, head, 400 training images) to +0.300 (class 4, tail, 22 training images)" in alt


# errors


def test_errors_are_a_bar_per_kind_and_bin():
    chart = charts.errors_by_bin(report())
    figure, _ = drawn(chart)
    axes = figure.axes[0]
    assert [c.get_label() for c in axes.containers] == list(BINS)
    for i, bars in enumerate(axes.containers):
        np.testing.assert_allclose([bar.get_width() for bar in bars], [(i + 2) * (j + 1) / 100 for j in range(6)])
        assert {bar.get_hatch() or "" for bar in bars} == {STYLE[BINS[i]].hatch}
        centres = [bar.get_y() + bar.get_height() / 2 for bar in bars]
        assert [round(c) for c in centres] == list(range(6))
    assert [t.get_text() for t in axes.get_yticklabels()] == list(KINDS)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first kind on top
    assert axes.get_xlim() == (0, pytest.approx(0.24 * 1.05))
    assert labels(figure) == list(BINS)
    assert "tail loses most to missed (0.240)" in chart.alt


def test_the_axis_of_errors_can_be_shared():
    figure, _ = drawn(charts.errors_by_bin(report(), top=0.5))
    assert figure.axes[0].get_xlim() == (0, 0.5)


def test_without_bins_errors_are_those_of_all():
    figure, _ = drawn(charts.errors_by_bin(report(bins=False)))
    assert labels(figure) == ["all"]
    assert len(figure.axes[0].patches) == 6


@pytest.mark.parametrize(
    "errors", [None, {"shares": None}, {"shares": {"all": {"AP50": None, "loss": {}}, "head": None}}]
)
def test_no_errors_are_no_chart(errors):
    assert charts.errors_by_bin({**report(), "errors": errors}) is None


# curves


def test_curves_are_those_of_the_report():
    whole = report()
    chart = charts.pr_by_bin(whole)
    figure, _ = drawn(chart)
    lines = figure.axes[0].lines
    assert len(lines) == 4
    for line, name in zip(lines, ("all", *BINS), strict=True):
        assert list(line.get_xdata()) == whole["curves"]["recall"]
        assert list(line.get_ydata()) == whole["curves"][name]
        assert line.get_color() == STYLE[name].colour
    assert labels(figure) == ["all, AP50 0.503", "head, AP50 0.790", "medium, AP50 0.420", "tail, AP50 0.300"]
    assert "At recall 0.5 the precision is: all 0.500, head 0.450, medium 0.400, tail 0.350" in chart.alt
    assert "all 0.99, head 0.90, medium 0.83, tail 0.76" in chart.alt


def test_curves_of_a_bin_that_was_not_evaluated_are_left_out():
    whole = report()
    whole["curves"]["tail"] = None
    assert len(drawn(charts.pr_by_bin(whole))[0].axes[0].lines) == 3
    without = {key: value for key, value in report().items() if key != "curves"}
    assert charts.pr_by_bin(without) is None
    assert charts.pr_by_bin({**without, "curves": None}) is None
    assert charts.pr_by_bin({**without, "curves": dict.fromkeys(("iou", "recall", "all", *BINS))}) is None


# calibration


def test_steps_with_few_detections_are_left_out():
    chart = charts.calibration_by_bin(report())
    figure, tips = drawn(chart)
    axes = figure.axes[0]
    dots = [c for c in axes.collections if c.get_gid()]
    assert [c.get_gid() for c in dots] == [f"points-{name}" for name in ("all", *BINS)]
    for dot in dots:
        np.testing.assert_allclose(dot.get_offsets(), [(0.1, 0.05), (0.3, 0.3), (0.55, 0.4)])
        sizes = dot.get_sizes()
        assert sizes[0] > sizes[1] > sizes[2]
    assert tips["points-head"][1:] == [
        "head: confidence 0.300, precision 0.300, 40 detections",
        "head: confidence 0.550, precision 0.400, 5 detections",
    ]
    assert svg(chart).count("<title>") == 12
    assert "5 detections" in chart.title


def test_the_diagonal_and_the_errors_are_there():
    chart = charts.calibration_by_bin(report())
    figure, _ = drawn(chart)
    lines = figure.axes[0].lines
    diagonal = next(line for line in lines if line.get_color() == MUTED)
    assert (list(diagonal.get_xdata()), list(diagonal.get_ydata())) == ([0, 1], [0, 1])
    joined = [line for line in lines if len(line.get_xdata()) == 3]
    assert [line.get_color() for line in joined] == [STYLE[name].colour for name in ("all", *BINS)]
    errors = ["all, ECE 0.010", "head, ECE 0.110", "medium, ECE 0.210", "tail, ECE 0.310"]
    assert labels(figure) == ["confidence = precision", *errors]
    handles = figure.legends[0].legend_handles[1:]
    assert [h.get_marker() for h in handles] == [STYLE[name].marker for name in ("all", *BINS)]
    gap = (0.05 * 400 + 0.3 * 40 + 0.4 * 5 - 0.1 * 400 - 0.3 * 40 - 0.55 * 5) / 445
    assert f"head precision {-gap:.3f} below confidence" in chart.alt


@pytest.mark.parametrize(
    "steps",
    [
        None,
        {"confidence": [], "precision": [], "n_det": []},
        {"confidence": [0.5], "precision": [0.5], "n_det": [4]},
        {"confidence": [None], "precision": [None], "n_det": [0]},
    ],
)
def test_no_steps_are_no_chart_of_confidences(steps):
    whole = report()
    for name in ("all", *BINS):
        whole["calibration"][name] = {"ECE": None, "n_det": 0} | ({} if steps is None else {"reliability": steps})
    assert charts.calibration_by_bin(whole) is None


# training


def test_exposure_is_a_pair_of_bars_per_bin_with_its_ratio():
    chart = charts.exposure_by_bin(report())
    figure, _ = drawn(chart)
    axes = figure.axes[0]
    np.testing.assert_allclose([b.get_width() for b in axes.patches], [1000, 990, 500, 495, 1000 / 3, 330])
    assert [bool(b.get_hatch()) for b in axes.patches] == [True, False] * 3
    assert [t.get_text() for t in axes.texts] == ["0.990 of asked"] * 3
    assert [t.xy[0] for t in axes.texts] == pytest.approx([1000, 500, 1000 / 3])
    assert [t.get_text() for t in axes.get_yticklabels()] == list(BINS)
    assert labels(figure) == ["asked for", "drawn"]
    assert "head 990 for 1,000 (0.990 of asked)" in chart.alt


def test_a_bin_of_which_nothing_was_asked_has_no_ratio():
    whole = report()
    whole["training"]["exposure"] = {"head": {"asked": 0.0, "tiles": 3.0}, "tail": None}
    figure, _ = drawn(charts.exposure_by_bin(whole))
    assert [t.get_text() for t in figure.axes[0].texts] == ["none asked"]


def test_training_is_a_line_per_bin_over_epochs():
    chart = charts.training_by_bin(report())
    figure, _ = drawn(chart)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["all", *BINS]
    for i, line in enumerate(lines):
        assert list(line.get_xdata()) == [1, 2, 3, 4]
        np.testing.assert_allclose(line.get_ydata(), [0.1 * (i + 1) + 0.01 * e for e in range(4)])
        assert line.get_marker() == STYLE[line.get_label()].marker
    assert chart.title == "AP50 by epoch, recipe rfs, seed 3"
    assert "After the last: all 0.130, head 0.230, medium 0.330, tail 0.430" in chart.alt


def test_epochs_without_a_value_are_left_out_and_many_have_no_markers():
    whole = report()
    whole["training"] |= {"recipe": None, "seed": 0}
    by_epoch = {"all": [None, *[0.2] * 49], "head": [None] * 50, "medium": []}
    whole["training"]["by_epoch"] = {"epoch": list(range(1, 51)), "AP50": by_epoch}
    chart = charts.training_by_bin(whole)
    (line,) = drawn(chart)[0].axes[0].lines
    assert list(line.get_xdata()) == list(range(2, 51))
    assert line.get_marker() in ("None", "", None)
    assert chart.title == "AP50 by epoch, seed 0"


@pytest.mark.parametrize(
    "training",
    [
        None,
        {},
        {"by_epoch": None, "exposure": None},
        {"by_epoch": {"epoch": [], "AP50": {}}, "exposure": {}},
        {"by_epoch": {"epoch": [1, 2], "AP50": {"all": [None] * 2}}, "exposure": {"head": None}},
        {"by_epoch": {"epoch": [7], "AP50": {"all": [0.5]}}, "exposure": None},
    ],
)
def test_nothing_known_of_the_training_is_no_chart_of_it(training):
    assert charts.exposure_by_bin({**report(), "training": training}) is None
    assert charts.training_by_bin({**report(), "training": training}) is None
    assert charts.exposure_by_bin({}) is None
    assert charts.training_by_bin({}) is None


# differences


def test_differences_are_three_markers_a_row_hollow_where_nothing_is_shown():
    chart = charts.difference_by_bin(difference(), "this - that")
    figure, _ = drawn(chart)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["all", "head", "tail"]
    markers = [x for x in axes.lines if len(x.get_xdata()) == 1]
    assert [x.get_xdata()[0] for x in markers] == [*[0.01] * 3, *[-0.05] * 3, *[0.08] * 3]
    assert [x.get_marker() for x in markers] == ["o", "D", "s"] * 3
    hollow = [x.get_markerfacecolor() != x.get_markeredgecolor() for x in markers]
    assert hollow == [*[True] * 3, *[False] * 6]
    assert [x.get_markeredgecolor() for x in markers[::3]] == [STYLE[n].colour for n in ("all", "head", "tail")]
    assert [round(float(x.get_ydata()[0])) for x in markers] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert chart.title == "this - that"


def test_intervals_are_lines_and_zero_is_in_the_middle():
    axes = drawn(charts.difference_by_bin(difference(), "t"))[0].axes[0]
    intervals = [list(x.get_xdata()) for x in axes.lines if len(x.get_xdata()) == 2 and x.get_xdata()[0] != 0]
    np.testing.assert_allclose(intervals, [[-0.01, 0.03]] * 3 + [[-0.07, -0.03]] * 3 + [[0.06, 0.1]] * 3)
    assert any(list(x.get_xdata()) == [0, 0] for x in axes.lines)
    low, high = axes.get_xlim()
    assert low == -high
    assert high > 0.1


def test_the_words_for_differences_say_what_is_better_and_worse():
    alt = charts.difference_by_bin(difference(), "t").alt
    assert "AP50 by bin: all +0.010 [-0.010, +0.030] (no difference shown); " in alt
    assert "head -0.050 [-0.070, -0.030] (worse); tail +0.080 [+0.060, +0.100] (better)." in alt


def test_without_intervals_nothing_is_said_of_them():
    bare = {"all": entry([[0.01], None, [0.001]], dict.fromkeys(("AP", "AP50", "AP75", "AR")))}
    chart = charts.difference_by_bin(bare, "t")
    figure, _ = drawn(chart)
    markers = [x for x in figure.axes[0].lines if len(x.get_xdata()) == 1]
    assert [x.get_marker() for x in markers] == ["o", "s"]
    assert all(x.get_markerfacecolor() == x.get_markeredgecolor() for x in markers)
    assert labels(figure) == ["AP", "AP50", "AP75"]
    assert "AP by bin: all +0.010." in chart.alt
    assert figure.axes[0].get_xlim()[1] >= 0.02


def test_no_difference_is_no_chart():
    nothing = entry([None] * 3, dict.fromkeys(("AP", "AP50", "AP75", "AR")))
    assert charts.difference_by_bin({"all": nothing, "head": None}, "t") is None


# rank


def test_ranks_are_by_training_images_and_the_sampler_is_a_line():
    given = plan(counts=(9, 60, 2, 30, 0), classes=6)
    chart = charts.rank(given)
    figure, tips = drawn(chart)
    found = {x: y for name in BINS for x, y in points(figure, name)}
    assert found == {1: 60, 2: 30, 3: 9, 4: 2}
    line = next(x for x in figure.axes[0].lines if x.get_color() == MUTED)
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(line.get_ydata(), (given.stats.image_counts * given.exposure)[[1, 3, 0, 2]])
    assert sorted(t for titles in tips.values() for t in titles) == [
        f"class_{c}: {n} training images" for c, n in enumerate((9, 60, 2, 30))
    ]
    assert "class_1 (60) has most, class_2 (2) fewest" in chart.alt
    assert "101 images" in chart.title


def test_without_a_sampler_there_is_no_line_of_draws():
    figure, _ = drawn(charts.rank(plan("baseline")))
    assert all(x.get_gid() for x in figure.axes[0].lines)
    assert all("sampler" not in label for label in labels(figure))


# axes of counts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (4, 1300, [5, 10, 20, 50, 100, 200, 500, 1000]),
        (0.9, 2000, [1, 3, 10, 30, 100, 300, 1000]),
        (0.9, 2e6, [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]),
        (33, 54, [36, 40, 44, 48, 52]),
        (0.9, 1.1, [1]),
        (2.7, 3.3, [3]),
    ],
)
def test_ticks_are_round_whole_numbers(low, high, expected):
    found = count_ticks(low, high)
    assert all(low <= t <= high for t in found)
    if (low, high) == (33, 54):  # which steps are nicest is matplotlib's choice
        assert len(found) >= 2
        assert all(t == round(t) for t in found)
    else:
        assert found == pytest.approx(expected)
