"""What an exported file tells about the classes, beside Ultralytics' own metadata; every value is text (JSON)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from yolo_lt import __version__
from yolo_lt.calibrate.thresholds import read_thresholds
from yolo_lt.errors import LTError
from yolo_lt.ultra.evaluation import find_bins
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.runfiles import bins_of, counts_of, find_lt


def class_facts(weights: Path, names: list[str], data: dict[str, Any] | None, task: str) -> dict[str, str]:
    """Bins and training counts: lt.yaml beside the weights, else the train labels of `data=`, else left out.

    Args:
        weights: The checkpoint.
        names: Its class names in the order of their ids.
        data: Parsed data YAML, if `data=` was given.
        task: Ultralytics' task.

    Returns:
        lt_version; lt_bins: {rule, head, medium, tail, unseen: class ids}; lt_image_counts and lt_instance_counts: one
        number per class id.

    Raises:
        LTError: `data=` has another number of classes than the checkpoint, or no usable labels.
    """
    lt = find_lt(weights)
    if data and len(data["names"]) != len(names):
        raise LTError(f"{weights} has {len(names)} classes and {data['yaml_file']} has {len(data['names'])}")
    if lt and lt["names"] == names:
        bins, counts = bins_of(lt), counts_of(lt)
    elif data:
        bins, counts = find_bins(weights, data, None, task)
    else:
        LOGGER.warning(
            f"{PREFIX}no bins and class counts in the file: there is no lt.yaml of these classes beside {weights}; "
            "data=... would count the training labels"
        )
        return {"lt_version": __version__}
    return {
        "lt_version": __version__,
        "lt_bins": json.dumps({"rule": bins.rule, **bins.as_dict()}),
        "lt_image_counts": json.dumps(counts[0].tolist()),
        "lt_instance_counts": json.dumps(counts[1].tolist()),
    }


def calibration_facts(record: dict[str, Any] | None) -> dict[str, str]:
    """lt_calibration: method and strength of what is folded into the checkpoint; nothing if nothing is."""
    return {"lt_calibration": json.dumps({k: record[k] for k in ("method", "strength")})} if record else {}


def threshold_facts(path: str | float, names: list[str], conf: float) -> dict[str, str]:
    """lt_thresholds: one confidence per class id, `conf` for a class that the file leaves out; nothing without a file.

    Raises:
        LTError: See `read_thresholds`.
    """
    if path == "none":
        return {}
    return {"lt_thresholds": json.dumps(read_thresholds(path, names, conf).tolist())}
