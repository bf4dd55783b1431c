"""The text of a validation and of a comparison: what each table says, and that nothing is not 0."""

import pytest

from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.evaluate import evaluate
from yolo_lt.report.blocks import show
from yolo_lt.report.results import (
    baseline,
    comparison,
    confusion,
    differences,
    lost,
    official_text,
    protocol_text,
    report_text,
    shares,
)

BOX = [10, 10, 20, 20]
ROWS = ("all", *BIN_NAMES)
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")


def words(text, start):
    """The words of the one line that begins so."""
    (line,) = [x for x in text.splitlines() if x.startswith(start)]
    return line.split()


def report(protocol="coco", bins=True, **more):
    """A head class of which half is taken for the tail class, a tail class without ground truth, no medium class."""
    gt = {
        "images": [{"id": i, "neg_category_ids": [], "not_exhaustive_category_ids": []} for i in range(4)],
        "categories": [{"id": 7, "name": "cup"}, {"id": 9, "name": "mug"}],
        "annotations": [{"image_id": i, "category_id": 7, "bbox": BOX} for i in range(4)],
    }
    dets = [{"image_id": i, "category_id": 7 if i < 2 else 9, "bbox": BOX, "score": 0.9} for i in range(4)]
    given = {"head": [7], "tail": [9]} if bins else None
    return {**evaluate(gt, dets, protocol, given, bootstrap=0).to_json(), **more}


# The head line -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"split": "val", "head_measured": "one2one"}, "protocol coco, CAP, split val, head one2one"),
        ({"split": "test", "head_measured": None}, "protocol coco, CAP, split test"),
        ({"split": None, "head_measured": None}, "protocol coco, CAP, split -"),
    ],
)
def test_what_numbers_mean_nothing_without_stands_above_them(more, line):
    assert protocol_text(report(**more)) == line.replace("CAP", "100 detections per image and class")


@pytest.mark.parametrize(
    ("protocol", "cap"),
    [
        ("coco", "100 detections per image and class"),
        ("lvis", "300 detections per image"),
        ("lvis_fixed", "the best 10000 detections of every class over the data set"),
        ("lvis_pool", "the best 10000 detections of every class over the data set"),
        ("openimages", "no cap on detections"),
    ],
)
def test_every_protocol_names_itself_and_its_cap_in_the_first_line(protocol, cap):
    text = report_text(report(protocol, head_measured="one2many"))
    assert text.startswith(f"protocol {protocol}, {cap}, split -, head one2many, bins: given\n")


# The weakest classes -------------------------------------------------------------------------------------------------


def test_the_weakest_classes_and_what_became_of_their_objects():
    example = {"id": 7, "n_gt": 4, "found": 2, "confused": 2, "missed": 0, "shown": []}
    text = report_text(report(examples=[example]))
    (part,) = [part for part in text.split("\n\n") if part.startswith("the weakest classes, at confidence 0.25\n")]
    assert " ".join(words(part, "class")) == "class bin AP50 training images boxes found as another missed"
    assert words(part, "cup") == ["cup", "head", "0.505", "-", "4", "2", "2", "0"]


@pytest.mark.parametrize("examples", [None, []])
def test_without_examples_there_is_no_such_table(examples):
    assert "the weakest" not in report_text(report(examples=examples))


# Why AP is lost ------------------------------------------------------------------------------------------------------


def test_the_shares_of_every_kind_of_error():
    text = show(shares(report()))
    assert text.startswith("AP50 that is lost to each kind of error (TIDE)\n")
    header = words(text, "bin")
    assert header == ["bin", "AP50", *KINDS, "wrong", "detections", "missed", "boxes"]
    assert words(text, "all") == ["all", "0.505", "0.495", *["0.000"] * 5, "2", "0"]
    assert words(text, "head") == ["head", "0.505", "0.495", *["0.000"] * 5, "0", "0"]


@pytest.mark.parametrize("name", ["medium", "tail"])
def test_a_bin_without_ground_truth_has_no_share_at_all(name):
    assert name not in {line.split()[0] for line in show(shares(report())).splitlines()}


def test_open_images_has_no_shares():
    content = report("openimages")
    assert content["errors"]["shares"] is None
    assert shares(content) is None
    assert "TIDE" not in report_text(content)
    assert report_text(content).split("\n\n")[2].startswith("what objects are taken for, at confidence 0.25\n")
    assert words(report_text(content).split("\n\n")[0], "head")[-2] == "-"


def test_without_ground_truth_there_is_no_table_of_errors():
    content = report()
    nothing = {name: {**s, "AP50": None} for name, s in content["errors"]["shares"].items() if s is not None}
    content["errors"]["shares"] = {**dict.fromkeys(ROWS), **nothing}
    assert shares(content) is None
    nothing = {**content, "errors": None}
    assert [table(nothing) for table in (shares, confusion, lost)] == [None] * 3
    assert len(report_text(nothing).split("\n\n")) == 2


def test_what_objects_are_taken_for():
    text = show(confusion(report()))
    lines = text.splitlines()
    assert lines[0] == "what objects are taken for, at confidence 0.25"
    assert lines[1].split() == ["objects", "of", "boxes", "found", "as", "head", "as", "tail", "missed"]
    assert lines[2].split() == ["head", "4", "2", "0", "2", "0"]
    assert lines[3:] == ["most often confused: cup as mug (2 of 4)"]


def test_a_bin_that_nothing_is_taken_for_has_neither_row_nor_column():
    text = show(confusion(report()))
    assert "unseen" not in text
    assert "medium" not in text


def test_an_unseen_class_that_objects_are_taken_for_is_shown():
    content = report()
    rows = content["errors"]["confusion"]["rows"]
    rows["unseen"]["as"]["head"], rows["unseen"]["n_gt"] = 3, 3
    text = show(confusion(content))
    assert words(text, "unseen") == ["unseen", "3", "0", "3", "0", "0", "0"]
    assert words(text, "objects")[-3:] == ["as", "unseen", "missed"]


def test_only_the_worst_pairs_are_named():
    content = report()
    pair = {"true": 7, "taken_for": 9, "count": 2, "n_gt": 4}
    content["errors"]["confusion"]["worst_pairs"] = [{**pair, "count": n} for n in range(9, 0, -1)]
    (line,) = [x for x in show(confusion(content)).splitlines() if x.startswith("most often")]
    assert line == f"most often confused: {', '.join(f'cup as mug ({n} of 4)' for n in (9, 8, 7, 6, 5))}"
    content["errors"]["confusion"]["worst_pairs"] = []
    assert "most often confused" not in report_text(content)


def test_thresholds_of_each_class_are_named_instead_of_one_confidence():
    content = report()
    content["operating_point"]["conf"] = None
    assert "at the thresholds of each class" in show(confusion(content))
    assert report_text(content).count("at the thresholds of each class") == 2


def taken_away(**bins):
    counts = {name: dict(zip(("n_gt", "never_seen", "lost_to_nms", "lost_to_max_det"), row, strict=True))
              for name, row in bins.items()}  # fmt: skip
    return {"iou": 0.5, "conf": 0.001, "nms_iou": 0.7, "max_det": 300, **counts}


def test_what_nms_and_max_det_took_away():
    content = report()
    content["errors"]["lost"] = taken_away(all=(24, 3, 2, 1), tail=(4, 4, 0, 0))
    text = report_text(content).split("\n\n")[-1].splitlines()
    assert text[0] == "objects without a detection of their class at IoU 0.5, from confidence 0.001; max_det 300"
    assert text[1].split() == ["bin", "boxes", "never", "seen", "lost", "to", "NMS", "lost", "to", "max_det"]
    assert [line.split() for line in text[2:]] == [["all", "24", "3", "2", "1"], ["tail", "4", "4", "0", "0"]]
    content["errors"]["lost"] = None
    assert lost(content) is None
    assert "max_det" not in report_text(content)


# Against others ------------------------------------------------------------------------------------------------------


def test_the_official_package_is_named_with_its_version_and_a_dash_for_nothing():
    said = {"package": "lvis", "version": "0.5.3", "AP": 0.1234567, "AP50": None, "AP75": 0.0, "AR": 1.0}
    text = official_text({"official": {**said, "largest_difference": 2e-16}})
    assert text == (
        "lvis 0.5.3: AP 0.123457, AP50 -, AP75 0.000000, AR 1.000000; the largest difference of its precision and "
        "recall arrays to ours is 2.0e-16"
    )
    assert official_text({"official": None}) == ""


def row(value, low=None, high=None, said="better"):
    triple = [value] if low is None else [value, low, high]
    return {**dict.fromkeys(("AP", "AP50", "AP75", "AR"), triple), "is": dict.fromkeys(("AP", "AP50"), said)}


NOTHING = {**dict.fromkeys(("AP", "AP50", "AP75", "AR")), "is": dict.fromkeys(("AP", "AP50"))}
DIFFERENCE = {"all": row(0.01, 0.002, 0.02), "head": row(-0.1, -0.2, 0.0, "worse"), "medium": None, "tail": NOTHING}


def test_differences_are_signed_and_a_bin_without_ground_truth_is_a_dash():
    lines = show(differences(DIFFERENCE)).splitlines()
    assert lines[0].split() == ["bin", "AP", "AP50", "AP75", "AR", "AP", "is"]
    assert lines[1].split() == ["all", *["+0.010", "[+0.002,", "+0.020]"] * 4, "better"]
    assert lines[2].split() == ["head", *["-0.100", "[-0.200,", "+0.000]"] * 4, "worse"]
    assert lines[3].split() == ["tail", *["-"] * 5]
    assert len(lines) == 4


def test_what_is_said_is_of_the_metric_that_was_asked_for():
    difference = {"all": {**row(0.1, 0.0, 0.2), "is": {"AP": "better", "AP50": "worse"}}}
    assert show(differences(difference, "AP50")).splitlines()[1].endswith("worse")
    assert show(differences(difference, "AP50")).splitlines()[0].endswith("AP50 is")


def test_a_baseline_is_named_above_its_table():
    other = {"name": "runs/stock", "replicates": 10, "difference": DIFFERENCE}
    text = show(baseline({"baseline": other}))
    assert text.splitlines()[0] == "this - runs/stock, 95 % intervals of paired image resamples"
    assert show(baseline({"baseline": {**other, "replicates": 0}})).startswith("this - runs/stock, no intervals")
    assert text.splitlines()[1:] == show(differences(DIFFERENCE)).splitlines()
    assert baseline({"baseline": None}) is None


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("replicates", [0, 500])
def test_a_comparison_names_both_sides_the_protocol_and_the_resamples(seeds, replicates):
    names = [[f"{side}{k}" for k in range(seeds)] for side in "ba"]
    content = {"runs": names[0], "baseline": names[1], "protocol": "lvis", "cap": "300 detections per image"}
    content |= {"bins": "given", "bootstrap": {"replicates": replicates}, "difference": DIFFERENCE}
    first, *_, last = show(comparison(content)).splitlines()
    pairs = " (3 pairs: images and pairs are resampled)" if seeds > 1 else ""
    assert first == f"{', '.join(names[0])} - {', '.join(names[1])}{pairs}"
    resamples = "95 % intervals from 500 resamples" if replicates else "no intervals"
    assert last == f"protocol lvis, 300 detections per image, bins: given; {resamples}"


def test_a_report_has_only_the_parts_that_it_was_asked_for():
    plain = report_text(report())
    assert "this - " not in plain
    assert "pycocotools" not in plain
    official = {"package": "pycocotools", "version": "2", "largest_difference": 0.0, **dict.fromkeys(("AP", "AP50"))}
    more = {"official": {**official, "AP75": None, "AR": None}}
    more["baseline"] = {"name": "a", "replicates": 9, "difference": DIFFERENCE}
    whole = report_text(report(**more))
    assert whole.startswith(plain)
    assert [t.split()[0] for t in whole[len(plain) :].strip().split("\n\n")] == ["pycocotools", "this"]
