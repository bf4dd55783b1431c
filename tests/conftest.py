"""Shared ground: a scratch Ultralytics configuration, small drawn data sets, and where real data may lie."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SCRATCH = tempfile.mkdtemp(prefix="yolo-lt-tests-")
os.environ.update(YOLO_CONFIG_DIR=SCRATCH, YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", MPLBACKEND="Agg")
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "true")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import ultralytics  # noqa: E402
from ultralytics import YOLO  # noqa: E402  its logger keeps the stdout of its first import: not that of a single test
from ultralytics.utils import ASSETS  # noqa: E402

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("YOLO_LT_SHARED", ROOT.parent / "shared"))


def pytest_collection_modifyitems(items):
    """Files with slow tests first: of several processes none is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_sessionfinish():
    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data; tests that need it are skipped where it is absent."""
    if not (SHARED / "data" / "fod31lt").is_dir():
        pytest.skip(f"no real data at {SHARED} (set YOLO_LT_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def fod31lt(shared, tmp_path_factory) -> Path:
    """data.yaml of a copy of the real set, as Ultralytics writes its label cache beside the labels."""
    copy = tmp_path_factory.mktemp("real") / "fod31lt"
    shutil.copytree(shared / "data" / "fod31lt", copy, copy_function=shutil.copyfile)
    return copy / "data.yaml"


@pytest.fixture
def without_pages(monkeypatch, request):
    """No report.html and no charts, which take a second each time; tests that are marked `pages` have them."""
    if request.node.get_closest_marker("pages") is None:
        for module in ("evaluation", "comparison"):
            monkeypatch.setattr(f"yolo_lt.ultra.{module}.write_page", lambda *args, **kw: [])
        monkeypatch.setattr("yolo_lt.report.calibration_plot.calibration_plot", lambda path, content: path)


def write_yolo_set(
    root: Path, rows: list[list[int]], names: list[str], size: int = 64, val: int = 8, kind: str = "detect"
) -> Path:
    """A YOLO data set: one image per row, one coloured box per class id in it; returns data.yaml.

    kind adds what a task needs: "segment" writes polygons, "pose" two keypoints, "obb" four corners.
    """
    rng = np.random.default_rng(0)
    for split, lists in (("train", rows), ("val", (rows * val)[:val])):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i, ids in enumerate(lists):
            image = rng.integers(90, 130, (size, size, 3), dtype=np.uint8)
            lines = []
            for c in ids:
                w, h = rng.uniform(0.2, 0.4, 2)
                x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
                a, b = ((int((v - d / 2) * size), int((v + d / 2) * size)) for v, d in ((x, w), (y, h)))
                colour = tuple(int(v) for v in np.random.default_rng(c).integers(0, 255, 3))
                cv2.rectangle(image, (a[0], b[0]), (a[1], b[1]), colour, -1)
                lines.append(_label(kind, c, x, y, w, h))
            cv2.imwrite(str(root / "images" / split / f"{i:04d}.png"), image)
            (root / "labels" / split / f"{i:04d}.txt").write_text("\n".join(lines))
    extra = "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n" if kind == "pose" else ""
    listed = "".join(f"  {i}: {n}\n" for i, n in enumerate(names))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\n{extra}names:\n{listed}")
    return root / "data.yaml"


def _label(kind: str, c: int, x: float, y: float, w: float, h: float) -> str:
    corners = [x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2]
    numbers = {
        "detect": [x, y, w, h],
        "segment": corners,
        "obb": corners,
        "pose": [x, y, w, h, x - w / 4, y, 2, x + w / 4, y, 2],
    }[kind]
    return " ".join([str(c), *(f"{v:.6f}" for v in numbers)])


LONG_TAIL = [[0]] * 24 + [[0, 1]] * 8 + [[1]] * 4 + [[2]] * 2 + [[0, 2]] + [[]] * 3
NAMES = ["alpha", "beta", "gamma"]


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """42 images, three classes in 33, 12 and 3 of them; data.yaml. Read only."""
    return write_yolo_set(tmp_path_factory.mktemp("toy"), LONG_TAIL, NAMES)


def write_checkpoint(path: Path, cfg: str, names: list[str], data: Path | None = None) -> Path:
    """A checkpoint as Ultralytics writes it, of a network that was not trained: small numbers in every tensor moved.

    Its BatchNorm has seen two batches, so that every running average differs from a fresh network's.
    """
    from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel

    torch.manual_seed(0)
    task = next((t for t in ("seg", "pose", "obb") if f"-{t}" in cfg), "detect")
    kind = {"seg": SegmentationModel, "pose": PoseModel, "obb": OBBModel, "detect": DetectionModel}[task]
    net = kind(cfg, nc=len(names), verbose=False, **({"data_kpt_shape": (2, 3)} if task == "pose" else {}))
    net.train()
    with torch.no_grad():
        for _ in range(2):
            net(torch.rand(4, 3, 64, 64))
    task = "segment" if task == "seg" else task
    net.names, net.task = dict(enumerate(names)), task
    args = {"task": task, "imgsz": 64, **({"data": str(data)} if data else {})}
    net.args = args
    content = {"epoch": -1, "model": net.half(), "ema": None, "optimizer": None, "train_args": args}
    torch.save({**content, "date": "", "version": ultralytics.__version__}, path)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """checkpoint("yolo26n.yaml", classes=3) -> Path of a checkpoint that was not trained; made once. Read only."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def make(cfg: str, classes: int = 3) -> Path:
        names = NAMES if classes == len(NAMES) else [f"class {i}" for i in range(classes)]
        return write_checkpoint(folder / f"{Path(cfg).stem}-{classes}.pt", cfg, names)

    return make


@pytest.fixture(scope="session")
def sets(tmp_path_factory, toy):
    """sets("pose") -> data.yaml of the toy set with the labels of a task. Read only."""

    @cache
    def make(kind: str) -> Path:
        return toy if kind == "detect" else write_yolo_set(tmp_path_factory.mktemp(kind), LONG_TAIL, NAMES, kind=kind)

    return make


@pytest.fixture
def cli():
    """Run the command line in a fresh process: cli("stats", "data=x", cwd=...) -> CompletedProcess."""

    def call(*args: str, cwd: Path | None = None, env: dict | None = None, timeout: float = 600):
        return subprocess.run(
            [sys.executable, "-m", "yolo_lt.cli", *map(str, args)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            timeout=timeout,
        )

    return call


TINY = {"imgsz": 64, "batch": 8, "optimizer": "AdamW", "lr0": 1e-3, "device": "cpu", "plots": False, "verbose": False}


@pytest.fixture
def tiny() -> dict:
    """Training keys for a network that only has to run."""
    return dict(TINY)


def random_network(yaml: str, path: Path, active: int = 5, size: int = 160) -> Path:
    """A checkpoint of `yaml` that finds many boxes with varied scores, of its first `active` classes; returns `path`.

    An untrained network has the same score everywhere, so that no set of boxes would mean anything. Normalisation is
    fitted to the two pictures and louder noise, which keeps the network from amplifying the rounding of float32.
    """
    torch.manual_seed(0)
    model = YOLO(yaml)
    net, head = model.model, model.model.model[-1]
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for m in norms:
        m.momentum = 1.0
        torch.nn.init.constant_(m.weight, 0.6)
    pictures = [cv2.resize(cv2.imread(str(p)), (size, size)) for p in sorted(ASSETS.glob("*.jpg"))]
    images = torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2)).float() / 255
    last = [level[-1] for n in ("cv3", "one2one_cv3") for level in getattr(head, n, None) or []]
    boxes = [level[-1] for n in ("cv2", "one2one_cv2") for level in getattr(head, n, None) or []]

    def spread(conv: torch.nn.Conv2d, _: tuple, out: torch.Tensor) -> None:
        conv.weight.mul_((2 / out.std((0, 2, 3))).reshape(-1, 1, 1, 1))
        conv.bias.copy_(-2 - (out.mean((0, 2, 3)) - conv.bias) * 2 / out.std((0, 2, 3)))
        conv.weight[active:] = 0
        conv.bias[active:] = -12

    with torch.no_grad():
        net.train()(torch.cat([images, torch.rand_like(images)]))
        for m in norms:
            m.momentum = 0.03
        for conv in boxes:
            conv.weight.mul_(3)
            if conv.out_channels == 64:  # a distribution over 16 distances: short ones, so that boxes fit the image
                conv.bias.copy_(torch.arange(16).mul(-0.7).repeat(4))
        hooks = [conv.register_forward_hook(spread) for conv in last]
        net.eval()(images)
    for hook in hooks:
        hook.remove()
    model.save(path)
    return path
