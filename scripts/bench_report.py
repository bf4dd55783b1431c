"""The page of a validation: how large it is, what it costs to make, and how soon a browser shows and sorts it.

    python scripts/bench_report.py classes=1203 images=2000 runs=15   # needs pip install playwright, and Chromium

Ground truth and detections are drawn by `bench_eval.py`; every class has training images and every bin classes. Times
are the median over runs, in brackets the smallest and the largest: CPU time for what Python does, seconds on the clock
for what the browser does, from the opening of the file until it is laid out, and from a click until the rows stand in
the new order.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_eval import generate
from screenshot import chromium

from yolo_lt import cli
from yolo_lt.dataset.bins import frequency_bins
from yolo_lt.evaluate import evaluate
from yolo_lt.report.page import Page, validation_page
from yolo_lt.report.write import HTML, write_page


def main() -> None:
    keys = {"classes": 1203, "images": 2000, "runs": 15, "seed": 0, **cli.parse(sys.argv[1:])}
    page = made(keys["classes"], keys["images"], keys["seed"])
    with tempfile.TemporaryDirectory() as folder:
        whole = timed(time.process_time, lambda: write_page(Path(folder), page), keys["runs"])
        alone = timed(time.process_time, lambda: write_page(Path(folder), page, plots=False), keys["runs"])
        file = Path(folder) / HTML
        print(f"{keys['classes']} classes: {HTML} has {file.stat().st_size / 1e6:.2f} MB")
        print(f"made in {alone} s, with the charts as PNG in {whole} s, CPU time")
        opened, sorted_ = browsed(file, keys["runs"])
        print(f"opened in {opened} s, sorted in {sorted_} s")


def made(classes: int, images: int, seed: int) -> Page:
    """The page of a drawn validation; the counts of training images fall off like 1 / rank."""
    counts = np.maximum(1, 20_000 // np.arange(1, classes + 1))
    gt, dets = generate(images, 100, classes, 8, seed)
    bins = frequency_bins(counts, (10, 100))
    ids = {name: gt.category_ids[getattr(bins, name)].tolist() for name in ("head", "medium", "tail")}
    context = {"train_images": counts.tolist(), "train_instances": counts.tolist(), "model": "best.pt", "split": "val"}
    report = evaluate(gt, dets, "coco", ids, bootstrap=20, context=context, examples=6)
    return validation_page(report.to_json(), Path())


def browsed(file: Path, runs: int) -> tuple[str, str]:
    """How long the page takes to open, and to sort by AP50."""
    with chromium() as browser:
        opened, sorted_ = [], []
        for _ in range(runs):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            opened.append(seconds(lambda tab=tab: tab.goto(file.as_uri())))
            button = tab.get_by_role("button", name="AP50", exact=True)
            sorted_.append(seconds(lambda button=button: button.evaluate(CLICK)))
            tab.close()
    return shown(opened), shown(sorted_)


CLICK = "button => { button.click(); document.body.getBoundingClientRect(); }"  # the second asks for the new layout


def timed(clock: Callable[[], float], work: Callable[[], Any], runs: int) -> str:
    work()
    return shown([seconds(work, clock) for _ in range(runs)])


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def shown(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} [{min(times):.2f}, {max(times):.2f}]"


if __name__ == "__main__":
    main()
