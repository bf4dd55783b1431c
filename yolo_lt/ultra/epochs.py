"""Metrics by bin after every epoch, and what the best epoch is.

They go with Ultralytics' own metrics into results.csv, TensorBoard, MLflow and W&B. Their names begin with `lt/`, and
they are of the EMA weights at the training's settings: to watch, not to report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ultralytics.utils import LOGGER, colorstr

from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES, Bins
from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.errors import LTError
from yolo_lt.evaluate import protocols
from yolo_lt.evaluate.binned import ROWS, class_sets
from yolo_lt.evaluate.hierarchy import expanded
from yolo_lt.evaluate.metrics import METRICS
from yolo_lt.evaluate.sections import by_bin

if TYPE_CHECKING:
    from yolo_lt.ultra.validator import LTDetectionValidator


def _mean(aps: Sequence[float]) -> float:
    return float(np.mean(aps))


def _harmonic_mean(aps: Sequence[float]) -> float:
    return len(aps) / sum(1 / ap for ap in aps) if min(aps) > 0 else 0.0


SELECTIONS: dict[str, tuple[tuple[str, ...], Callable[[Sequence[float]], float]]] = {
    "balanced": (BIN_NAMES, _mean),
    "tail": (("tail",), _mean),
    "harmonic": (BIN_NAMES, _harmonic_mean),
}  # and map, Ultralytics' own fitness


def fitness(select: str, metrics: Mapping[str, Mapping[str, Any] | None]) -> float:
    """What best.pt and early stopping go by: of the AP of bins, those without ground truth left out.

    Args:
        select: In `SELECTIONS`.
        metrics: AP by bin, the `metrics` entry of a report.
    """
    bins, combine = SELECTIONS[select]
    entries = [m for m in (metrics[name] for name in bins) if m is not None and m["AP"] is not None]
    return combine([m["AP"] for m in entries]) if entries else 0.0  # NaN would start Ultralytics' recovery


def check_select(select: str, bins: Bins, evaluated: np.ndarray) -> None:
    """Refuse a choice of best.pt by bins that the images cannot show.

    Args:
        select: map, or in `SELECTIONS`.
        bins: Head, medium and tail.
        evaluated: Which classes the images show, shape (C,), bool.

    Raises:
        LTError: No class of the bins that `select` goes by is among them.
    """
    if select in SELECTIONS and not any(evaluated[getattr(bins, b)].any() for b in SELECTIONS[select][0]):
        missing = " or ".join(SELECTIONS[select][0])
        raise LTError(f"select={select}: no class of {missing} is in the images on which best.pt is chosen.")


def classes_in(labels: Sequence[Mapping[str, Any]], num_classes: int) -> np.ndarray:
    """Which classes Ultralytics' labels of some images hold, shape (C,), bool."""
    found = np.zeros(num_classes, bool)
    for label in labels:
        found[label["cls"].astype(np.int64).reshape(-1)] = True
    return found


@dataclass
class EpochMetrics:
    """What a training evaluates after every epoch.

    Attributes:
        names: Class names.
        bins: Head, medium and tail.
        evaluated: Which classes occur in the split, shape (C,), bool.
        protocol: The protocol of the final validation, and its cap.
        max_det: Ultralytics' key if it was given, else None: the protocol's own cap.
        select: What best.pt is.
        index: What was looked for in the images of the split, for federated protocols.
        hierarchy: Class hierarchy of Open Images.
    """

    names: list[str]
    bins: Bins
    evaluated: np.ndarray
    protocol: str = "coco"
    max_det: int | None = None
    select: str = "map"
    index: FederatedIndex | None = None
    hierarchy: str | None = None

    @classmethod
    def of_training(
        cls, plan: Plan, lt: Mapping[str, Any], labels: Sequence[Mapping[str, Any]], index: FederatedIndex | None
    ) -> EpochMetrics:
        """Of a training's plan, every yolo-lt key with its hierarchy, and the labels that epochs are compared on."""
        names = list(plan.stats.names)
        return cls(
            names=names,
            bins=plan.bins,
            evaluated=classes_in(labels, len(names)),
            protocol=lt["protocol"],
            max_det=lt.get("max_det"),
            select=lt["select"],
            index=index,
            hierarchy=lt["hierarchy"],
        )

    @property
    def columns(self) -> list[str]:
        """Names of the columns, `lt/AP50(tail)` and so on; bins without ground truth have none."""
        sets = class_sets(np.arange(len(self.names)), self.bins)
        shown = [m for m in METRICS if m != "AP75" or self.protocol != "openimages"]  # which has IoU 0.5 alone
        return [f"lt/{m}({row})" for row in ROWS if self.evaluated[sets[row]].any() for m in shown]

    def added_to(self, stats: dict[str, Any], validator: LTDetectionValidator) -> dict[str, Any]:
        """Ultralytics' metrics and fitness with ours."""
        truth, found = validator.evaluation_input(self.names, index=self.index)
        truth, cap = expanded(truth, self.hierarchy), protocols.cap_of(self.protocol, self.max_det)
        matches = protocols.run(self.protocol, truth, found, cap)
        metrics = by_bin(matches, class_sets(truth.category_ids, self.bins), 0, 0)[0]
        ours = {f"lt/{m}({row})": (metrics[row] or {}).get(m) for row in ROWS for m in METRICS}
        stats = {**stats, **{name: ours[name] or 0.0 for name in self.columns}}
        if self.select in SELECTIONS:
            stats["fitness"] = fitness(self.select, metrics)
        LOGGER.info(f"{colorstr('yolo-lt: ')}{epoch_text(metrics, self.protocol, validator.head_measured)}")
        return stats


def epoch_text(metrics: Mapping[str, Mapping[str, Any] | None], protocol: str, head: str) -> str:
    """One line for the log of an epoch."""
    parts = [f"{row} {m['AP']:.3f} / {m['AP50']:.3f}" for row, m in metrics.items() if m and m["AP"] is not None]
    return f"AP / AP50: {', '.join(parts)} (protocol {protocol}, head {head})"
