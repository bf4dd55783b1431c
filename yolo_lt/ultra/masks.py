"""The annotation mask of a batch: how much every class's negatives count at every anchor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolo_lt.balance.federated import draw_classes, sampling_weights
from yolo_lt.balance.losses import RowWeights
from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.ultra.sources import anchor_codes, batch_rows


class AnnotationMask:
    """Makes the weights of a batch's negatives from what is known of the sources of every anchor.

    The rule, per anchor and class: 1 where the class was looked for in the source image that the anchor's centre lies
    in, `unknown_negatives` where it was not, 0 where only some of its objects are labelled; of two blended images the
    lesser weight, and 1 on padding, where there is nothing. Positive entries are never touched.

    Args:
        index: The federated index of the training images.
        plan: The plan, for `unknown_negatives` and what it draws by.
        seed, rank: What is drawn is a function of seed, process, epoch and batch.

    Attributes:
        kept, anchors: Sum of the weights, mean over classes, over the anchors so far, and their number.
    """

    def __init__(self, index: FederatedIndex, plan: Plan, seed: int, rank: int) -> None:
        self.index, self.unknown, self.place = index, plan.keys["unknown_negatives"], (seed, max(rank, 0))
        self.number = plan.keys["federated_classes"]
        self.draw_by = sampling_weights(plan.stats.image_counts, plan.keys["federated_power"])
        self.epoch = self.batch = 0
        self.kept, self.anchors = 0.0, 0

    def start_epoch(self, epoch: int) -> None:
        """Draw as this epoch does, whether it is reached or resumed."""
        self.epoch, self.batch = epoch, 0

    def __call__(
        self,
        codes: Sequence[Any],
        palettes: Sequence[Any],
        classes: Tensor,
        size: tuple[int, int],
        strides: Sequence[float],
        device: torch.device,
    ) -> RowWeights:
        """The weights of one batch.

        Args:
            codes: `lt_codes` of its images, as a mask or at the anchors already.
            palettes: `lt_rows` of its images.
            classes: Of all its boxes.
            size: Height and width of its images.
            strides: Of the head's levels.
            device: Where the loss is computed.
        """
        stacked = np.stack([np.asarray(c) for c in codes])
        at_anchors = stacked if stacked.ndim == 2 else anchor_codes(stacked, size, strides)
        sets, index = batch_rows([np.asarray(p) for p in palettes], at_anchors)
        unknown = self._unknown_weights(classes)
        rows = np.stack([self.index.shared_weights(s, unknown) for s in sets])
        self.batch += 1
        self.kept += float(np.bincount(index.ravel(), minlength=len(rows)) @ rows.mean(1))
        self.anchors += index.size
        return RowWeights(torch.from_numpy(rows).to(device), torch.from_numpy(index).to(device))

    def _unknown_weights(self, classes: Tensor) -> float | np.ndarray:
        if self.unknown != "sampled":
            return 0.0 if self.unknown == "strict" else float(self.unknown)
        appeared = np.unique(classes.cpu().numpy().astype(np.int64))
        rng = np.random.default_rng((*self.place, self.epoch, self.batch))
        return draw_classes(self.draw_by, appeared, self.number, rng).astype(np.float32)

    def text(self) -> str:
        """What it has done."""
        return (
            f"federated: {self.kept / max(self.anchors, 1):.1%} of the negatives counted, mean over anchors and classes"
        )
