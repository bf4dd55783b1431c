"""The page of a comparison: sides and seeds by their names, means without intervals, and run beside run."""

from functools import cache

import numpy as np
import pytest
from test_page import FOUND, NAMES, SECTIONS, TRAINING, TRUTH, blocks, filled, run

from yolo_lt.evaluate.runs import compare_runs
from yolo_lt.report.blocks import ClassTable, Facts, Table, Tile
from yolo_lt.report.compare_page import Side, comparison_page
from yolo_lt.report.drawing import Chart, canvas

WORSE, BETTER = FOUND[:8], (*FOUND[:9], 9, 9)
ANSWERS = (WORSE, FOUND, BETTER, TRUTH)


@cache
def validation(folder, found):
    return run(folder, found=found, training={**TRAINING, "seed": len(found)})


def compared(*folders, answers=ANSWERS, replicates=10, command="yolo-lt compare a b"):
    """The page of these sides: lists of folders, the baseline first; run k of side j finds what `answers[j + k]` is."""
    sides = [[validation(f, answers[j + k]) for k, f in enumerate(side)] for j, side in enumerate(folders)]
    found = [compare_runs(side, sides[0], replicates) for side in sides[1:]]
    told = [Side([r.name for r in side], [r.report for r in side]) for side in sides]
    return comparison_page(told, found, command)


def two(**keys):
    return compared(["runs/stock/val"], ["runs/rfs/val"], **keys)


def three():
    return compared(["runs/stock"], ["runs/rfs"], ["runs/eql"])


def seeds():
    return compared(["a0", "a1"], ["b0", "b1"])


def levels(page):
    """The table of AP by bin of every side."""
    return next(t for t in blocks(page, "summary", Table) if t.header[:2] == ("bin", "metric"))


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "title"),
    [
        ((["runs/stock"], ["runs/rfs"]), "rfs against stock"),
        ((["runs/stock/val"], ["runs/rfs/val"]), "rfs/val against stock/val"),
        ((["a/x/val"], ["b/x/val"], ["b/y/val"]), "b/x/val and b/y/val against a/x/val"),
        ((["/data/val"], ["val"]), "val against data/val"),
        ((["a0", "a1"], ["b0", "b1"]), "b0, b1 against a0, a1"),
        ((["x/0", "x/1"], ["y/0", "y/1"]), "y/0, y/1 against x/0, x/1"),
        ((["runs/a"], ["runs/a"]), "a against a"),
    ],
)
def test_runs_are_called_by_as_much_of_their_path_as_tells_them_apart(folders, title):
    assert compared(*folders).title == title


def test_the_baseline_is_called_the_same_everywhere():
    page = two()
    assert blocks(page, "summary", str)[0].startswith("rfs/val: against stock/val, in AP50: all classes 0.086 higher")
    tiles = blocks(page, "summary", Tile)
    assert tiles[3].more[2].startswith("0.257 higher than stock/val [")
    assert levels(page).header == ("bin", "metric", "stock/val", "rfs/val")
    titles = [chart.title for chart in blocks(page, "summary", Chart)]
    assert titles[0] == "rfs/val - stock/val, paired difference with 95 % interval"
    assert titles[1].startswith("rfs/val - stock/val, change of AP50 of each class")


# Two, three, and several seeds ---------------------------------------------------------------------------------------


def test_two_sides_have_one_difference():
    page = two()
    assert filled(page) == ["summary", "images", *SECTIONS[1:]]
    kinds = [type(block).__name__ for block in blocks(page, "summary")]
    assert kinds == ["str", *["Tile"] * 4, "Chart", "Chart", "Table", "Table"]
    assert [chart.name for chart in blocks(page, "summary", Chart)] == ["difference_by_bin", "change_by_images"]


def test_of_three_sides_each_is_told_against_the_first():
    page = three()
    kinds = [type(block).__name__ for block in blocks(page, "summary")]
    assert kinds == [*["str", *["Tile"] * 4] * 2, *["Chart"] * 4, *["Table"] * 3]
    assert [text.split(", in")[0] for text in blocks(page, "summary", str)] == [
        "rfs: against stock",
        "eql: against stock",
    ]
    assert [table.head for table in blocks(page, "summary", Table)][1:] == [
        "runs/rfs - runs/stock",
        "runs/eql - runs/stock",
    ]
    assert [tile.value for tile in blocks(page, "summary", Tile)][3::4] == ["0.257", "0.752"]


def test_the_levels_are_of_every_side_and_metric():
    table = levels(three())
    assert [row[0] for row in table.rows] == [name for name in ("all", "head", "medium", "tail") for _ in range(4)]
    assert [row[1] for row in table.rows][:4] == ["AP", "AP50", "AP75", "AR"]
    (tail,) = [row for row in table.rows if row[:2] == ("tail", "AP50")]
    assert tail[2:] == pytest.approx((0.0, 26 / 101, 76 / 101))
    assert table.head.endswith("bins: given")


def test_over_seeds_the_levels_are_means():
    page, alone = seeds(), [validation(f, a) for f, a in (("b0", FOUND), ("b1", BETTER))]
    table = levels(page)
    assert table.header == ("bin", "metric", "a0, a1", "b0, b1")
    for name, metric, *_, value in table.rows:
        assert value == pytest.approx(np.mean([r.report["metrics"][name][metric] for r in alone]))
    assert table.head.endswith("; means over the runs of a side")
    assert [tile.value for tile in blocks(page, "summary", Tile)][3] == f"{(26 + 76) / 202:.3f}"


def test_a_mean_over_seeds_has_no_interval_and_the_difference_has_one():
    tiles = blocks(seeds(), "summary", Tile)
    assert {tile.interval for tile in tiles} == {""}
    assert all("[" in tile.more[2] for tile in tiles)
    assert all(tile.interval for tile in blocks(two(), "summary", Tile))


def test_without_resamples_nothing_has_an_interval():
    page = two(replicates=0)
    assert "[" not in blocks(page, "summary", str)[0]
    assert not any("[" in tile.more[2] for tile in blocks(page, "summary", Tile))
    assert blocks(page, "summary", Table)[1].note.endswith("; no intervals")


def test_where_nothing_can_be_compared_it_says_so():
    sides = [run(name, truth=(), found=()) for name in ("a", "b")]
    found = compare_runs(sides[1:], sides[:1], 10)
    page = comparison_page([Side([r.name], [r.report]) for r in sides], [found], "")
    assert blocks(page, "summary", str) == ["b: nothing can be compared"]
    assert page.charts == []
    assert levels(page).rows[0][2:] == (None, None)


# Charts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sides", "runs"), [(2, 1), (2, 2), (3, 1), (3, 3), (4, 2)])
def test_no_two_charts_of_a_page_have_one_name(sides, runs):
    folders = [[f"runs/{side}/{k}" for k in range(runs)] for side in range(sides)]
    names = [chart.name for chart in compared(*folders, answers=ANSWERS * 2).charts]
    assert sum(name.startswith("errors_by_bin") for name in names) == sides * runs
    assert sum(name.startswith("difference_by_bin") for name in names) == sides - 1
    assert len(set(names)) == len(names)


def test_losses_are_drawn_on_one_axis():
    (errors,) = [section for section in three().sections if section.key == "errors"]
    limits = []
    for _, (chart, *_) in errors.columns:
        assert chart.name.startswith("errors_by_bin")
        with canvas(chart.size) as figure:
            chart.draw(figure)
            limits.append(figure.axes[0].get_xlim())
    assert len(set(limits)) == 1
    losses = [s["loss"] for a in (WORSE, FOUND, BETTER) for s in validation("x", a).report["errors"]["shares"].values()]
    assert limits[0][1] == max(max(loss.values()) for loss in losses)


# Runs beside runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "names"), [(two, ["stock/val", "rfs/val"]), (seeds, ["a0", "a1", "b0", "b1"])])
def test_every_run_has_a_column_in_every_section(page, names):
    for section in page().sections:
        expected = [] if section.key in ("summary", "classes") else names
        assert [label for label, _ in section.columns] == expected


def test_a_column_has_what_the_page_of_its_run_has():
    (confidence,) = [section for section in two().sections if section.key == "confidence"]
    assert confidence.blocks == []
    for (_, (chart, table)), answer in zip(confidence.columns, (WORSE, FOUND), strict=True):
        assert chart.name.startswith("calibration_by_bin_")
        assert table.rows[0][:2] == ("all", len(answer))


def test_the_facts_are_those_of_each_run_under_the_command_of_the_comparison():
    page = two(command="yolo-lt compare 'a b' c")
    (about,) = [section for section in page.sections if section.key == "about"]
    assert about.blocks == [Facts([], "yolo-lt compare 'a b' c")]
    told = [dict(column[-1].rows)["training"] for _, column in about.columns]
    assert told == [f"recipe rfs, seed {len(answer)}, epochs 2" for answer in (WORSE, FOUND)]


def test_warnings_stand_in_the_column_of_their_run():
    sides = [validation(name, FOUND) for name in ("a", "b")]
    reports = [{**sides[0].report, "warnings": ["some are dropped."]}, sides[1].report]
    told = [Side([r.name], [report]) for r, report in zip(sides, reports, strict=True)]
    page = comparison_page(told, [compare_runs(sides[1:], sides[:1], 0)], "")
    (about,) = [section for section in page.sections if section.key == "about"]
    assert [len(column) for _, column in about.columns] == [2, 1]
    assert about.columns[0][1][0] == "some are dropped."


# Classes -------------------------------------------------------------------------------------------------------------


def test_every_class_has_ap50_of_every_side_and_its_change():
    (table,) = blocks(three(), "classes", ClassTable)
    assert table.header == [
        *("id", "name", "bin", "train images", "n gt", "AP50 stock", "AP50 rfs", "AP50 eql"),
        *("change rfs", "change eql"),
    ]
    assert [row[1] for row in table.rows] == list(NAMES.values())
    mug, vase = table.rows[2:]
    assert mug[:5] == (9, "mug", "tail", 5, 4)
    assert mug[5:] == pytest.approx((0.0, 26 / 101, 76 / 101, 26 / 101, 76 / 101))
    assert vase == (11, "vase", "tail", 2, 0, *[None] * 5)


def test_over_seeds_a_class_has_its_means():
    (table,) = blocks(seeds(), "classes", ClassTable)
    assert table.header[5:] == ["AP50 a0, a1", "AP50 b0, b1", "change b0, b1"]
    assert table.rows[2][5:] == pytest.approx((13 / 101, 51 / 101, 38 / 101))
