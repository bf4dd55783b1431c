"""One pass over images, many calibrations: detections as every map of the logits would leave them.

The trunk runs once; the head runs again for every map, with the map behind its last classification convolutions. So
what comes out is what a folded checkpoint gives, end-to-end heads and masks included, without one being written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolo_lt.calibrate import Affine
from yolo_lt.ultra.head import BRANCHES
from yolo_lt.ultra.validator import (
    LTDetectionValidator,
    LTPoseValidator,
    LTSegmentationValidator,
)

PROPOSALS = 100  # anchors per image, the highest scored, over which the statistics of logits go


class MapMixin(LTDetectionValidator):
    """What the validators of all tasks gain; `maps` must be set before the call.

    Attributes:
        maps: One list of maps per strength, one map per fold.
        fold_of: The fold of every image path; what is not listed is in fold 0.
        mapped: Detections by strength and image path, as `found`.
        moments: Number, sum and sum of squares of every class's logits over the proposals of a fold, (F, 3, C);
            without maps.
    """

    maps: Sequence[Sequence[Affine]] = ()
    fold_of: Mapping[str, int] = MappingProxyType({})
    mapped: list[dict[str, np.ndarray]]
    moments: np.ndarray
    _now: Tensor | None = None  # scale, shift and share of the bias, (3, B, C), while the head runs under a map

    def init_metrics(self, model: nn.Module) -> None:
        """Listen to the head and its classification branches."""
        super().init_metrics(model)
        self.head = model.model.model[-1]
        self.head.register_forward_pre_hook(self._keep_input)
        self.logits: list[Tensor] = []
        measured = self.head_measured
        levels = {n: getattr(self.head, attr, None) for n, attr in BRANCHES.items()}
        if measured == "one2one" and levels["one2one"] is None:  # fused: it has taken the other's place
            levels = {"one2one": levels["one2many"]}
        for name, branch in levels.items():
            for level in branch or []:
                level[-1].register_forward_hook(self._apply)
                if name == measured:
                    level[-1].register_forward_hook(self._keep_logits)
        self.mapped = [{} for _ in self.maps]
        self.moments = np.zeros((max(self.fold_of.values(), default=0) + 1, 3, self.nc))

    def _keep_input(self, _: nn.Module, args: tuple) -> None:
        self.features = list(args[0])

    def _apply(self, conv: nn.Conv2d, _: tuple, out: Tensor) -> Tensor | None:
        if self._now is None:
            return None
        scale, shift, kept = self._now.to(out)[..., None, None]
        return scale * out + shift + kept * conv.bias.reshape(1, -1, 1, 1)

    def _keep_logits(self, conv: nn.Conv2d, _: tuple, out: Tensor) -> None:
        if self._now is None and not self.maps:
            self.logits.append(out.flatten(2))

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Remember which images come."""
        self.files = batch["im_file"]
        return super().preprocess(batch)

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """The detections of the network as it is; beside them those under every map."""
        folds = np.array([self.fold_of.get(f, 0) for f in self.files])
        self.under_maps = []
        for of_folds in self.maps:
            self._now = torch.from_numpy(_rows([of_folds[f] for f in folds]))
            try:
                boxes = self.head(self.features)[0]  # and no masks, no keypoints
                self.under_maps.append(LTDetectionValidator.postprocess(self, boxes))
            finally:
                self._now = None
        if self.logits:
            self._add_moments(torch.cat(self.logits, 2), folds)
            self.logits = []
        return super().postprocess(preds)

    def _add_moments(self, logits: Tensor, folds: np.ndarray) -> None:
        at = logits.amax(1).topk(min(PROPOSALS, logits.shape[2]), 1).indices
        z = logits.gather(2, at[:, None].expand(-1, logits.shape[1], -1)).double()
        ones = torch.full_like(z[..., 0], z.shape[2])
        sums = torch.stack([ones, z.sum(2), (z * z).sum(2)], 1).cpu().numpy()
        np.add.at(self.moments, folds, sums)

    def update_metrics(self, preds: list[dict[str, Tensor]], batch: dict[str, Any]) -> None:
        """Keep the boxes under every map as well."""
        for found, under in zip(self.mapped, self.under_maps, strict=True):
            found.update(zip(batch["im_file"], (r.astype(np.float32) for r in self.rows(under, batch)), strict=True))
        super().update_metrics(preds, batch)


def _rows(maps: list[Affine]) -> np.ndarray:
    """Scale, shift, and what of the bias is added, each (B, C), stacked."""
    kept = [(1 - m.scale) * m.keep_bias for m in maps]
    return np.stack([[m.scale for m in maps], [m.shift for m in maps], kept])


def mean_and_std(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every class from summed moments, (3, C) each -> (C,) and (C,)."""
    number, total, squares = moments
    mean = total / number
    return mean, np.sqrt(np.maximum(squares / number - mean**2, 0))


class MapDetectionValidator(MapMixin, LTDetectionValidator):
    """Detection."""


class MapSegmentationValidator(MapMixin, LTSegmentationValidator):
    """Instance segmentation."""


class MapPoseValidator(MapMixin, LTPoseValidator):
    """Pose."""


MAP_VALIDATORS = {"detect": MapDetectionValidator, "segment": MapSegmentationValidator, "pose": MapPoseValidator}
