"""A calibration inside the last classification convolution, on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from yolo_lt.calibrate.affine import Affine


def folded(weight: Tensor, bias: Tensor, affine: Affine) -> tuple[Tensor, Tensor]:
    """W' = scale W and b' = (b if keep_bias else scale b) + shift.

    Computed in float64 and kept in float32: in the float16 of Ultralytics' finished checkpoints a bias of -10 would be
    rounded by up to 4e-3.

    Args:
        weight: Shape (C, ...).
        bias: Shape (C,).
        affine: The map of C classes.

    Returns:
        Weight and bias, float32, new tensors on the device of the old ones.
    """
    scale, shift = (torch.as_tensor(v, dtype=torch.float64, device=weight.device) for v in (affine.scale, affine.shift))
    scaled = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    kept = bias.double() if affine.keep_bias else scale * bias.double()
    return scaled.float(), (kept + shift).float()
