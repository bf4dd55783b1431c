import contextlib
import copy
import io

import numpy as np
import pytest
from coco_oracle import cases, dataset, random_case, results
from hypothesis import given, settings
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo_lt.evaluate import evaluate

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
AREAS = ("small", "medium", "large")
BINS = {"head": [1, 2], "medium": [3], "tail": [4, 5]}


def coco_eval(gt, dets):
    """COCOeval with its own ranges of areas and caps, after summarize."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(gt)
        truth.createIndex()
        found = truth.loadRes(copy.deepcopy(dets))
        e = COCOeval(truth, found, "bbox")
        e.evaluate()
        e.accumulate()
        e.summarize()
    return e


def report_of(gt, dets, **keys):
    return evaluate(gt, dets, bootstrap=0, explain=False, **keys).to_json()


def twelve(report, name="all"):
    row, areas, fewer = report["metrics"][name], report["areas"], report["recall_by_cap"]
    values = [row["AP"], row["AP50"], row["AP75"], *(areas[a][name]["AP"] for a in AREAS)]
    return [*values, fewer["1"][name], fewer["10"][name], row["AR"], *(areas[a][name]["AR"] for a in AREAS)]


def assert_twelve(ours, theirs):
    """-1 is pycocotools' word for no ground truth."""
    for name, a, b in zip(NAMES, ours, theirs, strict=True):
        assert a == (None if b == -1 else pytest.approx(b, abs=1e-12)), name


def mean(values):
    return pytest.approx(values.mean(), abs=1e-12) if values.size else None


def many_sizes(seed):
    """Boxes from 10 to 200 pixels, a tenth of them crowds, and areas as of masks: a part of the box."""
    gt, dets = random_case(seed, images=25, per_image=50, classes=5, boxes=9, crowd=0.1)
    rng = np.random.default_rng(seed)
    scale = dict(zip(range(1, 26), np.exp(rng.uniform(np.log(0.8), np.log(6), 25)), strict=True))
    for row in (*gt["annotations"], *dets):
        row["bbox"] = (np.array(row["bbox"]) * scale[row["image_id"]]).tolist()
    for a in gt["annotations"]:
        a["area"] = a["bbox"][2] * a["bbox"][3] * rng.uniform(0.3, 1)
    return gt, dets


@pytest.mark.parametrize("seed", range(4))
def test_all_twelve_numbers_equal_those_of_pycocotools(seed):
    gt, dets = many_sizes(seed)
    report = report_of(gt, dets)
    ours = twelve(report)
    assert_twelve(ours, coco_eval(gt, dets).stats)
    assert len(set(ours)) == 12
    boxed = [{**a, "area": a["bbox"][2] * a["bbox"][3]} for a in gt["annotations"]]
    assert report_of({**gt, "annotations": boxed}, dets)["areas"] != report["areas"]


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_all_twelve_numbers_equal_those_of_pycocotools_on_generated_cases(case):
    gt, dets = case
    theirs = coco_eval(gt, dets).stats if dets else [0 if v is not None else -1 for v in twelve(report_of(gt, dets))]
    assert_twelve(twelve(report_of(gt, dets)), theirs)


def test_the_values_of_a_bin_are_means_over_its_classes():
    gt, dets = many_sizes(7)
    gt["annotations"] = [a for a in gt["annotations"] if a["category_id"] != 4]
    report, e = report_of(gt, dets, bins=BINS), coco_eval(gt, dets).eval
    for name, classes in {"all": range(1, 6), **BINS}.items():
        k = np.array(classes) - 1
        for area, at in (("small", 1), ("medium", 2), ("large", 3)):
            precision, recall = e["precision"][:, :, k, at, 2], e["recall"][:, k, at, 2]
            counted = recall[0] > -1
            row = report["areas"][area][name]
            assert row["AP"] == mean(precision[:, :, counted])
            assert row["AR"] == mean(recall[:, counted])
            assert (row["n_classes"], row["n_evaluated"]) == (len(k), counted.sum())
        for cap, at in (("1", 0), ("10", 1)):
            recall = e["recall"][:, k, 0, at]
            assert report["recall_by_cap"][cap][name] == mean(recall[:, recall[0] > -1])
    assert [report["areas"][a]["tail"]["n_evaluated"] for a in AREAS] == [1, 1, 0]
    assert report["areas"]["medium"]["head"]["AP"] is not None


def test_the_ground_truth_of_a_range_is_what_its_areas_say():
    sides = {"small": (10, 32), "medium": (33, 96), "large": (97, 500)}  # 32 and 96 themselves are in two ranges
    anns = [(1, 1, (0, 200 * n, s, s)) for n, s in enumerate(s for pair in sides.values() for s in pair)]
    anns.append((1, 1, (0, 3000, 500, 500), {"area": 50, "iscrowd": 0}))
    areas = report_of(dataset(anns), [])["areas"]
    assert {a: areas[a]["all"]["n_gt"] for a in AREAS} == {"small": 3, "medium": 3, "large": 3}


def test_a_detection_of_another_size_is_wrong_only_within_its_own_range():
    box, stray = (0, 0, 20, 20), (300, 300, 50, 50)
    gt, dets = dataset([(1, 1, box)]), results((1, 1, stray, 0.9), (1, 1, box, 0.8))
    report = report_of(gt, dets)
    assert [report["metrics"]["all"]["AP"], report["areas"]["small"]["all"]["AP"]] == pytest.approx([0.5, 1])
    assert [report["areas"][a]["all"]["AP"] for a in ("medium", "large")] == [None, None]


def test_the_best_detections_are_counted_per_image_and_class():
    box, other = (0, 0, 20, 20), (100, 100, 20, 20)
    gt = dataset([(i, c, b) for i in (1, 2) for c in (1, 2) for b in (box, other)], (1, 2), (1, 2))
    dets = results(*[(i, c, b, s) for i in (1, 2) for c in (1, 2) for b, s in ((box, 0.9), (other, 0.2 * i))])
    report = report_of(gt, dets, bins={"head": [1], "tail": [2]})
    assert report["recall_by_cap"] == {
        "1": {"all": 0.5, "head": 0.5, "medium": None, "tail": 0.5},
        "10": {"all": 1, "head": 1, "medium": None, "tail": 1},
    }


def test_without_bins_only_all_has_values_and_other_protocols_have_no_recall_by_cap():
    gt, dets = many_sizes(1)
    report = report_of(gt, dets)
    assert list(report["areas"]["small"]) == ["all", "head", "medium", "tail"]
    assert [report["areas"]["small"][name] for name in BINS] == [None] * 3
    assert list(report["recall_by_cap"]["1"]) == ["all"]
    for image in gt["images"]:
        image["neg_category_ids"] = image["pos_category_ids"] = []
    assert report_of(gt, dets, protocol="lvis")["recall_by_cap"] is None
    assert report_of(gt, dets, protocol="lvis")["areas"] is not None
    assert report_of(gt, dets, protocol="openimages")["areas"] is None
