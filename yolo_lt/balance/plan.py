"""What a recipe will do on a data set: thresholds, factors, weights, by class and by bin. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_lt.balance.loss_plan import (
    acting_index,
    box_loss_weights,
    check_losses,
    loss_notes,
    positive_weights,
    weight_notes,
)
from yolo_lt.balance.sampling import LAWS, SAMPLERS, auto_threshold, image_and_class_factors, sampler_frequency
from yolo_lt.balance.strategy import focus, tail_images
from yolo_lt.balance.stream import epoch_length
from yolo_lt.dataset.bins import BIN_NAMES, Bins, frequency_bins
from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError, UsageError

LONGEST_EPOCH = 50  # times the images; beyond that the factors are a mistake, such as original E-IRFS on LVIS
TAIL_PASTE = 0.3  # what tail_paste=true stands for
CHOOSING = ("tail", "hard")  # the strategies of stage two that choose among the images
CSV_HEADER = (
    *("class_id", "name", "bin", "images", "instances"),
    *("repeat_factor", "weight", "expected_exposure"),
)


@dataclass(frozen=True)
class Plan:
    """A recipe, resolved for one data set.

    Attributes:
        keys: Every yolo-lt key, with numbers where the recipe said auto.
        stats: Class occurrences of the training split.
        bins: Head, medium and tail.
        factors: Image repeat factors, shape (N,), float64.
        class_factors: Class factors behind them, shape (C,), float64; 1 without a sampler.
        weights: Loss weight of a positive entry per class, shape (C,), float64; 1 where the loss has none.
        notes: Sentences that say what was chosen and why.
        box_weights: Weight of the box loss per class, shape (C,), float64; None without.
        federated: Which classes were looked for in which images; None where all were in all.
    """

    keys: dict[str, Any]
    stats: ClassStats
    bins: Bins
    factors: np.ndarray
    class_factors: np.ndarray
    weights: np.ndarray
    notes: tuple[str, ...]
    box_weights: np.ndarray | None = None
    federated: FederatedIndex | None = None

    @property
    def samples(self) -> bool:
        """Whether the recipe changes how often images are drawn."""
        return self.keys["sampler"] != "none" or (self.stage_two and self.keys["strategy"] in CHOOSING)

    @property
    def changes_images(self) -> bool:
        """Whether the recipe changes what training sees: how often an image is drawn, or the image."""
        return self.samples or self.paste_share > 0 or bool(self.keys["tail_augment"])

    @property
    def adapts_data(self) -> bool:
        """Whether training needs our data set: for what it sees, or to know where a pixel comes from."""
        return self.changes_images or self.federated is not None

    @property
    def paste_share(self) -> float:
        """Share of the source images into which a tail instance is pasted."""
        return TAIL_PASTE if self.keys["tail_paste"] is True else float(self.keys["tail_paste"])

    @property
    def fixed(self) -> bool:
        """Whether an epoch has a draw per image instead of the sum of the factors."""
        return self.keys["epoch_length"] == "fixed"

    @property
    def stage_two(self) -> bool:
        """Whether the head of a finished checkpoint is re-trained; `head_of` names that checkpoint."""
        return bool(self.keys.get("head_of"))

    @property
    def reweighs(self) -> bool:
        """Whether the recipe changes the losses."""
        return self.keys["cls_loss"] != "bce" or self.federated is not None or self.box_weights is not None

    @property
    def asked(self) -> np.ndarray:
        """Share of the drawn images that is asked to hold the class, shape (C,)."""
        return self.stats.images_with(self.factors) / self.factors.sum()

    @property
    def exposure(self) -> np.ndarray:
        """Expected share of drawn images that hold the class, relative to uniform drawing, (C,); nan if unseen."""
        counts = np.where(self.stats.image_counts > 0, self.stats.image_counts, np.nan)
        return self.asked * self.stats.num_images / counts

    def rows(self) -> list[tuple]:
        """One row per class under `CSV_HEADER`."""
        labels = self.bins.labels(self.stats.num_classes)
        s, gain = self.stats, self.exposure
        return [
            (
                *(c, s.names[c], str(labels[c]), int(s.image_counts[c]), int(s.instance_counts[c])),
                *(float(self.class_factors[c]), float(self.weights[c]), float(gain[c])),
            )
            for c in range(s.num_classes)
        ]

    def bin_rows(self) -> list[tuple]:
        """One row per bin: name, classes, images, instances, and mean factor, exposure and weight of its classes."""
        rows = []
        for name in BIN_NAMES:
            ids = getattr(self.bins, name)
            if len(ids):
                counts = (int(self.stats.image_counts[ids].sum()), int(self.stats.instance_counts[ids].sum()))
                means = (v[ids].mean() for v in (self.class_factors, self.exposure, self.weights))
                rows.append((name, len(ids), *counts, *map(float, means)))
        return rows


def make_plan(
    stats: ClassStats,
    keys: dict[str, Any],
    bins: Bins | None = None,
    federated: FederatedIndex | None = None,
) -> Plan:
    """Resolve a recipe for a data set.

    Args:
        stats: Class occurrences of the images that are trained on.
        keys: Every yolo-lt key, as `config.resolve` returns them.
        bins: The bins, if they come from more images than those; else `bins=` decides.
        federated: The federated index of those images, if there is one.

    Raises:
        UsageError: A key is out of range or cannot act on this data.
        LTError: The bins file is missing or malformed, or no image serves the strategy of stage two.
    """
    bins = bins or frequency_bins(stats.image_counts, keys["bins"], stats.frequency)
    keys, notes = _resolve_auto(stats, bins, keys)
    factors, class_factors = np.ones(stats.num_images), np.ones(stats.num_classes)
    if keys["sampler"] != "none":
        factors, class_factors = _sampler_factors(stats, keys)
        notes += _sampler_notes(stats, factors, keys)
    if keys.get("head_of") and keys["strategy"] in CHOOSING:
        factors, note = _strategy(stats, bins, factors, keys)
        notes += [note]
    check_losses(stats, keys)
    weights, box_weights = positive_weights(stats, keys), box_loss_weights(stats, keys)
    notes += [*loss_notes(stats, keys), *weight_notes(stats, keys, weights, box_weights)]
    federated, more = acting_index(federated, keys)
    plan = Plan(keys, stats, bins, factors, class_factors, weights, (*notes, *more), box_weights, federated)
    _check_tail(plan)
    return plan


def _sampler_factors(stats: ClassStats, keys: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    thr = 1.0 if keys["sampler"] in LAWS else keys["repeat_thr"]  # a law has no threshold
    cap = None if keys["repeat_cap"] == "none" else keys["repeat_cap"]
    alpha = {"alpha": keys["eirfs_alpha"]} if keys["sampler"] == "eirfs" else {}
    variant = keys["sampler_variant"]
    return image_and_class_factors(stats, keys["sampler"], thr, variant, cap, keys["rounding"], **alpha)


def _check_tail(plan: Plan) -> None:
    """Refuse what acts on the tail where there is none."""
    for name in ("tail_paste", "tail_augment"):
        if plan.keys[name] and not plan.stats.image_counts[plan.bins.tail].sum():
            raise LTError(f"{name} cannot act: no training image holds a tail class (bins: {plan.bins.rule})")


def _strategy(stats: ClassStats, bins: Bins, factors: np.ndarray, keys: dict[str, Any]) -> tuple[np.ndarray, str]:
    """The factors of stage two's strategy, and what they do; `hard` keeps the sampler's until images are mined."""
    holding = tail_images(stats, bins)
    if keys["strategy"] == "hard":
        return factors, f"strategy=hard mines before the first and every {keys['mine_every']}. epoch after it"
    factors = focus(factors, holding.astype(np.float64), keys["replay"])
    length = epoch_length(factors, fixed=keys["epoch_length"] == "fixed")
    share = f"{keys['replay']:.0%} replay of the other {(~holding).sum()}"
    return factors, f"strategy=tail: {holding.sum()} images with tail classes, {share}; {length} draws per epoch"


def _resolve_auto(stats: ClassStats, bins: Bins, keys: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Replace `auto` by what it stands for, and say so for the thresholds that act."""
    keys, notes = dict(keys), []
    sampler, first = keys["sampler"], next(iter(SAMPLERS[keys["sampler"]]))
    if keys["sampler_variant"] == "auto":  # the authors' E-IRFS is for parity: it is unbounded
        keys["sampler_variant"] = "bounded" if sampler == "eirfs" else first
    samples = sampler != "none" and sampler not in LAWS
    for name, acts, of in (
        ("repeat_thr", samples, (sampler, keys["sampler_variant"])),
        ("eql_lambda", keys["cls_loss"] == "eql", ("rfs", None)),
    ):
        if acts and keys[name] == "auto":
            keys[name], why = auto_threshold(stats, bins, *of)
            notes += [f"{name}=auto chose {keys[name]:.4g}: {why}"]
    if keys["focal_gamma"] == "auto":
        keys["focal_gamma"] = 2.0 if keys["cls_loss"] in ("efl", "eqfl") else 0.0
    if keys["loss_gain"] == "auto" and not keys["focal_gamma"]:
        keys["loss_gain"] = 1.0
    return keys, notes


def _sampler_notes(stats: ClassStats, factors: np.ndarray, keys: dict[str, Any]) -> list[str]:
    repeated, length = int((factors > 1).sum()), epoch_length(factors, fixed=keys["epoch_length"] == "fixed")
    if length > LONGEST_EPOCH * stats.num_images:
        raise UsageError(
            f"sampler={keys['sampler']}: an epoch would have {length:.3g} draws for {stats.num_images} images; "
            "use epoch_length=fixed, repeat_cap=, or a lower repeat_thr="
        )
    if not repeated and keys["sampler"] not in LAWS:
        rarest = sampler_frequency(stats, keys["sampler"], keys["sampler_variant"]).min(initial=1.0)
        return [f"WARNING: no image is repeated: repeat_thr={keys['repeat_thr']:.4g} must exceed {rarest:.4g} to act"]
    note = f"{repeated} of {stats.num_images} images are repeated, the most {factors.max():.2f} times"
    if keys["sampler"] in LAWS:
        note = note.replace("repeated", "drawn more often than before")
    return [f"{note}; epoch_length={keys['epoch_length']}: {length} draws per epoch"]
