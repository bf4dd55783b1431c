"""Statistics to what to change: factors and weights (numpy), losses (torch). Nothing here imports ultralytics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yolo_lt.balance.sampling import repeat_factors
from yolo_lt.balance.weights import class_weights

__all__ = ["SparseTargets", "build_loss", "class_weights", "repeat_factors"]

if TYPE_CHECKING:
    from yolo_lt.balance.losses import SparseTargets, build_loss


def __getattr__(name: str) -> Any:
    """Load the losses, and with them torch, only when they are asked for."""
    if name in {"SparseTargets", "build_loss"}:
        from yolo_lt.balance import losses

        return getattr(losses, name)
    raise AttributeError(f"module 'yolo_lt.balance' has no attribute {name!r}")
