"""The training loader with our index stream instead of Ultralytics' shuffle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import Sampler
from ultralytics.data.build import InfiniteDataLoader

from yolo_lt.balance.stream import epoch_indices, epoch_length

CHUNK = 4096  # indices turned into Python's integers at a time


class StreamSampler(Sampler[int]):
    """Feeds the pure index stream of `balance.stream` to a loader, one epoch per `__iter__`.

    It owns its epoch: Ultralytics calls `set_epoch` only under DDP, and one epoch late when workers prefetch. Whoever
    restarts the loader (resume, the closing of mosaic, NaN recovery) sets `epoch` to the epoch that comes next.
    """

    def __init__(
        self,
        factors: np.ndarray,
        seed: int,
        rank: int = 0,
        world: int = 1,
        fixed: bool = False,
        epoch: int = 0,
    ) -> None:
        self.factors, self.seed, self.rank, self.world, self.fixed = factors, seed, rank, world, fixed
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Indices of the current epoch; the next call yields the next one."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        indices = epoch_indices(self.factors, self.seed, epoch, self.rank, self.world, self.fixed)
        for i in range(0, len(indices), CHUNK):  # a list of a whole epoch takes five times the memory of the array
            yield from indices[i : i + CHUNK].tolist()

    def __len__(self) -> int:
        """Draws per epoch of this rank, the same in every epoch and on every rank."""
        return epoch_length(self.factors, self.world, self.fixed) // self.world

    def set_epoch(self, epoch: int) -> None:
        """Ignored: by the time Ultralytics calls it, prefetching workers may already be in that epoch."""


def rank_and_world(rank: int) -> tuple[int, int]:
    """Rank and world for a loader that Ultralytics builds for `rank`; -1 stands for a single process."""
    return (dist.get_rank(), dist.get_world_size()) if rank != -1 and dist.is_initialized() else (0, 1)


def with_sampler(stock: InfiniteDataLoader, sampler: Any = None, **changed: Any) -> InfiniteDataLoader:
    """The same loader with another sampler (None: its own), data set or collate function.

    DataLoader forbids to change them, so it is built anew from its settings.
    """
    pin_device = {"pin_memory_device": stock.pin_memory_device} if getattr(stock, "pin_memory_device", "") else {}
    settings = {
        "dataset": stock.dataset,
        "batch_size": stock.batch_size,
        "sampler": stock.sampler if sampler is None else sampler,
        "num_workers": stock.num_workers,
        "prefetch_factor": stock.prefetch_factor,
        "pin_memory": stock.pin_memory,
        "collate_fn": stock.collate_fn,
        "worker_init_fn": stock.worker_init_fn,
        "generator": stock.generator,
        "drop_last": stock.drop_last,
    }
    loader = InfiniteDataLoader(**{**settings, **pin_device, **changed})
    stock.close()
    return loader
