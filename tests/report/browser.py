"""Reports with everything in them, on generated data, and what a browser says of their pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolo_lt.evaluate import Report, evaluate
from yolo_lt.evaluate.runs import Run, against
from yolo_lt.ultra.pictures import draw_examples

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=cmd()",
    "類別",
    "فئة نادرة",
    "$a$",
    "a & b \"q\" 'p'",
    "very_long_" * 30,
    "</style><style>*{display:none}",
    "javascript:alert(1)",
    "</title></svg><script>alert(2)</script>",
    "{{ 7 * 7 }}",
    "x' onload='alert(3)' y=\"",
    "<!-- ]]>",
)
PHONE, SMALL, DESKTOP = (390, 844), (320, 700), (1280, 900)
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

SECTIONS = ["summary", "worst", "errors", "confidence", "training", "classes", "about"]
ROW = ".classes tbody tr"
SHOWN = "rows => rows.filter(row => row.getClientRects().length).map(row => row.querySelector('th').textContent)"
IDS = "rows => rows.map(row => Number(row.cells[0].textContent))"
FITS = "document.documentElement.scrollWidth <= innerWidth"
MARKS = ("--head", "--medium", "--tail", "--unseen", "--ink", "--muted")

# Colours of an element as [red, green, blue, alpha], however the browser writes them
RGBA = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = colour => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
"""


# A browser -----------------------------------------------------------------------------------------------------------


def missing(what: str) -> None:
    """Skip, with the reason; in CI, where everything is installed, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {what}: the page is not opened in a browser")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium, or a skipped test."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing(f"Chromium (CHROMIUM names one that is not called {', '.join(PROGRAMS)})")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def axe_script() -> str:
    """axe-core, or a skipped test."""
    try:
        import axe_playwright_python
    except ImportError:
        missing("axe_playwright_python")
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


class Noise:
    """What a page does that it must not do."""

    def __init__(self, page: Any) -> None:
        self.said: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.requests.append(request.url))

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def outside(self, file: Path) -> list[str]:
        """Requests for anything but the file and what is in it."""
        own = file.resolve().as_uri()
        return [url for url in self.requests if url.partition("#")[0] != own and not url.startswith("data:")]


def resize(page: Any, size: tuple[int, int]) -> None:
    """Give the window another size."""
    page.set_viewport_size({"width": size[0], "height": size[1]})


def header(page, name):
    return page.locator(".classes thead button").get_by_text(name, exact=True)


def sorted_by(page):
    """The columns that say that the table is sorted by them, and how."""
    heads = page.locator(".classes thead th").evaluate_all("all => all.map(h => [h.textContent, h.ariaSort])")
    return [(name, said) for name, said in heads if said != "none"]


def in_order(report, key, sign):
    """Ids as they must stand: what is not there last, equal ones as in the file."""
    ranked = sorted(report["per_class"], key=lambda c: (c[key] is None, sign * (c[key] or 0)))
    return [c["id"] for c in ranked]


def shown(page):
    return page.locator(ROW).evaluate_all(SHOWN)


# Data ----------------------------------------------------------------------------------------------------------------


def ground_truth(classes: int, images: int, boxes: int = 8, letters: bool = True, seed: int = 0) -> dict[str, Any]:
    """COCO ground truth with a long tail and nasty names, of many classes the first, of some the last.

    The last twentieth of the classes has no box.
    """
    rng = np.random.default_rng(seed)
    slope = np.log(6000) / np.log(max(classes, 2))
    counts = np.maximum(1, (6000 / np.arange(1, classes + 1) ** slope).astype(int))  # from 6000 images to one
    trained = {"frequency": np.where(counts > 100, "f", np.where(counts > 10, "c", "r"))} if letters else {}
    names = [f"Sort {i + 1:04d}" for i in range(classes)]
    if classes > 2:
        first = 0 if classes > 100 else max(0, classes - len(NASTY))
        names[first : first + len(NASTY)] = NASTY[:classes]
    listed = [
        {
            "id": i + 1,
            "name": names[i],
            "image_count": int(counts[i]),
            **{key: str(letter[i]) for key, letter in trained.items()},
        }
        for i in range(classes)
    ]
    at = np.repeat(np.arange(images), boxes)
    ids = rng.integers(1, classes - classes // 20 + 1, len(at))
    places = np.c_[rng.uniform(0, 300, (len(at), 2)), rng.uniform(30, 150, (len(at), 2))].round(1)
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for n, (i, c, box) in enumerate(zip(at.tolist(), ids.tolist(), places.tolist(), strict=True), 1)
    ]
    sizes = [{"id": i, "width": 480, "height": 480} for i in range(images)]
    return {"images": sizes, "categories": listed, "annotations": annotations}


def detections(gt: dict[str, Any], quality: float = 0.6, seed: int = 1) -> list[dict[str, Any]]:
    """Boxes near those of the truth, fewer and worse ones of rare classes, and some of other classes."""
    rng = np.random.default_rng(seed)
    counts = {c["id"]: c["image_count"] for c in gt["categories"]}
    found = []
    for a in gt["annotations"]:
        share = quality * min(1.0, counts[a["category_id"]] / 40 + 0.5)
        for _ in range(1 + (rng.random() < 0.2)):
            if rng.random() < share:
                box = np.array(a["bbox"]) + rng.normal(0, 5, 4)
                c = a["category_id"] if rng.random() < 0.75 else int(rng.integers(1, len(counts) + 1))
                score = float(np.clip(rng.normal(share, 0.2), 0.01, 0.99))
                found.append({"image_id": a["image_id"], "category_id": c, "bbox": box.tolist(), "score": score})
    return found


def training(epochs: int = 12) -> dict[str, Any]:
    """What a run's folder tells, see `yolo_lt.ultra.history`."""
    ends = {"all": 0.4, "head": 0.6, "medium": 0.45, "tail": 0.2}
    at = list(range(1, epochs + 1))
    rises = {name: [end * (1 - 0.8**e) for e in at] for name, end in ends.items()}
    drawn = {"head": (9000.0, 9100.0), "medium": (4000.0, 3900.0), "tail": (2500.0, 2450.0)}
    exposure = {n: {"asked": a, "tiles": t, "boxes": 3 * t, "pasted": 0.0} for n, (a, t) in drawn.items()}
    by_epoch = {"epoch": at, "AP": {n: [v / 2 for v in rise] for n, rise in rises.items()}, "AP50": rises}
    return {"recipe": "rfs", "seed": 0, "epochs": epochs, "by_epoch": by_epoch, "exposure": exposure}


def measured(gt: dict[str, Any], quality: float = 0.6, seed: int = 1, examples: int = 0, **more: Any) -> Report:
    """An evaluation as `yolo-lt val` makes it."""
    context = {
        "model": "runs/<b>rare/weights/best.pt",
        "weights_sha256": "ab" * 32,
        "data": "sets/<i>street.yaml",
        "split": "val</title><b>",
        "imgsz": 640,
        "conf": 0.001,
        "nms_iou": 0.7,
        "head_measured": "one2one",
        "versions": {"yolo_lt": "1", "ultralytics": "8"},
        "training": training(),
        "command": "yolo-lt val model='runs/<b>rare/weights/best.pt' " + "long=argument " * 12,
        "train_images": [c["image_count"] for c in gt["categories"]],
        "train_instances": [3 * c["image_count"] for c in gt["categories"]],
    }
    dets = [] if quality == 0 else detections(gt, quality, seed)
    return evaluate(gt, dets, bootstrap=20, context=context, examples=examples, **more)


def run(name: str, report: Report) -> Run:
    """A report as `yolo_lt.evaluate.runs` reads it."""
    return Run(name, report.matches, report.gt_sha256, report.to_json())


def whole(folder: Path, gt: dict[str, Any]) -> dict[str, Any]:
    """report.json of a validation in which nothing is missing; its pictures lie in `folder`."""
    ours, other = measured(gt, examples=3), measured(gt, 0.5, 2)
    content = {**ours.to_json(), "baseline": against(run("runs/new", ours), run("runs/<u>stock", other), 20)}
    lost = {"iou": 0.5, "conf": 0.001, "nms_iou": 0.7, "max_det": 300}
    rows = {n: {"n_gt": m["n_gt"], "never_seen": 9, "lost_to_nms": 3, "lost_to_max_det": 1}
            for n, m in content["metrics"].items() if m}  # fmt: skip
    content["errors"] = {**content["errors"], "lost": {**lost, **rows}}
    content["warnings"] = ["3 of 9 detections have a category that the ground truth does not list; dropped."]
    official = {"package": "pycocotools", "version": "2.0.8", "largest_difference": 2e-16}
    content["official"] = {**official, **dict.fromkeys(("AP", "AP50", "AP75", "AR"), 0.25)}
    names = {c["id"]: c["name"] for c in gt["categories"]}
    wanted = {shown["image"] for example in content["examples"] for shown in example["shown"]}
    content["examples"] = draw_examples(content["examples"], _images(folder, len(gt["images"]), wanted), folder, names)
    return content


def _images(folder: Path, count: int, wanted: set[int]) -> list[Path]:
    """Photographs, nearly: those that are wanted are there."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    files = [folder / "images" / f"{i}.jpg" for i in range(count)]
    for i in wanted:
        image = cv2.resize(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8), (480, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(files[i]), image)
    return files


# Colours -------------------------------------------------------------------------------------------------------------


def contrast(colour: Any, ground: Any) -> np.ndarray:
    """The contrast of colours, red, green and blue to 255, to a ground, as WCAG has it."""
    one, other = _luminance(colour), _luminance(ground)
    return (np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05)


def _luminance(colour: Any) -> np.ndarray:
    parts = np.asarray(colour)[..., :3] / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
