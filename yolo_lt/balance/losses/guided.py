"""What gradient-guided losses share: the ratio of positive to negative gradients that each class has had so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.state import check_kept, sum_over_processes
from yolo_lt.balance.losses.weighted_bce import Sums

EPS = 1e-10


class GradientGuided(Loss):
    """Keeps G+ and G- per class, the |gradients| of its positive and negative entries summed over the training.

    They are float64 (float32 where the device has none), summed over all processes in every training batch, also in
    one without objects, and left as they are by a batch whose gradients are not finite. A class that never occurs in
    train keeps the ratio of the start: its G+ stays 0, and the loss would forget to suppress it.

    Args:
        instance_counts: Training instances per class, shape (C,); without them every class counts as occurring.

    Attributes:
        positive, negative: G+ and G-, shape (C,); None before the first training batch.
        skipped: Batches that were not finite, shape ().
    """

    guided = keeps_state = True
    start = 1.0  # the ratio before the first batch

    def __init__(self, instance_counts: Sequence[int] | np.ndarray | None = None) -> None:
        occurs = None if instance_counts is None else np.asarray(instance_counts) > 0
        self.occurs = None if occurs is None else torch.from_numpy(occurs)
        self.positive: Tensor | None = None
        self.negative: Tensor | None = None
        self.skipped = torch.zeros((), dtype=torch.int64)

    def ratio(self, num_classes: int, like: Tensor) -> Tensor:
        """G+ / G- per class, shape (C,), in the dtype and on the device of `like`."""
        if self.positive is None or self.negative is None:
            return like.new_full((num_classes,), self.start)
        self.positive, self.negative = self.positive.to(like.device), self.negative.to(like.device)
        known = self.positive + self.negative > 0
        if self.occurs is not None:
            known &= self.occurs.to(known.device)
        return torch.where(known, self.limit(self.positive / (self.negative + EPS)), self.start).to(like)

    def limit(self, ratio: Tensor) -> Tensor:
        """The ratio as the method uses it, shape (C,)."""
        return ratio

    def observe(self, sums: Sums, ctx: dict[str, Any]) -> None:
        """Add the gradients of a batch, of all processes."""
        precise = torch.float32 if sums.positive.device.type == "mps" else torch.float64
        batch = torch.stack(self.counted(sums, ctx)).to(precise)
        sum_over_processes(batch)
        finite = batch.isfinite().all()  # stays on the device: no wait for it
        batch = torch.where(finite, batch, torch.zeros_like(batch))
        self.skipped = self.skipped.to(batch.device) + ~finite
        if self.positive is None or self.negative is None:
            self.positive, self.negative = batch[0], batch[1]
        else:
            self.positive, self.negative = self.positive.to(batch) + batch[0], self.negative.to(batch) + batch[1]

    def counted(self, sums: Sums, ctx: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What the method counts as a batch's positive and negative gradient, each shape (C,)."""
        return sums.positive, sums.negative

    def state_dict(self) -> dict[str, Any]:
        """G+, G- and the skipped batches; empty before the first training batch."""
        if self.positive is None or self.negative is None:
            return {}
        return {"positive": self.positive.cpu(), "negative": self.negative.cpu(), "skipped": int(self.skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, exactly.

        Raises:
            ValueError: It is not the state of such a loss.
        """
        check_kept(type(self).__name__, state, ("positive", "negative", "skipped"))
        classes = {len(state[k]) for k in ("positive", "negative") if state}
        if len(classes) > 1 or (classes and self.occurs is not None and classes != {len(self.occurs)}):
            raise ValueError(f"the gradients are of {sorted(classes)} classes")
        self.positive, self.negative = state.get("positive"), state.get("negative")
        self.skipped = torch.tensor(state.get("skipped", 0))


def ratio_columns(loss: Loss, branch: str, bins: Mapping[str, list[int]]) -> dict[str, float]:
    """Mean ratio over the classes of each bin, as columns of results.csv; none for a loss without, or an empty bin."""
    if not isinstance(loss, GradientGuided) or loss.positive is None:
        return {}
    ratio = loss.ratio(len(loss.positive), loss.positive)
    prefix = "lt/grad_ratio" + ("" if branch == "one2many" else f"_{branch}")
    return {f"{prefix}({name})": float(ratio[ids].mean()) for name, ids in bins.items() if ids}
