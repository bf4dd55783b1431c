"""`strategy=scale`: one scale and one shift of the logits per class learn, inside Ultralytics' own training step.

The last classification convolutions take part in forward and backward as they are; their gradients are turned into
those of scale and shift, the optimizer moves these two, and the convolutions are written anew from the originals. So
the network, its average and its checkpoints stay ordinary at every moment.

Source: learnable weight scaling, Kang et al., Decoupling Representation and Classifier, ICLR 2020; the shift is ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from yolo_lt.errors import LTError
from yolo_lt.ultra.calibrated import last_convolutions


class Scaling:
    """z' = scale z + shift per class, common to all levels and branches.

    Args:
        model: The model in training.
        original: The model of stage one.

    Attributes:
        log_scale: Shape (C,).
        shift: Shape (C,).
    """

    def __init__(self, model: nn.Module, original: nn.Module) -> None:
        device = next(model.parameters()).device
        before = {name: conv for name, (_, conv) in last_convolutions(original).items()}
        self.convs: list[tuple[nn.Conv2d, Tensor, Tensor]] = [
            (conv, *(getattr(before[name], part).detach().float().to(device) for part in ("weight", "bias")))
            for name, (_, conv) in last_convolutions(model).items()
        ]
        size = self.convs[0][0].out_channels
        self.log_scale, self.shift = (nn.Parameter(torch.zeros(size, device=device)) for _ in range(2))
        self.read()
        self._check()

    @torch.no_grad()
    def read(self) -> None:
        """Take scale and shift from the convolutions as they are: at the start, after a resume or a recovery."""
        ours = torch.cat([conv.weight.flatten(1) for conv, _, _ in self.convs], 1)
        base = torch.cat([weight.flatten(1) for _, weight, _ in self.convs], 1)
        scale = ((ours * base).sum(1) / (base * base).sum(1).clamp(min=1e-12)).clamp(min=1e-6)
        scale[(base == 0).all(1)] = 1
        self.log_scale.copy_(scale.log())
        self.shift.copy_(torch.stack([conv.bias - scale * bias for conv, _, bias in self.convs]).mean(0))

    @torch.no_grad()
    def _check(self) -> None:
        """The convolutions must be the originals, scaled and shifted, within the float16 of a checkpoint.

        Raises:
            LTError: They are those of another network.
        """
        scale = self.log_scale.exp()
        for conv, weight, _ in self.convs:
            apart = (conv.weight - scale.reshape(-1, 1, 1, 1) * weight).norm()
            if not apart <= 0.01 * conv.weight.norm():
                raise LTError(
                    "strategy=scale: the classifier is not that of the stage-one checkpoint with other scales"
                )

    def _clip(self, *_: Any) -> None:
        """Ultralytics clips the gradients of the model, which has none left."""
        nn.utils.clip_grad_norm_([self.log_scale, self.shift], max_norm=10.0)

    def gather(self) -> None:
        """Gradients of scale and shift from those of the convolutions."""
        scale = self.log_scale.detach().exp()
        grads = torch.zeros_like(scale), torch.zeros_like(scale)
        for conv, weight, bias in self.convs:
            if conv.weight.grad is None or conv.bias.grad is None:
                continue
            grads[0].add_(scale * ((conv.weight.grad * weight).flatten(1).sum(1) + conv.bias.grad * bias))
            grads[1].add_(conv.bias.grad)
            conv.weight.grad = conv.bias.grad = None
        self.log_scale.grad, self.shift.grad = grads

    @torch.no_grad()
    def write(self, *_: Any) -> None:
        """The convolutions from scale and shift; a hook of the optimizer, before Ultralytics averages the model."""
        scale = self.log_scale.exp()
        for conv, weight, bias in self.convs:
            conv.weight.copy_(scale.reshape(-1, 1, 1, 1) * weight)
            conv.bias.copy_(scale * bias + self.shift)

    def drive(self, optimizer: Optimizer) -> Optimizer:
        """Let an optimizer of Ultralytics move these two instead of the model, without weight decay."""
        for group in optimizer.param_groups:
            group["params"] = []
        plain = [g for g in optimizer.param_groups if not g.get("weight_decay")]
        (plain or optimizer.param_groups)[-1]["params"] = [self.log_scale, self.shift]
        optimizer.register_step_pre_hook(self._clip)
        optimizer.register_step_post_hook(self.write)
        return optimizer
