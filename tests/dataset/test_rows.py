"""Flat arrays of rows against plain lists of lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.dataset.rows import Boxes, Lists

ROWS = st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=6)
NEW = st.permutations([-1, -1, 0, 1, 2, 3])  # of six classes four stay


def plain(lists):
    return [lists[r].tolist() for r in range(len(lists))]


@given(ROWS)
def test_lists_are_sorted_and_without_repeats(rows):
    lists = Lists.of(rows)
    assert plain(lists) == [sorted(set(row)) for row in rows]
    assert lists.lengths.tolist() == [len(set(row)) for row in rows]
    assert (lists.classes.dtype, lists.offsets.dtype) == (np.int32, np.int64)


@given(ROWS, st.randoms())
def test_pairs_in_any_order_give_the_same_lists(rows, random):
    pairs = [(r, c) for r, row in enumerate(rows) for c in row]
    random.shuffle(pairs)
    row, cls = np.array(pairs, np.int64).reshape(-1, 2).T
    lists, expected = Lists.from_pairs(row, cls, len(rows)), Lists.of(rows)
    assert plain(lists) == plain(expected)
    assert (lists.classes.dtype, lists.offsets.dtype) == (np.int32, np.int64)


@given(st.data())
def test_some_lists_in_any_order(data):
    rows = data.draw(ROWS)
    at = data.draw(st.lists(st.integers(-1, len(rows) - 1)))
    taken = Lists.of(rows).take(np.array(at, np.int64))
    assert plain(taken) == [sorted(set(rows[r])) if r >= 0 else [] for r in at]


PARTS = st.lists(ROWS, min_size=1, max_size=4)


@given(PARTS)
def test_lists_one_after_the_other(parts):
    joined = Lists.joined([Lists.of(rows) for rows in parts])
    assert plain(joined) == plain(Lists.of([row for rows in parts for row in rows]))
    assert (joined.classes.dtype, joined.offsets.dtype) == (np.int32, np.int64)


@given(ROWS, NEW)
def test_lists_with_other_numbers(rows, new):
    renumbered = Lists.of(rows).renumbered(np.array(new))
    assert plain(renumbered) == [sorted({new[c] for c in row} - {-1}) for row in rows]
    assert renumbered.classes.dtype == np.int32


def test_there_is_no_row_outside():
    for row in (-1, 2):
        with pytest.raises(IndexError):
            Lists.of([[0], [1]])[row]


def boxes(rows):
    """Boxes of images, each given by its classes; every box differs."""
    cls = np.array([c for row in rows for c in row], np.int32)
    return Boxes(np.cumsum([0, *map(len, rows)]), cls, np.arange(4.0 * len(cls)).reshape(-1, 4))


def per_image(found):
    return [(cls.tolist(), box[:, 0].tolist()) for cls, box in map(found.of, range(len(found.offsets) - 1))]


def expected(rows):
    first = np.cumsum([0, *map(len, rows)])
    return [(row, [4.0 * (first[i] + k) for k in range(len(row))]) for i, row in enumerate(rows)]


@given(ROWS)
def test_boxes_know_their_image(rows):
    found = boxes(rows)
    assert per_image(found) == expected(rows)
    assert found.image.tolist() == [i for i, row in enumerate(rows) for _ in row]
    assert len(found) == sum(map(len, rows))


@given(st.data())
def test_boxes_of_some_images_in_any_order(data):
    rows = data.draw(ROWS)
    at = data.draw(st.lists(st.integers(-1, len(rows) - 1)))
    found, by_image = boxes(rows), expected(rows)
    images = np.array(at, np.int64)
    assert per_image(found.take(images)) == [by_image[i] if i >= 0 else ([], []) for i in at]
    assert found.box[found.positions(images), 0].tolist() == [x for i in at if i >= 0 for x in by_image[i][1]]


@given(PARTS)
def test_boxes_one_after_the_other(parts):
    joined = Boxes.joined([boxes(rows) for rows in parts])
    assert per_image(joined) == [image for rows in parts for image in expected(rows)]
    assert (joined.cls.dtype, joined.offsets.dtype, joined.box.shape[1]) == (np.int32, np.int64, 4)


@given(ROWS, NEW)
def test_boxes_with_other_classes(rows, new):
    kept = [[(new[c], x) for c, x in zip(*image, strict=True) if new[c] >= 0] for image in expected(rows)]
    found = boxes(rows).renumbered(np.array(new))
    assert per_image(found) == [([c for c, _ in image], [x for _, x in image]) for image in kept]
    assert found.cls.dtype == np.int32


def test_no_boxes_are_not_nothing():
    """`lists and lists.take(rows)` must not give back the rows of before where there are none."""
    none = Boxes.none(3)
    assert (len(none), len(none.offsets), none.box.shape) == (0, 4, (0, 4))
    assert per_image(none) == [([], [])] * 3
    assert len((none and none.take(np.array([1]))).offsets) == 2
    assert Lists.of([])
