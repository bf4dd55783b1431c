import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yolo_lt.balance.federated import draw_classes, remaining_weights, sampling_weights
from yolo_lt.errors import UsageError


@st.composite
def batches(draw):
    """Images per class, and the classes that appeared."""
    counts = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
    return counts, draw(st.lists(st.sampled_from(range(len(counts))), unique=True))


@example(([0, 0], []), 50, 0)
@example(([0, 3], [0]), 2, 0)
@given(batches(), st.integers(0, 40), st.integers(0, 99))
def test_a_batch_has_what_appeared_and_as_many_others_as_there_is_room_for(batch, number, seed):
    """A class without images is there only if it appeared."""
    counts, appeared = np.array(batch[0]), np.array(batch[1], np.int64)
    weights = sampling_weights(counts)
    chosen = draw_classes(weights, appeared, number, np.random.default_rng(seed))
    others = np.setdiff1d(np.flatnonzero(counts), appeared)
    assert chosen[appeared].all()
    assert chosen.sum() == len(appeared) + min(max(number - len(appeared), 0), len(others))
    assert np.isin(np.flatnonzero(chosen), np.union1d(appeared, others)).all()
    assert (weights == sampling_weights(counts)).all(), "not written to"


@given(batches())
def test_what_appeared_is_not_drawn_again(batch):
    counts, appeared = np.array(batch[0]), np.array(batch[1], np.int64)
    rest = remaining_weights(sampling_weights(counts), appeared)
    assert np.array_equal(np.flatnonzero(rest), np.setdiff1d(np.flatnonzero(counts), appeared))


def test_weights_are_powers_of_the_images():
    assert sampling_weights([100, 4, 1, 0]).tolist() == [10, 2, 1, 0]
    assert sampling_weights([100, 4, 1, 0], 1).tolist() == [100, 4, 1, 0]
    assert sampling_weights([100, 4, 1, 0], 0).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_one_more_class_is_drawn_in_proportion_to_its_weight(power):
    """Within four standard errors."""
    draws, rng = 20_000, np.random.default_rng(0)
    weights = sampling_weights([50, 1, 4, 9, 100, 0], power)
    frequency = sum(draw_classes(weights, np.array([0]), 2, rng) for _ in range(draws)) / draws
    share = weights[1:] / weights[1:].sum()
    assert frequency[0] == 1
    assert (np.abs(frequency[1:] - share) <= 4 * np.sqrt(share * (1 - share) / draws)).all()
    if power:
        assert (np.diff(frequency[1:5]) > 0).all()


def test_a_class_with_more_images_is_drawn_more_often_into_several_places():
    rng, weights = np.random.default_rng(0), sampling_weights([1, 4, 16, 64, 256])
    frequency = sum(draw_classes(weights, np.array([], np.int64), 3, rng) for _ in range(2000))
    assert frequency.sum() == 3 * 2000
    assert (np.diff(frequency) > 0).all()


def test_refusals():
    for counts in ([1, -1], [np.nan, 1], [np.inf, 1]):
        with pytest.raises(UsageError, match="image counts must be numbers from 0"):
            sampling_weights(counts)
