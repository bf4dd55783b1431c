import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.balance.stream import epoch_indices, epoch_length

FACTORS = st.lists(st.floats(1, 20), min_size=1, max_size=60).map(np.array)


@given(FACTORS, st.integers(0, 5), st.integers(0, 9), st.integers(1, 4), st.booleans())
def test_ranks_are_equally_long_and_together_are_the_epoch(factors, seed, epoch, world, fixed):
    parts = [epoch_indices(factors, seed, epoch, r, world, fixed) for r in range(world)]
    length = epoch_length(factors, world, fixed)
    assert {len(p) for p in parts} == {length // world}
    counts = np.bincount(np.concatenate(parts), minlength=len(factors))
    expected = factors * length / factors.sum()
    assert (counts >= np.floor(expected - 1e-9)).all()
    assert (counts <= np.ceil(expected + 1e-9)).all()


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
