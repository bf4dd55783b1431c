"""Images that are there twice, against a plain loop, and labels that contradict each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.diagnosis.leaks import Conflict, find_leaks, joined, label_conflicts
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError

TRAIN = [[0], [0, 1], [1], []]  # images 0 to 3
VAL = [[0], [1], [2], [0, 0]]  # images 4 to 7
TEST = [[2]]  # image 8


def splits(**lists):
    return {name: ClassStats.from_lists(rows, 3) for name, rows in lists.items()}


THREE = splits(train=TRAIN, val=VAL, test=TEST)


def test_leaks_by_hand():
    found = find_leaks(THREE, [[0, 4], [5, 2, 1, 7], [3, 3], [8]])
    assert found.splits == ("train", "val", "test")
    assert found.images.tolist() == [4, 4, 1]
    assert found.copies.tolist() == [1, 1, 0], "one of images 1 and 2, and one of 5 and 7, is too many"
    assert found.twins.tolist() == [[2, 3, 0], [3, 2, 0], [0, 0, 0]]
    assert [x.tolist() for x in found.leaked] == [[False] * 4, [True, True, False, True], [False]]
    assert found.pairs == ((), ((0, 0), (1, 1), (3, 1)), ())
    assert found.class_images.tolist() == [[2, 2, 0], [2, 1, 1], [0, 0, 1]]
    assert found.class_leaked.tolist() == [[0, 0, 0], [2, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(found.class_share[1:], [[1, 1, 0], [np.nan, np.nan, 0]])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.integers(0, 8), max_size=5), max_size=5))
def test_leaks_equal_a_plain_loop(groups):
    found = find_leaks(THREE, groups)
    of = [0] * 4 + [1] * 4 + [2]
    twins = {i: {j for g in groups if i in g for j in g if j != i} for i in range(9)}
    for s in range(3):
        mine = [i for i in range(9) if of[i] == s]
        for t in range(3):
            assert found.twins[s, t] == sum(any(of[j] == t for j in twins[i]) for i in mine)
        assert found.leaked[s].tolist() == [s != 0 and any(of[j] == 0 for j in twins[i]) for i in mine]
        assert found.copies[s] == sum(any(min(set(g) & set(mine)) < i for g in groups if i in g) for i in mine)
        for mine_at, train_at in found.pairs[s]:
            assert train_at == min(j for j in twins[mine[mine_at]] if of[j] == 0)


def test_a_split_that_is_its_own_train_leaks_as_a_whole():
    found = find_leaks(splits(train=TRAIN, val=TRAIN), [[0, 4], [1, 5], [2, 6], [3, 7]])
    assert found.leaked[1].all()
    assert found.copies.tolist() == [0, 0]
    np.testing.assert_array_equal(found.class_share[1], [1, 1, np.nan])


def test_named_examples_are_few():
    many = splits(train=[[0]] * 100, val=[[0]] * 100)
    found = find_leaks(many, [[i, i + 100] for i in range(100)], examples=3)
    assert found.pairs[1] == ((0, 0), (1, 1), (2, 2))
    assert found.leaked[1].sum() == 100


def test_no_groups_and_no_images():
    found = find_leaks(splits(train=[], val=[]), [])
    assert found.twins.tolist() == [[0, 0], [0, 0]]
    assert np.isnan(found.class_share).all()
    assert find_leaks(THREE, []).copies.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("which", "groups", "said"),
    [
        (THREE, [[0, 9]], "names image 9, but there are 9 images"),
        (THREE, [[-1, 3]], "names image -1"),
        (splits(val=VAL), [], "split train is missing: found val"),
        ({}, [], "found none"),
        ({**THREE, "val": ClassStats.from_lists([[0]], 2)}, [], "differ in their number of classes"),
    ],
)
def test_what_does_not_fit_is_refused(which, groups, said):
    with pytest.raises(LTError, match=said):
        find_leaks(which, groups)


BOXES = [
    [(0, 0.5), (0, 0.2)],
    [(0, 0.2), (0, 0.505)],
    [(0, 0.5), (0, 0.5)],
    [(0, 0.5), (1, 0.2)],
    [(1, 0.2), (0, 0.5)],
    [],
    [],
]


def labelled(images):
    stats = ClassStats.from_lists([[c for c, _ in rows] for rows in images], 2)
    return stats, np.array([[x, 0.5, 0.1, 0.1] for rows in images for _, x in rows]).reshape(-1, 4)


@pytest.mark.parametrize(
    ("group", "what"),
    [
        ([0, 1], ""),
        ([0, 2], "other boxes"),
        ([2, 0], "other boxes"),
        ([0, 3], "other classes"),
        ([3, 4], ""),
        ([4, 5], "one has no labels"),
        ([5, 6], ""),
    ],
)
def test_copies_with_other_labels(group, what):
    found = label_conflicts([group], *labelled(BOXES))
    assert found == ([Conflict(min(group), max(group), what)] if what else [])


def test_one_box_more_of_the_class_is_another_label():
    found = label_conflicts([[0, 1]], *labelled([[(0, 0.5)], [(0, 0.5), (0, 0.5)]]))
    assert found == [Conflict(0, 1, "other classes")], "of class 0 there are two"


def test_every_copy_is_compared_with_the_first():
    found = label_conflicts([[6, 0, 3, 5], [1, 2]], *labelled(BOXES))
    assert [(c.first, c.second) for c in found] == [(0, 3), (0, 5), (0, 6), (1, 2)]
    assert label_conflicts([], *labelled(BOXES)) == []


def test_conflicts_refuse_what_does_not_fit():
    stats, box = labelled(BOXES)
    with pytest.raises(LTError, match="names image 7"):
        label_conflicts([[0, 7]], stats, box)
    with pytest.raises(LTError, match="for each of 10 boxes"):
        label_conflicts([], stats, box[1:])


def test_joined_splits_are_one_after_the_other():
    whole = joined(list(THREE.values()))
    assert [row.tolist() for row in whole] == [*TRAIN, *VAL, *TEST]
    with pytest.raises(LTError, match="differ"):
        joined([THREE["val"], ClassStats.from_lists([[0]], 2)])
    with pytest.raises(LTError, match="no split"):
        joined([])
