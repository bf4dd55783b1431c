"""Which source image every pixel of a training sample is of, carried through mosaic, mixup, cutmix and the rest.

Ultralytics' transforms carry a `semantic_mask` along with the image, with the geometry of each of them. Detection has
none, so its place takes a mask of codes, one per row of the federated index among the sample's sources. Whoever reads
the sample knows, at every anchor, which classes were looked for there.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from ultralytics.data.augment import Albumentations, BaseMixTransform, Compose, CutMix, MixUp

NOTHING = 255  # the code of Ultralytics' padding: no source, and no object
STEP = 2  # every other pixel is kept: the centres of all anchors of strides from 4 on are among them
MASK = "semantic_mask"


class Palette:
    """What the codes of one sample stand for: sets of rows of the federated index, all of them seen at that pixel."""

    def __init__(self) -> None:
        self.sets: list[tuple[int, ...]] = []

    def code(self, rows: Sequence[int]) -> int:
        """The code of a set of rows, a new one if it has none yet."""
        key = tuple(sorted(set(rows)))
        if key not in self.sets:
            self.sets.append(key)
        if len(key) > 2 or len(self.sets) > NOTHING:
            raise ValueError(f"{len(key)} sources at one pixel or {len(self.sets)} in a sample are more than expected")
        return self.sets.index(key)

    def array(self) -> np.ndarray:
        """The sets, shape (K, 2), int64: Ultralytics blends two images at most; one alone stands twice."""
        return np.array([(s[0], s[-1]) for s in self.sets], np.int64).reshape(-1, 2)


class Overlay:
    """Stands where `MixUp` blends two masks: a pixel shows both sources, so its code stands for the rows of both."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The labels with the mask of both."""
        one, other = labels[MASK].astype(np.int64), labels["mix_labels"][0][MASK]
        pairs, where = np.unique(one << 8 | other, return_inverse=True)
        codes = np.array([self._both(int(pair) >> 8, int(pair) & 255) for pair in pairs], np.uint8)
        labels[MASK] = codes[where].reshape(one.shape)
        return labels

    def _both(self, *codes: int) -> int:
        palette = self.dataset.palette
        rows = [row for code in codes if code != NOTHING for row in palette.sets[code]]
        return palette.code(rows) if rows else NOTHING


class AsWithoutMask:
    """Stands where `CutMix` decides what to cut: with a mask it would also paste regions without any object."""

    def __init__(self, mix: CutMix) -> None:
        self.mix = mix

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Ultralytics' decision for the same labels without a mask."""
        mask = labels.pop(MASK)
        try:
            return CutMix.get_params(self.mix, labels)
        finally:
            labels[MASK] = mask


class MaskedAlbumentations:
    """Stands around the user's own spatial augmentations, which Ultralytics treats otherwise where there is a mask.

    albumentations pads a mask with 0, which is a code here; and with a mask an image is kept that has lost all boxes.
    """

    def __init__(self, transform: Albumentations) -> None:
        self.transform = transform

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """The labels as augmented, or as they were if no box would be left, as without a mask."""
        before = deepcopy(labels)
        labels[MASK] = NOTHING - labels[MASK]
        labels = self.transform(labels)
        if len(before["cls"]) and not len(labels["cls"]):
            return before
        labels[MASK] = NOTHING - labels[MASK]
        return labels


class KeepSources:
    """The last transform before Ultralytics' formatting: the mask leaves as `lt_codes`, (H / 2, W / 2), uint8."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """The labels without the mask."""
        labels["lt_codes"] = np.ascontiguousarray(labels.pop(MASK)[::STEP, ::STEP])
        return labels


def carry_sources(transforms: Compose, mixes: Sequence[BaseMixTransform], dataset: Any) -> None:
    """Let a data set's transforms treat the mask as this module says; the last of them is Ultralytics' formatting."""
    steps = transforms.transforms
    steps[:] = [MaskedAlbumentations(t) if getattr(t, "contains_spatial", False) else t for t in steps]
    steps.insert(len(steps) - 1, KeepSources())
    for mix in mixes:
        if isinstance(mix, MixUp):
            mix.apply_semantic = Overlay(dataset)
        elif isinstance(mix, CutMix):
            mix.get_params = AsWithoutMask(mix)


def anchor_codes(codes: np.ndarray, size: tuple[int, int], strides: Sequence[float]) -> np.ndarray:
    """The codes at the centres of all anchors, in Ultralytics' order, shape (B, A), uint8.

    Args:
        codes: Of `KeepSources`, shape (B, h, w).
        size: Height and width of the images as the network gets them, in pixels.
        strides: Of the head's levels.
    """
    levels = []
    for stride in strides:
        y, x = (
            (np.arange(int(n / stride)) + 0.5) * stride * kept / n
            for n, kept in zip(size, codes.shape[1:], strict=True)
        )
        levels.append(codes[:, y.astype(np.int64)[:, None], x.astype(np.int64)].reshape(len(codes), -1))
    return np.concatenate(levels, 1)


def batch_rows(palettes: Sequence[np.ndarray], codes: np.ndarray) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """The different sets of rows in a batch, and the set of every anchor; set 0, of no row, is the padding's.

    Args:
        palettes: Of `Palette.array`, one per image.
        codes: Of `anchor_codes`, shape (B, A).

    Returns:
        The sets, and indices into them, shape (B, A), int64.
    """
    sets: dict[tuple[int, ...], int] = {(): 0}
    index = np.zeros(codes.shape, np.int64)
    for image, palette in enumerate(palettes):
        lookup = np.zeros(256, np.int64)
        for code, rows in enumerate(palette):
            lookup[code] = sets.setdefault(tuple(dict.fromkeys(rows.tolist())), len(sets))
        index[image] = lookup[codes[image]]
    return list(sets), index
