"""What the training of a checkpoint left beside it: AP by bin after every epoch, and what was drawn."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from yolo_lt.balance import exposure
from yolo_lt.evaluate.binned import ROWS
from yolo_lt.ultra.runfiles import find_lt

SHOWN = ("AP", "AP50")  # of the columns that a training adds to results.csv


def training_of(weights: Path) -> dict[str, Any] | None:
    """The `training` entry of a report: recipe, seed, epochs, `by_epoch` and `exposure`, each None where unknown.

    Args:
        weights: A checkpoint in the `weights` folder of its run; elsewhere nothing is known of its training.

    Returns:
        `by_epoch` has the list `epoch` and, under AP and AP50, a list by bin; `exposure` has asked tiles, tiles, boxes
        and pasted instances by bin, of all epochs. None if the run's folder is not there.
    """
    folder = weights.parent.parent
    return run_history(folder) if weights.parent.name == "weights" and folder.is_dir() else None


def run_history(folder: Path) -> dict[str, Any] | None:
    """The same of a run's folder."""
    args, rows = _yaml(folder / "args.yaml"), _rows(folder / "results.csv")
    lt = find_lt(folder / "weights" / "last.pt") or {}
    drawn = exposure.bin_totals(exposure.read(path)) if (path := folder / "exposure.csv").is_file() else []
    names = ("asked", "tiles", "boxes", "pasted")
    found = {
        "recipe": (lt.get("keys") or {}).get("recipe"),
        "seed": args.get("seed"),
        "epochs": len(rows) or None,
        "by_epoch": _by_epoch(rows),
        "exposure": {name: dict(zip(names, map(float, counts), strict=True)) for name, *counts in drawn} or None,
    }
    return found if any(value is not None for value in found.values()) else None


def _yaml(path: Path) -> dict[str, Any]:
    """A YAML of names and values; nothing where it cannot be read, as a report does not hang on it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _rows(path: Path) -> list[dict[str, str]]:
    """Whole rows of results.csv; a line that a killed process left unfinished is dropped."""
    try:
        with path.open(encoding="utf-8", newline="") as f:
            rows = [{str(k).strip(): v for k, v in row.items()} for row in csv.DictReader(f)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [row for row in rows if (row.get("epoch") or "").strip().isdigit() and None not in row.values()]


def _by_epoch(rows: Sequence[dict[str, str]]) -> dict[str, Any] | None:
    """AP and AP50 by bin; None for a training that did not evaluate by bin."""
    rows = [row for row in rows if _validated(row)]
    found: dict[str, Any] = {"epoch": [int(row["epoch"]) for row in rows]}
    for metric in SHOWN:
        columns = {name: f"lt/{metric}({name})" for name in ROWS}
        found[metric] = {name: [float(row[c]) for row in rows] for name, c in columns.items() if rows and c in rows[0]}
    return found if found[SHOWN[0]] else None


def _validated(row: dict[str, str]) -> bool:
    """Whether the epoch was validated: where val=false skips it, Ultralytics writes zeros."""
    losses = [float(value) for name, value in row.items() if name.startswith("val/")]
    return any(losses) or not losses
