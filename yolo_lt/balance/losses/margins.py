"""Losses with a fixed margin per class from its count: logit-adjusted BCE (Menon et al.) and ECM (Cho et al.)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.targets import Positives
from yolo_lt.balance.losses.weighted_bce import Terms
from yolo_lt.balance.margins import ecm_margins, logit_adjustment, referred
from yolo_lt.errors import check_number


class LogitAdjusted(Loss):
    """BCE(z + tau log pi_c, y): in training the logits of rare classes are lowered, so they learn to be larger.

    Predictions use z. The original is a softmax, which does not feel a constant in the shifts; a sigmoid does, see
    `margins.referred`. A shift that never changes can be absorbed by the last convolution's bias: at the optimum of
    that bias it does what adding -tau log pi to the logits of a plain model does.

    Args:
        instance_counts: Training instances per class, shape (C,); pi is their share.
        logit_tau: tau.
        margin_reference: "none": the shifts as published; "max" (training's default): that of the commonest class is 0.

    Raises:
        UsageError: Unknown reference, or a number out of range.

    Source: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021, equation 10.
    """

    def __init__(
        self,
        instance_counts: Sequence[int] | np.ndarray,
        logit_tau: float = 1.0,
        margin_reference: str = "none",
    ) -> None:
        tau = check_number("logit_tau", logit_tau)
        self.shift = torch.from_numpy(logit_adjustment(instance_counts, tau, margin_reference))

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """The shift."""
        return Terms(shift=self.shift.to(like))


class ECM(Loss):
    """w_c BCE(s z + m+_c - m-_c, y), effective class-margin loss; the margins follow from the counts.

    Predictions use z. The original trains a background class as well and predicts sigmoid(z_c) (1 - sigmoid(z_bg));
    a head without background cannot. Its factor of 2 and the constant part of its margins, about -2, would then stay
    in the scores, so training's default takes them out: `ecm_scale=1 margin_reference=max`.

    Args:
        image_counts: Training images per class, shape (C,).
        ecm_background: Background samples per foreground sample. With margin_reference=max it hardly matters.
        ecm_scale: s; 2 in the original.
        margin_reference: As for `LogitAdjusted`.

    Raises:
        UsageError: Unknown reference, or a number out of range.

    Source: Cho and Kraehenbuehl, Long-Tail Detection with Effective Class-Margins, ECCV 2022.
    """

    def __init__(
        self,
        image_counts: Sequence[int] | np.ndarray,
        ecm_background: float = 6.3313,
        ecm_scale: float = 2.0,
        margin_reference: str = "none",
    ) -> None:
        positive, negative, weight = ecm_margins(
            image_counts, check_number("ecm_background", ecm_background, above=True)
        )
        shift = referred(positive - negative, np.asarray(image_counts) > 0, margin_reference)
        self.shift, self.weight = torch.from_numpy(shift), torch.from_numpy(weight)
        self.scale = check_number("ecm_scale", ecm_scale, above=True)

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """Weight by class, scale and shift."""
        weight = self.weight.to(like)
        return Terms(weight[pos.index[2]], weight, scale=self.scale, shift=self.shift.to(like))
