import copy
import json

import cv2
import numpy as np
import pytest

from yolo_lt.calibrate import Affine
from yolo_lt.dataset.bins import Bins
from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.metrics import METRICS
from yolo_lt.report.blocks import show
from yolo_lt.report.calibration import calibration_text, class_rows
from yolo_lt.report.calibration_plot import calibration_plot
from yolo_lt.report.results import operating, report_text

NAMES = ("cat", "dog", "eel", "fly", "gnu", "hen")
BINS = Bins.from_dict({"head": [1], "medium": [0], "tail": [2, 3, 5], "unseen": [4]}, "given")
COUNTS = np.array([40, 300, 7, 2, 0, 4])
AFFINE = Affine(np.array([1, 1, 0.5, 0.25, 1, 1]), np.array([0.5, 0, 2, 3, 0, 8]))
THRESHOLDS = {"before": np.array([0.3, 0.4, 0.1, 0.1, 1, 0.7]), "after": np.array([0.35, 0.4, 0.2, 0.2, 1, 0.9])}
SETS = ("all", "head", "medium", "tail")


def rates(precision, recall, f1):
    return {"precision": precision, "recall": recall, "F1": f1, "n_right": 1, "n_det": 2, "n_gt": 3}


def on_val(thresholds=False, bootstrap=100):
    """Numbers that tell where they stand: budget, bin and metric."""

    def ap(side):
        return {
            n: {
                s: {m: None if s == "tail" else side + n / 10_000 + k / 1000 + j / 100 for j, m in enumerate(METRICS)}
                for k, s in enumerate(SETS)
            }
            for n in (300, 100, 30)
        }

    interval = [0.1, 0.05, 0.15][: 3 if bootstrap else 1]
    change = {
        n: {s: dict.fromkeys(METRICS) if s == "tail" else dict.fromkeys(METRICS, interval) for s in SETS}
        for n in (300, 100, 30)
    }
    val = {
        "protocol": "coco",
        "images": 77,
        "bootstrap": bootstrap,
        "conf": 0.25,
        "AP": {"before": ap(0.2), "after": ap(0.3)},
        "AP_change": change,
        "operating_point": {
            "before": dict.fromkeys(SETS, rates(0.7, 0.4, 0.51)),
            "after": dict.fromkeys(SETS, rates(0.6, 0.5, 0.55)),
        },
        "operating_point_change": {
            s: {"precision": [-0.1, -0.2, 0.01][: len(interval)], "recall": interval, "F1": None} for s in SETS
        },
        "calibration": {
            "before": {s: {"ECE": 0.12, "n_det": 9} for s in SETS},
            "after": {s: {"ECE": None if s == "tail" else 0.08, "n_det": 9} for s in SETS},
        },
    }
    if thresholds:
        val["with_thresholds"] = {
            "before": dict.fromkeys(SETS, rates(0.81, 0.41, 0.52)),
            "after": dict.fromkeys(SETS, rates(0.82, 0.42, 0.53)),
        }
        val["with_thresholds_change"] = {s: dict.fromkeys(("precision", "recall", "F1"), interval) for s in SETS}
    return val


def content(method="norcal", holdout=True, curve=True, val=True, thresholds=False, written="calibrated"):
    strengths = [0.0, 0.5, 1.0]
    judge = "log_loss" if method == "temperature" else "f1"
    points = [
        {
            "strength": s,
            "ap": {300: 0.25 + s / 10, 100: 0.21 + s / 10, 30: 0.14 + s / 10},
            "f1": 0.2 + s / 10,
            "conf": 0.3 + s / 5,
            "log_loss": 0.05 - s / 100,
            "worth": 0.2 + s / 10 if judge == "f1" else s / 100 - 0.05,
        }
        for s in strengths
    ]
    found = {
        "method": method,
        "strength": 0.5,
        "strength_by": "cross-validation" if holdout else "fixed",
        "written": written,
        "holdout": {"images": 123, "judge": judge, "curve": points if curve else []} if holdout else None,
        "classes": class_rows(NAMES, BINS, COUNTS, AFFINE, THRESHOLDS if holdout else None),
    }
    return {**found, "val": on_val(thresholds)} if val else found


def cells(text, start):
    """The lines of a text that begin with `start`, split where two blanks or more are."""
    return [[c.strip() for c in line.split("  ") if c.strip()] for line in text.splitlines() if line.startswith(start)]


def test_class_rows_say_what_every_class_got():
    rows = class_rows(NAMES, BINS, COUNTS, AFFINE, THRESHOLDS)
    assert [r["id"] for r in rows] == [0, 1, 2, 3, 4, 5]
    assert [r["name"] for r in rows] == list(NAMES)
    assert [r["bin"] for r in rows] == ["medium", "head", "tail", "tail", "unseen", "tail"]
    assert [r["train_images"] for r in rows] == [40, 300, 7, 2, 0, 4]
    assert [r["scale"] for r in rows] == [1, 1, 0.5, 0.25, 1, 1]
    assert [r["shift"] for r in rows] == [0.5, 0, 2, 3, 0, 8]
    assert [r["threshold_before"] for r in rows] == [0.3, 0.4, 0.1, 0.1, 1, 0.7]
    assert [r["threshold_after"] for r in rows] == [0.35, 0.4, 0.2, 0.2, 1, 0.9]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_class_rows_where_nothing_was_folded_or_chosen():
    rows = class_rows(NAMES, BINS, COUNTS, None, None)
    assert {(r["scale"], r["shift"]) for r in rows} == {(1, 0)}
    assert {(r["threshold_before"], r["threshold_after"]) for r in rows} == {(None, None)}
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "method=norcal, gamma=0.5 (cross-validation), 123 held-out images: folded into the checkpoint"),
        ({"written": "original"}, "gamma=0.5 (cross-validation), 123 held-out images: the checkpoint is kept as it is"),
        ({"holdout": False}, "method=norcal, gamma=0.5 (fixed): folded into the checkpoint"),
        ({"method": "temperature"}, "method=temperature, share=0.5 (cross-validation)"),
    ],
)
def test_the_first_line_says_what_was_done(keys, says):
    first = calibration_text(content(**keys)).splitlines()[0]
    assert says in first


def test_the_curve_has_a_row_per_strength():
    text = calibration_text(content())
    assert "holdout, cross-validated, judged by F1 (of the best confidence for all classes" in text
    budgets = [f"AP, {n} an image" for n in (300, 100, 30)]
    assert cells(text, "gamma") == [["gamma", *budgets, "F1", "at confidence", "log loss"]]
    assert cells(text, "0 ") == [["0", "0.250", "0.210", "0.140", "0.200", "0.300", "0.050"]]
    assert cells(text, "0.5 ") == [["0.5", "0.300", "0.260", "0.190", "0.250", "0.400", "0.045"]]
    assert cells(text, "1 ") == [["1", "0.350", "0.310", "0.240", "0.300", "0.500", "0.040"]]


def test_temperature_is_judged_by_the_log_loss():
    text = calibration_text(content("temperature"))
    assert "judged by log loss of the confidences:" in text
    assert cells(text, "0.5 ")[0][-1] == "0.045"


@pytest.mark.parametrize("keys", [{"holdout": False}, {"curve": False}])
def test_without_a_curve_there_is_none(keys):
    text = calibration_text(content(**keys))
    assert "cross-validated" not in text
    assert "judged by" not in text
    assert "medians over the classes" in text


def test_the_map_by_bin_has_the_medians_of_its_classes():
    text = calibration_text(content(val=False))
    assert cells(text, "head") == [["head", "1", "300.000", "1.000", "0.000", "0.400", "0.400"]]
    assert cells(text, "medium") == [["medium", "1", "40.000", "1.000", "0.500", "0.300", "0.350"]]
    assert cells(text, "tail") == [["tail", "3", "4.000", "0.500", "3.000", "0.100", "0.200"]]
    assert not cells(text, "unseen")


def test_without_a_holdout_thresholds_are_dashes():
    text = calibration_text(content(holdout=False, val=False))
    assert cells(text, "tail") == [["tail", "3", "4.000", "0.500", "3.000", "-", "-"]]


def test_without_val_nothing_is_said_of_it():
    assert "after - before" not in calibration_text(content(val=False))
    assert "split val" not in calibration_text(content(val=False))


def test_before_and_after_on_val_with_intervals():
    text = calibration_text(content())
    change = "+0.100 [+0.050, +0.150]"
    assert cells(text, "AP, 300 an image") == [
        ["AP, 300 an image", "all", "0.230", "0.330", change],
        ["AP, 300 an image", "head", "0.231", "0.331", change],
        ["AP, 300 an image", "medium", "0.232", "0.332", change],
        ["AP, 300 an image", "tail", "-", "-", "-"],
    ]
    assert cells(text, "AP, 30 an image")[1] == ["AP, 30 an image", "head", "0.204", "0.304", change]
    assert len(cells(text, "AP")) == 3 * 4
    precision = ["precision at 0.25", "all", "0.700", "0.600", "-0.100 [-0.200, +0.010]"]
    assert cells(text, "precision")[0] == precision
    assert cells(text, "recall")[0] == ["recall at 0.25", "all", "0.400", "0.500", change]
    assert cells(text, "F1")[3] == ["F1 at 0.25", "tail", "0.510", "0.550", "-"]
    assert [c[1:] for c in cells(text, "calibration error")] == [
        ["all", "0.120", "0.080"],
        ["head", "0.120", "0.080"],
        ["medium", "0.120", "0.080"],
        ["tail", "0.120", "-"],
    ]
    assert "at thresholds" not in text
    last = text.splitlines()[-1]
    assert last.startswith("split val, 77 images, protocol coco")
    assert last.endswith("95 % intervals from 100 image resamples")


def test_thresholds_have_rows_of_their_own():
    text = calibration_text(content(thresholds=True))
    change = "+0.100 [+0.050, +0.150]"
    assert cells(text, "F1 at thresholds") == [["F1 at thresholds", s, "0.520", "0.530", change] for s in SETS]
    assert len(cells(text, "F1 at 0.25")) == 4


def test_without_resamples_there_are_no_intervals():
    text = calibration_text({**content(), "val": on_val(bootstrap=0)})
    assert cells(text, "AP, 100 an image")[0][-1] == "+0.100"
    assert "interval" not in text
    assert "[" not in text


def test_the_text_of_a_file_that_was_read_again_is_the_same():
    whole = content(thresholds=True)
    assert calibration_text(json.loads(json.dumps(whole))) == calibration_text(whole)


@pytest.mark.parametrize("method", ["norcal", "temperature"])
def test_the_calibration_plot_is_a_picture_with_both_sides_drawn(tmp_path, method):
    path = calibration_plot(tmp_path / "calibration.png", content(method))
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.png"]
    image = cv2.imread(str(path))
    assert image.shape[1] > 1200
    half = image.shape[1] // 2
    for side in (image[:, :half], image[:, half:]):
        assert (side < 250).any(axis=2).mean() > 0.01


def coloured(path):
    """Pixels that are not grey."""
    image = cv2.imread(str(path)).astype(int)
    return int((np.ptp(image, axis=2) > 60).sum())


def test_the_plot_draws_a_line_per_budget(tmp_path):
    three = content()
    one = copy.deepcopy(three)
    for point in one["holdout"]["curve"]:
        point["ap"] = dict.fromkeys(point["ap"], 0.3)  # one upon the other
    assert coloured(calibration_plot(tmp_path / "three.png", three)) > 1.2 * coloured(
        calibration_plot(tmp_path / "one.png", one)
    )


def test_the_plot_draws_every_class_of_a_bin(tmp_path):
    few = content()
    many = copy.deepcopy(few)
    many["classes"] += [
        {**few["classes"][2], "train_images": n, "shift": n / 5} for n in (2, 3, 4, 5, 6, 8, 10, 12, 14, 16)
    ]
    assert coloured(calibration_plot(tmp_path / "many.png", many)) > 200 + coloured(
        calibration_plot(tmp_path / "few.png", few)
    )


def test_a_bin_without_a_class_and_a_class_that_stays_are_drawn(tmp_path):
    alone = content()
    alone["classes"] = class_rows(("cat",), Bins.from_dict({"head": [0]}, "given"), COUNTS[1:2], None, None)
    image = cv2.imread(str(calibration_plot(tmp_path / "one.png", alone)))
    assert (image < 250).any(axis=2).mean() > 0.01


def report(conf=0.25):
    box, far = [0, 0, 9, 9], [50, 50, 9, 9]
    gt = {
        "images": [{"id": i} for i in range(4)],
        "categories": [{"id": c, "name": f"c{c}"} for c in range(3)],
        "annotations": [{"image_id": i, "category_id": c, "bbox": box} for i in range(4) for c in (0, 1)],
    }
    dets = [{"image_id": i, "category_id": 0, "bbox": box, "score": 0.9} for i in range(4)]
    dets += [{"image_id": i, "category_id": 0, "bbox": far, "score": 0.4} for i in range(2)]
    dets += [{"image_id": 0, "category_id": 1, "bbox": box, "score": 0.1}]
    bins = {"head": [0], "medium": [1], "tail": [2]}
    return evaluate(gt, dets, bins=bins, bootstrap=0, conf=conf).to_json()


def test_the_operating_table_shows_rates_and_calibration_errors():
    text = show(operating(report()))
    first, header, *rows = text.splitlines()
    assert first == (
        "at confidence 0.25, IoU 0.5; ECE: expected calibration error from confidence 0.05; "
        "IoU: mean of right detections"
    )
    assert header.split() == ["bin", "shown", "precision", "recall", "F1", "ECE", "IoU"]
    assert [row.split() for row in rows] == [
        ["all", "6", "0.667", "0.500", "0.571", "0.300", "1.000"],  # (4 * 0.1 + 2 * 0.4 + 0.9) / 7
        ["head", "6", "0.667", "1.000", "0.800", "0.200", "1.000"],
        ["medium", "0", "-", "0.000", "0.000", "0.900", "1.000"],
        ["tail", "0", "-", "-", "-", "-", "-"],
    ]
    assert "\n\n" + text + "\n\n" in report_text(report())


def test_the_operating_table_at_thresholds():
    text = show(operating(report(conf=np.array([0.5, 0.05, 1]))))
    assert text.startswith("at the thresholds of each class, IoU 0.5")
    assert cells(text, "head")[0][1:5] == ["4", "1.000", "1.000", "1.000"]
    assert cells(text, "medium")[0][1:5] == ["1", "1.000", "0.250", "0.400"]


def test_the_operating_table_shows_only_bins_that_there_are():
    whole = report()
    for key in ("metrics", "operating_point", "calibration"):
        whole[key] = {**whole[key], "head": None, "medium": None, "tail": None}
    assert [row[0] for row in cells(show(operating(whole)), ("all", *SETS))] == ["all"]
