import numpy as np
import pytest
from coco_oracle import coco_arrays, dataset, matches_of, random_case, results

from yolo_lt.evaluate.metrics import RECALL_POINTS, class_metrics, points_reached, precision_recall, set_means

A, B, FAR = (0, 0, 10, 10), (50, 50, 20, 10), (200, 200, 10, 10)
TWO = dataset([(1, 1, A), (2, 1, B)], images=(1, 2, 3), categories=(1, 2))
PERFECT = [(1, 1, A, 0.9), (2, 1, B, 0.8)]


def ap_of(dets, gt=TWO):
    """AP, AP50, AP75, AR of class 1, after the whole arrays are compared with COCOeval's."""
    matches = matches_of(gt, results(*dets))
    for ours, theirs in zip(precision_recall(matches), coco_arrays(gt, results(*dets), 100), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    return class_metrics(matches)[0]


def test_perfect_detections_have_ap_one():
    assert ap_of(PERFECT).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_missed_box_halves_recall_and_leaves_51_of_101_points():
    np.testing.assert_allclose(ap_of(PERFECT[:1]), [51 / 101, 51 / 101, 51 / 101, 0.5], atol=1e-12)


def test_a_false_positive_below_every_true_one_costs_nothing():
    assert ap_of([*PERFECT, (3, 1, FAR, 0.1)]).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_false_positive_above_every_true_one_costs_a_third():
    np.testing.assert_allclose(ap_of([*PERFECT, (3, 1, FAR, 0.95)]), [2 / 3, 2 / 3, 2 / 3, 1], atol=1e-12)


def test_a_duplicate_between_the_true_ones_is_a_false_positive():
    expected = (51 + 50 * 2 / 3) / 101
    np.testing.assert_allclose(ap_of([*PERFECT, (1, 1, A, 0.85)])[:3], [expected] * 3, atol=1e-12)


def test_a_loose_box_counts_up_to_its_iou_only():
    loose = ap_of([(1, 1, A, 0.9), (2, 1, (50, 50, 20, 6), 0.8)])  # IoU 0.6: right at 3 of 10 thresholds
    np.testing.assert_allclose(loose, [(3 + 7 * 51 / 101) / 10, 1, 51 / 101, (3 + 7 * 0.5) / 10], atol=1e-12)


def test_the_wrong_class_is_no_match():
    assert ap_of([(1, 2, A, 0.9), (2, 2, B, 0.8)]).tolist() == [0, 0, 0, 0]


def test_no_detection_at_all_is_zero_where_there_is_ground_truth_and_nan_elsewhere():
    values = class_metrics(matches_of(TWO, []))
    assert values[0].tolist() == [0, 0, 0, 0]
    assert np.isnan(values[1]).all()


def test_a_class_with_only_crowd_has_no_value():
    gt = dataset([(1, 1, A, {"iscrowd": 1})])
    assert np.isnan(ap_of([(1, 1, A, 0.9)], gt)).all()


def test_detections_on_a_crowd_neither_help_nor_hurt():
    gt = dataset([(1, 1, A), (2, 1, B), (3, 1, (0, 0, 300, 300), {"iscrowd": 1})], images=(1, 2, 3))
    assert ap_of([*PERFECT, (3, 1, FAR, 0.99), (3, 1, FAR, 0.98)], gt).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_zero_area_box_cannot_be_found_and_is_missed():
    gt = dataset([(1, 1, A), (2, 1, (5, 5, 0, 8))], images=(1, 2))
    np.testing.assert_allclose(ap_of([(1, 1, A, 0.9), (2, 1, (5, 5, 0, 8), 0.8)], gt)[0], 51 / 101, atol=1e-12)


def test_means_equal_the_means_of_pycocotools_cells():
    gt, dets = random_case(3, images=40, per_image=15, classes=6)
    gt["categories"].append({"id": 50, "name": "never"})
    precision, recall = coco_arrays(gt, dets, 100)
    chosen = np.array([0, 2, 6])
    ours = set_means(class_metrics(matches_of(gt, dets)), [np.arange(7), chosen])
    for classes, row in zip((np.arange(7), chosen), ours, strict=True):
        p, r = precision[:, :, classes], recall[:, classes]
        expected = [x[x > -1].mean() for x in (p, p[0], p[5], r)]
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("empty", [np.array([], dtype=int), np.array([1])])
def test_a_set_without_a_value_has_no_mean(empty):
    values = np.array([[0.5] * 4, [np.nan] * 4])
    means = set_means(values, [np.array([0, 1]), empty])
    assert means[0].tolist() == [0.5] * 4
    assert np.isnan(means[1]).all()


def test_points_reached_are_those_of_a_search_for_every_fraction():
    recalls = np.concatenate([np.arange(n + 1) / n for n in range(1, 700)] + [RECALL_POINTS])
    np.testing.assert_array_equal(points_reached(recalls), np.searchsorted(RECALL_POINTS, recalls, "right"))
