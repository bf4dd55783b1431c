"""Which classes a batch takes its negatives from: those in it, and others drawn by frequency. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolo_lt.balance.weights import checked_counts


def sampling_weights(image_counts: Sequence[int] | np.ndarray, power: float = 0.5) -> np.ndarray:
    """n_c^power, the weight with which a class is drawn, shape (C,), float64; 0 without images.

    Source: Zhou et al., Probabilistic Two-Stage Detection, 2021 (federated loss); detectron2's default power.
    """
    counts = checked_counts(image_counts, "image counts")
    return np.where(counts > 0, np.maximum(counts, 1) ** power, 0.0)


def remaining_weights(weights: np.ndarray, appeared: np.ndarray) -> np.ndarray:
    """The weights for a batch in which the classes `appeared` have a place already, shape (C,)."""
    rest = weights.copy()
    rest[appeared] = 0
    return rest


def draw_classes(weights: np.ndarray, appeared: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """The classes of a batch, shape (C,), bool: those that appeared and, up to `number`, others drawn by weight.

    Without replacement. Where fewer classes have a weight than are asked for, all of them are taken; the original
    stops with an error there, as with its default of 50 on any data set of fewer classes.

    Args:
        weights: Of `sampling_weights`, shape (C,).
        appeared: Class ids with an object in the batch.
        number: How many classes there should be.
        rng: Decides.
    """
    rest = remaining_weights(weights, appeared)
    chosen = np.zeros(len(weights), bool)
    chosen[appeared] = True
    room = min(number - int(chosen.sum()), int((rest > 0).sum()))
    if room > 0:
        chosen[rng.choice(len(rest), room, replace=False, p=rest / rest.sum())] = True
    return chosen
