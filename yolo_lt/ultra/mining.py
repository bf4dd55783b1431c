"""`strategy=hard`: run the present model over its training images and count where its classifier fails."""

from __future__ import annotations

import csv
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import DataLoader
from ultralytics.data.build import build_dataloader, build_yolo_dataset

from yolo_lt.evaluate.hard_cases import hard_cases
from yolo_lt.files import csv_text, write_text
from yolo_lt.ultra.holdout import image_names, keep_only
from yolo_lt.ultra.labels import class_names
from yolo_lt.ultra.validator import VALIDATORS

HEADER = ("epoch", "image", "false_positives", "missed_tail")
CONF = 0.25  # Ultralytics' confidence of predict: what a user would see
VALIDATION = ("task", "data", "imgsz", "batch", "device", "single_cls", "classes", "iou", "max_det", "workers")


def mine(trainer: Any, model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Confident false positives and missed tail objects per training image, shapes (N,), in the order of training.

    Args:
        trainer: The running trainer, for its data, settings and plan.
        model: The model to be run; it is copied, as Ultralytics fuses what it validates.
    """
    args = {k: getattr(trainer.args, k) for k in VALIDATION}
    loader = _loader(trainer)
    validator = VALIDATORS[trainer.args.task](
        dataloader=loader,
        save_dir=trainer.save_dir,
        args={**args, "conf": CONF, "plots": False, "verbose": False, "mode": "val", "rect": False},
    )
    validator(model=deepcopy(model))
    gt, dets = validator.evaluation_input(class_names(trainer.data))
    place = {name: i for i, name in enumerate(gt.image_ids.tolist())}
    order = [place[name] for name in validator.image_ids(loader.dataset.im_files)]
    false, missed = hard_cases(gt, dets, trainer.plan.bins.tail, CONF)
    return false[order], missed[order]


def _loader(trainer: Any) -> DataLoader:
    """The images that are trained on, without the holdout, as validation sees them, in the order of training."""
    args, data = trainer.args, trainer.data
    batch = trainer.batch_size
    dataset = build_yolo_dataset(args, data["train"], batch, data, mode="val", rect=False, stride=trainer.stride)
    held = set(trainer.held)
    keep_only(dataset, np.array([n not in held for n in image_names(dataset.im_files, data)]))
    return build_dataloader(dataset, batch=batch, workers=args.workers, shuffle=False, rank=-1)


def write_mined(path: Path, epoch: int, names: list[str], false: np.ndarray, missed: np.ndarray) -> None:
    """Write mined.csv: the images with a case, as of this epoch; the file of the last mining is replaced."""
    rows = [(epoch, name, int(f), int(m)) for name, f, m in zip(names, false, missed, strict=True) if f or m]
    write_text(path, csv_text([HEADER, *rows]))


def read_mined(path: Path, names: list[str]) -> np.ndarray | None:
    """Cases per image from mined.csv, shape (N,), or None if it is not there: what a resumed run goes on with."""
    if not path.is_file():
        return None
    cases = dict.fromkeys(names, 0)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["image"] in cases:
                cases[row["image"]] = int(row["false_positives"]) + int(row["missed_tail"])
    return np.array([cases[n] for n in names])
