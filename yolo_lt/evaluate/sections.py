"""The entries of a report, each from matches: plain dicts and numbers, None where there is no ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from yolo_lt.dataset.bins import Bins
from yolo_lt.evaluate.arrays import GroundTruth, run_ranks, run_starts, stable_argsort
from yolo_lt.evaluate.binned import ROWS, Sets
from yolo_lt.evaluate.bootstrap import bootstrap_intervals
from yolo_lt.evaluate.confusion import answers, confusion
from yolo_lt.evaluate.deployed import operating_point, rates_intervals, reliabilities
from yolo_lt.evaluate.errors import error_shares
from yolo_lt.evaluate.examples import Outcomes, outcomes
from yolo_lt.evaluate.matching import Matches
from yolo_lt.evaluate.metrics import METRICS, class_metrics, named, set_means
from yolo_lt.evaluate.operating import ECE_BINS, ECE_FLOOR
from yolo_lt.evaluate.pool import scored
from yolo_lt.evaluate.protocols import Chosen

FEW = (1, 10)  # the lower caps of COCO's recall
Entry = dict[str, dict[str, Any] | None]


def by_bin(matches: Matches, sets: Sets, replicates: int, seed: int) -> tuple[Entry, np.ndarray]:
    """The `metrics` entry, and AP, AP50, AP75 and AR of every class, shape (C, 4)."""
    of_class = class_metrics(matches)
    averaged, members = scored(matches, list(sets.values()))
    means = set_means(of_class if averaged is matches else class_metrics(averaged), members)
    bounds = None
    if replicates and len(matches.image_ids):
        bounds = bootstrap_intervals(averaged, members, replicates, seed).transpose(1, 2, 0)
    counts, entries = gt_per_class(matches), _rows()
    for i, (name, classes) in enumerate(sets.items()):
        interval = None if bounds is None else named(METRICS, bounds[i])
        entries[name] = {**named(METRICS, means[i]), **_sizes(counts[classes]), "ci95": interval}
    return entries, of_class


def by_area(areas: Iterable[tuple[str, Matches]], sets: Sets) -> dict[str, Entry] | None:
    """The `areas` entry: AP and AR of small, medium and large boxes by bin."""
    found = {}
    for area, matches in areas:
        means = set_means(class_metrics(matches), list(sets.values()))
        counts, found[area] = gt_per_class(matches), _rows()
        for row, (name, classes) in zip(means, sets.items(), strict=True):
            values = named(METRICS, row)
            found[area][name] = {"AP": values["AP"], "AR": values["AR"], **_sizes(counts[classes])}
    return found or None


def recall_by_cap(matches: Matches, sets: Sets) -> dict[str, dict[str, float | None]] | None:
    """The `recall_by_cap` entry: AR within the best 1 and 10 detections of an image and class, as COCO reports it.

    The greedy rule meets the best detections first, so what they match does not depend on those after them.
    """
    if matches.protocol != "coco":
        return None
    order = stable_argsort(matches.image, len(matches.image_ids))
    rank = np.empty(len(order), np.int64)
    rank[order] = run_ranks(run_starts(matches.image[order], matches.cls[order]), len(order))
    found = {}
    for cap in FEW:
        means = set_means(_recall(matches, matches.tp & (rank < cap)[:, None]), list(sets.values()))
        found[str(cap)] = {name: None if np.isnan(v) else float(v) for name, v in zip(sets, means[:, 0], strict=True)}
    return found


def _recall(matches: Matches, tp: np.ndarray) -> np.ndarray:
    """Mean recall over the thresholds of every class, shape (C, 1), NaN without ground truth."""
    counts = gt_per_class(matches)
    hits = np.bincount(matches.cls, tp.sum(axis=1), len(counts)) / tp.shape[1]
    return np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)[:, None]


def deployed(matches: Matches, sets: Sets, conf: float | np.ndarray, replicates: int, seed: int) -> dict[str, Any]:
    """The `operating_point` entry."""
    at: dict[str, Any] = {"conf": conf, "thresholds": None, "iou": 0.5}
    if np.ndim(conf):
        by_id = dict(zip(map(str, matches.category_ids.tolist()), np.asarray(conf).tolist(), strict=True))
        at |= {"conf": None, "thresholds": by_id}
    found = operating_point(matches, sets, conf)
    intervals = rates_intervals(matches, sets, conf, replicates, seed)
    return {**at, **_rows(), **{name: {**found[name], "ci95": intervals[name]} for name in sets}}


def calibration(matches: Matches, sets: Sets) -> dict[str, Any]:
    """The `calibration` entry."""
    return {"floor": ECE_FLOOR, "bins": ECE_BINS, "iou": 0.5, **_rows(), **reliabilities(matches, sets)}


def why(
    protocol: str,
    chosen: Chosen,
    cap: int,
    sets: Sets,
    bins: Bins | None,
    conf: float | np.ndarray,
    explain: bool = True,
    examples: bool = False,
) -> tuple[dict[str, Any] | None, Outcomes | None]:
    """The `errors` entry, and what became of every object, for examples; None for what is not asked for.

    The entry is TIDE's shares, and what objects are taken for; `lost` is for who runs the network.
    """
    if not (explain or examples):
        return None, None
    gt, dets, _ = chosen
    shares = _shares(protocol, chosen, cap, sets) if explain else None  # first, so that one scene is kept at a time
    answered = answers(gt, dets, conf)
    table = outcomes(gt, dets, answered) if examples else None
    if not explain:
        return None, table
    index = {"all": sets["all"]} if bins is None else {
        name: np.searchsorted(gt.category_ids, ids) for name, ids in bins.as_dict().items()
    }  # fmt: skip
    return {"shares": shares, "confusion": confusion(gt, dets, index, conf, answered), "lost": None}, table


def _shares(protocol: str, chosen: Chosen, cap: int, sets: Sets) -> dict[str, Any] | None:
    """The `shares` of the `errors` entry."""
    if protocol == "openimages":
        return None  # its groups are right once, which is no rule of TIDE's
    gt, dets, _ = chosen
    return {**_rows(), **error_shares(gt, dets, sets, cap if protocol == "coco" else 0)}


def by_class(
    gt: GroundTruth, matches: Matches, values: np.ndarray, bins: Bins | None, trained: Mapping[str, Mapping[int, int]]
) -> list[dict[str, Any]]:
    """The `per_class` entry, one dict per category."""
    bin_of = {} if bins is None else {c: name for name, ids in bins.as_dict().items() for c in ids}
    counts, entries = gt_per_class(matches), []
    for i, c in enumerate(gt.category_ids.tolist()):
        entry = {"id": c, "name": gt.names[i], "bin": bin_of.get(c)}
        entry |= {key: by_id.get(c) for key, by_id in trained.items()}
        ap = named(METRICS, values[i])
        entries.append({**entry, "n_gt": int(counts[i]), **{key: ap[key] for key in ("AP", "AP50", "AP75")}})
    return entries


def gt_per_class(matches: Matches) -> np.ndarray:
    """Ground-truth boxes that count, per class, shape (C,), int64."""
    size = len(matches.category_ids)
    return np.bincount(matches.gt_class, weights=matches.gt_count, minlength=size).astype(np.int64)


def _rows() -> dict[str, Any]:
    return dict.fromkeys(ROWS)


def _sizes(counts: np.ndarray) -> dict[str, int]:
    return {"n_classes": len(counts), "n_evaluated": int((counts > 0).sum()), "n_gt": int(counts.sum())}
