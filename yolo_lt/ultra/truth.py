"""Ultralytics' labels as the evaluation's ground truth: boxes in original pixels, and what was looked for where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ultralytics.utils import ops

from yolo_lt.dataset.federated import EVERYTHING, FederatedIndex, Lists
from yolo_lt.evaluate.arrays import GroundTruth


def ground_truth(
    labels: Sequence[dict[str, Any]],
    sizes: Sequence[tuple[int, int]],
    ids: np.ndarray,
    names: Sequence[str],
    turned: bool = False,
    index: FederatedIndex | None = None,
) -> GroundTruth:
    """Normalised labels as boxes in original pixels; category = class index.

    Args:
        labels: Ultralytics' labels of N images.
        sizes: Height and width of every image.
        ids: What the images are called, shape (N,), sorted.
        names: Class names.
        turned: Oriented boxes, which Ultralytics keeps as polygons.
        index: What was looked for in these images, in this order, and their group boxes, which become crowds.
    """
    boxes, angles, image, cls = [np.zeros((0, 4))], [np.zeros(0)], [], []
    for i, (label, (height, width)) in enumerate(zip(labels, sizes, strict=True)):
        box, angle = _boxes(label, height, width, turned)
        boxes.append(box)
        angles.append(angle)
        image.append(np.full(len(box), i))
        cls.append(label["cls"].reshape(-1).astype(np.int64))
    objects, groups = sum(map(len, boxes)), None if index is None else index.groups
    if groups is not None:
        size = np.array(sizes, np.float64).reshape(-1, 2)[groups.image]
        boxes.append(_pixels(groups.box, size[:, 0], size[:, 1]))
        angles.append(np.zeros(len(groups)))
        image.append(groups.image)
        cls.append(groups.cls.astype(np.int64))
    box = np.concatenate(boxes)
    return GroundTruth(
        image_ids=ids,
        category_ids=np.arange(len(names)),
        names=tuple(names),
        image=np.concatenate(image),
        cls=np.concatenate(cls),
        box=box,
        area=box[:, 2] * box[:, 3],
        crowd=np.arange(len(box)) >= objects,
        angle=np.concatenate(angles) if turned else None,
        **({} if index is None else looked_for(index)),
    )


def _boxes(label: dict[str, Any], height: int, width: int, turned: bool) -> tuple[np.ndarray, np.ndarray]:
    """x, y, width and height (n, 4), and the angles of turned boxes (n,)."""
    if not turned:
        return _pixels(label["bboxes"], height, width), np.zeros(len(label["bboxes"]))
    scale = np.array([width, height], np.float32)
    polygons = [np.asarray(s, np.float32) * scale for s in label["segments"]]
    rows = [ops.xyxyxyxy2xywhr(p.reshape(1, -1))[0] for p in polygons]
    xywh, angle = np.split(np.array(rows, np.float64).reshape(-1, 5), [4], axis=1)
    return np.c_[xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, 2:]], angle[:, 0]


def _pixels(box: np.ndarray, height: int | np.ndarray, width: int | np.ndarray) -> np.ndarray:
    """Label boxes as x, y, width and height in pixels, (n, 4); the size is one, or one per box."""
    xywh = box.astype(np.float64) * np.stack([width, height, width, height], -1)
    return np.c_[xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, 2:]]


def looked_for(index: FederatedIndex) -> dict[str, Any]:
    """The federated fields of `GroundTruth`, as sorted keys image * C + class."""
    everything = Lists.of([range(len(index.classes))])
    fields = {"negative": index.negative, "positive": index.positive, "partial": index.not_exhaustive}
    keys: dict[str, Any] = {}
    for name, lists in fields.items():
        of_image = [
            (everything[0] if name == "negative" else everything[0][:0]) if row == EVERYTHING else lists[row]
            for row in index.row.tolist()
        ]
        parts = [i * len(index.classes) + ids.astype(np.int64) for i, ids in enumerate(of_image)]
        keys[name] = np.concatenate([np.zeros(0, np.int64), *parts])
    return {**keys, "labels": index.labels}
