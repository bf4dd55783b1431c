"""Everything that uses albumentations: the look of pasted instances, and the policy for images with tail classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read at its import: it would ask the network for a new version

import albumentations as A
from ultralytics.data.augment import Albumentations

from yolo_lt.errors import LTError

INSIDE = 1e-6  # of the image: boxes must keep this far from its border, as albumentations refuses rounding beyond it


class Look:
    """Changes brightness, contrast, colour and sharpness of a cut-out."""

    def __init__(self, channels: int) -> None:
        colour = [A.HueSaturationValue(10, 20, 10, p=0.5)] if channels == 3 else []
        self.transform = A.Compose([A.RandomBrightnessContrast(p=0.8), *colour, A.GaussianBlur((3, 3), p=0.2)])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Shape (h, w, channels), uint8, to the same."""
        seeded = getattr(self.transform, "set_random_seed", None)  # from 1.4.21 on it has generators of its own;
        if seeded and self.transform.seed != torch.initial_seed():  # every loader worker has another seed
            seeded(torch.initial_seed())
        return self.transform(image=pixels)["image"]


def default_policy(channels: int) -> list[Any]:
    """What `tail_augment=true` stands for: a little geometry, light, colour and blur."""
    colour = [A.HueSaturationValue(10, 20, 10, p=0.3)] if channels == 3 else []
    return [
        A.Affine(scale=(0.8, 1.2), rotate=(-10, 10), p=0.5),
        A.RandomBrightnessContrast(p=0.5),
        *colour,
        A.GaussianBlur((3, 7), p=0.1),
    ]


def read_policy(path: str | Path) -> list[Any]:
    """The transforms of a policy that albumentations saved with `A.save`; it can name albumentations' transforms alone.

    Raises:
        LTError: The file is missing or no such policy.
    """
    try:
        policy = A.from_dict(yaml.safe_load(Path(path).read_text(encoding="utf-8")))  # YAML reads JSON as well
    except OSError as e:
        raise LTError(f"tail_augment={path} cannot be read: {e.strerror}") from None
    except Exception as e:
        raise LTError(f"tail_augment={path} is no policy that albumentations saved with A.save: {e!r}") from None
    return list(policy.transforms) if isinstance(policy, A.BaseCompose) else [policy]


class TailAugment:
    """Applies a policy, through Ultralytics' own wrapper of albumentations, to images that hold a tail class.

    Args:
        policy: `True` for the default, or the path of a saved policy.
        holds_tail: Which images do, shape (N,), bool.
        data: The parsed data YAML.

    Raises:
        LTError: The policy cannot be read or set up, or images have other than 1 or 3 channels.
    """

    def __init__(self, policy: bool | str, holds_tail: np.ndarray, data: dict[str, Any]) -> None:
        channels = int(data.get("channels", 3))
        if channels not in (1, 3):
            raise LTError(f"tail_augment works on grey and colour images, not on {channels} channels")
        self.holds_tail = holds_tail
        transforms = default_policy(channels) if policy is True else read_policy(str(policy))
        self.apply = Albumentations(p=1.0, transforms=transforms, flip_idx=data.get("flip_idx"))
        if self.apply.transform is None:  # Ultralytics logs what went wrong and goes on without
            raise LTError(f"tail_augment={policy}: albumentations cannot compose this policy, see the log above")

    def __call__(self, labels: dict[str, Any], index: int) -> dict[str, Any]:
        """One source image with its labels, as `get_image_and_label` returns it."""
        if not self.holds_tail[index]:
            return labels
        there = labels["instances"]
        there.convert_bbox("xyxy")
        there.update(np.clip(there.bboxes, INSIDE, 1 - INSIDE))
        labels = self.apply(labels)
        labels["resized_shape"] = labels["img"].shape[:2]  # a crop or a scale may change it; mosaic goes by it
        return labels
