"""What surrounds a class, against plain loops over the definitions."""

from collections import Counter
from itertools import combinations
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.diagnosis.context import Context, class_context, co_occurrence, neighbours
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError

LISTS = st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=12)
NAN = float("nan")


def context(lists, num_classes=6, **more) -> Context:
    return class_context(ClassStats.from_lists(lists, num_classes), **more)


def effective(counts):
    return exp(-sum(n / sum(counts) * log(n / sum(counts)) for n in counts))


@given(LISTS)
def test_images_against_instances_equal_a_plain_loop(lists):
    found = context(lists)
    for c in range(6):
        counts = [row.count(c) for row in lists if c in row]
        assert (found.images[c], found.instances[c]) == (len(counts), sum(counts))
        wanted = [sum(counts) / len(counts), max(counts), max(counts) / sum(counts)] if counts else [NAN] * 3
        ours = [found.per_image[c], found.fullest[c], found.fullest_share[c]]
        np.testing.assert_allclose(ours, wanted)


@given(LISTS)
def test_co_occurrence_equals_a_plain_loop(lists):
    shared = context(lists).shared
    assert shared.dtype == np.int32
    for a in range(6):
        for b in range(6):
            assert shared[a, b] == sum(a in row and b in row for row in lists)


def test_one_image_of_every_class_and_many_of_one():
    shared = co_occurrence(ClassStats.from_lists([list(range(300)), *[[7]] * 1000], 300))
    assert shared[7, 7] == 1001
    shared[7, 7] = 1
    assert (shared == 1).all()


def test_neighbours_by_hand():
    lists = [[0, 1], [0, 1], [0, 2], [0, 3], [3], [], [], []]
    near = neighbours(context(lists, 5).shared, len(lists), most=2)
    assert near.ids.tolist() == [[1, 2], [0, -1], [0, -1], [0, -1], [-1, -1]]
    np.testing.assert_allclose(near.share, [[2 / 4, 1 / 4], [1, NAN], [1, NAN], [1 / 2, NAN], [NAN, NAN]])
    np.testing.assert_allclose(near.lift[0], [2 / 4 / (2 / 8), 1 / 4 / (1 / 8)])
    assert near.lift[3, 0] == 1, "as often as by chance"


@given(LISTS, st.integers(0, 8))
def test_neighbours_are_the_classes_with_most_common_images(lists, most):
    found = context(lists)
    near = neighbours(found.shared, len(lists), most)
    for c in range(6):
        there = [d for d in range(6) if d != c and found.shared[c, d]]
        others = sorted(there, key=lambda d: -found.shared[c, d])[:most]
        assert [d for d in near.ids[c].tolist() if d >= 0] == others
        np.testing.assert_allclose(near.share[c, : len(others)], found.shared[c, others] / max(found.images[c], 1))
        assert np.isnan(near.share[c, len(others) :]).all()
        assert np.isnan(near.lift[c, len(others) :]).all()


@given(LISTS)
def test_contexts_are_the_distinct_sets_of_other_classes(lists):
    found = context(lists)
    for c in range(6):
        sets = Counter(frozenset(row) - {c} for row in lists if c in row)
        if not sets:
            assert np.isnan([found.contexts[c], found.contexts_effective[c], found.alone[c]]).all()
            continue
        assert found.contexts[c] == len(sets) <= found.images[c]
        np.testing.assert_allclose(found.contexts_effective[c], effective(list(sets.values())))
        np.testing.assert_allclose(found.alone[c], sets[frozenset()] / found.images[c])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=7))
def test_expected_contexts_are_the_mean_over_all_choices_of_as_many_images(lists):
    found = context(lists, 4)
    sets = [[frozenset(row) - {c} for row in lists if c in row] for c in range(4)]
    for c, own in enumerate(sets):
        larger = [s for d, s in enumerate(sets) if d != c and len(s) >= len(own)]
        if not own or not larger:
            assert np.isnan(found.contexts_expected[c])
            continue
        of_class = [np.mean([len(set(chosen)) for chosen in combinations(s, len(own))]) for s in larger]
        np.testing.assert_allclose(found.contexts_expected[c], np.mean(of_class))


def test_a_class_that_is_always_in_the_same_company_has_fewer_contexts_than_expected():
    varied = [[0, *row] for row in ([], [1], [2], [3], [1, 2], [1, 3], [2, 3], [1, 2, 3])]
    found = context([*varied, *[[4, 1]] * 6], 5)
    assert (found.contexts[0], found.contexts[4]) == (8, 1)
    assert found.contexts_expected[4] > 4 * found.contexts[4]
    assert found.contexts_expected[4] < 6, "no more than six images can have"


def test_scenes_are_counted_once_per_class():
    lists = [[0], [0, 1], [0], [1], []]
    assert np.isnan(context(lists, 3).scenes).all()
    np.testing.assert_array_equal(context(lists, 3, scenes=np.array([7, 7, -1, 7, 3])).scenes, [2, 1, NAN])


@given(LISTS, st.data())
def test_positions_and_sizes_equal_a_plain_loop(lists, data):
    boxes = sum(map(len, lists))
    part = st.integers(-1, 101)
    rows = data.draw(st.lists(st.tuples(part, part, part, part), min_size=boxes, max_size=boxes))
    box, cls = np.array(rows).reshape(-1, 4) / 100, [c for row in lists for c in row]
    found = context(lists, box=box)
    for c in range(6):
        of = [row for row, k in zip(box, cls, strict=True) if k == c]
        if not of:
            assert np.isnan([found.cells[c], *found.sizes[c]]).all()
            continue
        cells = Counter((min(max(int(x * 3), 0), 2), min(max(int(y * 3), 0), 2)) for x, y, _, _ in of)
        np.testing.assert_allclose(found.cells[c], effective(list(cells.values())) / 9)
        size = [np.sqrt(max(float(w), 0) * max(float(h), 0)) for *_, w, h in of]
        np.testing.assert_allclose(found.sizes[c], np.quantile(size, [0.1, 0.5, 0.9]), atol=1e-9)


def test_boxes_that_are_not_finite_or_absurd_do_no_harm_to_the_others():
    box = np.array([[0.5, 0.5, 0.2, 0.2], [NAN, 0.5, 0.3, 0.3], [0.5, 0.5, np.inf, 0.1], [0.5, 0.5, 1e30, 1e30]])
    found = context([[0, 0], [1, 2]], 3, box=box)
    np.testing.assert_allclose(found.sizes[0], 0.2)
    assert np.isnan(found.sizes[1]).all()
    np.testing.assert_allclose(found.cells, [1 / 9, NAN, 1 / 9])


@pytest.mark.parametrize("lists", [[], [[], []]])
@pytest.mark.parametrize("num_classes", [0, 2])
def test_no_labels_at_all(lists, num_classes):
    found = context(lists, num_classes, box=np.zeros((0, 4)), scenes=np.zeros(len(lists), int))
    assert found.shared.shape == (num_classes, num_classes)
    assert found.sizes.shape == (num_classes, 3)
    for values in (found.per_image, found.contexts, found.contexts_expected, found.scenes, found.cells, found.sizes):
        assert np.isnan(values).all()
    assert neighbours(found.shared, len(lists)).ids.shape[0] == num_classes


@pytest.mark.parametrize(
    ("more", "said"),
    [({"box": np.zeros((1, 4))}, "for each of 2 boxes"), ({"scenes": np.zeros(1, int)}, "for each of 3 images")],
)
def test_arrays_that_do_not_fit_are_refused(more, said):
    with pytest.raises(LTError, match=said):
        context([[0], [1], []], **more)
