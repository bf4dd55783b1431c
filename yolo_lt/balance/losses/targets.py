"""Targets of the classification branch, and plain BCE on them: what every loss here starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


@dataclass
class SparseTargets:
    """Soft targets with at most one non-zero class per anchor, as Ultralytics' assigner makes them.

    Attributes:
        labels: Class of every anchor, shape (B, A), int64; meaningless on background anchors.
        foreground: Which anchors have a target, shape (B, A), bool.
        values: The soft target of the anchor's class, shape (B, A), float.
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


@dataclass
class Positives:
    """The positive entries of a batch: P triples (image, anchor, class) and their soft targets.

    Attributes:
        index: Image, anchor and class of each entry, each shape (P,), int64.
        y: Soft target of each entry, shape (P,), float32 or better.
        foreground: Which anchors hold an object, shape (B, A), bool.
        dense: The targets of all entries, shape (B, A, C), if they came dense.
    """

    index: tuple[Tensor, Tensor, Tensor]
    y: Tensor
    foreground: Tensor
    dense: Tensor | None = None


def positives(targets: Tensor | SparseTargets, ctx: dict | None, dtype: torch.dtype) -> Positives:
    """Positive entries (y > 0) of dense (B, A, C) or sparse targets; `ctx["foreground"]` names the foreground."""
    given = (ctx or {}).get("foreground")
    if isinstance(targets, SparseTargets):
        b, a = targets.foreground.nonzero(as_tuple=True)
        index = (b, a, targets.labels[b, a])
        return Positives(index, targets.values[b, a].to(dtype), targets.foreground if given is None else given)
    index = targets.nonzero(as_tuple=True)
    if given is None:
        given = torch.zeros(targets.shape[:2], dtype=torch.bool, device=targets.device)
        given[index[:2]] = True
    return Positives(index, targets[index].to(dtype), given, targets.to(dtype))


def as_float(logits: Tensor) -> Tensor:
    """Logits in float32 or better: under AMP they arrive in half precision, where sums and powers overflow."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def valid_of(ctx: dict | None) -> Tensor | None:
    """The mask of valid entries, broadcastable to (B, A, C); None where all are valid."""
    return (ctx or {}).get("valid")


def bce_all(z: Tensor, pos: Positives) -> Tensor:
    """Binary cross-entropy of every entry, shape (B, A, C), in the very operation that Ultralytics uses.

    Not softplus: the two differ by up to a per cent where p is 1e-5, and a neutral recipe must give the stock value.
    """
    y = z.new_zeros(()).expand_as(z) if pos.dense is None else pos.dense
    loss = binary_cross_entropy_with_logits(z, y, reduction="none")
    if pos.dense is None:  # BCE(z, y) = BCE(z, 0) - y z
        loss = loss.index_put(pos.index, -z[pos.index] * pos.y, accumulate=True)
    return loss


def bce_sum(z: Tensor, pos: Positives, weight: Tensor | None = None) -> Tensor:
    """Sum of binary cross-entropy over all entries, times a weight broadcastable to (B, A, C) if given. Scalar."""
    loss = bce_all(z, pos)
    return (loss if weight is None else loss * weight).sum()


def bce_at(z: Tensor, index: tuple[Tensor, ...], y: Tensor | float, valid: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of the entries z[index] against y, which broadcasts to them; the shape of z[index]."""
    at = z[index]
    target = torch.as_tensor(y, dtype=z.dtype, device=z.device).expand_as(at)
    loss = binary_cross_entropy_with_logits(at, target, reduction="none")
    return loss if valid is None else loss * valid.expand_as(z)[index]
