"""Neutrality in both tiers of the design: what is not asked for does not happen."""

import csv

import pytest
import torch
from ultralytics import YOLO

from yolo_lt import YOLOLT
from yolo_lt.ultra.trainer import LTDetectionTrainer

EPOCHS = 4  # of 6 iterations: 24


def losses(folder):
    """Ultralytics' own columns, in their order; ours are beside them."""
    with (folder / "results.csv").open() as f:
        rows = [list(row.items()) for row in csv.DictReader(f)]
    return [[(k, v) for k, v in row if k != "time" and not k.startswith("lt/")] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["yolo11n.yaml", "yolo26n.yaml"])
def test_baseline_is_stock_ultralytics_bit_for_bit(toy, tiny, tmp_path, model):
    keys = {**tiny, "data": str(toy), "epochs": EPOCHS, "project": str(tmp_path), "close_mosaic": 1}
    YOLO(model).train(**keys, augmentations=[], name="stock")
    YOLOLT(model).train(**keys, recipe="baseline", name="ours")
    assert losses(tmp_path / "ours") == losses(tmp_path / "stock")
    for name in ("last.pt", "best.pt"):
        ours, stock = (YOLO(tmp_path / run / "weights" / name).model.state_dict() for run in ("ours", "stock"))
        assert ours.keys() == stock.keys()
        assert all(torch.equal(ours[k], stock[k]) for k in stock)


class Both:
    """Our criterion, with the stock one beside it on the same predictions and batch."""

    def __init__(self, ours, stock):
        self.ours, self.stock, self.pairs = ours, stock, []

    def __call__(self, preds, batch):
        loss, items = self.ours(preds, batch)
        self.pairs.append((loss.detach(), self.stock(preds, batch)[0].detach()))
        return loss, items

    def update(self):
        for criterion in (self.ours, self.stock):
            getattr(criterion, "update", int)()


class Watched(LTDetectionTrainer):
    """Training with everything of ours installed, at neutral settings."""

    def _setup_train(self):
        super()._setup_train()
        self.model.criterion = Both(self.model.criterion, self.model.init_criterion())
        Watched.seen = self.model.criterion
        Watched.parts = (type(self.train_loader.sampler).__name__, type(self.train_loader.dataset).__name__)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["yolo11n.yaml", "yolo26n.yaml"])
def test_our_parts_at_neutral_settings_give_the_stock_loss(toy, tiny, tmp_path, model, monkeypatch):
    monkeypatch.setitem(__import__("yolo_lt.ultra.trainer", fromlist=["TRAINERS"]).TRAINERS, "detect", Watched)
    neutral = {"sampler": "rfs", "repeat_thr": 1e-9, "cls_loss": "cb", "cb_beta": 0}
    YOLOLT(model).train(**tiny, **neutral, data=str(toy), epochs=EPOCHS, project=str(tmp_path), val=False)
    assert Watched.parts == ("StreamSampler", "BalancedDataset")
    assert len(Watched.seen.pairs) >= 20
    for ours, stock in Watched.seen.pairs:
        torch.testing.assert_close(ours, stock, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_our_validator_leaves_ultralytics_metrics_as_they_are(toy, tiny, tmp_path):
    weights = YOLO("yolov8n.yaml")
    weights.train(**tiny, data=str(toy), epochs=2, project=str(tmp_path), name="w", augmentations=[])
    best = tmp_path / "w" / "weights" / "best.pt"
    keys = {"data": str(toy), "imgsz": 64, "plots": False, "project": str(tmp_path), "device": "cpu"}
    stock = YOLO(best).val(**keys, name="stock")
    model = YOLOLT(best)
    model.val(**keys, name="ours", bootstrap=0)
    assert model.metrics.results_dict == stock.results_dict
