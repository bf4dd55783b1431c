import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from yolo_lt.calibrate import logit_affine
from yolo_lt.calibrate.fit import COMMON, PRIOR, learn


def detections(sizes, scales, shifts, seed=0):
    """Logits around -2 by class, right with the probability sigmoid(scale z + shift)."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(sizes)), sizes)
    z = rng.normal(-2, 2, len(classes))
    p = 1 / (1 + np.exp(-np.array(scales)[classes] * z - np.array(shifts)[classes]))
    return z, classes, rng.random(len(classes)) < p


def written_out(x, z, classes, right, num_classes, weights, prior, shifts):
    """The loss in loops; x holds log scales, then shifts, then the common pair."""
    log_scale, shift = x[:num_classes], x[num_classes : 2 * num_classes] * shifts
    total = 0.0
    for c in range(num_classes):
        entropy = share = 0.0
        for k in np.flatnonzero(classes == c):
            p = 1 / (1 + np.exp(-np.exp(log_scale[c]) * z[k] - shift[c]))
            entropy -= weights[k] * np.log(p if right[k] else 1 - p)
            share += weights[k]
        if share:
            total += entropy / share * right[classes == c].sum()
        total += prior / 2 * (log_scale[c] - x[-2]) ** 2 + prior / 2 * (shift[c] - x[-1] * shifts) ** 2
    return total + prior * COMMON / 2 * (x[-2] ** 2 + (x[-1] * shifts) ** 2)


SMALL = detections([25, 12, 6], [1.3, 0.8, 1], [0.5, -0.3, 1], seed=16)
WEIGHTS = np.random.default_rng(4).integers(1, 4, len(SMALL[0])).astype(float)


@pytest.mark.parametrize("shifts", [True, False])
@pytest.mark.parametrize("prior", [PRIOR, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_optimum_is_that_of_the_loss_written_out(shifts, prior, weights):
    z, classes, right = SMALL
    assert np.bincount(classes, right).tolist() == [7, 4, 3]
    args = (z, classes, right, 3, np.ones(len(z)) if weights is None else weights, prior, shifts)
    theirs = minimize(written_out, np.zeros(8), args=args, method="BFGS", options={"gtol": 1e-4}).x
    scale, shift = learn(z, classes, right, 3, weights, shifts, prior)
    np.testing.assert_allclose(np.log(scale), theirs[:3], atol=1e-3)
    np.testing.assert_allclose(shift, theirs[3:6] * shifts, atol=2e-3)


@pytest.mark.parametrize("prior", [PRIOR, 0.1])
def test_no_pair_of_temperatures_on_a_grid_is_better(prior):
    """The best common one of two classes is their sum over 2 + COMMON."""
    z, classes, right = detections([30, 12], [2, 0.6], [0, 0], seed=33)
    assert np.bincount(classes, right).tolist() == [5, 5]
    side = np.linspace(-1.5, 1.5, 601)
    own = []
    for c in (0, 1):
        p = 1 / (1 + np.exp(-np.exp(side)[:, None] * z[classes == c]))
        own.append(right[classes == c].sum() * -np.log(np.where(right[classes == c], p, 1 - p)).mean(1))
    first, second = side[:, None], side
    common = (first + second) / (2 + COMMON)
    pull = (first - common) ** 2 + (second - common) ** 2 + COMMON * common**2
    loss = own[0][:, None] + own[1] + prior / 2 * pull
    best = np.array(np.unravel_index(loss.argmin(), loss.shape))
    assert ((best > 0) & (best < 600)).all()
    scale, _ = learn(z, classes, right, 2, shifts=False, prior=prior)
    np.testing.assert_allclose(np.log(scale), side[best], atol=0.005)


def test_scale_and_shift_of_every_class_are_found_with_many_objects():
    scales, shifts = [1.0, 0.5, 1.8, 1.2], [0.0, -1, 0.7, 2]
    z, classes, right = detections([40_000] * 4, scales, shifts)
    assert np.bincount(classes, right).min() > 2000
    scale, shift = learn(z, classes, right, 4)
    np.testing.assert_allclose(scale, scales, rtol=0.04)
    np.testing.assert_allclose(shift, shifts, atol=0.05)


def test_temperatures_are_found_with_many_objects():
    z, classes, right = detections([40_000] * 3, [1.0, 0.5, 1.8], [0, 0, 0])
    affine = logit_affine("temperature", logits=z, classes=classes, right=right, num_classes=3)
    np.testing.assert_allclose(affine.scale, [1, 0.5, 1.8], rtol=0.03)
    assert affine.shift.tolist() == [0, 0, 0]


def test_calibrators_learn_by_this_function():
    z, classes, right = SMALL
    facts = {"logits": z, "classes": classes, "right": right, "num_classes": 3}
    scale, shift = learn(z, classes, right, 3, WEIGHTS)
    found = logit_affine("lws", **facts, weights=WEIGHTS, share=0.5)
    np.testing.assert_allclose(found.scale, np.sqrt(scale))
    np.testing.assert_allclose(found.shift, shift / 2)
    scale, _ = learn(z, classes, right, 3, shifts=False)
    np.testing.assert_allclose(logit_affine("temperature", **facts, share=0.5).scale, np.sqrt(scale))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_without_shifts_every_shift_is_exactly_0(seed):
    z, classes, right = detections([20, 3, 8], [1.5, 1, 0.5], [1, -1, 0], seed)
    scale, shift = learn(z, classes, right, 3, shifts=False)
    assert shift.tolist() == [0, 0, 0]
    assert not right.any() or (scale != 1).all()


def common_pair(scale, shift):
    """The pair at which the pulls of all classes and its own towards no change balance."""
    return np.log(scale).sum() / (len(scale) + COMMON), shift.sum() / (len(shift) + COMMON)


@pytest.mark.parametrize("wrong", [0, 500])
def test_a_class_without_a_right_detection_takes_the_common_pair(wrong):
    """However many wrong ones it has."""
    z, classes, right = detections([200, 200, 0, 0], [1.5, 0.6, 1, 1], [1, -0.5, 0, 0])
    z, classes, right = np.r_[z, np.full(wrong, -1.0)], np.r_[classes, np.full(wrong, 2)], np.r_[right, [False] * wrong]
    scale, shift = learn(z, classes, right, 4)
    log_scale, common_shift = common_pair(scale, shift)
    np.testing.assert_allclose(np.log(scale[2:]), log_scale, atol=1e-4)
    np.testing.assert_allclose(shift[2:], common_shift, atol=1e-4)
    known = learn(*(v[classes < 2] for v in (z, classes, right)), 2)
    np.testing.assert_allclose(scale[2:], np.exp(common_pair(*known)[0]), rtol=1e-3)
    assert abs(np.log(scale[0] / scale[1])) > 0.2


def test_nothing_right_at_all_changes_nothing():
    scale, shift = learn(np.array([-3.0, -1, 2]), np.array([0, 1, 1]), np.zeros(3, bool), 3)
    assert scale.tolist() == [1, 1, 1]
    assert shift.tolist() == [0, 0, 0]


def test_the_fewer_objects_a_class_has_the_nearer_it_is_to_the_common_scale():
    """The last class has the same detections throughout, each several times: alone it would learn one scale."""
    many = detections([3000] * 3, [0.8, 1, 1.2], [0, 0, 0])
    few = (
        np.array([-5.0, -4, -3, -2, -1, -0.3, 0.3, 1, 2]),
        np.zeros(9, int),
        np.array([0, 0, 0, 0, 0, 1, 0, 1, 1], bool),
    )
    own = np.log(learn(*few, 1, shifts=False, prior=1e-6)[0][0])
    at = []
    for times in (1, 4, 16, 256):
        more = [np.tile(v, times) for v in few]
        parts = many[0], many[1], many[2]
        z, classes, right = (np.r_[a, b] for a, b in zip(parts, (more[0], more[1] + 3, more[2]), strict=True))
        scale, shift = learn(z, classes, right, 4, shifts=False)
        common = common_pair(scale, shift)[0]
        assert common < np.log(scale[3]) < own
        at.append((np.log(scale[3]) - common) / (own - common))
    assert (np.diff(at) > 0.02).all()
    assert at[0] < 0.5
    assert at[-1] > 0.9


def test_wrong_detections_twice_equal_weight_2():
    z, classes, right = SMALL
    twice = np.flatnonzero(~right)[::2]
    more = [np.r_[v, v[twice]] for v in SMALL]
    weights = np.ones(len(z))
    weights[twice] = 2
    repeated, weighed, alike = learn(*more, 3), learn(z, classes, right, 3, weights), learn(z, classes, right, 3)
    np.testing.assert_allclose(weighed, repeated, atol=1e-4)
    assert np.abs(weighed[1] - alike[1]).max() > 0.05


def test_every_detection_twice_is_twice_the_objects_and_so_half_the_pull():
    z, classes, right = SMALL
    again = np.tile(np.arange(len(z)), 2)
    np.testing.assert_allclose(
        learn(z[again], classes[again], right[again], 3), learn(*SMALL, 3, prior=PRIOR / 2), atol=1e-3
    )


def test_weights_of_a_class_matter_only_in_their_proportions():
    z, classes, right = SMALL
    found = learn(z, classes, right, 3, WEIGHTS)
    np.testing.assert_allclose(learn(z, classes, right, 3, WEIGHTS * np.array([1, 7, 0.1])[classes]), found, atol=1e-4)
    assert np.abs(np.subtract(found, learn(z, classes, right, 3))).max() > 0.05


def test_a_detection_with_weight_0_is_not_there():
    z, classes, right = SMALL
    gone = np.flatnonzero(~right)[::2]
    weights = np.ones(len(z))
    weights[gone] = 0
    without = [np.delete(v, gone) for v in SMALL]
    np.testing.assert_allclose(learn(z, classes, right, 3, weights), learn(*without, 3), atol=1e-4)
