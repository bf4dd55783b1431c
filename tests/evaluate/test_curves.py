import json

import lvis_oracle
import numpy as np
import pytest
from coco_oracle import coco_arrays, dataset, random_case, results

from yolo_lt.evaluate import evaluate

BOX, NEXT, THIRD, AWAY = (10, 10, 20, 20), (60, 10, 20, 20), (110, 10, 20, 20), (200, 200, 20, 20)
ROWS = ("all", "head", "medium", "tail")
BINS = {"head": [1, 4], "medium": [2], "tail": [3, 5, 6]}


def report_of(gt, dets, protocol="coco", bins=None):
    report = evaluate(gt, dets, protocol, bins, bootstrap=0, explain=False).to_json()
    return json.loads(json.dumps(report, allow_nan=False))


def steps(*runs):
    """A curve from pairs (points, precision)."""
    return [precision for points, precision in runs for _ in range(points)]


def two_classes():
    """Class 1 is right, wrong, right on three boxes; class 2 has a wrong detection above the right one; 3 no box."""
    gt = dataset([(1, 1, BOX), (1, 1, NEXT), (1, 1, THIRD), (1, 2, BOX)], categories=(1, 2, 3))
    dets = results((1, 1, BOX, 0.9), (1, 1, AWAY, 0.8), (1, 1, NEXT, 0.7), (1, 2, AWAY, 0.9), (1, 2, BOX, 0.8),
                   (1, 3, BOX, 0.9))  # fmt: skip
    return gt, dets


def test_curves_by_hand():
    report = report_of(*two_classes(), bins={"head": [1], "medium": [2], "tail": [3]})
    keys = list(report)
    assert keys[keys.index("areas") + 1] == "curves"
    found = report["curves"]
    assert list(found) == ["iou", "recall", *ROWS]
    assert found["iou"] == 0.5
    assert found["recall"] == [round(i / 100, 2) for i in range(101)]
    assert found["head"] == steps((34, 1), (33, 0.6667), (34, 0))  # recall 1/3 reaches 0.33, 2/3 reaches 0.66
    assert found["medium"] == [0.5] * 101
    assert found["all"] == steps((34, 0.75), (33, 0.5833), (34, 0.25))  # class 3 is in no mean
    assert found["tail"] is None


def test_the_iou_is_one_half_whatever_the_protocol_averages_over():
    gt = dataset([(1, 1, BOX)])
    for height, precision in ((10.1, 1), (9.9, 0)):  # IoU 0.505 and 0.495
        found = report_of(gt, results((1, 1, (10, 10, 20, height), 0.9)))["curves"]
        assert found["all"] == [precision] * 101


@pytest.mark.parametrize("seed", range(3))
def test_every_bin_is_the_mean_of_the_curves_of_pycocotools(seed):
    gt, dets = random_case(seed, images=30, per_image=15, classes=6)
    found = report_of(gt, dets, bins=BINS)["curves"]
    theirs = coco_arrays(gt, dets, 100)[0][0]  # (R, K)
    for name, classes in {"all": range(1, 7), **BINS}.items():
        expected = theirs[:, [c - 1 for c in classes]].mean(axis=1)
        np.testing.assert_allclose(found[name], expected, atol=5.001e-5, rtol=0)
    assert len(set(found["tail"])) > 5


@pytest.mark.parametrize("protocol", ["coco", "lvis", "lvis_fixed", "lvis_pool"])
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_of_a_curve_is_ap50(protocol, seed):
    """The last class of the case has no box; crowds and ignored boxes are among the others'."""
    gt, dets = lvis_oracle.random_case(seed, per_image=60, marks=({"ignore": 1}, {"area": 0}, {"iscrowd": 1}))
    report = report_of(gt, dets, protocol, BINS)
    for name in ROWS:
        curve, row = report["curves"][name], report["metrics"][name]
        assert len(curve) == 101
        assert np.mean(curve) == pytest.approx(row["AP50"], abs=1e-4)
        assert 0 < row["AP50"] < 1
        assert curve == sorted(curve, reverse=True)


def test_the_curve_of_ap_pool_is_that_of_the_pooled_classes():
    """Right at 0.9, wrong at 0.6 and right at 0.3, of two classes; each alone has a perfect curve."""
    gt = lvis_oracle.federated([(1, 1, BOX), (1, 2, BOX)])
    dets = results((1, 2, BOX, 0.9), (1, 2, AWAY, 0.6), (1, 1, BOX, 0.3))
    bins = {"head": [1, 2]}
    for name in ("all", "head"):
        assert report_of(gt, dets, "lvis_pool", bins)["curves"][name] == steps((51, 1), (50, 0.6667))
        assert report_of(gt, dets, "lvis_fixed", bins)["curves"][name] == [1] * 101


def test_open_images_reads_ap_at_other_recalls_than_the_curve_shows():
    gt = lvis_oracle.federated([(1, 1, BOX), (1, 1, NEXT), (1, 1, THIRD)])
    dets = results((1, 1, BOX, 0.9), (1, 1, AWAY, 0.8), (1, 1, NEXT, 0.7))
    report = report_of(gt, dets, "openimages")
    assert report["curves"]["all"] == steps((34, 1), (33, 0.6667), (34, 0))
    assert report["metrics"]["all"]["AP50"] == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert np.mean(report["curves"]["all"]) == pytest.approx(5 / 9, abs=0.01)


def test_bins_without_ground_truth_and_bins_nobody_asked_for_are_null():
    gt, dets = two_classes()
    assert [report_of(gt, dets)["curves"][name] is None for name in ROWS] == [False, True, True, True]
    letterless = report_of(gt, dets, bins={"head": [1, 2], "tail": [3]})["curves"]
    assert [letterless[name] is None for name in ROWS] == [False, False, True, True]
    gt["annotations"] = []
    empty = report_of(gt, dets, bins=BINS | {"head": [1], "tail": [3]})["curves"]
    assert [empty[name] for name in ROWS] == [None] * 4
    assert len(empty["recall"]) == 101
    nothing = report_of({"images": [], "categories": [], "annotations": []}, [])["curves"]
    assert [nothing[name] for name in ROWS] == [None] * 4


def test_a_class_that_nothing_found_is_zero_and_lowers_the_mean():
    gt, dets = two_classes()
    assert report_of(gt, [])["curves"]["all"] == [0] * 101
    assert report_of(gt, dets[:3])["curves"]["all"] == steps((34, 0.5), (33, 0.3333), (34, 0))
