import numpy as np
import pytest
from coco_oracle import coco_arrays, dataset, matches_of, random_case, results

from yolo_lt.evaluate.bootstrap import image_weights
from yolo_lt.evaluate.deployed import (
    average_precision,
    calibration_errors,
    change_of_ap,
    change_of_rates,
    operating_point,
    reliabilities,
)
from yolo_lt.evaluate.metrics import METRICS

BOX, FAR = (10, 10, 20, 20), (200, 200, 10, 10)
SETS = {"all": np.arange(3), "head": np.array([0]), "tail": np.array([1]), "nothing": np.array([2])}


def found(scores):
    """Ten images with an object of class 1 each and one of class 2 in the first two; class 3 has none.

    `scores`: of the right detections of class 1, of class 2, and of a wrong one of class 1 in every image.
    """
    first, second, wrong = scores
    gt = dataset(
        [(i, 1, BOX) for i in range(1, 11)] + [(i, 2, BOX) for i in (1, 2)],
        images=range(1, 11),
        categories=(1, 2, 3),
    )
    rows = [(i, 1, BOX, first) for i in range(1, 11)] + [(i, 2, BOX, second) for i in (1, 2)]
    return matches_of(gt, results(*rows, *[(i, 1, FAR, wrong) for i in range(1, 11)]))


BEFORE, AFTER = found((0.9, 0.1, 0.5)), found((0.9, 0.6, 0.1))
CASE = random_case(4, images=60, per_image=12, classes=3)
RANDOM = matches_of(*CASE)


def lowered(part, seed=0):
    """The random case with a part of its detections' scores halved."""
    chosen = np.random.default_rng(seed).random(len(CASE[1])) < part
    dets = [{**d, "score": d["score"] / (1 + c)} for d, c in zip(CASE[1], chosen.tolist(), strict=True)]
    return matches_of(CASE[0], dets)


def test_average_precision_by_budget_and_set():
    fewer = matches_of(*CASE, 3)
    values = average_precision({100: RANDOM, 3: fewer}, {**SETS, "nothing": np.array([], int)})
    assert list(values) == [100, 3]
    for budget in (100, 3):
        precision, recall = coco_arrays(*CASE, budget)
        assert list(values[budget]) == list(SETS)
        for name, classes in SETS.items():
            row = values[budget][name]
            assert list(row) == list(METRICS)
            if name == "nothing":
                assert set(row.values()) == {None}
                continue
            p, r = precision[:, :, classes], recall[:, classes]
            assert list(row.values()) == pytest.approx([p.mean(), p[0].mean(), p[5].mean(), r.mean()], abs=1e-12)
    assert values[3]["all"]["AR"] < values[100]["all"]["AR"]


def test_a_set_without_ground_truth_has_no_average_precision():
    assert set(average_precision({100: BEFORE}, SETS)[100]["nothing"].values()) == {None}


def test_the_operating_point_with_what_was_counted():
    point = operating_point(BEFORE, SETS, 0.25)
    assert list(point) == list(SETS)
    found = {"precision": 0.5, "recall": pytest.approx(10 / 12), "F1": pytest.approx(20 / 32)}
    assert point["all"] == {**found, "n_right": 10, "n_det": 20, "n_gt": 12}
    assert point["tail"] == {"precision": None, "recall": 0, "F1": 0, "n_right": 0, "n_det": 0, "n_gt": 2}
    nothing = dict.fromkeys(("precision", "recall", "F1"))
    assert point["nothing"] == {**nothing, "n_right": 0, "n_det": 0, "n_gt": 0}
    assert all(type(v) in (int, float, type(None)) for entry in point.values() for v in entry.values())


def test_the_operating_point_at_thresholds_per_class():
    point = operating_point(BEFORE, SETS, np.array([0.7, 0.05, 0.5]))
    assert [point["all"][k] for k in ("n_right", "n_det", "n_gt")] == [12, 12, 12]
    assert [point[n]["F1"] for n in ("all", "head", "tail")] == [1, 1, 1]


def test_reliabilities_add_the_bins_of_confidence():
    found = reliabilities(BEFORE, SETS)
    assert {name: {k: e[k] for k in ("ECE", "n_det")} for name, e in found.items()} == calibration_errors(BEFORE, SETS)
    assert [found["nothing"]["reliability"][k] for k in ("confidence", "precision", "n_det")] == [[], [], []]
    for entry in (found["head"], found["all"]):
        confidence, precision, count = map(np.array, entry["reliability"].values())
        assert count.sum() == entry["n_det"]
        assert entry["ECE"] == pytest.approx(count @ abs(confidence - precision) / count.sum(), abs=1e-12)


def test_calibration_errors_with_the_number_of_detections():
    errors = calibration_errors(BEFORE, SETS)
    assert errors["head"] == {"ECE": pytest.approx((0.1 + 0.5) / 2), "n_det": 20}
    assert errors["tail"] == {"ECE": pytest.approx(0.9), "n_det": 2}
    assert errors["all"] == {"ECE": pytest.approx((10 * 0.1 + 10 * 0.5 + 2 * 0.9) / 22), "n_det": 22}
    assert errors["nothing"] == {"ECE": None, "n_det": 0}


def test_no_change_is_a_difference_of_0_with_no_width():
    ap = change_of_ap({300: RANDOM}, {300: RANDOM}, SETS, 50)[300]
    point = change_of_rates(RANDOM, RANDOM, SETS, (0.25, 0.25), 50)
    for change in (ap, point):
        assert list(change) == list(SETS)
        for name, entry in change.items():
            assert set(map(tuple, entry.values())) == {(0, 0, 0)}, name


def test_change_of_ap_is_after_minus_before_and_changes_sign_with_the_sides():
    before, after = {100: RANDOM, 3: RANDOM}, {100: lowered(0.5), 3: lowered(0.2)}
    change, back = change_of_ap(before, after, SETS, 200), change_of_ap(after, before, SETS, 200)
    plain = [average_precision(m, SETS) for m in (before, after)]
    assert list(change) == [100, 3]
    for budget in (100, 3):
        for name in SETS:
            for metric in METRICS:
                value, low, high = change[budget][name][metric]
                assert value == pytest.approx(plain[1][budget][name][metric] - plain[0][budget][name][metric])
                assert back[budget][name][metric] == pytest.approx([-value, -high, -low])
        value, low, high = change[budget]["all"]["AP"]
        assert low < value < high


def test_change_of_ap_where_the_order_within_classes_is_known():
    """Before, a right and a wrong detection of every image of class 1 have one rank; after, the right ones lead."""
    before, after = found((0.5, 0.5, 0.6)), found((0.6, 0.1, 0.5))
    change = change_of_ap({100: before}, {100: after}, SETS, 50)[100]
    assert change["head"]["AP"] == pytest.approx([0.5, 0.5, 0.5])  # 10 right ones after 10 wrong ones: precision 1/2
    assert change["tail"]["AP"] == [0, 0, 0]
    assert change["all"]["AP50"][0] == pytest.approx(0.25)
    assert change["nothing"] == dict.fromkeys(METRICS)


def test_change_of_rates_is_after_minus_before_and_changes_sign_with_the_sides():
    change = change_of_rates(BEFORE, AFTER, SETS, (0.25, 0.25), 100)
    back = change_of_rates(AFTER, BEFORE, SETS, (0.25, 0.25), 100)
    assert change["head"]["precision"] == [0.5, 0.5, 0.5]
    assert change["head"]["recall"] == [0, 0, 0]
    assert change["head"]["F1"] == pytest.approx([1 / 3] * 3)
    assert change["tail"]["recall"] == [1, 1, 1]
    assert change["all"]["recall"][0] == pytest.approx(2 / 12)
    assert back["head"]["precision"] == [-0.5, -0.5, -0.5]
    assert back["all"]["recall"] == pytest.approx([-change["all"]["recall"][i] for i in (0, 2, 1)])


def test_a_rate_that_one_side_does_not_have_has_no_difference():
    """Before, nothing of class 2 is shown, so there is no precision to compare with."""
    change = change_of_rates(BEFORE, AFTER, SETS, (0.25, 0.25), 50)
    assert change["tail"]["precision"] is None
    assert change["tail"]["F1"] == [1, 1, 1]
    assert change["nothing"] == dict.fromkeys(("precision", "recall", "F1"))


def test_each_side_has_its_confidences():
    change = change_of_rates(BEFORE, BEFORE, SETS, (0.25, np.array([0.7, 0.05, 0.5])), 50)
    assert change["head"]["precision"] == [0.5, 0.5, 0.5]
    assert change["tail"]["recall"] == [1, 1, 1]
    same = change_of_rates(BEFORE, BEFORE, SETS, (np.array([0.2, 0.3, 0.5]), np.array([0.2, 0.3, 0.5])), 50)
    assert same["all"]["F1"] == [0, 0, 0]


def test_both_sides_meet_the_same_resamples_of_images():
    """The interval is that of differences, written out image by image."""
    after = lowered(0.5)
    _, low, high = change_of_rates(RANDOM, after, SETS, (0.4, 0.4), 200)["tail"]["precision"]
    share = []
    for m in (RANDOM, after):
        shown = (m.cls == 1) & (m.score >= 0.4) & ~m.ignore[:, 0]
        right, count = (np.bincount(m.image[shown], v[shown], 60) for v in (m.tp[:, 0], np.ones(len(shown))))
        share.append([(right @ w) / (count @ w) for w in image_weights(60, 200, 0)])
    change = np.subtract(share[1], share[0])
    np.testing.assert_allclose([low, high], np.quantile(change, [0.025, 0.975]), rtol=1e-12)


def test_without_resamples_there_is_a_difference_and_no_interval():
    after = lowered(0.5)
    ap = change_of_ap({100: RANDOM}, {100: after}, SETS, 0)[100]["all"]["AP"]
    point = change_of_rates(RANDOM, after, SETS, (0.25, 0.25), 0)["all"]["recall"]
    assert ap[0] < 0
    assert point[0] < 0
    assert ap[1:] == point[1:] == []
