"""Killed with SIGKILL and resumed, a run goes on with its stream, its loss and its records."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from yolo_lt import YOLOLT, config
from yolo_lt.balance.plan import make_plan
from yolo_lt.balance.stream import epoch_indices
from yolo_lt.ultra.labels import class_stats

EPOCHS = 7


def command(*words):
    return [sys.executable, "-m", "yolo_lt.cli", *words]


def epochs_done(folder):
    path = folder / "results.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def assert_stream(exposure_csv, plan, epochs):
    """Every epoch is there once, with the draws of an uninterrupted run: without mosaic a tile is a draw."""
    with exposure_csv.open() as f:
        rows = list(csv.DictReader(f))
    assert [int(r["epoch"]) for r in rows] == [e for e in range(1, epochs + 1) for _ in range(3)]
    for epoch in range(epochs):
        drawn = np.bincount(epoch_indices(plan.factors, 0, epoch), minlength=plan.stats.num_images)
        expected = plan.stats.images_with(drawn.astype(float)).astype(int).tolist()
        assert [int(r["tiles"]) for r in rows[3 * epoch : 3 * epoch + 3]] == expected


def train_and_kill(words, folder, after):
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while epochs_done(folder) < after or not (folder / "weights" / "last.pt").exists():
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_after_epoch_2_and_resumed(toy, tmp_path, cli):
    """Of the head with two branches both losses act again."""
    keys = {**TINY, "data": toy, "epochs": EPOCHS, "project": tmp_path, "name": "run", "mosaic": 0, "val": False}
    words = [f"{k}={v}" for k, v in {**keys, "model": "yolo26n.yaml", "recipe": "rfs", "cls_loss": "cb"}.items()]
    folder = tmp_path / "run"
    train_and_kill(["train", *words], folder, after=2)
    killed_at = epochs_done(folder)
    assert killed_at < EPOCHS

    done = cli("train", f"resume={folder / 'weights' / 'last.pt'}")
    assert done.returncode == 0, done.stderr
    left = EPOCHS - killed_at
    plan = make_plan(class_stats(toy), config.resolve({"recipe": "rfs", "cls_loss": "cb"}))
    batches = -(-round(plan.factors.sum()) // TINY["batch"])
    for branch in ("one2many", "one2one"):
        counts = [n * batches for n in (left, left + 1)]  # the kill may fall between saving and the results line
        assert any(f"cls_loss acted on {n} batches of {branch}" in done.stdout for n in counts), done.stdout[-2000:]

    assert_stream(folder / "exposure.csv", plan, EPOCHS)


@pytest.mark.slow
def test_an_epoch_repeated_after_nan_draws_and_counts_its_own_images_once(toy, tmp_path, tiny):
    model, spoiled = YOLOLT("yolov8n.yaml"), []

    def spoil(trainer):
        if trainer.epoch == 1 and not spoiled:
            spoiled.append(True)
            trainer.loss = trainer.loss * float("nan")

    model.add_callback("on_train_epoch_end", spoil)
    keys = {**tiny, "data": str(toy), "epochs": 3, "project": str(tmp_path), "name": "run", "mosaic": 0, "val": False}
    model.train(**keys, recipe="rfs")
    assert spoiled
    plan = make_plan(class_stats(toy), config.resolve({"recipe": "rfs"}))
    assert_stream(tmp_path / "run" / "exposure.csv", plan, epochs=3)


@pytest.mark.slow
def test_a_kill_while_saving_never_leaves_half_a_checkpoint(toy, tmp_path, monkeypatch, tiny):
    model = YOLOLT("yolov8n.yaml")
    real, calls = Path.write_bytes, []

    def cut_off(self, data):
        calls.append(self.name)
        if len(calls) > 2:  # the second epoch's save dies half way
            real(self, data[: len(data) // 2])
            raise OSError("disk full")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", cut_off)
    with pytest.raises(OSError, match="disk full"):
        model.train(**tiny, data=str(toy), epochs=3, project=str(tmp_path), name="run")
    monkeypatch.undo()
    weights = tmp_path / "run" / "weights"
    assert sorted(p.name for p in weights.iterdir()) == ["best.pt", "last.pt"]
    assert all(YOLOLT(p).ckpt["epoch"] == 0 for p in weights.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["resume=nowhere/last.pt"], 1, "nowhere/last.pt"),
        (["resume={finished}"], 1, "finished training"),
        (["resume={stock}"], 1, "not trained by yolo-lt"),
        (["resume={broken}"], 1, "no Ultralytics checkpoint"),
        (["resume={unfinished}", "recipe=cb"], 2, "resume keeps the run's recipe"),
    ],
)
def test_resume_of_what_cannot_be_resumed(tmp_path, words, code, message, capsys):
    import torch
    from ultralytics import YOLO

    from yolo_lt.cli import main

    net = YOLO("yolov8n.yaml").model
    base = {"model": net, "ema": None, "train_args": {}, "epoch": -1, "optimizer": None}
    optimizer = {"optimizer": {"state": {}}, "epoch": 1}
    kinds = {
        "finished": base,
        "stock": {**base, **optimizer},
        "unfinished": {**base, **optimizer, "train_args": {"lt": {}}},
    }
    for name, content in kinds.items():
        torch.save(content, tmp_path / f"{name}.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK no checkpoint")
    paths = {name: tmp_path / f"{name}.pt" for name in (*kinds, "broken")}
    assert main(["train", *(w.format(**paths) for w in words)]) == code
    assert message in capsys.readouterr().err
