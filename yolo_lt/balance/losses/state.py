"""What losses that keep a state share: its check, and its sum over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor


def check_kept(owner: str, state: dict[str, Any], kept: Sequence[str]) -> None:
    """A state is empty, as before the first training batch, or holds exactly what the loss keeps.

    Raises:
        ValueError: It is neither.
    """
    if state and set(state) != set(kept):
        raise ValueError(f"{owner} keeps {', '.join(kept)}, got {sorted(state)}")


def sum_over_processes(values: Tensor) -> None:
    """Replace a tensor by its sum over all processes; every one of them must come here."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
