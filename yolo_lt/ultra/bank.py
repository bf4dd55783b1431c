"""The bank of tail instances that tail paste draws from: chosen by their labels, then cut out of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from ultralytics.data.dataset import YOLODataset

from yolo_lt.balance.paste import MAX_SIDE, MIN_SIDE, SCALE, class_need, covered, soft_border
from yolo_lt.balance.plan import Plan
from yolo_lt.errors import LTError

BORDER = 0.1  # of the box's sides: the context that fades out around a box cut-out
MAX_OTHERS = 0.2  # of the box under another object, which would be pasted without its label; a mask leaves it out


@dataclass(frozen=True)
class Instance:
    """A cut-out.

    Attributes:
        pixels: Shape (h, w, channels), uint8, as Ultralytics loads images (BGR).
        opacity: Shape (h, w), float32 in [0, 1]: soft border around a box, or the polygon.
        box: The instance inside the cut-out, xyxy in pixels, shape (4,), float64.
        polygon: Its outline inside the cut-out, shape (k, 2), or None without segment labels.
    """

    pixels: np.ndarray
    opacity: np.ndarray
    box: np.ndarray
    polygon: np.ndarray | None


@dataclass(frozen=True)
class Bank:
    """Instances by class.

    Attributes:
        instances: Class id to its cut-outs.
        probabilities: How likely a class is drawn, shape (C,), 0 without cut-outs.
        missing: Tail classes of which no instance is usable.
        polygons: Whether the data set has segment labels, so that masks are pasted.
    """

    instances: dict[int, list[Instance]]
    probabilities: np.ndarray
    missing: list[int]
    polygons: bool

    @property
    def nbytes(self) -> int:
        """Memory of all cut-outs."""
        arrays = ((i.pixels, i.opacity, i.polygon) for group in self.instances.values() for i in group)
        return sum(a.nbytes for of_one in arrays for a in of_one if a is not None)


def choose(
    labels: Sequence[dict[str, Any]], imgsz: int, need: np.ndarray, memory: float, seed: int, channels: int = 3
) -> list[tuple[int, int]]:
    """Which instances go into the bank: class after class in turn, the neediest first, until the memory is full.

    Left out are instances that are cut by the image's border, too small or too large to be pasted at any allowed
    scale, or, without polygons, largely under another object.

    Args:
        labels: Ultralytics' in-memory labels (`dataset.labels`).
        imgsz: The long side to which images are resized.
        need: Probability of every class, shape (C,).
        memory: The most that the cut-outs may hold, in MB.
        seed: Which instances of a class come first.
        channels: Of the images.

    Returns:
        Pairs of image and row in its labels.

    Raises:
        LTError: No instance is usable, or the first does not fit into the memory.
    """
    queues = _candidates(labels, imgsz, need, channels)
    if not queues:
        raise LTError(
            f"tail_paste cannot act: every tail instance is cut by the image's border, under {MIN_SIDE} pixels, "
            f"over {MAX_SIDE:.0%} of the image, or covered by another object"
        )
    rng = np.random.default_rng(seed)
    order = [[q[i] for i in rng.permutation(len(q))] for _, q in sorted(queues.items(), key=lambda x: -need[x[0]])]
    in_turn = [q[turn] for turn in range(max(map(len, order))) for q in order if turn < len(q)]
    sizes = np.cumsum([size for _, _, size in in_turn])
    fitting = int(np.searchsorted(sizes, memory * 1e6, side="right"))
    if not fitting:
        raise LTError(f"paste_memory={memory}: not one instance fits; raise it, or leave tail_paste out")
    return [(image, row) for image, row, _ in in_turn[:fitting]]


def _candidates(
    labels: Sequence[dict[str, Any]], imgsz: int, need: np.ndarray, channels: int
) -> dict[int, list[tuple[int, int, int]]]:
    """Usable instances of every class in need: image, row, bytes."""
    queues: dict[int, list[tuple[int, int, int]]] = {}
    for image, label in enumerate(labels):
        cls = label["cls"].reshape(-1).astype(int)
        if not need[cls].any():
            continue
        size = np.array(label["shape"][::-1]) * (imgsz / max(label["shape"]))  # width, height
        boxes = _xyxy(label["bboxes"], size)
        for row in np.flatnonzero(need[cls]):
            polygons = label["segments"]
            if _usable(boxes[row], size, np.delete(boxes, row, axis=0)[: 0 if len(polygons) else None]):
                x1, y1, x2, y2 = _window(boxes[row], size)
                nbytes = (x2 - x1) * (y2 - y1) * (channels + 4)  # colours as uint8, the opacity as float32
                nbytes += polygons[row].size * 8 if len(polygons) else 0
                queues.setdefault(int(cls[row]), []).append((image, int(row), nbytes))
    return queues


def _usable(box: np.ndarray, size: np.ndarray, others: np.ndarray) -> bool:
    sides = box[2:] - box[:2]
    whole = (box[:2] > 1).all() and (box[2:] < size - 1).all()
    fits = (sides * SCALE[1] >= MIN_SIDE).all() and (sides * SCALE[0] <= MAX_SIDE * size).all()
    return bool(whole and fits and (covered(box[None], others) <= MAX_OTHERS).all())


def _window(box: np.ndarray, size: np.ndarray) -> tuple[int, int, int, int]:
    """The part of an image (width, height) with a box and the context that fades out around it: x1, y1, x2, y2."""
    margin = np.maximum((box[2:] - box[:2]) * BORDER, 2)
    x1, y1 = np.clip(np.floor(box[:2] - margin), 0, None)
    x2, y2 = np.minimum(np.ceil(box[2:] + margin), size)
    return int(x1), int(y1), int(x2), int(y2)


def _xyxy(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Normalised xywh (n, 4) as pixels xyxy."""
    centre, half = boxes[:, :2] * size, boxes[:, 2:] * size / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float64)


def build(dataset: YOLODataset, plan: Plan, memory: float, seed: int) -> Bank:
    """Cut the chosen instances out of their images, at the size at which training loads them.

    Raises:
        LTError: See `choose`.
    """
    need = class_need(plan.stats, plan.bins)
    instances: dict[int, list[Instance]] = {}
    buffers, dataset.augment = dataset.augment, False  # or reading would fill mosaic's buffer with tail images
    try:
        image = (-1, np.zeros(0))
        for i, row in sorted(choose(dataset.labels, dataset.imgsz, need, memory, seed, dataset.channels)):
            image = image if image[0] == i else (i, dataset.load_image(i)[0])
            cls = int(dataset.labels[i]["cls"][row, 0])
            instances.setdefault(cls, []).append(cut_out(image[1], dataset.labels[i], row))
    finally:
        dataset.augment = buffers
    missing = [int(c) for c in np.flatnonzero(need) if c not in instances]
    need[missing] = 0
    polygons = any(i.polygon is not None for group in instances.values() for i in group)
    return Bank(instances, need / need.sum(), missing, polygons)


def cut_out(image: np.ndarray, label: dict[str, Any], row: int) -> Instance:
    """One instance of a loaded image, with the context that fades out around it, or its polygon.

    Args:
        image: Shape (H, W, channels), uint8.
        label: The image's entry in `dataset.labels`.
        row: Which instance.
    """
    height, width = image.shape[:2]
    size = np.array([width, height])
    box = _xyxy(label["bboxes"][row : row + 1], size)[0]
    x1, y1, x2, y2 = _window(box, size)
    pixels, inside = image[y1:y2, x1:x2].copy(), box - (x1, y1, x1, y1)
    if not len(label["segments"]):
        return Instance(pixels, soft_border(pixels.shape[:2], inside), inside, None)
    polygon = label["segments"][row] * size - (x1, y1)
    return Instance(pixels, soft_polygon(pixels.shape[:2], polygon), inside, polygon)


def soft_polygon(size: tuple[int, ...], polygon: np.ndarray) -> np.ndarray:
    """Opacity of a polygon (k, 2) in pixels, its edge softened over a pixel or two: shape `size`, float32."""
    mask = np.zeros(size, np.float32)
    cv2.fillPoly(mask, [np.rint(polygon).astype(np.int32)], 1.0)
    return cv2.GaussianBlur(mask, (3, 3), 0)
