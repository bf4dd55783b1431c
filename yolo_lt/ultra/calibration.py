"""`yolo-lt calibrate`: a map of the logits, chosen on the holdout, folded into a copy of the checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER

from yolo_lt.calibrate import CALIBRATORS, Affine
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.matching import match
from yolo_lt.files import copy_file
from yolo_lt.ultra import calibrated, strength
from yolo_lt.ultra.calibration_job import Job, say
from yolo_lt.ultra.calibration_results import show
from yolo_lt.ultra.head import class_branches
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.strength import Evidence, Point

Found = tuple[GroundTruth, Detections]


def run_calibration(model: Any, weights: Path, lt: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Choose, fold, write and show a calibration.

    Args:
        model: The YOLOLT.
        weights: Its checkpoint.
        lt: Every yolo-lt key.
        theirs: Ultralytics' keys.

    Returns:
        The content of calibration.json.

    Raises:
        UsageError: Keys that cannot act here, or a checkpoint that is calibrated already.
        LTError: Bad data, no holdout or too small a one, or a class without a training image.
    """
    job = Job(model, weights, lt, theirs)
    job.start()
    if job.record:
        return _undo(job)
    evidence = _look(job) if job.held and job.measurable else None
    points, chosen, how = _choose(job, evidence)
    level = strength.level_of(lt["method"], points, chosen)
    maps = {b: _make(job, b, chosen, evidence).lifted(level) for b in class_branches(job.net)}
    after = _under(job, maps[job.branch]) if points and chosen else None
    written = _write(job, maps, points, chosen, after)
    content: dict[str, Any] = {
        "schema": 1,
        "method": lt["method"],
        "strength": chosen,
        "strength_by": how,
        "level": level,
        "written": written,
        "weights": str(job.target),
        "model": str(weights),
        "model_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "data": str(job.data["yaml_file"]),
        "imgsz": job.theirs["imgsz"],
        "branch": job.branch,
        "holdout": None,
    }
    if evidence is not None:
        content["holdout"] = {"images": len(job.held), "judge": job.judge, "curve": [asdict(p) for p in points]}
    folded = written == "calibrated"
    affine, net = (maps[job.branch], load_checkpoint(job.target)[0]) if folded else (None, None)
    show(job, content, affine, evidence, after if folded else None, net)
    return content


def _undo(job: Job) -> dict[str, Any]:
    """method=none on a calibrated checkpoint: the one it was made from."""
    record: dict[str, Any] = job.record or {}
    calibrated.write_original(job.weights, job.target)
    say(f"method={record['method']} is taken back, every tensor as it was: {job.target}")
    return {
        "schema": 1,
        "method": "none",
        "written": "original",
        "weights": str(job.target),
        "undone": record["method"],
    }


def _look(job: Job) -> Evidence:
    """One pass of the network as it is over the holdout."""
    fold = strength.assign_folds(len(job.held), int(job.theirs.get("seed") or 0))
    folds = dict(zip(job.held, fold.tolist(), strict=True))
    say(f"holdout: {len(job.held)} images, the network as it is")
    validator = job.look(job.net, "holdout", folds=folds)
    files = validator.dataloader.dataset.im_files
    fold_of = dict(zip(validator.image_ids(files), (folds[name] for _, name in job.named(files)), strict=True))
    truth, found = validator.evaluation_input(job.names)
    of_image = np.array([fold_of[i] for i in truth.image_ids.tolist()])
    return strength.gather_evidence(truth, found, of_image, folds, validator.moments)


def _choose(job: Job, evidence: Evidence | None) -> tuple[list[Point], float, str]:
    """The curve, the strength and who chose it."""
    name, given = job.lt["method"], job.lt["strength"]
    method = CALIBRATORS[name]
    how = "fixed" if given == "auto" else "given"
    alone = float(method.fixed if given == "auto" else given)
    if name == "none":
        return [], alone, how
    if evidence is None:
        reason = f"task {job.task} is not evaluated in this version" if job.held else "there is no holdout"
        LOGGER.warning(
            f"{PREFIX}{reason}, so {method.strength}={alone:g} was not chosen for this network and nothing checks it; "
            "train with holdout=0.1, which sets images apart to choose on"
        )
        return [], alone, how

    def detect(maps: list[list[Affine]]) -> list[Detections]:
        say(f"holdout: {len(maps)} strengths of {name} in one pass")
        validator = job.look(job.net, "holdout", maps, evidence.folds)
        return [validator.evaluation_input(job.names, found)[1] for found in validator.mapped]

    strengths = list(method.grid) if given == "auto" else [alone]
    weights = calibrated.class_weights(job.net, job.branch)
    points = strength.search(name, strengths, job.counts, weights, evidence, detect, job.judge)
    return (points, alone, how) if given != "auto" else (points, strength.best(points).strength, "cross-validation")


def _under(job: Job, affine: Affine) -> Found:
    """What is found on the holdout under the map that is to be folded."""
    say("holdout: under the map that was chosen")
    validator = job.look(job.net, "holdout", [[affine]])
    return validator.evaluation_input(job.names, validator.mapped[0])


def _make(job: Job, branch: str, chosen: float, evidence: Evidence | None) -> Affine:
    weights = calibrated.class_weights(job.net, branch)
    return strength.make_map(job.lt["method"], chosen, job.counts, weights, evidence, None)


def _write(job: Job, maps: calibrated.Maps, points: list[Point], chosen: float, after: Found | None) -> str:
    """Write the checkpoint, calibrated or, where that is no good, as it was; which of the two."""
    name = job.lt["method"]
    if name != "none" and chosen and not _falls(job, points, chosen, after):
        calibrated.write_calibrated(job.weights, job.target, maps, {"method": name, "strength": chosen})
        return "calibrated"
    if name != "none" and not chosen:
        say(f"no strength of {name} is better on the holdout than none: the checkpoint is kept as it is")
    copy_file(job.weights, job.target)
    return "original"


def _falls(job: Job, points: list[Point], chosen: float, under: Found | None) -> bool:
    """Whether AP on the holdout falls by more than allowed; say so. What was learnt there is judged across folds."""
    if not points or under is None:
        return False
    before, after = (max(p.ap.items())[1] for s in (0, chosen) for p in points if p.strength == s)
    if not CALIBRATORS[job.lt["method"]].fitted:
        after = strength.mean_ap(match(*under))
    if before - after <= job.lt["max_drop"]:
        return False
    LOGGER.warning(
        f"{PREFIX}AP of all classes on the holdout would fall from {before:.3f} to {after:.3f}, by "
        f"more than max_drop={job.lt['max_drop']:g}: the checkpoint is kept as it is"
    )
    return True
