"""The call that all losses share. A loss is a plain object: as an nn.Module it would enter the model's state_dict."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from yolo_lt.balance.losses.targets import Positives, SparseTargets, positives
from yolo_lt.balance.losses.weighted_bce import Sums, Terms, float_dtype, weighted_bce


class Loss:
    """Binary cross-entropy summed over all entries; the losses of this room say in `terms` what they multiply it by."""

    guided = False  # whether it learns from its own gradients: then training calls `observe`
    keeps_state = False  # whether `state_dict` must survive a restart

    def __call__(self, logits: Tensor, targets: Tensor | SparseTargets, ctx: dict | None = None) -> Tensor:
        """The loss, summed and not normalised.

        Args:
            logits: Shape (B, A, C), float.
            targets: Soft targets, dense (B, A, C) or sparse.
            ctx: "foreground" bool (B, A); "valid" bool or float broadcastable to (B, A, C); "absent", `RowWeights` of
                the negative entries alone; "branch" "one2many" or "one2one"; "normalizer", what the caller divides the
                sum by, as efl and eqfl sum the gradients of the final loss. A missing key means: from the targets, all
                valid, one2many, 1.

        Returns:
            Scalar in float32 or better. Logits that are not finite give a loss that is not, as in BCE.
        """
        training = torch.is_grad_enabled() and logits.requires_grad
        run = self._prepared(logits.detach(), targets, ctx, training)
        sums = run(gradient=training, sums=training and self.guided)
        if not training:
            return sums.value
        if self.guided:
            self.observe(sums, ctx or {})
        return _Known.apply(logits, sums.value, sums.gradient, run)

    def gradient(self, logits: Tensor, targets: Tensor | SparseTargets, ctx: dict | None = None) -> Tensor:
        """The gradient by the logits, shape (B, A, C), float32 or better, in closed form; changes no state."""
        return self._prepared(logits.detach(), targets, ctx)().gradient

    def _prepared(
        self, z: Tensor, targets: Tensor | SparseTargets, ctx: dict | None, training: bool = False
    ) -> Callable[..., Sums]:
        """The pass over a batch, `weighted_bce` but for what it is to give; it may be made more than once."""
        pos, given = positives(targets, ctx, float_dtype(z)), ctx or {}
        if training:
            self.count(pos, z)
        terms = self.terms(pos, z, z.new_empty(0, dtype=float_dtype(z)))
        return partial(weighted_bce, z, pos, terms, given.get("valid"), given.get("absent"))

    def terms(self, pos: Positives, z: Tensor, like: Tensor) -> Terms:
        """What is done to the entries of a batch of logits z (B, A, C), in the dtype and on the device of `like`."""
        return Terms()

    def count(self, pos: Positives, z: Tensor) -> None:
        """Learn from the positive entries and the logits (B, A, C) of a training batch, before its loss."""

    def observe(self, sums: Sums, ctx: dict[str, Any]) -> None:
        """Learn from the gradients of a training batch."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart; nothing for a stateless loss."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, got {sorted(state)}")


class _Known(torch.autograd.Function):
    """A scalar whose gradient is known already; scaled in place, so that it is the only tensor of its size."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, gradient: Tensor, run: Callable[..., Sums]) -> Tensor:
        ctx.gradient, ctx.run, ctx.dtype = gradient, run, logits.dtype
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None  # it belongs to whoever asked first
        gradient = ctx.run().gradient if gradient is None else gradient
        return gradient.mul_(scale).to(ctx.dtype), None, None, None
