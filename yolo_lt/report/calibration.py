"""What a calibration did, as rows and terminal tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolo_lt.calibrate import CALIBRATORS, Affine
from yolo_lt.dataset.bins import BIN_NAMES, Bins
from yolo_lt.report.blocks import aligned, with_interval

JUDGES = {
    "f1": "F1 (of the best confidence for all classes, mean over classes)",
    "ap": "AP, mean over the budgets",
    "log_loss": "log loss of the confidences",
}
RATES = ("precision", "recall", "F1")


def class_rows(
    names: Sequence[str],
    bins: Bins,
    counts: np.ndarray,
    affine: Affine | None,
    thresholds: Mapping[str, np.ndarray] | None,
) -> list[dict[str, Any]]:
    """One dict per class: its bin, training images, scale and shift, and the thresholds before and after.

    Args:
        names: Class names.
        bins: Frequency bins.
        counts: Training images, shape (C,).
        affine: What was folded; None: nothing.
        thresholds: Under before and after, each (C,), or None without a holdout.
    """
    bin_of = {int(c): name for name in (*BIN_NAMES, "unseen") for c in getattr(bins, name)}
    scale = np.ones(len(names)) if affine is None else affine.scale
    shift = np.zeros(len(names)) if affine is None else affine.shift
    unknown = dict.fromkeys(("before", "after"), np.full(len(names), None))
    before, after = ((thresholds or unknown)[side].tolist() for side in ("before", "after"))
    return [
        {
            "id": c,
            "name": name,
            "bin": bin_of.get(c),
            "train_images": int(counts[c]),
            "scale": float(scale[c]),
            "shift": float(shift[c]),
            "threshold_before": before[c],
            "threshold_after": after[c],
        }
        for c, name in enumerate(names)
    ]


def calibration_text(content: dict[str, Any]) -> str:
    """The curve, the map by bin, and before and after on val with paired intervals."""
    parts = [_head(content), _map_by_bin(content["classes"])]
    if content["holdout"] and content["holdout"]["curve"]:
        parts.insert(1, _curve(content))
    if content.get("val"):
        parts.append(_on_val(content["val"]))
    return "\n\n".join(parts)


def _head(content: dict[str, Any]) -> str:
    method = CALIBRATORS[content["method"]]
    chosen = f"{method.strength}={content['strength']:g} ({content['strength_by']})"
    held = content["holdout"]
    where = f", {held['images']} held-out images" if held else ""
    did = {"calibrated": "folded into the checkpoint", "original": "the checkpoint is kept as it is"}
    return f"method={content['method']}, {chosen}{where}: {did[content['written']]}"


def _curve(content: dict[str, Any]) -> str:
    method, curve = CALIBRATORS[content["method"]], content["holdout"]["curve"]
    budgets = list(curve[0]["ap"])
    header = (method.strength, *(f"AP, {n} an image" for n in budgets), "F1", "at confidence", "log loss")
    rows = [(f"{p['strength']:g}", *p["ap"].values(), p["f1"], p["conf"], p["log_loss"]) for p in curve]
    return f"holdout, cross-validated, judged by {JUDGES[content['holdout']['judge']]}:\n{aligned(header, rows)}"


def _map_by_bin(classes: Sequence[dict[str, Any]]) -> str:
    """Medians by bin."""
    columns = ("train_images", "scale", "shift", "threshold_before", "threshold_after")
    rows = []
    for name in BIN_NAMES:
        inside = [c for c in classes if c["bin"] == name]
        if inside:
            values = [[c[k] for c in inside if c[k] is not None] for k in columns]
            rows.append((name, len(inside), *(float(np.median(v)) if v else None for v in values)))
    header = ("bin", "classes", "images", "scale", "shift", "threshold before", "after")
    return "medians over the classes of a bin; thresholds are the holdout's:\n" + aligned(header, rows)


def _on_val(val: dict[str, Any]) -> str:
    rows: list[tuple] = []
    for budget, by_bin in val["AP_change"].items():
        rows += [
            (f"AP, {budget} an image", name, *_sides(val["AP"], (budget, name, "AP")), _change(entry["AP"]))
            for name, entry in by_bin.items()
        ]
    for rate in RATES:
        rows += [
            (f"{rate} at {val['conf']:g}", name, *_sides(val["operating_point"], (name, rate)), _change(entry[rate]))
            for name, entry in val["operating_point_change"].items()
        ]
    bins = list(val["operating_point_change"])
    if val.get("with_thresholds"):
        rows += [
            ("F1 at thresholds", name, *_sides(val["with_thresholds"], (name, "F1")), _change(entry["F1"]))
            for name, entry in val["with_thresholds_change"].items()
        ]
    rows += [("calibration error", name, *_sides(val["calibration"], (name, "ECE")), "") for name in bins]
    note = (
        f"split val, {val['images']} images, protocol {val['protocol']}, 100 detections per image and class within the "
        "budget of an image"
    )
    if val["bootstrap"]:
        note += f"; 95 % intervals from {val['bootstrap']} image resamples"
    return aligned(("", "bin", "before", "after", "after - before"), rows) + "\n" + note


def _sides(sides: dict[str, Any], path: tuple) -> list[float | None]:
    found = []
    for side in ("before", "after"):
        value = sides[side]
        for key in path:
            value = value[key]
        found.append(value)
    return found


def _change(entry: list[float] | None) -> str:
    return "-" if entry is None else with_interval(entry[0], entry[1:] or None, "+")
