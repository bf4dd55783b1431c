"""Calibrate one training by every method, over several seeds, and print what changes on val, by bin.

    python scripts/compare_calibration.py data=DATA.yaml model=WEIGHTS.pt seeds=0,1,2 out=runs/calibration \
        methods=norcal,logit_adjustment,logn,tau_norm,lws,temperature imgsz=160 epochs=30 ...

A method may carry keys of its own: norcal+strength=0.6. Every other key goes to `yolo-lt train recipe=baseline
holdout=0.2`. Finished trainings and calibrations are kept, and unfinished trainings resumed. A calibration is folded
here even where AP falls on the holdout (max_drop=1), so that it can be seen what it does; the last column says for how
many seeds the default would have kept the checkpoint as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from compare_recipes import run

from yolo_lt import api, cli
from yolo_lt.evaluate import Matches, load_matches
from yolo_lt.evaluate.bootstrap import image_weights
from yolo_lt.evaluate.budget import BUDGETS
from yolo_lt.evaluate.compare import paired_difference, seeds_interval
from yolo_lt.evaluate.operating import DEPLOYED, rates, shown_per_image
from yolo_lt.report.blocks import with_interval
from yolo_lt.ultra.runfiles import bins_of, find_lt

METHODS = "norcal,logit_adjustment,logn,tau_norm,lws,temperature"
RATES = ("precision", "recall", "F1")
SIDES = ("before", "after")
DROP = 0.002


def main() -> None:
    keys = cli.parse(sys.argv[1:])
    out = Path(keys.pop("out", "runs/calibration")).resolve()
    replicates = int(keys.pop("replicates", 1000))
    shown_bins = str(keys.pop("bins", "all,head,medium,tail")).split(",")
    methods = str(keys.pop("methods", METHODS)).split(",")
    seeds = keys.pop("seeds", (0, 1, 2))
    seeds = list(seeds) if isinstance(seeds, (tuple, list)) else [seeds]
    found: dict[str, list[tuple[dict, dict]]] = {}
    for seed in seeds:
        run(out, "baseline", seed, {"holdout": 0.2, **keys})
        weights = out / f"baseline-s{seed}" / "weights" / "last.pt"
        for method in methods:
            found.setdefault(method, []).append(calibrate(out, weights, method, seed, keys))
    bins = bins_of(find_lt(weights))
    sets = dict(zip(("all", "head", "medium", "tail"), bins.class_sets(len(find_lt(weights)["names"])), strict=True))
    print(f"\n{len(seeds)} seeds, {keys.get('epochs')} epochs, holdout 0.2, last.pt, split val, protocol coco")
    print(f"(100 detections per image and class), 95 % intervals from {replicates} resamples of images and seeds")
    print("(strengths and kept per seed: where the default would have left the checkpoint as it is)")
    print_table(found, {name: sets[name] for name in shown_bins}, replicates)


def calibrate(out: Path, weights: Path, method: str, seed: int, keys: dict[str, Any]) -> tuple[dict, dict]:
    """The content of calibration.json, and the matches on val by side and budget."""
    folder = out / f"{method}-s{seed}"
    if not (folder / "calibration.json").exists():
        shared = {k: keys[k] for k in ("data", "imgsz", "device") if k in keys}
        base, *given = method.split("+")
        own = {"method": base, "thresholds": "f1", "max_drop": 1.0, "bootstrap": 0, **cli.parse(given)}
        api.calibrate(model=str(weights), **shared, **own, project=str(out), name=folder.name, exist_ok=True)
    content = json.loads((folder / "calibration.json").read_text())
    pairs = [(s, n, folder / "matches" / f"{s}-{n}.npz") for s in SIDES for n in BUDGETS]
    return content, {(s, n): load_matches(path)[0] for s, n, path in pairs}


def print_table(found: dict[str, list[tuple[dict, dict]]], sets: dict[str, np.ndarray], replicates: int) -> None:
    """Before: the values; then per method and set of classes the change, at the strengths that were chosen."""
    head = [f"AP, {n} an image" for n in BUDGETS] + [f"{r} at {DEPLOYED}" for r in RATES]
    print(f"\n| method | strengths | bin | {' | '.join(head)} | F1 at thresholds | calibration error | kept |")
    print("|---" * (len(head) + 6) + "|")
    before = next(iter(found.values()))
    for name, ids in sets.items():
        ap = [mean(c["val"]["AP"]["before"][str(n)][name]["AP"] for c, _ in before) for n in BUDGETS]
        points = np.mean([point(m["before", 300], ids)[:, 0] for _, m in before], 0)
        cells = " | ".join(shown(v) for v in (*ap, *points))
        print(f"| none | | {name} | {cells} | {at_the_end(before, 'before', name)} | |")
    for method, runs in found.items():
        strengths = ", ".join(f"{c['strength']:g}" for c, _ in runs)
        kept = sum(not c["strength"] or falls(c) for c, _ in runs)
        changes = changes_of_ap(runs, sets, replicates)
        for i, (name, ids) in enumerate(sets.items()):
            cells = [with_interval(d[i, 0], (lo[i, 0], hi[i, 0]), "+") for d, (lo, hi) in changes]
            cells += ["-" if np.isnan(v) else with_interval(v, bounds, "+") for v, bounds in changes_of(runs, ids)]
            end = at_the_end(runs, "after", name)
            print(f"| {method} | {strengths} | {name} | {' | '.join(cells)} | {end} | {kept} of {len(runs)} |")


def changes_of_ap(runs: list[tuple[dict, dict]], sets: dict[str, np.ndarray], replicates: int) -> list[tuple]:
    """Mean change of AP, AP50, AP75 and AR under every budget, with the interval over images and seeds."""
    members = list(sets.values())
    sides = [[[m[side, n] for _, m in runs] for side in ("after", "before")] for n in BUDGETS]
    return [paired_difference(after, before, members, replicates) for after, before in sides]


def at_the_end(runs: list[tuple[dict, dict]], side: str, name: str) -> str:
    """F1 at the thresholds of each class, and the calibration error, means over seeds."""
    f1 = mean(c["val"]["with_thresholds"][side][name]["F1"] for c, _ in runs)
    error = mean(c["val"]["calibration"][side][name]["ECE"] for c, _ in runs)
    return f"{shown(f1)} | {shown(error)}"


def mean(values: Iterable[float | None]) -> float:
    """Of those that are there."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else float("nan")


def shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def falls(content: dict) -> bool:
    """Whether the default max_drop would have kept the checkpoint."""
    curve = {p["strength"]: p["ap"][str(max(BUDGETS))] for p in content["holdout"]["curve"]}
    return curve[0] - curve[content["strength"]] > DROP


def changes_of(runs: list[tuple[dict, dict]], ids: np.ndarray) -> list[tuple[float, tuple[float, float]]]:
    """Mean change of precision, recall and F1, with the interval over images and seeds."""
    change = np.stack([point(m["after", 300], ids) - point(m["before", 300], ids) for _, m in runs])
    low, high = seeds_interval(change[:, :, 1:].transpose(0, 2, 1))
    return [(change[:, i, 0].mean(), (low[i], high[i])) for i in range(len(RATES))]


def point(matches: Matches, ids: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 for the images as they are, and for 1000 resamples, (3, 1001)."""
    size = len(matches.image_ids)
    weights = np.array([np.ones(size), *image_weights(size, 1000, 0)])
    return rates(shown_per_image(matches, ids, DEPLOYED) @ weights.T)


if __name__ == "__main__":
    main()
