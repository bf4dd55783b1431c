"""Sparse targets: Ultralytics' assigners, asked for a label and a value per anchor and not for a row over classes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from ultralytics.utils.tal import TaskAlignedAssigner

from yolo_lt.balance.losses import SparseTargets

if TYPE_CHECKING:  # the mixin comes before the assigner of the task
    from ultralytics.utils.tal import TaskAlignedAssigner as _Assigner
else:
    _Assigner = object


class SparseMixin(_Assigner):
    """Gives `SparseTargets` in the place of dense targets (B, A, C); every decision stays Ultralytics'."""

    num_classes: int

    def forward(self, pd_scores: Tensor, pd_bboxes: Tensor, *args: Tensor, **extra: Tensor) -> tuple[Any, ...]:
        """Assign; wrapped here, so that a retry image by image after running out of memory has plain tensors."""
        gt_bboxes = args[2]
        scores = (
            pd_scores if gt_bboxes.shape[1] else pd_scores[..., :1]
        )  # without boxes its shape is that of the targets
        labels, boxes, values, foreground, index = super().forward(scores, pd_bboxes, *args, **extra)
        targets = SparseTargets(labels.long(), foreground, values[..., 0], self.num_classes)
        return labels, boxes, targets, foreground, index

    def get_targets(self, gt_labels: Tensor, gt_bboxes: Tensor, target_gt_idx: Tensor, fg_mask: Tensor) -> tuple:
        """Labels (B, A), boxes (B, A, .) and foreground (B, A, 1): Ultralytics' answer for a single class."""
        labels = gt_labels[..., 0].long().gather(1, target_gt_idx).clamp_(0)
        num_classes, self.num_classes = self.num_classes, 1
        try:
            _, boxes, scores = super().get_targets(torch.zeros_like(gt_labels), gt_bboxes, target_gt_idx, fg_mask)
        finally:
            self.num_classes = num_classes
        return labels, boxes, scores

    def __reduce__(self) -> tuple:
        """Classes that are made at run time are pickled and copied by what they derive from."""
        return _restored, (type(self).__mro__[2], self.__dict__)


@cache
def sparse_class(base: type) -> type:
    """`base`, an assigner class of Ultralytics, with sparse targets."""
    return type(f"Sparse{base.__name__}", (SparseMixin, base), {})


def make_sparse(assigner: TaskAlignedAssigner) -> TaskAlignedAssigner:
    """An assigner that shares the state of a given one and gives sparse targets."""
    return assigner if isinstance(assigner, SparseMixin) else _restored(type(assigner), assigner.__dict__)


def _restored(base: type, state: dict[str, Any]) -> TaskAlignedAssigner:
    kind: Any = sparse_class(base)
    new = kind.__new__(kind)
    new.__dict__.update(state)
    return new
