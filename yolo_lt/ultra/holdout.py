"""The holdout: training images that no training sees, recorded in lt.yaml, on which later stages choose."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.dataset import YOLODataset

from yolo_lt.balance.plan import Plan, make_plan
from yolo_lt.dataset.bins import frequency_bins
from yolo_lt.dataset.holdout import stratified_holdout
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError
from yolo_lt.ultra.federated import read_index
from yolo_lt.ultra.labels import stats_of

PER_IMAGE = ("im_files", "label_files", "labels", "ims", "im_hw0", "im_hw", "npy_files")  # a canary test guards this


def plan_split(
    dataset: YOLODataset, data: dict[str, Any], lt: dict[str, Any], recorded: Sequence[str] | None, seed: int
) -> tuple[Plan, np.ndarray]:
    """The plan of what is trained on, and what is set apart.

    The bins are those of the whole split, so that a holdout does not change which classes are called tail.

    Args:
        dataset: The whole training split, N images.
        data: The parsed data YAML.
        lt: Every yolo-lt key.
        recorded: Image names that an earlier stage set apart; None: `holdout=` decides.
        seed: The run's seed.

    Returns:
        The plan of the remaining images, and the images set apart, shape (N,), bool.

    Raises:
        LTError: A recorded image is not in the split any more, or the bins file or the federated index is bad.
    """
    stats = stats_of(dataset.labels, data)
    bins = frequency_bins(stats.image_counts, lt["bins"], stats.frequency)
    if recorded:
        apart = _recorded_mask(image_names(dataset.im_files, data), recorded)
    else:
        apart = stratified_holdout(stats, lt["holdout"], seed)
    index, notes = read_index(dataset.im_files, stats, data, lt["federated"], dataset.single_cls)
    index = index if index is None or not apart.any() else index.select(~apart)
    plan = make_plan(_rows(stats, ~apart), lt, bins, index)
    return replace(plan, notes=(*plan.notes, *notes)), apart


def image_names(files: Sequence[str], data: dict[str, Any]) -> list[str]:
    """Paths below the data set's folder, by which an image is known wherever the set lies."""
    return [os.path.relpath(f, data["path"]).replace(os.sep, "/") for f in files]


def keep_only(dataset: YOLODataset, keep: np.ndarray) -> None:
    """Drop all other images of a data set, in place; its label cache stays that of the whole split.

    Args:
        dataset: As Ultralytics built it, N images, not rectangular (the batch shapes would be those of all images).
        keep: Shape (N,), bool.
    """
    if keep.all():
        return
    indices = np.flatnonzero(keep).tolist()
    for name in PER_IMAGE:
        if hasattr(dataset, name):
            values = getattr(dataset, name)
            setattr(dataset, name, [values[i] for i in indices])
    dataset.ni = len(indices)
    dataset.max_buffer_length = min(dataset.max_buffer_length, dataset.ni)


def validation_set(
    args: Any, img_path: Any, batch: int | None, data: dict[str, Any], stride: int, held: Sequence[str]
) -> YOLODataset:
    """The held-out training images as a validation set, in Ultralytics' rectangular batches."""
    dataset = build_yolo_dataset(args, img_path, batch, data, mode="val", rect=False, stride=stride, fraction=1.0)
    keep_only(dataset, _recorded_mask(image_names(dataset.im_files, data), held))
    dataset.rect = True  # only now: the batch shapes are those of the kept images
    dataset.set_rectangle()
    return dataset


def _recorded_mask(names: Sequence[str], recorded: Sequence[str]) -> np.ndarray:
    wanted = set(recorded)
    if lost := sorted(wanted - set(names)):
        raise LTError(
            f"lt.yaml sets {len(wanted)} training images apart, but '{lost[0]}' is not in the training split: "
            "give the data set that the checkpoint was trained on"
        )
    return np.array([n in wanted for n in names])


def _rows(stats: ClassStats, keep: np.ndarray) -> ClassStats:
    """The statistics of the kept images alone."""
    return stats if keep.all() else stats.select(keep)
