import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yolo_lt.balance import class_weights
from yolo_lt.balance.weights import NORMS, WEIGHTS
from yolo_lt.errors import UsageError

COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=30)


@given(COUNTS, st.sampled_from(list(WEIGHTS)), st.floats(0, 0.99999))
def test_weights_sum_to_the_number_of_classes_that_occur(counts, method, beta):
    weights = class_weights(counts, method, beta)
    present = np.array(counts) > 0
    assert weights[present].sum() == pytest.approx(present.sum())
    assert (weights[~present] == 1).all()
    assert np.isfinite(weights).all()


@example([23207, 23223], "cb", "classes", 1.0)
@given(COUNTS, st.sampled_from(list(WEIGHTS)), st.sampled_from(list(NORMS)), st.floats(1, 100))
def test_a_cap_keeps_the_mean(counts, method, norm, cap):
    weights, counts = class_weights(counts, method, norm=norm, cap=cap), np.array(counts, np.float64)
    share = counts if norm == "boxes" else (counts > 0).astype(float)
    assert (weights * share).sum() == pytest.approx(share.sum())
    assert weights.max() <= cap
    assert weights.min() > 0


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30))
def test_rarer_never_weighs_less(counts):
    weights = class_weights(counts, "cb", 0.999)
    order = np.argsort(counts)
    assert (np.diff(weights[order]) <= 1e-12).all()


def test_beta_near_one_is_inverse_frequency_and_beta_zero_is_none():
    counts = [1, 5, 100]
    np.testing.assert_allclose(class_weights(counts, "cb", 1 - 1e-12), class_weights(counts, "inverse"), rtol=1e-6)
    assert class_weights(counts, "cb", 0).tolist() == [1, 1, 1]


def test_refusals():
    with pytest.raises(UsageError, match="beta"):
        class_weights([1, 2], "cb", 1.0)
    with pytest.raises(UsageError, match="inverse"):
        class_weights([1, 2], "square")
    for kw, message in (
        ({"norm": "images"}, r"classes \| boxes"),
        ({"cap": 0.9}, "weight_cap=0.9"),
        ({"method": "inverse", "power": 0}, "inverse_power=0"),
    ):
        with pytest.raises(UsageError, match=message):
            class_weights([1, 2], **kw)
    for counts in ([1, -2], [1, np.nan], [np.inf, 1]):
        with pytest.raises(UsageError, match="numbers from 0"):
            class_weights(counts)


def test_zero_counts_everywhere():
    assert class_weights([0, 0]).tolist() == class_weights([0, 0], "inverse", norm="boxes", cap=2).tolist() == [1, 1]
    assert class_weights([]).tolist() == []
