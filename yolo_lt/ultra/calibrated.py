"""A calibrated checkpoint: an ordinary one with other numbers in its last classification convolutions.

Under the key `lt_calibration`, which Ultralytics ignores, it carries the map and the tensors as they were, so that it
can be told from others, and taken back exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load

from yolo_lt.calibrate import Affine
from yolo_lt.calibrate.fold import folded
from yolo_lt.errors import LTError
from yolo_lt.files import replacing
from yolo_lt.ultra.head import class_branches

KEY = "lt_calibration"
TOLERANCE = 1e-5  # of logits, beyond what float32 rounds of the folded weights, against the map on the old ones

Maps = dict[str, Affine]  # by branch


def last_convolutions(net: nn.Module) -> dict[str, tuple[str, nn.Conv2d]]:
    """The last classification convolutions of all levels and branches: by name in the model, branch and layer."""
    names = {module: name for name, module in net.named_modules()}
    found = [(branch, level[-1]) for branch, levels in class_branches(net).items() for level in levels]
    return {names[conv]: (branch, conv) for branch, conv in found}


def class_weights(net: nn.Module, branch: str) -> list[np.ndarray]:
    """Weights of a branch's last convolutions, one (C, F) per level."""
    convs = [conv for name, conv in last_convolutions(net).values() if name == branch]
    return [conv.weight.detach().double().flatten(1).cpu().numpy() for conv in convs]


def record_of(ckpt: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a checkpoint says about its calibration, or None."""
    return (ckpt or {}).get(KEY)


def write_calibrated(source: Path, target: Path, maps: Maps, facts: dict[str, Any]) -> None:
    """Write a checkpoint with the maps folded in; every other tensor is that of the source, bit for bit.

    Args:
        source: A finished checkpoint that is not calibrated.
        target: The file to be written, whole or not at all.
        maps: The map of every branch.
        facts: Plain values to be kept in the record: method, strength.

    Raises:
        LTError: The written file's logits differ from the maps on the source's by more than `TOLERANCE`.
    """
    ckpt, net = _read(source)
    original: dict[str, Any] = {}
    for name, (branch, conv) in last_convolutions(net).items():
        original |= {f"{name}.weight": conv.weight.data, f"{name}.bias": conv.bias.data}
        conv.weight.data, conv.bias.data = folded(conv.weight.data, conv.bias.data, maps[branch])
    record = {
        **facts,
        "maps": {branch: {"scale": m.scale.tolist(), "shift": m.shift.tolist(), "keep_bias": m.keep_bias}
                 for branch, m in maps.items()},
        "original": original,
    }  # fmt: skip
    with replacing(target) as temporary:
        torch.save({**ckpt, KEY: record}, temporary)
        check_folded(source, temporary, maps)


def write_original(source: Path, target: Path) -> None:
    """Write a calibrated checkpoint as it was before: the kept tensors in their place, the record gone.

    Raises:
        LTError: Its tensors are not those that were folded.
    """
    ckpt, net = _read(source)
    record = ckpt.pop(KEY)
    maps = {b: Affine(np.array(m["scale"]), np.array(m["shift"]), m["keep_bias"]) for b, m in record["maps"].items()}
    for name, (branch, conv) in last_convolutions(net).items():
        weight, bias = (record["original"][f"{name}.{part}"] for part in ("weight", "bias"))
        wanted = folded(weight, bias, maps[branch])
        if not all(torch.equal(a, b) for a, b in zip(wanted, (conv.weight.data, conv.bias.data), strict=True)):
            raise LTError(f"{source}: its weights were changed after the calibration, which cannot be undone")
        conv.weight.data, conv.bias.data = weight, bias
    with replacing(target) as temporary:
        torch.save(ckpt, temporary)


def _read(path: Path) -> tuple[dict[str, Any], nn.Module]:
    """A checkpoint as it is stored, not converted to float32, and its model."""
    ckpt = torch_safe_load(str(path), safe_only=True)[0]
    return ckpt, ckpt.get("ema") or ckpt["model"]


def check_folded(source: Path, written: Path, maps: Maps) -> float:
    """The largest difference of logits between the written file and the maps on the source's, in float64.

    Raises:
        LTError: It is above `TOLERANCE`.
    """
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before, after = (class_logits(load_checkpoint(p)[0].double(), images) for p in (source, written))
    worst = 0.0
    for name, (branch, bias, logits, _) in before.items():
        _, _, written_logits, reach = after[name]
        apart = np.abs(written_logits - maps[branch](logits, bias)) - np.finfo(np.float32).eps * reach
        worst = float(np.maximum(worst, apart.max()))  # and not max(), which would drop a NaN
    if not worst <= TOLERANCE:
        raise LTError(f"{written}: folded and explicit calibration differ by {worst:.2g}; nothing was written")
    return worst


@torch.inference_mode()
def class_logits(net: nn.Module, images: torch.Tensor) -> dict[str, tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """What every last convolution gives, by name.

    Returns:
        Branch, bias (C,), logits (B, H, W, C), and the sums of the absolute values of what was added up for them, of
        the same shape. The head alone is in training mode, in which every branch of every head runs.
    """
    taken = {}

    def keep(name: str, branch: str) -> Any:
        def hook(conv: nn.Conv2d, args: tuple, out: torch.Tensor) -> None:
            reach = conv2d(args[0].abs(), conv.weight.abs(), conv.bias.abs())
            taken[name] = (branch, *(x.cpu().numpy() for x in (conv.bias, out.movedim(1, -1), reach.movedim(1, -1))))

        return hook

    convs = last_convolutions(net)
    hooks = [conv.register_forward_hook(keep(name, branch)) for name, (branch, conv) in convs.items()]
    net.eval()
    net.model[-1].training = True
    try:
        net(images)
    finally:
        net.eval()
        for hook in hooks:
            hook.remove()
    return taken
