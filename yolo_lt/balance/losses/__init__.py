"""Classification losses. To add one: a file beside these, a line in `LOSSES`, its keys in `LOSS_KEYS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.class_balanced import ClassBalanced
from yolo_lt.balance.losses.eql import EQL
from yolo_lt.balance.losses.targets import SparseTargets
from yolo_lt.errors import UsageError

__all__ = ["LOSSES", "LOSS_KEYS", "Loss", "SparseTargets", "build_loss"]

Counts = Sequence[int] | np.ndarray


def _counts(name: str, value: Any) -> Any:
    if value is None:
        raise UsageError(f"the loss needs {name}")
    return value


LOSSES: dict[str, Callable[..., Loss]] = {
    "bce": lambda image_counts, instance_counts, num_images, **kw: Loss(**kw),
    "cb": lambda image_counts, instance_counts, num_images, **kw: ClassBalanced(
        _counts("instance_counts", instance_counts), **kw
    ),
    "eql": lambda image_counts, instance_counts, num_images, **kw: EQL(
        _counts("image_counts", image_counts), _counts("num_images", num_images), **kw
    ),
}

LOSS_KEYS: dict[str, tuple[str, ...]] = {"bce": (), "cb": ("cb_beta", "cb_form"), "eql": ("eql_lambda",)}


def build_loss(
    name: str,
    image_counts: Counts | None = None,
    instance_counts: Counts | None = None,
    num_images: int | None = None,
    **kw: Any,
) -> Loss:
    """The loss `loss(logits, targets, ctx=None) -> scalar sum`, as its authors defined it unless keywords say else.

    Args:
        name: A name in `LOSSES`.
        image_counts: Training images per class, shape (C,).
        instance_counts: Training instances per class, shape (C,).
        num_images: All training images.
        **kw: Keywords of the loss (`cb_beta`, `cb_form`, `eql_lambda`).

    Raises:
        UsageError: Unknown name, a keyword that the loss does not know, or counts that it needs and did not get.
    """
    if name not in LOSSES:
        raise UsageError(f"cls_loss={name}: expected {' | '.join(LOSSES)}")
    try:
        return LOSSES[name](image_counts, instance_counts, num_images, **kw)
    except TypeError as e:
        raise UsageError(f"cls_loss={name}: {e}") from None
