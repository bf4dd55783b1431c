"""One call of calibrate: the checkpoint, the images it may look at, and what is refused before anything is made."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.cfg import get_cfg, get_save_dir
from ultralytics.data.build import build_dataloader
from ultralytics.utils import LOGGER

from yolo_lt.calibrate import CALIBRATORS, Affine
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.files import copy_file
from yolo_lt.ultra import calibrated, labels
from yolo_lt.ultra.args import check_classes
from yolo_lt.ultra.evaluation import find_bins
from yolo_lt.ultra.head import class_branches
from yolo_lt.ultra.holdout import image_names, validation_set
from yolo_lt.ultra.maps import MAP_VALIDATORS
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.runfiles import find_lt, lt_path

PASSED = ("imgsz", "batch", "device", "workers", "iou", "nms", "agnostic_nms", "quantize", "half")
LEAST_IMAGES = 20


class Job:
    """A call of calibrate.

    Attributes:
        weights: The checkpoint.
        net: Its model, as it was loaded.
        record: What it says about an earlier calibration, or None.
        branch: The branch that is measured.
        data: Parsed data YAML.
        names: Class names.
        lt: Every yolo-lt key.
        theirs: Ultralytics' keys.
        bins: Frequency bins.
        counts: Training images per class, shape (C,).
        held: Names of the training images that were set apart.
        folder: The run folder.
    """

    folder: Path

    def __init__(self, model: Any, weights: Path, lt: dict[str, Any], theirs: dict[str, Any]) -> None:
        self.weights, self.net, self.task, self.lt = weights, model.model, model.task, lt
        self.theirs = {**theirs, "imgsz": theirs.get("imgsz") or model.overrides.get("imgsz") or 640}
        self.data = labels.load_data(theirs.get("data"), "train", lt["allow_download"])
        self.names = labels.class_names(self.data)
        check_classes(weights, model.names, self.names)
        rule = None if lt["bins"] == "auto" else lt["bins"]  # auto: those of the training
        self.bins, (self.counts, _) = find_bins(weights, self.data, rule, self.task)
        self.held: list[str] = sorted((find_lt(weights) or {}).get("holdout") or [])
        self.record = calibrated.record_of(model.ckpt)
        two = len(class_branches(self.net)) > 1
        self.branch = "one2one" if two and self.theirs.get("nms") is False else "one2many"
        check(self)

    @property
    def sets(self) -> dict[str, np.ndarray]:
        """Class indices of all, head, medium and tail."""
        return dict(zip(("all", *BIN_NAMES), self.bins.class_sets(len(self.names)), strict=True))

    @property
    def judge(self) -> str:
        """What strengths are judged by."""
        return CALIBRATORS[self.lt["method"]].judge if self.lt["judge"] == "auto" else self.lt["judge"]

    @property
    def measurable(self) -> bool:
        """Whether this version evaluates the task."""
        return self.task in MAP_VALIDATORS

    @property
    def target(self) -> Path:
        """The checkpoint that is written."""
        return self.folder / "weights" / self.weights.name

    def start(self) -> None:
        """Make the run folder; lt.yaml goes with the checkpoint."""
        overrides: dict[str, Any] = {"task": self.task, "name": "calibrate"}
        overrides |= {k: self.theirs[k] for k in ("project", "name", "exist_ok") if k in self.theirs}
        self.folder = Path(get_save_dir(get_cfg(overrides=overrides)))
        if self.target.absolute() == self.weights:
            raise UsageError(f"{self.weights} would be overwritten: give another project= or name=")
        self.target.parent.mkdir(parents=True, exist_ok=True)
        source = lt_path(self.weights)
        if source:
            copy_file(source, self.folder / "lt.yaml")

    def look(
        self, net: Any, split: str, maps: Sequence[Sequence[Affine]] = (), folds: Mapping[str, int] | None = None
    ) -> Any:
        """The validator after a pass over "holdout" or a split, see `maps.MapMixin`; `folds` by name of the image."""
        keys = {k: self.theirs[k] for k in PASSED if self.theirs.get(k) is not None}
        fixed = {"task": self.task, "data": str(self.data["yaml_file"]), "mode": "val", "plots": False}
        held = split == "holdout"  # of which the batches become rectangular once the other images are gone
        args = {**fixed, **keys, "verbose": False, "rect": not held, "split": "train" if held else split}
        loader = self._holdout_loader(args) if held else None
        with _quiet():
            validator = MAP_VALIDATORS[self.task](dataloader=loader, save_dir=self.folder, args=args)
            if loader is not None and folds:
                validator.fold_of = {f: folds[name] for f, name in self.named(loader.dataset.im_files)}
            validator.maps = maps
            validator(model=deepcopy(net))
        return validator

    def _holdout_loader(self, args: dict[str, Any]) -> Any:
        keys = get_cfg(overrides=args)
        stride = max(int(self.net.stride.max()), 32)
        dataset = validation_set(keys, self.data["train"], keys.batch, self.data, stride, self.held)
        return build_dataloader(dataset, batch=keys.batch, workers=keys.workers, shuffle=False, rank=-1)

    def named(self, files: Sequence[str]) -> list[tuple[str, str]]:
        """Image files, each with the name under which lt.yaml knows it."""
        return list(zip(files, image_names(files, self.data), strict=True))

    def detections(self, net: Any, split: str) -> tuple[GroundTruth, Detections]:
        """Objects and detections of the holdout or a split."""
        return self.look(net, split).evaluation_input(self.names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ultralytics' bars, but not its tables: every pass would print one."""
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def check(job: Job) -> None:
    """Refuse what cannot be calibrated.

    Raises:
        UsageError: A checkpoint that is calibrated already, or a task that is not evaluated.
        LTError: A single class, classes without images, no holdout, or too small a one, or one that overlaps with val.
    """
    lt, method = job.lt, CALIBRATORS[job.lt["method"]]
    if job.record and lt["method"] != "none":
        raise UsageError(
            f"{job.weights} was calibrated already (method={job.record['method']}, strength "
            f"{job.record['strength']:g}): method=none takes that back exactly"
        )
    if job.record and lt["thresholds"] != "none":
        raise UsageError("method=none takes a calibration back and chooses no thresholds: run it again on its result")
    if len(job.names) < 2:
        raise LTError(f"{job.data['yaml_file']} has a single class: calibration compares classes")
    if method.needs == "counts" and (absent := np.flatnonzero(job.counts == 0)).size:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        named = ", ".join(job.names[c] for c in absent[:5])
        raise LTError(f"method={lt['method']} goes by training images, and {named}{more} have none: use another method")
    if not job.measurable and (method.fitted or lt["thresholds"] != "none"):
        raise UsageError(f"task {job.task} is not evaluated in this version, so nothing can be fitted to its images")
    _check_holdout(job)


def _check_holdout(job: Job) -> None:
    lt, method = job.lt, CALIBRATORS[job.lt["method"]]
    if not job.held:
        fits = method.fitted or (method.needs == "weight" and lt["strength"] == "auto")
        asked = f"thresholds={lt['thresholds']}" if lt["thresholds"] != "none" else f"method={lt['method']}"
        if fits or lt["thresholds"] != "none":
            raise LTError(
                f"{asked} is fitted on images that the training did not see, and {job.weights} has no holdout in an "
                "lt.yaml beside it: train with holdout=0.1, which sets some apart"
            )
        return
    if len(job.held) < LEAST_IMAGES:
        raise LTError(
            f"the holdout of {job.weights} has {len(job.held)} images, fewer than {LEAST_IMAGES}: too few to choose "
            "by; train with a larger holdout="
        )
    _check_apart(job)


def _check_apart(job: Job) -> None:
    """What is fitted on an image cannot be judged on it."""
    if not job.data.get("val"):
        return
    val = labels.scan(job.data, "val", job.task, empty=True)
    if both := set(job.held) & set(image_names(val.im_files, job.data)):
        raise LTError(
            f"{job.data['yaml_file']}: {len(both)} images of the holdout are in the validation split, for example "
            f"{min(both)}; what is fitted on them cannot be judged there"
        )


def say(text: str) -> None:
    """A line of the log."""
    LOGGER.info(f"{PREFIX}{text}")
