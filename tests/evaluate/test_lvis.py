import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lvis_oracle import (
    assert_equal,
    best_per_class,
    cases,
    federated,
    hotcoco_arrays,
    lvis_arrays,
    matches_of,
    our_arrays,
    random_case,
    results,
)

from yolo_lt.errors import LTError
from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.metrics import class_metrics

BOX, AWAY = (10, 10, 20, 20), (200, 200, 20, 20)
MARKS = ({"ignore": 1}, {"iscrowd": 1}, {"area": 0}, {"area": 2000.5})
AREAS = ("all", "small", "medium", "large")


def ap_of(gt, dets, **keys):
    """AP of every class."""
    return class_metrics(matches_of(gt, dets, **keys))[:, 0]


def of_all(arrays):
    return [a[..., 0] for a in arrays]


def judged(m):
    """Class, score and whether it is right, of every detection that counts at IoU 0.5."""
    at = ~m.ignore[:, 0]
    return list(zip((m.cls[at] + 1).tolist(), m.score[at].tolist(), m.tp[at, 0].tolist(), strict=True))


@settings(max_examples=300, deadline=None)
@given(case=cases(), max_det=st.sampled_from([1, 2, 5, 300]))
def test_equals_lvis_api_on_generated_cases_in_every_range_of_areas(case, max_det):
    precision, recall = lvis_arrays(*case, max_det)
    for k, area in enumerate(AREAS):
        assert_equal(our_arrays(*case, max_det=max_det, area=area), (precision[..., k], recall[..., k]))


@settings(max_examples=150, deadline=None)
@given(case=cases(), size=st.sampled_from([1, 2, 5, 10_000]))
def test_fixed_ap_equals_lvis_api_on_generated_cases(case, size):
    gt, dets = case
    theirs = lvis_arrays(gt, best_per_class(dets, size), -1)
    assert_equal(our_arrays(gt, dets, "lvis_fixed", size), of_all(theirs))


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_equals_lvis_api_with_marked_boxes_in_every_range_of_areas(seed, scale):
    gt, dets = random_case(seed, images=25, marks=MARKS, scale=scale)
    precision, recall = lvis_arrays(gt, dets)
    found = [our_arrays(gt, dets, area=area) for area in AREAS]
    for k, ours in enumerate(found):
        assert_equal(ours, (precision[..., k], recall[..., k]))
    assert sum((p > 0).any() for p, _ in found) >= 3
    unmarked = [{k: v for k, v in a.items() if k != "ignore"} for a in gt["annotations"]]
    assert not np.array_equal(our_arrays({**gt, "annotations": unmarked}, dets)[0], found[0][0])


@pytest.mark.parametrize("seed", range(6))
def test_equals_lvis_api_and_hotcoco_exactly_without_marked_boxes(seed):
    gt, dets = random_case(seed, images=30, classes=9)
    ours = our_arrays(gt, dets)
    assert_equal(ours, of_all(lvis_arrays(gt, dets)), atol=0)
    assert_equal(ours, hotcoco_arrays(gt, dets), atol=1e-12)
    assert (ours[0][:, :, -1] == -1).all()


@pytest.mark.parametrize("max_det", [100, 300])
def test_equals_both_where_the_cap_cuts_through_equal_scores(max_det):
    gt, dets = random_case(max_det, images=8, per_image=400, classes=5, steps=10, stray=0.9)
    ours = our_arrays(gt, dets, max_det=max_det)
    assert_equal(ours, of_all(lvis_arrays(gt, dets, max_det)))
    assert_equal(ours, hotcoco_arrays(gt, dets, max_det), atol=1e-12)
    for other in (our_arrays(gt, dets[::-1], max_det=max_det), our_arrays(gt, dets, max_det=max_det + 100)):
        assert not np.array_equal(other[0], ours[0])


@pytest.mark.parametrize("size", [7, 60, 10_000])
def test_fixed_ap_equals_both_after_the_best_of_every_class(size):
    gt, dets = random_case(size, images=20, per_image=350, classes=4, steps=50, stray=0.98)
    kept = best_per_class(dets, size)
    ours = our_arrays(gt, dets, "lvis_fixed", size)
    assert_equal(ours, of_all(lvis_arrays(gt, kept, -1)))
    assert_equal(ours, hotcoco_arrays(gt, kept, -1), atol=1e-12)
    assert not np.array_equal(ours[0], our_arrays(gt, dets)[0])


def test_fixed_ap_by_area_equals_lvis_api():
    gt, dets = random_case(3, images=20, per_image=60, marks=MARKS, scale=3)
    precision, recall = lvis_arrays(gt, best_per_class(dets, 100), -1)
    for k, area in enumerate(AREAS):
        assert_equal(our_arrays(gt, dets, "lvis_fixed", 100, area), (precision[..., k], recall[..., k]))


def test_without_any_ground_truth_every_class_is_minus_one_and_without_detections_zero():
    gt, dets = random_case(0)
    assert_equal(our_arrays(gt, []), [np.where(a > -1, 0, -1) for a in our_arrays(gt, dets)], atol=0)
    gt["annotations"] = []
    ours = our_arrays(gt, dets)
    assert_equal(ours, of_all(lvis_arrays(gt, dets)), atol=0)
    assert {a.max() for a in ours} == {-1}


def test_detections_of_unlisted_categories_alone_are_zero_as_in_lvis_api():
    gt = federated([(1, 1, BOX)], [(2, 1)])
    dets = results((1, 77, BOX, 0.9), (2, 77, BOX, 0.9))
    assert_equal(our_arrays(gt, dets), of_all(lvis_arrays(gt, dets)), atol=0)


def test_a_class_counts_where_it_is_boxed_or_known_to_be_absent():
    gt = federated([(1, 1, BOX), (3, 2, BOX)], negative=[(2, 1)], images=(1, 2, 3))
    m = matches_of(gt, results((1, 1, AWAY, 0.9), (2, 1, BOX, 0.8), (3, 1, BOX, 0.7), (1, 1, BOX, 0.6)))
    assert judged(m) == [(1, 0.9, False), (1, 0.8, False), (1, 0.6, True)]  # nobody looked for it in image 3
    assert ap_of(gt, results((3, 1, BOX, 0.9), (1, 1, BOX, 0.6)))[0] == pytest.approx(1)
    assert ap_of(gt, results((2, 1, BOX, 0.9), (1, 1, BOX, 0.6)))[0] == pytest.approx(0.5)


def test_where_only_some_objects_are_boxed_an_unmatched_detection_is_neither_right_nor_wrong():
    gt = federated([(1, 1, BOX), (1, 2, BOX)], negative=[(2, 1)], partial=[(1, 1), (2, 1), (2, 2)])
    dets = results((1, 1, AWAY, 0.9), (1, 1, BOX, 0.8), (2, 1, BOX, 0.7), (2, 2, BOX, 0.9), (1, 2, AWAY, 0.6))
    assert judged(matches_of(gt, dets)) == [(1, 0.8, True), (2, 0.6, False)]
    assert_equal(our_arrays(gt, dets), of_all(lvis_arrays(gt, dets)))


def test_there_the_thresholds_that_a_detection_misses_are_not_held_against_it():
    gt = federated([(1, 1, (0, 0, 10, 10))], partial=[(1, 1)])
    m = matches_of(gt, results((1, 1, (0, 0, 10, 7), 0.9)))  # IoU 0.7
    assert m.tp[0].tolist() == [True] * 5 + [False] * 5
    assert m.ignore[0].tolist() == [False] * 5 + [True] * 5


def test_a_class_that_is_only_partly_boxed_and_nothing_else_was_not_looked_for():
    gt = federated([(1, 1, BOX), (1, 2, BOX)], partial=[(2, 1)])
    assert judged(matches_of(gt, results((2, 1, BOX, 0.9), (1, 1, BOX, 0.8)))) == [(1, 0.8, True)]


def test_the_cap_is_per_image_over_all_classes_before_anything_is_left_out():
    gt = federated([(1, 1, BOX), (2, 1, BOX)])
    better = results(
        (1, 2, BOX, 0.9), (1, 99, BOX, 0.8), (1, 1, (10, 10, 0, 20), 0.7)
    )  # not looked for, unlisted, flat
    dets = [*better, *results((1, 1, BOX, 0.6), (2, 1, BOX, 0.1))]
    assert matches_of(gt, dets, max_det=3).image.tolist() == [1]
    assert matches_of(gt, dets, max_det=4).image.tolist() == [0, 1]
    assert_equal(our_arrays(gt, dets, max_det=3), of_all(lvis_arrays(gt, dets, 3)))


def test_of_equal_scores_the_first_in_the_file_stay_within_the_cap():
    gt = federated([(1, 1, BOX)])
    dets = results((1, 2, BOX, 0.5), (1, 1, BOX, 0.5))
    assert len(matches_of(gt, dets, max_det=1).score) == 0
    assert len(matches_of(gt, dets[::-1], max_det=1).score) == 1


def test_the_cap_of_fixed_ap_is_per_class_over_all_images():
    gt = federated([(1, 1, BOX), (2, 1, BOX), (1, 2, BOX)])
    dets = results((1, 1, AWAY, 0.9), (1, 1, BOX, 0.8), (2, 1, BOX, 0.7), (1, 2, BOX, 0.1))
    assert matches_of(gt, dets, "lvis_fixed", 2).score.tolist() == [0.9, 0.8, 0.1]
    assert matches_of(gt, dets, "lvis", 2).score.tolist() == [0.9, 0.8, 0.7]


def test_an_ignored_box_does_not_count_and_neither_does_what_finds_it():
    gt = federated([(1, 1, BOX, {"ignore": 1}), (1, 1, AWAY)])
    m = matches_of(gt, results((1, 1, BOX, 0.9), (1, 1, BOX, 0.8), (1, 1, AWAY, 0.7)))
    assert judged(m) == [(1, 0.8, False), (1, 0.7, True)]  # found once; the second is wrong
    assert m.gt_count.tolist() == [1]


def test_an_image_where_the_class_has_only_an_ignored_box_was_looked_at():
    gt = federated([(1, 1, BOX), (2, 1, AWAY, {"ignore": 1})])
    assert ap_of(gt, results((2, 1, BOX, 0.9), (1, 1, BOX, 0.8)))[0] == pytest.approx(0.5)


def test_a_crowd_is_an_ordinary_box():
    gt = federated([(1, 1, (0, 0, 100, 100), {"iscrowd": 1})])
    m = matches_of(gt, results((1, 1, (0, 0, 10, 10), 0.9), (1, 1, (0, 0, 100, 90), 0.8)))
    assert m.tp[:, 0].tolist() == [False, True]
    assert not m.ignore.any()
    assert m.gt_count.tolist() == [1]


def test_boxes_without_area_take_no_part_nor_make_the_class_looked_for():
    gt = federated([(1, 1, BOX), (2, 1, BOX, {"area": 0}), (1, 2, (5, 5, 0, 9))])
    dets = results((2, 1, BOX, 0.9), (1, 1, BOX, 0.8), (1, 2, BOX, 0.9))
    np.testing.assert_allclose(ap_of(gt, dets), [1, np.nan], rtol=1e-12)
    assert_equal(our_arrays(gt, dets), of_all(lvis_arrays(gt, dets)))


@pytest.mark.parametrize(("size", "counts"), [((0, 9), 0), ((9, 0), 0), ((-9, 9), 0), ((0, 0), 0), ((-9, -9), 1)])
def test_a_detection_takes_part_if_its_area_is_positive_as_in_lvis_api(size, counts):
    gt, dets = federated([(1, 1, BOX)]), results((1, 1, (10, 10, *size), 0.9), (1, 1, BOX, 0.8))
    assert len(matches_of(gt, dets).score) == 1 + counts
    assert ap_of(gt, dets)[0] == pytest.approx(1 / (1 + counts))
    assert_equal(our_arrays(gt, dets), of_all(lvis_arrays(gt, dets)))


def test_annotation_id_zero_is_an_annotation_while_lvis_api_takes_it_for_none():
    gt, dets = federated([(1, 1, BOX), (2, 1, BOX)]), results((1, 1, BOX, 0.9), (2, 1, BOX, 0.8))
    expected = our_arrays(gt, dets)
    assert_equal(expected, of_all(lvis_arrays(gt, dets)))
    for a in gt["annotations"]:
        a["id"] -= 1
    assert_equal(our_arrays(gt, dets), expected, atol=0)
    assert_equal(our_arrays(gt, dets), hotcoco_arrays(gt, dets))
    theirs = of_all(lvis_arrays(gt, dets))
    assert (theirs[1][:, 0] == 0.5).all()
    assert (expected[1][:, 0] == 1).all()


@pytest.mark.parametrize("protocol", ["lvis", "lvis_fixed", "lvis_pool"])
def test_ground_truth_that_is_not_federated_is_refused_and_coco_is_named(protocol):
    gt = federated([(1, 1, BOX)])
    for image in gt["images"]:
        del image["neg_category_ids"]
    with pytest.raises(LTError, match=r"neg_category_ids.*use protocol=coco") as e:
        evaluate(gt, [], protocol=protocol, bootstrap=0)
    assert e.value.exit_code == 1
    assert evaluate(gt, results((1, 1, BOX, 0.5)), protocol="coco", bootstrap=0).metrics["all"]["AP"] == pytest.approx(
        1
    )


@pytest.mark.parametrize(
    ("protocol", "cap", "text"),
    [("lvis", 300, "300 detections per image"), ("lvis_fixed", 10_000, "the best 10000 detections of every class")],
)
def test_the_report_names_the_cap_and_gives_means_over_evaluated_classes(protocol, cap, text):
    gt, dets = random_case(5, images=20, per_image=350)
    report = evaluate(gt, dets, protocol=protocol, bootstrap=0, explain=False).to_json()
    assert (report["protocol"], report["max_det"]) == (protocol, cap)
    assert text in report["cap"]
    dets = dets if protocol == "lvis" else best_per_class(dets, cap)
    precision, recall = lvis_arrays(gt, dets, cap if protocol == "lvis" else -1)
    for name, letter in (("all", "rcf"), ("head", "f"), ("medium", "c"), ("tail", "r")):
        k = [n for n, c in enumerate(sorted(gt["categories"], key=lambda c: c["id"])) if c["frequency"] in letter]
        cells, row = (precision[:, :, k, 0], recall[:, k, 0]), report["metrics"][name]
        assert row["AP"] == pytest.approx(cells[0][cells[0] > -1].mean(), abs=1e-12)
        assert row["AP50"] == pytest.approx(cells[0][0][cells[0][0] > -1].mean(), abs=1e-12)
        assert row["AR"] == pytest.approx(cells[1][cells[1] > -1].mean(), abs=1e-12)
        assert row["n_evaluated"] == (cells[1][0] > -1).sum() < len(k) + 1
    sentence = "of 6 classes have fewer than 10000 detections, which lowers Fixed AP"
    assert any(sentence in w for w in report["warnings"]) == (protocol == "lvis_fixed")
