"""What each recipe would change and cost on a data set, and which one to begin with. Pure numpy.

The recommendation is a list of rules of thumb: each gives the number that it goes by, so that whoever knows better can
overrule it. What was measured is in the README, and it is little: read them as an order in which to try things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_lt.balance.plan import Plan
from yolo_lt.balance.stream import epoch_length
from yolo_lt.dataset.bins import Bins
from yolo_lt.dataset.diagnosis.context import Context
from yolo_lt.dataset.diagnosis.leaks import Conflict, Leaks
from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.dataset.stats import ClassStats, imbalance

MILD = 3.0  # imbalance of image counts up to which no sampler is needed
FEW = 10  # images of a class below which its AP is mostly luck; LVIS calls classes up to it rare
NARROW = 0.5  # a class has narrow contexts if it has fewer than this share of the expected sets, or scenes per image
NARROW_IMAGES = 5  # with fewer images few contexts prove nothing
STAGE_TWO = 0.2  # share of the epochs that head_epochs=auto gives to stage two
MEASURED = (
    "Measured in this project, AP50 at equal iterations, three seeds after 12 epochs: on fod31lt (imbalance 75) the "
    "tail had 1.43 [1.17, 1.80] times stock's and the head +0.001 [-0.039, +0.049]; on food61 (imbalance 22) "
    "1.07 [0.90, 1.23] times and -0.011 [-0.046, +0.016]. After 36 epochs, one seed, less was left, the head lower: "
    "1.10 [1.04, 1.16] times and -0.060 [-0.105, -0.006], and 1.02 [0.88, 1.20] times and -0.040 [-0.078, +0.003]. So "
    "train stock until its AP no longer rises, and compare with it. sampler_variant=linear gave the tail more and took "
    "more from the head; docs/when-to-use-what.md of the repository has the rest."
)


@dataclass(frozen=True)
class RecipeCost:
    """What a recipe would change and cost.

    Attributes:
        recipe: Its name.
        repeated: Images that are drawn more than once in an epoch of epoch_length=grow, on average.
        most: Most draws of one image there.
        draws: Draws per epoch over images, which is iterations over those of stock; of recipe=decoupled the mean of its
            stages, None if that needs the plan of its first, which is not there.
        exposure: By bin, mean factor by which its classes are seen more often; of decoupled in stage two.
        weights: By bin, mean weight of a positive in the classification loss; empty where the loss has none.
        loss: The classification loss.
        stage_two: Share of the epochs in which the classifier alone is trained; 0 without.
    """

    recipe: str
    repeated: int
    most: float
    draws: float | None
    exposure: dict[str, float]
    weights: dict[str, float]
    loss: str
    stage_two: float


def recipe_costs(plans: Mapping[str, Plan], epochs: int = 100) -> list[RecipeCost]:
    """What each recipe would change and cost, in the order of the plans.

    Args:
        plans: Per recipe, its plan on one data set.
        epochs: Epochs of a training; decides what share a given `head_epochs` is.
    """
    return [_cost(name, plan, plans, epochs) for name, plan in plans.items()]


def _cost(name: str, plan: Plan, plans: Mapping[str, Plan], epochs: int) -> RecipeCost:
    weighs = bool(np.ptp(plan.weights) > 0) if len(plan.weights) else False
    share = _stage_two(plan, epochs)
    return RecipeCost(
        recipe=name,
        repeated=int((plan.factors > 1).sum()),
        most=float(plan.factors.max(initial=1.0)),
        draws=_draws(plan, plans, share),
        exposure={row[0]: row[5] for row in plan.bin_rows()},
        weights={row[0]: row[6] for row in plan.bin_rows()} if weighs else {},
        loss=str(plan.keys["cls_loss"]),
        stage_two=share,
    )


def _stage_two(plan: Plan, epochs: int) -> float:
    if plan.keys["recipe"] != "decoupled":
        return 0.0
    given = plan.keys["head_epochs"]
    return STAGE_TWO if given == "auto" else min(int(given) / max(epochs, 1), 1.0)


def _draws(plan: Plan, plans: Mapping[str, Plan], stage_two: float) -> float | None:
    own = _length(plan, plan.fixed)
    if not stage_two or plan.fixed:  # both stages have the epoch_length of decoupled
        return own
    first = plans.get(str(plan.keys["stage_one"]))
    return None if first is None else (1 - stage_two) * _length(first, fixed=False) + stage_two * own


def _length(plan: Plan, fixed: bool) -> float:
    return epoch_length(plan.factors, fixed=fixed) / max(plan.stats.num_images, 1)


# Recommendation -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Findings:
    """What is known of a data set beside its counts; what was not looked for is None or empty.

    Attributes:
        context: What surrounds the classes of train.
        leaks: Images that are there twice.
        conflicts: Copies whose labels differ.
        federated: Which classes were looked for in which training images.
    """

    context: Context | None = None
    leaks: Leaks | None = None
    conflicts: Sequence[Conflict] = ()
    federated: FederatedIndex | None = None


@dataclass(frozen=True)
class Advice:
    """Where to begin.

    Attributes:
        recipe: A name in cfg/recipes/.
        keys: yolo-lt keys to give beside it.
        tries: yolo-lt keys that are worth a run of their own.
        first: What to mend before anything is trained, as sentences.
        reasons: Why, as sentences; the first decided.
    """

    recipe: str
    keys: dict[str, Any]
    tries: dict[str, Any]
    first: tuple[str, ...]
    reasons: tuple[str, ...]


def recommend(stats: ClassStats, bins: Bins, found: Findings | None = None) -> Advice:
    """Which recipe to begin with, by rules of thumb.

    Args:
        stats: Class occurrences of the training images.
        bins: Head, medium and tail.
        found: What else is known.
    """
    found = found or Findings()
    first = (*_twice(found), *_absent(stats, bins))
    if even := _even(stats, bins):
        masked = _masked(found)
        keys = {"federated": "auto"} if masked else {}
        return Advice("baseline", keys, {}, first, (even, *masked, *_single(stats)))
    ratio = imbalance(stats.image_counts)["ratio"]
    tail = _many(len(bins.tail), "class", "classes")
    why = f"The commonest class is in {_times(ratio)} times as many images as the rarest, and the tail has {tail}."
    doubts = (*_few(stats, bins), *_narrow(stats, bins, found.context))
    reasons = (why, MEASURED, *doubts, *_masked(found), *_single(stats))
    return Advice("recommended", {}, {"sampler_variant": "linear"}, first, reasons)


def _many(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _even(stats: ClassStats, bins: Bins) -> str:
    """Why nothing needs balancing; empty if something does."""
    ratio = imbalance(stats.image_counts)["ratio"]
    if not ratio:
        return "No class occurs, so there is nothing to balance."
    if not len(bins.tail):
        return f"No class is in the tail (bins: {bins.rule}), so there is nothing to balance."
    if ratio < MILD:
        return (
            f"The commonest class is in {_times(ratio)} times as many images as the rarest: less than {MILD:g} is mild."
        )
    return ""


def _twice(found: Findings) -> list[str]:
    """What copies of images spoil."""
    leaks = found.leaks
    said = [] if leaks is None else [text for s in range(len(leaks.splits)) for text in _copies(leaks, s)]
    if found.conflicts:
        said.append(f"Copies of an image whose labels differ from those of the first: {len(found.conflicts):,}.")
    return said


def _copies(leaks: Leaks, s: int) -> list[str]:
    name, many, said = leaks.splits[s], int(leaks.leaked[s].sum()), []
    if many:
        of = _many(int(leaks.images[s]), "image", "images")
        said.append(
            f"{many:,} of {of} of {name} ({100 * many / leaks.images[s]:.1f} %) show what an image of {leaks.train} "
            "shows: take them out of one of the two first, as AP on them is too kind."
        )
    if copies := int(leaks.copies[s]):
        said.append(f"{copies:,} of the images of {name} repeat another one of it, which weighs double.")
    return said


def _absent(stats: ClassStats, bins: Bins) -> list[str]:
    """Classes that no recipe can teach."""
    if not len(bins.unseen):
        return []
    names = ", ".join(stats.names[c] for c in bins.unseen[:5])
    more = f" and {len(bins.unseen) - 5} more" if len(bins.unseen) > 5 else ""
    many = _many(len(bins.unseen), "class has", "classes have")
    return [f"{many} no training image ({names}{more}): no recipe can teach them, collect images or leave them out."]


def _few(stats: ClassStats, bins: Bins) -> list[str]:
    """Where the tail is too small for what a recipe can do."""
    few = int((stats.image_counts[bins.tail] < FEW).sum())
    if 2 * few < len(bins.tail):
        return []
    return [
        f"Classes of the tail with fewer than {FEW} images: {few} of {len(bins.tail)}. Their AP will have wide "
        "intervals, and a recipe shows the same few again: collect more."
    ]


def _narrow(stats: ClassStats, bins: Bins, context: Context | None) -> list[str]:
    """Where the images of the tail are much alike."""
    if context is None:
        return []
    narrow = int(narrow_classes(context)[bins.tail].sum())
    known = int((stats.image_counts[bins.tail] >= NARROW_IMAGES).sum())
    if not narrow or 2 * narrow < known:
        return []
    return [
        f"Classes of the tail in few scenes, or always beside the same classes: {narrow} of {known} with "
        f"{NARROW_IMAGES} images or more. A sampler repeats just these: other scenes would help more."
    ]


def narrow_classes(context: Context) -> np.ndarray:
    """Classes with narrow contexts, shape (C,), bool.

    On at least 5 images they have fewer than half of the sets of other classes that as many images of another class
    have, or less than one scene for two images.
    """
    with np.errstate(invalid="ignore"):
        few = context.contexts < NARROW * context.contexts_expected
        same = context.scenes < NARROW * context.images
    return (context.images >= NARROW_IMAGES) & (few | same)


def _masked(found: Findings) -> list[str]:
    if found.federated is None or not found.federated.partial.any():
        return []
    partial = found.federated.partial
    many = f"{int(partial.sum()):,} of {len(partial):,} images"
    return [f"In {many} not every class was looked for: keep the mask (federated=), which recipe=baseline drops."]


def _single(stats: ClassStats) -> list[str]:
    """Where two samplers are one."""
    if stats.num_images and (np.diff(stats.offsets) == 1).all():
        return ["Every image has one box, so sampler=irfs repeats exactly what rfs repeats."]
    return []
