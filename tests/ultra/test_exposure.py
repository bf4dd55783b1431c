"""Realised exposure at the loaders of the trainers, over the pairwise list of scripts/measure_exposure.py."""

import importlib.util

import numpy as np
import pytest
from conftest import ROOT, write_yolo_set

from yolo_lt.balance.exposure import Exposure

spec = importlib.util.spec_from_file_location("measure_exposure", ROOT / "scripts" / "measure_exposure.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
Row, ROWS = script.Row, script.ROWS

# errors by bin that are four standard errors; the script runs longer, until 5 % are in every bin
VISIBLE = (0.075, 0.075, 0.1)


def named(row):
    return "-".join(map(str, row))


def test_the_list_covers_every_pair():
    assert script.uncovered(ROWS) == set()
    assert script.uncovered(ROWS[:-1]) != set()


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=named)
def test_tile_draws_agree_with_the_asked_distribution(tmp_path, row):
    data = script.write_set(tmp_path / "set", row.images)
    draws = 1280 if row.mosaic and row.cache != "ram" else 640  # partners from recent draws vary most in short runs
    found = script.measure(row, data, True, 10, draws, first_seed=1000 * ROWS.index(row), visible=VISIBLE)
    assert found.see(VISIBLE), "too few draws"
    assert (np.abs(found.z) < 4).all(), found


@pytest.mark.parametrize("row", [Row(1, 0, 0, "ram", 0, "small"), Row(0, 1, 0, "none", 0, "small")], ids=named)
def test_the_check_fails_for_the_sampler_alone(tmp_path, row):
    """What the check is for: in stock Ultralytics a sampler reaches the first image only."""
    data = script.write_set(tmp_path / "set", row.images)
    stock = script.measure(row, data, ours=False, replicates=8, draws=320, most=8)
    ours = script.measure(row, data, ours=True, replicates=8, draws=320, most=8)
    assert (np.abs(stock.z) > 4).all()
    assert stock.ratio[2] < 0.7
    assert (np.abs(ours.z) < 4).all()


PLAIN = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr"), 0.0)
MANY = [[0, 0, 0]] * 20 + [[0, 1], [1, 1, 0]] * 4 + [[2, 1]] + [[]] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_without_augmentation_the_boxes_are_the_labels_of_the_drawn_images(tmp_path, workers):
    data = write_yolo_set(tmp_path / "set", MANY, ["a", "b", "c"], size=32)
    trainer = script.trainer_of(Row(0, 0, 0, "none", workers, "small"), data, ours=True, **PLAIN)
    loader = script.fresh_loader(trainer, seed=0)
    trainer.counted = Exposure(trainer.plan)
    drawn = []
    for _ in range(3):
        for batch in loader:
            tiles, cls = batch["lt_tiles"], batch["cls"].flatten().int().tolist()
            assert all(len(t) == 1 for t in tiles)
            labels = [loader.dataset.labels[i]["cls"].flatten().astype(int).tolist() for (i,) in tiles]
            assert cls == [c for row in labels for c in row]
            assert batch["batch_idx"].tolist() == [at for at, row in enumerate(labels) for _ in row]
            drawn += [MANY[i] for (i,) in tiles]
            trainer.preprocess_batch(batch)
    loader.close()
    assert trainer.counted.boxes.tolist() == [sum(row.count(c) for row in drawn) for c in range(3)]
    assert trainer.counted.tiles.sum() == len(drawn) == 3 * len(loader.sampler)
    assert trainer.counted.boxes[2] > 3, "the tail is repeated"


def test_with_augmentation_the_boxes_are_those_that_survive_cropping(tmp_path):
    data = write_yolo_set(tmp_path / "set", MANY, ["a", "b", "c"], size=32)
    trainer = script.trainer_of(Row(1, 0.5, 0.5, "none", 0, "small"), data, ours=True)
    loader, arrived, labelled = script.fresh_loader(trainer, seed=0), np.zeros(3, int), np.zeros(3, int)
    trainer.counted = Exposure(trainer.plan)
    for _ in range(5):
        for batch in loader:
            arrived += np.bincount(batch["cls"].flatten().int(), minlength=3)
            labelled += np.bincount([c for tiles in batch["lt_tiles"] for i in tiles for c in MANY[i]], minlength=3)
            trainer.preprocess_batch(batch)
    assert (trainer.counted.boxes == arrived).all()
    assert (arrived > 0).all(), arrived
    assert (arrived < labelled).all(), (arrived, labelled)
