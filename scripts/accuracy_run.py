"""One run of bench_accuracy.py: a training (or what follows one), its validation, and the record of both.

A run is a chain of steps, each with one verb: `stock` is Ultralytics' own training, `train`, `finetune` and `calibrate`
are yolo-lt's. The first begins with the starting weights, every other one with what the step before left.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics import YOLO

from yolo_lt import YOLOLT, config
from yolo_lt.dataset import BIN_NAMES
from yolo_lt.evaluate import Matches, load_matches
from yolo_lt.evaluate.binned import ROWS
from yolo_lt.evaluate.bootstrap import image_weights, replicate_means
from yolo_lt.evaluate.metrics import METRICS
from yolo_lt.files import replacing

SCHEMA = 1
KEPT = ("AP", "AP50", "AP75")  # of the metrics, as bootstrap replicates
REPLICATES, SCALE = 1000, 10_000  # a replicate is kept as a whole number of 1 / SCALE
PACKAGES = ("torch", "ultralytics", "numpy", "opencv-python", "albumentations", "scipy")
SHOWN = ("asked", "tiles", "boxes")  # of exposure.csv
REPORTED = ("bins", "per_class", "errors", "operating_point", "calibration", "gt_sha256", "protocol", "max_det")
VAL = {"plots": False, "examples": 0, "exist_ok": True, "workers": 0}


def run(steps: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Do the steps and validate what they end with.

    Args:
        steps: Per step `verb`, `keys` (with data, and those of the protocol), `seed` and `folder`, the folder in `out`
            that is its own; the first also `weights`.
        out: Where runs are kept.

    Returns:
        The record: commands, keys, iterations and CPU time per step; metrics, classes, errors and bootstrap replicates
        of the validation; digests of what went in and came out; versions and machine.
    """
    weights, done, anew = Path(steps[0]["weights"]), [], False
    for step in steps:
        record = None if anew else recorded(step, out)
        anew = record is None  # what follows a new step is new as well
        done.append(record or once(step, weights, out))
        weights = out / step["folder"] / "weights" / "last.pt"
    last = steps[-1]
    folder = out / f"{last['folder']}-val"
    keys = {k: last["keys"][k] for k in ("data", "imgsz")}
    YOLOLT(weights).val(**keys, **VAL, project=str(folder.parent), name=folder.name)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {
        "schema": SCHEMA,
        "steps": done,
        "iterations": sum(s["iterations"] for s in done),
        "cpu_seconds": round(sum(s["cpu_seconds"] for s in done), 1),
        "start_sha256": digest_of_weights(Path(steps[0]["weights"])),
        "weights_sha256": digest_of_weights(weights),
        "metrics": report["metrics"],
        **{k: report[k] for k in REPORTED},
        "replicates": replicates(load_matches(folder / "matches.npz")[0], report["bins"]),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "machine": {"cpu": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()},
    }


def recorded(step: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """The record of a step that was done already, with these very keys."""
    path = out / step["folder"] / "step.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    wanted = {"verb": step["verb"], "seed": step["seed"], "keys": without_data(step["keys"])}
    return record if all(record.get(k) == v for k, v in wanted.items()) else None


def once(step: dict[str, Any], weights: Path, out: Path) -> dict[str, Any]:
    """Do one step, and record it in its folder."""
    folder = out / step["folder"]
    path = folder / "step.json"
    path.unlink(missing_ok=True)
    record = VERBS[step["verb"]](weights, {**step["keys"], "seed": step["seed"]}, folder)
    record["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    record |= {k: step[k] for k in ("row", "verb", "seed")} | {"keys": without_data(step["keys"])}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")
    return record


def without_data(keys: dict[str, Any]) -> dict[str, Any]:
    """The keys that are the same on every machine."""
    return {k: v for k, v in keys.items() if k != "data"}


def stock(weights: Path, keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Ultralytics' own training; albumentations, which it would use because yolo_lt needs them, are left out."""
    model = YOLO(weights)
    record = counted(model, "train", keys | {"augmentations": []}, folder)
    return record | {"command": command("train", weights, keys).replace("yolo-lt", "yolo", 1)}


def train(weights: Path, keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`yolo-lt train` with as many iterations as stock."""
    keys = {"epoch_length": "fixed", **keys}
    model = YOLOLT(weights)
    record = counted(model, "train", keys, folder)
    return record | {"command": command("train", weights, keys), **acted(folder)}


def finetune(weights: Path, keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`yolo-lt finetune-head` with as many iterations an epoch as stock."""
    keys = {"epoch_length": "fixed", **keys}
    record = counted(YOLOLT(weights), "finetune_head", keys, folder)
    return record | {"command": command("finetune-head", weights, keys), **acted(folder)}


def calibrate(weights: Path, keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`yolo-lt calibrate`; nothing is trained."""
    began = time.process_time()
    YOLOLT(weights).calibrate(**keys, project=str(folder.parent), name=folder.name, exist_ok=True)
    spent = round(time.process_time() - began, 1)
    return {"command": command("calibrate", weights, keys), "iterations": 0, "cpu_seconds": spent}


VERBS = {"stock": stock, "train": train, "finetune": finetune, "calibrate": calibrate}


def counted(model: Any, verb: str, keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Call a training, and count its batches and its CPU time."""
    batches: list[int] = []
    model.add_callback("on_train_batch_end", lambda trainer: batches.append(trainer.epoch))
    began = time.process_time()
    getattr(model, verb)(**keys, project=str(folder.parent), name=folder.name, exist_ok=True)
    spent = round(time.process_time() - began, 1)
    return {"iterations": len(batches), "cpu_seconds": spent}


def acted(folder: Path) -> dict[str, Any]:
    """What every bin was asked to be shown and was; nothing where the draws are stock's, which are not counted."""
    if not (folder / "exposure.csv").exists():
        return {}
    with open(folder / "exposure.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    sums = {b: {k: sum(float(r[k]) for r in rows if r["bin"] == b) for k in SHOWN} for b in BIN_NAMES}
    return {"exposure": {b: {k: round(v, 1) for k, v in row.items()} for b, row in sums.items()}}


def replicates(found: Matches, bins: dict[str, Any]) -> dict[str, dict[str, list[int | None]]]:
    """What the bootstrap over images gives, by bin and metric; it pairs with that of any run on the same images.

    Args:
        found: Of the validation.
        bins: Category ids under head, medium and tail.

    Returns:
        Whole numbers of 1 / SCALE; None where no class of the bin has an object in the images that were drawn.
    """
    ids = found.category_ids.tolist()
    sets = [np.arange(len(ids)), *(np.array([ids.index(i) for i in bins[n]], int) for n in BIN_NAMES)]
    values = SCALE * replicate_means(found, sets, image_weights(len(found.image_ids), REPLICATES, 0))
    return {
        name: {m: [None if np.isnan(v) else round(v) for v in values[:, i, METRICS.index(m)]] for m in KEPT}
        for i, name in enumerate(ROWS)
    }


def digest_of_weights(path: Path) -> str:
    """SHA-256 of a checkpoint's numbers; the file itself also holds the date."""
    state = YOLO(path).model.float().state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()


def command(verb: str, weights: Path, keys: dict[str, Any]) -> str:
    """The call as it would be typed, files by the end of their path."""
    data = Path(keys["data"])
    return config.command(verb, **{"model": weights.name, **keys, "data": f"{data.parent.name}/{data.name}"})


def rounded(value: Any) -> Any:
    """Every number to six places: the digest of the weights tells whether two runs are alike in all of them."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 6) if isinstance(value, float) else value


def text_of(record: dict[str, Any]) -> str:
    """JSON with a line per entry, so that a difference can be read; the replicates of a bin are a line."""
    lines = (f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in record.items() if k not in ("replicates", "per_class"))
    parts = [*lines, _nested("per_class", (json.dumps(r) for r in record["per_class"]), "[]")]
    bins = (f"{json.dumps(n)}: {json.dumps(v, separators=(',', ':'))}" for n, v in record["replicates"].items())
    return "{\n" + ",\n".join([*parts, _nested("replicates", bins, "{}")]) + "\n}\n"


def _nested(name: str, entries: Iterable[str], ends: str) -> str:
    return f'  "{name}": {ends[0]}\n    ' + ",\n    ".join(entries) + f"\n  {ends[1]}"


def main() -> None:
    """`python accuracy_run.py JOB.json`: the job names its steps, where runs are kept and where the record goes."""
    os.chdir(Path(sys.argv[1]).parent)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    record = run(job["steps"], Path(job["out"]))
    with replacing(Path(job["result"])) as temporary:
        temporary.write_text(text_of(rounded({**job["about"], **record})), encoding="utf-8")


if __name__ == "__main__":
    main()
