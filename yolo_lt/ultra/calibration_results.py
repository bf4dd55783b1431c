"""What a calibration changes: thresholds from the holdout, before and after on val, and the files of the run."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from ultralytics.utils import LOGGER

from yolo_lt.calibrate import Affine
from yolo_lt.calibrate.thresholds import choose_thresholds, write_thresholds
from yolo_lt.evaluate import deployed
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.budget import budget_matches
from yolo_lt.evaluate.matching import Matches, match
from yolo_lt.evaluate.operating import DEPLOYED
from yolo_lt.evaluate.store import ground_truth_sha256, save_matches
from yolo_lt.files import csv_text, write_text
from yolo_lt.report.calibration import calibration_text, class_rows
from yolo_lt.ultra.calibration_job import Job, say
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.strength import Evidence

Sides = dict[str, np.ndarray]  # thresholds, (C,), under "before" and "after"


def show(
    job: Job,
    content: dict[str, Any],
    affine: Affine | None,
    evidence: Evidence | None,
    after: tuple[GroundTruth, Detections] | None,
    net: Any,
) -> None:
    """Complete the content and write it: calibration.json, class_calibration.csv, calibration.png, thresholds.yaml.

    Args:
        job: The call.
        content: What is known so far; `thresholds`, `classes` and `val` are added.
        affine: What was folded into the measured branch; None: nothing.
        evidence: The network as it was on the holdout, if there is one.
        after: What is found there under the map; None: as before.
        net: The written checkpoint's model, or None if it is the one that was there before.
    """
    thresholds = None if evidence is None else _thresholds(job, evidence, after)
    if thresholds is not None and job.lt["thresholds"] != "none":
        content["thresholds"] = _write_thresholds(job, thresholds["after"])
    content["classes"] = class_rows(job.names, job.bins, job.counts, affine, thresholds)
    if job.measurable and job.theirs.get("val") is not False and job.data.get("val"):
        content["val"] = _on_val(job, net, thresholds if job.lt["thresholds"] != "none" else None)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(job.folder / "calibration.json", text)
    content.update(json.loads(text))  # one form in memory and on disk: numbers become keys of text
    header = list(content["classes"][0])
    rows = [header, *([row[k] for k in header] for row in content["classes"])]
    write_text(job.folder / "class_calibration.csv", csv_text(rows))
    if content["holdout"] and content["holdout"]["curve"]:
        from yolo_lt.report.calibration_plot import calibration_plot  # matplotlib is slow to load

        calibration_plot(job.folder / "calibration.png", content)
    LOGGER.info(f"\n{calibration_text(content)}\n")
    say(f"calibration.json and what belongs to it are in {job.folder}, the checkpoint is {job.target}")


def _thresholds(job: Job, evidence: Evidence, after: tuple[GroundTruth, Detections] | None) -> Sides:
    """Chosen on the holdout, for the checkpoint as it was and as it was written."""
    sides = {"before": evidence.matches, "after": match(*after, max_det=0) if after else evidence.matches}
    rule = "f1" if job.lt["thresholds"] == "none" else job.lt["thresholds"]
    return {side: _chosen(m, rule) for side, m in sides.items()}


def _chosen(m: Matches, rule: str | float) -> np.ndarray:
    counted, boxes = ~m.ignore[:, 0], np.bincount(m.gt_class, m.gt_count, len(m.category_ids))
    return choose_thresholds(m.score[counted], m.cls[counted].astype(np.int64), m.tp[counted, 0], boxes, rule)


def _write_thresholds(job: Job, thresholds: np.ndarray) -> dict[str, Any]:
    path = write_thresholds(job.folder / "thresholds.yaml", job.names, thresholds)
    rule = job.lt["thresholds"]
    if never := [job.names[c] for c in np.flatnonzero(thresholds >= 1)]:
        more = f" and {len(never) - 10} more" if len(never) > 10 else ""
        why = "finds none of them" if rule == "f1" else f"reaches a precision of {rule:g} for none of them"
        LOGGER.warning(
            f"{PREFIX}thresholds={rule}: no threshold {why} on the holdout, so they are never shown: "
            f"{', '.join(never[:10])}{more}"
        )
    return {"rule": rule, "file": str(path)}


def _on_val(job: Job, net: Any, thresholds: Sides | None) -> dict[str, Any]:
    """Before and after on the validation split, by bin, with paired differences."""
    say("val: before and after")
    truth, found = job.detections(job.net, "val")
    before = budget_matches(truth, found)
    matches = {"before": before, "after": before if net is None else budget_matches(*job.detections(net, "val"))}
    widest = {side: of_side[max(of_side)] for side, of_side in matches.items()}
    digest = ground_truth_sha256(truth)
    for side, of_side in matches.items():
        for budget, of_one in of_side.items():
            save_matches(job.folder / "matches" / f"{side}-{budget}.npz", of_one, digest)
    conf, replicates = job.theirs.get("conf") or DEPLOYED, job.lt["bootstrap"]
    content: dict[str, Any] = {
        "protocol": "coco",
        "images": len(widest["before"].image_ids),
        "bootstrap": replicates,
        "conf": conf,
        "AP": {side: deployed.average_precision(m, job.sets) for side, m in matches.items()},
        "AP_change": deployed.change_of_ap(matches["before"], matches["after"], job.sets, replicates),
        "operating_point": {side: deployed.operating_point(m, job.sets, conf) for side, m in widest.items()},
        "operating_point_change": deployed.change_of_rates(
            widest["before"], widest["after"], job.sets, (conf, conf), replicates
        ),
        "calibration": {side: deployed.calibration_errors(m, job.sets) for side, m in widest.items()},
    }
    if thresholds is not None:
        content["with_thresholds"] = {
            side: deployed.operating_point(m, job.sets, thresholds[side]) for side, m in widest.items()
        }
        both = (thresholds["before"], thresholds["after"])
        content["with_thresholds_change"] = deployed.change_of_rates(
            widest["before"], widest["after"], job.sets, both, replicates
        )
    return content
