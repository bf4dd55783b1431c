"""Train recipes at equal iterations over several seeds, validate each at last.pt, and print the tables of the README.

    python scripts/compare_recipes.py data=DATA.yaml model=WEIGHTS.pt recipes=baseline,rfs seeds=0,1 out=runs/compare \
        imgsz=256 epochs=12 optimizer=AdamW lr0=1e-3

Every other key goes to `yolo-lt train`; a recipe may carry keys of its own: decoupled+stage_one=rfs. All run with
epoch_length=fixed, so they share iterations (stage two counted), starting weights and optimizer. Finished runs are kept
and unfinished ones resumed, so the script can be stopped and started at will.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt import api, cli
from yolo_lt.dataset import BIN_NAMES
from yolo_lt.evaluate import Matches, load_matches
from yolo_lt.evaluate.bootstrap import image_weights, replicate_means
from yolo_lt.evaluate.compare import paired_difference, seeds_interval, verdict
from yolo_lt.evaluate.metrics import METRICS, class_metrics, set_means
from yolo_lt.report.blocks import with_interval
from yolo_lt.ultra import decoupled
from yolo_lt.ultra.args import is_finished
from yolo_lt.ultra.runfiles import bins_of, find_lt

SHOWN = ("AP", "AP50", "AP75")
SETS = ("all", *BIN_NAMES)


def main() -> None:
    keys = cli.parse(sys.argv[1:])
    out = Path(keys.pop("out", "runs/compare")).resolve()
    recipes = [r.strip() for r in str(keys.pop("recipes", "baseline,rfs")).split(",")]
    seeds = keys.pop("seeds", (0, 1))
    seeds = list(seeds) if isinstance(seeds, (tuple, list)) else [seeds]
    matches: dict[str, list[Matches]] = {}
    for seed in seeds:
        for recipe in recipes:
            matches.setdefault(recipe, []).append(run(out, recipe, seed, keys))
    bins = bins_of(find_lt(out / f"{recipes[0]}-s{seeds[0]}" / "weights" / "last.pt"))
    sets = dict(zip(SETS, bins.class_sets(len(matches[recipes[0]][0].category_ids)), strict=True))
    print(f"\n{len(seeds)} seeds, {keys.get('epochs')} epochs of equal length, last.pt, split val, protocol coco")
    print(f"(100 detections per image and class), bins {bins.rule}; 95 % intervals resample images and seeds\n")
    print_table(matches, sets)
    for base, other in combinations(recipes, 2):
        print_difference(other, base, matches, sets)


def run(out: Path, recipe: str, seed: int, keys: dict[str, Any]) -> Matches:
    """One training and its validation, each skipped if it is already there."""
    name = f"{recipe}-s{seed}"
    last = out / name / "weights" / "last.pt"
    if not last.exists():
        fixed = {"epoch_length": "fixed", "val": False, "plots": False, "exist_ok": True}
        base, *own = recipe.split("+")
        own_keys = cli.parse([f"recipe={base}", *own])
        api.train(**{**keys, **fixed, **own_keys, "seed": seed, "project": str(out), "name": name})
    elif unfinished(last):
        api.train(resume=str(last))
    if decoupled.stage_two(out / name):
        last = decoupled.head_checkpoint(out / name)
    return validate(out, name, last, keys)


def validate(out: Path, name: str, weights: Path, keys: dict[str, Any]) -> Matches:
    """The validation of a run, skipped if it is already there."""
    if not (out / f"{name}-val" / "matches.npz").exists():
        shared = {k: keys[k] for k in ("data", "imgsz", "device") if k in keys}
        api.val(model=str(weights), **shared, plots=False, project=str(out), name=f"{name}-val", exist_ok=True)
    return load_matches(out / f"{name}-val" / "matches.npz")[0]


def unfinished(last: Path) -> bool:
    """Whether the run, its second stage included, was interrupted."""
    head = decoupled.head_checkpoint(last.parent.parent)
    second = decoupled.stage_two(last.parent.parent) is not None
    return not is_finished(last) or (second and not (head.is_file() and is_finished(head)))


def print_table(matches: dict[str, list[Matches]], sets: dict[str, np.ndarray]) -> None:
    """Mean over seeds with an interval, per recipe and set of classes."""
    print("| recipe | bin | " + " | ".join(SHOWN) + " | AP50 per seed |")
    print("|---" * (len(SHOWN) + 3) + "|")
    for recipe, runs in matches.items():
        values = np.stack([set_means(class_metrics(m), list(sets.values())) for m in runs])
        weights = list(image_weights(len(runs[0].image_ids), 1000, 0))
        low, high = seeds_interval(np.stack([replicate_means(m, list(sets.values()), weights) for m in runs]))
        for i, name in enumerate(sets):
            cells = [with_interval(values[:, i, j].mean(), (low[i, j], high[i, j])) for j in map(METRICS.index, SHOWN)]
            seeds = ", ".join(f"{v:.3f}" for v in values[:, i, METRICS.index("AP50")])
            print(f"| {recipe} | {name} | {' | '.join(cells)} | {seeds} |")


def print_difference(ours: str, base: str, matches: dict[str, list[Matches]], sets: dict[str, np.ndarray]) -> None:
    """Paired difference per set of classes, and what its interval says."""
    difference, (low, high) = paired_difference(matches[ours], matches[base], list(sets.values()))
    print(f"\n| {ours} - {base} | " + " | ".join(SHOWN) + " | AP50 is |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for i, name in enumerate(sets):
        cells = [with_interval(difference[i, j], (low[i, j], high[i, j]), "+") for j in map(METRICS.index, SHOWN)]
        word = verdict(low[i, METRICS.index("AP50")], high[i, METRICS.index("AP50")])
        print(f"| {name} | {' | '.join(cells)} | {word} |")


if __name__ == "__main__":
    main()
