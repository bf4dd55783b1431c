"""finetune-head as a whole: what moves, what it draws, what it refuses."""

import csv
import re

import pytest
import torch
import yaml
from conftest import LONG_TAIL, NAMES, write_yolo_set
from ultralytics.nn.tasks import load_checkpoint

from yolo_lt import YOLOLT, config
from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra.features import AUGMENTATION

RUN = {"imgsz": 64, "batch": 8, "device": "cpu", "plots": False, "verbose": False}


def finetune(weights, data, folder, **keys):
    model = YOLOLT(weights)
    model.finetune_head(**{**RUN, "data": str(data), "project": str(folder), "epochs": 1, **keys})
    return folder / keys.get("name", "finetune-head")


def moved(before, after):
    """Names of the tensors that differ."""
    old, new = (load_checkpoint(p)[0].float().state_dict() for p in (before, after))
    assert old.keys() == new.keys()
    return {k for k in old if not torch.equal(old[k], new[k])}


def learning(path):
    """Weights of the last layers of the classification branches, as saved."""
    state = load_checkpoint(path)[0].float().state_dict()
    return {k: v for k, v in state.items() if re.search(r"\.(one2one_)?cv3\.\d\.2\.weight$", k)}


def losses(folder):
    with (folder / "results.csv").open() as f:
        return [{k: float(v) for k, v in row.items() if k.startswith("train/")} for row in csv.DictReader(f)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cfg", "kind", "part"),
    [
        ("yolov8n.yaml", "detect", "branch"),
        ("yolo26n.yaml", "detect", "last"),
        ("yolo11n-seg.yaml", "segment", "branch"),
        ("yolo26n-pose.yaml", "pose", "branch"),
        ("yolo26n-obb.yaml", "obb", "last"),
    ],
)
def test_only_the_classification_branch_moves(checkpoint, sets, tmp_path, caplog, cfg, kind, part):
    weights = checkpoint(cfg)
    folder = finetune(weights, sets(kind), tmp_path, head_part=part, reinit=True, val=False)
    modules = [k for k, _ in load_checkpoint(weights)[0].named_modules()]
    head = max(int(k.split(".")[1]) for k in modules if k.count(".") == 1)
    for name in ("last.pt", "best.pt"):
        changed = moved(weights, folder / "weights" / name)
        assert changed
        assert all(k.startswith((f"model.{head}.cv3.", f"model.{head}.one2one_cv3.")) for k in changed), changed
        if part == "last":
            assert all(k.split(".")[4] == "2" for k in changed), changed
        assert ("one2one" in "".join(changed)) == ("26" in cfg)
    assert "parameters learn" in caplog.text
    assert caplog.text.count("equal") >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cfg", "kind", "part"),
    [
        ("yolo11n.yaml", "detect", "last"),
        ("yolo26n.yaml", "detect", "branch"),
        ("yolo26n-seg.yaml", "segment", "branch"),
        ("yolo26n-pose.yaml", "pose", "last"),
        ("yolo11n-obb.yaml", "obb", "branch"),
    ],
)
def test_cached_features_give_the_loss_curve_of_images_as_they_are(checkpoint, sets, tmp_path, cfg, kind, part):
    keys, weights = {"epochs": 2, "head_part": part, "val": False}, checkpoint(cfg)
    if cfg == "yolo26n-seg.yaml":  # assigns by masks cut at 0: of an untrained network all lie there, within rounding
        first = {**RUN, "optimizer": "AdamW", "lr0": 1e-3, "project": str(tmp_path), "name": "first", "val": False}
        YOLOLT(weights).train(**first, data=str(sets(kind)), epochs=2)
        weights = tmp_path / "first" / "weights" / "last.pt"
    plain = finetune(weights, sets(kind), tmp_path, **keys, **dict.fromkeys(AUGMENTATION, 0), name="plain")
    cached = finetune(
        weights, sets(kind), tmp_path, **keys, feature_cache=True, cache_dir=str(tmp_path / "f"), name="cached"
    )
    for a, b in zip(losses(plain), losses(cached), strict=True):
        for name in a:
            if name != "train/sem_loss":  # of 26 segmentation heads: not cached, and not learnt
                assert b[name] == pytest.approx(a[name], rel=1e-3), name
    assert "loss" not in vars(load_checkpoint(cached / "weights" / "last.pt")[0])
    start, with_images, with_cache = (
        learning(p) for p in (weights, *(f / "weights" / "last.pt" for f in (plain, cached)))
    )
    for name, value in start.items():  # what is saved has learnt the same, not only what was trained
        way = (with_images[name] - value).norm()
        assert (with_cache[name] - with_images[name]).norm() <= 0.05 * way + 1e-3 * value.norm(), name
        assert way > 0, name


@pytest.mark.slow
def test_the_cache_is_used_again_made_again_when_damaged_and_views_are_drawn(checkpoint, toy, tmp_path, caplog):
    keys = {"feature_cache": True, "cache_dir": str(tmp_path / "f"), "val": False}
    first = finetune(checkpoint("yolov8n.yaml"), toy, tmp_path, **keys, name="a")
    assert "GB free)" in caplog.text
    caplog.clear()
    finetune(checkpoint("yolov8n.yaml"), toy, tmp_path, **keys, name="b")
    assert "is whole" in caplog.text
    (store,) = (tmp_path / "f").iterdir()
    file = store / "input.0.f16"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    caplog.clear()
    again = finetune(checkpoint("yolov8n.yaml"), toy, tmp_path, **keys, name="c")
    assert "is damaged (input.0.f16 was changed)" in caplog.text
    assert losses(again) == losses(first)
    finetune(checkpoint("yolov8n.yaml"), toy, tmp_path, **keys, cache_views=2, name="d")
    assert len(list((tmp_path / "f").iterdir())) == 2


@pytest.mark.slow
def test_strategies_draw_what_they_say_and_leave_the_holdout_out(toy, tmp_path, tiny):
    keys = {**tiny, "data": str(toy), "project": str(tmp_path), "epochs": 1, "val": False}
    YOLOLT("yolov8n.yaml").train(**keys, name="one", holdout=0.25)
    weights = tmp_path / "one" / "weights" / "last.pt"
    held = yaml.safe_load((tmp_path / "one" / "lt.yaml").read_text())["holdout"]
    assert len(held) >= 8
    tail = finetune(weights, toy, tmp_path, strategy="tail", replay=0.0, sampler="none", name="tail")
    hard = finetune(weights, toy, tmp_path, strategy="hard", mine_every=1, epochs=2, name="hard")
    for folder in (tail, hard):
        assert yaml.safe_load((folder / "lt.yaml").read_text())["holdout"] == held
    with (tail / "exposure.csv").open() as f:
        drawn = {row["name"]: int(row["tiles"]) for row in csv.DictReader(f)}
    assert drawn["gamma"] > 0
    assert drawn["beta"] == 0, "no image holds beta and gamma"
    with (hard / "mined.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert rows
    assert {r["epoch"] for r in rows} == {"2"}
    assert not {r["image"] for r in rows} & set(held)


@pytest.mark.slow
def test_decoupled_is_one_command_and_goes_on_between_the_stages(toy, tmp_path, tiny, cli):
    keys = {**tiny, "data": str(toy), "project": str(tmp_path), "name": "run", "epochs": 3}
    model = YOLOLT("yolov8n.yaml")
    model.train(**keys, recipe="decoupled", head_epochs=1, feature_cache=True)
    run = tmp_path / "run"
    assert (len(losses(run)), len(losses(run / "head"))) == (2, 1)
    assert all(".cv3." in k for k in moved(run / "weights" / "last.pt", run / "head" / "weights" / "last.pt"))
    done = cli("train", f"resume={run / 'weights' / 'last.pt'}")
    assert done.returncode == 1
    assert "nothing to resume" in done.stderr
    (run / "head" / "weights" / "last.pt").unlink()
    YOLOLT(run / "weights" / "last.pt").train(resume=True)
    assert (run / "head" / "weights" / "last.pt").is_file()


@pytest.mark.parametrize(
    ("keys", "error", "says"),
    [
        ({"freeze": 10}, UsageError, "freeze cannot be given"),
        ({"pretrained": False}, UsageError, "pretrained cannot be given"),
        ({"replay": 0.3}, UsageError, "replay acts only with strategy=tail or strategy=hard"),
        ({"cache_views": 2}, UsageError, "cache_views acts only with feature_cache=true"),
        ({"feature_cache": True, "fliplr": 0.5}, UsageError, "fliplr=0.5 cannot act on cached features"),
        ({"feature_cache": True, "device": "0,1"}, UsageError, "one device"),
        ({"strategy": "hard", "device": [0, 1]}, UsageError, "one device"),
        ({"recipe": "decoupled"}, UsageError, "give it to train"),
        ({"holdout": 0.1}, UsageError, "holdout does not act"),
        ({"strategy": "tail", "bins": (0, 1)}, LTError, "no training image holds a tail class"),
        ({"feature_cache": True, "cache_dir": "/dev/null/features"}, LTError, "give another cache_dir="),
        ({"feature_cache": True, "cache_limit": 1e-6}, LTError, "cache_limit is 1e-06: raise it"),
    ],
)
def test_what_cannot_act_is_refused(checkpoint, toy, tmp_path, keys, error, says):
    with pytest.raises(error) as e:
        finetune(checkpoint("yolov8n.yaml"), toy, tmp_path, **keys)
    assert type(e.value) is error
    assert says in str(e.value)
    assert not (tmp_path / "finetune-head" / "weights" / "last.pt").exists()


def test_the_classes_must_be_those_of_the_checkpoint(checkpoint, tmp_path):
    other = write_yolo_set(tmp_path / "order", LONG_TAIL, ["beta", "alpha", "gamma"])
    with pytest.raises(LTError, match="class 0 is 'alpha'"):
        finetune(checkpoint("yolov8n.yaml"), other, tmp_path)
    more = write_yolo_set(tmp_path / "more", LONG_TAIL, [*NAMES, "delta"])
    with pytest.raises(LTError, match="has 3 classes and the data YAML names 4"):
        finetune(checkpoint("yolov8n.yaml"), more, tmp_path)
    with pytest.raises(UsageError, match="needs a trained checkpoint"):
        finetune("yolov8n.yaml", more, tmp_path)
    with pytest.raises(LTError, match=r"[Ss]egment"):
        finetune(checkpoint("yolov8n-seg.yaml"), write_yolo_set(tmp_path / "boxes", LONG_TAIL, NAMES), tmp_path)


def test_stage_two_keys_need_a_stage_two(toy):
    with pytest.raises(UsageError, match="strategy acts in train only with recipe=decoupled"):
        YOLOLT("yolov8n.yaml").train(data=str(toy), strategy="tail")
    with pytest.raises(UsageError, match="fliplr"):
        YOLOLT("yolov8n.yaml").train(data=str(toy), recipe="decoupled", feature_cache=True, fliplr=0.5)
    with pytest.raises(UsageError, match="leaves none for stage one"):
        YOLOLT("yolov8n.yaml").train(data=str(toy), recipe="decoupled", epochs=1)


def test_its_recipe_is_that_of_its_schedule_unless_one_is_given(checkpoint, toy, monkeypatch):
    """What is best for a whole training is not measured for a stage two."""
    monkeypatch.setattr(config, "stage_two_defaults", lambda: {"recipe": "cb", "lr0": 0.5})
    model = YOLOLT(checkpoint("yolov8n.yaml"))
    lt, theirs = model._head_keys({"data": str(toy)}, "a checkpoint")
    assert (lt["recipe"], lt["cls_loss"], theirs["lr0"]) == ("cb", "cb", 0.5)
    lt, theirs = model._head_keys({"data": str(toy), "recipe": "rfs", "lr0": 0.1}, "a checkpoint")
    assert (lt["recipe"], lt["cls_loss"], theirs["lr0"]) == ("rfs", "bce", 0.1)
