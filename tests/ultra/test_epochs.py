"""Metrics by bin after every epoch: where they come from, where they go, and what best.pt is by them."""

import csv
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import yaml
from conftest import NAMES, SCRATCH, write_yolo_set
from ultralytics.models.yolo.detect import DetectionValidator

from yolo_lt import YOLOLT
from yolo_lt.cli import main
from yolo_lt.dataset.bins import Bins
from yolo_lt.errors import LTError
from yolo_lt.ultra import epochs
from yolo_lt.ultra.epochs import EpochMetrics, check_select, fitness

ROWS = [[0], [1], [2], [0, 1], [0]] * 6 + [[0]] * 12  # the first of them, which val repeats, hold every class
FAST = {"imgsz": 64, "batch": 8, "optimizer": "AdamW", "lr0": 1e-4, "warmup_epochs": 0, "mosaic": 0, "nbs": 8}
FAST |= {"device": "cpu", "plots": False, "verbose": False}
METRICS = ("AP", "AP50", "AP75", "AR")
EVERY = [f"lt/{m}({row})" for row in ("all", "head", "medium", "tail") for m in METRICS]


@cache
def trained():
    """A network that finds objects of every bin, so that no number is 0 by accident, and its data. Read only."""
    folder = Path(SCRATCH) / "trained"
    data, keys = write_yolo_set(folder / "set", ROWS, NAMES, val=20), {**FAST, "lr0": 3e-3, "cos_lr": True}
    keys |= {"recipe": "rfs", "epochs": 14, "val": False, "save": False}  # the last epoch is saved anyway
    YOLOLT("yolov8n.yaml").train(**keys, data=str(data), project=str(folder), name="run")
    return folder / "run" / "weights" / "last.pt", data


@pytest.fixture
def start():
    return trained()[0]


@pytest.fixture
def three():
    return trained()[1]


def train(model, data, folder, epochs=1, name="run", **keys):
    """Train; the trainer."""
    yolo = YOLOLT(model)
    yolo.train(**{**FAST, **keys}, data=str(data), epochs=epochs, project=str(folder), name=name)
    return yolo.trainer


def table(folder):
    with (folder / "results.csv").open() as f:
        return list(csv.DictReader(f))


def ours(row):
    return {k: float(v) for k, v in row.items() if k.startswith("lt/")}


# What is computed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "medium", "tail", "expected"),
    [
        (0.6, 0.3, 0.2, {"balanced": 1.1 / 3, "tail": 0.2, "harmonic": 0.3}),
        (0.6, 0.3, 0.0, {"balanced": 0.3, "tail": 0.0, "harmonic": 0.0}),
        (0.6, None, 0.2, {"balanced": 0.4, "tail": 0.2, "harmonic": 0.3}),
        (0.6, 0.3, None, {"balanced": 0.45, "harmonic": 0.4}),
        (0.0, None, None, {"balanced": 0.0, "harmonic": 0.0}),
        (None, None, None, {"balanced": 0.0, "tail": 0.0, "harmonic": 0.0}),  # NaN would start a recovery
    ],
)
def test_the_fitness_is_a_mean_over_the_bins_that_have_a_value(head, medium, tail, expected):
    metrics = {"all": {"AP": 0.9}, "head": {"AP": head}, "medium": None, "tail": {"AP": tail}}
    for shown in ({"AP": medium}, None) if medium is None else ({"AP": medium},):
        found = {select: fitness(select, {**metrics, "medium": shown}) for select in expected}
        assert found == pytest.approx(expected)


def bins(**ids):
    return Bins.from_dict(ids, "given")


@pytest.mark.parametrize(
    ("select", "shown", "refused"),
    [
        ("tail", [1, 1, 0], "tail"),
        ("tail", [0, 0, 1], None),
        ("balanced", [0, 0, 0], "head or medium or tail"),
        ("balanced", [0, 1, 0], None),
        ("harmonic", [0, 0, 0], "head or medium or tail"),
        ("harmonic", [1, 0, 0], None),
        ("map", [0, 0, 0], None),
    ],
)
def test_a_choice_that_the_images_cannot_show_is_refused(select, shown, refused):
    args = select, bins(head=[0], medium=[1], tail=[2]), np.array(shown, bool)
    if refused is None:
        return check_select(*args)
    with pytest.raises(LTError, match=f"^select={select}: no class of {refused} is in the images"):
        check_select(*args)


@pytest.mark.parametrize(
    ("shown", "protocol", "rows"),
    [
        ([1, 1, 1], "coco", ("all", "head", "medium", "tail")),
        ([1, 0, 1], "coco", ("all", "head", "tail")),
        ([1, 0, 1], "openimages", ("all", "head", "tail")),
        ([0, 1, 0], "lvis", ("all", "medium")),
        ([0, 0, 0], "coco", ()),
    ],
)
def test_a_bin_that_the_images_do_not_show_has_no_column(shown, protocol, rows):
    found = EpochMetrics(NAMES, bins(head=[0], medium=[1], tail=[2]), np.array(shown, bool), protocol).columns
    known = [m for m in METRICS if (m, protocol) != ("AP75", "openimages")]
    assert found == [f"lt/{m}({row})" for row in rows for m in known]


def test_a_class_in_no_bin_shows_in_all_alone():
    shown = np.array([0, 0, 0, 1], bool)
    found = EpochMetrics([*NAMES, "unseen"], bins(head=[0], medium=[1], tail=[2], unseen=[3]), shown).columns
    assert found == [f"lt/{m}(all)" for m in METRICS]


# Where it goes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cfg"),
    [("detect", "yolov8n.yaml"), ("segment", "yolo11n-seg.yaml"), ("pose", "yolov8n-pose.yaml"),
     ("obb", "yolo26n-obb.yaml")],
)  # fmt: skip
def test_skipped_epochs_have_zeros_in_the_columns_of_the_others(tmp_path, kind, cfg):
    data, shown = write_yolo_set(tmp_path / "set", ROWS, NAMES, val=10, kind=kind), []
    yolo, keys = YOLOLT(cfg), {**FAST, "data": str(data), "project": str(tmp_path)}
    yolo.add_callback("on_fit_epoch_end", lambda trainer: shown.append(dict(trainer.metrics)))
    yolo.train(**keys, epochs=2, val=False, name="last")
    train(cfg, data, tmp_path, name="every")
    (every,), last = (table(tmp_path / name) for name in ("every", "last"))
    assert list(every) == list(last[0])
    assert [c for c in every if c.startswith("lt/")] == EVERY
    assert all(len(row) == len(every) and None not in row.values() for row in last)
    assert {last[0][c] for c in shown[0]} == {"0"}
    assert {c: float(last[1][c]) for c in shown[1]} == pytest.approx(shown[1], rel=1e-4)
    assert shown[1]["val/box_loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, {"bins": [6, 12]}], ids=["plain", "bins"])
def test_the_last_row_is_what_val_says_of_last(three, start, tmp_path, keys, monkeypatch):
    """To the last digit if the checkpoint keeps full precision; the half of it moves a few detections."""
    monkeypatch.setattr(torch.nn.Module, "half", lambda self: self)
    trainer = train(start, three, tmp_path, **keys)
    plain = {"imgsz": 64, "plots": False, "project": str(tmp_path), "device": "cpu", "bootstrap": 0}
    report = YOLOLT(trainer.last).val(data=str(three), **plain)
    expected = {f"lt/{m}({row})": report.metrics[row][m] for row in report.metrics for m in METRICS}
    found = ours(table(tmp_path / "run")[-1])
    assert found == pytest.approx(expected, abs=1e-5)
    assert min(found.values()) > 0.05, "zeros show nothing"


@pytest.mark.slow
def test_the_columns_are_in_the_metrics_and_in_tensorboard(three, start, tmp_path, monkeypatch, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter
    from ultralytics.utils.callbacks import tensorboard

    monkeypatch.setattr(tensorboard, "WRITER", SummaryWriter(str(tmp_path / "events")), raising=False)
    yolo = YOLOLT(start)
    for event in ("on_fit_epoch_end", "teardown"):
        yolo.add_callback(event, getattr(tensorboard, event))
    yolo.train(**FAST, data=str(three), epochs=2, project=str(tmp_path), name="run")
    assert set(EVERY) <= set(yolo.trainer.metrics)
    assert "fitness" not in yolo.trainer.metrics
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    rows = table(tmp_path / "run")
    for name in EVERY:
        logged = events.Scalars(name)
        assert [e.step for e in logged] == [1, 2, 3], "two epochs, and best.pt after the last"
        assert [e.value for e in logged][:2] == pytest.approx([float(r[name]) for r in rows])
    assert caplog.text.count("(protocol coco, head one2many)") == 3


class Tracker:
    """Stands in for a package that is not installed, and keeps what it is given."""

    def __init__(self):
        self.logged, self.run = [], None

    def log_metrics(self, metrics, step):
        self.logged.append((step, metrics))

    def log(self, metrics, step=None, commit=True):  # releases differ in where they say the epoch
        self.logged.append((metrics.get("epoch", 0) - 1 if step is None else step - 1, metrics))

    def init(self, **kw):
        self.run = self

    def __getattr__(self, name):
        return MagicMock()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlflow", "wb"])
def test_mlflow_and_wandb_get_the_columns(three, start, tmp_path, monkeypatch, name):
    """Ultralytics keeps MLflow out of tests whose name does not say `test_mlflow`."""
    module, tracker = import_module(f"ultralytics.utils.callbacks.{name}"), Tracker()
    monkeypatch.setattr(module, "mlflow" if name == "mlflow" else "wb", tracker)
    monkeypatch.setattr(module, "_processed_plots", {}, raising=False)
    yolo = YOLOLT(start)
    for event in ("on_pretrain_routine_end", "on_train_epoch_end", "on_fit_epoch_end", "on_train_end"):
        yolo.add_callback(event, getattr(module, event))
    yolo.train(**FAST, data=str(three), epochs=2, project=str(tmp_path), name="run")
    plain = (lambda k: k.replace("(", "").replace(")", "")) if name == "mlflow" else (lambda k: k)
    for epoch, row in enumerate(table(tmp_path / "run")):
        logged = {k: v for step, metrics in tracker.logged if step == epoch for k, v in metrics.items()}
        assert {k: logged[plain(k)] for k in EVERY} == pytest.approx(ours(row))


# What best.pt is -----------------------------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch):
    """Ultralytics' fitness rises from epoch to epoch, and the AP of the tail falls."""
    real, theirs, seen = epochs.by_bin, DetectionValidator.get_stats, {"ours": 0, "theirs": 0}

    def falling(*args):
        metrics, of_class = real(*args)
        seen["ours"] += 1
        return {**metrics, "tail": {**metrics["tail"], "AP": 1 / seen["ours"]}}, of_class

    def rising(self):
        seen["theirs"] += 1
        return {**theirs(self), "fitness": seen["theirs"] / 10}

    monkeypatch.setattr(epochs, "by_bin", falling)
    monkeypatch.setattr(DetectionValidator, "get_stats", rising)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("select", "run", "best", "value"), [("map", 4, 4, 0.4), ("tail", 3, 1, 1.0)], ids=["map", "tail"]
)
def test_select_decides_what_best_is_and_when_to_stop(three, tmp_path, scripted, select, run, best, value):
    trainer = train("yolov8n.yaml", three, tmp_path, epochs=4, select=select, patience=2)
    assert len(table(tmp_path / "run")) == run
    assert (trainer.stopper.best_epoch, trainer.stopper.best_fitness) == (best, value)
    assert trainer.best_fitness == value
    saved = YOLOLT(trainer.best).ckpt["train_metrics"]
    assert saved["fitness"] == value
    assert saved["lt/AP(tail)"] == pytest.approx(1 / best, abs=1e-5)


def test_select_of_a_bin_that_val_lacks_is_refused_before_a_folder_exists(toy, tmp_path, tiny, capfd):
    words = {**tiny, "model": "yolov8n.yaml", "data": toy, "epochs": 1, "project": tmp_path, "select": "tail"}
    assert main(["train", *(f"{k}={v}" for k, v in words.items())]) == 1
    assert "select=tail: no class of tail is in the images on which best.pt is chosen." in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_select_of_a_bin_that_the_coming_holdout_lacks_is_refused_before_stage_one(three, tmp_path, capfd):
    words = {"model": "yolov8n.yaml", "data": three, "imgsz": 64, "epochs": 2, "project": tmp_path, "select": "tail"}
    words |= {"recipe": "decoupled", "head_epochs": 1, "holdout": 0.05, "device": "cpu"}
    assert main(["train", *(f"{k}={v}" for k, v in words.items())]) == 1
    assert "select=tail: no class of tail is in the images on which best.pt is chosen." in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_stage_two_measures_the_holdout(toy, tmp_path):
    """Which has a tail, unlike val."""
    one = train("yolov8n.yaml", toy, tmp_path, name="one", holdout=0.4, val=False, select="balanced")
    assert list(ours(table(tmp_path / "one")[-1])) == EVERY[:8], "of all and head"
    yolo, keys = YOLOLT(one.last), {k: FAST[k] for k in ("imgsz", "batch", "device", "plots")}
    yolo.finetune_head(**keys, data=str(toy), epochs=1, project=str(tmp_path), name="two", select="tail")
    held = yaml.safe_load((tmp_path / "two" / "lt.yaml").read_text())["holdout"]
    assert {f.split("/images/")[1] for f in yolo.trainer.validator.found} == {f.split("images/")[1] for f in held}
    assert list(ours(table(tmp_path / "two")[-1]))[-4:] == EVERY[-4:]


@pytest.mark.slow
def test_both_stages_of_decoupled_take_select_and_cap(three, tmp_path):
    keys = {"recipe": "decoupled", "head_epochs": 1, "select": "harmonic", "max_det": 7}
    train("yolov8n.yaml", three, tmp_path, epochs=2, val=False, **keys)
    for folder in (tmp_path / "run", tmp_path / "run" / "head"):
        lt = yaml.safe_load((folder / "args.yaml").read_text())["lt"]
        assert (lt["select"], lt["max_det"]) == ("harmonic", 7)
        assert list(ours(table(folder)[-1])) == EVERY


@pytest.mark.slow
@pytest.mark.parametrize(("nms", "head"), [(None, "one2many"), (False, "one2one")])
def test_the_baseline_has_the_columns_too_and_the_log_names_the_head(three, tmp_path, nms, head, caplog):
    train("yolo26n.yaml", three, tmp_path, recipe="baseline", nms=nms)
    assert list(ours(table(tmp_path / "run")[-1])) == EVERY
    assert caplog.text.count(f"(protocol coco, head {head})") == 2
