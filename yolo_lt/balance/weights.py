"""Counts to class weights. Pure numpy; one function per method and one line in `WEIGHTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from yolo_lt.errors import UsageError


def effective_number(counts: np.ndarray, beta: float, power: float) -> np.ndarray:
    """(1 - beta) / (1 - beta^n), the inverse effective number of samples, shape (C,), float64.

    `expm1` keeps it exact where beta^n is close to 1. Source: Cui et al., CVPR 2019, equation 2.
    """
    if not 0 <= beta < 1:
        raise UsageError(f"cb_beta={beta}: expected a number in [0, 1)")
    if beta == 0:
        return np.ones(len(counts))
    return (1 - beta) / -np.expm1(counts * np.log(beta))


def inverse(counts: np.ndarray, beta: float, power: float) -> np.ndarray:
    """n^-power, shape (C,), float64; with power 1 the limit of the effective number for beta to 1.

    Normalised over classes it is what Ultralytics' cls_pw=power makes.
    """
    if not 0 < power <= 1:
        raise UsageError(f"inverse_power={power}: expected a number in (0, 1]")
    return counts**-power


def none(counts: np.ndarray, beta: float, power: float) -> np.ndarray:
    """All classes alike: ones, shape (C,), float64."""
    return np.ones(len(counts))


WEIGHTS: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "none": none,
    "cb": effective_number,
    "inverse": inverse,
}

NORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # what each class counts in the mean weight, which is 1
    "classes": np.ones_like,
    "boxes": lambda counts: counts,
}


def class_weights(
    instance_counts: Sequence[int] | np.ndarray,
    method: str = "cb",
    beta: float = 0.999,
    power: float = 1.0,
    norm: str = "classes",
    cap: float | str = "none",
) -> np.ndarray:
    """Class weights, normalised over the classes that occur so that their mean is 1.

    Args:
        instance_counts: Instances per class, shape (C,).
        method: A name in `WEIGHTS`.
        beta: The beta of the effective number (cb).
        power: The power of the count (inverse).
        norm: "classes": the sum over classes equals their number; "boxes": the sum over boxes equals theirs, so that
            the positive entries keep their total weight.
        cap: No weight exceeds this, and the others make up for it; "none": no bound.

    Returns:
        Weights, shape (C,), float64; a class without instances has weight 1 and is outside the normalisation.

    Raises:
        UsageError: Unknown method or norm, a parameter out of range, or counts that are negative or not finite.
    """
    if method not in WEIGHTS:
        raise UsageError(f"class weights '{method}': expected {' | '.join(WEIGHTS)}")
    if norm not in NORMS:
        raise UsageError(f"weight_norm={norm}: expected {' | '.join(NORMS)}")
    counts = checked_counts(instance_counts, "instance counts")
    present = counts > 0
    weights = np.ones(len(counts))
    if present.any():
        share = NORMS[norm](counts[present])
        weights[present] = _normalised(WEIGHTS[method](counts[present], beta, power), share, cap)
    return weights


def checked_counts(counts: Sequence[int] | np.ndarray, what: str) -> np.ndarray:
    """The counts as float64, shape (C,).

    Raises:
        UsageError: One is negative or not finite.
    """
    values = np.asarray(counts, np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise UsageError(f"{what} must be numbers from 0")
    return values


def _normalised(raw: np.ndarray, share: np.ndarray, cap: float | str) -> np.ndarray:
    """`raw` times a factor, cut at `cap`, so that the mean weighted by `share` is 1."""
    if cap == "none":
        return raw * (share.sum() / (share * raw).sum())
    bound = float(cap)
    if bound < 1:
        raise UsageError(f"weight_cap={cap}: expected a number from 1")
    weights, free = np.full(len(raw), bound), np.ones(len(raw), bool)
    while free.any():  # each round binds one more class at least
        rest = share.sum() - bound * share[~free].sum()
        weights[free] = raw[free] * (rest / (share * raw)[free].sum())
        over = free & (weights > bound)
        if not over.any():
            break
        weights[over], free = bound, free & ~over
    return weights
