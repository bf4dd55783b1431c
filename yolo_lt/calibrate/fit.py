"""Scale and shift per class, learnt from detections that are right or wrong. numpy and scipy."""

from __future__ import annotations

import numpy as np

PRIOR = 1.0  # curvature of the pull towards the common map; that of a class's own data is about 0.2 per object found
COMMON = 0.1  # of that pull acts on the common map, towards no change: evidence of one side alone would carry it away


def learn(
    logits: np.ndarray,
    classes: np.ndarray,
    right: np.ndarray,
    num_classes: int,
    weights: np.ndarray | None = None,
    shifts: bool = True,
    prior: float = PRIOR,
) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood scale and shift of every class, pulled towards one common map.

    The loss is the cross-entropy of sigmoid(scale_c z + shift_c) against `right`, averaged over the detections of a
    class and multiplied by the objects that it found: thousands of false positives say little about a class of which
    one object was seen. To it comes prior / 2 times the squared distance of (log scale, shift) to the common pair,
    which is learnt as well, under a tenth of that pull towards (0, 0); a class without a true positive takes the common
    pair.

    Args:
        logits: Of every detection, shape (D,).
        classes: Their classes, shape (D,), int.
        right: Whether they match an object, shape (D,), bool.
        num_classes: C.
        weights: Of every detection, shape (D,); None: all alike.
        shifts: Learn shifts as well; else they are 0.
        prior: See above.

    Returns:
        scale and shift, each shape (C,), float64.
    """
    from scipy.optimize import minimize  # only here: it is slow to load

    z, y = np.asarray(logits, np.float64), np.asarray(right, np.float64)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)
    total, found = (np.bincount(classes, v, num_classes) for v in (w, y))
    w = w * (found / np.maximum(total, 1e-12))[classes]

    def per_class(values: np.ndarray) -> np.ndarray:
        return np.bincount(classes, values, num_classes)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        (log_scale, shift), common = x[: 2 * num_classes].reshape(2, -1), x[-2:]
        scale = np.exp(log_scale)
        out = scale[classes] * z + shift[classes]
        slope = w * (_sigmoid(out) - y)
        grads = np.stack([per_class(slope * z) * scale, per_class(slope) * shifts])
        away = np.stack([log_scale, shift]) - common[:, None]
        pull = prior * away
        value = (
            w @ (np.logaddexp(0, out) - y * out) + 0.5 * (pull * away).sum() + 0.5 * prior * COMMON * common @ common
        )
        return value, np.concatenate([(grads + pull).ravel(), prior * COMMON * common - pull.sum(1)])

    found_at = minimize(loss, np.zeros(2 * num_classes + 2), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    log_scale, shift = found_at.x[: 2 * num_classes].reshape(2, -1)
    return np.exp(log_scale), shift


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
