import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.dataset import ClassStats
from yolo_lt.dataset.stats import imbalance
from yolo_lt.errors import LTError
from yolo_lt.ultra.labels import stats_of

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


@given(LISTS)
def test_incidences_are_the_sorted_distinct_pairs(lists):
    image, cls = ClassStats.from_lists(lists, 7).incidences
    assert list(zip(image.tolist(), cls.tolist(), strict=True)) == sorted(
        {(i, c) for i, x in enumerate(lists) for c in x}
    )


def test_more_pairs_than_int32_can_number():
    stats = ClassStats.from_lists([[0]] * 49_999 + [[49_999, 49_999, 3]], 50_000)
    image, cls = stats.incidences
    assert image[-2:].tolist() == [49_999, 49_999]
    assert cls[-2:].tolist() == [3, 49_999]
    assert stats.image_counts[[0, 3, 49_999]].tolist() == [49_999, 1, 1]


@given(LISTS, st.data())
def test_select_is_as_if_the_other_images_did_not_exist(lists, data):
    keep = data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists)))
    stats = ClassStats.from_lists(lists, 7, "abcdefg", "ffccrrr").select(np.array(keep))
    wanted = [row for row, kept in zip(lists, keep, strict=True) if kept]
    assert [x.tolist() for x in stats] == wanted
    assert (stats.names, stats.frequency) == (tuple("abcdefg"), tuple("ffccrrr"))
    assert stats.image_counts.tolist() == ClassStats.from_lists(wanted, 7).image_counts.tolist()


def columns(lists, dtype):
    """As a scan leaves them in memory: `cls` is a view of the rows of a label file."""
    rows = [np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in row], dtype).reshape(-1, 5) for row in lists]
    return [{"cls": x[:, 0:1], "bboxes": x[:, 1:]} for x in rows]


@given(LISTS, st.sampled_from([np.float32, np.int64]))
def test_labels_in_memory_give_the_same_as_lists(lists, dtype):
    data = {"names": dict(enumerate("abcdefg")), "frequency": "ffccrrr"}
    plain = ClassStats.from_lists(lists, 7, "abcdefg", "ffccrrr")
    for labels in (columns(lists, dtype), columns(lists, dtype) + columns([[6]], np.float64)):
        ours = stats_of(labels, data)
        assert [x.tolist() for x in ours][: len(lists)] == [x.tolist() for x in plain]
        assert ours.classes.dtype == np.int32
        assert (ours.names, ours.frequency) == (plain.names, plain.frequency)


def test_no_labels_at_all():
    for stats in (stats_of([], {"names": {0: "a"}}), ClassStats.from_lists([[], []], 1), ClassStats.from_lists([], 0)):
        assert stats.image_counts.sum() == stats.instance_counts.sum() == 0
        assert (stats.per_image_max(np.ones(stats.num_classes), empty=7.0) == 7).all()


@pytest.mark.parametrize("wrong", [3, -1, 2**32, float("nan")])
def test_a_class_id_out_of_range_is_named_with_its_image(wrong):
    with pytest.raises(LTError, match=rf"image 2: class id {wrong} is outside 0\.\.2"):
        ClassStats.from_lists([[0], [], [1, wrong], [9]], 3)
    with pytest.raises(LTError, match=r"image 1: class id 3 is"):
        stats_of(columns([[0], [1, 3]], np.float32), {"names": dict(enumerate("abc"))})


def test_imbalance():
    even = imbalance(np.array([5, 5, 5, 0]))
    assert (even["ratio"], even["gini"]) == (1.0, 0.0)
    assert even["entropy"] == pytest.approx(1.0)
    assert even["effective"] == pytest.approx(3.0)
    skewed = imbalance(np.array([100, 1]))
    assert skewed["ratio"] == 100
    assert skewed["gini"] == pytest.approx(100 / 101 - 0.5)
    assert imbalance(np.zeros(3))["ratio"] == 0
