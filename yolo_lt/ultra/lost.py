"""Objects that the network saw and that NMS or max_det took away, counted while Ultralytics validates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.utils import ops
from ultralytics.utils.metrics import box_iou

IOU = 0.5


class LostCounts:
    """Per class, how many objects have a detection of their class that overlaps them by an IoU of 0.5.

    An object without one among the network's candidates was never seen; one that has lost it after NMS, or after
    max_det, was seen and then dropped.

    Attributes:
        counts: Objects, and those with such a detection among the candidates, after NMS, and after max_det; (4, C).
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((4, num_classes), np.int64)

    def add(self, batch: dict[str, Any], raw: Tensor, kept: list[Tensor], conf: float, max_det: int) -> None:
        """Count a batch.

        Args:
            batch: Ultralytics' batch, with its objects.
            raw: The network's output, (B, 4 + C + ..., A): box as x, y, width, height in pixels, then scores.
            kept: What NMS leaves without max_det, best first: per image (n, 6 ...), corners, score and class.
            conf: The least score of a candidate.
            max_det: How many of an image stay in the end.
        """
        height, width = batch["img"].shape[2:]
        scale = torch.tensor([width, height, width, height], device=raw.device)
        classes = self.counts.shape[1]
        for i, rows in enumerate(kept):
            own = batch["batch_idx"] == i
            if not own.any():
                continue
            cls = batch["cls"][own].reshape(-1).long()
            boxes = ops.xywh2xyxy(batch["bboxes"][own] * scale)
            seen = (raw[i, 4 : 4 + classes][cls] > conf) & _touch(boxes, ops.xywh2xyxy(raw[i, :4].T))
            left = (rows[:, 5].long()[None] == cls[:, None]) & _touch(boxes, rows[:, :4])
            hits = (torch.ones_like(cls, dtype=torch.bool), seen.any(1), left.any(1), left[:, :max_det].any(1))
            for count, hit in zip(self.counts, hits, strict=True):
                np.add.at(count, cls[hit].cpu().numpy(), 1)


def _touch(a: Tensor, b: Tensor) -> Tensor:
    """Which boxes overlap enough, (A, B), bool."""
    return box_iou(a.float(), b.float()) >= IOU
