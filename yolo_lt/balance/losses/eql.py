"""Equalization loss: foreground anchors of other classes give rare classes no negative gradient (Tan et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from yolo_lt.balance.losses.base import Loss
from yolo_lt.balance.losses.targets import Positives, bce_sum


class EQL(Loss):
    """EQL v1: weight 1 - E(row) T(f_c) (1 - [y > 0]) on every entry.

    E is 1 on foreground rows, T is 1 for classes with image frequency f_c below `eql_lambda`. Background rows still
    push rare classes down, and in a dense head they are nearly all of the rows, so expect a small effect.

    Args:
        image_counts: Training images per class, shape (C,).
        num_images: All training images.
        eql_lambda: The frequency below which a class is rare; 1.77e-3 is the original's value for LVIS v0.5.

    Source: Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020, equations 3 to 5 (sigmoid).
    """

    def __init__(self, image_counts: Sequence[int] | np.ndarray, num_images: int, eql_lambda: float = 1.77e-3) -> None:
        frequency = np.asarray(image_counts, np.float64) / num_images
        self.rare = torch.from_numpy(np.flatnonzero(frequency < eql_lambda))

    def compute(self, z: Tensor, pos: Positives, valid: Tensor | None) -> Tensor:
        """Sum over all entries less what foreground rows give rare classes as negatives, scalar."""
        rare = self.rare.to(z.device)
        b, a = pos.foreground.nonzero(as_tuple=True)
        at = z[b[:, None], a[:, None], rare]  # (foreground rows, rare classes)
        dropped = binary_cross_entropy_with_logits(at, torch.zeros_like(at), reduction="none")
        if valid is not None:
            dropped = dropped * valid.expand_as(z)[b[:, None], a[:, None], rare]
        return bce_sum(z, pos, valid) - (dropped * self._negative(z, pos, b, a, rare)).sum()

    @staticmethod
    def _negative(z: Tensor, pos: Positives, b: Tensor, a: Tensor, rare: Tensor) -> Tensor:
        """1 where the entry of a foreground row and a rare class is no positive, shape (rows, rare classes)."""
        row = torch.full(z.shape[:2], -1, dtype=torch.long, device=z.device)
        row[b, a] = torch.arange(len(b), device=z.device)
        column = torch.full((z.shape[2],), -1, dtype=torch.long, device=z.device)
        column[rare] = torch.arange(len(rare), device=z.device)
        negative = torch.ones(len(b), len(rare), dtype=z.dtype, device=z.device)
        i, j = row[pos.index[:2]], column[pos.index[2]]
        keep = (i >= 0) & (j >= 0)
        negative[i[keep], j[keep]] = 0
        return negative
