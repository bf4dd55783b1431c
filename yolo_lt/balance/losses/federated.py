"""Federated loss: only some classes of a batch give negatives, the frequent ones more often (Zhou et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from yolo_lt.balance.federated import draw_classes, sampling_weights
from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.state import check_kept
from yolo_lt.balance.losses.targets import Positives
from yolo_lt.balance.losses.weighted_bce import Terms
from yolo_lt.errors import check_number


class Federated(Loss):
    """BCE over the classes that occur in the batch and others drawn by frequency, up to `federated_classes`.

    A class that is rare in train is seldom drawn, so it gets fewer negatives. As in the original every process draws
    for its own batch. The original counts the background as one of the classes; a sigmoid head has none.

    Args:
        image_counts: Training images per class, shape (C,).
        federated_classes: How many classes a batch has; all of them if there are fewer.
        federated_power: A class is drawn in proportion to its images to this power.
        seed: The draw is a function of seed, process and batch.

    Attributes:
        batches: Training batches so far.

    Raises:
        UsageError: A number out of range, or counts that are none.

    Source: Zhou et al., Probabilistic Two-Stage Detection, 2021; detectron2's USE_FED_LOSS has the same defaults.
    """

    keeps_state = True

    def __init__(
        self,
        image_counts: Sequence[int] | np.ndarray,
        federated_classes: int = 50,
        federated_power: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.weights = sampling_weights(image_counts, check_number("federated_power", federated_power))
        self.number, self.seed = int(check_number("federated_classes", federated_classes, 1)), seed
        self.batches = 0

    def count(self, pos: Positives, z: Tensor) -> None:
        """The next batch."""
        self.batches += 1

    def chosen(self, appeared: np.ndarray) -> np.ndarray:
        """The classes of the present batch, shape (C,), bool, given the ids of those in it."""
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        rng = np.random.default_rng((self.seed, rank, self.batches))
        return draw_classes(self.weights, appeared, self.number, rng)

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """0 on the negatives of all other classes that occur; nothing else would hold down those that never do."""
        chosen = self.chosen(pos.index[2].unique().cpu().numpy()) | (self.weights == 0)
        return Terms(negatives=torch.from_numpy(chosen).to(like))

    def state_dict(self) -> dict[str, Any]:
        """The number of batches; empty before the first."""
        return {"batches": self.batches} if self.batches else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`.

        Raises:
            ValueError: It is not the state of this loss.
        """
        check_kept("Federated", state, ("batches",))
        self.batches = int(state.get("batches", 0))
