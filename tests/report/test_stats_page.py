"""The page of a data set: what it holds, how far it is from equal, and what the recipe would do."""

import pytest
from test_page import blocks, filled

from yolo_lt import __version__, config
from yolo_lt.balance.plan import CSV_HEADER, make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.report.blocks import ClassTable, Facts, Table
from yolo_lt.report.diagnosis import Diagnosis
from yolo_lt.report.drawing import Chart
from yolo_lt.report.stats_page import stats_page

LISTS = [[1]] * 60 + [[1, 1, 0]] * 4 + [[2]] * 20 + [[3]] * 3 + [[0]] * 8


def page(lists=LISTS, num_classes=5, data="sets/kitchen/data.yaml", command="yolo-lt stats data=a.yaml", **keys):
    return stats_page(
        Diagnosis(make_plan(ClassStats.from_lists(lists, num_classes), config.resolve(keys))), data, command
    )


def test_the_page_says_what_there_is_and_what_a_recipe_would_do():
    found = page()
    assert found.title == "Classes of kitchen, split train"
    assert filled(found) == ["summary", "recipe", "classes", "about"]
    assert [chart.name for chart in found.charts] == ["class_rank"]


def test_the_summary_has_the_size_what_each_bin_holds_and_how_far_from_equal_classes_are():
    size, spread, chart, table = blocks(page(bins=[10, 30]), "summary")
    assert size == "95 images, 103 instances, 5 classes (1 without an image)."
    assert spread == (
        "Of all instances the head (1 class) 66.0 %, medium classes (2 classes) 31.1 % and the tail (1 class) 2.9 %."
    )
    assert isinstance(chart, Chart)
    assert table.header[0] == "imbalance"
    assert [row[0] for row in table.rows] == ["images", "instances"]
    assert table.rows[0][1] == pytest.approx(64 / 3)


def test_a_data_set_without_a_box_has_no_sentence_about_its_bins():
    texts = blocks(page([[], []], 2), "summary", str)
    assert texts == ["2 images, 0 instances, 2 classes (2 without an image)."]


@pytest.mark.parametrize(
    ("recipe", "said"), [("baseline", "nothing is changed"), ("rfs", "sampler=rfs"), ("eql", "cls_loss=eql")]
)
def test_the_recipe_is_said_in_a_line_above_what_it_does_by_bin(recipe, said):
    line, *notes, table = blocks(page(recipe=recipe), "recipe")
    assert line.startswith(f"recipe={recipe}: ")
    assert said in line
    assert line.endswith(".")
    assert all(isinstance(note, str) for note in notes)
    assert isinstance(table, Table)
    assert table.header[:4] == ("bin", "classes", "images", "instances")


def test_what_the_plan_chose_for_auto_stands_with_the_recipe():
    assert any("auto chose" in text for text in blocks(page(recipe="rfs"), "recipe", str))


def test_classes_stand_by_their_images_the_most_first():
    (table,) = blocks(page(), "classes", ClassTable)
    assert table.header == [name.replace("_", " ") for name in CSV_HEADER]
    assert [row[0] for row in table.rows] == [1, 2, 0, 3, 4]
    assert [row[3] for row in table.rows] == [64, 20, 12, 3, 0]
    assert [row[4] for row in table.rows] == [68, 20, 12, 3, 0]


def test_classes_of_equal_images_keep_their_order():
    (table,) = blocks(page([[2], [0], [1]], 3), "classes", ClassTable)
    assert [row[0] for row in table.rows] == [0, 1, 2]


def test_the_foot_says_what_was_counted_by_which_version_and_how():
    (facts,) = blocks(page(bins=[10, 30]), "about")
    rule = "tail <= 10 < medium <= 30 < head images"
    assert facts == Facts(
        [("data", "sets/kitchen/data.yaml"), ("bins", rule), ("versions", f"yolo_lt {__version__}")],
        "yolo-lt stats data=a.yaml",
    )
