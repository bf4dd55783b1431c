"""Two ways of training against each other: paired differences over the same images, and over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolo_lt.errors import LTError
from yolo_lt.evaluate.bootstrap import image_weights, percentile_interval, replicate_means
from yolo_lt.evaluate.matching import Matches
from yolo_lt.evaluate.metrics import class_metrics, set_means
from yolo_lt.evaluate.pool import scored


def paired_difference(
    ours: Sequence[Matches],
    baseline: Sequence[Matches],
    sets: Sequence[np.ndarray],
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference ours - baseline with its 95 % interval, images and seeds resampled.

    Run k of one side is paired with run k of the other (the same training seed). A replicate draws images and, of
    several pairs, pairs with replacement; both sides of a pair meet the same images.

    Args:
        ours: Matches of one run per seed.
        baseline: The same for the baseline, in the same order of seeds, on the same images.
        sets: Class indices of each set (bin).
        replicates: Number of replicates.
        seed: Seed of the bootstrap.

    Returns:
        Difference, shape (len(sets), 4), columns AP, AP50, AP75, AR, and interval, shape (2, len(sets), 4); NaN where
        a set has no ground truth.

    Raises:
        LTError: Different numbers of runs, or runs on different images.
    """
    if len(ours) != len(baseline) or not ours:
        raise LTError(f"a paired comparison needs as many runs on both sides, got {len(ours)} and {len(baseline)}")
    ids = ours[0].image_ids
    if any(len(m.image_ids) != len(ids) or (m.image_ids != ids).any() for m in (*ours, *baseline)):
        raise LTError("the runs were validated on different images, so they cannot be paired")
    if len({(m.protocol, m.max_det) for m in (*ours, *baseline)}) > 1:
        raise LTError("the runs were evaluated by different protocols or caps, so they cannot be paired")
    plain = [_means(a, sets) - _means(b, sets) for a, b in zip(ours, baseline, strict=True)]
    weights = list(image_weights(len(ids), replicates, seed))
    pairs = np.stack([_replicates(a, sets, weights) - _replicates(b, sets, weights)
                      for a, b in zip(ours, baseline, strict=True)])  # fmt: skip
    return np.mean(plain, axis=0), seeds_interval(pairs, seed)


def _means(matches: Matches, sets: Sequence[np.ndarray]) -> np.ndarray:
    averaged, members = scored(matches, sets)
    return set_means(class_metrics(averaged), members)


def _replicates(matches: Matches, sets: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    averaged, members = scored(matches, sets)
    return replicate_means(averaged, members, weights)


def seeds_interval(replicates: np.ndarray, seed: int = 0) -> np.ndarray:
    """95 % interval of a mean over runs, which are drawn with replacement in every replicate.

    Args:
        replicates: One value per run and replicate of the images, shape (runs, B, ...).
        seed: Seed of the drawing.

    Returns:
        Shape (2, ...): lower and upper bound.
    """
    return percentile_interval(drawn_means(replicates, seed))


def drawn_means(replicates: np.ndarray, seed: int = 0) -> np.ndarray:
    """Mean over runs drawn with replacement, in every replicate others, shape (B, ...); arguments as above."""
    runs, count = replicates.shape[:2]
    drawn = np.random.default_rng((seed, 1)).integers(0, runs, size=(count, runs))
    return replicates[drawn.T, np.arange(count)].mean(axis=0)


def verdict(low: float, high: float) -> str:
    """What an interval of a difference says in a word."""
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"
