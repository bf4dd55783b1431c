"""Partners and exposure at the loader that training uses, over augmentations, caches and workers."""

import pickle

import numpy as np
import pytest
from conftest import write_yolo_set
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import CutMix, MixUp, Mosaic
from ultralytics.data.build import build_dataloader, build_yolo_dataset

from yolo_lt.balance import repeat_factors
from yolo_lt.balance.stream import epoch_indices
from yolo_lt.ultra.dataset import BalancedDataset, mix_transforms
from yolo_lt.ultra.labels import load_data, stats_of
from yolo_lt.ultra.loader import StreamSampler, with_sampler

ROWS = [[0]] * 186 + [[1]] * 12 + [[2]] * 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(write_yolo_set(tmp_path_factory.mktemp("mix"), ROWS, ["a", "b", "c"], size=32))


def stock(data, **hyp):
    settings = {"mosaic": 0.0, "mixup": 0.0, "cutmix": 0.0, "cache": False, "augmentations": [], **hyp}
    return build_yolo_dataset(get_cfg(overrides={"imgsz": 32, **settings}), data["train"], 8, data, stride=32)


def balanced(data, factors=None, partners=True, **hyp):
    dataset = stock(data, **hyp)
    if factors is None:
        factors = repeat_factors(stats_of(dataset.labels, data), thr=0.9)
    return BalancedDataset.adopt(dataset, factors, partners)


def draws(dataset, epochs, workers=0):
    """Source images drawn over some epochs, shape (N,)."""
    loader = build_dataloader(dataset, 8, workers, shuffle=True, device="cpu")
    loader = with_sampler(loader, StreamSampler(dataset.factors, seed=0, fixed=True))
    counts = np.zeros(len(dataset))
    for _ in range(epochs):
        for batch in loader:
            for tiles in batch["lt_tiles"]:
                counts += np.bincount(tiles, minlength=len(dataset))
    loader.close()
    return counts


def class_shares(dataset, counts):
    stats = stats_of(dataset.labels, dataset.data)
    return stats.images_with(counts) / counts.sum()


@pytest.mark.parametrize(
    ("hyp", "workers"),
    [
        ({"mosaic": 1.0}, 0),
        ({"mosaic": 1.0, "cache": "ram"}, 0),
        ({"mosaic": 0.5, "mixup": 1.0}, 2),
        ({"cutmix": 1.0, "cache": "disk"}, 0),
        ({"mosaic": 1.0, "mixup": 0.5, "cutmix": 0.5}, 2),
    ],
)
def test_tiles_follow_the_factors(data, hyp, workers):
    dataset = balanced(data, **hyp)
    counts = draws(dataset, epochs=20, workers=workers)
    asked = class_shares(dataset, dataset.factors)
    # primaries are exact to one draw per epoch; partners are about independent, tripled in variance by being recent
    sigma = np.sqrt(3 * asked * (1 - asked) / counts.sum())
    assert (np.abs(class_shares(dataset, counts) - asked) < 4 * sigma).all()
    assert (4 * sigma < 0.35 * asked).all(), "too few draws to see a dilution"


def test_without_balanced_partners_the_sampler_is_diluted(data):
    """The silent failure this data set exists for: with cache=ram only one tile of four follows the sampler."""
    dataset = balanced(data, partners=False, mosaic=1.0, cache="ram")
    counts = draws(dataset, epochs=8)
    asked, real = class_shares(dataset, dataset.factors), class_shares(dataset, counts)
    assert real[2] < 0.6 * asked[2]


@pytest.mark.parametrize(("hyp", "tiles"), [({}, 1), ({"mosaic": 1.0}, 4), ({"mosaic": 1.0, "mixup": 1.0}, 8)])
def test_every_source_image_is_recorded(data, hyp, tiles):
    dataset = balanced(data, **hyp)
    for index in range(10):
        found = dataset[index]["lt_tiles"]
        assert len(found) == tiles
        assert found[0] == index


def test_equal_factors_draw_mosaic_partners_exactly_as_stock(data):
    """With factor 1 the law is Ultralytics' own; from one seed even the drawn images are the same."""
    import random

    dataset = balanced(data, factors=np.ones(len(ROWS)), mosaic=1.0)
    plain, order = stock(data, mosaic=1.0), np.random.default_rng(0).permutation(150)
    for index in order:
        random.seed(int(index))
        np.random.seed(int(index))
        ours = dataset[int(index)]
        random.seed(int(index))
        np.random.seed(int(index))
        theirs = plain[int(index)]
        assert (ours["img"] == theirs["img"]).all()
        assert (ours["bboxes"] == theirs["bboxes"]).all()


def test_without_balanced_partners_mosaic_draws_exactly_as_stock_also_when_images_come_again(data):
    """Images that the sampler repeats must not change what stays in Ultralytics' memory."""
    import random

    dataset, plain = balanced(data, partners=False, mosaic=1.0), stock(data, mosaic=1.0)
    order = [int(i) for epoch in range(2) for i in epoch_indices(dataset.factors, 0, epoch, fixed=True)]
    assert len(set(order)) < len(order)
    drawn = []
    for each in (dataset, plain):
        random.seed(0)
        np.random.seed(0)
        drawn.append([each[i]["img"] for i in order])
    assert all((ours == theirs).all() for ours, theirs in zip(*drawn, strict=True))


def test_closing_mosaic_keeps_the_rule_for_what_is_left(data):
    dataset = balanced(data, mosaic=1.0, mixup=1.0)
    dataset.close_mosaic(get_cfg(overrides={"augmentations": []}))
    assert len(dataset[0]["lt_tiles"]) == 1
    assert all("get_indexes" in vars(t) for t in mix_transforms(dataset.transforms))


def test_all_mix_transforms_are_found_once(data):
    found = mix_transforms(stock(data).transforms)
    assert {Mosaic, MixUp, CutMix} <= {type(t) for t in found}
    assert len({id(t) for t in found}) == len(found)


def test_it_pickles_for_spawned_workers(data):
    again = pickle.loads(pickle.dumps(balanced(data, mosaic=1.0, mixup=1.0)))
    assert len(again[3]["lt_tiles"]) == 8


@pytest.mark.parametrize("cache", [False, "ram"])
@pytest.mark.parametrize("rows", [[[0]], [[0], [], []]], ids=["one image", "two of three without labels"])
def test_the_smallest_sets_mix_with_themselves(tmp_path, rows, cache):
    data = load_data(write_yolo_set(tmp_path, rows, ["a"], size=32))
    dataset = balanced(data, mosaic=1.0, mixup=1.0, cutmix=0.5, cache=cache)
    for epoch in range(3):
        for index in epoch_indices(dataset.factors, 0, epoch):
            tiles = dataset[int(index)]["lt_tiles"]
            assert set(tiles) <= set(range(len(rows)))
            assert len(tiles) in (8, 12)


@pytest.mark.parametrize("hyp", [{"mosaic": 1.0}, {"mosaic": 1.0, "mixup": 1.0}, {"mosaic": 0.5, "cutmix": 0.5}])
def test_no_more_images_are_decoded_than_by_stock(data, hyp, monkeypatch):
    """Mosaic's partners are in memory; a partner that has to be decoded again would push out others."""
    from ultralytics.data import base

    def decoded(dataset):
        reads = []
        monkeypatch.setattr(base, "imread", lambda f, flags: reads.append(f) or imread(f, flags=flags))
        order = [int(i) for e in range(3) for i in epoch_indices(factors, 0, e)]
        for index in order:
            dataset[index]
        return len(reads) / len(order)

    imread = base.imread
    ours = balanced(data, **hyp)
    factors = ours.factors
    assert decoded(ours) <= 1.02 * decoded(stock(data, **hyp))
