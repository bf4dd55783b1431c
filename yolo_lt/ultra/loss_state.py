"""The state of the losses between processes: `lt_state-{epoch}.pt` beside the weights, one per saved epoch, two kept.

Ultralytics' checkpoint has no place for it: the criterion is stripped, and a buffer on the model would be averaged by
the EMA and rounded to float16. Two are kept, as a process may be killed between this file and last.pt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from yolo_lt.errors import LTError
from yolo_lt.files import replacing
from yolo_lt.ultra.criterion import ClassificationLoss

KEPT = 2


def state_file(weights: Path, epoch: int) -> Path:
    """The file of an epoch, counted from 0 as in Ultralytics' checkpoints, in the folder `weights`."""
    return weights / f"lt_state-{epoch}.pt"


def save_state(weights: Path, epoch: int, states: Mapping[str, dict[str, Any]]) -> None:
    """Write the losses' states after an epoch, by branch, whole or not at all."""
    with replacing(state_file(weights, epoch)) as temporary:
        torch.save({"epoch": epoch, "branches": dict(states)}, temporary)


def drop_old_states(weights: Path, epoch: int) -> None:
    """Remove all but the last `KEPT` up to `epoch`, once the checkpoint of that epoch is in its place."""
    kept = {state_file(weights, e) for e in range(epoch, epoch - KEPT, -1)}
    for path in set(weights.glob("lt_state-*.pt")) - kept:
        path.unlink(missing_ok=True)


def load_state(weights: Path, epoch: int, losses: Mapping[str, ClassificationLoss]) -> None:
    """Restore the state after an epoch, exactly.

    Args:
        weights: The folder of the checkpoint that is resumed, which may have been moved since.
        epoch: Its epoch, counted from 0.
        losses: The losses, by branch.

    Raises:
        LTError: The file is missing or is not of these losses.
    """
    path = state_file(weights, epoch)
    if not path.is_file():
        raise LTError(
            f"{path} is missing, so the loss cannot go on from where it was: put it back beside last.pt, or start a "
            f"new training from the weights, model={path.parent / 'last.pt'}"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        for name, loss in losses.items():
            loss.load_state_dict(content["branches"][name])
            if loss.loss.keeps_state and not loss.loss.state_dict():
                raise ValueError("it is empty")
    except Exception as e:  # reading what is no such file raises whatever it likes
        raise LTError(f"{path} cannot be read as the state of this run's loss: {e}") from None
