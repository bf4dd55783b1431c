"""What a recipe's losses will do on a data set: weights by class, and what cannot act is refused. Pure numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from yolo_lt.balance.weights import class_weights
from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import UsageError

COUNT_WEIGHTED = ("cb", "inverse")  # losses with a weight per class from its count
COMPARING = (*COUNT_WEIGHTED, "eql", "seesaw", "ecm", "loce", "logit_adjusted", "federated")  # one class with another
UNKNOWN = "strict"  # what unknown_negatives=auto stands for


def check_losses(stats: ClassStats, keys: dict[str, Any]) -> None:
    """Refuse losses that compare classes where there is one.

    Raises:
        UsageError: There is one class.
    """
    for name in ("cls_loss", "box_weight"):
        if keys[name] in COMPARING and stats.num_classes == 1:
            raise UsageError(f"{name}={keys[name]} cannot act on a single class: it weighs classes against each other")


def positive_weights(stats: ClassStats, keys: dict[str, Any]) -> np.ndarray:
    """The weights of cls_loss=cb and inverse, shape (C,), float64; ones for other losses."""
    method = keys["cls_loss"]
    return _weights(stats, keys, method) if method in COUNT_WEIGHTED else np.ones(stats.num_classes)


def box_loss_weights(stats: ClassStats, keys: dict[str, Any]) -> np.ndarray | None:
    """The weights of box_weight, shape (C,), float64; None without."""
    return None if keys["box_weight"] == "none" else _weights(stats, keys, keys["box_weight"])


def _weights(stats: ClassStats, keys: dict[str, Any], method: str) -> np.ndarray:
    own = (method, keys["cb_beta"], keys["inverse_power"], keys["weight_norm"], keys["weight_cap"])
    return class_weights(stats.instance_counts, *own)


def loss_notes(stats: ClassStats, keys: dict[str, Any]) -> list[str]:
    """Say it when eql finds no class rare, or the federated loss leaves none out."""
    present = stats.image_counts[stats.image_counts > 0]
    if keys["cls_loss"] == "eql":
        rarest, threshold = present.min(initial=stats.num_images) / stats.num_images, keys["eql_lambda"]
        if rarest >= threshold:
            return [f"WARNING: no class is rare: eql_lambda={threshold:.4g} must exceed {rarest:.4g} to act"]
    if keys["cls_loss"] == "federated" and keys["federated_classes"] >= len(present):
        return [f"WARNING: every batch takes all {len(present)} classes: federated_classes must be less to act"]
    return []


def weight_notes(
    stats: ClassStats, keys: dict[str, Any], weights: np.ndarray, box_weights: np.ndarray | None
) -> list[str]:
    """The range of the weights by class, and a warning where they are all alike."""
    notes, occurs = [], stats.instance_counts > 0
    for name, of, what in (("cls_loss", weights, keys["cb_form"]), ("box_weight", box_weights, "box")):
        if of is None or keys[name] not in COUNT_WEIGHTED:
            continue
        if not occurs.any() or np.ptp(of[occurs]) < 1e-6:
            notes.append(f"WARNING: {name}={keys[name]} weighs all classes alike")
        else:
            low, high = of[occurs].min(), of[occurs].max()
            notes.append(f"{what} weights from {low:.3g} to {high:.3g}, mean 1 over {keys['weight_norm']}")
    return notes


def acting_index(index: FederatedIndex | None, keys: dict[str, Any]) -> tuple[FederatedIndex | None, list[str]]:
    """The federated index, if it has anything to mask, and what is done where a class was not looked for.

    Args:
        index: That of the training images, if there is one.
        keys: Every yolo-lt key; `unknown_negatives=auto` is replaced.

    Raises:
        UsageError: `unknown_negatives` without an index.
    """
    if index is None:
        if keys["unknown_negatives"] != "auto":
            raise UsageError("unknown_negatives cannot act: neither federated= nor the data YAML says what is known")
        return None, []
    if not index.partial.any():
        return None, ["WARNING: federated: every class was looked for in every image, so there is nothing to mask"]
    if keys["unknown_negatives"] == "auto":
        keys["unknown_negatives"] = UNKNOWN
    return index, [f"unknown_negatives={keys['unknown_negatives']}"]
