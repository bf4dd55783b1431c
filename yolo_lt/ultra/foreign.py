"""`yolo-lt val detections=dets.json gt=annotations.json`: what another framework found, evaluated like ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultralytics.utils import RUNS_DIR
from ultralytics.utils.files import increment_path

from yolo_lt import __version__
from yolo_lt.calibrate.thresholds import read_thresholds
from yolo_lt.errors import UsageError
from yolo_lt.evaluate import Report
from yolo_lt.evaluate.binned import bins_of_rule
from yolo_lt.evaluate.official import check_official
from yolo_lt.evaluate.operating import DEPLOYED
from yolo_lt.evaluate.read import read_detections, read_ground_truth
from yolo_lt.ultra.evaluation import evaluated

ACTING = ("max_det", "project", "name", "exist_ok", "verbose", "mode", "cfg")  # of Ultralytics' keys


def check_foreign(ours: dict[str, Any], lt: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Refuse what is missing beside a file of detections, and what cannot act on one.

    Args:
        ours: The given yolo-lt keys.
        lt: Every yolo-lt key.
        theirs: Ultralytics' keys.

    Raises:
        UsageError: No gt=, a model, or a key that would need one or YOLO labels.
    """
    if lt["gt"] == "none":
        raise UsageError("detections=... needs gt=ANNOTATIONS.json, the ground truth in COCO form")
    idle = [name for name, value in theirs.items() if name not in ACTING and value is not None]
    if idle := [*idle, *(name for name in ("federated", "allow_download") if name in ours)]:
        raise UsageError(f"{idle[0]} does not act with detections=, which are made already")
    check_official(lt["protocol"], lt["official"])


def evaluate_file(lt: dict[str, Any], theirs: dict[str, Any], command: str, detections: str | None = None) -> Report:
    """Evaluate a file of detections; nothing is written yet.

    Args:
        lt: Every yolo-lt key.
        theirs: Ultralytics' keys, checked by `check_foreign`.
        command: The command line that does this.
        detections: Instead of the key of that name.
    """
    truth = read_ground_truth(lt["gt"])
    found = read_detections(detections or lt["detections"], truth)
    conf = DEPLOYED if lt["thresholds"] == "none" else read_thresholds(lt["thresholds"], list(truth.names), DEPLOYED)
    context = {
        "task": "obb" if truth.angle is not None else "detect",
        "model": str(detections or lt["detections"]),
        "data": str(lt["gt"]),
        "versions": {"yolo_lt": __version__},
        "command": command,
    }
    return evaluated(truth, found, lt, bins_of_rule(lt["bins"], truth), theirs.get("max_det"), context, conf)


def folder_of(theirs: dict[str, Any]) -> Path:
    """Where its report goes, as Ultralytics names its folders."""
    place = Path(theirs.get("project") or RUNS_DIR / "detect") / str(theirs.get("name") or "val")
    return increment_path(place, exist_ok=bool(theirs.get("exist_ok")))
