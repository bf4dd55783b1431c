"""Our evaluation against lvis-api, pycocotools and faster-coco-eval on the same detections: CPU time and memory.

    python scripts/bench_eval.py set=lvis images=8000 pairs=3 against=lvis,faster   # needs pip install faster-coco-eval
    python scripts/bench_eval.py set=coco images=5000 pairs=15 against=pycocotools bootstrap=1000
    python scripts/bench_eval.py set=lvis images=19809 against=none                 # growth alone

Everyone gets the same boxes in the form that it takes: ours arrays (`from JSON dicts` says what reading costs on top),
the others lists of dicts whose making is not charged; faster-coco-eval an array. Ours gives AP, AP50, AP75 and AR by
bin for all, small, medium and large boxes, the operating point and the calibration error, without intervals and without
the reasons (`explain`), which have their own lines. Sides are run in turn, one pair after the other; a ratio is the
median over pairs, in brackets the smallest and the largest. Memory is what the peak of the resident set grows by.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt import cli
from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.official import _dataset, _numpy_float, _results

SETS = {"lvis": (300, 1203, 12), "coco": (100, 80, 7)}  # detections of an image, classes, objects as in their val
LOOKED_FOR = 8  # further classes of an image that are known to be absent


def main() -> None:
    keys = {"set": "coco", "images": 1000, "pairs": 15, "against": "none", "bootstrap": 0, "seed": 0}
    keys |= cli.parse(sys.argv[1:])
    protocol, (per_image, classes, objects) = keys["set"], SETS[keys["set"]]
    gt, dets = generate(keys["images"], per_image, classes, objects, keys["seed"])
    print(f"{keys['images']} images x {per_image} detections x {classes} classes, protocol {protocol}")
    ours = lambda **kw: evaluate(gt, dets, protocol, bootstrap=0, explain=False, **kw)  # noqa: E731
    report(keys, gt, dets, ours, protocol)


def report(keys: dict, gt: GroundTruth, dets: Detections, ours: Callable, protocol: str) -> None:
    """Measure and print."""
    grown = added_memory(ours)  # of the first run: later ones find memory that the first has given back
    print(f"ours: {cpu(ours):.2f} s CPU, peak memory +{grown / 1e9:.2f} GB")
    why = cpu(lambda: evaluate(gt, dets, protocol, bootstrap=0))
    print(f"ours with the reasons (errors, confusion): {why / cpu(ours):.1f} times that")
    if keys["bootstrap"]:
        pairs = [(cpu(lambda: evaluate(gt, dets, protocol, bootstrap=keys["bootstrap"], explain=False)), cpu(ours))
                 for _ in range(3)]  # fmt: skip
        print(f"{keys['bootstrap']} bootstrap replicates / evaluation: {ratio([(a - b, b) for a, b in pairs])}")
    names = (
        [] if keys["against"] in ("none", None) else str(keys["against"]).replace("(", "").replace(")", "").split(",")
    )
    if not names:
        return
    truth, found = _dataset(gt), _results(gt, dets)["annotations"]
    print(
        f"ours from JSON dicts: {cpu(lambda: evaluate(truth, found, protocol, bootstrap=0, explain=False)):.2f} s CPU"
    )
    for name in (n.strip(" '\"") for n in names):
        run = OTHERS[name](gt, dets, truth, found, protocol)
        pairs = [(cpu(run), cpu(ours)) for _ in range(keys["pairs"])]
        grown = f", peak memory +{added_memory(run) / 1e9:.2f} GB" if keys["pairs"] <= 3 else ""
        print(
            f"{name} / ours, CPU time: {ratio(pairs)}; {name}: {min(a for a, _ in pairs):.1f} s CPU{grown}", flush=True
        )


def ratio(pairs: list[tuple[float, float]]) -> str:
    """Median of the ratios, and their range."""
    ratios = np.array([a / b for a, b in pairs])
    return f"{np.median(ratios):.1f} [{ratios.min():.1f}, {ratios.max():.1f}] over {len(ratios)}"


def generate(images: int, per_image: int, classes: int, objects: int, seed: int) -> tuple[GroundTruth, Detections]:
    """Objects of long-tailed classes; half of the detections are jittered around them, half lie anywhere."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, classes + 1)
    share /= share.sum()
    image = np.repeat(np.arange(images), objects)
    cls = rng.choice(classes, len(image), p=share)
    box = np.c_[rng.uniform(0, 500, (len(image), 2)), rng.uniform(5, 200, (len(image), 2))]
    letters = np.where(
        np.arange(classes) < classes // 3, "f", np.where(np.arange(classes) < 2 * classes // 3, "c", "r")
    )
    negative = rng.integers(0, classes, (images, LOOKED_FOR)) + np.arange(images)[:, None] * classes
    gt = GroundTruth(
        image_ids=np.arange(images),
        category_ids=np.arange(1, classes + 1),
        names=tuple(f"class {c}" for c in range(classes)),
        image=image,
        cls=cls,
        box=box,
        area=box[:, 2] * box[:, 3],
        crowd=np.zeros(len(image), bool),
        frequency=tuple(letters.tolist()),
        negative=np.setdiff1d(negative, image * classes + cls),
        partial=np.unique((image * classes + cls)[rng.random(len(image)) < 0.05]),
    )
    of_image = np.repeat(np.arange(images), per_image)
    near = of_image * objects + rng.integers(0, objects, len(of_image))
    moved = box[near] * rng.uniform(0.9, 1.1, (len(near), 4))
    anywhere = rng.random(len(near)) < 0.5
    moved[anywhere, :2] = rng.uniform(0, 500, (anywhere.sum(), 2))
    named = np.where(rng.random(len(near)) < 0.6, cls[near], rng.choice(classes, len(near), p=share))
    return gt, Detections(of_image, named, moved, rng.random(len(near)))


def pycocotools(gt: Any, dets: Any, truth: dict, found: list, protocol: str) -> Callable[[], Any]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            a = COCO()
            a.dataset = truth
            a.createIndex()
            job = COCOeval(a, a.loadRes(found), "bbox")
            job.evaluate()
            job.accumulate()
            job.summarize()

    return run


def lvis_api(gt: Any, dets: Any, truth: dict, found: list, protocol: str) -> Callable[[], Any]:
    def run() -> None:
        with _numpy_float():
            from lvis import LVIS, LVISEval, LVISResults

            logging.disable(logging.WARNING)
            a = object.__new__(LVIS)
            a.logger, a.dataset = logging.getLogger("lvis"), truth
            a._create_index()
            LVISEval(a, LVISResults(a, found), "bbox").run()
            logging.disable(logging.NOTSET)

    return run


def faster(gt: GroundTruth, dets: Detections, truth: dict, found: list, protocol: str) -> Callable[[], Any]:
    from faster_coco_eval import COCO, COCOeval_faster

    rows = np.c_[dets.image, dets.box, dets.score, gt.category_ids[dets.cls]]
    cap = {"lvis": [300], "coco": [1, 10, 100]}[protocol]

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            a = COCO(truth)
            job = COCOeval_faster(
                a, a.loadRes(rows), "bbox", lvis_style=protocol == "lvis", print_function=lambda *_: 0
            )
            job.params.maxDets = cap
            job.evaluate()
            job.accumulate()

    return run


OTHERS = {"pycocotools": pycocotools, "lvis": lvis_api, "faster": faster}


def cpu(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def added_memory(call: Callable[[], Any]) -> float:
    """By how many bytes the peak of the resident set grows while it runs (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) * 1024


if __name__ == "__main__":
    main()
