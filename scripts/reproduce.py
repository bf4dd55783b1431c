"""A run on LVIS or COCO-LT from the official files to the exported network, on a machine with GPUs.

    python scripts/reproduce.py lvis annotations=DIR images=COCO_DIR model=yolo26n.pt device=0
    python scripts/reproduce.py coco-lt annotations=DIR images=COCO_DIR model=yolo26n.pt device=0,1
    python scripts/reproduce.py lvis --tiny          # generated files, one epoch on the CPU: does everything run here?

DIR holds the official annotation files, COCO_DIR the folders train2017 and val2017 (cfg/datasets says where they come
from). Steps: convert (coco-lt: and make-lt), stats; for every recipe of `recipes=` train, and validate last.pt; then
finetune-head and calibrate of the last one, compare with the first one, export. A step whose result is there is not
done again, and a training that was interrupted is resumed.

Several GPUs: with device=0,1 Ultralytics launches a process per GPU itself. Under torchrun, which brings its own, the
steps before and after the training are called apart:

    python scripts/reproduce.py lvis ... steps=prepare
    torchrun --nproc_per_node=4 scripts/reproduce.py lvis ... steps=train
    python scripts/reproduce.py lvis ... steps=finish

Keys: epochs=100 (stage two: a fifth more), batch=64, imgsz=640, recipes=baseline,rfs, out=runs/reproduce-NAME, and any
key of `yolo-lt train`. Time: with E epochs and s images per second (Ultralytics shows what the machine reaches) stock
takes 100,170 E / s seconds on LVIS and 99,411 E / s on COCO-LT; a recipe that repeats images takes longer by the factor
that `yolo-lt stats` prints. At 300 images per second, 100 epochs of LVIS are 9.3 hours. The large runs were not run
here: there was no GPU. The tiny ones are part of the tests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import generated_sets

from yolo_lt import YOLOLT, api, cli

STEPS = ("prepare", "train", "finish")
FIRST = int(os.environ.get("RANK", "0")) == 0
TINY = {"epochs": 1, "batch": 8, "imgsz": 64, "device": "cpu", "workers": 0, "model": "yolov8n.yaml", "plots": False}


def main() -> None:
    words: list[str] = []
    keys = cli.parse(sys.argv[1:], words)
    if words not in (["lvis"], ["coco-lt"]):
        sys.exit(
            "usage: python scripts/reproduce.py lvis|coco-lt annotations=DIR images=DIR model=FILE [key=value ...]"
        )
    name, tiny = words[0], bool(keys.pop("tiny", False))
    out = Path(keys.pop("out", f"runs/reproduce-{name}{'-tiny' if tiny else ''}"))
    steps = str(keys.pop("steps", ",".join(STEPS))).split(",")
    recipes = str(keys.pop("recipes", "rfs" if tiny else "baseline,rfs")).split(",")
    source = generated(name, out) if tiny else {k: keys.pop(k) for k in ("annotations", "images")}
    keys = {"epochs": 100, "batch": 64, "imgsz": 640, **(TINY if tiny else {}), **keys}
    data = out / ("coco-lt" if name == "coco-lt" else name) / "data.yaml"
    if "prepare" in steps and FIRST:
        prepare(name, out, data, source, tiny)
    if "train" in steps:
        for recipe in recipes:
            train(out, data, recipe, keys)
    if "finish" in steps and FIRST:
        finish(name, out, data, recipes, keys, tiny)


def generated(name: str, out: Path) -> dict[str, Path]:
    """Small files in the official form, and images."""
    source, make = out / "source", generated_sets.lvis if name == "lvis" else generated_sets.coco
    for split, seed in (("train", 0), ("val", 1)):
        if FIRST and not list(source.glob(f"*{split}*.json")):
            make(source, images=40, boxes=400, classes=12, exponent=2.0, split=split, seed=seed, draw=True)
    return {"annotations": source, "images": source}


def prepare(name: str, out: Path, data: Path, source: dict[str, Any], tiny: bool) -> None:
    if not data.exists():
        whole = data.parent if name == "lvis" else out / "coco"
        format_or_set = ("lvis" if name == "lvis" else "coco") if tiny else name
        made = api.convert(format_or_set, **{k: str(v) for k, v in source.items()}, out=str(whole))
        if name == "coco-lt":  # the generated classes have other names
            profile = {"tail_profile": "exponential", "imbalance": 5} if tiny else {"tail_profile": "coco-lt"}
            api.make_lt(made, **profile, out=str(data.parent))
    api.stats(data, project=out, name="stats", exist_ok=True)


def train(out: Path, data: Path, recipe: str, keys: dict[str, Any]) -> None:
    run = out / recipe
    if (run / "done").exists():
        return
    last = run / "weights" / "last.pt"
    if last.exists():
        YOLOLT(last).train(resume=True)
    else:
        given = {key: value for key, value in keys.items() if key != "model"}
        YOLOLT(keys["model"]).train(data=str(data), recipe=recipe, save_dir=str(run), exist_ok=True, **given)
    if FIRST:
        (run / "done").touch()


def finish(name: str, out: Path, data: Path, recipes: list[str], keys: dict[str, Any], tiny: bool) -> None:
    """Validate, re-train the classifier, calibrate, compare and export."""
    shared = {k: keys[k] for k in ("imgsz", "batch", "device", "workers") if k in keys}
    protocol = "lvis" if name == "lvis" else "coco"
    rule = {
        "data": str(data),
        "protocol": protocol,
        "official": True,
        "bootstrap": 50 if tiny else 1000,
        "project": out,
    }
    last = out / recipes[-1] / "weights" / "last.pt"
    head = out / "finetune-head"
    if not (head / "weights" / "last.pt").exists():
        more = {"epochs": max(keys["epochs"] // 5, 1), "project": out, "name": head.name, "exist_ok": True, **shared}
        YOLOLT(last).finetune_head(data=str(data), strategy="tail", **more)
    weights = {recipe: out / recipe / "weights" / "last.pt" for recipe in recipes}
    weights["finetune-head"] = head / "weights" / "last.pt"
    for run, file in weights.items():
        if not (out / f"{run}-val" / "report.json").exists():
            api.val(file, **rule, **shared, name=f"{run}-val", exist_ok=True)
    api.compare(*(str(out / f"{run}-val") for run in weights), project=out, name="compare", exist_ok=True)
    api.calibrate(
        last, data=str(data), method="norcal", strength=0.3, project=out, name="calibrated", exist_ok=True, **shared
    )
    api.export(weights["finetune-head"], format="onnx", imgsz=keys["imgsz"], data=str(data))


if __name__ == "__main__":
    main()
