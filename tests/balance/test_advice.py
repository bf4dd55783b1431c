"""What recipes would cost, and that every rule of the recommendation acts where its number says so, and only there."""

import re
from pathlib import Path

import numpy as np
import pytest

from yolo_lt import config
from yolo_lt.balance.advice import (
    FEW,
    MEASURED,
    MILD,
    Findings,
    narrow_classes,
    recipe_costs,
    recommend,
)
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats, frequency_bins
from yolo_lt.dataset.diagnosis.context import class_context
from yolo_lt.dataset.diagnosis.leaks import Conflict, find_leaks
from yolo_lt.dataset.federated import from_known_classes

LISTS = [[0]] * 64 + [[0, 1]] * 8 + [[2]] * 2 + [[]] * 6
STATS = ClassStats.from_lists(LISTS, 3, ["cup", "fork", "vase"])
RECIPES = config.keys()["recipe"].choices


def plans(*recipes, stats=STATS, **keys):
    return {recipe: make_plan(stats, config.resolve({"recipe": recipe, **keys})) for recipe in recipes}


def advice(lists, num_classes=3, bins="auto", **found):
    stats = ClassStats.from_lists(lists, num_classes)
    return recommend(stats, frequency_bins(stats.image_counts, bins), Findings(**found))


def said(found, text):
    return [reason for reason in (*found.first, *found.reasons) if text in reason]


# Costs ----------------------------------------------------------------------------------------------------------------
def test_the_cost_of_a_baseline_is_nothing():
    (cost,) = recipe_costs(plans("baseline"))
    assert (cost.recipe, cost.repeated, cost.most, cost.draws) == ("baseline", 0, 1.0, 1.0)
    assert cost.exposure == pytest.approx({"head": 1, "medium": 1, "tail": 1})
    assert (cost.weights, cost.loss, cost.stage_two) == ({}, "bce", 0)


def test_the_cost_of_a_sampler_is_its_longer_epoch():
    found = plans("rfs")
    (cost,) = recipe_costs(found)
    factors = found["rfs"].factors
    assert (cost.repeated, cost.most) == (10, factors.max())
    assert cost.draws == np.ceil(factors.sum()) / 80 > 1
    assert cost.exposure["tail"] > cost.exposure["medium"] > 1
    (fixed,) = recipe_costs(plans("rfs", epoch_length="fixed"))
    assert fixed.draws == 1


def test_the_cost_of_a_loss_are_its_weights():
    cb, eql = recipe_costs(plans("cb", "eql"))
    assert cb.weights["tail"] > cb.weights["head"]
    assert (cb.draws, cb.loss) == (1, "cb")
    assert (eql.weights, eql.loss) == ({}, "eql"), "its weights come from the batch"


def test_two_stages_share_the_epochs():
    (alone,) = recipe_costs(plans("decoupled"))
    assert (alone.draws, alone.stage_two) == (1, 0.2), "both stages have epoch_length=fixed"
    rfs, both = recipe_costs(plans("rfs", "decoupled", epoch_length="grow"))
    assert both.draws == pytest.approx(rfs.draws)
    (unknown,) = recipe_costs(plans("decoupled", epoch_length="grow"))
    assert unknown.draws is None
    base, mixed = recipe_costs(plans("baseline", "decoupled", epoch_length="grow", stage_one="baseline"))
    assert mixed.draws == pytest.approx(0.8 * base.draws + 0.2 * rfs.draws)
    (given,) = recipe_costs(plans("decoupled", head_epochs=5), epochs=20)
    assert given.stage_two == 0.25


def test_every_recipe_has_a_cost():
    assert [cost.recipe for cost in recipe_costs(plans(*RECIPES))] == RECIPES


# Recommendation -------------------------------------------------------------------------------------------------------
def test_a_long_tail_gets_the_recommended_recipe_and_the_number_behind_it():
    found = advice(LISTS)
    assert (found.recipe, found.keys) == ("recommended", {})
    assert found.reasons[0] == (
        "The commonest class is in 36 times as many images as the rarest, and the tail has 1 class."
    )
    assert found.reasons[1] == MEASURED
    assert recommend(STATS, frequency_bins(STATS.image_counts)) == found, "without findings"


def test_what_was_measured_is_what_the_readme_says():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    said = re.findall(r"[+-]?\d\.\d+ \[[^\]]+\]", MEASURED)
    sets = ("fod31lt", "food61", "fod31lt-long", "food61-long")
    for name, tail, head in zip(sets, said[::2], said[1::2], strict=True):
        row = next(line for line in readme.splitlines() if line.startswith(f"| {name}, rfs against stock |"))
        assert row.split(" | ")[1:4:2] == [tail, head]


@pytest.mark.parametrize(
    ("lists", "more", "why"),
    [
        ([[0]] * 29 + [[1]] * 10, {}, "2.9 times"),
        ([[0]] * 10 + [[1]] * 10, {}, "No class is in the tail"),
        ([[0]] * 90 + [[1]] * 10, {"bins": (0, 50)}, "No class is in the tail (bins: tail <= 0"),
        ([[], []], {}, "No class occurs"),
        ([], {}, "No class occurs"),
    ],
)
def test_an_even_set_gets_the_baseline(lists, more, why):
    found = advice(lists, **more)
    assert (found.recipe, found.tries) == ("baseline", {})
    assert why in found.reasons[0]


def test_the_border_of_an_even_set():
    assert advice([[0]] * int(10 * MILD) + [[1]] * 10).recipe == "recommended"


def test_few_images_in_the_tail():
    few = advice([[0]] * 90 + [[1]] * (FEW - 1))
    assert said(few, "fewer than 10 images: 1 of 1")
    assert not said(advice([[0]] * 90 + [[1]] * FEW), "fewer than 10 images")


def test_absent_classes_come_first_and_are_named():
    found = advice(LISTS, 10)
    assert found.first == (
        "7 classes have no training image (class_3, class_4, class_5, class_6, class_7 and 2 more): no recipe can "
        "teach them, collect images or leave them out.",
    )
    assert advice(LISTS).first == ()


def test_scenes_that_a_sampler_would_only_repeat():
    lists = [[0]] * 90 + [[1]] * 12
    stats = ClassStats.from_lists(lists, 3)
    many, few = np.arange(102), np.append(np.arange(90), [200] * 6 + [201] * 6)
    for scenes, narrow in ((many, False), (few, True), (None, False)):
        found = advice(lists, context=class_context(stats, scenes=scenes))
        assert bool(said(found, "few scenes")) == narrow
    assert said(advice(lists, context=class_context(stats, scenes=few)), "1 of 1 with 5 images or more")


def test_narrow_is_compared_with_other_classes_of_as_many_images():
    varied = [[0, *others] for others in ([], [2], [3], [4], [2, 3], [2, 4], [3, 4], [2, 3, 4])] * 3
    context = class_context(ClassStats.from_lists([*varied, *[[1, 2]] * 6, *[[5, 2]] * 3], 6))
    assert narrow_classes(context).tolist() == [False, True, False, False, False, False], "class 5 has too few images"


def test_labels_that_do_not_cover_every_class_keep_their_mask():
    names = ["cup", "fork", "vase"]
    index, _ = from_known_classes([f"s/{i}.jpg" for i in range(80)], {"s": [0, 1]}, names)
    assert said(advice(LISTS, federated=index), "In 80 of 80 images not every class was looked for")
    even = advice([[0]] * 40 + [[1]] * 40, federated=index)
    assert (even.recipe, even.keys) == ("baseline", {"federated": "auto"})
    whole, _ = from_known_classes([f"s/{i}.jpg" for i in range(80)], {"s": [0, 1, 2]}, names)
    assert not said(advice(LISTS, federated=whole), "looked for")
    assert advice([[0]] * 40 + [[1]] * 40, federated=whole).keys == {}


def test_leaks_and_copies_come_before_everything():
    val = ClassStats.from_lists([[0], [1], [2], [0]], 3)
    leaks = find_leaks({"train": STATS, "val": val}, [[0, 80], [1, 2, 3]])
    found = advice(LISTS, leaks=leaks, conflicts=[Conflict(1, 2, "other boxes")])
    assert found.first == (
        "2 of the images of train repeat another one of it, which weighs double.",
        "1 of 4 images of val (25.0 %) show what an image of train shows: take them out of one of the two first, as AP "
        "on them is too kind.",
        "Copies of an image whose labels differ from those of the first: 1.",
    )
    assert advice(LISTS, leaks=find_leaks({"train": STATS, "val": val}, [])).first == ()


def test_one_box_per_image_makes_two_samplers_one():
    lists = [[0]] * 40 + [[1]] * 4
    assert said(advice(lists), "irfs")
    assert not said(advice([*lists, [1, 1]]), "irfs")
    assert not said(advice([*lists, []]), "irfs"), "an image without a box counts for rfs alone"
    rfs, irfs = (make_plan(ClassStats.from_lists(lists, 2), config.resolve({"sampler": s})) for s in ("rfs", "irfs"))
    np.testing.assert_allclose(rfs.factors, irfs.factors)


def test_only_recipes_and_keys_that_exist_are_recommended():
    few = ClassStats.from_lists([[0]] * 90 + [[1]] * 9, 2)
    context = class_context(few, scenes=np.append(np.arange(90), [0] * 9))
    found = recommend(few, frequency_bins(few.image_counts), Findings(context=context))
    assert found.tries == {"sampler_variant": "linear"}
    assert {found.recipe, advice([[0], [1]]).recipe} <= set(RECIPES)
    for name, value in {**found.tries, "federated": "auto"}.items():
        assert config.check(name, value) == value
    named = re.findall(r"(\w+)=(\w+)", " ".join(found.reasons))
    assert named
    assert all(str(config.check(key, value)) == value for key, value in named)
