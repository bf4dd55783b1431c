"""Classification losses. To add one: a file beside these, a line in `LOSSES`, its keys in `LOSS_KEYS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.class_balanced import ClassBalanced
from yolo_lt.balance.losses.efl import EFL, EQFL
from yolo_lt.balance.losses.eql import EQL
from yolo_lt.balance.losses.eqlv2 import EQLv2
from yolo_lt.balance.losses.federated import Federated
from yolo_lt.balance.losses.guided import GradientGuided
from yolo_lt.balance.losses.loce import LOCE
from yolo_lt.balance.losses.margins import ECM, LogitAdjusted
from yolo_lt.balance.losses.seesaw import Seesaw
from yolo_lt.balance.losses.targets import SparseTargets
from yolo_lt.balance.losses.weighted_bce import RowWeights
from yolo_lt.errors import UsageError

__all__ = ["LOSSES", "LOSS_KEYS", "GradientGuided", "Loss", "RowWeights", "SparseTargets", "build_loss"]

Counts = Sequence[int] | np.ndarray


def _needed(name: str, value: Any) -> Any:
    if value is None:
        raise UsageError(f"the loss needs {name}")
    return value


def _weighted(method: str, form: str) -> Callable[..., Loss]:
    def build(images: Any, boxes: Any, num: Any, **kw: Any) -> Loss:
        return ClassBalanced(_needed("instance_counts", boxes), method, **{"cb_form": form, **kw})

    return build


LOSSES: dict[str, Callable[..., Loss]] = {  # name: (images per class, boxes per class, images, **keywords) -> loss
    "bce": lambda images, boxes, num, **kw: Loss(**kw),
    "inverse": _weighted("inverse", "column"),  # as Ultralytics' cls_pw
    "cb": _weighted("cb", "row"),
    "eql": lambda images, boxes, num, **kw: EQL(_needed("image_counts", images), _needed("num_images", num), **kw),
    "eqlv2": lambda images, boxes, num, **kw: EQLv2(boxes, **kw),
    "efl": lambda images, boxes, num, **kw: EFL(boxes, **kw),
    "eqfl": lambda images, boxes, num, **kw: EQFL(boxes, **kw),
    "seesaw": lambda images, boxes, num, **kw: Seesaw(boxes, **kw),
    "ecm": lambda images, boxes, num, **kw: ECM(_needed("image_counts", images), **kw),
    "loce": lambda images, boxes, num, **kw: LOCE(boxes, **kw),
    "logit_adjusted": lambda images, boxes, num, **kw: LogitAdjusted(_needed("instance_counts", boxes), **kw),
    "federated": lambda images, boxes, num, **kw: Federated(_needed("image_counts", images), **kw),
}

_WEIGHTS = ("cb_form", "weight_norm", "weight_cap", "focal_gamma")
LOSS_KEYS: dict[str, tuple[str, ...]] = {  # the keys of cfg/default.yaml that a loss takes
    "bce": (),
    "inverse": ("inverse_power", *_WEIGHTS),
    "cb": ("cb_beta", *_WEIGHTS),
    "eql": ("eql_lambda",),
    "eqlv2": ("eqlv2_gamma", "eqlv2_mu", "eqlv2_alpha", "loss_variant"),
    "efl": ("focal_gamma", "efl_scale"),
    "eqfl": ("focal_gamma", "efl_scale"),
    "seesaw": ("seesaw_p", "seesaw_q"),
    "ecm": ("ecm_background", "ecm_scale", "margin_reference"),
    "loce": ("loce_momentum",),
    "logit_adjusted": ("logit_tau", "margin_reference"),
    "federated": ("federated_classes", "federated_power"),
}


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
        **kw: Keywords of the loss, `LOSS_KEYS[name]`.

    Raises:
        UsageError: Unknown name, a keyword that the loss does not know, or counts that it needs and did not get.
    """
    if name not in LOSSES:
        raise UsageError(f"cls_loss={name}: expected {' | '.join(LOSSES)}")
    try:
        return LOSSES[name](image_counts, instance_counts, num_images, **kw)
    except TypeError as e:
        raise UsageError(f"cls_loss={name}: {e}") from None
