"""Seesaw loss: an object pushes classes down by how rare they are and how wrongly they score (Wang et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.state import check_kept, sum_over_processes
from yolo_lt.balance.losses.targets import Positives
from yolo_lt.balance.losses.weighted_bce import Terms
from yolo_lt.errors import check_number

LEAST = 0.01  # an object's own score counts as no less, in the original


def log_factors(counts: Tensor, log_scores: Tensor, labels: Tensor, p: float, q: float) -> Tensor:
    """log(M_ij C_ij) for rows of class i and every class j, shape (F, C); 0 for j = i.

    Mitigation M_ij = min(N_j / N_i, 1)^p with N >= 1; compensation C_ij = max(s_j / s_i, 1)^q with s_i >= 0.01.

    Args:
        counts: N, objects of each class so far, shape (C,).
        log_scores: log s, shape (F, C).
        labels: Class i of every row, shape (F,), int64.
        p: Exponent of mitigation; 0.8 in the paper.
        q: Exponent of compensation; 2 in the paper.

    Source: Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021, equations 5 to 7.
    """
    log_counts = counts.clamp_min(1).log()
    own = log_scores.gather(1, labels[:, None]).clamp_min(log(LEAST))
    mitigation = (log_counts - log_counts[labels][:, None]).clamp_max(0) * p
    return mitigation.to(log_scores) + (log_scores - own).clamp_min(0) * q


class Seesaw(Loss):
    """On anchors of an object of class i the negative of class j is BCE(z_j + log(M_ij C_ij), 0).

    Predictions use z. The original is a softmax over z_j + log(M_ij C_ij), s the softmax, and an objectness head of its
    own; here s is the sigmoid, and anchors without an object, nearly all in a dense head, stay plain BCE as M has no
    meaning there. So expect a small effect.

    Args:
        instance_counts: Training instances per class, shape (C,), or None; only their number is looked at.
        seesaw_p, seesaw_q: Exponents of mitigation and compensation.

    Attributes:
        counts: N, positive entries of each class so far, of all processes (the original does not sum them), shape (C,),
            float64; None before the first training batch.

    Raises:
        UsageError: A negative exponent.
    """

    keeps_state = True

    def __init__(
        self,
        instance_counts: Sequence[int] | np.ndarray | None = None,
        seesaw_p: float = 0.8,
        seesaw_q: float = 2.0,
    ) -> None:
        self.p, self.q = check_number("seesaw_p", seesaw_p), check_number("seesaw_q", seesaw_q)
        self.num_classes = None if instance_counts is None else len(instance_counts)
        self.counts: Tensor | None = None

    def count(self, pos: Positives, z: Tensor) -> None:
        """Add the positive entries of a batch, of all processes."""
        precise = torch.float32 if z.device.type == "mps" else torch.float64
        batch = torch.bincount(pos.index[2], minlength=z.shape[2]).to(precise)
        sum_over_processes(batch)
        self.counts = batch if self.counts is None else self.counts.to(batch) + batch

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """The shift of the foreground rows."""
        inside = pos.foreground[pos.index[:2]]
        b, a, labels = (x[inside] for x in pos.index)
        counts = like.new_ones(z.shape[2]) if self.counts is None else self.counts.to(z.device)
        rows = pos.foreground.flatten().cumsum(0) - 1  # of an anchor among the foreground ones
        shift = like.new_zeros(int(pos.foreground.sum()), z.shape[2])
        log_scores = logsigmoid(z[b, a].to(like.dtype))
        shift[rows[b * z.shape[1] + a]] = log_factors(counts, log_scores, labels, self.p, self.q)
        return Terms(row_shift=shift)

    def state_dict(self) -> dict[str, Any]:
        """The counts; empty before the first training batch."""
        return {} if self.counts is None else {"counts": self.counts.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, exactly.

        Raises:
            ValueError: It is not the state of this loss, or of another number of classes.
        """
        check_kept("Seesaw", state, ("counts",))
        if state and self.num_classes not in (None, len(state["counts"])):
            raise ValueError(f"the counts are of {len(state['counts'])} classes")
        self.counts = state.get("counts")
