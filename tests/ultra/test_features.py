"""Cached features: every view comes with its own boxes, workers read the same, and the head learns from them."""

import csv
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import LONG_TAIL, write_yolo_set
from test_stage_two import finetune, losses, moved
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint

from yolo_lt import YOLOLT
from yolo_lt.errors import LTError
from yolo_lt.ultra.features import AUGMENTATION
from yolo_lt.ultra.loader import with_sampler

OFF = {k: 0 for k in AUGMENTATION if k not in ("close_mosaic", "multi_scale")}


def cached_run(weights, data, folder, **keys):
    """A finished finetune-head on cached features, and its trainer."""
    model = YOLOLT(weights)
    run = {"imgsz": 64, "batch": 8, "device": "cpu", "plots": False, "verbose": False, "val": False, "epochs": 1}
    cache = {"feature_cache": True, "cache_dir": str(folder / "f"), "project": str(folder), "name": "cached"}
    model.finetune_head(**{**run, **cache, "data": str(data), **keys})
    return model.trainer


@pytest.mark.slow
def test_every_view_has_its_own_boxes_and_features_and_all_are_drawn(checkpoint, toy, tmp_path):
    """Flipped with probability one half, half of the views are mirrored: their boxes and their features are."""
    weights = checkpoint("yolov8n.yaml")
    trainer = cached_run(weights, toy, tmp_path, cache_views=4, **{**OFF, "fliplr": 0.5})
    store, images = trainer.cached.store, trainer.cached.images
    assert store.size == 4 * images
    model = load_checkpoint(weights)[0].float().train()
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.eval()
    entered = []
    model.model[-1].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    plain, mirrored = 0, 0
    for index in (i for i, label in enumerate(trainer.cached.labels) if len(label["cls"])):
        label = trainer.cached.labels[index]
        image = np.ascontiguousarray(cv2.imread(label["im_file"])[..., ::-1].transpose(2, 0, 1))
        for at in range(index, store.size, images):
            boxes = store.truth_of(at)["bboxes"]
            flip = not np.allclose(boxes[:, 0], label["bboxes"][:, 0], atol=1e-4)
            wanted = label["bboxes"].copy()
            wanted[:, 0] = 1 - wanted[:, 0] if flip else wanted[:, 0]
            np.testing.assert_allclose(boxes, wanted, atol=1e-4)
            pixels = torch.from_numpy(image).float()[None] / 255
            with torch.no_grad():
                model(pixels.flip(-1) if flip else pixels)
            found = store.gather([at])["input.0"][0].astype(np.float32)
            np.testing.assert_allclose(found, entered[-1][0][0].permute(1, 2, 0).numpy(), rtol=2e-3, atol=2e-3)
            plain, mirrored = plain + (not flip), mirrored + flip
    assert min(plain, mirrored) > 0.35 * (plain + mirrored)
    random.seed(0)
    drawn = [trainer.cached[7]["lt_at"] for _ in range(200)]
    assert set(drawn) == {7, 7 + images, 7 + 2 * images, 7 + 3 * images}
    assert min(drawn.count(at) for at in set(drawn)) > 30


@pytest.mark.slow
def test_workers_read_what_the_process_reads(checkpoint, toy, tmp_path):
    """On a CPU Ultralytics trains without workers, so they are tested at the loader."""
    trainer = cached_run(checkpoint("yolov8n.yaml"), toy, tmp_path, strategy="tail")
    loader, batches = trainer.train_loader, {}
    for workers in (0, 2):
        order = list(range(len(trainer.cached)))
        again = with_sampler(loader, order, num_workers=workers, prefetch_factor=2 if workers else None)
        batches[workers] = list(again)
        again.close()
    for a, b in zip(*batches.values(), strict=True):
        assert a["lt_tiles"] == b["lt_tiles"]
        assert torch.equal(a["cls"], b["cls"])
        assert all(torch.equal(v, b["lt_features"][k]) for k, v in a["lt_features"].items())


@pytest.mark.slow
def test_the_own_schedule_learns_where_auto_does_not_move(checkpoint, tmp_path):
    """Ultralytics' optimizer=auto takes 0.002 * 5 / (4 + nc), 8e-6 at 1203 classes."""
    classes = 1203
    data = write_yolo_set(tmp_path / "set", LONG_TAIL, [f"class {i}" for i in range(classes)])
    weights, fell = checkpoint("yolov8n.yaml", classes), {}
    for name, keys in {"ours": {}, "auto": {"optimizer": "auto"}}.items():
        trainer = cached_run(weights, data, tmp_path, epochs=20, name=name, **keys)
        values = [row["train/cls_loss"] for row in losses(trainer.save_dir)]
        fell[name] = 1 - values[-1] / values[0]
    assert fell["ours"] > 0.1
    assert fell["auto"] < fell["ours"] / 4


@pytest.mark.slow
@pytest.mark.parametrize(("part", "task"), [("branch", "pose"), ("last", "pose"), ("branch", "obb")])
def test_hard_images_of_a_set_with_several_classes(checkpoint, sets, tmp_path, part, task):
    keys = {"strategy": "hard", "head_part": part, "cls_loss": "eqfl"}
    trainer = cached_run(checkpoint(f"yolo11n-{task}.yaml"), sets(task), tmp_path, **keys)
    assert (trainer.save_dir / "mined.csv").is_file()
    loss = trainer.losses["one2many"]
    assert loss.batches > 0, "the loss does not act on cached features"
    assert loss.gain != 1
    assert loss.loss.negative.min() > 0
    changed = moved(checkpoint(f"yolo11n-{task}.yaml"), trainer.last)
    assert changed
    assert all(".cv3." in k for k in changed)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "cache"), [("baseline", False), ("rfs", "ram")])
def test_the_holdout_never_reaches_the_network(tmp_path, tiny, cache, recipe):
    """The images set apart are painted white; no white corner may be in any batch, mosaic and mixup open."""
    data = write_yolo_set(tmp_path / "set", LONG_TAIL, ["alpha", "beta", "gamma"])
    first = {**tiny, "data": str(data), "project": str(tmp_path), "val": False, "recipe": recipe, "holdout": 0.3}
    YOLOLT("yolov8n.yaml").train(**first, epochs=1, name="look")
    held = yaml.safe_load((tmp_path / "look" / "lt.yaml").read_text())["holdout"]
    assert len(held) >= 10
    for name in held:
        cv2.imwrite(str(data.parent / name), np.full((64, 64, 3), 255, np.uint8))
    plain = {"hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "mixup": 0.5, "cutmix": 0.5, "close_mosaic": 1, "cache": cache}

    def white_pixels(**keys):
        """Of every batch of a training."""
        model, white = YOLOLT("yolov8n.yaml"), []

        def look(trainer):
            original = trainer.preprocess_batch

            def spy(batch):
                white.append(int((batch["img"] == 255).all(1).sum()))
                return original(batch)

            trainer.preprocess_batch = spy

        model.add_callback("on_train_start", look)
        model.train(**{**first, **plain, "epochs": 3, **keys})
        return white

    white = white_pixels(name="run")
    assert yaml.safe_load((tmp_path / "run" / "lt.yaml").read_text())["holdout"] == held
    assert len(white) >= 9
    assert sum(white) == 0
    assert sum(white_pixels(name="control", holdout=0, epochs=1)) > 1000, "without a holdout they are seen"


@pytest.mark.slow
def test_a_frozen_tensor_that_moved_is_an_error(checkpoint, toy, tmp_path):
    model = YOLOLT(checkpoint("yolov8n.yaml"))

    def tamper(trainer):
        trainer.ema.ema.model[0].conv.weight.data[0, 0, 0, 0] += 0.5

    model.add_callback("on_train_epoch_end", tamper)
    keys = {"imgsz": 64, "batch": 8, "device": "cpu", "plots": False, "val": False}
    with pytest.raises(LTError, match=r"last\.pt: frozen tensors changed, .* before and .* after"):
        model.finetune_head(**keys, data=str(toy), project=str(tmp_path), epochs=1)


@pytest.mark.slow
def test_a_stock_checkpoint_is_taken_and_the_result_needs_no_yolo_lt(toy, tiny, tmp_path):
    YOLO("yolo26n.yaml").train(**tiny, data=str(toy), epochs=1, project=str(tmp_path), name="stock", val=False)
    folder = finetune(tmp_path / "stock" / "weights" / "best.pt", toy, tmp_path, strategy="tail", feature_cache=True)
    with (folder / "exposure.csv").open() as f:
        assert {row["name"] for row in csv.DictReader(f)} == {"alpha", "beta", "gamma"}
    code = f"""
import sys; sys.modules["yolo_lt"] = None
from ultralytics import YOLO
model = YOLO({str(folder / "weights" / "best.pt")!r})
assert "loss" not in vars(model.model)
model.val(data={str(toy)!r}, imgsz=64, plots=False, device="cpu", project={str(tmp_path)!r}, name="v")
model.train(data={str(toy)!r}, imgsz=64, epochs=1, plots=False, device="cpu", project={str(tmp_path)!r}, name="t")
print("BOTH WORKED")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "BOTH WORKED" in done.stdout, done.stdout + done.stderr
