"""The classification loss: a plain object in the place of `criterion.bce`, on every branch of the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from yolo_lt.balance.losses import Loss
from yolo_lt.errors import UsageError


class ClassificationLoss:
    """Stands where Ultralytics keeps its elementwise BCE; Ultralytics only sums what it returns.

    Attributes:
        loss: The loss, one per branch, as the branches assign different targets.
        branch: "one2many", or "one2one" for the second branch of an end-to-end head.
        batches: Training batches it has acted on.
    """

    def __init__(self, loss: Loss, branch: str) -> None:
        self.loss, self.branch, self.batches = loss, branch, 0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Summed loss of logits and soft targets, both (B, A, C). Scalar, float32."""
        self.batches += torch.is_grad_enabled() and logits.requires_grad
        return self.loss(logits, targets, {"branch": self.branch})


def branches(criterion: Any) -> dict[str, Any]:
    """The branch criteria of a detection criterion by name; two for end-to-end heads.

    Raises:
        UsageError: The criterion has no `bce`, so no classification loss of ours could act.
    """
    pair = {name: getattr(criterion, name) for name in ("one2many", "one2one") if hasattr(criterion, name)}
    found = pair or {"one2many": criterion}
    for name, branch in found.items():
        if not hasattr(branch, "bce"):
            raise UsageError(f"cls_loss cannot act: {type(branch).__name__} ({name}) has no 'bce' to replace")
    return found


def install(model: nn.Module, build: Callable[[], Loss]) -> dict[str, ClassificationLoss]:
    """Put a loss on every branch of the model's criterion, which is made now if it does not exist yet.

    A resumed end-to-end run already has a criterion with its schedule restored, so it is kept and only `bce` replaced.
    """
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
    installed = {name: ClassificationLoss(build(), name) for name in branches(model.criterion)}
    for name, branch in branches(model.criterion).items():
        branch.bce = installed[name]
    return installed
