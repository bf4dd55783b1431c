"""Does a calibrated checkpoint cost anything? CPU time of the folded network over that of the original, side by side.

    python scripts/bench_calibrate.py models=yolov8n,yolo26n classes=80,1203 imgsz=320 pairs=31

Both are exported to ONNX and run in onnxruntime, and run in PyTorch fused, on the same images, pair by pair in turn, on
one thread. Printed are the medians of the ratios with their 2.5 and 97.5 % quantiles, whether the two ONNX graphs have
the same nodes, and the largest difference of logits from the map applied to the original's, in float32.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import LOGGER

from yolo_lt import cli
from yolo_lt.calibrate import logit_affine
from yolo_lt.ultra.calibrated import class_logits, write_calibrated
from yolo_lt.ultra.head import class_branches

DEFAULTS = {"models": "yolov8n,yolo11n,yolo26n", "classes": (80, 1203), "imgsz": 320, "pairs": 31}


def main() -> None:
    keys = {**DEFAULTS, **cli.parse(sys.argv[1:])}
    LOGGER.setLevel("ERROR")
    torch.set_num_threads(1)
    classes = keys["classes"] if isinstance(keys["classes"], tuple) else (keys["classes"],)
    print(f"imgsz {keys['imgsz']}, {keys['pairs']} pairs, CPU time folded / original, one thread\n")
    print(
        "| model | classes | onnxruntime | PyTorch | same nodes | largest difference of logits |\n" + "|---" * 6 + "|"
    )
    for name in str(keys["models"]).split(","):
        for count in classes:
            with tempfile.TemporaryDirectory() as folder:
                print(row(Path(folder), name, count, keys), flush=True)


def row(folder: Path, name: str, classes: int, keys: dict[str, Any]) -> str:
    """One line of the table."""
    source, target = checkpoint(folder, name, classes), folder / "calibrated.pt"
    affine = logit_affine("norcal", np.geomspace(1, 10000, classes)[::-1].astype(int)).relative_to(0)
    maps = dict.fromkeys(class_branches(load_checkpoint(source)[0]), affine)
    write_calibrated(source, target, maps, {"method": "norcal", "strength": 0.6})
    files = [Path(YOLO(p).export(format="onnx", imgsz=keys["imgsz"])) for p in (source, target)]
    image = np.random.default_rng(0).random((1, 3, keys["imgsz"], keys["imgsz"]), np.float32)
    exported = ratio([in_onnxruntime(f, image) for f in files], keys["pairs"])
    eager = ratio([in_torch(p, image) for p in (source, target)], keys["pairs"])
    same = "yes" if nodes(files[0]) == nodes(files[1]) else "no"
    return f"| {name} | {classes} | {exported} | {eager} | {same} | {difference(source, target, maps, image):.1e} |"


def checkpoint(folder: Path, name: str, classes: int) -> Path:
    """An untrained checkpoint: the work does not depend on the weights."""
    yolo = YOLO(f"{name}.yaml")
    torch.manual_seed(0)
    yolo.model = DetectionModel(f"{name}.yaml", nc=classes, verbose=False)
    path = folder / f"{name.removeprefix('yolo')}.pt"
    yolo.save(path)
    return path


def nodes(file: Path) -> list[Any]:
    """Every node with its attributes, and the shapes of what is stored."""
    graph = onnx.load(file).graph
    stored = [(x.name, x.data_type, tuple(x.dims)) for x in graph.initializer]
    return [[n.SerializeToString() for n in graph.node], stored]


def difference(source: Path, target: Path, maps: dict[str, Any], image: np.ndarray) -> float:
    """Largest difference in float32 between the reloaded file's logits and the map on the original's."""
    before, after = (class_logits(load_checkpoint(p)[0], torch.from_numpy(image)) for p in (source, target))
    return max(
        float(np.abs(after[name][2] - maps[branch](logits, bias)).max())
        for name, (branch, bias, logits, _) in before.items()
    )


def in_onnxruntime(file: Path, image: np.ndarray) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: image})


def in_torch(path: Path, image: np.ndarray) -> Callable[[], Any]:
    net, tensor = load_checkpoint(path, fuse=True)[0], torch.from_numpy(image)

    def call() -> Any:
        with torch.inference_mode():
            return net(tensor)

    return call


def ratio(sides: list[Callable[[], Any]], pairs: int) -> str:
    """Median and quantiles of second / first; the first round warms up, and the order changes from pair to pair."""
    times = np.zeros((pairs + 1, 2))
    for i in range(pairs + 1):
        for j in (0, 1) if i % 2 else (1, 0):
            start = time.process_time()
            sides[j]()
            sides[j]()
            times[i, j] = time.process_time() - start
    values = times[1:, 1] / times[1:, 0]
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{np.median(values):.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
