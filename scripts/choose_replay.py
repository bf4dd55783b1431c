"""How much of the draws of strategy=tail should go to the other images: the experiment behind the default of `replay`.

    python scripts/choose_replay.py data=DATA.yaml models=seed0/last.pt,seed1/last.pt replay=0,0.2,0.5,0.8 \
        out=runs/replay imgsz=256 batch=16 epochs=5

Each checkpoint of stage one gets one finetune-head per value, and one with strategy=all, on one feature cache and at
equal iterations. The tables compare them with strategy=all; finished runs are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from compare_recipes import SETS, print_difference, print_table, validate

from yolo_lt import api, cli
from yolo_lt.evaluate import Matches
from yolo_lt.ultra.runfiles import bins_of, find_lt


def main() -> None:
    keys = cli.parse(sys.argv[1:])
    out = Path(keys.pop("out", "runs/replay")).resolve()
    models, values = as_list(keys.pop("models")), as_list(keys.pop("replay", "0,0.2,0.5,0.8"))
    sides = {"all": {"strategy": "all"}} | {f"tail, replay {v}": {"strategy": "tail", "replay": v} for v in values}
    matches: dict[str, list[Matches]] = {
        "stage one": [validate(out, f"stage one-s{i}", Path(m), keys) for i, m in enumerate(models)]
    }
    for side, own in sides.items():
        matches[side] = [run(out, f"{side}-s{i}", m, {**keys, **own, "seed": i}) for i, m in enumerate(models)]
    bins = bins_of(find_lt(Path(models[0])))
    sets = dict(zip(SETS, bins.class_sets(len(matches["all"][0].category_ids)), strict=True))
    print(
        f"\n{len(models)} checkpoints, {keys.get('epochs')} epochs of equal length, cached features, last.pt, split val"
    )
    print(f"Protocol coco (100 detections per image and class), bins {bins.rule}\n")
    print_table(matches, sets)
    for side in matches:
        if side != "all":
            print_difference(side, "all", matches, sets)


def as_list(value: Any) -> list[Any]:
    """The entries of a comma-separated key, each typed as the command line types it."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [cli.parse([f"v={v}"])["v"] for v in str(value).split(",")]


def run(out: Path, name: str, model: str, keys: dict[str, Any]) -> Matches:
    """One finetune-head and its validation, each skipped if it is already there."""
    last = out / name / "weights" / "last.pt"
    if not last.exists():
        fixed = {"epoch_length": "fixed", "feature_cache": True, "cache_dir": str(out / "features"), "val": False}
        api.finetune_head(model, **keys, **fixed, plots=False, exist_ok=True, project=str(out), name=name)
    return validate(out, name, last, keys)


if __name__ == "__main__":
    main()
