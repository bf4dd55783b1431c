import numpy as np
import pytest

from yolo_lt.errors import LTError
from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.bootstrap import bootstrap_intervals
from yolo_lt.evaluate.compare import paired_difference, verdict

SETS = [np.array([0, 1])]


def matches(quality, images=40, seed=0, first=0):
    """Two classes, one box each per image; a detection is right with the given probability."""
    rng = np.random.default_rng(seed)
    box, far = [10, 10, 50, 50], [200, 200, 5, 5]
    ids = range(first, first + images)
    gt = {
        "images": [{"id": i} for i in ids],
        "categories": [{"id": 0}, {"id": 1}],
        "annotations": [{"image_id": i, "category_id": c, "bbox": box} for i in ids for c in (0, 1)],
    }
    dets = [
        {"image_id": i, "category_id": c, "bbox": box if rng.random() < quality else far, "score": rng.random()}
        for i in ids
        for c in (0, 1)
    ]
    return evaluate(gt, dets, bootstrap=0).matches


def test_a_run_against_itself_differs_by_nothing():
    run = matches(0.6)
    difference, interval = paired_difference([run], [run], SETS)
    assert (difference == 0).all()
    assert (interval == 0).all()


def test_the_difference_is_that_of_the_plain_numbers_and_changes_sign_with_the_sides():
    good, bad = matches(0.9), matches(0.4, seed=1)
    difference, (low, high) = paired_difference([good], [bad], SETS)
    plain = [evaluate_ap50(m) for m in (good, bad)]
    assert difference[0, 1] == pytest.approx(plain[0] - plain[1])
    assert low[0, 1] > 0
    assert verdict(low[0, 1], high[0, 1]) == "better"
    mirrored, (low2, high2) = paired_difference([bad], [good], SETS)
    np.testing.assert_allclose(mirrored, -difference)
    np.testing.assert_allclose([low2, high2], [-high, -low])


def evaluate_ap50(m):
    from yolo_lt.evaluate.metrics import class_metrics, set_means

    return set_means(class_metrics(m), SETS)[0, 1]


def test_pairing_is_tighter_than_two_intervals():
    """Runs that err on the same images: their difference is known far better than either of them."""
    run = matches(0.5)
    better = matches(0.5)
    better.tp[:3] = True
    _, (low, high) = paired_difference([better], [run], SETS)
    alone = bootstrap_intervals(run, SETS)
    assert high[0, 1] - low[0, 1] < 0.5 * (alone[1, 0, 1] - alone[0, 0, 1])


def test_seeds_that_disagree_widen_the_interval():
    """The same images: one pair says better, one says worse."""
    a, b = matches(0.9), matches(0.4, seed=1)
    _, (low, high) = paired_difference([a, b], [b, a], SETS)
    assert verdict(low[0, 1], high[0, 1]) == "no difference shown"
    _, (one_low, one_high) = paired_difference([a], [b], SETS)
    assert high[0, 1] - low[0, 1] > one_high[0, 1] - one_low[0, 1]


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(LTError, match="as many runs"):
        paired_difference([matches(0.5)], [], SETS)
    with pytest.raises(LTError, match="different images"):
        paired_difference([matches(0.5)], [matches(0.5, first=7)], SETS)


def test_verdict():
    assert [verdict(0.1, 0.2), verdict(-0.2, -0.1), verdict(-0.1, 0.1)] == ["better", "worse", "no difference shown"]
