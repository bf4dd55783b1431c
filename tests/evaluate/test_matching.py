import numpy as np
import pytest
from coco_oracle import cases, coco_arrays, dataset, matches_of, random_case, results
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.evaluate import overlaps
from yolo_lt.evaluate.metrics import precision_recall

BOX = (10, 10, 20, 20)


def assert_equal_to_coco(gt, dets, max_det=100):
    precision, recall = precision_recall(matches_of(gt, dets, max_det))
    expected_precision, expected_recall = coco_arrays(gt, dets, max_det)
    np.testing.assert_array_equal(precision, expected_precision)
    np.testing.assert_array_equal(recall, expected_recall)


@settings(max_examples=250, deadline=None)
@given(case=cases(), max_det=st.sampled_from([1, 2, 5, 100]))
def test_equals_pycocotools_on_generated_cases(case, max_det):
    assert_equal_to_coco(*case, max_det)


@pytest.mark.parametrize("max_det", [1, 10, 100, 300])
def test_equals_pycocotools_where_the_cap_cuts_through_equal_scores(max_det):
    gt, dets = random_case(max_det, images=6, per_image=400, classes=2)
    assert_equal_to_coco(gt, dets, max_det)


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools_on_many_images_and_shuffled_files(seed):
    gt, dets = random_case(seed, images=120, per_image=20, classes=12, boxes=9)
    rng = np.random.default_rng(seed)
    dets = [dets[i] for i in rng.permutation(len(dets))]
    gt["annotations"] = [gt["annotations"][i] for i in rng.permutation(len(gt["annotations"]))]
    gt["images"].reverse()
    gt["categories"].reverse()
    assert_equal_to_coco(gt, dets)


def test_pairs_in_small_chunks_change_nothing(monkeypatch):
    gt, dets = random_case(5, images=20, per_image=30, classes=2, boxes=9)
    whole = matches_of(gt, dets)
    monkeypatch.setattr(overlaps, "PAIR_CHUNK", 7)
    parts = matches_of(gt, dets)
    np.testing.assert_array_equal(whole.tp, parts.tp)
    np.testing.assert_array_equal(whole.ignore, parts.ignore)
    assert whole.tp.any()


def test_more_images_than_sixteen_bits_are_sorted_all_the_same():
    far = (1 << 16) + 1  # would wrap to 1, before image 3
    gt = dataset([(far, 1, BOX), (3, 1, BOX)], range(far + 1))
    m = matches_of(gt, results((far, 1, BOX, 0.5), (3, 1, BOX, 0.5)))
    assert m.image.tolist() == [3, far]
    assert m.tp.all()


def test_iou_decides_which_thresholds_are_met():
    gt = dataset([(1, 1, (0, 0, 10, 10))])
    m = matches_of(gt, results((1, 1, (0, 0, 10, 7), 0.9)))  # IoU 0.7
    assert m.tp[0].tolist() == [True] * 5 + [False] * 5
    assert m.iou[0] == 0.7


def test_the_better_scored_detection_takes_the_box_and_the_other_is_a_duplicate():
    m = matches_of(dataset([(1, 1, BOX)]), results((1, 1, BOX, 0.3), (1, 1, BOX, 0.8)))
    assert m.score.tolist() == [0.8, 0.3]
    assert m.tp[:, 0].tolist() == [True, False]
    assert not m.ignore.any()


def test_equal_scores_are_taken_in_the_order_of_the_file():
    shifted = (10, 10, 20, 15)
    m = matches_of(dataset([(1, 1, BOX)]), results((1, 1, shifted, 0.5), (1, 1, BOX, 0.5)))
    assert m.iou.tolist() == [0.75, 0.0]
    assert m.tp[0].sum() == 6
    assert m.tp[1].sum() == 4  # the first one misses the thresholds above 0.75, so the second may take the box there


def test_the_box_with_the_highest_iou_is_taken():
    gt = dataset([(1, 1, (0, 0, 10, 10)), (1, 1, (0, 0, 10, 9))])
    m = matches_of(gt, results((1, 1, (0, 0, 10, 9), 0.9), (1, 1, (0, 0, 10, 8), 0.8)))
    assert m.iou.tolist() == [1.0, 0.8]


def test_of_equal_ious_the_later_box_is_taken():
    gt = dataset([(1, 1, (0, 0, 10, 8)), (1, 1, (0, 2, 10, 8))])  # both 0.8 with the first detection
    dets = results((1, 1, (0, 0, 10, 10), 0.9), (1, 1, (0, 0, 10, 8), 0.8))
    assert matches_of(gt, dets).iou.tolist() == [0.8, 1.0]
    gt["annotations"].reverse()
    assert matches_of(gt, dets).iou.tolist() == [0.8, 0.6]
    assert_equal_to_coco(gt, dets)


def test_an_unmatched_detection_outside_the_area_range_is_ignored_and_a_matched_one_is_right():
    huge = (0, 0, 200_000, 100_000)
    gt = dataset([(1, 1, huge, {"area": 100})])
    m = matches_of(gt, results((1, 1, huge, 0.9), (1, 1, huge, 0.8), (1, 1, (0, 0, -5, 5), 0.7)))
    assert m.tp[:, 0].tolist() == [True, False, False]
    assert m.ignore[:, 0].tolist() == [False, True, True]


def test_an_iou_of_exactly_one_half_is_a_match():
    m = matches_of(dataset([(1, 1, (0, 0, 10, 10))]), results((1, 1, (0, 0, 10, 5), 0.9)))
    assert m.tp[0].tolist() == [True] + [False] * 9


def test_a_crowd_takes_any_number_of_detections_and_counts_for_nothing():
    gt = dataset([(1, 1, (0, 0, 100, 100), {"iscrowd": 1})])
    m = matches_of(gt, results((1, 1, (0, 0, 10, 10), 0.9), (1, 1, (50, 50, 10, 10), 0.8), (1, 1, (200, 0, 9, 9), 0.7)))
    assert m.ignore[:, 0].tolist() == [True, True, False]
    assert not m.tp.any()
    assert len(m.gt_count) == 0


def test_a_real_box_comes_before_a_crowd_with_higher_iou():
    gt = dataset([(1, 1, (0, 0, 10, 10), {"iscrowd": 1}), (1, 1, (0, 0, 10, 6))])
    m = matches_of(gt, results((1, 1, (0, 0, 10, 10), 0.9)))
    assert m.tp[0].tolist() == [True] * 3 + [False] * 7  # IoU 0.6 with the real box
    assert m.ignore[0].tolist() == [False] * 3 + [True] * 7


def test_the_cap_is_per_image_and_class():
    gt = dataset([(1, 1, BOX), (1, 2, BOX), (2, 1, BOX)], images=(1, 2), categories=(1, 2))
    dets = results(*[(i, c, BOX, s) for i in (1, 2) for c in (1, 2) for s in (0.2, 0.4, 0.6)])
    m = matches_of(gt, dets, max_det=2)
    assert m.score.tolist() == [0.6, 0.6, 0.4, 0.4] * 2
    assert matches_of(gt, dets, max_det=0).score.size == 12


def test_annotation_id_zero_is_an_annotation():
    gt = dataset([(1, 1, BOX)])
    gt["annotations"][0]["id"] = 0
    m = matches_of(gt, results((1, 1, BOX, 0.9)))
    assert m.tp.all()


def test_detections_of_an_unlisted_category_are_left_out():
    m = matches_of(dataset([(1, 1, BOX)]), results((1, 99, BOX, 0.9), (1, 1, BOX, 0.5)))
    assert m.score.tolist() == [0.5]


def test_ground_truth_is_counted_per_image_and_class():
    gt = dataset([(5, 7, BOX), (5, 7, BOX), (2, 3, BOX), (5, 3, BOX, {"iscrowd": 1})], images=(5, 2), categories=(7, 3))
    m = matches_of(gt, [])
    assert list(zip(m.gt_image.tolist(), m.gt_class.tolist(), m.gt_count.tolist(), strict=True)) == [
        (0, 0, 1),
        (1, 1, 2),
    ]
    assert m.image_ids.tolist() == [2, 5]
    assert m.category_ids.tolist() == [3, 7]


@pytest.mark.parametrize("gt", [dataset([], images=(), categories=()), dataset([]), dataset([], images=())])
def test_nothing_at_all_has_no_matches(gt):
    m = matches_of(gt, [])
    assert m.tp.shape == (0, 10)
    assert len(m.gt_count) == 0
