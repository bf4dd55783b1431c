import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.balance import repeat_factors
from yolo_lt.balance.sampling import LAWS, SAMPLERS, auto_threshold
from yolo_lt.dataset import ClassStats, frequency_bins
from yolo_lt.errors import UsageError


def test_detectron2s_hand_case():
    """Class 0 in one of three images, threshold one half: sqrt(3/2), and 1 elsewhere."""
    assert repeat_factors([[0, 1], [1], [1]], thr=0.5) == pytest.approx([np.sqrt(1.5), 1, 1])


def test_an_image_without_labels_has_factor_1_and_counts_in_the_denominator():
    assert repeat_factors([[0], [], [], []], thr=1.0) == pytest.approx([2, 1, 1, 1])


def test_a_class_that_never_occurs_changes_nothing():
    assert repeat_factors([[0], []], num_classes=5, thr=1.0).tolist() == repeat_factors([[0], []], thr=1.0).tolist()


def test_none_repeats_nothing():
    assert repeat_factors([[0], [1], []], method="none", thr=1.0).tolist() == [1, 1, 1]


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=25), st.floats(1e-4, 1))
def test_factors_equal_the_formula_image_by_image(lists, thr):
    frequency = [sum(c in row for row in lists) / len(lists) for c in range(6)]
    expected = [max((max(1.0, np.sqrt(thr / frequency[c])) for c in row), default=1.0) for row in lists]
    np.testing.assert_allclose(repeat_factors(lists, 6, thr=thr), expected, rtol=1e-12)


@pytest.mark.parametrize("thr", [0, -1, float("nan"), float("inf")])
def test_a_threshold_that_is_no_fraction_is_refused(thr):
    with pytest.raises(UsageError, match="repeat_thr"):
        repeat_factors([[0]], thr=thr)


def test_a_threshold_above_one_would_repeat_everything():
    with pytest.raises(UsageError, match=r"repeat_thr=1\.5"):
        repeat_factors([[0]], thr=1.5)


def test_an_unknown_sampler_lists_the_known():
    with pytest.raises(UsageError, match=r"none \| rfs \| irfs \| eirfs \| class_aware \| inverse"):
        repeat_factors([[0]], method="weighted")


LONG = [[0, 0, 0]] * 80 + [[0, 1]] * 12 + [[1]] * 4 + [[2]] * 2 + [[]] * 2
METHODS = [(name, variant) for name, variants in SAMPLERS.items() for variant in variants]


@pytest.mark.parametrize(("method", "variant"), METHODS)
@pytest.mark.parametrize(
    ("lists", "classes"),
    [([[0]], 1), ([[]], 1), ([[], [], []], 3), ([[0], []], 5), ([[2, 2], [0]], 3)],
    ids=[
        "one image",
        "one empty image",
        "all images empty",
        "classes without images",
        "a gap between classes",
    ],
)
def test_odd_sets_have_finite_factors(method, variant, lists, classes):
    factors = repeat_factors(lists, classes, method=method, variant=variant, thr=0.5)
    assert factors.dtype == np.float64
    assert (np.isfinite(factors) & (factors > 0)).all()
    assert (factors[[not row for row in lists]] == 1).all()


@pytest.mark.parametrize(("method", "variant"), [m for m in METHODS if m[0] != "none"])
def test_every_sampler_draws_the_rarest_class_more_often(method, variant):
    """The share of draws with class 2 is above its share of the images, and class 0's is below."""
    factors = repeat_factors(LONG, 3, method=method, variant=variant, thr=0.9)
    stats = ClassStats.from_lists(LONG, 3)
    gain = stats.images_with(factors) / factors.sum() / (stats.image_counts / len(LONG))
    assert gain[2] > 1.2
    assert gain[2] > gain[1] > gain[0]
    assert gain[0] < 1


@pytest.mark.parametrize(("method", "variant"), [m for m in METHODS if m[0] not in ("none", "eirfs")])
def test_factors_of_a_class_alone_equal_the_formula(method, variant):
    """Class 2 is in 2 of 100 images and 2 of 270 boxes, at t = 0.9."""
    f, g = 2 / 100, 2 / (240 + 24 + 4 + 2)
    of_irfs = {"geometric": (f * g) ** 0.5, "arithmetic": (f + g) / 2, "harmonic": 2 / (1 / f + 1 / g)}
    of_irfs |= {"quadratic": ((f**2 + g**2) / 2) ** 0.5, "instance": g}
    expected = {
        "rfs": {"sqrt": (0.9 / f) ** 0.5, "linear": 0.9 / f},
        "irfs": {k: (0.9 / v) ** 0.5 for k, v in of_irfs.items()},
        "class_aware": {"": 98 / 3 / 2},  # a third of the labelled images' draws, for two images
        "inverse": {"": 50 * 98 / (80 * 100 / 92 + 16 * 100 / 16 + 2 * 50)},
    }[method][variant]
    assert repeat_factors(LONG, 3, method=method, variant=variant, thr=0.9)[96] == pytest.approx(expected)


def test_bounded_eirfs_equals_its_formula_and_original_does_not_stop():
    f = np.sqrt(2 / 100 * 2 / 270)
    bounded = repeat_factors(LONG, 3, method="eirfs", variant="bounded", thr=0.9, alpha=2)
    assert bounded[96] == pytest.approx(np.exp(2 * (1 - np.sqrt(f / 0.9))))
    assert bounded[0] == 1 < bounded[80] < bounded[96] < np.exp(2)
    assert repeat_factors(LONG, 3, method="eirfs", thr=0.9, alpha=2).max() > 1e4


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=25), st.sampled_from(LAWS))
def test_laws_keep_the_number_of_draws_with_and_without_a_cap(lists, method):
    labelled = np.array([bool(row) for row in lists])
    free = repeat_factors(lists, 6, method=method)
    capped = repeat_factors(lists, 6, method=method, cap=1.5)
    for factors in (free, capped):
        assert factors[labelled].sum() == pytest.approx(labelled.sum())
    assert capped.max() <= 1.5 + 1e-9
    below = labelled & (capped < 1.5 - 1e-9)  # who is not capped keeps the law among its like
    if below.any():
        np.testing.assert_allclose(capped[below] / capped[below].sum(), free[below] / free[below].sum())


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=25))
def test_class_aware_gives_every_class_the_same_number_of_draws(lists):
    """Counting for a class what its images are drawn for it: factor 1 / n_c of each, scaled."""
    factors = repeat_factors(lists, 6, method="class_aware")
    counts = np.array([sum(c in row for row in lists) for c in range(6)])
    present = (counts > 0).sum()
    share = [sum(1 / counts[c] for c in set(row)) for row in lists]
    labelled = [bool(row) for row in lists]
    expected = np.where(labelled, np.array(share) * sum(labelled) / max(present, 1), 1)
    np.testing.assert_allclose(factors, expected)


def test_a_cap_bounds_repeat_factors():
    free, capped = (repeat_factors(LONG, 3, thr=0.9, cap=cap) for cap in (None, 3))
    assert free.max() > 3
    np.testing.assert_array_equal(capped, np.minimum(free, 3))


@pytest.mark.parametrize(("rounding", "function"), [("ceil", np.ceil), ("floor", np.floor)])
def test_roundings(rounding, function):
    free = repeat_factors(LONG, 3, thr=0.9)
    np.testing.assert_array_equal(repeat_factors(LONG, 3, thr=0.9, rounding=rounding), function(free))


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"variant": "cubic"}, "sampler_variant=cubic: sampler=rfs has sqrt | linear"),
        ({"method": "inverse", "variant": "sqrt"}, "sampler=inverse has none"),
        ({"cap": 0.5}, "repeat_cap=0.5"),
        ({"cap": float("nan")}, "repeat_cap=nan"),
        ({"rounding": "up"}, "rounding=up: sampler=rfs takes stochastic | ceil | floor"),
        ({"method": "class_aware", "rounding": "ceil"}, "sampler=class_aware takes stochastic"),
    ],
)
def test_what_a_sampler_does_not_know_is_refused(kw, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        repeat_factors(LONG, 3, **kw)


def test_auto_is_the_rarest_head_class():
    stats = ClassStats.from_lists([[0]] * 90 + [[1]] * 9 + [[2]], 3, ["a", "b", "c"])
    thr, why = auto_threshold(stats, frequency_bins(stats.image_counts))
    assert thr == pytest.approx(0.90)
    assert "a" in why
    factors = repeat_factors(stats, thr=thr)
    assert factors[0] == 1
    assert (factors[90:] > 1).all()


def test_auto_on_lvis_bins_is_lvis_threshold():
    """Frequent is more than 100 of 100,170 images there, so the border is LVIS' own 0.001."""
    stats = ClassStats.from_lists([[0]] * 101 + [[1]] * 100 + [[]] * 99_969, 2)
    thr, _ = auto_threshold(stats, frequency_bins(stats.image_counts, (10, 100)))
    assert thr == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize(("method", "variant"), [("irfs", "geometric"), ("irfs", "instance"), ("eirfs", "bounded")])
def test_auto_is_the_border_in_the_samplers_own_frequency(method, variant):
    """Nothing of the head is repeated, the rarest head class sits on the border."""
    stats = ClassStats.from_lists([[0, 0]] * 70 + [[1]] * 20 + [[2]] * 9 + [[3]], 4, list("abcd"))
    bins = frequency_bins(stats.image_counts, (1, 9))
    thr, why = auto_threshold(stats, bins, method, variant)
    factors = repeat_factors(stats, method=method, variant=variant, thr=thr)
    assert (factors[:90] == 1).all()
    assert (factors[90:] > 1).all()
    assert (
        f"(b) is in 20 of 100 images with 20 of 170 boxes, their {variant if method == 'irfs' else 'geometric'} mean"
        in why
    )


def test_auto_of_the_original_eirfs_is_the_authors():
    stats = ClassStats.from_lists(LONG, 3)
    thr, why = auto_threshold(stats, frequency_bins(stats.image_counts), "eirfs", "original")
    assert thr == 1e-4
    assert "authors" in why
