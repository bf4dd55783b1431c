"""Stratified splits of groups of images: nothing is torn, every class that can be is on every side, shares are kept."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.stats import ClassStats
from yolo_lt.dataset.subset.flips import Rows
from yolo_lt.dataset.subset.moves import Sides, balance, repair
from yolo_lt.dataset.subset.split import grouped_split, unsplit
from yolo_lt.errors import LTError, UsageError

SHARES = st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.7, 0.2, 0.1), (0.9, 0.05, 0.05), (0.05, 0.95)])
LISTS = st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=6, max_size=30)


def sides_of(stats, groups, sides, count) -> np.ndarray:
    """Instances of every class on every side, shape (S, C)."""
    return np.array([stats.select(sides == s).instance_counts for s in range(count)])


def groups_with(stats, groups) -> list[set[int]]:
    image, cls = stats.incidences
    return [set(np.asarray(groups)[image[cls == c]].tolist()) for c in range(stats.num_classes)]


@settings(max_examples=80, deadline=None)
@given(LISTS, SHARES, st.integers(0, 3), st.data())
def test_groups_stay_whole_sides_are_filled_and_the_same_comes_again(lists, shares, seed, data):
    stats = ClassStats.from_lists(lists, 6)
    some = st.lists(st.integers(-3, 9), min_size=len(lists), max_size=len(lists))
    groups = np.array(data.draw(some.filter(lambda g: len(set(g)) >= len(shares))))
    sides = grouped_split(stats, groups, shares, seed)
    assert (sides.shape, sides.dtype) == ((len(lists),), np.int64)
    assert set(sides.tolist()) == set(range(len(shares)))
    assert len(set(zip(groups.tolist(), sides.tolist(), strict=True))) == len(set(groups.tolist()))
    np.testing.assert_array_equal(sides, grouped_split(stats, groups, shares, seed))
    np.testing.assert_array_equal(sides, grouped_split(stats, groups * 7 - 1, shares, seed))
    found = sides_of(stats, groups, sides, len(shares)) > 0
    torn = [c for c in range(6) if found[:, c].any() and not found[:, c].all()]
    assert list(unsplit(stats, groups, sides)) == torn


def possible(held: list[set[int]], groups: list[int], sides: int) -> bool:
    """Whether some arrangement brings every class in enough groups, and a group, to every side."""
    wanted = [h for h in (*held, set(groups)) if len(h) >= sides]
    for arrangement in product(range(sides), repeat=len(groups)):
        side = dict(zip(groups, arrangement, strict=True))
        if all(len({side[g] for g in h}) == sides for h in wanted):
            return True
    return False


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 7), max_size=4), min_size=1, max_size=9),
    st.sampled_from([(0.8, 0.2), (0.6, 0.2, 0.2)]),
    st.integers(0, 2),
)
def test_every_class_is_on_every_side_where_that_is_possible(held, shares, seed):
    lists = [[c for c, h in enumerate(held) if g in h] for g in range(8)]
    stats = ClassStats.from_lists(lists, len(held))
    sides = grouped_split(stats, np.arange(8), shares, seed)
    missed = [c for c in unsplit(stats, np.arange(8), sides) if len(held[c]) >= len(shares)]
    assert not missed or not possible(held, list(range(8)), len(shares))


def test_a_class_in_two_groups_is_on_both_sides_however_small_the_share():
    stats = ClassStats.from_lists([[0]] * 98 + [[0, 1], [0, 1]], 2)
    sides = grouped_split(stats, np.arange(100), (0.98, 0.02))
    assert sides_of(stats, None, sides, 2)[:, 1].tolist() == [1, 1]
    assert (sides == 1).sum() == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_long_chain_of_classes_in_two_groups_each_has_one_way_and_it_is_found(seed):
    """Class c is in groups c and c + 1, numbered at random: neighbours have to be on different sides, all along."""
    length = 600
    place = np.random.default_rng(seed).permutation(length)
    lists = [[c for c in (g - 1, g) if 0 <= c < length - 1] for g in place.tolist()]
    stats = ClassStats.from_lists(lists, length - 1)
    sides = grouped_split(stats, np.arange(length), (0.5, 0.5), seed)
    assert unsplit(stats, np.arange(length), sides) == {}
    in_order = sides[np.argsort(place)]
    assert (np.diff(in_order) != 0).all()


def test_the_reasons_of_classes_that_are_not_everywhere():
    """Three classes, each pair of three groups: with two sides one class has both its groups on one."""
    stats = ClassStats.from_lists([[0, 1], [1, 2], [0, 2], [3], [4], [4]], 6)
    groups = np.array([7, 8, 9, 9, 5, 5])
    torn = unsplit(stats, groups, grouped_split(stats, groups, (0.6, 0.4)))
    conflict = set(torn) & {0, 1, 2}
    assert len(conflict) == 1
    assert torn[conflict.pop()] == "its groups are needed where they are by other classes"
    assert torn[3] == torn[4] == "in one group only"
    three = ClassStats.from_lists([[0], [0], [1], [1], [1], []], 3)
    torn = unsplit(three, np.arange(6), grouped_split(three, np.arange(6), (0.6, 0.2, 0.2)))
    assert torn == {0: "in 2 groups, fewer than splits"}


def test_classes_in_few_groups_are_in_training():
    rng = np.random.default_rng(0)
    lists = [[0, *([1 + g] if g < 20 else []), *([21 + g % 10] if 20 <= g < 40 else [])] for g in range(400)]
    stats = ClassStats.from_lists([lists[g] for g in rng.permutation(400)], 31)
    sides = grouped_split(stats, np.arange(400), (0.2, 0.7, 0.1))
    inst = sides_of(stats, None, sides, 3)
    assert (inst[1, 1:] >= 1).all()
    assert ((inst[:, 21:] > 0).sum(0) == 2).all(), "two groups, three sides: on two of them"


def test_shares_of_images_and_classes_are_near_the_wished():
    rng = np.random.default_rng(1)
    weights = 1 / np.arange(1, 61) ** 1.3
    lists = [rng.choice(60, size=rng.integers(0, 8), p=weights / weights.sum()).tolist() for _ in range(4000)]
    stats, groups = ClassStats.from_lists(lists, 60), rng.integers(0, 1500, 4000)
    for shares in ((0.8, 0.2), (0.7, 0.2, 0.1)):
        sides = grouped_split(stats, groups, shares)
        np.testing.assert_allclose(np.bincount(sides) / 4000, shares, atol=0.002)
        inst = sides_of(stats, groups, sides, len(shares))
        often = inst.sum(0) >= 100
        np.testing.assert_allclose((inst / inst.sum(0))[:, often].T, np.tile(shares, (often.sum(), 1)), atol=0.01)
        assert unsplit(stats, groups, sides) == {}


@pytest.mark.parametrize("classes", [[0], []])
def test_groups_of_very_different_size_still_fill_the_shares(classes):
    """Sizes 1, 2, 4, ..., 512 and nothing to stratify: binary numbers reach every share."""
    groups = np.repeat(np.arange(10), 2 ** np.arange(10))
    stats = ClassStats.from_lists([classes] * len(groups), 1)
    sides = grouped_split(stats, groups, (0.7, 0.3))
    assert abs((sides == 1).mean() - 0.3) < 0.01


COMMON = list(range(10))  # classes in every image, which press for even shares


def test_a_class_in_one_group_stays_in_training_though_the_shares_would_be_nearer_without():
    lists = [[*COMMON, 10]] * 30 + [[*COMMON, 11]] * 50 + [COMMON] * 20
    groups = np.repeat([0, 1, 2], [30, 50, 20])
    stats = ClassStats.from_lists(lists, 12)
    sides = grouped_split(stats, groups, (0.6, 0.4))
    assert sides_of(stats, groups, sides, 2)[:, 10:].tolist() == [[30, 50], [0, 0]]


def test_a_class_in_two_groups_stays_on_two_of_three_sides_though_the_shares_would_be_nearer_without():
    lists = [[*COMMON, 10]] * 20 + [COMMON] * 60
    groups = np.repeat([0, 1, 2, 3], [10, 10, 20, 40])
    stats = ClassStats.from_lists(lists, 11)
    sides = grouped_split(stats, groups, (0.5, 0.25, 0.25))
    found = sides_of(stats, groups, sides, 3)[:, 10]
    assert found[0] == 10
    assert sorted(found.tolist()) == [0, 10, 10]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=2, max_size=40), SHARES, st.integers(0, 5))
def test_balance_never_costs_and_leaves_every_class_where_it_is(lists, shares, seed):
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(len(lists)), [len(set(x)) + 1 for x in lists])
    column = np.array([c for x in lists for c in (*sorted(set(x)), 6)])
    count = np.array([n for x in lists for n in (*(x.count(c) for c in sorted(set(x))), 1)])
    rows = Rows.of(image, column, count, len(lists), 7)
    first = rng.integers(0, len(shares), len(lists))
    split = Sides.of(rows, np.array(shares), first.copy(), rng.permutation(len(lists)))
    before, present = split.all_cost(), split.present > 0
    balance(split)
    assert split.all_cost() <= before + 1e-9
    assert (split.present[split.needed & present] > 0).all()
    again = Sides.of(rows, np.array(shares), split.side, split.order)
    np.testing.assert_array_equal(again.present, split.present)
    np.testing.assert_array_equal(again.total, split.total)
    gains = split.gains(split.needed)
    for group in range(len(lists)):
        for to in set(range(len(shares))) - {split.side[group]}:
            assert split.gain(group, to) == pytest.approx(moved_cost(again, group, to) - again.all_cost(), abs=1e-9)
            assert gains[to, group] > -1e-9


def moved_cost(split: Sides, group: int, to: int) -> float:
    old = int(split.side[group])
    split.move(group, to)
    cost = split.all_cost()
    split.move(group, old)
    return cost


def rows_of(lists) -> Rows:
    """Groups of one image each: every class once, and the image in the last column."""
    image = np.repeat(np.arange(len(lists)), [len(x) + 1 for x in lists])
    last = 1 + max(c for x in lists for c in x)
    column = np.array([c for x in lists for c in (*sorted(x), last)])
    return Rows.of(image, column, np.ones(len(column), int), len(lists), last + 1)


def test_repair_leaves_a_class_in_one_group_in_training_if_another_group_serves():
    """Class 0 needs the other side. The first group would bring classes 2 to 5 nearer to their shares, too."""
    lists = [[0, 1, 2, 3, 4, 5], [0], *[[2, 3, 4, 5]] * 8, *[[]] * 3]
    split = Sides.of(rows_of(lists), np.array([0.6, 0.4]), np.array([0] * 10 + [1] * 3), np.arange(13))
    split.move(9, 1)
    assert split.gain(0, 1) < split.gain(1, 1)
    repair(split)
    assert split.side[:2].tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_images_without_the_class_count_as_well(seed):
    """Ten groups with one object each and 0, 10, ..., 90 further images: which five they are is for the images."""
    groups = np.repeat(np.arange(10), 1 + 10 * np.arange(10))
    stats = ClassStats.from_lists([[0] if i in np.unique(groups, return_index=True)[1] else [] for i in range(460)], 1)
    sides = grouped_split(stats, groups, (0.5, 0.5), seed)
    assert sides_of(stats, groups, sides, 2).tolist() == [[5], [5]]
    assert abs((sides == 0).sum() - 230) <= 5


def test_two_groups_that_leave_at_once_do_not_take_a_class_along():
    """Each class is in two groups, all of them on the side that should be small."""
    rows = rows_of([[c] for c in range(20) for _ in range(2)])
    split = Sides.of(rows, np.array([0.05, 0.95]), np.zeros(40, np.int64), np.arange(40))
    balance(split)
    assert (split.present > 0).all()


def test_images_without_labels_are_shared_out_too():
    stats = ClassStats.from_lists([[]] * 100 + [[0]] * 20, 1)
    sides = grouped_split(stats, np.arange(120), (0.75, 0.25))
    assert (sides == 1).sum() == 30
    assert (sides[100:] == 1).sum() == 5


def test_the_seed_decides_which_images():
    stats = ClassStats.from_lists([[0]] * 50, 1)
    first, second = (grouped_split(stats, np.arange(50), (0.8, 0.2), seed) for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize("shares", [(1.0,), (0.8, 0.1), (0.8, 0.3), (1.2, -0.2), (1.0, 0.0), (float("nan"), 0.5)])
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(UsageError, match="two or more numbers above 0 that sum to 1"):
        grouped_split(ClassStats.from_lists([[0]] * 5, 1), np.arange(5), shares)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(3), "expected 4 integers"),
        (np.arange(4.0), "expected 4 integers"),
        (np.array([2, 2, 2, 2]), "1 groups of images cannot fill 2 splits"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(LTError, match=message):
        grouped_split(ClassStats.from_lists([[0]] * 4, 1), groups, (0.5, 0.5))


def test_nothing_to_split():
    stats = ClassStats.from_lists([], 2)
    assert unsplit(stats, np.zeros(0, int), np.zeros(0, int)) == {}
    with pytest.raises(LTError, match="0 groups"):
        grouped_split(stats, np.zeros(0, int), (0.5, 0.5))
