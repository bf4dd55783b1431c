"""Equalized focal losses: the focus of a class grows as its positive gradients fall short (Li et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from yolo_lt.balance.losses.guided import GradientGuided
from yolo_lt.balance.losses.targets import Positives
from yolo_lt.balance.losses.weighted_bce import Sums, Terms
from yolo_lt.errors import check_number


class EQFL(GradientGuided):
    """Equalized quality focal loss: (gamma_c / gamma_b) |y - p|^gamma_c BCE(z, y), gamma_c = gamma_b + s (1 - g_c).

    g_c = G+ / G- within [0, 1], the gradients those of this loss over `ctx["normalizer"]`. Made for soft targets, as
    Ultralytics' assigner gives them; the modulating factor is differentiated as well.

    Args:
        instance_counts: Training instances per class, shape (C,), or None.
        focal_gamma: gamma_b.
        efl_scale: s; gamma_c reaches gamma_b + s and the weight 1 + s / gamma_b.

    Raises:
        UsageError: gamma_b or s is not positive.

    Source: Li et al., Equalized Focal Loss for Dense Long-Tailed Object Detection, CVPR 2022, equations 4 to 7; the
    quality form is the authors', in United-Perception.
    """

    alpha: tuple[float, float] | None = None  # factors of positive and negative entries

    def __init__(
        self,
        instance_counts: Sequence[int] | np.ndarray | None = None,
        focal_gamma: float = 2.0,
        efl_scale: float = 8.0,
    ) -> None:
        super().__init__(instance_counts)
        self.gamma = check_number("focal_gamma", focal_gamma, above=True)  # it is divided by
        self.scale = check_number("efl_scale", efl_scale)

    def limit(self, ratio: Tensor) -> Tensor:
        """Within [0, 1]."""
        return ratio.clamp(0, 1)

    def counted(self, sums: Sums, ctx: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Gradients of the normalised loss."""
        normalizer = ctx.get("normalizer", 1)
        return sums.positive / normalizer, sums.negative / normalizer

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """Focus and weight by class."""
        gamma = self.gamma + self.scale * (1 - self.ratio(z.shape[2], like))
        weight, (of_positives, of_negatives) = gamma / self.gamma, self.alpha or (1.0, 1.0)
        return Terms(of_positives * weight[pos.index[2]], of_negatives * weight, gamma=gamma)


class EFL(EQFL):
    """Equalized focal loss: EQFL with the focal loss's alpha, a_t (gamma_c / gamma_b) |y - p|^gamma_c BCE(z, y).

    a_t is 0.25 on positive and 0.75 on negative entries. At y = 1 it is the original, -a_t (gamma_c / gamma_b)
    (1 - p_t)^gamma_c log(p_t), which knows no soft targets; for those |y - p| stands for 1 - p_t.
    """

    alpha = (0.25, 0.75)
