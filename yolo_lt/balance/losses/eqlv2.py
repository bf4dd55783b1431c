"""Equalization loss v2: weights from the ratio of a class's positive to negative gradients (Tan et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from yolo_lt.balance.losses.guided import EPS, GradientGuided
from yolo_lt.balance.losses.targets import Positives
from yolo_lt.balance.losses.weighted_bce import Terms
from yolo_lt.errors import UsageError

VARIANTS = ("original", "relative")


class EQLv2(GradientGuided):
    """Weight f(g_c) on negative entries and 1 + alpha (1 - f(g_c)) on positive ones, f(g) = sigmoid(gamma (g - mu)).

    g_c = G+ / G-, the gradients |p - y| times the weight. Soft targets: an entry with y > 0 is positive, y - p its
    gradient; at y = 1 it is the original.

    Args:
        instance_counts: Training instances per class, shape (C,), or None.
        eqlv2_gamma, eqlv2_mu, eqlv2_alpha: gamma, mu and alpha above.
        loss_variant: "original": g_c itself, as published. "relative": g_c over the geometric mean of the ratios of the
            classes seen so far. In a dense head nearly all negatives are of background anchors; where those lower
            every ratio alike, as the author feared for one-stage detectors, the relative one does not see it.

    Raises:
        UsageError: Unknown variant.

    Source: Tan et al., Equalization Loss v2, CVPR 2021, equations 4 to 6.
    """

    start = 100.0

    def __init__(
        self,
        instance_counts: Sequence[int] | np.ndarray | None = None,
        eqlv2_gamma: float = 12.0,
        eqlv2_mu: float = 0.8,
        eqlv2_alpha: float = 4.0,
        loss_variant: str = "original",
    ) -> None:
        if loss_variant not in VARIANTS:
            raise UsageError(f"loss_variant={loss_variant}: expected {' | '.join(VARIANTS)}")
        super().__init__(instance_counts)
        self.gamma, self.mu, self.alpha, self.variant = eqlv2_gamma, eqlv2_mu, eqlv2_alpha, loss_variant

    def limit(self, ratio: Tensor) -> Tensor:
        """As it is; relative: over its geometric mean."""
        if self.variant != "relative":
            return ratio
        seen, log = ratio > 0, ratio.clamp_min(EPS).log()
        return (log - (log * seen).sum() / seen.sum().clamp_min(1)).exp()

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """Weights by class."""
        negative = torch.sigmoid(self.gamma * (self.ratio(z.shape[2], like) - self.mu))
        positive = 1 + self.alpha * (1 - negative)
        return Terms(positives=positive[pos.index[2]], negatives=negative)
