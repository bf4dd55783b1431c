"""Long-tailed subsets: target counts by rank, and whole images whose counts reach them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.stats import ClassStats
from yolo_lt.dataset.subset.flips import CHAIN, Goal, Rows, Search, descend, descend_by_chains
from yolo_lt.dataset.subset.longtail import PROFILES, choose, off_target, profile
from yolo_lt.errors import UsageError

COUNTS = st.lists(st.integers(0, 3000), min_size=1, max_size=30)
LISTS = st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=25)


def test_the_exponential_profile_falls_by_the_same_factor_from_rank_to_rank():
    assert profile("exponential", np.array([200, 1000, 500]), 100, 1000).tolist() == [10, 1000, 100]


def test_the_pareto_profile_is_a_power_of_the_rank():
    assert profile("pareto", np.array([9, 8, 7, 6]), 4, 120).tolist() == [120, 60, 40, 30]


@pytest.mark.parametrize("name", PROFILES)
def test_ties_go_by_id_and_absent_classes_have_no_rank(name):
    targets = profile(name, np.array([5, 0, 9, 9, 5]), 8, 80)
    assert targets[1] == 0
    assert targets[[2, 3, 0, 4]].tolist() == sorted(targets[[0, 2, 3, 4]], reverse=True)
    assert (targets[2], targets[4]) == (80, 10)
    assert len(set(targets.tolist())) == 5


@pytest.mark.parametrize("name", PROFILES)
def test_few_classes_and_no_imbalance(name):
    assert profile(name, np.array([0, 7]), 100).tolist() == [0, 7]
    assert profile(name, np.array([0, 0]), 100).tolist() == [0, 0]
    assert profile(name, np.zeros(0, int), 100).tolist() == []
    assert profile(name, np.array([9, 4, 6]), 1).tolist() == [4, 4, 4]
    assert profile(name, np.array([9, 4]), 1000, 20).tolist() == [20, 1]
    assert profile(name, np.array([10, 3]), 2).tolist() == [6, 3], "half of 7 would be rounded to 4"


@given(st.sampled_from(PROFILES), COUNTS, st.floats(1, 1e4))
def test_without_a_largest_the_targets_are_as_large_as_the_counts_allow(name, counts, imbalance):
    counts = np.array(counts)
    targets = profile(name, counts, imbalance)
    assert targets.dtype == np.int64
    assert (targets <= counts).all()
    assert ((targets >= 1) == (counts > 0)).all()
    ranked = targets[np.argsort(-counts, kind="stable")]
    assert (np.diff(ranked) <= 0).all()
    if ranked[0]:
        np.testing.assert_array_equal(targets, profile(name, counts, imbalance, int(ranked[0])))
        assert (profile(name, counts, imbalance, int(ranked[0]) + 1) > counts).any()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("linear", [3, 2], 10), "expected one of exponential, pareto"),
        (("pareto", [3, 2], 0.5), "imbalance=0.5"),
        (("pareto", [3, 2], float("nan")), "imbalance=nan"),
        (("pareto", [3, 2], float("inf")), "imbalance=inf"),
        (("pareto", [3, 2], 10, 0), "largest=0"),
        (("pareto", [3, -2], 10), "counts: class 1 has -2"),
        (("pareto", [3, 2.5], 10), "counts: class 1 has 2.5"),
        (("pareto", [[3, 2]], 10), "one per class"),
        (("pareto", ["3"], 10), "one per class"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(args, message):
    with pytest.raises(UsageError, match=message):
        profile(args[0], np.array(args[1]), *args[2:])


def test_off_target_looks_both_ways_and_wants_small_targets_exactly():
    targets = np.array([100, 100, 100, 100, 19, 20, 0, 0])
    counts = np.array([95, 94, 105, 106, 18, 21, 0, 1])
    assert off_target(counts, targets, 0.05).tolist() == [1, 3, 4, 7]
    assert off_target(counts, targets, 0.06).tolist() == [7]
    assert off_target(np.array([129]), np.array([100]), 0.29).tolist() == [], "0.29 * 100 is below 29 in binary"


def biased_part(stats: ClassStats, seed: int) -> ClassStats:
    """Some of the images, chosen by a taste for classes: their counts are targets that can be reached."""
    rng = np.random.default_rng(seed)
    image, cls = stats.incidences
    taste = np.bincount(image, weights=rng.normal(0, 1.5, stats.num_classes)[cls], minlength=stats.num_images) - 1
    return stats.select(rng.random(stats.num_images) < 1 / (1 + np.exp(-taste)))


def crowded(images: int, classes: int, scenes: int, rarest: float, seed: int = 0) -> ClassStats:
    """A set shaped like COCO: class 0 is in every second image, the others come in scenes, and objects in crowds."""
    rng = np.random.default_rng(seed)
    share = np.r_[0.54, np.geomspace(0.08, rarest, classes - 1)]
    liking = np.where(rng.random((scenes, classes)) < 2 / scenes, 1.0, 0.02)
    liking[:, 0] = rng.uniform(0.2, 1.7, scenes)
    chance = np.clip(liking / liking.mean(0) * share, 0, 0.97)
    image, cls = np.nonzero(rng.random((images, classes)) < chance[rng.integers(0, scenes, images)])
    often = rng.geometric(1 / np.clip(rng.lognormal(0.6, 0.5, classes), 1.05, 8)[cls])
    lengths = np.bincount(image, weights=often, minlength=images).astype(np.int64)
    return ClassStats.from_flat(np.repeat(cls, often), lengths, classes)


@pytest.fixture(scope="module")
def coco_like() -> ClassStats:
    return crowded(12_000, 80, 25, 0.002)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_of_a_crowded_set_gets_within_five_percent_where_a_subset_does(coco_like, seed):
    part = biased_part(coco_like, seed)
    kept = coco_like.select(choose(coco_like, part.instance_counts, seed=seed))
    assert off_target(kept.instance_counts, part.instance_counts).tolist() == []


def test_images_and_instances_can_be_wished_together(coco_like):
    part = biased_part(coco_like, 0)
    kept = coco_like.select(choose(coco_like, part.instance_counts, part.image_counts))
    off = [*off_target(kept.instance_counts, part.instance_counts), *off_target(kept.image_counts, part.image_counts)]
    assert len(off) <= 1, "of 160 counts, some of a few images that have to be met exactly"


@pytest.mark.parametrize("name", PROFILES)
def test_a_crowded_set_becomes_long_tailed(coco_like, name):
    largest = int(profile(name, coco_like.instance_counts, 100).max() * 0.6)
    targets = profile(name, coco_like.instance_counts, 100, largest)
    kept = coco_like.select(choose(coco_like, targets))
    assert off_target(kept.instance_counts, targets).tolist() == []
    assert kept.instance_counts.max() / kept.instance_counts.min() == pytest.approx(100, rel=0.1)


def test_rare_classes_get_their_few_instances_exactly():
    stats = crowded(6000, 300, 60, 0.0003)
    part = biased_part(stats, 1)
    assert (part.instance_counts < 10).sum() > 40
    kept = stats.select(choose(stats, part.instance_counts))
    assert off_target(kept.instance_counts, part.instance_counts).tolist() == []


def test_where_targets_conflict_as_many_classes_as_possible_are_served():
    """Class 0 comes with each of the others: their targets can all be met, and then class 0 has too many."""
    stats = ClassStats.from_lists([[0, c] for c in range(1, 6) for _ in range(40)], 6)
    targets = np.array([50, 20, 20, 20, 20, 20])
    kept = stats.select(choose(stats, targets))
    assert off_target(kept.instance_counts, targets).tolist() == [0]


@pytest.mark.parametrize(("tries", "most"), [(0, 8), (1000, 4)])
def test_a_crowded_set_serves_most_classes_of_a_profile_that_is_too_steep(coco_like, tries, most, monkeypatch):
    """Flips that only lessen squared errors leave 19 of 80 classes off target, as head classes are in every image."""
    monkeypatch.setattr("yolo_lt.dataset.subset.flips.MOST_TRIES", tries)
    targets = profile("exponential", coco_like.instance_counts, 100)
    kept = coco_like.select(choose(coco_like, targets))
    assert 0 < len(off_target(kept.instance_counts, targets)) <= most


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4), max_size=60), st.lists(st.integers(0, 20), min_size=5, max_size=5), st.integers(0, 3)
)
def test_with_one_object_per_image_every_target_is_met(labels, targets, seed):
    stats = ClassStats.from_lists([[c] for c in labels], 5)
    chosen = choose(stats, np.array(targets), seed=seed)
    assert stats.select(chosen).instance_counts.tolist() == np.minimum(targets, stats.instance_counts).tolist()


@settings(max_examples=60, deadline=None)
@given(LISTS, st.lists(st.integers(0, 30), min_size=6, max_size=6), st.booleans(), st.integers(0, 3))
def test_whatever_is_wished_the_same_images_are_chosen_again_and_none_with_a_class_that_is_not(
    lists, wished, both, seed
):
    stats, targets = ClassStats.from_lists(lists, 6), np.array(wished)
    images = targets // 2 if both else None
    chosen = choose(stats, targets, images, seed)
    assert (chosen.shape, chosen.dtype) == ((len(lists),), bool)
    np.testing.assert_array_equal(chosen, choose(stats, targets, images, seed))
    kept = stats.select(chosen)
    assert (kept.image_counts[(targets if images is None else images) == 0] == 0).all()
    labelled = np.array([len(x) > 0 for x in lists], bool)
    share = chosen[labelled].mean() if labelled.any() else 1
    assert chosen[~labelled].sum() == int(share * (~labelled).sum() + 0.5)


@given(LISTS)
def test_who_wants_all_gets_all(lists):
    stats = ClassStats.from_lists(lists, 6)
    assert choose(stats, stats.instance_counts).all()
    assert choose(stats, stats.instance_counts + 7, stats.image_counts).all()


def test_the_seed_decides_which_images():
    stats = ClassStats.from_lists([[0]] * 100 + [[]] * 10, 1)
    first, second = (choose(stats, np.array([30]), seed=seed) for seed in (0, 1))
    assert (first != second).any()
    assert first[:100].sum() == second[:100].sum() == 30
    assert first[100:].sum() == 3


def test_image_targets_keep_images_as_crowded_as_they_were():
    stats = ClassStats.from_lists([[0] * n for n in (1, 9) for _ in range(200)], 1)
    free = choose(stats, np.array([500]))
    tied = choose(stats, np.array([500]), np.array([100]))
    assert free.sum() > 130
    assert stats.select(tied).instance_counts.tolist() == [500]
    assert tied.sum() == 100


@pytest.mark.parametrize(
    ("targets", "images", "tolerance", "message"),
    [
        ([1], None, 0.05, "targets: expected 2 numbers"),
        ([1, -1], None, 0.05, "targets: class 1 has -1"),
        ([1, float("nan")], None, 0.05, "targets: class 1 has nan"),
        ([1, 0.5], None, 0.05, "targets: class 1 has 0.5"),
        ([1, 1], [1, 1, 1], 0.05, "image_targets: expected 2 numbers"),
        ([1, 1], None, 1.0, "tolerance=1.0"),
        ([1, 1], None, -0.1, "tolerance=-0.1"),
    ],
)
def test_targets_that_make_no_sense_are_refused(targets, images, tolerance, message):
    stats = ClassStats.from_lists([[0], [1]], 2)
    with pytest.raises(UsageError, match=message):
        choose(stats, np.array(targets), images and np.array(images), tolerance=tolerance)


def search_of(lists, targets, chosen, barred=None) -> Search:
    stats = ClassStats.from_lists(lists, 6)
    image, cls = (x.astype(np.int64) for x in stats.incidences)
    count = np.array([lists[i].count(c) for i, c in zip(image, cls, strict=True)], np.int64)
    rows = Rows.of(image, cls, count, len(lists), 6)
    barred = np.zeros(len(lists), bool) if barred is None else barred
    return Search.of(rows, np.array(targets), np.array(chosen, bool), barred, np.arange(len(lists)))


def plain_cost(lists, targets, chosen, power, slack=0.0, centre=0.0) -> float:
    total = 0.0
    for c, target in enumerate(targets):
        have = sum(row.count(c) for row, kept in zip(lists, chosen, strict=True) if kept)
        excess = max(abs(have - target) - slack, 0) / max(target, 1)
        total += excess**power + centre * ((have - target) / max(target, 1)) ** 2
    return total


@settings(max_examples=60, deadline=None)
@given(LISTS, st.lists(st.integers(0, 12), min_size=6, max_size=6), st.sampled_from([1, 2]), st.data())
def test_gains_equal_a_plain_recount_and_nothing_is_left_to_gain(lists, targets, power, data):
    chosen = data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists)))
    goal, search = Goal(np.ones(6), power, 0.01), search_of(lists, targets, chosen)
    now = plain_cost(lists, targets, chosen, power, 1, 0.01)
    for step in (lambda: None, lambda: descend(search, goal), lambda: descend_by_chains(search, goal)):
        step()
        after = plain_cost(lists, targets, search.chosen, power, 1, 0.01)
        assert after <= now + 1e-9
        now = after
        for i, gain in enumerate(search.gains(goal)):
            flipped = search.chosen.copy()
            flipped[i] ^= True
            assert gain == pytest.approx(plain_cost(lists, targets, flipped, power, 1, 0.01) - now, abs=1e-9)
            assert step.__code__.co_names == () or gain > -1e-9
    recount = [sum(row.count(c) for row, k in zip(lists, search.chosen, strict=True) if k) for c in range(6)]
    assert search.total.tolist() == recount


def test_a_chain_swaps_where_no_single_image_helps():
    """One of class 0 too many: the image that goes takes class 1 along, the image that comes brings it back."""
    lists, targets = [[0, 1], [0, 2], [1], [3]], [1, 1, 1, 0, 0, 0]
    search, goal = search_of(lists, targets, [True, True, False, False]), Goal(np.zeros(6), 2, 0.0)
    descend(search, goal)
    assert search.chosen.tolist() == [True, True, False, False]
    descend_by_chains(search, goal)
    assert search.chosen.tolist() == [False, True, True, False]


def test_a_chain_that_leads_nowhere_is_taken_back_and_barred_images_stay_out():
    lists = [[0, 1], [0, 2], [1], [3]]
    barred = np.array([False, False, True, False])
    search, goal = search_of(lists, [1, 1, 1, 0, 0, 0], [True, True, False, False], barred), Goal(np.zeros(6), 2, 0.0)
    descend_by_chains(search, goal)
    assert search.chosen.tolist() == [True, True, False, False]
    assert search.total.tolist() == [2, 1, 1, 0, 0, 0]
    assert len(lists) < CHAIN
