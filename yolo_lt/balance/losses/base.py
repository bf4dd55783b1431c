"""The call that all losses share. A loss is a plain object: as an nn.Module it would enter the model's state_dict."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from yolo_lt.balance.losses.targets import Positives, SparseTargets, as_float, bce_sum, positives, valid_of


class Loss:
    """Binary cross-entropy summed over all entries; the losses of this room override `compute`."""

    def __call__(self, logits: Tensor, targets: Tensor | SparseTargets, ctx: dict | None = None) -> Tensor:
        """The loss, summed and not normalised.

        Args:
            logits: Shape (B, A, C), float.
            targets: Soft targets, dense (B, A, C) or sparse.
            ctx: "foreground" bool (B, A), "valid" bool or float broadcastable to (B, A, C), "branch" "one2many" or
                "one2one"; a missing key means: from the targets, all valid, one2many.

        Returns:
            Scalar in float32 or better.
        """
        z = as_float(logits)
        return self.compute(z, positives(targets, ctx, z.dtype), valid_of(ctx))

    def compute(self, z: Tensor, pos: Positives, valid: Tensor | None) -> Tensor:
        """Sum over all entries of logits z (B, A, C), scalar."""
        return bce_sum(z, pos, valid)

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart; nothing for a stateless loss."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, got {sorted(state)}")
