"""LOCE's equilibrium loss: a class with low scores gets a margin (Feng, Zhong and Huang, ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.state import check_kept, sum_over_processes
from yolo_lt.balance.losses.targets import Positives
from yolo_lt.balance.losses.weighted_bce import Terms
from yolo_lt.errors import check_number

START = 0.01  # the mean score of every class before the first batch, in the original


def updated(mean: Tensor, total: Tensor, number: Tensor, momentum: float) -> Tensor:
    """Mean scores after a batch: m_c <- a^k m_c + (1 - a^k) s, for k scores of class c that sum up to k s.

    Args:
        mean: m, shape (C,), float64.
        total: k s, shape (C,).
        number: k, shape (C,).
        momentum: a.

    Source: Feng et al., ICCV 2021, equation 5, as the authors' code has it for several objects at once.
    """
    kept = momentum ** number.to(mean)
    return torch.where(number > 0, kept * mean + (1 - kept) * total / number.clamp_min(1), mean)


class LOCE(Loss):
    """BCE(z + log(m_c / max m), y), with m_c the running mean of the class's scores on its positive entries.

    Predictions use z. The original is a softmax with z_j + log m_j for every class; its constant part cancels there,
    here the class with the highest mean score is not shifted. m is taken as no less than the starting value: a class
    that a batch or two have not reached yet would else look strong. Its memory of features (MFS) is not part of this.

    Args:
        instance_counts: Training instances per class, shape (C,), or None; classes without any are not shifted.
        loce_momentum: a of the running mean, in [0, 1).

    Raises:
        UsageError: a is not in that range.

    Attributes:
        mean: m, shape (C,), float64; None before the first training batch.

    Source: Feng et al., Exploring Classification Equilibrium in Long-Tailed Object Detection, ICCV 2021, equation 4.
    """

    keeps_state = True

    def __init__(self, instance_counts: Sequence[int] | np.ndarray | None = None, loce_momentum: float = 0.9) -> None:
        self.occurs = None if instance_counts is None else torch.from_numpy(np.asarray(instance_counts) > 0)
        self.momentum = check_number("loce_momentum", loce_momentum, high=1)
        self.mean: Tensor | None = None

    def count(self, pos: Positives, z: Tensor) -> None:
        """Add the scores of a batch, of all processes; a class whose scores are not finite keeps its mean."""
        precise = torch.float32 if z.device.type == "mps" else torch.float64
        sums = torch.zeros(2, z.shape[2], dtype=precise, device=z.device)
        scores = z[pos.index].to(precise).sigmoid()
        sums.index_add_(1, pos.index[2], torch.stack([scores, torch.ones_like(scores)]))
        sum_over_processes(sums)
        mean = torch.full_like(sums[0], START) if self.mean is None else self.mean.to(sums)
        after = updated(mean, sums[0], sums[1], self.momentum)
        self.mean = torch.where(after.isfinite(), after, mean)

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """The shift."""
        if self.mean is None:
            return Terms()
        log = self.mean.clamp_min(START).log()
        occurs = torch.ones_like(log, dtype=torch.bool) if self.occurs is None else self.occurs.to(log.device)
        largest = log[occurs].max() if occurs.any() else 0.0
        return Terms(shift=torch.where(occurs, log - largest, 0.0).to(like))

    def state_dict(self) -> dict[str, Any]:
        """The mean scores; empty before the first training batch."""
        return {} if self.mean is None else {"mean": self.mean.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, exactly.

        Raises:
            ValueError: It is not the state of this loss, or of another number of classes.
        """
        check_kept("LOCE", state, ("mean",))
        if state and self.occurs is not None and len(state["mean"]) != len(self.occurs):
            raise ValueError(f"the mean scores are of {len(state['mean'])} classes")
        self.mean = state.get("mean")
