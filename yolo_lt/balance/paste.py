"""Tail paste: which class an image gets, how large an instance may be, where it may lie, and its border. Pure numpy.

Object-level resampling against context bias: a rare class seen in two images is learnt together with their background.
Simple Copy-Paste (Ghiasi et al., CVPR 2021) pastes at random; here the class is drawn by need, into images without it.
"""

from __future__ import annotations

import random

import numpy as np

from yolo_lt.dataset.bins import Bins
from yolo_lt.dataset.stats import ClassStats

MAX_COVER = 0.3  # of a box that is there already; beyond that its label would name what is mostly hidden
MAX_SIDE = 0.5  # of the image's sides: a larger instance leaves little context to be seen in
MIN_SIDE = 8  # pixels at the network's size: one cell of the finest detection level
SCALE = (0.7, 1.4)  # an instance may be this much smaller or larger than where it comes from
TRIES = 10  # places tried before an image is left alone


def class_need(stats: ClassStats, bins: Bins) -> np.ndarray:
    """How likely a tail class is drawn: what it lacks to the rarest class outside the tail, in training images.

    Returns:
        Probabilities, shape (C,), float64, 0 outside the tail; their sum is 1 (or 0 if no tail class occurs).
    """
    counts = stats.image_counts
    tail = bins.tail[counts[bins.tail] > 0]
    outside = np.setdiff1d(np.flatnonzero(counts), tail)
    border = counts[outside].min(initial=counts.max(initial=0) + 1)
    need = np.zeros(stats.num_classes)
    need[tail] = np.maximum(border - counts[tail], 1)
    return need / max(need.sum(), 1)


def draw_class(probabilities: np.ndarray, present: np.ndarray) -> int | None:
    """A class that is not in the image, by probability; None if there is none.

    Args:
        probabilities: Shape (C,).
        present: Classes of the image, any shape, integers.
    """
    p = probabilities.copy()
    p[present] = 0
    possible = np.flatnonzero(p)
    return random.choices(possible.tolist(), weights=p[possible].tolist())[0] if len(possible) else None


def draw_scale(size: tuple[float, ...], image_size: tuple[int, ...]) -> float | None:
    """A factor for an instance's size, log-uniform in `SCALE`, cut to the limits; None if none of it is within them.

    Args:
        size: Height and width of the instance in pixels.
        image_size: Height and width of the image.
    """
    low = max(SCALE[0], MIN_SIDE / min(size))
    high = min(SCALE[1], *(MAX_SIDE * most / side for side, most in zip(size, image_size, strict=True)))
    return float(np.exp(random.uniform(np.log(low), np.log(high)))) if low <= high else None


def draw_place(
    size: tuple[int, ...], box: np.ndarray, boxes: np.ndarray, image_size: tuple[int, ...]
) -> tuple[int, int] | None:
    """The upper left corner for a cut-out that lies inside the image and covers no box by more than `MAX_COVER`.

    Args:
        size: Height and width of the cut-out, its soft border included.
        box: The instance inside the cut-out, xyxy in pixels, shape (4,).
        boxes: The image's boxes, xyxy in pixels, shape (n, 4).
        image_size: Height and width of the image.

    Returns:
        x, y, or None after `TRIES` places.
    """
    free = np.array(image_size[::-1]) - size[::-1]
    if (free < 0).any():
        return None
    at = np.array([random.random() for _ in range(2 * TRIES)]).reshape(TRIES, 2)
    places = (at * (free + 1)).astype(int)
    fine = (covered(boxes, box + np.tile(places, 2)) <= MAX_COVER).all(1)
    return tuple(places[fine.argmax()].tolist()) if fine.any() else None


def covered(boxes: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Share of every box that lies under each of others: boxes (n, 4), by (k, 4), xyxy; shape (k, n)."""
    low, high = np.maximum(boxes[:, :2], by[:, None, :2]), np.minimum(boxes[:, 2:], by[:, None, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return np.clip(high - low, 0, None).prod(-1) / np.maximum(area, 1e-9)


def soft_border(size: tuple[int, ...], box: np.ndarray) -> np.ndarray:
    """Opacity of a box cut-out: 1 inside the box, falling to 0 over the context around it; shape `size`, float32."""
    across, down = _ramp(size[1], box[0], box[2]), _ramp(size[0], box[1], box[3])
    return np.outer(down, across).astype(np.float32)


def _ramp(length: int, start: float, end: float) -> np.ndarray:
    at = np.arange(length) + 0.5
    rise, fall = at / max(start, 1e-9), (length - at) / max(length - end, 1e-9)
    return np.clip(np.minimum(rise, fall), 0, 1)
