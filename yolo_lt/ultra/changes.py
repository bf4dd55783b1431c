"""What is done to source images before mosaic, set up from the plan; and pictures of what was pasted."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import LOGGER
from ultralytics.utils.plotting import plot_images

from yolo_lt.balance.plan import Plan
from yolo_lt.balance.strategy import tail_images
from yolo_lt.ultra.augment import TailAugment
from yolo_lt.ultra.bank import Bank, build
from yolo_lt.ultra.dataset import BalancedDataset, Change
from yolo_lt.ultra.paste import TailPaste
from yolo_lt.ultra.preflight import PREFIX

PICTURES = 16  # as many as Ultralytics shows of a batch
LOOKED_AT = 1000  # images, until enough of them were pasted into


def make_changes(dataset: YOLODataset, plan: Plan, args: Any) -> list[Change]:
    """The changes that the plan asks for, in order: the image's own augmentation, then what is pasted into it.

    Args:
        dataset: The training images, as Ultralytics built them.
        plan: The recipe for these images.
        args: Ultralytics' keys, for seed and mirroring.

    Raises:
        LTError: A policy that cannot be read, or no instance that could be pasted.
    """
    keys, changes = plan.keys, list[Change]()
    if keys["tail_augment"]:
        changes.append(TailAugment(keys["tail_augment"], tail_images(plan.stats, plan.bins), dataset.data))
    if plan.paste_share:
        bank = build(dataset, plan, keys["paste_memory"], args.seed)
        LOGGER.info(f"{PREFIX}{bank_text(bank, plan)}")
        changes.append(TailPaste(bank, plan.paste_share, args.fliplr, args.flipud, dataset.channels))
    return changes


def bank_text(bank: Bank, plan: Plan) -> str:
    """What can be pasted, and what it takes of memory."""
    count = sum(map(len, bank.instances.values()))
    shape = "cut out along their polygons" if bank.polygons else "with a soft border (no polygons in the labels)"
    text = f"tail_paste: {count} instances of {len(bank.instances)} tail classes {shape}, {bank.nbytes / 1e6:.1f} MB"
    if bank.missing:
        names = ", ".join(plan.stats.names[c] for c in bank.missing)
        text += f"; none of {names} (cut by the image's border, covered, too small or large, or paste_memory is full)"
    return text


def draw_pasted(dataset: BalancedDataset, args: Any, path: Path, on_plot: Callable | None = None) -> None:
    """Draw source images into which an instance was pasted, as Ultralytics draws its training batches.

    The training's random numbers stay as they are.
    """
    paste = copy.copy(next(c for c in dataset.changes if isinstance(c, TailPaste)))  # its bank is large and only read
    paste.share, paste.look, state = 1.0, copy.deepcopy(paste.look), random.getstate()
    stock = copy.copy(dataset)  # without mosaic, its buffer and our changes
    stock.__class__, stock.augment = YOLODataset, False
    transforms = stock.build_transforms(args)
    samples: list[Any] = []
    try:
        random.seed(args.seed)
        for index in random.sample(range(len(stock)), min(len(stock), LOOKED_AT)):
            labels = paste(stock.get_image_and_label(index), index)
            if labels.pop("lt_pasted", None) is not None:
                samples.append(transforms(labels))
            if len(samples) == PICTURES:
                break
    finally:
        random.setstate(state)
    if samples:
        batch = stock.collate_fn(samples)
        plot_images(labels=batch, paths=batch["im_file"], fname=path, names=dataset.data["names"], on_plot=on_plot)
