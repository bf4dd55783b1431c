import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.calibrate import CALIBRATORS, Affine, logit_affine
from yolo_lt.errors import LTError, UsageError

LENGTHS = np.array([[3, 4], [6, 8], [0.3, 0.4]])  # norms 5, 10 and 0.5
SEEN = {  # detections of two classes, some right, some wrong
    "logits": np.array([-3, -2.5, -1, 0.5, 2, -3, -2, 0.2, 1.5]),
    "classes": np.array([0, 0, 0, 0, 0, 1, 1, 1, 1]),
    "right": np.array([0, 0, 1, 0, 1, 0, 1, 0, 1], bool),
    "num_classes": 2,
}
FACTS = {
    "norcal": {"image_counts": [100, 10, 1]},
    "logit_adjustment": {"image_counts": [100, 10, 1]},
    "logn": {"mean": np.array([-4.0, -6, -5]), "std": np.array([1.0, 2, 0.5])},
    "tau_norm": {"weight": LENGTHS},
    "lws": SEEN,
    "temperature": SEEN,
}
quarters = st.integers(-80, 80).map(lambda n: n / 4)  # so that sums and products have no rounding


def test_scale_and_shift_act_per_class_on_the_last_axis():
    affine = Affine(np.array([2.0, 0.5]), np.array([1.0, -3]))
    logits = np.arange(12.0).reshape(3, 2, 2)
    expected = [[[1, -2.5], [5, -1.5]], [[9, -0.5], [13, 0.5]], [[17, 1.5], [21, 2.5]]]
    np.testing.assert_array_equal(affine(logits), expected)


def test_a_kept_bias_is_left_out_of_the_scale():
    affine = Affine(np.array([2.0, 0.5]), np.array([1.0, -3]), keep_bias=True)
    np.testing.assert_array_equal(affine(np.array([[5.0, 6]]), np.array([-10.0, 2])), [[21, 1]])


@given(*[st.lists(quarters, min_size=3, max_size=3)] * 3, st.sampled_from([0.25, 0.5, 1, 2, 4]))
def test_a_kept_bias_equals_scaled_weights_with_the_old_bias(product, bias, shift, scale):
    """What a convolution gives is a product with the weights plus a bias."""
    product, bias, shift = np.array(product), np.array(bias), np.array(shift)
    affine = Affine(np.array([scale, 1.0, 2.0]), shift, keep_bias=True)
    np.testing.assert_array_equal(affine(product + bias, bias), affine.scale * product + bias + shift)


def test_only_where_the_bias_is_kept_does_it_matter():
    scale, shift, logits = np.array([2.0, 0.5]), np.array([1.0, -3]), np.array([[4.0, 8]])
    np.testing.assert_array_equal(Affine(scale, shift)(logits, np.array([7.0, 7])), [[9, 1]])
    np.testing.assert_array_equal(Affine(scale, shift, keep_bias=True)(logits), [[9, 1]])


@given(st.lists(quarters, min_size=4, max_size=4), st.lists(quarters, min_size=4, max_size=4), st.integers(0, 3))
def test_relative_to_a_class_no_pair_of_shifted_logits_changes_its_order(shift, logits, c):
    affine, z = Affine(np.ones(4), np.array(shift)), np.array(logits)
    before, after = affine(z), affine.relative_to(c)(z)
    assert after[c] == z[c]
    np.testing.assert_array_equal(np.sign(before[:, None] - before), np.sign(after[:, None] - after))


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]), min_size=4, max_size=4),
    st.lists(quarters, min_size=4, max_size=4),
    st.lists(quarters, min_size=4, max_size=4),
    st.integers(0, 3),
)
def test_relative_to_a_class_is_the_map_followed_by_one_that_all_classes_share(scale, shift, logits, c):
    affine, z = Affine(np.array(scale), np.array(shift)), np.array(logits)
    back = (affine(z) - shift[c]) / scale[c]  # the same line for every class, and rising: no order changes
    after = affine.relative_to(c)
    np.testing.assert_array_equal(after(z), back)
    assert (after.scale[c], after.shift[c]) == (1, 0)


def test_relative_to_a_class_with_a_kept_bias_leaves_that_class_alone():
    affine = Affine(np.array([2.0, 0.5, 4]), np.array([1.0, -3, 2]), keep_bias=True)
    bias = np.array([-4.0, -5, -6])
    after = affine.relative_to(1)
    assert after.keep_bias
    logits = np.array([[1.0, 2, 3], [-7, -8, -9]])
    np.testing.assert_array_equal(after(logits, bias)[:, 1], logits[:, 1])
    np.testing.assert_array_equal(after.scale, [4, 1, 8])
    np.testing.assert_array_equal(after.shift, [8, 0, 10])


def test_relative_to_a_class_with_a_bias_that_all_classes_share_is_one_line_for_all():
    affine = Affine(np.array([2.0, 0.5, 4]), np.array([1.0, -3, 2]), keep_bias=True)
    bias, logits = np.full(3, -4.0), np.array([[1.0, 2, 3], [-7, -8, -9]])
    line = (affine(logits, bias) - bias - affine.shift[1]) / affine.scale[1] + bias
    np.testing.assert_array_equal(affine.relative_to(1)(logits, bias), line)


@pytest.mark.parametrize("keep_bias", [False, True])
def test_a_share_is_a_part_of_the_way(keep_bias):
    whole = Affine(np.array([4.0, 0.25]), np.array([1.0, -3]), keep_bias)
    logits, bias = np.array([[5.0, -7]]), np.array([-2.0, 3])
    np.testing.assert_array_equal(whole.share(0)(logits, bias), logits)
    np.testing.assert_array_equal(whole.share(1)(logits, bias), whole(logits, bias))
    half = whole.share(0.5)
    assert half.keep_bias == keep_bias
    np.testing.assert_array_equal(half.scale, [2, 0.5])
    np.testing.assert_array_equal(half.shift, [0.5, -1.5])


@pytest.mark.parametrize("part", [0.01, 0.3, 0.99])
def test_a_share_lies_between_no_change_and_the_whole(part):
    whole = Affine(np.array([4.0, 0.25]), np.array([1.0, -3]))
    found = whole.share(part)
    assert (np.abs(np.log(found.scale)) < np.abs(np.log(whole.scale))).all()
    assert (np.sign(np.log(found.scale)) == [1, -1]).all()
    assert (np.abs(found.shift) < np.abs(whole.shift)).all()
    assert (np.sign(found.shift) == [1, -1]).all()


@pytest.mark.parametrize("method", sorted(set(CALIBRATORS) - {"none"}))
def test_strength_0_changes_nothing(method):
    calibrator = CALIBRATORS[method]
    assert 0 not in calibrator.grid
    found = logit_affine(method, **FACTS[method], **{calibrator.strength: 0})
    for affine in (found, found.relative_to(1)):
        np.testing.assert_array_equal(affine.scale, 1)
        np.testing.assert_array_equal(affine.shift, 0)


@pytest.mark.parametrize("method", sorted(set(CALIBRATORS) - {"none"}))
def test_every_other_strength_changes_something_and_its_name_is_a_keyword(method):
    calibrator = CALIBRATORS[method]
    assert calibrator.strength in inspect.signature(calibrator.make).parameters
    for strength in calibrator.grid:
        affine = logit_affine(method, **FACTS[method], **{calibrator.strength: strength})
        assert np.abs(affine(np.array([-1.0] * len(affine.scale))) + 1).max() > 1e-3


def test_none_changes_nothing():
    for affine in (logit_affine("none", num_classes=3), logit_affine("none", image_counts=[5, 0, 1])):
        np.testing.assert_array_equal(affine(np.array([-5.0, 0, 3])), [-5, 0, 3])


@st.composite
def facts_of(draw, method):
    classes = draw(st.integers(2, 6))

    def numbers(low, high, count=classes):
        coarse = st.integers(int(low * 100), int(high * 100)).map(lambda n: n / 100)
        return np.array(draw(st.lists(coarse, min_size=count, max_size=count)))

    needs = CALIBRATORS[method].needs
    if needs == "counts":
        return {"image_counts": draw(st.lists(st.integers(1, 10**6), min_size=classes, max_size=classes))}
    if needs == "weight":
        return {"weight": numbers(-3, 3, 4 * classes).reshape(classes, 4)}
    if needs == "logits":
        return {"mean": numbers(-20, 5), "std": numbers(0.01, 10)}
    found = draw(st.integers(1, 30))
    right = draw(st.lists(st.booleans(), min_size=found, max_size=found))
    of = draw(st.lists(st.integers(0, classes - 1), min_size=found, max_size=found))
    return {"logits": numbers(-12, 6, found), "classes": np.array(of), "right": np.array(right), "num_classes": classes}


@pytest.mark.parametrize("method", sorted(set(CALIBRATORS) - {"none"}))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_class_changes_its_own_order_of_detections(method, data):
    calibrator = CALIBRATORS[method]
    strength = data.draw(st.sampled_from(calibrator.grid))
    found = logit_affine(method, **data.draw(facts_of(method)), **{calibrator.strength: strength})
    for affine in (found, found.relative_to(1)):
        assert (affine.scale > 0).all()
        rising = np.linspace(-15, 5, 41)[:, None] * np.ones(len(affine.scale))
        calibrated = affine(rising, np.full(len(affine.scale), -4.0))
        assert np.isfinite(calibrated).all()
        assert (np.diff(calibrated, axis=0) > 0).all()


@pytest.mark.parametrize("method", ["norcal", "logit_adjustment"])
@given(counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=8, unique=True), c=st.integers(0, 1))
def test_the_rarer_a_class_the_more_it_is_shifted_up(method, counts, c):
    affine = logit_affine(method, counts)
    order = np.argsort(counts)
    for found in (affine, affine.relative_to(c)):
        assert (found.scale == 1).all()
        assert (np.diff(found.shift[order]) < 0).all()
    assert (affine.relative_to(int(np.argmax(counts))).shift >= 0).all()


def test_norcal_divides_odds_by_a_power_of_the_count():
    affine = logit_affine("norcal", [16, 1, 4], gamma=0.5)
    odds = np.exp(affine(np.log([8.0, 8, 8])))
    np.testing.assert_allclose(odds, [2, 8, 4], rtol=1e-12)


def test_logit_adjustment_divides_odds_by_those_of_the_prior():
    affine = logit_affine("logit_adjustment", [6, 3, 1])
    odds = np.exp(affine(np.zeros(3)))
    np.testing.assert_allclose(odds, [4 / 6, 7 / 3, 9], rtol=1e-12)


def test_tau_norm_divides_weights_by_a_power_of_their_norm():
    affine = logit_affine("tau_norm", weight=LENGTHS, tau=2)
    np.testing.assert_allclose(affine.scale, [1 / 25, 1 / 100, 4], rtol=1e-12)
    assert affine.keep_bias
    assert not affine.shift.any()
    assert logit_affine("tau_norm", weight=LENGTHS).scale == pytest.approx([0.2, 0.1, 2])


def test_the_norm_is_that_of_all_levels_together():
    rng = np.random.default_rng(0)
    levels = [rng.normal(size=(5, f, 1, 1)) for f in (8, 16, 32)]
    joined = np.concatenate([w.reshape(5, -1) for w in levels], axis=1)
    expected = 1 / np.sqrt((joined**2).sum(1))
    for given_levels in (levels, tuple(levels), joined, [w[..., 0, 0] for w in levels]):
        np.testing.assert_allclose(logit_affine("tau_norm", weight=given_levels).scale, expected, rtol=1e-12)


def test_a_class_whose_weights_are_all_zero_keeps_its_scale():
    affine = logit_affine("tau_norm", weight=np.array([[3.0, 4], [0, 0]]))
    assert affine.scale.tolist() == [0.2, 1]


def test_logn_makes_the_lowest_mean_the_mean_of_all_and_every_deviation_1():
    """(z - mean + lowest) / std: of numbers with that mean and deviation, lowest / std is left, with deviation 1."""
    rng = np.random.default_rng(0)
    z = rng.normal([-4, -7, -5], [1, 3, 0.5], size=(1000, 3))
    mean, std = z.mean(0), z.std(0)
    after = logit_affine("logn", mean=mean, std=std)(z)
    np.testing.assert_allclose(after.std(0), 1, rtol=1e-12)
    np.testing.assert_allclose(after.mean(0), mean[1] / std, rtol=1e-12)


@pytest.mark.parametrize("method", ["norcal", "logit_adjustment"])
def test_classes_without_an_image_are_named(method):
    with pytest.raises(LTError, match=r"class 1, 3 has no training image") as e:
        logit_affine(method, [5, 0, 7, 0])
    assert e.value.exit_code == 1
    with pytest.raises(LTError, match=r"class 1, 2, 3, 4, 5 \(and 2 more\) has no training image"):
        logit_affine(method, [5, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("method", ["norcal", "logit_adjustment"])
def test_a_single_class_cannot_be_calibrated_against_others(method):
    with pytest.raises(LTError, match="there is one"):
        logit_affine(method, [5])


@pytest.mark.parametrize("method", ["norcal", "logit_adjustment"])
@pytest.mark.parametrize("counts", [[5, np.nan], [5, np.inf], [5, -1]])
def test_counts_that_are_no_numbers_from_0_are_refused(method, counts):
    with pytest.raises(LTError, match="image counts must be numbers from 0"):
        logit_affine(method, counts)


@pytest.mark.parametrize(
    ("method", "keyword", "value"),
    [("norcal", "gamma", -0.1), ("norcal", "gamma", np.nan), ("logit_adjustment", "tau", -1), ("tau_norm", "tau", -1)]
    + [(m, "share", -0.5) for m in ("logn", "lws", "temperature")],
)
def test_a_strength_is_a_number_from_0(method, keyword, value):
    with pytest.raises(LTError, match=keyword):
        logit_affine(method, **FACTS[method], **{keyword: value})


@pytest.mark.parametrize(
    ("mean", "std"),
    [([-1.0, -2], [1.0, 0]), ([-1.0, np.nan], [1.0, 1]), ([-1.0, -2], [1.0, np.nan]), ([-1.0, -np.inf], [1.0, 1])],
)
def test_logits_that_do_not_vary_or_are_not_finite_cannot_be_normalised(mean, std):
    with pytest.raises(LTError, match="cannot be normalised"):
        logit_affine("logn", mean=mean, std=std)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    with pytest.raises(LTError, match="method=tau_norm"):
        logit_affine("tau_norm", weight=np.array([[3.0, 4], [value, 1]]))


@pytest.mark.parametrize(
    ("method", "facts", "says"),
    [
        (
            "norcel",
            {},
            "method=norcel: expected none | norcal | logit_adjustment | logn | tau_norm | lws | temperature",
        ),
        ("norcal", {"image_counts": [1, 2], "tau": 1}, "method=norcal takes image_counts, gamma, not tau"),
        ("norcal", {"image_counts": [1, 2], "weight": LENGTHS}, "method=norcal takes image_counts, gamma, not weight"),
        ("tau_norm", {"weight": LENGTHS, "image_counts": [1, 2, 3]}, "takes weight, tau, not image_counts"),
        ("norcal", {}, "method=norcal needs image_counts"),
        ("norcal", {"image_counts": None, "gamma": 0.5}, "method=norcal needs image_counts"),
        ("logn", {"mean": [0, 1]}, "method=logn needs std"),
        ("lws", {"num_classes": 2}, "method=lws needs logits and classes and right"),
        ("none", {}, "method=none needs num_classes"),
    ],
)
def test_wrong_usage(method, facts, says):
    with pytest.raises(UsageError) as e:
        logit_affine(method, **facts)
    assert says in str(e.value)
    assert e.value.exit_code == 2


def test_a_lifted_map_adds_the_same_to_every_logit():
    found = Affine(np.array([2.0, 0.5]), np.array([1.0, -1]), keep_bias=True)
    z, bias = np.array([[0.3, -2.0], [5, 1]]), np.array([0.1, 0.2])
    assert found.lifted(-0.7)(z, bias) == pytest.approx(found(z, bias) - 0.7)
