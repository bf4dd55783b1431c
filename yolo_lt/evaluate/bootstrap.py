"""Intervals by resampling images: tail numbers come from few images, and one of them can carry a class.

A replicate draws N images with replacement, which is a whole-number weight per image (Efron 1979; for AP as a
function of weights no detection is sorted again). A class without ground truth in a replicate is left out of that
replicate's mean, as it is left out of the metric. Replicates depend on (images, replicates, seed) alone, so two runs
on the same images meet the same replicates and their difference is paired: subtract two `replicate_means`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from yolo_lt.evaluate.matching import Matches
from yolo_lt.evaluate.metrics import METRICS, prepare, set_means, weighted_metrics

PART = 1 << 18  # detections, about, whose curves are computed together


def image_weights(num_images: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each image is drawn, (N,) int32 per replicate, each summing to N.

    The same arguments give the same weights on every machine and with every number of classes or detections.
    """
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        draws = rng.integers(0, num_images, size=num_images)
        yield np.bincount(draws, minlength=num_images).astype(np.int32)


def replicate_means(matches: Matches, sets: Sequence[np.ndarray], weights: Iterable[np.ndarray]) -> np.ndarray:
    """AP, AP50, AP75 and AR of sets of classes under every image weighting.

    Args:
        matches: From `match` or `load_matches`.
        sets: Class indices of each set.
        weights: One (N,) array of whole numbers per replicate, for example from `image_weights`.

    Returns:
        Shape (replicates, len(sets), 4), float64, columns as in `METRICS`; NaN where no class of the set has ground
        truth in the replicate.
    """
    weights = list(weights)
    values = np.zeros((len(weights), len(matches.category_ids), len(METRICS)))
    for classes, part in class_parts(matches):
        curves = prepare(part)
        for b, w in enumerate(weights):
            values[b, classes] = weighted_metrics(curves, w)
    return np.array([set_means(v, sets) for v in values]).reshape(-1, len(sets), len(METRICS))


def class_parts(matches: Matches) -> Iterator[tuple[slice, Matches]]:
    """Classes and their matches, so few at a time that all replicates of them are computed in the processor's cache."""
    classes = len(matches.category_ids)
    first = np.searchsorted(matches.cls, np.arange(classes + 1))
    starts = np.flatnonzero(np.diff(first[:-1] // PART, prepend=-1))
    for a, b in pairwise([*starts.tolist(), classes]):
        det, gt = slice(first[a], first[b]), (matches.gt_class >= a) & (matches.gt_class < b)
        yield (
            slice(a, b),
            replace(
                matches,
                **{name: getattr(matches, name)[det] for name in ("image", "score", "tp", "ignore", "iou")},
                **{name: getattr(matches, name)[gt] for name in ("gt_image", "gt_count")},
                cls=matches.cls[det] - np.int32(a),
                gt_class=matches.gt_class[gt] - np.int32(a),
                category_ids=matches.category_ids[a:b],
            ),
        )


def percentile_interval(replicates: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Percentile interval over the first axis, replicates without a value left out.

    Args:
        replicates: Shape (B, ...), NaN where a replicate has no value.
        level: Share of replicates inside.

    Returns:
        Shape (2, ...): lower and upper bound; NaN where no replicate has a value.
    """
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    flat = replicates.reshape(len(replicates), -1)
    bounds = np.full((2, flat.shape[1]), np.nan)
    for j, column in enumerate(flat.T):
        known = column[~np.isnan(column)]
        if len(known):
            bounds[:, j] = np.quantile(known, tails)
    return bounds.reshape(2, *replicates.shape[1:])


def bootstrap_intervals(
    matches: Matches, sets: Sequence[np.ndarray], replicates: int = 1000, seed: int = 0
) -> np.ndarray:
    """95% intervals of AP, AP50, AP75 and AR for sets of classes.

    Returns:
        Shape (2, len(sets), 4), float64: lower and upper bound; NaN where no replicate has a value.
    """
    weights = image_weights(len(matches.image_ids), replicates, seed)
    return percentile_interval(replicate_means(matches, sets, weights))
