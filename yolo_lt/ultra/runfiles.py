"""The files that a training leaves beside Ultralytics' own, and what a later command reads from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolo_lt import __version__
from yolo_lt.balance.plan import CSV_HEADER, Plan
from yolo_lt.dataset.bins import Bins
from yolo_lt.errors import LTError
from yolo_lt.files import csv_text, write_text


def write_plan(folder: Path, plan: Plan, holdout: Sequence[str] = ()) -> None:
    """Write lt.yaml and class_stats.csv; lt.yaml outlives the stripping of checkpoints.

    Args:
        folder: The run folder.
        plan: Keys, bins and counts.
        holdout: Names of the training images that were set apart.
    """
    content = {
        "yolo_lt": __version__,
        "keys": plan.keys,
        "bins": {"rule": plan.bins.rule, **plan.bins.as_dict()},
        "num_images": plan.stats.num_images,
        "names": list(plan.stats.names),
        "image_counts": plan.stats.image_counts.tolist(),
        "instance_counts": plan.stats.instance_counts.tolist(),
        "holdout": list(holdout),
    }
    write_text(folder / "lt.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_class_stats(folder, plan)


def write_class_stats(folder: Path, plan: Plan) -> None:
    """Write class_stats.csv: one row per class under `CSV_HEADER`."""
    write_text(folder / "class_stats.csv", csv_text([CSV_HEADER, *plan.rows()]))


def lt_path(weights: Path) -> Path | None:
    """lt.yaml of the run that wrote `weights`: beside the file, or in the run folder above its `weights` folder."""
    for path in (weights.parent / "lt.yaml", weights.parent.parent / "lt.yaml"):
        if path.is_file() and (path.parent == weights.parent or weights.parent.name == "weights"):
            return path
    return None


def find_lt(weights: Path) -> dict[str, Any] | None:
    """What the lt.yaml of `weights` says, or None without one.

    Raises:
        LTError: The file is there and cannot be read.
    """
    path = lt_path(weights)
    if path is None:
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        needed = {k: content[k] for k in ("keys", "bins", "names", "image_counts", "instance_counts")}
        return {**needed, "holdout": content.get("holdout") or []}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as e:
        raise LTError(f"{path} cannot be read ({e}); give bins= or delete it") from None


def bins_of(lt: dict[str, Any]) -> Bins:
    """The bins that lt.yaml recorded."""
    return Bins.from_dict(lt["bins"], str(lt["bins"].get("rule", "lt.yaml")))


def counts_of(lt: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Training images and instances per class that lt.yaml recorded, each (C,), int64."""
    return np.asarray(lt["image_counts"], np.int64), np.asarray(lt["instance_counts"], np.int64)
