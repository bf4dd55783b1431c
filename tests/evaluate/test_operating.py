import dataclasses

import numpy as np
import pytest
from coco_oracle import cases, dataset, matches_of, random_case, results
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.evaluate.operating import best_common_f1, rates, reliability, shown_per_image

BOX, FAR = (10, 10, 20, 20), (200, 200, 10, 10)
LOOSE = (10, 10, 20, 12)  # IoU 0.6 with BOX: right at 0.5
ALL = np.array([0, 1])


def calibration_error(*args, **keys):
    """The error and over how many detections."""
    table = reliability(*args, **keys)
    return table.error, table.n_det.sum()


def three_images():
    """Two classes; image 2 has a crowd of class 1, image 3 nothing at all."""
    crowd = (0, 0, 400, 400)
    gt = dataset(
        [(1, 1, BOX), (1, 1, (60, 60, 10, 10)), (1, 2, BOX), (2, 1, crowd, {"iscrowd": 1}), (2, 2, BOX)],
        images=(1, 2, 3),
        categories=(1, 2),
    )
    dets = results(
        (1, 1, BOX, 0.9),
        (1, 1, BOX, 0.7),  # a duplicate
        (1, 2, LOOSE, 0.6),
        (1, 2, FAR, 0.25),
        (2, 1, FAR, 0.8),  # in the crowd
        (2, 2, BOX, 0.2),
        (3, 1, FAR, 0.3),
    )
    return matches_of(gt, dets)


def test_right_and_shown_and_objects_are_counted_in_every_image():
    m = three_images()
    assert shown_per_image(m, ALL, 0.25).tolist() == [[2, 0, 0], [4, 0, 1], [3, 1, 0]]
    assert shown_per_image(m, np.array([0]), 0.25).tolist() == [[1, 0, 0], [2, 0, 1], [2, 0, 0]]
    assert shown_per_image(m, np.array([1]), 0.25).tolist() == [[1, 0, 0], [2, 0, 0], [1, 1, 0]]
    assert shown_per_image(m, np.array([], int), 0.25).tolist() == [[0, 0, 0]] * 3


def test_a_detection_at_the_confidence_is_shown():
    m = three_images()
    assert shown_per_image(m, ALL, 0.25)[1].sum() == 5
    assert shown_per_image(m, ALL, np.nextafter(0.25, 1))[1].sum() == 4
    assert shown_per_image(m, ALL, 0)[1].sum() == 6


def test_a_detection_on_a_crowd_is_neither_right_nor_wrong():
    m = three_images()
    assert m.ignore[:, 0].sum() == 1
    assert shown_per_image(m, np.array([0]), 0.5)[:, 1].tolist() == [0, 0, 0]


def test_every_class_has_a_threshold_of_its_own():
    m = three_images()
    assert shown_per_image(m, ALL, np.array([0.8, 0.1])).tolist() == [[2, 1, 0], [3, 1, 0], [3, 1, 0]]
    assert shown_per_image(m, ALL, np.array([0.1, 0.8])).tolist() == [[1, 0, 0], [2, 0, 1], [3, 1, 0]]
    np.testing.assert_array_equal(shown_per_image(m, ALL, np.array([0.3, 0.3])), shown_per_image(m, ALL, 0.3))


@settings(max_examples=100, deadline=None)
@given(
    cases(), st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.95]), min_size=3, max_size=3), st.sets(st.integers(0, 2))
)
def test_counts_are_those_of_a_loop_over_detections(case, conf, classes):
    m = matches_of(*case)
    expected = np.zeros((3, 3))
    for d in range(len(m.score)):
        if m.cls[d] in classes and m.score[d] >= conf[m.cls[d]] and not m.ignore[d, 0]:
            expected[0, m.image[d]] += m.tp[d, 0]
            expected[1, m.image[d]] += 1
    for a in case[0]["annotations"]:
        if a["category_id"] - 1 in classes and not a["iscrowd"] and 0 <= a["area"] <= 1e10:
            expected[2, a["image_id"] - 1] += 1
    np.testing.assert_array_equal(shown_per_image(m, np.array(sorted(classes), int), np.array(conf)), expected)


def test_rates():
    values = rates(np.array([[3.0, 0, 0, 0, 0], [4, 2, 0, 0, 5], [6, 3, 3, 0, 0]]))
    np.testing.assert_allclose(values[0], [0.75, 0, np.nan, np.nan, np.nan])  # precision
    np.testing.assert_allclose(values[1], [0.5, 0, 0, np.nan, np.nan])  # recall
    np.testing.assert_allclose(values[2], [0.6, 0, 0, np.nan, np.nan])  # F1


@given(*[st.integers(1, 50)] * 3)
def test_f1_is_the_harmonic_mean(right, wrong, missed):
    precision, recall, f1 = rates(np.array([right, right + wrong, right + missed], float))
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))


def scored(pairs, max_det=100):
    """Matches with these scores and whether they are right, one image and class."""
    boxes = [(40.0 * k, 0, 20, 20) for k in range(len(pairs))]
    gt = dataset([(1, 1, b) for b, (_, right) in zip(boxes, pairs, strict=True) if right])
    dets = [(1, 1, b if right else (b[0], 500, 20, 20), s) for b, (s, right) in zip(boxes, pairs, strict=True)]
    return matches_of(gt, results(*dets), max_det)


def test_the_calibration_error_by_hand():
    """Five bins: [0.2, 0.4) has confidence 0.3 and precision 0.5, [0.8, 1] confidence 0.95 and precision 2 / 3."""
    m = scored([(0.25, 0), (0.35, 1), (0.85, 1), (1.0, 1), (1.0, 0), (0.01, 1)])
    error, count = calibration_error(m, np.array([0]), floor=0.05, bins=5)
    assert count == 5
    assert error == pytest.approx(2 / 5 * abs(0.3 - 0.5) + 3 / 5 * abs(0.95 - 2 / 3))


def test_the_bins_of_confidence_by_hand():
    m = scored([(0.25, 0), (0.35, 1), (0.85, 1), (1.0, 1), (1.0, 0), (0.01, 1)])
    table = reliability(m, np.array([0]), floor=0.05, bins=5)
    assert table.confidence.tolist() == pytest.approx([0.3, 0.95])
    assert table.precision.tolist() == pytest.approx([0.5, 2 / 3])
    assert table.n_det.tolist() == [2, 3]
    assert [column.tolist() for column in reliability(m, np.array([], int))] == [[], [], []]


def test_confidences_that_are_true_have_no_error():
    m = scored([(0.75, k < 3) for k in range(4)] + [(0.5, k < 1) for k in range(2)])
    assert calibration_error(m, np.array([0])) == (0, 6)


def test_a_confidence_on_the_border_belongs_to_the_bin_above():
    assert calibration_error(scored([(0.25, 1), (0.3, 0)]), np.array([0]), bins=4)[0] == pytest.approx(0.45 / 2)
    assert calibration_error(scored([(0.25, 1), (0.2, 0)]), np.array([0]), bins=4)[0] == pytest.approx(0.95 / 2)


def test_what_lies_below_the_floor_is_left_out():
    m = scored([(0.05, 0), (0.04, 0), (0.9, 1)])
    error, count = calibration_error(m, np.array([0]))
    assert count == 2
    assert error == pytest.approx((0.05 + 0.1) / 2)
    assert calibration_error(m, np.array([0]), floor=0)[1] == 3


def test_without_detections_there_is_no_calibration_error():
    for m, classes in ((scored([(0.01, 1)]), [0]), (scored([(0.9, 1)]), [])):
        error, count = calibration_error(m, np.array(classes, int))
        assert np.isnan(error)
        assert count == 0


def test_detections_on_a_crowd_are_not_judged():
    error, count = calibration_error(three_images(), np.array([0]))
    assert count == 3  # 0.9 right, 0.7 and 0.3 wrong
    assert error == pytest.approx((0.1 + 0.7 + 0.3) / 3)


@pytest.mark.parametrize(("floor", "bins"), [(0.05, 20), (0.3, 10), (0, 7)])
@pytest.mark.parametrize("classes", [[0, 1, 2], [1]])
def test_the_calibration_error_is_that_of_a_loop_over_bins(floor, bins, classes):
    m = matches_of(*random_case(1, images=60, per_image=12, classes=3))
    counted = ~m.ignore[:, 0] & np.isin(m.cls, classes) & (m.score >= floor)
    assert m.ignore[:, 0].any()
    score, right = m.score[counted], m.tp[counted, 0]
    expected = 0.0
    for b in range(bins):
        inside = (score >= b / bins) & ((score < (b + 1) / bins) | (b == bins - 1))
        if inside.any():
            expected += inside.mean() * abs(score[inside].mean() - right[inside].mean())
    error, count = calibration_error(m, np.array(classes), floor, bins)
    assert count == counted.sum() > 50
    assert error == pytest.approx(expected, rel=1e-9)


def brute_common_f1(m):
    """Every score as the common confidence."""
    counted, size = ~m.ignore[:, 0], len(m.category_ids)
    boxes = np.bincount(m.gt_class, m.gt_count, size)
    found = []
    for conf in np.unique(m.score[counted]):
        per_class = []
        for c in np.flatnonzero(boxes):
            shown = counted & (m.cls == c) & (m.score >= conf)
            per_class.append(2 * m.tp[shown, 0].sum() / (shown.sum() + boxes[c]))
        found.append(np.mean(per_class))
    return max(found)


def two_classes(shift=0.0):
    """A common class that scores high and a rare one that scores low; `shift` lifts the rare one's scores."""
    rng = np.random.default_rng(3)
    right = rng.random(60) < 0.6
    boxes = [(40.0 * k, 0, 20, 20) for k in range(60)]
    gt = dataset([(1, 1 + (k % 6 == 0), b) for k, b in enumerate(boxes)], categories=(1, 2))
    scores = [0.5 + 0.4 * r * rng.random() + 0.02 * rng.random() for r in right]
    rows = [
        (1, 1 + (k % 6 == 0), b if r else (b[0], 500, 20, 20), s - (0.45 - shift) * (k % 6 == 0))
        for k, (b, r, s) in enumerate(zip(boxes, right, scores, strict=True))
    ]
    return matches_of(gt, results(*rows), 100)


def test_the_best_common_confidence_is_that_of_all_scores_tried_one_by_one():
    m = two_classes()
    f1, conf = best_common_f1(m)
    assert f1 == pytest.approx(brute_common_f1(m))
    assert (m.score[m.tp[:, 0]] == conf).any()


def test_a_common_confidence_serves_classes_better_that_score_alike():
    assert best_common_f1(two_classes(shift=0.45))[0] > best_common_f1(two_classes())[0] + 0.05


def test_nothing_right_has_no_common_confidence():
    m = scored([(0.9, 0), (0.5, 1)])
    m = dataclasses.replace(m, tp=np.zeros_like(m.tp))
    assert best_common_f1(m) == (0.0, 1.0)
