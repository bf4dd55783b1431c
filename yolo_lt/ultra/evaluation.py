"""`yolo-lt val`: one Ultralytics validation, or a file of detections, evaluated by frequency bin and written down."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
from ultralytics.utils import LOGGER

from yolo_lt import __version__, config
from yolo_lt.calibrate.thresholds import read_thresholds
from yolo_lt.dataset.bins import Bins, frequency_bins
from yolo_lt.errors import LTError
from yolo_lt.evaluate import Report, evaluate, save_matches
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.binned import class_sets
from yolo_lt.evaluate.official import check_official, compare_official
from yolo_lt.evaluate.operating import DEPLOYED
from yolo_lt.files import csv_text, write_text
from yolo_lt.report.page import validation_page
from yolo_lt.report.results import PER_CLASS, per_class, report_text
from yolo_lt.report.write import write_page
from yolo_lt.ultra import labels
from yolo_lt.ultra.federated import index_for
from yolo_lt.ultra.history import training_of
from yolo_lt.ultra.lost import IOU
from yolo_lt.ultra.pictures import draw_examples
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.runfiles import bins_of, counts_of, find_lt
from yolo_lt.ultra.validator import VALIDATORS


def run_validation(
    model: Any, validate: Callable[..., Any], lt: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
) -> tuple[Report, Path]:
    """Validate `model` through Ultralytics' own `val` and evaluate what its validator saw.

    The report is not written yet; its pictures are.

    Args:
        model: The YOLOLT.
        validate: Ultralytics' unbound-to-us `val`, which takes a validator class.
        lt: Every yolo-lt key.
        ours: The yolo-lt keys that were given: `bins=` among them wins over the bins of the training.
        theirs: Ultralytics' keys.

    Returns:
        The report, and Ultralytics' folder for it.

    Raises:
        UsageError: A protocol that the data do not suit, or without an official package if that is asked for.
        LTError: Bad data, or another class count than the checkpoint's.
    """
    check_official(lt["protocol"], lt["official"], turned=model.task == "obb")
    weights = Path(str(getattr(model, "ckpt_path", None) or model.model_name))
    split = theirs.get("split") or "val"
    data = labels.load_data(theirs.get("data") or model.overrides.get("data"), split, lt["allow_download"])
    if len(model.names) != len(data["names"]):
        raise LTError(f"{weights} has {len(model.names)} classes and {data['yaml_file']} has {len(data['names'])}")
    lt = labels.with_hierarchy(lt, data)
    bins, counts = find_bins(weights, data, ours.get("bins"), model.task)
    names = labels.class_names(data)
    conf = DEPLOYED if lt["thresholds"] == "none" else read_thresholds(lt["thresholds"], names, DEPLOYED)
    scanned = labels.scan(data, split, model.task, theirs)  # a label out of range must not be dropped silently
    index = index_for(lt["protocol"], scanned, data, lt["federated"], split)

    made: list[Any] = []

    def keep(**kw: Any) -> Any:  # Ultralytics forgets the validator it makes
        made.append(VALIDATORS[model.task](**kw))
        made[0].counts_lost = True
        return made[0]

    validate(validator=keep, **{**theirs, "data": data["yaml_file"]})
    validator = made[0]
    truth, found = validator.evaluation_input(names, index=index)
    context = {**_context(validator, weights, data, split), **_per_class(counts)}
    context["command"] = config.command("val", **{"model": weights, "data": data["yaml_file"], **ours, **theirs})
    report = evaluated(truth, found, lt, bins, theirs.get("max_det"), context, conf)
    folder, files = Path(validator.save_dir), validator.image_files()
    pictures = draw_examples(report.examples or [], files, folder, dict(enumerate(names))) or None
    errors = {**(report.errors or {}), "lost": _lost(validator, bins)}
    return replace(report, errors=errors, examples=pictures), folder


def evaluated(
    truth: GroundTruth,
    found: Detections,
    lt: dict[str, Any],
    bins: Bins | None,
    max_det: int | None,
    context: dict[str, Any],
    conf: float | np.ndarray = DEPLOYED,
) -> Report:
    """The report, with the official package's word if it is asked for."""
    hierarchy = None if lt["hierarchy"] in ("auto", "none") else lt["hierarchy"]
    report = evaluate(
        *(truth, found, lt["protocol"], bins),
        max_det=max_det,
        bootstrap=lt["bootstrap"],
        context=context,
        conf=conf,
        hierarchy=hierarchy,
        examples=lt["examples"],
    )
    if not lt["official"]:
        return report
    return replace(report, official=compare_official(lt["protocol"], truth, found, report.max_det or 0))


def _lost(validator: Any, bins: Bins) -> dict[str, Any] | None:
    """The `lost` entry of `errors`: objects that the network saw and NMS or max_det took away, by bin."""
    if validator.lost is None:
        return None
    counts, args = validator.lost.counts, validator.args
    entry: dict[str, Any] = {"iou": IOU, "conf": args.conf, "nms_iou": args.iou, "max_det": args.max_det}
    for name, classes in class_sets(np.arange(counts.shape[1]), bins).items():
        total, seen, after_nms, after_cap = (int(n) for n in counts[:, classes].sum(axis=1))
        lost = {"lost_to_nms": seen - after_nms, "lost_to_max_det": after_nms - after_cap}
        entry[name] = {"n_gt": total, "never_seen": total - seen, **lost}
    return entry


def find_bins(weights: Path, data: dict[str, Any], rule: Any, task: str) -> tuple[Bins, tuple[np.ndarray, np.ndarray]]:
    """Bins and training counts: `bins=`, then lt.yaml beside the weights, then the train labels.

    Returns:
        The bins, and training images and instances per class.

    Raises:
        LTError: None of the three is there.
    """
    lt = find_lt(weights)
    if lt and lt["names"] == labels.class_names(data):
        counts = counts_of(lt)
        return (bins_of(lt) if rule is None else frequency_bins(counts[0], rule, data.get("frequency"))), counts
    try:
        stats = labels.stats_of(labels.scan(data, "train", task).labels, data)
    except LTError as e:
        raise LTError(f"no training counts for the bins: no lt.yaml beside {weights}, and {e}") from None
    bins = frequency_bins(stats.image_counts, rule or "auto", stats.frequency)
    return bins, (stats.image_counts, stats.instance_counts)


def _context(validator: Any, weights: Path, data: dict[str, Any], split: str) -> dict[str, Any]:
    """What a reader needs to repeat the measurement."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
    return {
        "task": validator.args.task,
        "model": str(weights),
        "weights_sha256": digest,
        "data": str(data["yaml_file"]),
        "split": split,
        "imgsz": validator.args.imgsz,
        "conf": validator.args.conf,
        "nms_iou": validator.args.iou,
        "head_measured": validator.head_measured,
        "versions": {
            "yolo_lt": __version__,
            "ultralytics": ultralytics.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "training": training_of(weights),
    }


def _per_class(counts: tuple[np.ndarray, np.ndarray]) -> dict[str, dict[int, int]]:
    names = ("train_images", "train_instances")
    return {name: dict(enumerate(c.tolist())) for name, c in zip(names, counts, strict=True)}


def write_report(folder: Path, report: Report, plots: bool = True) -> None:
    """Write report.json, matches.npz, per_class.csv and the page, and show the tables by bin.

    Args:
        folder: Where they go.
        report: The report.
        plots: Whether the charts are also written as PNG.
    """
    content = report.to_json()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "report.json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    save_matches(folder / "matches.npz", report.matches, content["gt_sha256"])
    write_text(folder / "per_class.csv", csv_text([PER_CLASS, *per_class(content).rows]))
    write_page(folder, validation_page(content, folder), plots)
    for sentence in report.warnings:
        LOGGER.warning(f"{PREFIX}{sentence}")
    files = "report.html, report.md, report.json, matches.npz and per_class.csv"
    LOGGER.info(f"\n{report_text(content)}\n\n{files} are in {folder}")
