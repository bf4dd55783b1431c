"""The training data set: partners drawn by the factors, source images changed, and all of it recorded."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ultralytics.data.augment import BaseMixTransform, Compose, Mosaic
from ultralytics.data.dataset import YOLODataset

from yolo_lt.ultra.sources import MASK, Palette, carry_sources

Change = Callable[[dict[str, Any], int], dict[str, Any]]


class BalancedDataset(YOLODataset):
    """Ultralytics' data set with partners that follow the sampler; every sample carries its source images.

    Stock mosaic takes its partners from the distinct images loaded of late, mixup and cutmix (and mosaic with
    cache=ram) from all images alike, so a sampler's bias reaches only the first of four tiles.

    `changes` are applied to every source image with its labels, before mosaic: tail paste, tail augmentation. With
    `rows`, the row of every image in the federated index, a sample also carries which of them is seen where.
    """

    factors: np.ndarray
    borders: np.ndarray  # running sum of the factors, shared by all transforms
    balance_partners: bool
    changes: Sequence[Change]
    rows: np.ndarray | None
    palette: Palette
    recent: list[int]
    tiles: list[int]
    pasted: list[int]

    @classmethod
    def adopt(
        cls,
        dataset: YOLODataset,
        factors: np.ndarray,
        balance_partners: bool,
        changes: Sequence[Change] = (),
        rows: np.ndarray | None = None,
    ) -> BalancedDataset:
        """Turn a data set that Ultralytics built into ours, in place: its builder has no argument for the class."""
        dataset.__class__ = cls
        dataset.balance_partners, dataset.changes, dataset.rows = balance_partners, changes, rows
        dataset.recent, dataset.tiles, dataset.pasted = [], [], []
        dataset.set_factors(factors)
        dataset._prepare(dataset.transforms)
        return dataset

    def set_factors(self, factors: np.ndarray) -> None:
        """Draw partners by these factors from now on, shape (N,); workers that run already keep the old ones."""
        self.factors, self.borders = factors, np.cumsum(factors)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The transformed sample, with `lt_tiles`: all images it is made of, and `lt_pasted`: classes pasted in.

        With a federated index, also `lt_codes` of `sources.KeepSources` and `lt_rows` of `sources.Palette`.
        """
        self.tiles, self.pasted, self.palette = [], [], Palette()
        self._remember(index)
        sample = super().__getitem__(index)
        sample["lt_tiles"] = tuple(self.tiles)
        sample["lt_pasted"] = tuple(self.pasted)
        if self.rows is not None:
            sample["lt_rows"] = self.palette.array()
        return sample

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Load one source image; every tile of a mosaic, mixup or cutmix comes through here."""
        self.tiles.append(index)
        labels = super().get_image_and_label(index)
        for change in self.changes:
            labels = change(labels, index)
        if "lt_pasted" in labels:  # mosaic keeps no key of ours
            self.pasted.append(labels.pop("lt_pasted"))
        if self.rows is not None:
            labels[MASK] = np.full(labels["img"].shape[:2], self.palette.code([int(self.rows[index])]), np.uint8)
        return labels

    def build_transforms(self, hyp: Any) -> Compose:
        """Ultralytics' transforms, rebuilt when mosaic closes, with our partner rule and the mask of sources."""
        return self._prepare(super().build_transforms(hyp))

    def _prepare(self, transforms: Compose) -> Compose:
        mixes = mix_transforms(transforms)
        for mix in mixes if self.balance_partners else ():
            mix.get_indexes = Partners(self, mix)
        if self.rows is not None:
            carry_sources(transforms, mixes, self)
        return transforms

    def _remember(self, index: int) -> None:
        """Keep the last draws, repeats included, as far back as their images are in memory.

        Ultralytics drops first what it loaded first. An image that is drawn again must count as loaded again, or the
        sampler's favourites would be dropped, decoded anew as partners, and push out others.
        """
        if self.cache == "ram" or not self.balance_partners:  # nobody draws from `recent`; stock's memory stays stock's
            return
        if index in self.buffer:
            self.buffer.remove(index)
            self.buffer.append(index)
        # partners of mixup take room too
        dropped = [i for i, drawn in enumerate(self.recent) if self.ims[drawn] is None]
        del self.recent[: dropped[-1] + 1 if dropped else 0]
        self.recent.append(index)
        if 1 < len(self.recent) >= self.max_buffer_length:
            self.recent.pop(0)


class Partners:
    """Draws partner indices for one mix transform; it stands where the transform looks up `get_indexes`.

    Mosaic draws from the recent draws of this worker, whose images are in memory and whose law is the sampler's (with
    cache=ram everything is in memory); mixup, cutmix and copy-paste draw from all images by the factors. With equal
    factors both are Ultralytics' own law.
    """

    def __init__(self, dataset: BalancedDataset, mix: BaseMixTransform) -> None:
        self.dataset = dataset
        self.count = mix.n - 1 if isinstance(mix, Mosaic) else 0  # 0: the transform expects a single index
        self.from_recent = isinstance(mix, Mosaic) and mix.buffer_enabled

    def __call__(self) -> int | list[int]:
        """One index, or a list of them for mosaic."""
        if self.from_recent:
            return random.choices(self.dataset.recent, k=self.count)
        if not self.count:
            return self._draw()
        return [self._draw() for _ in range(self.count)]

    def _draw(self) -> int:
        borders = self.dataset.borders
        at = int(np.searchsorted(borders, random.random() * borders[-1], side="right"))
        return min(at, len(borders) - 1)


def mix_transforms(transform: Any) -> list[BaseMixTransform]:
    """All mix transforms inside a transform, those inside their own pre-transforms included, each once."""
    found: dict[int, BaseMixTransform] = {}
    queue = [transform]
    while queue:
        t = queue.pop()
        if isinstance(t, Compose):
            queue += t.transforms
        elif isinstance(t, BaseMixTransform) and id(t) not in found:
            found[id(t)] = t
            queue.append(t.pre_transform)
    return list(found.values())
