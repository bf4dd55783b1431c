"""The federated protocol against the numbers of lvis-api on a hundred real images."""

import json

import numpy as np
import pytest

from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.binned import bins_of_rule
from yolo_lt.evaluate.read import read_detections, read_ground_truth

pytestmark = pytest.mark.realdata
BINS = {"all": "all", "rare": "tail", "common": "medium", "frequent": "head"}
METRICS = ("AP", "AP50", "AP75", "AR")


def close(value):
    """-1 is lvis-api's word for no ground truth."""
    return None if value == -1 else pytest.approx(value, abs=1e-9, rel=0)


@pytest.fixture(scope="module")
def real(shared):
    folder = shared / "evaldata"
    if not (folder / "lvis_val_100.json").is_file():
        pytest.skip(f"no LVIS images at {folder}")
    gt = read_ground_truth(folder / "lvis_val_100.json")
    expected = json.loads((folder / "lvis_val_100_expected.json").read_text())
    return gt, read_detections(folder / "lvis_val_100_dets.json", gt), expected


@pytest.fixture(scope="module")
def report(real):
    return evaluate(*real[:2], protocol="lvis", bootstrap=0, explain=False).to_json()


def test_the_summary_equals_lvis_api(real, report):
    theirs, metrics, areas = real[2]["lvis_summary"], report["metrics"], report["areas"]
    ours = {k: metrics["all"][k] for k in ("AP", "AP50", "AP75")} | {"AR@300": metrics["all"]["AR"]}
    ours |= {f"AP{BINS[name][0] if name == 'all' else name[0]}": metrics[BINS[name]]["AP"] for name in list(BINS)[1:]}
    for area in ("small", "medium", "large"):
        ours |= {f"AP{area[0]}": areas[area]["all"]["AP"], f"AR{area[0]}@300": areas[area]["all"]["AR"]}
    assert ours == {name: close(value) for name, value in theirs.items()}


@pytest.mark.parametrize("name", BINS)
def test_every_bin_equals_lvis_api_and_says_over_how_many_classes(real, report, name):
    theirs, ours = real[2]["bins"][name], report["metrics"][BINS[name]]
    assert {k: ours[k] for k in METRICS} == {k: close(theirs[k]) for k in METRICS}
    assert (ours["n_classes"], ours["n_evaluated"]) == (theirs["n_categories"], theirs["n_evaluated"])
    assert ours["n_evaluated"] == {"all": 190, "rare": 1, "common": 30, "frequent": 159}[name]


@pytest.mark.parametrize("name", ["image_count_lt20_20-500_ge500", "image_count_lt100_ge100"])
def test_bins_of_our_own_borders_equal_lvis_api(real, name):
    gt, dets, expected = real
    parts = dict(zip(("tail", "medium", "head"), expected["custom_bins"][name], strict=False))
    lists = {
        part: gt.category_ids[(gt.image_counts >= v["lo"]) & (gt.image_counts < v["hi"])] for part, v in parts.items()
    }
    metrics = evaluate(gt, dets, protocol="lvis", bins=lists, bootstrap=0, explain=False).to_json()["metrics"]
    for part, theirs in parts.items():
        assert {k: metrics[part][k] for k in METRICS} == {k: close(theirs[k]) for k in METRICS}
        sizes = (metrics[part]["n_classes"], metrics[part]["n_evaluated"])
        assert sizes == (theirs["n_categories"], theirs["n_evaluated"])


def test_bins_by_two_numbers_are_means_of_the_categories_of_lvis_api(real):
    gt, dets, expected = real
    bins = bins_of_rule((1, 4), gt)
    metrics = evaluate(gt, dets, protocol="lvis", bins=bins, bootstrap=0, explain=False).to_json()["metrics"]
    counts = dict(zip(gt.category_ids.tolist(), gt.image_counts.tolist(), strict=True))
    for name, low, high in (("tail", 1, 1), ("medium", 2, 4), ("head", 5, 1e9)):
        theirs = [v for c, v in expected["per_category"].items() if low <= counts[int(c)] <= high]
        assert metrics[name]["n_evaluated"] == len(theirs) >= 5
        for key in ("AP", "AP50", "AP75"):
            assert metrics[name][key] == close(np.mean([v[key] for v in theirs]))


def test_every_category_equals_lvis_api(real, report):
    theirs, letters = real[2]["per_category"], {"f": "head", "c": "medium", "r": "tail"}
    evaluated = {str(row["id"]): row for row in report["per_class"] if row["n_gt"]}
    assert set(evaluated) == set(theirs)
    for c, value in theirs.items():
        assert {k: evaluated[c][k] for k in METRICS[:3]} == {k: close(value[k]) for k in METRICS[:3]}
        assert evaluated[c]["bin"] == letters[value["frequency"]]
    assert {row["AP"] for row in report["per_class"] if not row["n_gt"]} == {None}


def test_without_the_federated_lists_the_same_detections_have_another_ap(real, report):
    gt, dets, _ = real
    plain = evaluate(gt, dets, protocol="coco", max_det=300, bootstrap=0, explain=False).to_json()
    assert plain["metrics"]["all"]["AP"] < report["metrics"]["all"]["AP"] - 0.05
