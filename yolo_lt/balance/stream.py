"""The order in which training draws images: a pure function of (factors, seed, epoch, rank, world)."""

from __future__ import annotations

import math

import numpy as np


def epoch_length(factors: np.ndarray, world: int = 1, fixed: bool = False) -> int:
    """Draws per epoch over all ranks: sum of the factors, or the number of images if fixed, up to a multiple of world.

    It is the same in every epoch and splits evenly, because Ultralytics fixes its batch count once and unequal ranks
    would hang a distributed run.
    """
    draws = len(factors) if fixed else max(round(float(factors.sum())), 1)
    return math.ceil(draws / world) * world


def epoch_indices(
    factors: np.ndarray, seed: int, epoch: int, rank: int = 0, world: int = 1, fixed: bool = False
) -> np.ndarray:
    """Image indices that one rank draws in one epoch.

    Stochastic rounding: image i is drawn floor(r_i) or ceil(r_i) times with expectation r_i. It is done by systematic
    sampling over a random order of the images, so that every image has the same marginal law as with LVIS' independent
    rounding while the epoch length is exact (independent rounding would need padding or trimming, which biases). The
    factors are first scaled so that their sum is the epoch length: by less than half a draw in the whole epoch, plus
    the padding to `world`, or to one draw per image on average if `fixed`.

    Args:
        factors: Repeat factors, shape (N,), positive.
        seed: The run's seed, the same on all ranks.
        epoch: Epoch number from 0.
        rank: This process.
        world: Number of processes; rank k takes draws k, k + world, ... of the shuffled epoch.
        fixed: Whether the epoch has one draw per image instead of sum(r_i).

    Returns:
        Indices, shape (epoch_length / world,), int64.

    Source: stochastic rounding as in detectron2's RepeatFactorTrainingSampler; systematic sampling: Madow 1949.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(factors))
    length = epoch_length(factors, world, fixed)
    borders = np.cumsum(factors[order])
    borders *= length / borders[-1]
    drawn = np.searchsorted(borders, np.arange(length) + rng.random(), side="right")
    indices = order[np.minimum(drawn, len(order) - 1)]
    return rng.permutation(indices)[rank::world]
