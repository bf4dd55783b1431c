"""Factors of stage two: which images are drawn, how often, and how many draws an epoch has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.balance.strategy import MOST_CASES, focus, hard, tail_images
from yolo_lt.balance.stream import epoch_indices, epoch_length
from yolo_lt.dataset.bins import frequency_bins
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError

ROWS = [[0]] * 60 + [[0, 1]] * 12 + [[1, 2]] * 2 + [[2]] * 2 + [[]] * 4
STATS = ClassStats.from_lists(ROWS, 3)
TAIL = np.array([2 in row for row in ROWS])
BINS = frequency_bins(STATS.image_counts)


def factors_and_importance():
    pair = st.tuples(st.floats(1, 5), st.integers(0, 9))
    return st.lists(pair, min_size=1, max_size=40).map(
        lambda x: (np.array([f for f, _ in x]), np.array([i for _, i in x]))
    )


def plan(**keys):
    return make_plan(STATS, {**config.resolve({"recipe": "baseline", **keys}), "head_of": "last.pt"})


def drawn(factors, epochs=1, fixed=False):
    indices = np.concatenate([epoch_indices(factors, 0, e, fixed=fixed) for e in range(epochs)])
    return np.bincount(indices, minlength=len(factors))


def test_tail_images_are_those_with_a_tail_class():
    assert BINS.tail.tolist() == [2]
    np.testing.assert_array_equal(tail_images(STATS, BINS), TAIL)


def test_no_tail_image_is_an_error_with_the_way_out():
    stats = ClassStats.from_lists([[0]] * 5 + [[1]] * 5, 2)
    with pytest.raises(LTError, match="no training image holds a tail class: use strategy=all"):
        tail_images(stats, frequency_bins(stats.image_counts))


@settings(max_examples=100, deadline=None)
@given(factors_and_importance(), st.floats(0, 0.95))
def test_the_others_get_their_share_and_the_chosen_keep_their_proportions(case, replay):
    factors, importance = case
    chosen = importance > 0
    out = focus(factors, importance, replay)
    assert (out >= 0).all()
    if chosen.any():
        np.testing.assert_allclose(out[chosen], (factors * importance)[chosen])
    if chosen.any() and not chosen.all():
        assert out[~chosen].sum() == pytest.approx(replay * out.sum(), abs=1e-9)
        np.testing.assert_allclose(out[~chosen] * factors[~chosen].sum(), factors[~chosen] * out[~chosen].sum())
    if not chosen.any():
        np.testing.assert_array_equal(out, factors)


@settings(max_examples=100, deadline=None)
@given(factors_and_importance(), st.floats(0, 0.95))
def test_mining_never_changes_the_length_of_an_epoch(case, replay):
    factors, cases = case
    out = hard(factors, cases, replay)
    for fixed in (False, True):
        assert epoch_length(out, fixed=fixed) == epoch_length(factors, fixed=fixed)


def test_a_crowd_of_cases_counts_like_a_few():
    out = hard(np.ones(4), np.array([1, MOST_CASES, 50, 0]), replay=0.5)
    assert out[1] == out[2] == pytest.approx(MOST_CASES * out[0])
    assert out[3] == pytest.approx(2), "half of the four draws"


def test_strategy_tail_draws_tail_images_and_the_replay_share():
    factors = plan(strategy="tail", replay=0.5).factors
    assert factors[TAIL].tolist() == [1.0] * 4
    assert epoch_length(factors) == 8
    counts = drawn(factors, epochs=30)
    assert counts[TAIL].tolist() == [30] * 4, "every tail image once in every epoch"
    assert counts[~TAIL].sum() == 120


def test_without_replay_nothing_else_is_drawn():
    for keys in ({"sampler": "none"}, {"sampler": "rfs"}, {"sampler": "rfs", "epoch_length": "fixed"}):
        factors = plan(strategy="tail", replay=0, **keys).factors
        counts = drawn(factors, epochs=50, fixed=keys.get("epoch_length") == "fixed")
        assert counts[~TAIL].sum() == 0
        assert (counts[TAIL] > 0).all()


def test_tail_composes_with_the_sampler():
    """An image with the tail class alone is drawn as often as the sampler asks; the tail share is that of replay."""
    alone = plan(strategy="all", sampler="rfs").factors
    factors = plan(strategy="tail", sampler="rfs", replay=0.25).factors
    np.testing.assert_allclose(factors[TAIL], alone[TAIL])
    assert factors[~TAIL].sum() / factors.sum() == pytest.approx(0.25)


def test_epoch_length_fixed_has_a_draw_per_image_with_the_same_shares():
    made = plan(strategy="tail", sampler="rfs", epoch_length="fixed", replay=0.5)
    counts = drawn(made.factors, epochs=20, fixed=True)
    assert counts.sum() == 20 * len(ROWS)
    assert counts[TAIL].sum() == pytest.approx(counts.sum() / 2, rel=0.02)


def test_the_plan_says_what_the_strategy_does():
    assert (
        "strategy=tail: 4 images with tail classes, 50% replay of the other 76; 8 draws per epoch"
        in plan(strategy="tail").notes
    )
    assert "mines before the first and every 3. epoch after it" in plan(strategy="hard", mine_every=3).notes[0]
    np.testing.assert_array_equal(plan(strategy="hard").factors, np.ones(len(ROWS)))


def test_strategies_sample_only_in_stage_two():
    keys = config.resolve({"recipe": "baseline", "strategy": "tail"})
    assert not make_plan(STATS, keys).samples, "train ignores the keys that recipe=decoupled keeps for later"
    assert plan(strategy="tail").samples
    assert plan(strategy="hard").samples
    assert not plan(strategy="all").samples
