"""The exported ONNX file equals the checkpoint, for every family, form and shape; and a wrong file is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT, random_network
from onnx import numpy_helper
from ultralytics.utils import ASSETS

from yolo_lt import YOLOLT
from yolo_lt.errors import LTError
from yolo_lt.ultra import export, parity

FAMILIES = ("yolov5n.yaml", "yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml")
FORMS = {"raw": {}, "nms": {"nms": True}, "topk": {"nms": False}}


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """network(yaml) -> a checkpoint with many boxes of varied scores, made once; read only."""
    folder, made = tmp_path_factory.mktemp("networks"), {}

    def get(yaml):
        if yaml not in made:
            made[yaml] = random_network(yaml, folder / f"{yaml[:-5]}.pt")
        return made[yaml]

    return get


@pytest.fixture
def compared(monkeypatch):
    """What the parity checks of this test compared, in order: (graph, differences)."""
    seen, check = [], parity.check

    def record(file, model, graph, images):
        seen.append((graph, check(file, model, graph, images)))
        return seen[-1][1]

    monkeypatch.setattr(parity, "check", record)
    return seen


def exported(weights, folder, **keys):
    copy = folder / "best.pt"  # Ultralytics takes a file called yolov5n.pt for its own yolov5nu.pt
    copy.write_bytes(weights.read_bytes())
    return Path(YOLOLT(copy).export(imgsz=96, **keys))


def assert_equal_and_telling(graph, found, images):
    assert found.score <= 1e-4
    assert found.box <= 1e-4 * 160
    assert found.images == images
    assert found.boxes >= 40 * images
    assert found.top > 0.9


STATIC = [(m, f, False) for m in ("yolov8n.yaml", "yolo26n.yaml") for f in FORMS]
DYNAMIC = [(m, "nms", True) for m in FAMILIES] + [("yolo26n.yaml", f, True) for f in ("raw", "topk")]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "form", "dynamic"), STATIC + DYNAMIC)
def test_detect(network, compared, tmp_path, model, form, dynamic):
    file = exported(network(model), tmp_path, dynamic=dynamic, **FORMS[form])
    assert file == tmp_path / "best.onnx"
    (graph, found), *rest = compared
    assert not rest
    assert graph.kind == (form if form != "topk" or model == "yolo26n.yaml" else "raw")
    assert_equal_and_telling(graph, found, 4 if dynamic else 2)
    assert len(graph.sizes) == 1 + dynamic  # a dynamic file runs at its own size first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("yolo11n-seg.yaml", {"nms": True}),
        ("yolo26n-seg.yaml", {"nms": False}),
        ("yolo11n-pose.yaml", {"nms": True}),
        ("yolo26n-pose.yaml", {"nms": False}),
        ("yolo11n-obb.yaml", {"nms": True}),
        ("yolo26n-obb.yaml", {"nms": False}),
    ],
)
def test_tasks_with_masks_keypoints_and_angles(network, compared, tmp_path, model, keys):
    exported(network(model), tmp_path, **keys)
    graph, found = compared[0]
    assert_equal_and_telling(graph, found, 2 * len(graph.sizes))
    assert 0 <= found.other <= 1e-4
    assert found.other > 0, "masks, keypoints and angles are compared as well"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("yolov8n.yaml", {"nms": True, "max_det": 20, "conf": 0.01, "batch": 3, "dynamic": True}),
        ("yolo26n.yaml", {"nms": False, "max_det": 20, "agnostic_nms": True, "batch": 3}),
        ("yolov8n.yaml", {"nms": True, "agnostic_nms": True, "iou": 0.3}),
    ],
)
def test_full_rows_agnostic_nms_and_batches(network, compared, tmp_path, model, keys):
    exported(network(model), tmp_path, **keys)
    found = compared[0][1]
    assert found.boxes >= 40
    assert found.score <= 1e-4


@pytest.mark.slow
def test_half_precision_has_its_own_tolerance_and_says_so(network, compared, tmp_path, capsys):
    exported(network("yolov8n.yaml"), tmp_path, half=True)
    graph, found = compared[0]
    assert graph.tolerance == 0.02
    assert 1e-4 < found.score < 0.02


def edit(file, change, name):
    """Pass the tensors whose name holds `name` through a function."""
    model = onnx.load(file)
    found = [x for x in model.graph.initializer if name(x)]
    assert found
    for x in found:
        x.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(x)), x.name))
    onnx.save(model, file)


def shift(file):
    """Add 0.01 to the classifier's bias on one level."""
    edit(file, lambda x: x + np.float32(0.01), lambda x: x.name.endswith("cv3.0.2.bias"))


def swap(file):
    """Exchange classes 0 and 1 in the classifier of every level."""
    edit(file, lambda x: x[[1, 0, *range(2, 80)]], lambda x: "cv3." in x.name and ".2." in x.name and x.dims[0] == 80)


def lower_limit(file):
    """Let the NMS inside drop boxes that overlap by 0.1 already."""
    limit = next(n.input[3] for n in onnx.load(file).graph.node if n.op_type == "NonMaxSuppression")
    edit(file, lambda x: np.full_like(x, 0.1), lambda x: x.name == limit)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "form", "spoil", "says"),
    [
        ("yolov8n.yaml", "raw", shift, "largest score difference 0.00"),
        ("yolov8n.yaml", "nms", shift, "largest score difference 0.00"),
        ("yolo26n.yaml", "topk", shift, "largest score difference 0.00"),
        ("yolov8n.yaml", "raw", swap, "largest score difference 0."),
        ("yolo26n.yaml", "topk", swap, "largest score difference 0."),
        ("yolov8n.yaml", "nms", lower_limit, "leaves out a box"),
    ],
)
def test_a_file_that_differs_is_refused_and_the_old_one_stays(network, tmp_path, monkeypatch, model, form, spoil, says):
    stock = export._export

    def spoiled(*args):
        written = stock(*args)
        spoil(written)
        return written

    monkeypatch.setattr(export, "_export", spoiled)
    old = tmp_path / "best.onnx"
    old.write_bytes(b"the file of yesterday")
    with pytest.raises(LTError, match="would differ from") as e:
        exported(network(model), tmp_path, **FORMS[form])
    assert says in str(e.value)
    assert "bus.jpg" in str(e.value) or "zidane.jpg" in str(e.value)
    assert old.read_bytes() == b"the file of yesterday"
    assert {p.name for p in tmp_path.iterdir()} == {"best.onnx", "best.pt"}


BLOCKED = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "ultralytics", "yolo_lt"}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_example_needs_no_torch_and_finds_what_the_checkpoint_finds(network, tmp_path):
    (tmp_path / "thresholds.yaml").write_text("0: 0.6\n1: 0.1\n")
    file = exported(network("yolov8n.yaml"), tmp_path, nms=True, thresholds=str(tmp_path / "thresholds.yaml"))
    picture = ASSETS / "zidane.jpg"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(ROOT / "scripts" / "run_onnx.py"), str(file), str(picture)],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    ours = np.array([[float(x) for x in line.split()] for line in done.stdout.splitlines()])
    found = YOLOLT(file.with_suffix(".pt")).predict(picture, imgsz=96, rect=False, conf=0.1, verbose=False)[0].boxes
    keep = found.conf > torch.tensor([0.6, 0.1, 0.25, 0.25, 0.25])[found.cls.int()]
    assert len(ours) == keep.sum() >= 10
    truth = torch.cat([found.cls[:, None], found.conf[:, None], found.xyxy], 1)[keep].numpy()
    apart = np.abs(ours[:, None] - truth) / [1e-9, 1e-3, 1, 1, 1, 1]  # class, score, box in the picture's pixels
    assert sorted(apart.max(2).argmin(1)) == list(range(len(truth)))
    assert apart.max(2).min(1).max() <= 1


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("form", ["raw", "nms"])
def test_real_images_through_a_pretrained_trunk(shared, compared, tmp_path, form):
    model = YOLOLT(shared / "weights" / "yolov5n-coco-trunk.pt")
    torch.manual_seed(0)
    for level in model.model.model[-1].cv3:
        torch.nn.init.normal_(level[-1].weight, std=8 / level[-1].in_channels ** 0.5)
        torch.nn.init.constant_(level[-1].bias, -3)
    model.save(tmp_path / "best.pt")
    YOLOLT(tmp_path / "best.pt").export(
        imgsz=320, parity=str(shared / "data" / "fod31lt" / "images" / "val"), **FORMS[form]
    )
    graph, found = compared[0]
    assert found.images == 4
    assert_equal_and_telling(graph, found, 4)
