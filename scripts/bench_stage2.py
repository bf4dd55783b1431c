"""What an epoch of finetune-head costs: against stock Ultralytics with equal freezing, and with cached features.

    python scripts/bench_stage2.py models=yolov5n,yolov8n,yolo11n,yolo26n images=64 imgsz=256 classes=31 pairs=15

Every side trains the same checkpoint (untrained: the work does not depend on the weights) on the same generated
images, in one process, epoch by epoch in turn: CPU time of loading, forward, loss, backward and optimizer step. All
sides see every image as it is; the cached ones after their first epoch. Printed are medians of the ratios of
interleaved pairs with their 2.5 and 97.5 % quantiles.

`bound` is what caching could reach at best: the uncached epoch over the part of it that no cache can take away, that is
the layers that learn, Ultralytics' criterion, backward and step on tensors that lie in memory. `photo=640` writes
pictures of that width, decoded and resized by the uncached sides; `augment=true` gives these what finetune-head without
a cache has by default: Ultralytics' augmentation with mosaic closed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER

from yolo_lt import cli, config
from yolo_lt.ultra.features import AUGMENTATION
from yolo_lt.ultra.head import frozen_layers
from yolo_lt.ultra.stage_two import HEAD_TRAINERS

DEFAULTS = {"models": "yolov5n,yolov8n,yolo11n,yolo26n", "images": 64, "imgsz": 256, "classes": 31, "pairs": 15}
DEFAULTS |= {"photo": 256, "augment": False}


def main() -> None:
    keys = {**DEFAULTS, **cli.parse(sys.argv[1:])}
    models = keys["models"] if isinstance(keys["models"], (list, tuple)) else str(keys["models"]).split(",")
    LOGGER.setLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        data = generate(Path(folder), keys["images"], keys["photo"], keys["classes"])
        sizes = f"{keys['images']} images {keys['photo']} wide, imgsz {keys['imgsz']}, {keys['classes']} classes"
        sizes += ", default augmentation without a cache" if keys["augment"] else ", images as they are"
        print(f"{sizes}, {keys['pairs']} pairs, CPU time")
        for name in models:
            sides = prepare(Path(folder), data, name, keys)
            show(name, measure(sides, keys["pairs"]))


def generate(folder: Path, images: int, size: int, classes: int) -> Path:
    """Noise with one to three boxes an image, as JPEG."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for i in range(images):
        picture = cv2.resize(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8), (size, size * 3 // 4))
        cv2.imwrite(str(folder / "images" / f"{i:04d}.jpg"), picture)
        lines = []
        for _ in range(rng.integers(1, 4)):
            w, h = rng.uniform(0.1, 0.5, 2)
            x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
            lines.append(f"{rng.integers(classes)} {x:.4f} {y:.4f} {w:.4f} {h:.4f}")
        (folder / "labels" / f"{i:04d}.txt").write_text("\n".join(lines))
    names = "".join(f"  {c}: class {c}\n" for c in range(classes))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames:\n{names}")
    return folder / "data.yaml"


def prepare(folder: Path, data: Path, name: str, keys: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """One epoch of every side as a function."""
    yolo = YOLO(f"{name}.yaml")
    yolo.model = DetectionModel(f"{name}.yaml", nc=keys["classes"], verbose=False)
    weights = folder / f"{name.removeprefix('yolo')}.pt"  # yolov5n.pt would be taken for Ultralytics' own yolov5nu.pt
    yolo.save(weights)
    schedule = {k: v for k, v in config.stage_two_defaults().items() if k not in ("recipe", "name")}
    shared = {
        "data": str(data),
        "model": str(weights),
        "imgsz": keys["imgsz"],
        "batch": 16,
        "device": "cpu",
        "plots": False,
        "val": False,
        "verbose": False,
        "augmentations": [],
        "project": str(folder),
        **schedule,
    }
    plain = {**shared, **dict.fromkeys(AUGMENTATION, 0)}
    if not keys["augment"]:
        shared = plain
    shared = {**shared, "mosaic": 0}
    trainers = {
        "stock": DetectionTrainer(overrides={**shared, "freeze": frozen_layers(yolo.model)}),
        "branch": head_trainer(shared, head_part="branch"),
        "branch, cached": head_trainer(plain, head_part="branch", feature_cache=True),
        "last": head_trainer(shared, head_part="last"),
        "last, cached": head_trainer(plain, head_part="last", feature_cache=True),
    }
    for trainer in trainers.values():
        trainer._setup_train()
    sides = {side: lambda t=trainer: epoch(t) for side, trainer in trainers.items()}
    return {**sides, **{f"{part}, in memory": in_memory(trainers[f"{part}, cached"]) for part in ("branch", "last")}}


def head_trainer(shared: dict[str, Any], **ours: Any) -> Any:
    lt = {**config.resolve({"recipe": "baseline", **ours}), "head_of": shared["model"]}
    return HEAD_TRAINERS["detect"](overrides=dict(shared), lt=lt)


def epoch(trainer: Any) -> None:
    """The work of Ultralytics' training loop."""
    trainer._model_train()
    for batch in trainer.train_loader:
        loss, _ = trainer.model(trainer.preprocess_batch(batch))
        loss.sum().backward()
        trainer.optimizer_step()


def in_memory(trainer: Any) -> Callable[[], None]:
    """The same epoch without loading: the batches and their predictions' frozen parts are tensors already."""
    loss = trainer.model.loss
    batches = [trainer.preprocess_batch(batch) for batch in trainer.train_loader]
    for batch in batches:
        batch["lt_features"] = {k: v.float() for k, v in batch["lt_features"].items()}

    def run() -> None:
        for batch in batches:
            loss(batch)[0].sum().backward()
            trainer.optimizer_step()

    return run


def measure(sides: dict[str, Callable[[], None]], pairs: int) -> dict[str, np.ndarray]:
    """CPU seconds of every side, pair by pair in turn; a first round warms up and fills the caches."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(pairs + 1):
        for name, call in sides.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def show(name: str, seconds: dict[str, np.ndarray]) -> None:
    print(f"\n{name}")
    print(f"  finetune-head / stock with the same layers frozen    {ratio(seconds['branch'] / seconds['stock'])}")
    for part, what in (("branch", "whole branch learns"), ("last", "last convolution learns")):
        reached, bound = (seconds[part] / seconds[f"{part}, {kind}"] for kind in ("cached", "in memory"))
        print(f"  {what + ': uncached / cached epoch':52} {ratio(reached)}")
        print(f"    bound by the work that remains                     {ratio(bound)}")
        print(f"    share of the bound                                 {ratio(reached / bound)}", flush=True)


def ratio(values: np.ndarray) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{np.median(values):6.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
