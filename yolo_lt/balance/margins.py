"""Counts to shifts of the logits. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolo_lt.balance.weights import checked_counts
from yolo_lt.errors import UsageError

REFERENCES = ("max", "none")
EPS = 1e-12


def logit_adjustment(counts: Sequence[int] | np.ndarray, tau: float = 1.0, reference: str = "none") -> np.ndarray:
    """log(pi_c^tau), pi_c the class's share of all counts, shape (C,), float64; training adds it to the logits.

    Args:
        counts: Instances or images per class, shape (C,).
        tau: Strength.
        reference: See `referred`.

    Source: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021, equation 10; 1e-12 as the authors' code.
    """
    counts = checked_counts(counts, "counts")
    share = counts / max(counts.sum(), 1)
    return referred(np.log(share**tau + EPS), counts > 0, reference)


def ecm_margins(
    image_counts: Sequence[int] | np.ndarray, background: float = 6.3313
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins m+ and m- and weight of every class, each shape (C,), float64; 0, 0 and 1 for a class without images.

    With n+ = n_c and n- the rest, the background included: m+ = log(s / n-^(1/4)), m- = log(s / n+^(1/4)) where
    s = n+^(1/4) + n-^(1/4), and w = a log((1 + a) / a) with a = n- / n+.

    Args:
        image_counts: Training images per class, shape (C,).
        background: Background samples per foreground sample; the default is the authors' for Mask R-CNN.

    Source: Cho and Kraehenbuehl, Long-Tail Detection with Effective Class-Margins, ECCV 2022; the authors' code.
    """
    counts = checked_counts(image_counts, "image counts")
    present = counts > 0
    own = np.where(present, counts, 1.0)
    rest = (1 + background) * counts.sum() - own
    root, other = own**0.25, np.maximum(rest, EPS) ** 0.25
    odds = np.maximum(rest, EPS) / own
    found = (np.log((root + other) / other), np.log((root + other) / root), odds * np.log1p(1 / odds))
    return tuple(np.where(present, x, absent) for x, absent in zip(found, (0.0, 0.0, 1.0), strict=True))  # type: ignore[return-value]


def referred(shift: np.ndarray, present: np.ndarray, reference: str) -> np.ndarray:
    """Shifts relative to a reference, shape (C,); a class that is not present is not shifted.

    A softmax does not feel a constant in all shifts; a sigmoid does: with the published ones, all far below 0, every
    logit would have to grow by as much, and scores would lose their meaning. "max" takes the largest for 0: the class
    that is shifted least keeps its scores.

    Raises:
        UsageError: Unknown reference.
    """
    if reference not in REFERENCES:
        raise UsageError(f"margin_reference={reference}: expected {' | '.join(REFERENCES)}")
    largest = shift[present].max(initial=-np.inf) if reference == "max" and present.any() else 0.0
    return np.where(present, shift - largest, 0.0)
