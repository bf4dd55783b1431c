"""Pictures at the end of a training: drawn of what was measured, and known to Ultralytics' loggers."""

from importlib import import_module

import cv2
import pytest
from test_epochs import FAST, Tracker, trained

from yolo_lt import YOLOLT
from yolo_lt.report import charts
from yolo_lt.ultra import run_plots

OURS = {"training_by_bin", "exposure_by_bin", "ap_by_images", "pr_by_bin", "calibration_by_bin"}


def train(folder, callbacks=(), **keys):
    start, data = trained()
    yolo = YOLOLT(start)
    for event, callback in callbacks:
        yolo.add_callback(event, callback)
    yolo.train(**{**FAST, "plots": True, "mosaic": 1, **keys}, data=str(data), project=str(folder), name="run")
    return yolo


@pytest.mark.slow
def test_loggers_get_the_pictures_of_what_val_says_of_best(tmp_path, monkeypatch):
    wandb, tracker, seen = import_module("ultralytics.utils.callbacks.wb"), Tracker(), {}
    monkeypatch.setattr(wandb, "wb", tracker)
    monkeypatch.setattr(wandb, "_processed_plots", {}, raising=False)
    real = charts.ap_by_images
    monkeypatch.setattr(run_plots.charts, "ap_by_images", lambda r: seen.update(report=r) or real(r))
    events = ("on_pretrain_routine_end", "on_train_epoch_end", "on_fit_epoch_end", "on_train_end")
    train(tmp_path, [(event, getattr(wandb, event)) for event in events], epochs=2)
    logged = {name for _, metrics in tracker.logged for name in metrics}
    assert logged >= OURS
    for name in OURS:
        assert (cv2.imread(str(tmp_path / "run" / f"{name}.png")) < 250).any(axis=2).mean() > 0.01
    best = YOLOLT(tmp_path / "run" / "weights" / "best.pt")
    report = best.val(data=str(trained()[1]), imgsz=64, bootstrap=0, plots=False, project=str(tmp_path), name="val")
    keys = ("AP", "AP50", "AP75")
    for name in ("head", "medium", "tail"):
        drawn = seen["report"]["metrics"][name]
        assert [drawn[k] for k in keys] == pytest.approx([report.metrics[name][k] for k in keys], abs=1e-6)
    assert [c["train_images"] for c in seen["report"]["per_class"]] == [c["train_images"] for c in report.per_class]


@pytest.mark.slow
def test_without_plots_nothing_is_drawn(tmp_path):
    yolo = train(tmp_path, epochs=1, plots=False)
    assert not list((tmp_path / "run").glob("*.png"))
    assert not {p.stem for p in yolo.trainer.plots} & OURS


@pytest.mark.slow
def test_one_epoch_is_no_curve_and_stock_counts_no_exposure(tmp_path):
    yolo = train(tmp_path, epochs=1, recipe="baseline")
    assert {p.stem for p in yolo.trainer.plots} & OURS == OURS - {"exposure_by_bin", "training_by_bin"}


def test_nothing_to_draw_is_no_error(tmp_path):
    class Validator:
        found = None

    run_plots.draw_run(tmp_path, Validator(), None, on_plot=pytest.fail)
    assert charts.training_by_bin({"training": None}) is None
