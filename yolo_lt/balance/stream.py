"""The order in which training draws images: a pure function of (factors, seed, epoch, rank, world)."""

from __future__ import annotations

import math

import numpy as np

NOISE = 1e-6  # a sum of factors this close to a whole number is that number: its last digits depend on the summation


def epoch_length(factors: np.ndarray, world: int = 1, fixed: bool = False) -> int:
    """Draws per epoch over all ranks: sum of the factors, or the number of images if fixed, up to a multiple of world.

    It is the same in every epoch and splits evenly, because Ultralytics fixes its batch count once and unequal ranks
    would hang a distributed run. The sum is rounded up, so that no image gets less than its factor.
    """
    draws = len(factors) if fixed else max(math.ceil(float(factors.sum()) - NOISE), 1)
    return math.ceil(draws / world) * world


def epoch_indices(
    factors: np.ndarray, seed: int, epoch: int, rank: int = 0, world: int = 1, fixed: bool = False
) -> np.ndarray:
    """Image indices that one rank draws in one epoch.

    Stochastic rounding: image i is drawn floor(r_i) or ceil(r_i) times with expectation r_i. It is done by systematic
    sampling over a random order of the images, so that every image has the same marginal law as with LVIS' independent
    rounding while the epoch length is exact (independent rounding would need padding or trimming, which biases). The
    factors are first scaled so that their sum is the epoch length: up by less than a draw in the whole epoch, plus the
    padding to `world`, or to one draw per image on average if `fixed`. So unless `fixed`, an image with a factor of at
    least 1 is drawn in every epoch.

    Args:
        factors: Repeat factors, shape (N,), positive.
        seed: The run's seed, the same on all ranks.
        epoch: Epoch number from 0.
        rank: This process.
        world: Number of processes; rank k takes draws k, k + world, ... of the shuffled epoch.
        fixed: Whether the epoch has one draw per image instead of sum(r_i).

    Returns:
        Indices, shape (epoch_length / world,), int32.

    Source: stochastic rounding as in detectron2's RepeatFactorTrainingSampler; systematic sampling: Madow 1949.
    """
    rng = np.random.default_rng((seed, epoch))
    order = np.arange(len(factors), dtype=np.int32)
    rng.shuffle(order)
    length = epoch_length(factors, world, fixed)
    indices = np.repeat(order, _systematic(_scaled(factors, length)[order], length, rng.random()))
    rng.shuffle(indices)
    return indices[rank::world]


def _scaled(factors: np.ndarray, length: int) -> np.ndarray:
    """Factors with the sum `length`, shape (N,); as they are if that is their sum but for rounding: 1 must stay 1."""
    total = float(factors.sum())
    return factors if abs(length - total) <= NOISE else factors * (length / total)


def _systematic(expected: np.ndarray, length: int, start: float) -> np.ndarray:
    """Draws of every image: floor or ceil of what is expected, so that all are `length`.

    The points start, start + 1, ... are laid on the images' borders. Only the fractions of the factors are summed up:
    whole draws move no border relative to the points, and so no rounding of the sum can take one away.

    Args:
        expected: Expectations, shape (N,), with the sum `length` but for rounding.
        length: Draws in all.
        start: The first point, in [0, 1).

    Returns:
        Shape (N,), int64.
    """
    whole = np.floor(expected)
    left = length - int(whole.sum())
    passed = expected - whole
    np.cumsum(passed, out=passed)  # in place from here on: with millions of images every copy counts
    passed *= left / (passed[-1] or 1.0)
    passed -= start
    np.minimum(np.ceil(passed, out=passed), left, out=passed)  # now the points before every image's upper border
    passed[-1] = left
    whole[0] += passed[0]
    whole[1:] += np.diff(passed)
    return whole.astype(np.int64)
