import numpy as np
import pytest
from torch.utils.data import Dataset
from ultralytics.data.build import build_dataloader

from yolo_lt.balance.stream import epoch_indices
from yolo_lt.ultra.loader import StreamSampler, rank_and_world, with_sampler

FACTORS = np.linspace(1, 3, 37)


class Indices(Dataset):
    def __len__(self):
        return len(FACTORS)

    def __getitem__(self, index):
        return index


def loader(workers, sampler):
    return with_sampler(build_dataloader(Indices(), 4, workers, shuffle=True, device="cpu"), sampler)


def epoch_of(batches):
    return [int(i) for batch in batches for i in batch]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_is_its_own_stream_though_workers_prefetch(workers):
    it = loader(workers, StreamSampler(FACTORS, seed=5))
    for epoch in range(4):
        it.sampler.set_epoch(99)  # what Ultralytics calls, too late, under DDP
        assert epoch_of(it) == epoch_indices(FACTORS, 5, epoch).tolist()
    it.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restart_draws_the_epoch_it_is_told(workers):
    """The closing of mosaic and a resume restart the loader; prefetched epochs must not be skipped."""
    it = loader(workers, StreamSampler(FACTORS, seed=5))
    epoch_of(it)
    it.sampler.epoch = 1
    it.reset()
    assert epoch_of(it) == epoch_indices(FACTORS, 5, 1).tolist()
    assert epoch_of(it) == epoch_indices(FACTORS, 5, 2).tolist()
    it.close()


def test_length_is_constant_and_equal_over_ranks():
    samplers = [StreamSampler(FACTORS, 0, rank, 3) for rank in range(3)]
    for _ in range(3):
        lengths = {len(list(s)) for s in samplers} | {len(s) for s in samplers}
        assert len(lengths) == 1
    assert samplers[0].epoch == 3


def test_settings_of_the_stock_loader_are_kept():
    stock = build_dataloader(Indices(), 4, 2, shuffle=True, device="cpu")
    ours = with_sampler(stock, StreamSampler(FACTORS, 0))
    kept = ("batch_size", "num_workers", "prefetch_factor", "pin_memory", "worker_init_fn", "generator", "drop_last")
    for name in (*kept, "collate_fn", "dataset"):
        assert getattr(ours, name) == getattr(stock, name), name


def test_a_single_process_is_rank_0_of_1():
    assert rank_and_world(-1) == (0, 1)
