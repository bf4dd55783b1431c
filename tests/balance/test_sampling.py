import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.balance import repeat_factors
from yolo_lt.balance.sampling import head_border
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


def test_an_unknown_sampler_lists_the_known():
    with pytest.raises(UsageError, match=r"none \| rfs"):
        repeat_factors([[0]], method="weighted")


def test_auto_is_the_rarest_head_class():
    stats = ClassStats.from_lists([[0]] * 90 + [[1]] * 9 + [[2]], 3, ["a", "b", "c"])
    thr, why = head_border(stats, frequency_bins(stats.image_counts))
    assert thr == pytest.approx(0.90)
    assert "a" in why
    factors = repeat_factors(stats, thr=thr)
    assert factors[0] == 1
    assert (factors[90:] > 1).all()


def test_auto_on_lvis_bins_is_lvis_threshold():
    """Frequent is more than 100 of 100,170 images there, so the border is LVIS' own 0.001."""
    stats = ClassStats.from_lists([[0]] * 101 + [[1]] * 100 + [[]] * 99_969, 2)
    thr, _ = head_border(stats, frequency_bins(stats.image_counts, (10, 100)))
    assert thr == pytest.approx(1e-3, rel=0.01)
