import dataclasses
import logging
from importlib import metadata

import lvis
import numpy as np
import pytest
from coco_oracle import dataset
from coco_oracle import random_case as coco_case
from lvis_oracle import federated, lvis_arrays, random_case, results

from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate import official
from yolo_lt.evaluate.arrays import take
from yolo_lt.evaluate.official import check_official, compare_official
from yolo_lt.evaluate.protocols import PROTOCOLS
from yolo_lt.evaluate.read import read_detections, read_ground_truth

BOX = (10, 10, 20, 20)
MARKS = ({"ignore": 1}, {"iscrowd": 1}, {"area": 0}, {"area": 2000.5})
COMPUTED = ("coco", "lvis", "lvis_fixed")
PACKAGES = {"coco": "pycocotools", "lvis": "lvis", "lvis_fixed": "lvis"}
KEYS = ["package", "version", "AP", "AP50", "AP75", "AR", "largest_difference"]


def compared(protocol, gt, dets, max_det=None):
    truth = read_ground_truth(gt)
    cap = PROTOCOLS[protocol].cap if max_det is None else max_det
    return compare_official(protocol, truth, read_detections(dets, truth), cap)


@pytest.mark.parametrize("protocol", COMPUTED)
@pytest.mark.parametrize("max_det", [3, 20, None])
@pytest.mark.parametrize("seed", range(3))
def test_the_package_and_we_say_the_same(protocol, max_det, seed):
    found = compared(protocol, *random_case(seed, images=20, per_image=320, stray=0.7, marks=MARKS), max_det)
    assert list(found) == KEYS
    assert found["package"] == PACKAGES[protocol]
    assert found["largest_difference"] <= 1e-12
    assert 0 < found["AP75"] < found["AP50"] <= 1
    assert 0 < found["AP"] < found["AR"] <= 1


def test_no_cap_is_no_cap_for_pycocotools_either():
    gt, dets = coco_case(2, images=5, per_image=150, classes=1)
    whole, hundred = compared("coco", gt, dets, 0), compared("coco", gt, dets, 100)
    assert (whole["largest_difference"], hundred["largest_difference"]) == (0, 0)
    assert whole["AR"] > hundred["AR"]


def test_the_means_are_those_of_the_package_and_the_version_is_the_installed_one():
    gt, dets = random_case(4, images=20)
    precision, recall = (a[..., 0] for a in lvis_arrays(gt, dets))
    found = compared("lvis", gt, dets)
    cells = {"AP": precision, "AP50": precision[0], "AP75": precision[5], "AR": recall}
    assert {k: found[k] for k in cells} == {k: pytest.approx(a[a > -1].mean(), abs=1e-12) for k, a in cells.items()}
    assert found["version"] == metadata.version("lvis")


@pytest.mark.parametrize("protocol", COMPUTED)
def test_a_mistake_of_ours_is_reported(protocol, monkeypatch):
    gt, dets = random_case(1, images=10)
    whole = compared(protocol, gt, dets)
    right = official.run

    def without_the_best(name, truth, found, max_det):
        return right(name, truth, take(found, np.argsort(-found.score)[40:]), max_det)

    monkeypatch.setattr(official, "run", without_the_best)
    broken = compared(protocol, gt, dets)
    assert whole["largest_difference"] <= 1e-12 < 0.01 < broken["largest_difference"]
    assert {k: broken[k] for k in KEYS[:-1]} == {k: whole[k] for k in KEYS[:-1]}


@pytest.mark.parametrize("protocol", COMPUTED)
def test_a_mistake_in_recall_alone_is_reported(protocol, monkeypatch):
    right = official.precision_recall
    monkeypatch.setattr(official, "precision_recall", lambda m: (right(m)[0], right(m)[1] + 0.125))
    assert compared(protocol, *random_case(1))["largest_difference"] == pytest.approx(0.125)


@pytest.mark.parametrize("protocol", ["lvis", "lvis_fixed"])
def test_numpy_is_left_as_it_was(protocol, monkeypatch):
    assert not hasattr(np, "float")
    compared(protocol, *random_case(0))
    assert not hasattr(np, "float")

    def fail(self):
        assert np.float is float
        raise ZeroDivisionError("out of luck")

    monkeypatch.setattr(lvis.LVISEval, "accumulate", fail)
    with pytest.raises(LTError, match=r"official=true: lvis failed \(ZeroDivisionError: out of luck\)"):
        compared(protocol, *random_case(0))
    assert not hasattr(np, "float")


def test_a_float_that_somebody_else_gave_numpy_stays(monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)
    compared("lvis", *random_case(0))
    assert np.float is float


def test_a_failure_of_pycocotools_is_named(monkeypatch):
    monkeypatch.setattr("pycocotools.cocoeval.COCOeval.accumulate", lambda self: [][0])
    with pytest.raises(LTError, match=r"official=true: pycocotools failed \(IndexError") as e:
        compared("coco", *random_case(0))
    assert e.value.exit_code == 1


def test_nothing_is_printed_or_logged(capfd, caplog):
    with caplog.at_level(logging.INFO, "lvis"):
        for protocol in COMPUTED:
            compared(protocol, *random_case(0))
        assert logging.getLogger("lvis").level == logging.INFO
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("protocol", ["openimages", "lvis_pool"])
def test_a_protocol_that_no_package_computes_is_refused_and_those_that_one_does_are_named(protocol):
    with pytest.raises(UsageError, match=r"no package computes protocol=.*coco \(pycocotools\), lvis \(lvis\)") as e:
        compared(protocol, *random_case(0))
    assert f"protocol={protocol};" in str(e.value)
    with pytest.raises(UsageError):
        check_official(protocol)
    check_official(protocol, wanted=False)


@pytest.mark.parametrize("protocol", COMPUTED)
def test_turned_boxes_are_refused(protocol):
    truth = read_ground_truth(random_case(0)[0])
    turned = dataclasses.replace(truth, angle=np.full(len(truth.cls), 0.1))
    with pytest.raises(UsageError, match="turned boxes"):
        compare_official(protocol, turned, read_detections([], turned), 100)
    check_official(protocol, wanted=False, turned=True)
    check_official(protocol)


@pytest.mark.parametrize("protocol", COMPUTED)
def test_image_ids_may_be_text(protocol):
    gt, dets = random_case(2, images=15, marks=MARKS)
    numbered = compared(protocol, gt, dets)
    for row in (*gt["annotations"], *dets):
        row["image_id"] = f"{row['image_id']:03}.jpg"
    for row in gt["images"]:
        row["id"] = f"{row['id']:03}.jpg"
    assert compared(protocol, gt, dets) == numbered
    assert numbered["largest_difference"] <= 1e-12


def test_category_ids_may_be_anything_and_without_letters():
    gt, dets = random_case(2, images=15)
    expected = compared("lvis", gt, dets)
    for row in (*gt["annotations"], *dets):
        row["category_id"] = row["category_id"] * 7 - 21
    for row in gt["categories"]:
        row["id"] = row["id"] * 7 - 21
        del row["frequency"]
    for row in gt["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            row[key] = [c * 7 - 21 for c in row[key]]
    assert compared("lvis", gt, dets) == expected


@pytest.mark.parametrize("protocol", COMPUTED)
def test_without_detections_both_say_zero(protocol):
    found = compared(protocol, federated([(1, 1, BOX), (2, 1, BOX)], [(1, 2)]), [])
    assert {found[k] for k in KEYS[2:]} == {0}


@pytest.mark.parametrize("mark", [{"ignore": 1}, {"area": 0}, {"area": 1e11}])
@pytest.mark.parametrize("protocol", COMPUTED)
def test_without_detections_a_class_whose_boxes_do_not_count_is_in_no_mean(protocol, mark):
    found = compared(protocol, federated([(1, 1, BOX), (1, 2, BOX, mark)]), [])
    assert (found["AP"], found["largest_difference"]) == (0, 0)


@pytest.mark.parametrize("protocol", COMPUTED)
@pytest.mark.parametrize("dets", [[], results((1, 1, BOX, 0.9))])
def test_without_ground_truth_both_say_nothing(protocol, dets):
    found = compared(protocol, federated([], [(1, 1)]), dets)
    assert [found[k] for k in KEYS[2:]] == [None, None, None, None, 0]


@pytest.mark.parametrize("protocol", COMPUTED)
def test_without_images_and_categories_there_is_no_difference(protocol):
    gt = {**federated([], images=(), classes=()), "images": []}
    truth = dataclasses.replace(read_ground_truth(gt), negative=np.zeros(0, int))
    found = compare_official(protocol, truth, read_detections([], truth), 10)
    assert (found["AP"], found["largest_difference"]) == (None, 0)


def test_crowds_and_the_areas_of_masks_are_pycocotools_too():
    anns = [(1, 1, (0, 0, 50, 50), {"iscrowd": 1}), (1, 1, BOX, {"area": 1e11}), (1, 1, (30, 30, 9, 9))]
    dets = results((1, 1, (5, 5, 9, 9), 0.9), (1, 1, BOX, 0.8), (1, 1, (30, 30, 9, 9), 0.7), (1, 8, BOX, 0.9))
    found = compared("coco", dataset(anns), dets)
    assert found["AP"] == pytest.approx(1)
    assert found["largest_difference"] == 0
