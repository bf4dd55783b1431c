"""Stage two on the model: what is frozen, the classifier's new start, and the proof that the rest did not move."""

from __future__ import annotations

import hashlib
import math

from torch import nn
from ultralytics.utils.torch_utils import ModelEMA, unwrap_model

from yolo_lt.errors import UsageError

BRANCHES = {"one2many": "cv3", "one2one": "one2one_cv3"}  # the classification branch of every head, by criterion


def class_branches(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The classification branches of a detection model: one sequence of layers per level; two of end-to-end heads.

    Raises:
        UsageError: The head has none, or it was fused for inference.
    """
    head = model.model[-1]
    found = {name: getattr(head, attr, None) for name, attr in BRANCHES.items()}
    found = {name: branch for name, branch in found.items() if branch is not None}
    if "one2many" not in found or not hasattr(head, "cv2") or head.cv2 is None:
        raise UsageError(f"a {type(head).__name__} head without {BRANCHES['one2many']} cannot be re-trained")
    return found


def frozen_layers(model: nn.Module, part: str = "branch") -> list[int | str]:
    """Ultralytics' `freeze=` list for stage two: every layer by name except the classification branch.

    Ultralytics matches names and forces every other parameter to learn, so nothing can be frozen in any other way.

    Args:
        model: The detection model.
        part: "branch" lets the whole classification branch learn, "last" only its last convolution.
    """
    head, branches = model.model[-1], class_branches(model)
    attrs = [BRANCHES[name] for name in branches]
    frozen: list[int | str] = list(range(head.i))
    frozen += [f"{head.i}.{name}" for name, _ in head.named_children() if name not in attrs]
    if part == "last":
        for attr, branch in zip(attrs, branches.values(), strict=True):
            frozen += [f"{head.i}.{attr}.{i}.{j}" for i, seq in enumerate(branch) for j in range(len(seq) - 1)]
    return frozen


def is_frozen(name: str, layers: list[int | str]) -> bool:
    """Whether a parameter or buffer belongs to a frozen layer; `.dfl` always does, as in Ultralytics."""
    return ".dfl" in name or any(name.startswith(f"model.{x}.") for x in layers)


def reinitialise(model: nn.Module) -> None:
    """Start the last convolution of every classification branch anew; the box branch is not touched.

    Ultralytics' own `bias_init` would reset the box biases as well. The prior of the class biases is its formula:
    five objects per 640 x 640 image, evenly over the classes.
    """
    head = model.model[-1]
    for branch in class_branches(model).values():
        for seq, stride in zip(branch, head.stride, strict=True):
            seq[-1].reset_parameters()
            nn.init.constant_(seq[-1].bias, math.log(5 / head.nc / (640 / float(stride)) ** 2))


def digest(model: nn.Module, layers: list[int | str]) -> str:
    """SHA-256 over names and values of all frozen parameters and buffers, as a checkpoint keeps them (float16)."""
    sha = hashlib.sha256()
    for name, value in sorted(unwrap_model(model).state_dict().items()):
        if is_frozen(name, layers):
            sha.update(f"{name} {tuple(value.shape)}".encode())
            stored = value.half() if value.is_floating_point() else value
            sha.update(stored.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Trainable and frozen parameters."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in model.parameters()) - trainable


def average_learning_only(ema: ModelEMA, model: nn.Module, layers: list[int | str]) -> None:
    """Let Ultralytics' moving average skip frozen tensors, which it would average with themselves at every step."""
    now = unwrap_model(model).state_dict()
    learning = {k: v for k, v in ema.ema.state_dict().items() if v.is_floating_point() and not is_frozen(k, layers)}
    ema._pairs = (list(learning.values()), [now[k] for k in learning])
