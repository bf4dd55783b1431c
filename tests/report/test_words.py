"""The sentences of a report: what they say, and what they leave unsaid."""

import numpy as np
import pytest
from test_page import BINS, FOUND, NAMES, TRUTH, content, with_baseline

from yolo_lt.evaluate.errors import KINDS
from yolo_lt.report import words
from yolo_lt.report.blocks import Tile

LACKS = (
    "Most of the AP50 that the tail lacks is lost to boxes with the wrong class (0.495) and objects without any box "
    "(0.079)."
)


def lead(**keys):
    return words.lead(content(**{"bootstrap": 0, **keys}))


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/rfs/weights/best.pt", "rfs/best.pt"),
        ("/home/me/runs/my run/weights/last.pt", "my run/last.pt"),
        ("weights/best.pt", "best.pt"),
        ("models/yolo26n.pt", "yolo26n.pt"),
        ("yolo26n.pt", "yolo26n.pt"),
        ("out/detections.json", "detections.json"),
        (None, "detections"),
    ],
)
def test_a_model_is_called_by_its_run_and_its_file(model, name):
    assert words.model_name({"model": model}) == name


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("sets/kitchen/data.yaml", "kitchen"),
        ("sets/kitchen.yaml", "kitchen.yaml"),
        ("data.yaml", "data.yaml"),
        ("annotations/val.json", "val.json"),
        (None, "the given ground truth"),
    ],
)
def test_a_data_set_is_called_by_its_file_or_the_folder_around_it(data, name):
    assert words.data_name({"data": data}) == name


def test_the_title_says_which_network_on_which_images():
    assert words.title(content()) == "rfs/best.pt on kitchen, split val"
    detections = content(model="found.json", data="gt.json", split=None)
    assert words.title(detections) == "found.json on gt.json"


@pytest.mark.parametrize(("path", "name"), [("runs/stock", "stock"), ("runs/stock/weights/best.pt", "stock/best.pt")])
def test_a_baseline_is_called_by_its_folder_or_its_checkpoint(path, name):
    assert words.baseline_name(path) == name


# Levels --------------------------------------------------------------------------------------------------------------


def test_the_first_sentence_has_every_bin_and_the_whole():
    assert lead()[0] == (
        "AP50 is 1.000 for the head, 1.000 for medium classes and 0.257 for the tail; "
        "0.752 over the 3 classes that have boxes here."
    )


def test_of_bins_without_boxes_it_says_that_nothing_can_be_said():
    assert lead(truth=TRUTH[:8])[0].endswith(
        "AP50 is 1.000 for the head and 1.000 for medium classes; 1.000 over the 2 classes that have boxes here. "
        "Nothing can be said of the tail: no boxes here."
    )
    assert lead(truth=TRUTH[:5])[0].endswith(" Nothing can be said of medium classes and the tail: no boxes here.")


def test_of_a_bin_without_classes_it_says_nothing():
    (sentence, *_) = lead(truth=TRUTH[:8], bins={"head": [7, 8], "medium": [], "tail": []})
    assert sentence == "AP50 is 1.000 for the head; 1.000 over the 2 classes that have boxes here."


def test_without_bins_there_is_the_whole_alone():
    assert lead(bins=None)[0] == "AP50 is 0.752 over the 3 classes that have boxes here."


@pytest.mark.parametrize(("split", "where"), [("val", " in split val"), (None, "")])
def test_where_nothing_has_boxes_there_is_one_sentence(split, where):
    assert lead(truth=(), split=split) == [f"No class has boxes{where}, so there is nothing to measure."]


# Losses --------------------------------------------------------------------------------------------------------------


def test_what_costs_the_tail_most_is_named_with_its_price():
    assert lead()[1] == LACKS


@pytest.mark.parametrize(
    ("keys", "lacking"),
    [
        ({"truth": TRUTH[:8], "found": (7, 7, 7, 7, 7, 8, 8, 7)}, "medium classes lack"),
        ({"truth": TRUTH[:5], "found": (7, 7, 7, 7, 8)}, "the head lacks"),
        ({"bins": None}, "all classes lack"),
    ],
)
def test_without_boxes_of_the_tail_it_is_the_rarest_bin_that_has_some(keys, lacking):
    start, price = lead(**keys)[1].split(" (", 1)
    assert start == f"Most of the AP50 that {lacking} is lost to boxes with the wrong class"
    assert 0 < float(price[:5]) < 1


def test_a_network_that_loses_nothing_is_not_told_what_it_loses():
    assert not any("lost to" in sentence for sentence in lead(found=TRUTH))


def test_without_shares_nothing_is_said_of_losses():
    assert not any("lost to" in sentence for sentence in lead(protocol="openimages"))
    assert not any("lost to" in sentence for sentence in words.lead({**content(), "errors": None}))


def test_every_kind_of_error_has_words():
    assert set(words.KINDS) == set(KINDS)


# What is shown -------------------------------------------------------------------------------------------------------


def test_what_a_user_sees_of_the_tail():
    assert lead()[2] == (
        "At confidence 0.25, 25 % of the objects of the tail are found, and 100 % of what is shown as such is right."
    )


def test_of_what_is_never_shown_no_share_is_right():
    assert lead(found=FOUND[:8])[-1] == "At confidence 0.25, 0 % of the objects of the tail are found."


def test_thresholds_of_each_class_are_named():
    report = content()
    report["operating_point"]["conf"] = None
    assert words.lead(report)[2].startswith("At the thresholds of each class, 25 % of")


def test_without_boxes_of_the_tail_it_says_what_is_seen_of_the_rarest_bin():
    last = lead(truth=TRUTH[:5], found=(7, 7, 7, 8))[-1]
    assert last.startswith("At confidence 0.25, 60 % of the objects of the head are found, and 100 % of what")


# Against a baseline --------------------------------------------------------------------------------------------------


def row(said, *values):
    return {"AP50": list(values), "is": {"AP50": said}}


@pytest.mark.parametrize(
    ("said", "values", "text"),
    [
        ("better", (0.0126, 0.002, 0.02), "the tail 0.013 higher [+0.002, +0.020], better"),
        ("worse", (-0.1, -0.2, -0.05), "the tail 0.100 lower [-0.200, -0.050], worse"),
        ("no difference shown", (-0.01, -0.2, 0.1), "the tail 0.010 lower [-0.200, +0.100], no difference shown"),
        (None, (0.5,), "the tail 0.500 higher"),
        (None, (0.0,), "the tail 0.000 higher"),
    ],
)
def test_a_difference_is_said_with_its_interval_and_what_that_shows(said, values, text):
    assert words.against({"tail": row(said, *values)}, "stock") == f"Against stock, in AP50: {text}."


def test_bins_without_a_difference_are_left_out():
    none = {"AP50": None, "is": {"AP50": None}}
    difference = {
        "all": row("better", 0.1, 0.0, 0.2),
        "head": None,
        "medium": none,
        "tail": row("worse", -0.1, -0.2, -0.1),
    }
    assert words.against(difference, "a") == (
        "Against a, in AP50: all classes 0.100 higher [+0.000, +0.200], better; "
        "the tail 0.100 lower [-0.200, -0.100], worse."
    )
    assert words.against({"all": none, "head": None}, "a") == ""


@pytest.mark.parametrize("replicates", [0, 10])
def test_the_last_sentence_is_about_the_baseline(replicates):
    *_, last = words.lead(with_baseline(replicates))
    assert last.startswith("Against stock/val, in AP50: all classes 0.086 higher")
    assert "the head 0.000 higher" in last
    assert "the tail 0.257 higher" in last
    assert ("[" in last) == bool(replicates)
    assert ("no difference shown" in last) == bool(replicates)
    assert words.against_baseline(content()) == []


# Tiles ---------------------------------------------------------------------------------------------------------------


def test_a_tile_has_a_bins_number_and_what_it_rests_on():
    tiles = words.tiles(content())
    assert [tile.bin for tile in tiles] == ["all", *BINS]
    assert [tile.value for tile in tiles] == ["0.752", "1.000", "1.000", "0.257"]
    assert tiles[1].interval == "[1.000, 1.000]"
    assert tiles[3].interval.startswith("[0.000, ")
    assert [tile.more for tile in tiles] == [
        ["AP 0.752", "3 of 4 classes, 12 boxes"],
        ["AP 1.000", "1 of 1 class, 5 boxes"],
        ["AP 1.000", "1 of 1 class, 3 boxes"],
        ["AP 0.257", "1 of 2 classes, 4 boxes"],
    ]


def test_without_resamples_or_without_boxes_a_tile_has_no_interval():
    assert {tile.interval for tile in words.tiles(content(bootstrap=0))} == {""}
    nothing = words.tiles(content(truth=TRUTH[:8]))[3]
    assert nothing == Tile("tail", "-", "", ["AP -", "0 of 2 classes, 0 boxes"])


def test_a_bin_without_classes_has_no_tile():
    tiles = words.tiles(content(bins={"head": [*NAMES]}))
    assert [tile.bin for tile in tiles] == ["all", "head"]


def test_a_tile_says_how_it_differs_from_the_baseline():
    tiles = words.tiles(with_baseline())
    assert tiles[1].more[2:] == ["0.000 higher than stock/val [+0.000, +0.000], no difference shown"]
    assert tiles[3].more[2].startswith("0.257 higher than stock/val [+0.000, +")
    plain = words.tiles(with_baseline(replicates=0))
    assert plain[3].more[2:] == ["0.257 higher than stock/val"]


def test_a_bin_that_cannot_be_compared_has_a_tile_without_a_difference():
    report = with_baseline()
    report["baseline"]["difference"]["tail"] = None
    report["baseline"]["difference"]["head"]["AP50"] = None
    assert [len(tile.more) for tile in words.tiles(report)] == [3, 2, 3, 2]


@pytest.mark.parametrize(
    ("parts", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_parts_are_listed_as_one_says_them(parts, text):
    assert words.listed(parts) == text


def test_a_share_is_said_in_whole_percent():
    assert [words.percent(v) for v in (0.0, 0.254, 1.0, np.float64(2 / 3))] == ["0 %", "25 %", "100 %", "67 %"]
