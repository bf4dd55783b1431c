"""Counts to class weights. Pure numpy; one function per method and one line in `WEIGHTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from yolo_lt.errors import UsageError


def effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """(1 - beta) / (1 - beta^n), the inverse effective number of samples, shape (C,), float64.

    `expm1` keeps it exact where beta^n is close to 1. Source: Cui et al., CVPR 2019, equation 2.
    """
    if not 0 <= beta < 1:
        raise UsageError(f"cb_beta={beta}: expected a number in [0, 1)")
    if beta == 0:
        return np.ones(len(counts))
    return (1 - beta) / -np.expm1(counts * np.log(beta))


def inverse(counts: np.ndarray, beta: float) -> np.ndarray:
    """1 / n, the limit of the effective number for beta to 1, shape (C,), float64."""
    return 1.0 / counts


def none(counts: np.ndarray, beta: float) -> np.ndarray:
    """All classes alike: ones, shape (C,), float64."""
    return np.ones(len(counts))


WEIGHTS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "none": none,
    "cb": effective_number,
    "inverse": inverse,
}


def class_weights(instance_counts: Sequence[int] | np.ndarray, method: str = "cb", beta: float = 0.999) -> np.ndarray:
    """Class weights, normalised over the classes that occur so that their sum equals their number.

    Args:
        instance_counts: Instances per class, shape (C,).
        method: A name in `WEIGHTS`.
        beta: The beta of the effective number (cb).

    Returns:
        Weights, shape (C,), float64; a class without instances has weight 1 and is outside the normalisation.

    Raises:
        UsageError: Unknown method, or beta outside [0, 1).
    """
    if method not in WEIGHTS:
        raise UsageError(f"class weights '{method}': expected {' | '.join(WEIGHTS)}")
    counts = np.asarray(instance_counts, np.float64)
    present = counts > 0
    weights = np.ones(len(counts))
    raw = WEIGHTS[method](counts[present], beta)
    weights[present] = raw * (present.sum() / raw.sum()) if present.any() else raw
    return weights
