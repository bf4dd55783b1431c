import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yolo_lt.balance.margins import REFERENCES, ecm_margins, logit_adjustment, referred
from yolo_lt.errors import UsageError

COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=30)


@example([0, 0], 1.0, "max")
@given(COUNTS, st.floats(0, 3), st.sampled_from(REFERENCES))
def test_rarer_is_never_adjusted_less_and_absent_never(counts, tau, reference):
    shift, counts = logit_adjustment(counts, tau, reference), np.array(counts)
    present = counts > 0
    assert (shift[~present] == 0).all()
    assert np.isfinite(shift).all()
    assert (np.diff(shift[present][np.argsort(counts[present])]) >= 0).all()


def test_the_adjustment_is_the_log_of_the_share():
    np.testing.assert_allclose(logit_adjustment([75, 20, 0, 5]), np.log([0.75, 0.2, 1, 0.05]), rtol=1e-9)
    np.testing.assert_allclose(logit_adjustment([75, 25], 2, "max"), [0, 2 * np.log(1 / 3)], rtol=1e-9)
    np.testing.assert_allclose(logit_adjustment([75, 25], 0), [0, 0], atol=1e-11)


@given(COUNTS, st.floats(0.01, 1e4))
def test_ecm_margins_grow_with_the_count_and_the_absent_have_none(counts, background):
    positive, negative, weight = ecm_margins(counts, background)
    counts = np.array(counts)
    present, order = counts > 0, np.argsort(counts[counts > 0])
    assert (np.diff(positive[present][order]) >= 0).all()
    assert (np.diff(negative[present][order]) <= 0).all()
    assert (np.diff(weight[present][order]) <= 1e-9).all()
    assert ((weight > 0) & (weight <= 1)).all()
    assert (positive >= 0).all()
    assert (negative >= 0).all()
    assert [x[~present].tolist() for x in (positive, negative, weight)] == [[v] * (~present).sum() for v in (0, 0, 1)]


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=30), st.floats(0.01, 1e4))
def test_an_ecm_shift_is_a_quarter_of_the_log_odds(counts, background):
    positive, negative, _ = ecm_margins(counts, background)
    own = np.array(counts, np.float64)
    rest = (1 + background) * own.sum() - own
    np.testing.assert_allclose(positive - negative, np.log(own / rest) / 4, rtol=1e-9, atol=1e-9)


def test_the_background_hardly_matters_with_the_largest_margin_for_reference():
    counts = np.array([5000, 300, 20, 1])
    published, ours = [], []
    for background in (6.3313, 100.0):
        positive, negative, _ = ecm_margins(counts, background)
        published.append(positive - negative)
        ours.append(referred(positive - negative, counts > 0, "max"))
    np.testing.assert_allclose(ours[0], ours[1], atol=0.05)
    assert np.abs(published[0] - published[1]).min() > 0.5


def test_ecm_without_any_other_sample_is_finite():
    assert np.isfinite(ecm_margins([7], 0.0)).all()
    assert np.array_equal(ecm_margins([0, 0]), [[0, 0], [0, 0], [1, 1]])


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=1, max_size=30),
    st.floats(-50, 50),
)
def test_the_largest_referred_shift_is_0_and_a_constant_is_not_felt(pairs, constant):
    shift, present = (np.array(x) for x in zip(*pairs, strict=True))
    ours = referred(shift, present, "max")
    assert (ours[~present] == 0).all()
    if present.any():
        assert ours[present].max() == 0
    np.testing.assert_allclose(referred(shift + constant, present, "max"), ours, atol=1e-12)
    assert np.array_equal(referred(shift, present, "none"), np.where(present, shift, 0))


def test_refusals():
    for counts in ([1, -1], [np.nan, 1], [np.inf, 1]):
        for function in (logit_adjustment, ecm_margins):
            with pytest.raises(UsageError, match="numbers from 0"):
                function(counts)
    with pytest.raises(UsageError, match=r"margin_reference=min: expected max \| none"):
        logit_adjustment([1, 2], 1.0, "min")
