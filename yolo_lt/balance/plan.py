"""What a recipe will do on a data set: thresholds, factors, weights, by class and by bin. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_lt.balance.sampling import class_repeat_factors, head_border, repeat_factors
from yolo_lt.balance.strategy import focus, tail_images
from yolo_lt.balance.stream import epoch_length
from yolo_lt.balance.weights import class_weights
from yolo_lt.dataset.bins import BIN_NAMES, Bins, frequency_bins
from yolo_lt.dataset.stats import ClassStats

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
        class_factors: Class repeat factors r_c, shape (C,), float64; 1 without a sampler.
        weights: Loss weight of a positive entry per class, shape (C,), float64; 1 where the loss has none.
        notes: Sentences that say what was chosen and why.
    """

    keys: dict[str, Any]
    stats: ClassStats
    bins: Bins
    factors: np.ndarray
    class_factors: np.ndarray
    weights: np.ndarray
    notes: tuple[str, ...]

    @property
    def samples(self) -> bool:
        """Whether the recipe changes what training sees."""
        return self.keys["sampler"] != "none" or (self.stage_two and self.keys["strategy"] != "all")

    @property
    def stage_two(self) -> bool:
        """Whether the head of a finished checkpoint is re-trained; `head_of` names that checkpoint."""
        return bool(self.keys.get("head_of"))

    @property
    def reweighs(self) -> bool:
        """Whether the recipe changes the classification loss."""
        return self.keys["cls_loss"] != "bce"

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


def make_plan(stats: ClassStats, keys: dict[str, Any], bins: Bins | None = None) -> Plan:
    """Resolve a recipe for a data set.

    Args:
        stats: Class occurrences of the images that are trained on.
        keys: Every yolo-lt key, as `config.resolve` returns them.
        bins: The bins, if they come from more images than those; else `bins=` decides.

    Raises:
        UsageError: A key is out of range.
        LTError: The bins file is missing or malformed, or no image serves the strategy of stage two.
    """
    bins = bins or frequency_bins(stats.image_counts, keys["bins"], stats.frequency)
    keys, notes = _resolve_auto(stats, bins, keys)
    factors, class_factors = np.ones(stats.num_images), np.ones(stats.num_classes)
    if keys["sampler"] != "none":
        factors = repeat_factors(stats, method=keys["sampler"], thr=keys["repeat_thr"])
        class_factors = class_repeat_factors(stats.image_counts, stats.num_images, keys["repeat_thr"])
        notes += _sampler_notes(stats, factors, keys)
    if keys.get("head_of") and keys["strategy"] != "all":
        factors, note = _strategy(stats, bins, factors, keys)
        notes += [note]
    weights = np.ones(stats.num_classes)
    if keys["cls_loss"] == "cb":
        weights = class_weights(stats.instance_counts, "cb", keys["cb_beta"])
    return Plan(keys, stats, bins, factors, class_factors, weights, tuple(notes))


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
    """Replace `auto` by the border of the head, and say so for the keys that act."""
    border, why = head_border(stats, bins)
    acting = {"repeat_thr": keys["sampler"] != "none", "eql_lambda": keys["cls_loss"] == "eql"}
    notes = [f"{k}=auto chose {border:.4g}: {why}" for k in acting if acting[k] and keys[k] == "auto"]
    return {**keys, **{k: border for k in acting if keys[k] == "auto"}}, notes


def _sampler_notes(stats: ClassStats, factors: np.ndarray, keys: dict[str, Any]) -> list[str]:
    repeated, length = int((factors > 1).sum()), epoch_length(factors, fixed=keys["epoch_length"] == "fixed")
    if not repeated:
        rarest = stats.image_counts[stats.image_counts > 0].min(initial=stats.num_images) / stats.num_images
        return [f"WARNING: no image is repeated: repeat_thr={keys['repeat_thr']:.4g} must exceed {rarest:.4g} to act"]
    note = f"{repeated} of {stats.num_images} images are repeated, the most {factors.max():.2f} times"
    return [f"{note}; epoch_length={keys['epoch_length']}: {length} draws per epoch"]
