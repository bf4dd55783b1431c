"""What stands in the criterion: our classification loss for `bce`, weights by class around `bbox_loss`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolo_lt.balance.losses import LOSS_KEYS, Loss, RowWeights, SparseTargets, build_loss
from yolo_lt.balance.losses.state import sum_over_processes
from yolo_lt.balance.plan import Plan
from yolo_lt.errors import UsageError
from yolo_lt.ultra.assigner import make_sparse

GAINS = (0.1, 10.0)  # bounds of the gain that is found
OBJECTS = 1.0  # the sum of targets from which a batch is compared: below it Ultralytics' divisor is not that sum


class ClassificationLoss:
    """Stands where Ultralytics keeps its elementwise BCE; Ultralytics only sums what it returns.

    The first training batch whose targets, over all processes, sum up to 1 is also run through plain BCE: `start` is
    the ratio of the two gradient norms, and with gain "auto" the loss is divided by it from then on, so that changing
    the loss does not change how much the classification weighs against the boxes.

    Attributes:
        loss: The loss, one per branch, as the branches assign different targets.
        branch: "one2many", or "one2one" for the second branch of an end-to-end head.
        gain: Factor on the loss; None until it is found.
        found: Whether the gain is found rather than given.
        start: Gradient norm over that of BCE in that batch; None before it.
        batches: Training batches it has acted on.
        masked: Whether the labels are federated.
        absent: Then the weights of the negatives of the batch to come; whoever prepares the batch sets them.
    """

    masked = False
    absent: RowWeights | None = None

    def __init__(self, loss: Loss, branch: str, gain: float | str = 1.0) -> None:
        self.loss, self.branch, self.batches = loss, branch, 0
        self.found = gain == "auto"
        self.gain: float | None = None if gain == "auto" else float(gain)
        self.start: float | None = None

    def __call__(self, logits: Tensor, targets: Tensor | SparseTargets) -> Tensor:
        """Summed loss of logits (B, A, C) and soft targets. Scalar, float32."""
        ctx = {"branch": self.branch, "normalizer": targets.sum().clamp(min=1)}
        if torch.is_grad_enabled() and logits.requires_grad:
            self.batches += 1
            if self.masked:
                ctx["absent"], self.absent = self._of_this_batch(logits), None
            if self.start is None:
                self._compare(logits, targets, ctx)
        value = self.loss(logits, targets, ctx)
        return value if self.gain is None else value * self.gain

    def _of_this_batch(self, logits: Tensor) -> RowWeights:
        """The mask, which must be that of this batch: without it every negative would count again, silently."""
        shape = None if self.absent is None else tuple(self.absent.index.shape)
        if self.absent is None or shape != tuple(logits.shape[:2]):
            raise RuntimeError(f"the federated mask is for anchors {shape}, the head has {tuple(logits.shape[:2])}")
        return self.absent

    def _compare(self, logits: Tensor, targets: Tensor | SparseTargets, ctx: dict[str, Any]) -> None:
        """Find `start`, and the gain that is not given, once there are targets enough."""
        plain = {k: v for k, v in ctx.items() if k != "absent"}
        gradients = self.loss.gradient(logits, targets, ctx), Loss().gradient(logits, targets, plain)
        norms = [torch.linalg.vector_norm(g) for g in gradients]
        found = torch.stack([*(n.square() for n in norms), targets.sum().to(norms[0])])
        sum_over_processes(found)
        ours, theirs, objects = found.tolist()
        if objects >= OBJECTS and 0 < ours < float("inf") and 0 < theirs < float("inf"):
            self.start = (ours / theirs) ** 0.5
            if self.gain is None:
                self.gain = min(max(1 / self.start, GAINS[0]), GAINS[1])

    @property
    def has_state(self) -> bool:
        """Whether a resumed training must have `state_dict`: what stateless losses have is measured anew."""
        return self.loss.keeps_state or self.found

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart: the gain and the loss's own state."""
        return {"gain": self.gain, "start": self.start, "loss": self.loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.loss.load_state_dict(state["loss"])
        self.gain, self.start = (None if state[k] is None else float(state[k]) for k in ("gain", "start"))


class WeightedBoxLoss:
    """Stands where Ultralytics keeps its box loss (IoU and DFL, or L1), weighted by the class of each anchor's object.

    Ultralytics weighs an anchor by its soft target and divides by the sum of all; the divisor stays.
    """

    def __init__(self, stock: Callable[..., tuple[Tensor, Tensor]], weights: Tensor) -> None:
        self.stock, self.weights = stock, weights

    def __call__(self, dist: Tensor, boxes: Tensor, anchors: Tensor, true: Tensor, scores: Any, *rest: Any) -> Any:
        """Ultralytics' two losses; `scores` are sparse targets."""
        self.weights = self.weights.to(scores.values)
        labels = scores.labels.clamp(max=len(self.weights) - 1)  # background; C in a batch without boxes
        weighted = replace(scores, values=scores.values * self.weights[labels])
        return self.stock(dist, boxes, anchors, true, weighted, *rest)


def planned_loss(plan: Plan, seed: int = 0) -> Loss:
    """A new loss as the plan's keys and counts ask for it; `seed` decides what a loss draws."""
    keys, stats = plan.keys, plan.stats
    own = {k: keys[k] for k in LOSS_KEYS[keys["cls_loss"]]}
    if keys["cls_loss"] == "federated":
        own["seed"] = seed
    return build_loss(keys["cls_loss"], stats.image_counts, stats.instance_counts, stats.num_images, **own)


def install_planned(model: nn.Module, plan: Plan, seed: int = 0) -> dict[str, ClassificationLoss]:
    """Put what the plan asks for on the model's criterion; with federated labels every batch must bring its mask."""
    box_weights = None if plan.box_weights is None else torch.from_numpy(plan.box_weights)
    installed = install(model, partial(planned_loss, plan, seed), plan.keys["loss_gain"], box_weights)
    for loss in installed.values():
        loss.masked = plan.federated is not None
    return installed


def branches(criterion: Any) -> dict[str, Any]:
    """The branch criteria of a detection criterion by name; two for end-to-end heads.

    Raises:
        UsageError: The criterion has no `bce`, `assigner` or `bbox_loss`, so no loss of ours could act.
    """
    pair = {name: getattr(criterion, name) for name in ("one2many", "one2one") if hasattr(criterion, name)}
    found = pair or {"one2many": criterion}
    for name, branch in found.items():
        for part in ("bce", "assigner", "bbox_loss"):
            if not hasattr(branch, part):
                raise UsageError(f"cls_loss cannot act: {type(branch).__name__} ({name}) has no '{part}' to replace")
    return found


def install(
    model: nn.Module, build: Callable[[], Loss], gain: float | str = 1.0, box_weights: Tensor | None = None
) -> dict[str, ClassificationLoss]:
    """Put a loss and sparse targets on every branch of the model's criterion, made now if it does not exist yet.

    With `box_weights`, shape (C,), its box loss is weighted by class.

    A resumed end-to-end run already has a criterion with its schedule restored, so it is kept and only `bce` and
    `assigner` are replaced.
    """
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
    installed = {name: ClassificationLoss(build(), name, gain) for name in branches(model.criterion)}
    for name, branch in branches(model.criterion).items():
        branch.bce, branch.assigner = installed[name], make_sparse(branch.assigner)
        if box_weights is not None:
            branch.bbox_loss = WeightedBoxLoss(branch.bbox_loss, box_weights)
    return installed
