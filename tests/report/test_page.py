"""The page of a validation: what stands on it in which order, and what is left out when it is not there."""

import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yolo_lt import cli, config
from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.runs import Run, against
from yolo_lt.report.blocks import ClassTable, Facts, Gallery, Table, Tile, show
from yolo_lt.report.drawing import Chart
from yolo_lt.report.page import LEGEND, PAIRS, difference, facts, galleries, pairs, validation_page

BOX = [10, 10, 20, 20]
NAMES = {7: "cup", 8: "fork", 9: "mug", 11: "vase"}
BINS = {"head": [7], "medium": [8], "tail": [9, 11]}
TRUTH = (7,) * 5 + (8,) * 3 + (9,) * 4  # a class an image
FOUND = (7,) * 5 + (8,) * 3 + (9, 7, 7)  # one of four mugs is found, two are taken for cups, one is missed
CONTEXT = {
    "task": "detect",
    "model": "runs/rfs/weights/best.pt",
    "weights_sha256": "0123456789abcdef" * 4,
    "data": "sets/kitchen/data.yaml",
    "split": "val",
    "imgsz": 640,
    "conf": 0.001,
    "nms_iou": 0.7,
    "head_measured": "one2many",
    "versions": {"yolo_lt": "9.8.7", "torch": "2.1.0"},
    "command": "yolo-lt val model=runs/rfs/weights/best.pt",
    "train_images": {7: 300, 8: 40, 9: 5, 11: 2},
}
BY_BIN = {"all": [0.1, 0.2], "tail": [0.0, 0.1]}
TRAINING = {
    "recipe": "rfs",
    "seed": 0,
    "epochs": 2,
    "by_epoch": {"epoch": [1, 2], "AP": BY_BIN, "AP50": BY_BIN},
    "exposure": {"tail": {"asked": 10.0, "tiles": 11.0, "boxes": 12.0, "pasted": 0.0}},
}
SECTIONS = ["summary", "worst", "errors", "confidence", "training", "classes", "about"]


def validated(truth=TRUTH, found=FOUND, names=NAMES, protocol="coco", bins=BINS, bootstrap=10, **more):
    """A validation of twelve images."""
    gt = {
        "images": [{"id": i, "neg_category_ids": [], "not_exhaustive_category_ids": []} for i in range(len(TRUTH))],
        "categories": [{"id": c, "name": name} for c, name in names.items()],
        "annotations": [{"image_id": i, "category_id": c, "bbox": BOX} for i, c in enumerate(truth)],
    }
    dets = [{"image_id": i, "category_id": c, "bbox": BOX, "score": 0.9} for i, c in enumerate(found)]
    return evaluate(gt, dets, protocol, bins, bootstrap=bootstrap, examples=3, context={**CONTEXT, **more})


def content(**keys):
    """Its report.json; with a training unless it is told otherwise."""
    return validated(**{"training": TRAINING, **keys}).to_json()


def run(name, **keys):
    """It as a finished run."""
    report = validated(**keys)
    return Run(name, report.matches, report.gt_sha256, report.to_json())


def with_baseline(replicates=10, ours=FOUND, name="runs/stock/val"):
    """A report, and its difference to one that finds no mug."""
    ours = run("runs/rfs/val", found=ours, training=TRAINING)
    return {**ours.report, "baseline": against(ours, run(name, found=FOUND[:8]), replicates)}


def with_pictures(report, folder):
    """The same with a file for every object that it shows."""
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    drawn = []
    for example_ in report["examples"]:
        shown = [{**s, "file": f"examples/{example_['id']}-{i}.jpg"} for i, s in enumerate(example_["shown"])]
        for s in shown:
            (folder / s["file"]).write_bytes(b"\xff\xd8" + s["file"].encode())
        drawn.append({**example_, "shown": shown})
    return {**report, "examples": drawn}


def filled(page):
    return [section.key for section in page.sections if section.filled]


def blocks(page, key, kind=object):
    (section,) = [s for s in page.sections if s.key == key]
    return [block for block in section.blocks if isinstance(block, kind)]


# Sections ------------------------------------------------------------------------------------------------------------


def test_a_page_has_its_parts_in_order(tmp_path):
    page = validation_page(with_baseline(), tmp_path)
    assert page.title == "rfs/best.pt on kitchen, split val"
    assert filled(page) == SECTIONS
    kinds = [type(block).__name__ for block in blocks(page, "summary")]
    assert kinds == ["Tile"] * 4 + ["str"] * 4 + ["Chart"] * 2 + ["Table"] * 2
    titles = [section.title for section in page.sections]
    assert titles[1] == "The weakest tail classes"
    assert len(set(titles)) == len(titles)


def test_the_charts_of_a_page_are_in_its_order(tmp_path):
    assert [chart.name for chart in validation_page(with_baseline(), tmp_path).charts] == [
        *("ap_by_images", "difference_by_bin", "errors_by_bin", "pr_by_bin", "calibration_by_bin"),
        *("training_by_bin", "exposure_by_bin"),
    ]


def test_the_page_shows_the_tables_of_the_terminal(tmp_path):
    report = with_baseline()
    page = validation_page(report, tmp_path)
    heads = [t.head for key in ("summary", "errors", "confidence") for t in blocks(page, key, Table)]
    assert heads == [
        "protocol coco, 100 detections per image and class, split val, head one2many, bins: given",
        "this - runs/stock/val, 95 % intervals of paired image resamples",
        "AP50 that is lost to each kind of error (TIDE)",
        "what objects are taken for, at confidence 0.25",
        "the pairs that are most often confused",
        "at confidence 0.25, IoU 0.5; ECE: expected calibration error from confidence 0.05; "
        "IoU: mean of right detections",
    ]
    (table,) = blocks(page, "classes", ClassTable)
    assert [row[1] for row in table.rows] == list(NAMES.values())


def test_what_nms_took_away_stands_with_the_errors(tmp_path):
    report = content()
    row = {"n_gt": 24, "never_seen": 3, "lost_to_nms": 2, "lost_to_max_det": 1}
    report["errors"]["lost"] = {"iou": 0.5, "conf": 0.001, "nms_iou": 0.7, "max_det": 300, "all": row}
    heads = [table.head for table in blocks(validation_page(report, tmp_path), "errors", Table)]
    assert heads[2].endswith("max_det 300")


def test_pairs_have_a_table_of_their_own_and_no_note():
    report = content()
    assert pairs(report).rows == [("mug", "cup", 2, 4)]
    page = validation_page(report, Path("."))
    assert [table.note for table in blocks(page, "errors", Table)] == ["", "", ""]
    pair = {"true": 9, "taken_for": 7, "n_gt": 40}
    report["errors"]["confusion"]["worst_pairs"] = [{**pair, "count": n} for n in range(20, 0, -1)]
    assert [row[2] for row in pairs(report).rows] == list(range(20, 20 - PAIRS, -1))
    report["errors"]["confusion"]["worst_pairs"] = []
    assert pairs(report) is None


def test_warnings_stand_where_it_is_said_how_this_was_measured(tmp_path):
    page = validation_page({**content(), "warnings": ["two <detections> are dropped."]}, tmp_path)
    assert blocks(page, "about")[0] == "two <detections> are dropped."
    assert isinstance(blocks(page, "about")[1], Facts)


# What is not there is left out ---------------------------------------------------------------------------------------


def without(tmp_path, **nothing):
    return validation_page({**content(), **nothing}, tmp_path)


def test_without_errors_there_are_no_tables_of_them(tmp_path):
    page = without(tmp_path, errors=None)
    assert [chart.name for chart in blocks(page, "errors")] == ["pr_by_bin"]
    assert not any("lost to" in text for text in blocks(page, "summary", str))


def test_open_images_has_no_shares_and_still_says_what_objects_are_taken_for(tmp_path):
    page = validation_page(content(protocol="openimages"), tmp_path)
    assert [chart.name for chart in blocks(page, "errors", Chart)] == ["pr_by_bin"]
    assert [table.head for table in blocks(page, "errors", Table)] == ["what objects are taken for, at confidence 0.25"]


@pytest.mark.parametrize("nothing", [None, []])
def test_without_examples_the_weakest_classes_have_no_section(tmp_path, nothing):
    assert filled(without(tmp_path, examples=nothing)) == [key for key in SECTIONS if key != "worst"]


def test_without_a_training_there_is_no_section_of_it(tmp_path):
    page = without(tmp_path, training=None)
    assert filled(page) == [key for key in SECTIONS if key != "training"]
    assert "training" not in dict(blocks(page, "about", Facts)[0].rows)


def test_a_training_that_did_not_evaluate_by_bin_has_no_curve(tmp_path):
    page = without(tmp_path, training={**TRAINING, "by_epoch": None})
    assert [chart.name for chart in blocks(page, "training")] == ["exposure_by_bin"]


def test_without_a_baseline_there_is_no_difference(tmp_path):
    page = without(tmp_path, baseline=None)
    assert difference(content()) == []
    assert [chart.name for chart in blocks(page, "summary", Chart)] == ["ap_by_images"]
    assert len(blocks(page, "summary", Table)) == 1


def test_the_chart_of_the_difference_names_both_sides():
    (chart,) = difference(with_baseline())
    assert chart.title == "rfs/best.pt - stock/val, paired difference with 95 % interval"


def test_without_bins_there_is_one_tile_and_the_weakest_of_all_are_shown(tmp_path):
    page = validation_page(content(bins=None), tmp_path)
    assert [tile.bin for tile in blocks(page, "summary", Tile)] == ["all"]
    assert page.sections[1].title == "The weakest classes"
    assert "bins" not in dict(blocks(page, "about", Facts)[0].rows)
    assert [gallery.bin for gallery in blocks(page, "worst", Gallery)] == [None] * 3


def test_without_training_images_no_class_is_drawn_against_them(tmp_path):
    page = validation_page(content(train_images=None), tmp_path)
    assert "ap_by_images" not in [chart.name for chart in page.charts]


def test_without_ground_truth_a_page_says_so_and_draws_only_the_training(tmp_path):
    page = validation_page(content(truth=(), found=()), tmp_path)
    assert blocks(page, "summary", str) == ["No class has boxes in split val, so there is nothing to measure."]
    assert [chart.name for chart in page.charts] == ["training_by_bin", "exposure_by_bin"]
    assert [tile.value for tile in blocks(page, "summary", Tile)] == ["-"] * 4
    assert filled(page) == [key for key in SECTIONS if key not in ("worst", "errors")]


def test_a_report_of_an_earlier_version_has_a_page(tmp_path):
    report = content()
    for key in ("curves", "examples", "training", "command"):
        del report[key]
    for entry in report["calibration"].values():
        if isinstance(entry, dict):
            del entry["reliability"]
    page = validation_page(report, tmp_path)
    assert filled(page) == ["summary", "errors", "confidence", "classes", "about"]
    assert [chart.name for chart in page.charts] == ["ap_by_images", "errors_by_bin"]
    assert blocks(page, "about", Facts)[0].command == ""


# Pictures ------------------------------------------------------------------------------------------------------------


def test_a_gallery_says_how_its_class_is_found_and_what_became_of_each_object(tmp_path):
    legend, gallery = galleries(with_pictures(content(), tmp_path), tmp_path)
    assert legend == LEGEND
    assert (gallery.name, gallery.bin) == ("mug", "tail")
    assert gallery.text == ("AP50 0.257, 5 training images; 1 of 4 objects found, 2 taken for another class, 1 missed")
    assert [(p.outcome, p.caption) for p in gallery.pictures] == [
        ("confused", "taken for cup: confidence 0.90, IoU 1.00"),
        ("confused", "taken for cup: confidence 0.90, IoU 1.00"),
        ("missed", "missed: no box of any class is shown for it"),
        ("found", "found: confidence 0.90, IoU 1.00"),
    ]
    assert [p.file for p in gallery.pictures] == [tmp_path / f"examples/9-{i}.jpg" for i in range(4)]


def test_a_picture_whose_file_is_gone_is_left_out(tmp_path):
    report = with_pictures(content(), tmp_path)
    (tmp_path / "examples" / "9-1.jpg").unlink()
    report["examples"][0]["shown"][3]["file"] = None
    _, gallery = galleries(report, tmp_path)
    assert [p.file.name for p in gallery.pictures] == ["9-0.jpg", "9-2.jpg"]


def test_without_any_picture_the_numbers_stay_and_the_legend_goes(tmp_path):
    (gallery,) = galleries(content(), tmp_path)
    assert gallery.pictures == []
    assert gallery.text.endswith("1 missed")


def test_a_class_of_unknown_training_images_does_not_name_any(tmp_path):
    (gallery,) = galleries(content(train_images=None), tmp_path)
    assert gallery.text.startswith("AP50 0.257; 1 of 4")


def test_without_bins_the_worst_class_comes_first(tmp_path):
    found = galleries(content(bins=None), tmp_path)
    assert [gallery.name for gallery in found] == ["mug", "cup", "fork"]


# Facts ---------------------------------------------------------------------------------------------------------------


def test_the_facts_say_what_is_needed_to_get_the_numbers_again():
    report = with_baseline()
    assert facts(report) == Facts(
        [
            ("model", "runs/rfs/weights/best.pt (sha256 0123456789ab)"),
            ("training", "recipe rfs, seed 0, epochs 2"),
            ("baseline", "runs/stock/val (sha256 0123456789ab)"),
            ("data", f"sets/kitchen/data.yaml (ground truth sha256 {report['gt_sha256'][:12]})"),
            ("split", "val"),
            ("task", "detect, IoU of boxes"),
            ("protocol", "coco, 100 detections per image and class"),
            ("IoU", "0.5 to 0.95"),
            ("bins", "given: head 1, medium 1, tail 2 classes"),
            ("95 % intervals", "10 image resamples, seed 0"),
            ("image size", "640"),
            ("NMS", "confidence 0.001, IoU 0.7"),
            ("head measured", "one2many"),
            ("versions", "yolo_lt 9.8.7, torch 2.1.0"),
        ],
        "yolo-lt val model=runs/rfs/weights/best.pt",
    )


def test_what_is_unknown_is_no_fact():
    nothing = dict.fromkeys((*CONTEXT, "training"))
    report = {**content(bins=None, bootstrap=0, **{**nothing, "task": "detect"}), "gt_sha256": None}
    assert dict(facts(report).rows) == {
        "task": "detect, IoU of boxes",
        "protocol": "coco, 100 detections per image and class",
        "IoU": "0.5 to 0.95",
        "95 % intervals": "none",
    }
    assert facts(report).command == ""


def test_a_training_of_which_only_the_epochs_are_known_says_these():
    assert dict(facts(content(training={"epochs": 7})).rows)["training"] == "epochs 7"
    assert "training" not in dict(facts(content(training={"recipe": None, "exposure": {}})).rows)


def test_the_official_package_is_a_fact():
    official = {"package": "pycocotools", "version": "2", "largest_difference": 0.0, **dict.fromkeys(("AP", "AP50"))}
    report = {**content(), "official": {**official, "AP75": None, "AR": None}}
    assert dict(facts(report).rows)["official evaluation"].startswith("pycocotools 2: AP -")


def test_the_tables_of_the_page_can_be_shown_in_a_terminal(tmp_path):
    page = validation_page(with_baseline(), tmp_path)
    for section in page.sections:
        for table in (block for block in section.blocks if isinstance(block, Table)):
            assert len(show(table).splitlines()) >= len(table.rows) + 1


# The command ---------------------------------------------------------------------------------------------------------


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).filter(
    lambda t: config.parse_value(t) == t
)
values = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers() | texts, max_size=3),
    texts,
)


@given(st.dictionaries(st.sampled_from(["model", "data", "bins", "conf", "name", "official", "imgsz"]), values))
@example({"model": 'my runs/it\'s a "net".pt', "bins": [10, 100], "official": True, "save_json": False, "conf": 1e-05})
@example({"data": "a=b", "name": "$HOME; rm -rf `x` | y & z", "imgsz": [320, 640], "project": "ü\\n #1"})
def test_a_command_is_read_back_as_what_was_given(keys):
    program, verb, *words = shlex.split(config.command("val", **keys))
    assert (program, verb) == ("yolo-lt", "val")
    assert cli.parse(words) == keys


def test_a_command_is_written_as_one_would_write_it():
    given_keys = {"model": Path("best.pt"), "official": True, "split": None, "name": "a b", "imgsz": 640}
    assert config.command("val", **given_keys) == "yolo-lt val model=best.pt official=true 'name=a b' imgsz=640"


def test_a_comparison_names_its_sides_before_the_keys():
    sides, found = ["runs/a 0,runs/a1", "b0,b1"], []
    program, verb, *words = shlex.split(config.command("compare", sides, bootstrap=100))
    assert (program, verb) == ("yolo-lt", "compare")
    assert cli.parse(words, found) == {"bootstrap": 100}
    assert found == sides
