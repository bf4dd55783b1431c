"""From ground truth and detections to a report: AP by frequency bin, with intervals, and its whole context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yolo_lt.dataset.bins import BIN_NAMES, LETTERS, Bins
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate.bootstrap import bootstrap_intervals
from yolo_lt.evaluate.coco import PROTOCOLS
from yolo_lt.evaluate.deployed import calibration_errors, operating_point
from yolo_lt.evaluate.matching import Detections, GroundTruth, Matches
from yolo_lt.evaluate.metrics import METRICS, class_metrics, set_means
from yolo_lt.evaluate.operating import DEPLOYED, ECE_BINS, ECE_FLOOR
from yolo_lt.evaluate.read import Source, read_detections, read_ground_truth
from yolo_lt.evaluate.store import ground_truth_sha256, load_matches, save_matches

__all__ = ["Report", "evaluate", "load_matches", "save_matches"]

SCHEMA = 1
RUN_KEYS = ("model", "weights_sha256", "data", "split", "imgsz", "conf", "nms_iou", "head_measured", "versions")
COUNT_KEYS = ("train_images", "train_instances")
LATER_KEYS = ("errors", "box_quality", "baseline")
ALL_BINS = (*BIN_NAMES, "unseen")


@dataclass(frozen=True)
class Report:
    """An evaluation with everything that is needed to read its numbers.

    Attributes:
        protocol: Name in `PROTOCOLS`.
        max_det: The protocol's cap, or None without one.
        gt_sha256: Digest of the ground truth, see `ground_truth_sha256`.
        bins: Rule, and category ids under head, medium, tail and unseen; None values without bins.
        metrics: Under all, head, medium and tail: AP, AP50, AP75, AR, n_classes, n_evaluated, n_gt and ci95; None for
            a bin that was not asked for. `all` is every category, unseen ones included.
        per_class: One dict per category, sorted by id.
        bootstrap: Replicates, seed and level of the intervals.
        operating_point: `conf`, or `thresholds` by category id, and `iou`; and precision, recall, F1 and what they were
            counted from under all, head, medium and tail.
        calibration: `floor`, `bins` and `iou`; and ECE and n_det under all, head, medium and tail.
        matches: What everything was computed from; not in the JSON, see `save_matches`.
        context: Where the detections come from, see `evaluate`.
        warnings: Plain sentences about what was dropped.
    """

    protocol: str
    max_det: int | None
    gt_sha256: str
    bins: dict[str, Any]
    metrics: dict[str, dict[str, Any] | None]
    per_class: list[dict[str, Any]]
    bootstrap: dict[str, Any]
    operating_point: dict[str, Any]
    calibration: dict[str, Any]
    matches: Matches
    context: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts, lists and numbers, schema 1; what this version does not compute is None."""
        run = {key: self.context.get(key) for key in RUN_KEYS}
        return {
            "schema": SCHEMA,
            "protocol": self.protocol,
            "max_det": self.max_det,
            "iou_thresholds": [round(float(t), 10) for t in self.matches.iou_thresholds],
            "task": self.context.get("task", "detect"),
            "iou_type": "box",
            **run,
            "gt_sha256": self.gt_sha256,
            "bins": self.bins,
            "metrics": self.metrics,
            "bootstrap": self.bootstrap,
            "operating_point": self.operating_point,
            "calibration": self.calibration,
            **dict.fromkeys(LATER_KEYS),
            "per_class": self.per_class,
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
) -> Report:
    """Evaluate detections by frequency bin.

    Args:
        gt: COCO or LVIS ground truth, as a dict, a path, or arrays.
        dets: COCO results, as a list, a path, or arrays.
        protocol: Name in `PROTOCOLS`.
        bins: Category ids under head, medium and tail, as a dict or as `Bins`, whose numbers are category ids here
            too (for YOLO data the two are the same). Categories in none of them count as unseen. None takes the
            `frequency` letters of the ground truth's categories; without those only `all` is reported.
        max_det: Detections kept per image and class; None is the protocol's own (coco: 100).
        bootstrap: Replicates of the image bootstrap; 0 leaves the intervals out.
        seed: Seed of the bootstrap.
        context: What the report says about the run: task, model, weights_sha256, data, split, imgsz, conf, nms_iou,
            head_measured, versions; and train_images and train_instances, as a dict by category id or as one number
            per category, sorted by id.
        conf: Confidence of the operating point, one for all or one per category, sorted by id.

    Returns:
        The report. A class, bin or data set without ground truth has None, never 0, and is in no mean.

    Raises:
        UsageError: The protocol, a bin's name, a context key or a number is none of the choices.
        LTError: The input is defective, see `read_ground_truth` and `read_detections`, or a bin names a category
            that the ground truth does not list.
    """
    _check_choices(protocol, max_det, bootstrap, seed, context or {})
    truth = gt if isinstance(gt, GroundTruth) else read_ground_truth(gt)
    found = dets if isinstance(dets, Detections) else read_detections(dets, truth)
    if np.shape(conf) not in ((), (len(truth.category_ids),)):
        raise UsageError(f"conf has {np.size(conf)} numbers for {len(truth.category_ids)} categories.")
    in_ids = _find_bins(bins, truth)
    cap = PROTOCOLS[protocol].max_det if max_det is None else max_det
    matches = PROTOCOLS[protocol].match(truth, found, cap)
    values, counts = class_metrics(matches), _gt_per_class(matches)
    return Report(
        protocol=protocol,
        max_det=cap or None,
        gt_sha256=ground_truth_sha256(truth),
        bins=dict.fromkeys(("rule", *ALL_BINS)) if in_ids is None else {"rule": in_ids.rule, **in_ids.as_dict()},
        metrics=_bin_metrics(matches, values, counts, in_ids, bootstrap, seed),
        per_class=_per_class(truth, values, counts, in_ids, context or {}),
        bootstrap={"replicates": bootstrap, "seed": seed, "level": 0.95},
        operating_point=_operating_point(matches, in_ids, conf),
        calibration=_calibration(matches, in_ids),
        matches=matches,
        context=dict(context or {}),
        warnings=_warnings(found),
    )


def _check_choices(protocol: str, max_det: int | None, bootstrap: int, seed: int, context: Mapping[str, Any]) -> None:
    if protocol not in PROTOCOLS:
        raise UsageError(f"protocol={protocol} is unknown; choose one of: {', '.join(PROTOCOLS)}.")
    for name, value, least in (("max_det", max_det, 1), ("bootstrap", bootstrap, 0), ("seed", seed, 0)):
        if value is None and name == "max_det":
            continue
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name}={value} must be a whole number of at least {least}.")
    known = ("task", *RUN_KEYS, *COUNT_KEYS)
    for key in context:
        if key not in known:
            raise UsageError(f"context has no key {key!r}; it takes: {', '.join(known)}.")


def _warnings(dets: Detections) -> list[str]:
    dropped = int((dets.cls < 0).sum())
    if not dropped:
        return []
    total = len(dets.cls)
    return [f"{dropped} of {total} detections have a category that the ground truth does not list; dropped."]


def _find_bins(bins: Bins | Mapping[str, Any] | None, gt: GroundTruth) -> Bins | None:
    """Bins in category ids; every category of the ground truth is in exactly one of the four lists."""
    if bins is None and gt.frequency is None:
        return None
    if bins is None:
        letters = np.array(gt.frequency, dtype=str)
        given: dict = {name: gt.category_ids[letters == letter] for letter, name in LETTERS.items()}
        rule = "the data set's frequency field"
    else:
        given, rule = _given_bins(bins)
    ids = {name: _ids_of_bin(name, given.get(name), gt) for name in BIN_NAMES}
    listed = [c for name in BIN_NAMES for c in ids[name]]
    if len(set(listed)) < len(listed):
        twice = next(c for c in listed if listed.count(c) > 1)
        raise LTError(f"bins: category {twice} is listed more than once; a category belongs to one bin.")
    return Bins.from_dict({**ids, "unseen": sorted(set(gt.category_ids.tolist()) - set(listed))}, rule)


def _given_bins(bins: Bins | Mapping[str, Any]) -> tuple[dict, str]:
    """Lists by name, and the rule in words."""
    if isinstance(bins, Bins):
        return bins.as_dict(), bins.rule
    wrong = set(bins) - {*ALL_BINS, "rule"} if isinstance(bins, Mapping) else {type(bins).__name__}
    if wrong:
        raise UsageError(f"bins: {sorted(map(str, wrong))[0]!r} is no bin; give ids under {', '.join(BIN_NAMES)}.")
    return dict(bins), str(bins.get("rule") or "given")


def _ids_of_bin(name: str, ids: Any, gt: GroundTruth) -> list[int]:
    ids = [] if ids is None else list(ids)
    known = set(gt.category_ids.tolist())
    for c in ids:
        if not isinstance(c, (int, np.integer)) or int(c) not in known:
            raise LTError(f"bins: {c!r} under '{name}' is no category id of the ground truth.")
    return [int(c) for c in ids]


def _gt_per_class(matches: Matches) -> np.ndarray:
    """Ground-truth boxes that count, per class, shape (C,), int64."""
    size = len(matches.category_ids)
    return np.bincount(matches.gt_class, weights=matches.gt_count, minlength=size).astype(np.int64)


def _bin_metrics(
    matches: Matches, values: np.ndarray, counts: np.ndarray, bins: Bins | None, replicates: int, seed: int
) -> dict[str, dict[str, Any] | None]:
    """The `metrics` entry: all, head, medium, tail."""
    sets = _sets(matches, bins)
    members = list(sets.values())
    means = set_means(values, members)
    bounds = None
    if replicates and len(matches.image_ids):
        bounds = bootstrap_intervals(matches, members, replicates, seed).transpose(1, 2, 0)
    entries: dict[str, dict[str, Any] | None] = dict.fromkeys(("all", *BIN_NAMES))
    for i, (name, classes) in enumerate(sets.items()):
        interval = None if bounds is None else _named(bounds[i])
        entries[name] = {**_named(means[i]), **_sizes(counts[classes]), "ci95": interval}
    return entries


def _sets(matches: Matches, bins: Bins | None) -> dict[str, np.ndarray]:
    """Class indices of all, and of the bins if there are some."""
    sets = {"all": np.arange(len(matches.category_ids))}
    if bins is None:
        return sets
    return sets | {name: np.searchsorted(matches.category_ids, getattr(bins, name)) for name in BIN_NAMES}


def _operating_point(matches: Matches, bins: Bins | None, conf: float | np.ndarray) -> dict[str, Any]:
    """The `operating_point` entry."""
    at: dict[str, Any] = {"conf": conf, "thresholds": None, "iou": 0.5}
    if np.ndim(conf):
        by_class = dict(zip(map(str, matches.category_ids.tolist()), np.asarray(conf).tolist(), strict=True))
        at |= {"conf": None, "thresholds": by_class}
    found = operating_point(matches, _sets(matches, bins), conf)
    return {**at, **dict.fromkeys(("all", *BIN_NAMES)), **found}


def _calibration(matches: Matches, bins: Bins | None) -> dict[str, Any]:
    """The `calibration` entry."""
    found = calibration_errors(matches, _sets(matches, bins))
    return {"floor": ECE_FLOOR, "bins": ECE_BINS, "iou": 0.5, **dict.fromkeys(("all", *BIN_NAMES)), **found}


def _sizes(counts: np.ndarray) -> dict[str, int]:
    return {"n_classes": len(counts), "n_evaluated": int((counts > 0).sum()), "n_gt": int(counts.sum())}


def _named(values: np.ndarray) -> dict[str, Any]:
    """Metric names to numbers, or to pairs of numbers; None for NaN."""
    return {name: None if np.isnan(v).any() else v.tolist() for name, v in zip(METRICS, values, strict=True)}


def _per_class(
    gt: GroundTruth, values: np.ndarray, counts: np.ndarray, bins: Bins | None, context: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The `per_class` entry, one dict per category."""
    bin_of = {} if bins is None else {c: name for name, ids in bins.as_dict().items() for c in ids}
    trained = {key: _by_id(key, context.get(key), gt) for key in COUNT_KEYS}
    entries = []
    for i, c in enumerate(gt.category_ids.tolist()):
        entry = {"id": c, "name": gt.names[i], "bin": bin_of.get(c)}
        entry |= {key: trained[key].get(c) for key in COUNT_KEYS}
        ap = _named(values[i])
        entries.append({**entry, "n_gt": int(counts[i]), **{key: ap[key] for key in ("AP", "AP50", "AP75")}})
    return entries


def _by_id(key: str, counts: Any, gt: GroundTruth) -> dict[int, int]:
    """Training counts by category id."""
    if counts is None or isinstance(counts, Mapping):
        return {int(c): int(n) for c, n in (counts or {}).items()}
    if len(counts) != len(gt.category_ids):
        raise UsageError(f"context {key} has {len(counts)} numbers for {len(gt.category_ids)} categories.")
    return {c: int(n) for c, n in zip(gt.category_ids.tolist(), counts, strict=True)}
