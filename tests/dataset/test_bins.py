from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.dataset import Bins, frequency_bins
from yolo_lt.errors import LTError, UsageError


def as_lists(bins):
    return [x.tolist() for x in (bins.head, bins.medium, bins.tail, bins.unseen)]


def test_thirds_of_the_logarithm():
    assert as_lists(frequency_bins([1000, 100, 10, 1, 0])) == [[0, 1], [2], [3], [4]]


def test_thirds_are_decided_in_integers():
    """min 8, max 27: the borders are 12 and 18 exactly, and floating cube roots fall on either side of them."""
    assert as_lists(frequency_bins([8, 11, 12, 17, 18, 27])) == [[4, 5], [2, 3], [0, 1], []]


@pytest.mark.parametrize("counts", [[7, 7, 7], [5], [5, 0]])
def test_one_frequency_is_no_tail(counts):
    bins = frequency_bins(counts)
    assert len(bins.head) == sum(n > 0 for n in counts)
    assert not len(bins.medium)
    assert not len(bins.tail)


def test_two_numbers_are_inclusive_as_in_lvis():
    assert as_lists(frequency_bins([0, 1, 10, 11, 100, 101], (10, 100))) == [[5], [3, 4], [1, 2], [0]]


def test_the_data_sets_own_letters_come_first():
    assert as_lists(frequency_bins([5, 5, 5, 0], "auto", "rcff")) == [[2], [1], [0], [3]]
    with pytest.raises(LTError, match="one letter"):
        frequency_bins([1, 2], "auto", "rx")


def test_a_file_lists_classes(tmp_path):
    path = tmp_path / "bins.yaml"
    path.write_text("head: [2]\ntail: [0, 1]\n")
    assert as_lists(frequency_bins([5, 5, 5, 0], path)) == [[2], [], [0, 1], [3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head: [0]\ntail: [0, 1]", "both"),
        ("head: [0]\ntail: [9]", "no class index"),
        ("head: [0]", "in no list"),
        ("heads: [0, 1]", "expected lists"),
        ("head: [0", "cannot be read"),
        ("", "expected lists"),
        ("head: [true, 1]", "no class index"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path, text, message):
    path = tmp_path / "bins.yaml"
    path.write_text(text)
    with pytest.raises(LTError, match=message) as error:
        frequency_bins([3, 4], path)
    assert "bins.yaml" in str(error.value)


def test_bad_rules():
    with pytest.raises(LTError, match="no such file"):
        frequency_bins([1], "nowhere.yaml")
    with pytest.raises(UsageError, match="two numbers"):
        frequency_bins([1], (100, 10))
    with pytest.raises(UsageError, match="non-negative"):
        frequency_bins([-1])


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_every_class_is_in_exactly_one_list_and_bins_are_ordered(counts):
    bins = frequency_bins(counts)
    ids = np.concatenate([bins.head, bins.medium, bins.tail, bins.unseen])
    assert sorted(ids.tolist()) == list(range(len(counts)))
    assert all(counts[c] == 0 for c in bins.unseen)
    groups = [[counts[c] for c in g] for g in (bins.tail, bins.medium, bins.head) if len(g)]
    for lower, higher in pairwise(groups):
        assert max(lower) < min(higher)


@given(st.lists(st.integers(1, 10**5), min_size=2, max_size=30))
def test_thirds_equal_the_rule_in_exact_arithmetic(counts):
    low, high = min(counts), max(counts)
    if low < high:
        labels = frequency_bins(counts).labels(len(counts))
        for n, label in zip(counts, labels, strict=True):
            expected = "tail" if n**3 < low**2 * high else "medium" if n**3 < low * high**2 else "head"
            assert label == expected


def test_round_trip():
    bins = frequency_bins([50, 3, 0])
    again = Bins.from_dict(bins.as_dict(), bins.rule)
    assert as_lists(again) == as_lists(bins)


@pytest.mark.realdata
def test_fod31lt_has_7_14_10(fod31lt):
    from yolo_lt.ultra.labels import class_stats

    bins = frequency_bins(class_stats(fod31lt).image_counts)
    assert (len(bins.tail), len(bins.medium), len(bins.head)) == (7, 14, 10)
