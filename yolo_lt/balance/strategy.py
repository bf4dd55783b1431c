"""Stage two: which images the classifier is re-trained on, as factors for the index stream. Pure numpy."""

from __future__ import annotations

import numpy as np

from yolo_lt.balance.stream import epoch_length
from yolo_lt.dataset.bins import Bins
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError

MOST_CASES = 4  # an image with many mined cases counts like one with this many: one crowd must not own the epoch


def tail_images(stats: ClassStats, bins: Bins) -> np.ndarray:
    """Which images hold a tail class, shape (N,), bool.

    Raises:
        LTError: No image does.
    """
    is_tail = np.zeros(stats.num_classes)
    is_tail[bins.tail] = 1
    found = stats.per_image_max(is_tail, empty=0.0) > 0
    if not found.any():
        raise LTError("no training image holds a tail class: use strategy=all, or give other bins=")
    return found


def focus(factors: np.ndarray, importance: np.ndarray, replay: float) -> np.ndarray:
    """Draw the important images in proportion to their importance, and the others for a fixed share of the draws.

    Args:
        factors: Repeat factors of the sampler, shape (N,).
        importance: Shape (N,), >= 0; images with 0 are the others.
        replay: Share of all draws that goes to the others, in [0, 1).

    Returns:
        Factors, shape (N,), float64. Without an important image, or without others, the sampler's own.
    """
    chosen = importance > 0
    if chosen.all() or not chosen.any():
        return factors * np.where(chosen, importance, 1.0)
    drawn = factors * importance
    others = np.where(chosen, 0.0, factors)
    return drawn + others * (drawn.sum() / others.sum() * replay / (1 - replay))


def hard(factors: np.ndarray, cases: np.ndarray, replay: float) -> np.ndarray:
    """Factors of `strategy=hard`: images by their mined cases, as many draws in all as the sampler has.

    Args:
        factors: Repeat factors of the sampler, shape (N,).
        cases: Confident false positives and missed tail objects per image, shape (N,).
        replay: Share of the draws that goes to images without a case.

    Source: hard false positives as in Decoupled Classification Refinement (Cheng et al., ECCV 2018), on images.
    """
    mined = focus(factors, np.minimum(cases, MOST_CASES).astype(np.float64), replay)
    return mined * (epoch_length(factors) / mined.sum())  # whole: the epoch length must not flip by one
