from dataclasses import fields

import numpy as np
import pytest
from coco_oracle import cases, coco_arrays, dataset, matches_of, random_case, results
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.evaluate.arrays import Detections
from yolo_lt.evaluate.budget import BUDGETS, budget_matches, within_budget
from yolo_lt.evaluate.matching import Matches, match
from yolo_lt.evaluate.metrics import class_metrics, precision_recall
from yolo_lt.evaluate.read import read_detections, read_ground_truth

BOX = (10, 10, 20, 20)


def cut(dets, per_image):
    """The best rows of every image in plain Python; sorted() keeps the order of equals."""
    by_image = {}
    for row in dets:
        by_image.setdefault(row["image_id"], []).append(row)
    return [r for i in sorted(by_image) for r in sorted(by_image[i], key=lambda r: -r["score"])[:per_image]]


def assert_same(ours, expected, kind):
    for f in fields(kind):
        np.testing.assert_array_equal(getattr(ours, f.name), getattr(expected, f.name), err_msg=f.name)


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(1, 12))
def test_the_best_of_every_image_stay_whatever_their_class(case, per_image):
    gt, dets = case
    truth = read_ground_truth(gt)
    ours = within_budget(read_detections(dets, truth), per_image)
    assert_same(ours, read_detections(cut(dets, per_image), truth), Detections)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 6), st.sampled_from([0, 1, 3, 100]))
def test_matches_within_a_budget_are_those_of_the_cut_list(case, per_image, max_det):
    gt, dets = case
    truth = read_ground_truth(gt)
    ours = match(truth, within_budget(read_detections(dets, truth), per_image), max_det)
    assert_same(ours, matches_of(gt, cut(dets, per_image), max_det), Matches)


def test_equal_scores_stay_in_their_order():
    dets = Detections(
        image=np.array([1, 0, 1, 1, 0, 1]),
        cls=np.array([5, 4, 3, 2, 1, 0]),
        box=np.arange(24.0).reshape(6, 4),
        score=np.array([0.5, 0.2, 0.5, 0.9, 0.2, 0.5]),
    )
    kept = within_budget(dets, 2)
    assert kept.image.tolist() == [0, 0, 1, 1]
    assert kept.cls.tolist() == [4, 1, 2, 5]
    assert kept.box[:, 0].tolist() == [4, 16, 12, 0]
    assert within_budget(dets, 3).cls.tolist() == [4, 1, 2, 5, 3]


@pytest.mark.parametrize("per_image", [30, 31, 10**9])
def test_a_budget_that_nothing_exceeds_changes_no_metric(per_image):
    gt, dets = random_case(0, images=20, per_image=30, classes=4)
    truth = read_ground_truth(gt)
    found = read_detections(dets, truth)
    kept = within_budget(found, per_image)
    assert len(kept.score) == len(dets)
    assert_same(match(truth, kept), match(truth, found), Matches)


def test_without_detections_nothing_stays():
    truth = read_ground_truth(dataset([(1, 1, BOX)]))
    assert len(within_budget(read_detections([], truth), 5).score) == 0


def test_a_rare_class_loses_its_place_where_classes_compete():
    """Two objects of class 1 and one of class 2, whose detection is third."""
    gt = dataset([(1, 1, BOX), (1, 1, (50, 50, 9, 9)), (1, 2, BOX)], categories=(1, 2))
    dets = results((1, 1, BOX, 0.9), (1, 1, (50, 50, 9, 9), 0.8), (1, 2, BOX, 0.7), (1, 1, (90, 90, 5, 5), 0.6))
    truth = read_ground_truth(gt)
    found = read_detections(dets, truth)
    ap = {n: class_metrics(match(truth, within_budget(found, n)))[:, 0] for n in (1, 2, 3)}
    assert ap[1] == pytest.approx([51 / 101, 0])
    assert ap[2] == pytest.approx([1, 0])
    assert ap[3] == pytest.approx([1, 1])


@pytest.mark.parametrize("per_image", [3, 8, 15])
def test_ap_within_a_budget_is_that_of_pycocotools_on_the_cut_list(per_image):
    gt, dets = random_case(per_image, images=30, per_image=25, classes=5)
    truth = read_ground_truth(gt)
    ours = precision_recall(match(truth, within_budget(read_detections(dets, truth), per_image)))
    for mine, theirs in zip(ours, coco_arrays(gt, cut(dets, per_image), 100), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("max_det", [5, 100])
def test_matches_are_given_for_every_budget(max_det):
    gt, dets = random_case(2, images=3, per_image=350, classes=2)
    truth = read_ground_truth(gt)
    found = budget_matches(truth, read_detections(dets, truth), max_det)
    assert tuple(found) == BUDGETS == (300, 100, 30)
    for budget, matches in found.items():
        assert matches.max_det == max_det
        assert_same(matches, matches_of(gt, cut(dets, budget), max_det), Matches)
    if max_det == 100:
        assert [len(found[n].score) for n in (100, 30)] == [300, 90]
        assert 300 < len(found[300].score) <= 600
