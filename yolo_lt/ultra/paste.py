"""Pastes tail instances into source images, before mosaic, so that all other augmentations treat them alike."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
from ultralytics.utils.instance import Instances
from ultralytics.utils.ops import resample_segments

from yolo_lt.balance.paste import draw_class, draw_place, draw_scale
from yolo_lt.ultra.augment import Look
from yolo_lt.ultra.bank import Bank, Instance

LOOKS = 0.5  # share of the instances in another light


class TailPaste:
    """Pastes one instance of a tail class into a share of the images in which that class does not occur.

    It draws from Python's random numbers, as Ultralytics' own augmentations do: a seed gives the same pictures.

    Args:
        bank: The instances.
        share: Share of the images that get one, in [0, 1].
        fliplr: Probability of mirroring an instance left to right; Ultralytics' key for whole images.
        flipud: Likewise upside down.
        channels: Of the images.
    """

    def __init__(self, bank: Bank, share: float, fliplr: float, flipud: float, channels: int = 3) -> None:
        self.bank, self.share, self.fliplr, self.flipud = bank, share, fliplr, flipud
        self.look = Look(channels)

    def __call__(self, labels: dict[str, Any], index: int) -> dict[str, Any]:
        """One source image with its labels, as `get_image_and_label` gives it; `lt_pasted` is the class pasted.

        The pixels are copied before they are changed, as Ultralytics keeps them in memory.
        """
        if random.random() >= self.share:
            return labels
        cls = draw_class(self.bank.probabilities, labels["cls"].astype(int))
        if cls is None:
            return labels
        instance = self.vary(random.choice(self.bank.instances[cls]), labels["img"].shape)
        return labels if instance is None else self.paste(labels, instance, cls)

    def vary(self, instance: Instance, shape: tuple[int, ...]) -> Instance | None:
        """The instance at another scale, mirrored by chance, in another light; None if no scale fits the image."""
        sides = instance.box[2:] - instance.box[:2]
        scale = draw_scale((sides[1], sides[0]), shape[:2])
        if scale is None:
            return None
        height, width = (max(round(n * scale), 1) for n in instance.opacity.shape)
        by = np.array([width / instance.opacity.shape[1], height / instance.opacity.shape[0]])
        pixels = cv2.resize(instance.pixels, (width, height)).reshape(height, width, -1)
        opacity = cv2.resize(instance.opacity, (width, height))
        polygon = None if instance.polygon is None else instance.polygon * by
        pixels = self.look(pixels) if random.random() < LOOKS else pixels
        varied = Instance(pixels, opacity, instance.box * np.tile(by, 2), polygon)
        for axis, probability in ((1, self.fliplr), (0, self.flipud)):
            varied = mirror(varied, axis) if random.random() < probability else varied
        return varied

    def paste(self, labels: dict[str, Any], instance: Instance, cls: int) -> dict[str, Any]:
        """The labels with an instance pasted, if there is a place for it; boxes and polygons are then in pixels."""
        height, width = labels["img"].shape[:2]
        there = labels["instances"]
        there.convert_bbox("xyxy")
        there.denormalize(width, height)
        place = draw_place(instance.opacity.shape, instance.box, there.bboxes, (height, width))
        if place is None:
            return labels
        box = (instance.box + np.tile(place, 2)).astype(np.float32)
        outlines = [] if instance.polygon is None else [(instance.polygon + place).astype(np.float32)]
        outlines = [s[None] for s in resample_segments(outlines, n=there.segments.shape[1])]
        boxes, segments = np.concatenate([there.bboxes, box[None]]), np.concatenate([there.segments, *outlines])
        labels["instances"] = Instances(boxes, segments, bbox_format="xyxy", normalized=False)
        labels["lt_pasted"], labels["img"] = cls, blend(labels["img"], instance.pixels, instance.opacity, *place)
        labels["cls"] = np.concatenate([labels["cls"], np.array([[cls]], labels["cls"].dtype)])
        return labels


def mirror(instance: Instance, axis: int) -> Instance:
    """An instance upside down (axis 0) or left to right (axis 1)."""
    length, x = instance.opacity.shape[axis], 1 - axis  # the coordinate that changes: x for axis 1
    box, polygon = instance.box.copy(), instance.polygon
    box[[x, x + 2]] = length - box[[x + 2, x]]
    if polygon is not None:
        polygon = polygon.copy()
        polygon[:, x] = length - polygon[:, x]
    pixels = cv2.flip(instance.pixels, axis).reshape(instance.pixels.shape)  # OpenCV drops a single channel
    return Instance(pixels, cv2.flip(instance.opacity, axis), box, polygon)


def blend(image: np.ndarray, cut_out: np.ndarray, opacity: np.ndarray, x: int, y: int) -> np.ndarray:
    """A copy of the image with a cut-out at (x, y): image (H, W, ch), cut-out (h, w, ch), uint8; opacity (h, w) 0-1."""
    out = image.copy()
    place = out[y : y + opacity.shape[0], x : x + opacity.shape[1]]
    place[...] = cv2.blendLinear(cut_out, np.ascontiguousarray(place), opacity, 1 - opacity).reshape(place.shape)
    return out
