"""Finished validations, from the files that they left: which of two is better, by bin, with the interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yolo_lt.dataset.bins import Bins
from yolo_lt.errors import LTError
from yolo_lt.evaluate.binned import ROWS, Sets, class_sets
from yolo_lt.evaluate.compare import paired_difference, verdict
from yolo_lt.evaluate.matching import Matches
from yolo_lt.evaluate.metrics import METRICS
from yolo_lt.evaluate.store import load_matches

MATCHES, REPORT = "matches.npz", "report.json"
NEEDED = (  # of a report, for a comparison and its page
    *("protocol", "cap", "iou_thresholds", "bins", "metrics", "per_class", "operating_point", "calibration", "errors"),
    *("areas", "box_quality", "bootstrap", "official", "baseline", "warnings", "versions"),
)


class Run(NamedTuple):
    """A validation: its name, matches, and report (schema 1)."""

    name: str
    matches: Matches
    gt_sha256: str
    report: dict[str, Any]


def read_run(folder: str | Path) -> Run:
    """Read what `yolo-lt val` wrote into a folder.

    Raises:
        LTError: A file is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LTError(f"{folder}: no such folder; give the folder of a `yolo-lt val`, in which {MATCHES} is.")
    matches, digest = load_matches(folder / MATCHES)
    path = folder / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in NEEDED if key not in report] or ["rule"] * ("rule" not in report["bins"])
        if missing:
            raise KeyError(missing[0])
    except FileNotFoundError:
        raise LTError(f"{path}: no such file; run `yolo-lt val` again.") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise LTError(f"{path} cannot be read as a report ({e}); run `yolo-lt val` again.") from None
    return Run(str(folder), matches, digest, report)


def compare_runs(ours: Sequence[Run], baseline: Sequence[Run], replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Two ways of training, each validated once per seed, against each other.

    Args:
        ours: One run per seed.
        baseline: The same for the baseline, in the same order of seeds.
        replicates: Of the images, and of pairs if there are several.
        seed: Of the bootstrap.

    Returns:
        runs, baseline: folders; protocol; bins (rule); and under `difference` ours - baseline by bin: AP, AP50, AP75
        and AR, each as [value, low, high] (95 %; without replicates [value]), and `is`: better, worse or no difference
        shown, by metric.

    Raises:
        LTError: The runs are of different ground truth, protocols, caps or bins, or not equally many.
    """
    first = ours[0]
    for run in (*ours, *baseline):
        _check_pair(first, run)
        if _bins(run) != _bins(first):
            raise LTError(f"{first.name} and {run.name} differ in bins and cannot be paired; give both the same bins=.")
    pair = [[r.matches for r in side] for side in (ours, baseline)]
    return {
        "runs": [r.name for r in ours],
        "baseline": [r.name for r in baseline],
        "protocol": first.report["protocol"],
        "cap": first.report.get("cap"),
        "bins": first.report["bins"]["rule"],
        "bootstrap": {"replicates": replicates, "seed": seed, "level": 0.95},
        "difference": difference(pair[0], pair[1], _sets(first), replicates, seed),
    }


def against(ours: Run, baseline: Run, replicates: int, seed: int = 0) -> dict[str, Any]:
    """The `baseline` entry of a report: ours - baseline by the bins of ours.

    Raises:
        LTError: The two are of different ground truth, protocols or caps.
    """
    _check_pair(ours, baseline)
    found = difference([ours.matches], [baseline.matches], _sets(ours), replicates, seed)
    said = {key: baseline.report.get(key) for key in ("model", "weights_sha256")}
    return {"name": baseline.name, **said, "replicates": replicates, "seed": seed, "difference": found}


def _bins(run: Run) -> dict[str, Any]:
    return {k: v for k, v in run.report["bins"].items() if k != "rule"}


def _sets(run: Run) -> dict[str, np.ndarray]:
    rule = run.report["bins"]["rule"]
    return class_sets(run.matches.category_ids, None if rule is None else Bins.from_dict(run.report["bins"], rule))


def difference(
    ours: Sequence[Matches], baseline: Sequence[Matches], sets: Sets, replicates: int, seed: int
) -> dict[str, Any]:
    """The paired difference by bin, as `compare_runs` returns it."""
    values, bounds = paired_difference(ours, baseline, list(sets.values()), max(replicates, 1), seed)
    entries: dict[str, Any] = dict.fromkeys(ROWS)
    for i, name in enumerate(sets):
        whole = {m: [float(values[i, j]), *bounds[:, i, j].tolist()] for j, m in enumerate(METRICS)}
        rows = {m: None if np.isnan(row[0]) else row[: 3 if replicates else 1] for m, row in whole.items()}
        said = {m: verdict(*row[1:]) if row and replicates else None for m, row in rows.items()}
        entries[name] = {**rows, "is": said}
    return entries


def _check_pair(a: Run, b: Run) -> None:
    """Refuse runs that do not measure the same thing."""
    differing = {
        "ground truth": (a.gt_sha256, b.gt_sha256),
        "protocol": (a.matches.protocol, b.matches.protocol),
        "max_det": (a.matches.max_det, b.matches.max_det),
    }
    for what, (one, other) in differing.items():
        if one != other:
            shown = "" if what == "ground truth" else f" ({one} and {other})"
            raise LTError(
                f"{a.name} and {b.name} differ in {what}{shown}, so they cannot be paired; validate them alike."
            )
