import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yolo_lt.balance.stream import _scaled, _systematic, epoch_indices, epoch_length

FACTORS = st.lists(st.floats(1, 20), min_size=1, max_size=60).map(np.array)
NEAR = st.sampled_from([1.0, 1.1, 4 / 3, 2.0, 3.3])
ROUND = st.lists(NEAR, min_size=1, max_size=60).map(np.array)  # sums that are whole, or would be but for rounding


@given(FACTORS, st.integers(0, 5), st.integers(0, 9), st.integers(1, 4), st.booleans())
def test_ranks_are_equally_long_and_together_are_the_epoch(factors, seed, epoch, world, fixed):
    parts = [epoch_indices(factors, seed, epoch, r, world, fixed) for r in range(world)]
    length = epoch_length(factors, world, fixed)
    assert {len(p) for p in parts} == {length // world}
    counts = np.bincount(np.concatenate(parts), minlength=len(factors))
    expected = factors * length / factors.sum()
    assert (counts >= np.floor(expected - 1e-9)).all()
    assert (counts <= np.ceil(expected + 1e-9)).all()


@given(FACTORS | ROUND, st.integers(0, 5), st.integers(0, 9), st.integers(1, 4))
def test_no_epoch_misses_an_image_with_a_factor_of_1_or_more(factors, seed, epoch, world):
    drawn = np.concatenate([epoch_indices(factors, seed, epoch, r, world) for r in range(world)])
    assert (np.bincount(drawn, minlength=len(factors)) >= np.floor(factors)).all()


@example(np.array([4 / 3, 4 / 3, 2, 1, 3.3, 1.1, 3.3, 3.3, 4 / 3, 2]), 1)  # their plain running sum would lose one
@given(FACTORS | ROUND, st.integers(1, 4))
def test_nor_would_one_that_starts_in_the_last_digits_of_a_border(factors, world):
    """What random starts would hit once in a billion epochs."""
    length = epoch_length(factors, world)
    expected = _scaled(factors, length)
    for start in np.cumsum(expected) % 1:
        counts = _systematic(expected, length, start)
        assert (counts >= np.floor(factors)).all()
        assert counts.sum() == length


@pytest.mark.parametrize("rest", [[], [4 / 3] * 30_000, [1.1] * 7, [1 + 2e-7]])
def test_rounding_over_many_images_misses_none(rest):
    factors = np.r_[np.ones(100_000), rest]
    for epoch in range(5):
        counts = np.bincount(epoch_indices(factors, 0, epoch), minlength=len(factors))
        assert counts.min() == 1
        assert counts.sum() == epoch_length(factors)
    assert _scaled(factors, epoch_length(factors))[0] >= 1


@pytest.mark.parametrize("start", [0.0, 0.5, np.nextafter(1.0, 0.0)])
def test_the_length_is_exact_wherever_the_points_start(start):
    for factors in (np.full(3, 1 / 3), np.full(30_000, 4 / 3), np.r_[np.full(30_000, 4 / 3), np.ones(9)]):
        counts = _systematic(factors, round(factors.sum()), start)
        assert counts.sum() == round(factors.sum())
        assert set(counts.tolist()) <= {0, 1, 2}


def test_growing_epochs_are_rounded_up_but_not_for_the_last_digits():
    assert epoch_length(np.array([1.0, 1.2])) == 3
    noisy = np.full(20, 1.1)
    assert noisy.sum() > 22, "else the next line shows nothing"
    assert epoch_length(noisy) == 22
    assert epoch_length(np.array([0.1])) == 1


@given(FACTORS, st.integers(0, 5))
def test_it_is_a_pure_function(factors, epoch):
    first = epoch_indices(factors, 3, epoch)
    np.random.seed(epoch)
    assert (epoch_indices(factors, 3, epoch) == first).all()


def test_equal_factors_are_a_permutation():
    for epoch in range(3):
        assert sorted(epoch_indices(np.ones(17), 0, epoch)) == list(range(17))


def test_epochs_and_seeds_differ():
    factors = np.linspace(1, 3, 50)
    base = epoch_indices(factors, 0, 0)
    assert (base != epoch_indices(factors, 0, 1)).any()
    assert (base != epoch_indices(factors, 1, 0)).any()


@pytest.mark.parametrize("fixed", [False, True])
def test_the_expectation_is_the_factor(fixed):
    """Stochastic rounding: over many epochs every image is drawn in proportion to its factor, within 4 sigma."""
    factors = np.array([1.0, 1.3, 1.5, 2.25, 4.7, 1.0, 3.1])
    epochs = 4000
    counts = sum(np.bincount(epoch_indices(factors, 0, e, fixed=fixed), minlength=7) for e in range(epochs))
    expected = factors * epoch_length(factors, 1, fixed) / factors.sum()
    sigma = np.sqrt(np.maximum((expected % 1) * (1 - expected % 1), 1e-12) / epochs)
    assert (np.abs(counts / epochs - expected) < 4 * sigma + 1e-9).all()


def test_fixed_keeps_the_number_of_draws():
    assert epoch_length(np.full(10, 3.0)) == 30
    assert epoch_length(np.full(10, 3.0), fixed=True) == 10
    assert epoch_length(np.full(10, 1.0), world=4) == 12
