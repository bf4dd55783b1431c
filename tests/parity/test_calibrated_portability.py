"""A calibrated checkpoint is an ordinary one: without yolo_lt it works, and its ONNX graph has no node more or less."""

import re
from functools import cache

import numpy as np
import onnx
import pytest
from conftest import random_network
from onnx import numpy_helper
from test_portability import run_without_yolo_lt
from ultralytics.utils import ROOT, YAML

from yolo_lt import YOLOLT
from yolo_lt.calibrate import Affine
from yolo_lt.ultra.calibrated import write_calibrated

MAPS = {
    "one2many": Affine(np.array([0.5, 1.0, 1.5]), np.array([0.5, 1.0, -1.0])),
    "one2one": Affine(np.array([1.5, 0.75, 1.0]), np.array([-1.0, 0.0, 1.5]), keep_bias=True),
}
CLASSIFIER = re.compile(r"model\.\d+\.(one2one_)?cv3\.\d\.2\.(weight|bias)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """folder("v8/yolov8n.yaml") -> where original.pt and calibrated.pt are, of three classes and many boxes."""

    @cache
    def make(model):
        place, name = tmp_path_factory.mktemp("calibrated"), model.split("/")[1]
        shipped = ROOT / "cfg" / "models" / model.replace("n.", ".")
        YAML.save(place / shipped.name, {**YAML.load(shipped), "nc": 3})
        original = random_network(str(place / name), place / "original.pt", active=3, size=96)
        write_calibrated(original, place / "calibrated.pt", MAPS, {"method": "lws", "strength": 1.0})
        return place

    return make


@pytest.mark.slow
@pytest.mark.parametrize("model", ["v8/yolov8n.yaml", "26/yolo26n.yaml"])
def test_it_validates_predicts_exports_and_trains_in_stock_ultralytics_with_the_same_graph(folder, toy, model):
    place = folder(model)
    image = toy.parent / "images" / "val" / "0000.png"
    forms = {"raw": {}, "topk": {"nms": False}} if "26" in model else {"raw": {}}
    code = f"""
from pathlib import Path
net = YOLO("calibrated.pt")
assert type(net.model).__module__.startswith("ultralytics.")
net.val(data={str(toy)!r}, imgsz=64, plots=False, device="cpu", project=".", name="v")
seen = dict(source={str(image)!r}, imgsz=64, device="cpu", conf=0.01)
assert len(YOLO("calibrated.pt").predict(**seen)[0]) > 10
for form, keys in {forms!r}.items():
    for name in ("original", "calibrated"):
        Path(YOLO(name + ".pt").export(format="onnx", imgsz=64, **keys)).rename(f"{{name}}-{{form}}.onnx")
assert len(YOLO("calibrated-raw.onnx", task="detect").predict(**seen)[0]) > 10
keys = dict(data={str(toy)!r}, imgsz=64, batch=8, epochs=1, plots=False, device="cpu", project=".", name="again")
YOLO("calibrated.pt").train(**keys, val=False)
print("ALL OF IT WORKED")
"""
    status, output = run_without_yolo_lt(code, place, ULTRALYTICS_SAFE_LOAD="true")
    assert status == 0, output
    assert "ALL OF IT WORKED" in output
    for form in forms:
        before, after = (onnx.load(place / f"{name}-{form}.onnx").graph for name in ("original", "calibrated"))
        assert len(before.node) > 100
        assert list(before.node) == list(after.node)
        assert (list(before.input), list(before.output)) == (list(after.input), list(after.output))
        assert {x.name: (x.dims, x.data_type) for x in before.initializer} == {
            x.name: (x.dims, x.data_type) for x in after.initializer
        }
        old, new = ({x.name: numpy_helper.to_array(x) for x in g.initializer} for g in (before, after))
        differ = [name for name in old if not np.array_equal(old[name], new[name])]
        assert len(differ) == 6, "weight and bias of three levels"
        branch = "one2one" if form == "topk" else "one2many"
        scale, shift, kept = MAPS[branch].scale, MAPS[branch].shift, MAPS[branch].keep_bias
        for name in differ:
            assert CLASSIFIER.fullmatch(name), name
            assert ("one2one" in name) == (branch == "one2one")
            if name.endswith("weight"):
                wanted = scale.reshape(3, 1, 1, 1) * old[name]
            else:
                wanted = old[name] * (1 if kept else scale) + shift
            np.testing.assert_allclose(new[name], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "keys"), [("v8/yolov8n.yaml", {}), ("26/yolo26n.yaml", {"nms": False})])
def test_the_export_of_a_calibrated_checkpoint_passes_its_parity_check(folder, toy, caplog, model, keys):
    parity = str(toy.parent / "images" / "val")
    path = YOLOLT(folder(model) / "calibrated.pt").export(format="onnx", imgsz=64, parity=parity, **keys)
    assert path == str(folder(model) / "calibrated.onnx")
    told = re.search(r"onnx equals the checkpoint: \d+ images at 64x64, (\d+) boxes", caplog.text)
    assert int(told[1]) > 40
    assert "says little" not in caplog.text
