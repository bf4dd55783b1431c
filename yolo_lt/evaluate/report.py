"""From ground truth and detections to a report: AP by frequency bin, with intervals, and its whole context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt.dataset.bins import Bins
from yolo_lt.errors import UsageError
from yolo_lt.evaluate import protocols
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.binned import ALL_BINS, ROWS, class_sets, find_bins
from yolo_lt.evaluate.columns import Source
from yolo_lt.evaluate.curves import curves
from yolo_lt.evaluate.examples import worst
from yolo_lt.evaluate.hierarchy import expanded
from yolo_lt.evaluate.matching import Matches
from yolo_lt.evaluate.metrics import METRICS
from yolo_lt.evaluate.operating import DEPLOYED
from yolo_lt.evaluate.read import read_detections, read_ground_truth
from yolo_lt.evaluate.sections import by_area, by_bin, by_class, calibration, deployed, recall_by_cap, why
from yolo_lt.evaluate.store import ground_truth_sha256, load_matches, save_matches

__all__ = ["Report", "evaluate", "load_matches", "save_matches"]

SCHEMA = 1
RUN_KEYS = (
    *("model", "weights_sha256", "data", "split", "imgsz", "conf", "nms_iou", "head_measured", "versions"),
    *("command", "training"),
)
COUNT_KEYS = ("train_images", "train_instances")


@dataclass(frozen=True)
class Report:
    """An evaluation with everything that is needed to read its numbers.

    Attributes:
        protocol: Name in `PROTOCOLS`.
        max_det: The protocol's cap, or None without one; `cap` in the JSON says over what.
        gt_sha256: Digest of the ground truth, see `ground_truth_sha256`.
        bins: Rule, and category ids under head, medium, tail and unseen; None values without bins.
        metrics: Under all, head, medium and tail: AP, AP50, AP75, AR, n_classes, n_evaluated, n_gt and ci95; None for
            a bin that was not asked for. `all` is every category, unseen ones included.
        areas: Under small, medium and large, AP, AR and n_evaluated of each bin; None where the protocol has none.
        curves: `iou` and `recall`, 101 points; and the precisions there under all, head, medium and tail, whose mean is
            AP50 (openimages: nearly), see `curves`; None for a bin that was not asked for or has no ground truth.
        recall_by_cap: AR within fewer detections, under the cap, of each bin (coco); None elsewhere.
        per_class: One dict per category, sorted by id.
        bootstrap: Replicates, seed and level of the intervals.
        operating_point: `conf`, or `thresholds` by category id, and `iou`; and precision, recall, F1 and what they were
            counted from under all, head, medium and tail.
        calibration: `floor`, `bins` and `iou`; and ECE, n_det and `reliability` under all, head, medium and tail: mean
            confidence, precision and n_det of every bin of confidence that holds detections.
        errors: Why AP is lost: `shares` and `confusion`, and `lost` before the evaluation; None if not asked for.
        examples: Objects of the worst classes of the tail, confused, missed and found ones, see `worst`; None if not
            asked for.
        box_quality: Mean IoU of right detections, under all, head, medium and tail.
        matches: What everything was computed from; not in the JSON, see `save_matches`.
        iou_type: "box" or "rotated box".
        context: Where the detections come from, see `evaluate`.
        warnings: Plain sentences about what was dropped.
        official: What the protocol's own package says beside ours, see `official`.
        baseline: The paired difference to another run, see `compare`.
    """

    protocol: str
    max_det: int | None
    gt_sha256: str
    bins: dict[str, Any]
    metrics: dict[str, dict[str, Any] | None]
    areas: dict[str, Any] | None
    curves: dict[str, Any]
    recall_by_cap: dict[str, Any] | None
    per_class: list[dict[str, Any]]
    bootstrap: dict[str, Any]
    operating_point: dict[str, Any]
    calibration: dict[str, Any]
    errors: dict[str, Any] | None
    examples: list[dict[str, Any]] | None
    box_quality: dict[str, Any]
    matches: Matches
    iou_type: str = "box"
    context: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    official: dict[str, Any] | None = None
    baseline: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts, lists and numbers, schema 1; what was not computed is None."""
        numbers = ("bins", "metrics", "areas", "curves", "recall_by_cap", "bootstrap", "operating_point", "calibration")
        named = (*numbers, "errors", "examples", "box_quality", "baseline", "official", "per_class")
        return {
            "schema": SCHEMA,
            "protocol": self.protocol,
            "max_det": self.max_det,
            "cap": protocols.cap_text(self.protocol, self.max_det),
            "iou_thresholds": [round(float(t), 10) for t in self.matches.iou_thresholds],
            "task": self.context.get("task", "detect"),
            "iou_type": self.iou_type,
            **{key: self.context.get(key) for key in RUN_KEYS},
            "gt_sha256": self.gt_sha256,
            **{name: getattr(self, name) for name in named},
            "warnings": self.warnings,
        }


def evaluate(
    gt: GroundTruth | Source,
    dets: Detections | Source,
    protocol: str = "coco",
    bins: Bins | Mapping[str, Any] | None = None,
    max_det: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    context: Mapping[str, Any] | None = None,
    conf: float | np.ndarray = DEPLOYED,
    hierarchy: str | Path | None = None,
    explain: bool = True,
    examples: int = 0,
) -> Report:
    """Evaluate detections by frequency bin.

    Args:
        gt: COCO, LVIS or Open Images ground truth, as a dict, a path, or arrays.
        dets: COCO results, as a list, a path, or arrays.
        protocol: Name in `PROTOCOLS`.
        bins: Category ids under head, medium and tail, as a dict or as `Bins`, whose numbers are category ids here
            too (for YOLO data the two are the same). Categories in none of them count as unseen. None takes the
            `frequency` letters of the ground truth's categories; without those only `all` is reported.
        max_det: The cap on detections; None is the protocol's own (coco: 100 per image and class, lvis: 300 per image,
            lvis_fixed and lvis_pool: 10,000 per class, openimages: none).
        bootstrap: Replicates of the image bootstrap; 0 leaves the intervals out.
        seed: Seed of the bootstrap.
        context: What the report says about the run: task, model, weights_sha256, data, split, imgsz, conf, nms_iou,
            head_measured, versions, command, training; and train_images and train_instances, as a dict by category id
            or as one number per category, sorted by id.
        conf: Confidence of the operating point, one for all or one per category, sorted by id.
        hierarchy: Class hierarchy in Open Images' form, by which boxes and labels also count for ancestors.
        explain: Whether to say why AP is lost (`errors`), which takes longer than AP itself.
        examples: Classes of which objects are named for pictures (`examples`), the worst of the tail, at most; without
            a tail that has ground truth, the worst of all. 0 leaves the entry out.

    Returns:
        The report. A class, bin or data set without ground truth has None, never 0, and is in no mean.

    Raises:
        UsageError: The protocol, a bin's name, a context key or a number is none of the choices.
        LTError: The input is defective, see `read_ground_truth` and `read_detections`, does not suit the protocol, or
            a bin names a category that the ground truth does not list.
    """
    _check_choices(protocol, {"max_det": max_det, "bootstrap": bootstrap, "seed": seed, "examples": examples}, context)
    truth = gt if isinstance(gt, GroundTruth) else read_ground_truth(gt)
    found = dets if isinstance(dets, Detections) else read_detections(dets, truth)
    truth = expanded(truth, hierarchy)
    if np.shape(conf) not in ((), (len(truth.category_ids),)):
        raise UsageError(f"conf has {np.size(conf)} numbers for {len(truth.category_ids)} categories.")
    in_ids = find_bins(bins, truth)
    cap = protocols.cap_of(protocol, max_det)
    sets = class_sets(truth.category_ids, in_ids)
    chosen = protocols.choose(protocol, truth, found, cap)
    errors, outcomes = why(protocol, chosen, cap, sets, in_ids, conf, explain, examples > 0)
    by_size = protocols.matched(protocol, chosen, cap, areas=True)
    del chosen
    matches = next(by_size)[1]
    metrics, of_class = by_bin(matches, sets, bootstrap, seed)
    ap50 = of_class[:, METRICS.index("AP50")]
    shown = None if outcomes is None else worst(outcomes, truth, sets, ap50, examples)
    return Report(
        protocol=protocol,
        max_det=cap or None,
        gt_sha256=ground_truth_sha256(truth),
        bins=dict.fromkeys(("rule", *ALL_BINS)) if in_ids is None else {"rule": in_ids.rule, **in_ids.as_dict()},
        metrics=metrics,
        areas=by_area(by_size, sets),
        curves=curves(matches, sets),
        recall_by_cap=recall_by_cap(matches, sets),
        per_class=by_class(truth, matches, of_class, in_ids, _trained(truth, context or {})),
        bootstrap={"replicates": bootstrap, "seed": seed, "level": 0.95},
        operating_point=deployed(matches, sets, conf, bootstrap, seed),
        calibration=calibration(matches, sets),
        errors=errors,
        examples=shown,
        box_quality=_box_quality(matches, sets),
        matches=matches,
        iou_type="box" if truth.angle is None else "rotated box",
        context=dict(context or {}),
        warnings=_warnings(protocol, found, len(truth.category_ids), cap),
    )


def _check_choices(protocol: str, numbers: Mapping[str, Any], context: Mapping[str, Any] | None) -> None:
    protocols.protocol_of(protocol)
    for name, value in numbers.items():
        least = int(name == "max_det")
        if value is None and name == "max_det":
            continue
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name}={value} must be a whole number of at least {least}.")
    known = ("task", *RUN_KEYS, *COUNT_KEYS)
    for key in context or {}:
        if key not in known:
            raise UsageError(f"context has no key {key!r}; it takes: {', '.join(known)}.")


def _warnings(protocol: str, dets: Detections, num_classes: int, cap: int) -> list[str]:
    """What was dropped, and what a protocol asks for and did not get."""
    sentences = []
    if dropped := int((dets.cls < 0).sum()):
        total = len(dets.cls)
        sentences.append(
            f"{dropped} of {total} detections have a category that the ground truth does not list; dropped."
        )
    if protocol in ("lvis_fixed", "lvis_pool"):
        short = int((np.bincount(dets.cls[dets.cls >= 0], minlength=num_classes) < cap).sum())
        if short:
            sentences.append(
                f"{short} of {num_classes} classes have fewer than {cap} detections, which lowers Fixed AP."
            )
    return sentences


def _box_quality(matches: Matches, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The `box_quality` entry: how well the boxes of right detections fit, at IoU 0.5 and above."""
    right = matches.tp[:, 0] & (matches.iou > 0)
    entry: dict[str, Any] = {"iou": 0.5, **dict.fromkeys(ROWS)}
    for name, classes in sets.items():
        fit = matches.iou[right & np.isin(matches.cls, classes)]
        entry[name] = {"mean_iou": float(fit.mean()) if len(fit) else None, "n": len(fit)}
    return entry


def _trained(gt: GroundTruth, context: Mapping[str, Any]) -> dict[str, dict[int, int]]:
    """Training counts by category id; images also from the file itself."""
    given = {key: context.get(key) for key in COUNT_KEYS}
    if given["train_images"] is None:
        given["train_images"] = gt.image_counts
    return {key: _by_id(key, counts, gt) for key, counts in given.items()}


def _by_id(key: str, counts: Any, gt: GroundTruth) -> dict[int, int]:
    if counts is None or isinstance(counts, Mapping):
        return {int(c): int(n) for c, n in (counts or {}).items()}
    if len(counts) != len(gt.category_ids):
        raise UsageError(f"context {key} has {len(counts)} numbers for {len(gt.category_ids)} categories.")
    return {c: int(n) for c, n in zip(gt.category_ids.tolist(), counts, strict=True)}
