"""Bad input: one clear error, the right exit code, no run folder, nothing written."""

import shutil

import pytest
from conftest import LONG_TAIL, NAMES, write_yolo_set

from yolo_lt.cli import main

OUT_OF_RANGE = "9 0.5 0.5 0.2 0.2"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A data set and an empty working folder."""
    write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} | {
        p.relative_to(folder).as_posix(): None for p in folder.rglob("*") if p.is_dir()
    }


def spoil(place, how):
    data, labels = place / "set" / "data.yaml", place / "set" / "labels" / "train"
    if how == "malformed":
        data.write_text("train: [images\n")
    elif how == "no labels":
        shutil.rmtree(place / "set" / "labels")
    elif how == "empty labels":
        for p in labels.glob("*.txt"):
            p.write_text("")
    elif how == "out of range":
        (labels / "0003.txt").write_text(OUT_OF_RANGE)
    elif how == "class counts":
        data.write_text("train: images/train\nval: images/val\nnc: 4\nnames: [a, b, c]\n")
    elif how == "missing":
        data.unlink()


@pytest.mark.parametrize("verb", ["stats", "train"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no such file"),
        ("malformed", "data.yaml"),
        ("no labels", "label"),
        ("empty labels", "not one label"),
        ("out of range", "0003.txt, line 1: class id 9"),
        ("class counts", "must match"),
    ],
)
def test_bad_data(place, how, message, verb, capsys):
    spoil(place, how)
    before = tree(place)
    words = [verb, f"data={place / 'set' / 'data.yaml'}", f"project={place / 'runs'}"]
    code = main([*words, "model=yolov8n.yaml"] if verb == "train" else words)
    err = capsys.readouterr().err
    assert code == 1
    assert message in err
    assert err.startswith("yolo-lt: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert tree(place) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rect=true"], "rect=true"),
        (["cls_pw=0.5", "recipe=cb"], "cls_pw"),
        (["cls_pw=0.5", "cls_loss=eql"], "cls_pw"),
        (["epochs=many"], "epochs"),
        (["cb_beta=2"], "cb_beta"),
        (["smapler=rfs"], "did you mean 'sampler'"),
        (["recipe=rsf"], "did you mean rfs"),
        (["bins=100,10"], "two numbers"),
        (["methood=norcal"], "unknown key 'methood'; did you mean 'method'"),
        (["task=obb"], None),
    ],
)
def test_bad_keys(place, words, message, capsys):
    before = tree(place)
    code = main(["train", "model=yolov8n.yaml", f"data={place / 'set' / 'data.yaml'}", f"project={place}/runs", *words])
    err = capsys.readouterr().err
    assert code in ({2} if message else {1, 2})
    assert (message or "error") in err
    assert tree(place) == before


def test_a_class_out_of_range_in_val_stops_a_training_too(place, capsys):
    (place / "set" / "labels" / "val" / "0001.txt").write_text(OUT_OF_RANGE)
    before = tree(place)
    words = [f"data={place / 'set' / 'data.yaml'}", f"project={place / 'runs'}", "model=yolov8n.yaml"]
    assert main(["train", *words]) == 1
    assert "0001.txt, line 1: class id 9" in capsys.readouterr().err
    assert tree(place) == before


@pytest.mark.parametrize("model", ["yolo_of_mine.pt", "no/such.pt", "no/such.yaml", "nosuch.yaml"])
def test_a_missing_model(place, model, capsys):
    assert main(["train", f"model={model}", f"data={place / 'set' / 'data.yaml'}"]) == 1
    assert model in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("yolov8n-cls.yaml", "task 'classify' is not supported"),
        ("yolov8s-world.yaml", "YOLOWorld"),
        ("yolov8s-worldv2.yaml", "YOLOWorld"),
        ("yoloe-11s.yaml", "YOLOE"),
        ("rtdetr-l.yaml", "RT-DETR"),
        ("yolo26n-sem.yaml", "task 'semantic'"),
    ],
)
def test_unsupported_tasks_and_families(place, model, message, capsys):
    code = main(["train", f"model={model}", f"data={place / 'set' / 'data.yaml'}", f"project={place / 'runs'}"])
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["model=gone/best.pt"], 1, "gone/best.pt: no such file"),
        (["model=yolov8n.yaml", "data={data}"], 1, "80 classes"),
        (["model=yolov8n.yaml", "data={data}", "sampler=rfs"], 2, "does not act in 'val'"),
        (["model=yolov8n.yaml", "data={data}", "protocol=lvs"], 2, "protocol=lvs: expected coco | lvis"),
        (["model=yolov8n.yaml", "data={data}", "protocol=lvis_pool", "official=true"], 2, "no package computes"),
        (["model=yolov8n-obb.yaml", "data={data}", "official=true"], 2, "AP of turned boxes"),
        (["model=yolov8n.yaml", "data={data}", "hierarchy=h.json"], 2, "acts only with protocol=openimages"),
        (["model=yolov8n.yaml", "data={data}", "gt=gt.json"], 2, "gt acts only with detections"),
    ],
)
def test_bad_validations(place, words, code, message, capsys):
    data = place / "set" / "data.yaml"
    assert main(["val", *(w.format(data=data) for w in words), f"project={place / 'runs'}"]) == code
    assert message in capsys.readouterr().err
    assert not (place / "runs").exists()


def test_a_checkpoint_with_foreign_code_is_not_run(place, capsys):
    import torch

    marker = place / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"model": Evil()}, place / "evil.pt")
    assert main(["val", f"model={place / 'evil.pt'}", f"data={place / 'set' / 'data.yaml'}"]) == 1
    assert "evil.pt" in capsys.readouterr().err
    assert not marker.exists()


def test_tune_is_refused():
    from yolo_lt import YOLOLT
    from yolo_lt.errors import UsageError

    with pytest.raises(UsageError, match="stock trainers"):
        YOLOLT("yolov8n.yaml").tune(data="x.yaml")
