"""Pastes tail instances into source images, before mosaic, so that all other augmentations treat them alike."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
from ultralytics.utils.instance import Instances
from ultralytics.utils.ops import resample_segments

from yolo_lt.balance.paste import blend, draw_class, draw_place, draw_scale
from yolo_lt.ultra.augment import Look
from yolo_lt.ultra.bank import Bank, Instance


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
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels = cv2.resize(instance.pixels, (width, height), interpolation=how).reshape(height, width, -1)
        opacity = cv2.resize(instance.opacity, (width, height), interpolation=how)
        polygon = None if instance.polygon is None else instance.polygon * by
        varied = Instance(self.look(pixels), opacity, instance.box * np.tile(by, 2), polygon)
        for axis, probability in ((1, self.fliplr), (0, self.flipud)):
            varied = mirror(varied, axis) if random.random() < probability else varied
        return varied

    def paste(self, labels: dict[str, Any], instance: Instance, cls: int) -> dict[str, Any]:
        """The labels with an instance pasted, if there is a place for it."""
        height, width = labels["img"].shape[:2]
        size, there = np.array([width, height]), labels["instances"]
        there.convert_bbox("xywh")  # a policy for tail images may have left another form
        there.normalize(width, height)
        centre, half = there.bboxes[:, :2] * size, there.bboxes[:, 2:] * size / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        place = draw_place(instance.opacity.shape[:2], instance.box, boxes, (height, width))
        if place is None:
            return labels
        box = instance.box + np.tile(place, 2)
        xywh = np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]]) / np.tile(size, 2)
        labels["lt_pasted"], labels["img"] = cls, blend(labels["img"], instance.pixels, instance.opacity, *place)
        labels["cls"] = np.concatenate([labels["cls"], np.array([[cls]], labels["cls"].dtype)])
        labels["instances"] = Instances(
            np.concatenate([there.bboxes, xywh[None].astype(np.float32)]),
            self._segments(there.segments, instance.polygon, place, size),
            bbox_format="xywh",
            normalized=True,
        )
        return labels

    def _segments(self, there: np.ndarray, polygon: np.ndarray | None, place: Any, size: np.ndarray) -> np.ndarray:
        if polygon is None:
            return there
        outline = ((polygon + place) / size).astype(np.float32)
        return np.concatenate([there, np.stack(resample_segments([outline], n=there.shape[1]))])


def mirror(instance: Instance, axis: int) -> Instance:
    """An instance upside down (axis 0) or left to right (axis 1)."""
    length, x = instance.opacity.shape[axis], 1 - axis  # the coordinate that changes: x for axis 1
    box, polygon = instance.box.copy(), instance.polygon
    box[[x, x + 2]] = length - box[[x + 2, x]]
    if polygon is not None:
        polygon = polygon.copy()
        polygon[:, x] = length - polygon[:, x]
    return Instance(np.flip(instance.pixels, axis), np.flip(instance.opacity, axis), box, polygon)
