"""What was found out about a data set, as text and as sections of the page; names that try to break either."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from yolo_lt import config
from yolo_lt.balance.advice import Advice, Findings, recipe_costs, recommend
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.dataset.diagnosis.context import class_context
from yolo_lt.dataset.diagnosis.defects import label_defects
from yolo_lt.dataset.diagnosis.label_rows import Form
from yolo_lt.dataset.diagnosis.leaks import Conflict, find_leaks
from yolo_lt.dataset.diagnosis.suspects import find_gaps, find_suspects
from yolo_lt.report.blocks import ClassTable, Table, markdown
from yolo_lt.report.diagnosis import (
    EXAMPLES,
    NO_DEFECT,
    Diagnosis,
    costs_table,
    diagnosis_sections,
    diagnosis_text,
    label_blocks,
)
from yolo_lt.report.html import html
from yolo_lt.report.page import Page

NAMES = ("cup", "fork", "vase", "mug")
LISTS = [[0]] * 60 + [[0, 1, 1]] * 8 + [[1, 2, 2, 2]] * 2 + [[]] * 2
FORM = Form(4)
FILES = {
    "labels/a.txt": "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n7 .3 .3 .2 .2",
    "labels/b.txt": "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n0 .5 .5 0 .2",
    "labels/c.txt": "0 .5 .5 .2 .2",
    "labels/d.txt": b"\xff\xfe0\x00",
}


def defects(files=FILES):
    return {path: label_defects(c if isinstance(c, bytes) else c.encode(), FORM) for path, c in files.items()}


def diagnosis(names=NAMES, lists=LISTS, **more):
    """Everything that can be found out, about a set of few images."""
    stats = ClassStats.from_lists(lists, len(names), names)
    plan = make_plan(stats, config.resolve({}))
    box = np.full((len(stats.classes), 4), 0.25)
    context = class_context(stats, box, np.arange(stats.num_images) // 2)
    val = ClassStats.from_lists([[0], [2], [2], [1]], len(names), names)
    leaks = find_leaks({"train": stats, "val": val}, [[0, 1, 72], [68, 73, 74]])
    paths = [[f"train/{i}.jpg" for i in range(stats.num_images)], [f"val/{i}.jpg" for i in range(4)]]
    gaps = find_gaps(["l/0.txt", "l/1.txt", "l/2.txt"], [1, 0, 0], ["l/0.txt", "l/1.txt", "l/old.txt"])
    costs = recipe_costs({r: make_plan(stats, config.resolve({"recipe": r})) for r in ("rfs", "cb", "decoupled")})
    conflicts = (Conflict(0, 72, "other classes"),)
    advice = recommend(stats, plan.bins, Findings(context, leaks, conflicts))
    images = ["i/0.jpg", "i/1.jpg", "i/2.jpg"]
    found = Diagnosis(
        plan, context, defects(), find_suspects(stats, box), gaps, images, leaks, paths, conflicts, costs, advice
    )
    return replace(found, **more)


def section(found, key, kind=object):
    (one,) = [s for s in diagnosis_sections(found) if s.key == key]
    return [block for block in one.blocks if isinstance(block, kind)]


def nothing(plan=None):
    return Diagnosis(plan or diagnosis().plan)


# What there is --------------------------------------------------------------------------------------------------------
def test_sections_stand_in_order_and_only_those_that_say_something():
    assert [s.key for s in diagnosis_sections(diagnosis())] == ["advice", "labels", "twins", "context"]
    assert diagnosis_sections(nothing()) == []
    assert diagnosis_text(nothing()) == ""


def test_nothing_found_is_said_in_a_sentence():
    stats = diagnosis().plan.stats
    leaks = find_leaks({"train": stats}, [])
    gaps = find_gaps(["l/0.txt"], [1], ["l/0.txt"])
    empty = find_suspects(ClassStats.from_lists([[]], 4), np.zeros((0, 4)))
    clean = replace(nothing(), defects={}, leaks=leaks, gaps=gaps, suspects=empty)
    assert diagnosis_text(clean) == f"{NO_DEFECT}\nNo image is there twice."
    assert section(clean, "labels") == [NO_DEFECT]
    assert section(replace(clean, defects={"a.txt": []}), "labels") == [NO_DEFECT]


# Advice ---------------------------------------------------------------------------------------------------------------
def test_the_advice_says_what_to_mend_what_to_begin_with_and_why():
    found = diagnosis()
    texts, (costs,) = section(found, "advice", str), section(found, "advice", Table)
    assert texts[: len(found.advice.first)] == list(found.advice.first)
    assert "To begin with: recipe=recommended, by rules of thumb:" in texts
    assert texts[-1] == "Worth a run of its own: sampler_variant=linear."
    assert all(reason in texts for reason in found.advice.reasons)
    assert costs == costs_table(found.costs)


def test_keys_beside_the_recipe_stand_as_on_the_command_line():
    advice = Advice("baseline", {"federated": "auto"}, {}, (), ("It is even.",))
    texts = section(replace(nothing(), advice=advice), "advice")
    assert texts == ["To begin with: recipe=baseline federated=auto, by rules of thumb:", "It is even."]


def test_costs_have_weights_only_where_a_loss_has_some():
    found = diagnosis()
    table = costs_table(found.costs)
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert rows["rfs"]["tail weight"] is None
    assert rows["cb"]["tail weight"] > rows["cb"]["head weight"]
    assert rows["rfs"]["iterations x"] > rows["cb"]["iterations x"] == 1
    assert [row["stage two"] for row in rows.values()] == ["-", "-", "20 %"]
    assert not any("weight" in name for name in costs_table(found.costs[:1]).header)


# Labels ---------------------------------------------------------------------------------------------------------------
def test_defects_by_kind_with_what_ultralytics_does():
    (table, *_) = section(diagnosis(), "labels", Table)
    assert table.head == "defects in 3 label files of 4 read"
    assert table.rows == [
        ("files that cannot be read as text", 1, 1, "drops the image"),
        ("class ids that do not exist", 1, 1, "drops the image"),
        ("boxes without width or height", 1, 1, table.rows[2][3]),
        ("rows that are there twice", 2, 2, "drops the row"),
    ]


def test_every_kind_is_named_before_one_is_named_again():
    texts = [text for text in section(diagnosis(), "labels", str) if text.startswith("labels/")]
    assert texts[0].startswith("labels/a.txt, line 3: class id 7, but")
    assert texts[1] == "labels/d.txt: the file is UTF-16 text; save it as UTF-8; Ultralytics drops the image."
    assert {text.split(":")[0] for text in texts[2:4]} == {"labels/a.txt, line 2", "labels/b.txt, line 3"}
    assert texts[4] == "labels/b.txt, line 2: the same as line 1; Ultralytics drops the row."


def test_examples_are_few_and_the_rest_is_counted():
    many = defects({f"labels/{i}.txt": "0 .5 .5 0 .2" for i in range(100)})
    found = replace(nothing(), defects=many)
    texts = [block for block in label_blocks(found, 5) if isinstance(block, str)]
    assert len(texts) == 6
    assert texts[-1] == "And 95 more."
    assert f"And {100 - EXAMPLES} more." in section(found, "labels", str)
    assert len(diagnosis_text(found).splitlines()) < 10


def test_boxes_in_memory_that_look_wrong_are_counted():
    stats = ClassStats.from_lists([[0, 0, 1]], 4)
    box = np.array([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.0]])
    (table,) = section(replace(nothing(), suspects=find_suspects(stats, box)), "labels")
    assert table.rows == [("no width or height", 1), ("the same class and box as an earlier one", 1)]


def test_files_that_are_missing_or_too_many():
    texts = section(replace(nothing(), gaps=diagnosis().gaps, images=["i/0.jpg", "i/1.jpg", "i/2.jpg"]), "labels")
    assert texts == [
        "1 image without a label file: i/2.jpg.",
        "1 image with an empty label file: i/1.jpg.",
        "1 label file without an image: l/old.txt.",
    ]
    gaps = find_gaps([f"l/{i}.txt" for i in range(30)], [0] * 30, [])
    (text,) = label_blocks(replace(nothing(), gaps=gaps, images=[f"{i}.jpg" for i in range(30)]), 2)
    assert text == "30 images without a label file: 0.jpg, 1.jpg and 28 more."


# Twins ----------------------------------------------------------------------------------------------------------------
def test_twins_by_split_and_the_classes_they_flatter():
    splits, classes = section(diagnosis(), "twins", Table)
    assert splits.header == ("split", "images", "repeat another", "twin in train", "twin in val")
    assert splits.rows == [("train", 72, 1, 2, 3), ("val", 4, 1, 3, 2)]
    assert classes.rows == [("cup", "head", "val", 1, 1, 1.0), ("vase", "tail", "val", 2, 2, 1.0)]
    texts = section(diagnosis(), "twins", str)
    assert "val/1.jpg shows what train/68.jpg shows." in texts
    assert "val/0.jpg is a copy of train/0.jpg, but other classes." in texts
    assert not [block for block in section(diagnosis(paths=()), "twins", str) if "shows" in block]


def test_conflicts_beyond_those_shown_are_counted():
    many = [Conflict(0, 1, "other boxes")] * 30
    assert section(diagnosis(conflicts=many), "twins", str)[-1] == "Copies with other labels, beside these: 10."


# Contexts -------------------------------------------------------------------------------------------------------------
def test_contexts_by_bin_and_of_every_class():
    by_bin, every = section(diagnosis(), "context")
    assert [row[0] for row in by_bin.rows] == ["head", "medium", "tail"]
    assert isinstance(every, ClassTable)
    rows = {row[1]: dict(zip(every.header, row, strict=True)) for row in every.rows}
    assert list(rows) == ["cup", "fork", "vase"], "mug does not occur"
    assert rows["vase"]["boxes per image"] == 3
    assert (rows["fork"]["images"], rows["fork"]["contexts"], rows["fork"]["scenes"]) == (10, 2, 5)
    assert rows["fork"]["most often beside"] == "cup (80 %, lift 0.85), vase (20 %, lift 7.2)"
    assert rows["cup"]["expected"] is None, "no other class has as many images"


def test_what_is_unknown_has_no_column():
    found = diagnosis()
    stats = found.plan.stats
    by_bin, every = section(replace(found, context=class_context(stats)), "context")
    for header in (by_bin.header, every.header):
        assert not {"cells", "size", "scenes", "scenes per image"} & set(header)
    alone = ClassStats.from_lists([[0], [1]], 4, NAMES)
    _, every = section(replace(found, context=class_context(alone)), "context")
    assert "most often beside" not in every.header


def test_the_terminal_shows_the_narrowest_tail_classes_first():
    lists = [[0]] * 90 + [[1]] * 2 + [[2]] * 6 + [[3]] * 9
    stats = ClassStats.from_lists(lists, 4, NAMES)
    plan = make_plan(stats, config.resolve({"bins": [9, 50]}))
    scenes = np.array([*range(98), *[200] * 9])
    found = Diagnosis(plan, class_context(stats, scenes=scenes))
    names = re.findall(r"^(cup|fork|vase|mug) ", diagnosis_text(found), re.M)
    assert names == ["mug", "fork", "vase"]
    assert re.findall(r"^(cup|fork|vase|mug) ", diagnosis_text(found, 1), re.M) == ["mug"]
    assert "class id" not in diagnosis_text(found)


def test_a_set_without_boxes_has_no_contexts():
    stats = ClassStats.from_lists([[], []], 2)
    found = Diagnosis(make_plan(stats, config.resolve({"recipe": "baseline"})), class_context(stats))
    assert diagnosis_sections(found) == []
    assert diagnosis_text(found) == ""


# Names that break things ----------------------------------------------------------------------------------------------
NASTY = ("head", "<script>alert(1)</script>", "\x1b[31mred\x07\nline", '"><img src=x onerror=alert(1)>|`*')


class Tags(HTMLParser):
    """Counts the tags of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs).get("onerror")))


def hostile():
    """A diagnosis in which every name is from NASTY."""
    nasty = {f"labels/{name}.txt": of for name, of in zip(NASTY, defects().values(), strict=True)}
    paths = [[f"{NASTY[i % 4]}{i}" for i in range(n)] for n in (72, 4)]
    gaps = find_gaps([f"l/{name}" for name in NASTY], [0] * 4, [f"{name}.txt" for name in NASTY])
    return diagnosis(NASTY, defects=nasty, paths=paths, gaps=gaps, images=NASTY)


def test_names_break_neither_page_nor_terminal():
    sections = diagnosis_sections(hostile())
    plain = Tags()
    plain.feed(html(Page("t", diagnosis_sections(diagnosis()))))
    tags = Tags()
    tags.feed(html(Page("t", sections)))
    count = [tag for tag, _ in tags.found].count
    assert count("script") == [tag for tag, _ in plain.found].count("script") == 1
    assert count("img") == 0
    assert not any(error for _, error in tags.found)
    text = diagnosis_text(hostile())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    shown = markdown("t", sections, Path(), charts=False)
    assert "\x1b" not in shown
    assert not re.search(r"(?<!\\)<(script|img)", shown)


@pytest.mark.parametrize("column", ["name", "class"])
def test_a_class_that_is_called_head_is_no_bin(column):
    tables = [b for s in diagnosis_sections(hostile()) for b in s.blocks if isinstance(b, (Table, ClassTable))]
    named = [t for t in tables if column in t.header]
    assert named
    for table in named:
        names = [row[list(table.header).index(column)] for row in table.rows]
        assert "head" in names
        assert table.header[0] != "bin"
