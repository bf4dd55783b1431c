"""Our evaluation against pycocotools on the same generated detections: CPU time, interleaved pairs, ratio and interval.

    python scripts/bench_eval.py images=1000 dets=100 classes=80 pairs=15

Both sides get Python lists of dicts; ours reads and checks them, pycocotools indexes them. pycocotools runs with its
default four area ranges and, for a like-for-like ratio, with area range 'all' alone.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo_lt import cli
from yolo_lt.evaluate import evaluate


def main() -> None:
    keys = {"images": 1000, "dets": 100, "classes": 80, "pairs": 15, **cli.parse(sys.argv[1:])}
    gt, dets = generate(keys["images"], keys["dets"], keys["classes"])
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: evaluate(gt, dets, bootstrap=0),
        "pycocotools": lambda: official(gt, dets, areas=4),
        "pycocotools, area all": lambda: official(gt, dets, areas=1),
    }
    seconds = {name: [] for name in sides}
    for _ in range(keys["pairs"]):
        for name, call in sides.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    print(f"{keys['images']} images x {keys['dets']} detections x {keys['classes']} classes, {keys['pairs']} pairs")
    for name in list(sides)[1:]:
        ratios = np.array(seconds[name]) / np.array(seconds["ours"])
        low, high = np.quantile(ratios, [0.025, 0.975])
        print(f"{name} / ours, CPU time: median {np.median(ratios):.1f} [{low:.1f}, {high:.1f}]")
    plain, with_intervals = (cpu(lambda n=n: evaluate(gt, dets, bootstrap=n)) for n in (0, 1000))
    print(f"1000 bootstrap replicates / evaluation: {(with_intervals - plain) / plain:.1f}")


def generate(images: int, per_image: int, classes: int) -> tuple[dict, list]:
    """Seven boxes an image, detections jittered around them or anywhere."""
    rng = np.random.default_rng(0)
    annotations, dets = [], []
    for i in range(images):
        boxes = np.c_[rng.uniform(0, 500, (7, 2)), rng.uniform(10, 140, (7, 2))]
        cls = rng.integers(0, classes, 7)
        for b, c in zip(boxes.tolist(), cls.tolist(), strict=True):
            row = {"id": len(annotations) + 1, "image_id": i, "category_id": c, "bbox": b}
            annotations.append({**row, "area": b[2] * b[3], "iscrowd": 0})
        near = rng.integers(0, 7, per_image)
        moved = boxes[near] * rng.uniform(0.8, 1.2, (per_image, 4))
        named = np.where(rng.random(per_image) < 0.5, cls[near], rng.integers(0, classes, per_image))
        for b, c, s in zip(moved.tolist(), named.tolist(), rng.random(per_image).tolist(), strict=True):
            dets.append({"image_id": i, "category_id": c, "bbox": b, "score": s})
    categories = [{"id": c} for c in range(classes)]
    return {"images": [{"id": i} for i in range(images)], "annotations": annotations, "categories": categories}, dets


def official(gt: dict, dets: list, areas: int) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = gt
        truth.createIndex()
        e = COCOeval(truth, truth.loadRes([dict(d) for d in dets]), "bbox")
        e.params.areaRng, e.params.areaRngLbl = e.params.areaRng[:areas], e.params.areaRngLbl[:areas]
        e.evaluate()
        e.accumulate()


def cpu(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
