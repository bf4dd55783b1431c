"""Boxes that look wrong, against plain loops over all pairs, and images and label files that do not belong together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.diagnosis.suspects import NEAR, earlier_twins, find_gaps, find_suspects
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError

NAN, INF = float("nan"), float("inf")
SIDE = st.sampled_from([0.0, 0.2, 0.201, 0.205, 0.4, 0.41, -0.1])
PLACE = st.sampled_from([0.0, 0.3, 0.3001, 0.302, 0.31, 0.5, 1.01, NAN, INF])
BOXES = st.lists(st.tuples(st.integers(0, 2), PLACE, PLACE, SIDE, SIDE), max_size=8)


def labels(images, num_classes=3):
    """Statistics and boxes of images as lists of (class, x, y, w, h)."""
    stats = ClassStats.from_lists([[row[0] for row in rows] for rows in images], num_classes)
    return stats, np.array([row[1:] for rows in images for row in rows], np.float32).reshape(-1, 4)


def iou(a, b):
    a, b = a.astype(float), b.astype(float)
    low, high = (np.array([f(a[i] + s * a[i + 2] / 2, b[i] + s * b[i + 2] / 2) for i in (0, 1)]) for f, s in LIMITS)
    inter = np.prod(np.maximum(high - low, 0))
    union = a[2] * a[3] + b[2] * b[3] - inter
    return inter / union if union else 0.0


LIMITS = ((max, -1), (min, 1))


def kind(c, d, a, b):
    """Which of the three kinds of twins two rows of an image are, by their definition."""
    if not np.isfinite([*a, *b]).all() or min(*a[2:], *b[2:]) < 0:
        return None
    equal = (a == b).all()
    if not equal and not iou(a, b) > NEAR:
        return None
    return 2 if c != d else 0 if equal else 1


@settings(max_examples=200, deadline=None)
@given(st.lists(BOXES, max_size=4))
def test_twins_equal_a_plain_loop(images):
    stats, box = labels(images)
    found = earlier_twins(stats.classes, stats.offsets, box)
    image = np.repeat(np.arange(len(images)), np.diff(stats.offsets))
    for j in range(len(box)):
        wanted = [-1, -1, -1]
        for i in reversed(range(j)):
            of = kind(stats.classes[i], stats.classes[j], box[i], box[j]) if image[i] == image[j] else None
            if of is not None:
                wanted[of] = i
        assert [int(twin[j]) for twin in found] == wanted


@given(st.lists(BOXES, max_size=5), st.integers(1, 6))
def test_twins_are_the_same_in_blocks_of_any_size(images, block):
    stats, box = labels(images)
    whole = earlier_twins(stats.classes, stats.offsets, box)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolo_lt.dataset.diagnosis.suspects.BLOCK", block)
        parts = earlier_twins(stats.classes, stats.offsets, box)
    for one, two in zip(whole, parts, strict=True):
        assert one.tolist() == two.tolist()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1_500_000), st.floats(-0.001, 0.001))
def test_twins_are_found_in_an_image_of_any_number(number, shift):
    offsets = np.zeros(1_500_002, np.int64)
    offsets[number + 1 :] = 2
    box = np.array([[0.5, 0.5, 0.1, 0.1], [0.5 + shift, 0.5, 0.1, 0.1]])
    assert max(twin[1] for twin in earlier_twins(np.zeros(2, int), offsets, box)) == 0


def test_twins_at_the_edge_of_what_is_near():
    for factor, found in ((0.951, 0), (0.949, -1)):
        box = np.array([[0.5, 0.5, 0.4, 0.4], [0.5 + 0.2 * (1 - factor), 0.5, 0.4 * factor, 0.4]])
        for rows in (box, box[::-1], box[:, [1, 0, 3, 2]]):
            assert earlier_twins(np.zeros(2, int), np.array([0, 2]), rows)[1][1] == found


def test_every_kind_is_found_where_it_is():
    good = (0, 0.5, 0.5, 0.2, 0.2)
    stats, box = labels(
        [
            [good, (0, 0.5, 0.5, 0.0, 0.2), (0, 0.95, 0.5, 0.2, 0.2)],
            [],
            [good, (1, 0.5, 0.5, 0.2, 0.2), good, (0, 0.501, 0.5, 0.2, 0.2)],
            [good, (0, NAN, 0.5, 0.1, 0.1), (2, 0.2, 0.2, 0.015, 0.2)],
        ]
    )
    found = find_suspects(stats, box, np.array([[100, 100]] * 4))
    wanted = {"flat": [1], "beyond": [2], "contested": [4, 5, 6], "repeated": [5], "doubled": [6]}
    wanted |= {"invalid": [8], "tiny": [9]}
    assert {name: getattr(found, name).tolist() for name in found.counts} == wanted
    assert found.counts["contested"] == 3
    assert found.images(stats).tolist() == [0, 2, 3]
    assert find_suspects(stats, box).counts["tiny"] == 0, "sizes are unknown"


@pytest.mark.parametrize("images", [[], [[], []]])
def test_no_boxes_are_not_suspect(images):
    found = find_suspects(*labels(images))
    assert sum(found.counts.values()) == 0
    assert found.images(labels(images)[0]).tolist() == []


def test_crowds_of_copies_end_and_are_all_found():
    stats, box = labels([[(0, 0.5, 0.5, 0.2, 0.2)] * 3000], 1)
    assert find_suspects(stats, box).counts["repeated"] == 2999


def test_arrays_that_do_not_fit_are_refused():
    stats, box = labels([[(0, 0.5, 0.5, 0.2, 0.2)]])
    with pytest.raises(LTError, match="for each of 1 boxes"):
        find_suspects(stats, box[:, :3])
    with pytest.raises(LTError, match="for each of 1 images"):
        find_suspects(stats, box, np.ones((2, 2)))


def test_images_and_label_files_that_do_not_belong_together():
    wanted = ["l/a.txt", "l/b.txt", "l/./c.txt", "l/d.txt", "l/d.txt", "l/e.txt", "l/e.txt"]
    files = ["l/a.txt", "l/c.txt", "l/d.txt", "l/old.txt", "l/classes.txt", "l//Z.txt"]
    gaps = find_gaps(wanted, [1, 0, 0, 3, 3, 0, 0], files)
    assert gaps.missing == (1, 5, 6)
    assert gaps.empty == (2,)
    assert gaps.orphans == ("l/Z.txt", "l/old.txt")
    assert gaps.shared == ("l/d.txt",), "of files that are missing nobody shares anything"


def test_as_many_boxes_as_label_files():
    with pytest.raises(LTError, match="2 label files, but 1 numbers"):
        find_gaps(["a.txt", "b.txt"], [1], [])
