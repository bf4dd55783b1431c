"""Losses with a weight per class from its count: class-balanced (Cui et al., CVPR 2019) and inverse frequency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.targets import Positives
from yolo_lt.balance.losses.weighted_bce import Terms
from yolo_lt.balance.weights import class_weights
from yolo_lt.errors import UsageError, check_number


def positives_form(w: Tensor, pos: Positives) -> Terms:
    """Weigh the positive entries alone.

    This moves the optimum of a class' logit (its odds are multiplied by w_c), which weighing positives and negatives
    of a class alike cannot do.
    """
    return Terms(positives=w[pos.index[2]])


def column_form(w: Tensor, pos: Positives) -> Terms:
    """Weigh every entry of class c by w_c, positives and negatives alike, as Ultralytics' cls_pw does."""
    return Terms(positives=w[pos.index[2]], negatives=w)


def row_form(w: Tensor, pos: Positives) -> Terms:
    """The original rule: all C entries of a foreground row by the weight of the row's own class; background rows 1."""
    own = torch.ones(pos.foreground.shape, dtype=w.dtype, device=w.device)
    own[pos.index[:2]] = w[pos.index[2]]
    return Terms(positives=w[pos.index[2]], rows=own[pos.foreground][:, None])


FORMS: dict[str, Callable[[Tensor, Positives], Terms]] = {
    "positives": positives_form,
    "column": column_form,
    "row": row_form,
}


class ClassBalanced(Loss):
    """w_c |y - p|^gamma BCE(z, y), with the weight on what `cb_form` says and p = sigmoid(z).

    Args:
        instance_counts: Training instances per class, shape (C,).
        method: A name in `weights.WEIGHTS`.
        cb_form: What the weight multiplies: "row" (the original), "column" or "positives" (training's default).
        focal_gamma: gamma. For y = 1 it is the focal factor of the original, (1 - p_t)^gamma; soft targets take the
            distance to the target instead, as quality focal loss does (Li et al., NeurIPS 2020, equation 5).
        cb_beta, inverse_power, weight_norm, weight_cap: beta, power, norm and cap of `class_weights`.

    Raises:
        UsageError: Unknown form, a negative gamma, or counts that `class_weights` refuses.

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, equations 6 to 12.
    """

    def __init__(
        self,
        instance_counts: Sequence[int] | np.ndarray,
        method: str = "cb",
        cb_form: str = "row",
        focal_gamma: float = 0.0,
        cb_beta: float = 0.999,
        inverse_power: float = 1.0,
        weight_norm: str = "classes",
        weight_cap: float | str = "none",
    ) -> None:
        if cb_form not in FORMS:
            raise UsageError(f"cb_form={cb_form}: expected {' | '.join(FORMS)}")
        self.form, self.gamma = FORMS[cb_form], check_number("focal_gamma", focal_gamma)
        weights = class_weights(instance_counts, method, cb_beta, inverse_power, weight_norm, weight_cap)
        self.weights = torch.from_numpy(weights)

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """The form's weights, and gamma for all classes alike."""
        terms = self.form(self.weights.to(like), pos)
        if self.gamma:
            terms.gamma = like.new_full((z.shape[2],), self.gamma)
        return terms
