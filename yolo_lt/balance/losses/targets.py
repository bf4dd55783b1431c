"""Targets of the classification branch: dense as Ultralytics makes them, or sparse as ours does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class SparseTargets:
    """Soft targets with at most one non-zero class per anchor, as Ultralytics' assigner makes them.

    Stands in Ultralytics' criteria where the dense tensor stood: they sum it, cast it and index it by the foreground.

    Attributes:
        labels: Class of every anchor, shape (B, A), int64; meaningless on background anchors.
        foreground: Which anchors have a target, shape (B, A), bool.
        values: The soft target of the anchor's class, shape (B, A), float; 0 on background anchors.
        num_classes: C.
    """

    labels: Tensor
    foreground: Tensor
    values: Tensor
    num_classes: int

    def dense(self) -> Tensor:
        """The same targets as a tensor of shape (B, A, C)."""
        out = self.values.new_zeros((*self.labels.shape, self.num_classes))
        rows = self.foreground.nonzero(as_tuple=True)
        out[(*rows, self.labels[rows])] = self.values[rows]
        return out

    def sum(self) -> Tensor:
        """Sum of all targets, scalar."""
        return (self.values * self.foreground).sum()

    def to(self, *args: torch.dtype | torch.device | str) -> SparseTargets:
        """The same targets, their values in another dtype or all on another device."""
        values = self.values.to(*args)
        return replace(
            self, values=values, labels=self.labels.to(values.device), foreground=self.foreground.to(values.device)
        )

    def __getitem__(self, mask: Tensor) -> Tensor:
        """Targets of the anchors in a mask (B, A) of foreground anchors, shape (n, 1): the others of a row are 0."""
        return self.values[mask].unsqueeze(-1)


@dataclass
class Positives:
    """The positive entries of a batch: P triples (image, anchor, class) in order, and their soft targets.

    Attributes:
        index: Image, anchor and class of each entry, each shape (P,), int64.
        y: Soft target of each entry, shape (P,), float32 or better.
        foreground: Which anchors hold an object, shape (B, A), bool.
    """

    index: tuple[Tensor, Tensor, Tensor]
    y: Tensor
    foreground: Tensor


def positives(targets: Tensor | SparseTargets, ctx: dict | None, dtype: torch.dtype) -> Positives:
    """Positive entries (y > 0) of dense (B, A, C) or sparse targets; `ctx["foreground"]` names the foreground."""
    given = (ctx or {}).get("foreground")
    if isinstance(targets, SparseTargets):
        b, a = (targets.foreground & (targets.values > 0)).nonzero(as_tuple=True)
        index = (b, a, targets.labels[b, a])
        return Positives(index, targets.values[b, a].to(dtype), targets.foreground if given is None else given)
    index = targets.nonzero(as_tuple=True)
    if given is None:
        given = torch.zeros(targets.shape[:2], dtype=torch.bool, device=targets.device)
        given[index[:2]] = True
    return Positives(index, targets[index].to(dtype), given)
