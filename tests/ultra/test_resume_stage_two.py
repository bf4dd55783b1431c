"""Killed with SIGKILL in either stage and resumed, the classifier's training goes on with its data and its promises."""

import csv

import pytest
import yaml
from conftest import TINY
from test_resume import epochs_done, train_and_kill
from ultralytics.nn.tasks import load_checkpoint

from yolo_lt.ultra.head import digest, frozen_layers

RUN = {k: v for k, v in TINY.items() if k not in ("optimizer", "lr0")}
EPOCHS = 6


def words_of(**keys):
    return [f"{k}={v}" for k, v in {**RUN, **keys}.items()]


def rows_of(path):
    with path.open() as f:
        return list(csv.DictReader(f))


def frozen_digest(path):
    model = load_checkpoint(path)[0]
    return digest(model, frozen_layers(model))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"feature_cache": "true"}, {"strategy": "hard", "mine_every": 4}])
def test_finetune_head_killed_and_resumed(checkpoint, toy, tmp_path, cli, keys):
    weights, folder = checkpoint("yolov8n.yaml"), tmp_path / "run"
    cache = {"cache_dir": tmp_path / "f"} if "feature_cache" in keys else {}
    words = words_of(**keys, **cache, model=weights, data=toy, project=tmp_path, name="run", epochs=EPOCHS, val=False)
    train_and_kill(["finetune-head", *words], folder, after=2)
    killed_at = epochs_done(folder)
    assert killed_at < EPOCHS
    stores = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("f/*")}
    mined = folder / "mined.csv"
    before = mined.read_text() if mined.exists() else ""

    done = cli("finetune-head", f"resume={folder / 'weights' / 'last.pt'}")
    assert done.returncode == 0, done.stderr
    assert epochs_done(folder) == EPOCHS
    assert frozen_digest(folder / "weights" / "last.pt") == frozen_digest(weights)
    assert f"before {frozen_digest(weights)}: equal" in done.stdout
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("f/*")} == stores, "neither made again nor doubled"
    assert ("is whole" in done.stdout) == ("feature_cache" in keys)
    assert [r["epoch"] for r in rows_of(folder / "exposure.csv")][::3] == [str(e) for e in range(1, EPOCHS + 1)]
    if keys.get("strategy") == "hard":
        mining = done.stdout.count("strategy=hard: ")
        assert before
        assert mining == (1 if killed_at < 5 else 0), "once at epoch 5; what was mined before the kill serves till then"
        assert {r["epoch"] for r in rows_of(mined)} <= {"1", "5"}


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_decoupled_killed_in_a_stage_and_resumed(toy, tmp_path, cli, stage):
    run = tmp_path / "run"
    keys = {"recipe": "decoupled", "head_epochs": 3, "model": "yolov8n.yaml", "data": toy, "holdout": 0.2}
    words = words_of(**keys, project=tmp_path, name="run", epochs=6, val=False)
    killed = run if stage == 1 else run / "head"
    train_and_kill(["train", *words], killed, after=1)
    assert epochs_done(killed) < 3, "killed too late"

    done = cli("train", f"resume={run / 'weights' / 'last.pt'}")
    assert done.returncode == 0, done.stderr
    assert (epochs_done(run), epochs_done(run / "head")) == (3, 3)
    last = run / "head" / "weights" / "last.pt"
    assert frozen_digest(last) == frozen_digest(run / "weights" / "last.pt")
    first, second = (yaml.safe_load((f / "lt.yaml").read_text())["holdout"] for f in (run, run / "head"))
    assert first == second
    assert len(first) >= 6
    again = cli("train", f"resume={run / 'weights' / 'last.pt'}")
    assert again.returncode == 1
    assert "nothing to resume" in again.stderr
