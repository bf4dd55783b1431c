import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.dataset import ClassStats
from yolo_lt.dataset.stats import imbalance
from yolo_lt.errors import LTError

LISTS = st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=20)


def test_counts_by_hand():
    stats = ClassStats.from_lists([[0, 0, 2], [], [2], [0]], 4)
    assert stats.num_images == 4
    assert stats.instance_counts.tolist() == [3, 0, 2, 0]
    assert stats.image_counts.tolist() == [2, 0, 2, 0]
    assert [x.tolist() for x in stats.image_classes] == [[0, 0, 2], [], [2], [0]]


@given(LISTS)
def test_counts_equal_a_plain_loop(lists):
    stats = ClassStats.from_lists(lists, 7)
    for c in range(7):
        assert stats.instance_counts[c] == sum(row.count(c) for row in lists)
        assert stats.image_counts[c] == sum(c in row for row in lists)


@given(LISTS, st.lists(st.floats(0.5, 9), min_size=7, max_size=7))
def test_per_image_max_equals_a_plain_loop(lists, values):
    ours = ClassStats.from_lists(lists, 7).per_image_max(np.array(values), empty=1.0)
    assert ours.tolist() == [max((values[c] for c in row), default=1.0) for row in lists]


def test_images_with_counts_each_image_once():
    stats = ClassStats.from_lists([[1, 1], [0, 1], []], 2)
    assert stats.images_with(np.array([10.0, 1.0, 5.0])).tolist() == [1.0, 11.0]


def test_a_class_id_out_of_range_is_named_with_its_image():
    with pytest.raises(LTError, match="image 1: class id 3"):
        ClassStats.from_lists([[0], [1, 3]], 3)


def test_imbalance():
    even = imbalance(np.array([5, 5, 5, 0]))
    assert (even["ratio"], even["gini"]) == (1.0, 0.0)
    assert even["entropy"] == pytest.approx(1.0)
    assert even["effective"] == pytest.approx(3.0)
    skewed = imbalance(np.array([100, 1]))
    assert skewed["ratio"] == 100
    assert skewed["gini"] == pytest.approx(100 / 101 - 0.5)
    assert imbalance(np.zeros(3))["ratio"] == 0
