"""The experiment with hidden labels hides what it says and nothing else."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from yolo_lt.dataset import frequency_bins
from yolo_lt.evaluate import Matches
from yolo_lt.ultra import labels
from yolo_lt.ultra.federated import read_index

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_masks

    yield compare_masks
    for name in ("compare_masks", "compare_recipes"):
        sys.modules.pop(name, None)


def read(data_yaml):
    data = labels.load_data(data_yaml)
    scan = labels.scan(data, "train")
    return data, scan, {Path(f).name: x for f, x in zip(scan.im_files, scan.labels, strict=True)}


def test_every_second_class_is_hidden_in_half_of_its_images(script, toy, tmp_path):
    out, sets = script.hidden(str(toy), tmp_path / "data")
    assert sets["hidden"].tolist() == [1]
    assert sets["not hidden"].tolist() == [0, 2]
    data, scan, after = read(out)
    _, whole, before = read(toy)
    assert after.keys() == before.keys()
    partial = {Path(f).name for f in scan.im_files if "partial" in f}
    holding = {name for name, x in before.items() if 1 in x["cls"]}
    assert len(holding & partial) == len(holding) / 2
    for name, label in after.items():
        keep = np.isin(before[name]["cls"][:, 0], [0, 2] if name in partial else [0, 1, 2])
        np.testing.assert_allclose(label["bboxes"], before[name]["bboxes"][keep], atol=1e-5)
        np.testing.assert_array_equal(label["cls"], before[name]["cls"][keep])
    assert {p.name for p in Path(data["val"]).glob("*.png")} == {p.name for p in (toy.parent / "images/val").iterdir()}
    index, _ = read_index(scan.im_files, labels.stats_of(scan.labels, data), data, "auto")
    known = {
        Path(f).name: index.negative_weights(r, 0.0).tolist() for f, r in zip(scan.im_files, index.row, strict=True)
    }
    assert all(known[name] == ([1, 0, 1] if name in partial else [1, 1, 1]) for name in known)
    bins = frequency_bins(labels.stats_of(whole.labels, data).image_counts)
    assert sets["hidden, medium"].tolist() == np.intersect1d([1], bins.medium).tolist()
    again = Path(out).read_text()
    assert script.hidden(str(toy), tmp_path / "data")[0] == out
    assert Path(out).read_text() == again
    assert yaml.safe_load(again)["known_classes"] == {"whole/images": "all", "partial/images": ["alpha", "gamma"]}


def test_the_operating_point_counts_boxes_of_the_classes_at_the_confidence(script):
    right = np.array([1, 1, 0, 1, 1], bool)[:, None].repeat(10, 1)
    matches = Matches(
        image=np.array([0, 1, 1, 0, 1]),
        cls=np.array([0, 0, 0, 1, 1]),
        score=np.array([0.9, 0.3, 0.25, 0.2, 0.8]),
        tp=right,
        ignore=np.zeros((5, 10), bool),
        iou=np.ones(5),
        gt_image=np.array([0, 1, 1]),
        gt_class=np.array([0, 0, 1]),
        gt_count=np.array([3, 1, 2]),
        image_ids=np.arange(2),
        category_ids=np.arange(2),
        iou_thresholds=np.linspace(0.5, 0.95, 10),
        max_det=100,
    )
    weights = [np.ones(2), np.array([0, 2])]
    recall, precision = script.operating_point(matches, np.array([0]), weights)
    assert recall.tolist() == [2 / 4, 1]
    assert precision.tolist() == [2 / 3, 1 / 2]
    recall, precision = script.operating_point(matches, np.array([0, 1]), weights)
    assert recall.tolist() == [3 / 6, 2 / 3]
    assert precision.tolist() == [3 / 4, 2 / 3]
