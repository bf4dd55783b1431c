"""Class-balanced loss: BCE weighed by the inverse effective number of samples (Cui et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.targets import Positives, bce_at, bce_sum
from yolo_lt.balance.weights import class_weights
from yolo_lt.errors import UsageError


def positives_form(z: Tensor, pos: Positives, w: Tensor, valid: Tensor | None) -> Tensor:
    """Weigh the positive entries alone: sum BCE + sum over positives of (w_c - 1) BCE.

    This moves the optimum of a class' logit (its odds are multiplied by w_c), which weighing positives and negatives
    of a class alike cannot do.
    """
    return bce_sum(z, pos, valid) + ((w[pos.index[2]] - 1) * bce_at(z, pos.index, pos.y, valid)).sum()


def column_form(z: Tensor, pos: Positives, w: Tensor, valid: Tensor | None) -> Tensor:
    """Weigh every entry of class c by w_c, positives and negatives alike (Ultralytics' cls_pw with these weights)."""
    return bce_sum(z, pos, w if valid is None else w * valid)


def row_form(z: Tensor, pos: Positives, w: Tensor, valid: Tensor | None) -> Tensor:
    """The original rule: all C entries of a foreground row by the weight of the row's own class; background rows 1."""
    rows = torch.ones(z.shape[:2], dtype=z.dtype, device=z.device)
    rows[pos.index[:2]] = w[pos.index[2]]
    rows = rows.unsqueeze(-1)
    return bce_sum(z, pos, rows if valid is None else rows * valid)


FORMS: dict[str, Callable[[Tensor, Positives, Tensor, Tensor | None], Tensor]] = {
    "positives": positives_form,
    "column": column_form,
    "row": row_form,
}


class ClassBalanced(Loss):
    """Class-balanced BCE.

    Args:
        instance_counts: Training instances per class, shape (C,).
        cb_beta: beta in w_c = (1 - beta) / (1 - beta^n_c); weights have mean 1 over the classes that occur.
        cb_form: What the weight multiplies: "row" (the original), "column" or "positives" (training's default).

    Raises:
        UsageError: Unknown form, beta outside [0, 1), or no counts.
    """

    def __init__(
        self, instance_counts: Sequence[int] | np.ndarray, cb_beta: float = 0.999, cb_form: str = "row"
    ) -> None:
        if cb_form not in FORMS:
            raise UsageError(f"cb_form={cb_form}: expected {' | '.join(FORMS)}")
        self.form = FORMS[cb_form]
        self.weights = torch.from_numpy(class_weights(instance_counts, "cb", cb_beta))

    def compute(self, z: Tensor, pos: Positives, valid: Tensor | None) -> Tensor:
        """Weighed sum, scalar."""
        return self.form(z, pos, self.weights.to(z), valid)
