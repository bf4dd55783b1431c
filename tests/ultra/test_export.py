"""`yolo-lt export`: what is checked first, what the file tells, and that no other file is touched."""

import ast
import json
import sys

import onnx
import pytest
import torch
import yaml
from conftest import LONG_TAIL, NAMES, random_network, write_yolo_set
from ultralytics import YOLO
from ultralytics.utils import ASSETS

from yolo_lt import YOLOLT, __version__
from yolo_lt.cli import main
from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra import export, parity


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return random_network("yolov8n.yaml", tmp_path_factory.mktemp("network") / "best.pt")


@pytest.fixture
def best(network, tmp_path, monkeypatch):
    """best.pt in an empty folder, which is the working folder."""
    (tmp_path / "best.pt").write_bytes(network.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "best.pt"


@pytest.fixture
def never(monkeypatch):
    """Ultralytics' export must not be reached."""
    monkeypatch.setattr(export, "_export", lambda *args: pytest.fail("the export has started"))


def beside(path):
    return sorted(p.name for p in path.parent.iterdir() if p != path)


def props(path):
    return {p.key: p.value for p in onnx.load(path).metadata_props}


def write_lt(folder, names):
    content = {
        "keys": {},
        "bins": {"rule": "by hand", "head": [0], "medium": [1, 2], "tail": list(range(3, 79)), "unseen": [79]},
        "names": list(names),
        "image_counts": list(range(100, 20, -1)),
        "instance_counts": list(range(200, 120, -1)),
    }
    (folder / "lt.yaml").write_text(yaml.safe_dump(content))
    return content


# Before anything is written ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("package", ["onnx", "onnxslim", "onnxruntime"])
def test_a_missing_package_is_named_with_the_way_to_get_it(best, never, monkeypatch, package, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", f"model={best}"]) == 1
    err = capsys.readouterr().err
    assert f"needs the package {package}" in err
    assert f"pip install {package}\n" in err
    assert err.count("\n") == 1
    assert not beside(best)


def test_packages_that_the_keys_leave_out_are_not_needed(monkeypatch):
    for package in ("onnxslim", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    export.check_packages(simplify=False, check=False)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["format=onnxx"], 2, "did you mean onnx"),
        (["dynamic=perhaps"], 2, "dynamic"),
        (["dinamic=true"], 2, "did you mean 'dynamic'"),
        (["recipe=rfs"], 2, "does not act in 'export'"),
        (["parity=maybe"], 2, "parity=maybe"),
        (["parity=no/such/folder"], 1, "no image"),
        (["thresholds=none.yaml"], 1, "no such file"),
        (["thresholds=wrong.yaml"], 1, "no class 'sparrow'"),
        (["data=none.yaml"], 1, "none.yaml: no such file"),
        (["data=three.yaml"], 1, "has 80 classes and"),
    ],
)
def test_bad_input_is_refused_before_the_export(best, never, words, code, message, capsys):
    write_yolo_set(best.parent / "set", LONG_TAIL, NAMES)
    (best.parent / "three.yaml").write_text(
        (best.parent / "set" / "data.yaml").read_text() + f"path: {best.parent}/set\n"
    )
    (best.parent / "wrong.yaml").write_text("sparrow: 0.1\n")
    before = beside(best)
    assert main(["export", f"model={best}", *words]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert beside(best) == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["format=paper"], 2, "Invalid export format"),
        (["format=torchscript", "simplify=false"], 2, "simplify"),
        (["imgsz=sixty"], 2, "imgsz"),
        (["quantize=8", "imgsz=64"], 2, "give data="),
    ],
)
def test_what_ultralytics_refuses_is_wrong_usage(best, words, code, message, capsys):
    assert main(["export", f"model={best}", *words]) == code
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not beside(best)


def test_no_model_or_an_exported_one(best, capsys):
    assert main(["export"]) == 2
    assert "model=... is missing" in capsys.readouterr().err
    (best.parent / "best.onnx").write_bytes(b"")
    assert main(["export", "model=best.onnx"]) in {1, 2}
    assert main(["export", "model=gone.pt"]) == 1


def test_an_unreadable_image_stops_the_export(best, capsys):
    (best.parent / "bad.jpg").write_bytes(b"no picture")
    assert main(["export", f"model={best}", "imgsz=64", f"parity={best.parent / 'bad.jpg'}"]) == 1
    assert "bad.jpg, which cannot be read as an image" in capsys.readouterr().err
    assert beside(best) == ["bad.jpg"]


# What is written -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_file_tells_bins_counts_and_thresholds_and_runs_in_ultralytics(best, capsys):
    content = write_lt(best.parent, (str(i) for i in range(80)))
    (best.parent / "thresholds.yaml").write_text("3: 0.05\n4: 0.6\n")
    assert main(["export", f"model={best}", "imgsz=96", "nms=true", "thresholds=thresholds.yaml", "conf=0.3"]) == 0
    meta = props(best.parent / "best.onnx")
    assert meta["lt_version"] == __version__
    assert json.loads(meta["lt_bins"]) == content["bins"]
    assert json.loads(meta["lt_image_counts"]) == content["image_counts"]
    assert json.loads(meta["lt_instance_counts"]) == content["instance_counts"]
    assert json.loads(meta["lt_thresholds"]) == [0.3, 0.3, 0.3, 0.05, 0.6] + [0.3] * 75
    assert ast.literal_eval(meta["names"]) == {i: str(i) for i in range(80)}
    found = YOLO(best.parent / "best.onnx", task="detect").predict(
        ASSETS / "bus.jpg", imgsz=96, conf=0.01, verbose=False
    )
    assert 0.05 <= found[0].boxes.conf.min() < 0.25, "NMS inside must let through what the lowest threshold takes"
    assert len(found[0].boxes) >= 20
    assert beside(best) == ["best.onnx", "lt.yaml", "thresholds.yaml"]


@pytest.mark.slow
def test_counts_come_from_data_where_there_is_no_lt_yaml_and_images_from_its_validation_split(tmp_path, caplog):
    data = write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES, val=6)
    YOLO("yolov8n.yaml").train(
        data=str(data), imgsz=64, epochs=1, project=str(tmp_path), name="run", plots=False, val=False
    )
    weights = tmp_path / "run" / "weights" / "last.pt"
    path = YOLOLT(weights).export(data=str(data), imgsz=64)
    meta = props(path)
    assert json.loads(meta["lt_image_counts"]) == [33, 12, 3]
    assert json.loads(meta["lt_bins"])["tail"] == [2]
    remembered = YOLOLT(weights).export(imgsz=64, format="torchscript", data=str(data))
    assert remembered == str(weights.with_suffix(".torchscript"))
    images = parity.find_images(True, None, YOLOLT(weights).overrides["data"])
    assert [p.name for p in images] == ["0000.png", "0001.png", "0003.png", "0004.png"]
    assert images[0].parent == tmp_path / "set" / "images" / "val"
    assert "onnx equals the checkpoint: 4 images at 64x64" in caplog.text
    assert "says little" in caplog.text, "an untrained network has no score worth comparing"


@pytest.mark.slow
def test_torchscript_needs_no_package_and_says_that_it_is_not_compared(best, monkeypatch, caplog):
    for package in ("onnx", "onnxslim", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    path = YOLOLT(best).export(format="torchscript", imgsz=64)
    assert path == str(best.parent / "best.torchscript")
    assert beside(best) == ["best.torchscript"]
    assert "only onnx is compared with the checkpoint, this is torchscript" in caplog.text
    assert "no bins and class counts" in caplog.text
    extra = {"config.txt": ""}
    torch.jit.load(path, _extra_files=extra)
    assert json.loads(extra["config.txt"])["lt_version"] == __version__


@pytest.mark.slow
def test_without_parity_nothing_is_compared_and_onnxruntime_is_not_loaded(best, monkeypatch):
    monkeypatch.setattr(parity, "check", lambda *args: pytest.fail("compared"))
    YOLOLT(best).export(imgsz=64, parity=False)
    assert beside(best) == ["best.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_an_interrupted_export_leaves_the_old_file_and_no_other(best, monkeypatch, error):
    def stop(*args, **kw):
        raise error

    (best.parent / "best.onnx").write_bytes(b"the file of yesterday")
    monkeypatch.setattr(onnx, "save", stop)
    with pytest.raises((KeyboardInterrupt, LTError)):
        YOLOLT(best).export(imgsz=64)
    assert (best.parent / "best.onnx").read_bytes() == b"the file of yesterday"
    assert beside(best) == ["best.onnx"]


@pytest.mark.slow
def test_the_model_is_as_usable_after_the_export_as_before(best):
    model = YOLOLT(best)
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    for nms in (None, True):
        model.export(imgsz=64, nms=nms)
    after = model.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not [c for c in model.callbacks["on_export_start"] if isinstance(c, export.Start)]
    assert len(model.predict(ASSETS / "bus.jpg", imgsz=96, verbose=False)[0].boxes) > 10


# Parts ---------------------------------------------------------------------------------------------------------------
def test_formats():
    assert export.check_format("ONNX") == "onnx"
    assert export.check_format("tensorrt") == "tensorrt"  # an alias of Ultralytics
    with pytest.raises(UsageError, match="did you mean torchscript"):
        export.check_format("torchscrip")


def test_images_come_from_the_key_the_data_or_ultralytics(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    (tmp_path / "list.txt").write_text(f"./3.jpg\n{tmp_path}/5.jpg\n\n")
    assert parity.find_images(False, None, None) == []
    assert [p.name for p in parity.find_images(str(tmp_path), None, None)] == ["0.jpg", "2.jpg", "5.jpg", "7.jpg"]
    assert [p.name for p in parity.find_images(str(tmp_path / "4.jpg"), None, None)] == ["4.jpg"]
    data = {"yaml_file": "d.yaml", "val": [str(tmp_path / "list.txt"), str(tmp_path / "7.jpg")]}
    assert [p.name for p in parity.find_images(True, data, None)] == ["3.jpg", "5.jpg", "7.jpg"]
    assert [p.name for p in parity.find_images(True, None, "gone.yaml")] == ["bus.jpg", "zidane.jpg"]
    assert [p.name for p in parity.find_images(True, None, None)] == ["bus.jpg", "zidane.jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(LTError, match=r"d\.yaml, key 'val': there is no image"):
        parity.find_images(True, {"yaml_file": "d.yaml", "val": str(tmp_path / "empty")}, None)
