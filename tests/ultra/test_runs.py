"""What a training run leaves behind, and what it says."""

import csv

import pytest
import yaml
from conftest import LONG_TAIL, write_yolo_set

from yolo_lt import YOLOLT, config
from yolo_lt.ultra.runfiles import bins_of, find_lt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("detect", "yolov8n.yaml"),
        ("segment", "yolo11n-seg.yaml"),
        ("pose", "yolov8n-pose.yaml"),
        ("obb", "yolo26n-obb.yaml"),
    ],
)
def test_every_task_trains_with_sampler_and_loss(tmp_path, tiny, task, model, caplog):
    data = write_yolo_set(tmp_path / "set", LONG_TAIL, ["a", "b", "c"], kind=task)
    keys = {**tiny, "data": str(data), "epochs": 2, "project": str(tmp_path), "name": "run", "close_mosaic": 1}
    YOLOLT(model).train(**keys, recipe="rfs", cls_loss="cb", mixup=0.2, val=False)
    folder = tmp_path / "run"
    lt = yaml.safe_load((folder / "lt.yaml").read_text())
    assert lt["keys"]["sampler"] == "rfs"
    assert isinstance(lt["keys"]["repeat_thr"], float)
    assert set(lt["keys"]) == set(config.keys())
    assert lt["image_counts"] == [33, 12, 3]
    assert bins_of(find_lt(folder / "weights" / "last.pt")).tail.tolist() == [2]
    with (folder / "exposure.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [(r["epoch"], r["name"]) for r in rows] == [(e, n) for e in "12" for n in "abc"]
    assert all(int(r["tiles"]) > 0 and int(r["boxes"]) > 0 for r in rows)
    assert float(rows[2]["asked"]) > 1.5 * float(rows[5]["asked"]), "mosaic is open in the first epoch alone"
    with (folder / "class_stats.csv").open() as f:
        stats = list(csv.DictReader(f))
    assert [r["bin"] for r in stats] == ["head", "medium", "tail"]
    assert float(stats[2]["repeat_factor"]) > 2
    assert "sampler=rfs with balanced" in caplog.text
    assert "repeat_thr=auto chose 0.7857: the rarest head class (a) is in 33 of 42 images" in caplog.text
    assert "cls_loss=cb on one2many" in caplog.text
    assert "realised exposure" in caplog.text
    assert "cls_loss acted on" in caplog.text


@pytest.mark.slow
def test_baseline_says_that_nothing_acts(toy, tmp_path, tiny, caplog):
    YOLOLT("yolov8n.yaml").train(
        **tiny, data=str(toy), epochs=1, project=str(tmp_path), name="run", recipe="baseline", val=False
    )
    assert "nothing is changed, training is stock Ultralytics" in caplog.text
    assert not (tmp_path / "run" / "exposure.csv").exists()
    assert (tmp_path / "run" / "lt.yaml").is_file()


@pytest.mark.slow
def test_epoch_length_fixed_keeps_the_iterations_of_stock(toy, tmp_path, tiny):
    batches = {}
    for name, keys in {"stock": {"recipe": "baseline"}, "grow": {"recipe": "rfs"}, "fixed": {}}.items():
        model, seen = YOLOLT("yolov8n.yaml"), []
        model.add_callback("on_train_batch_end", lambda trainer, seen=seen: seen.append(1))
        model.train(**tiny, **keys, data=str(toy), epochs=1, project=str(tmp_path), name=name, val=False)
        batches[name] = len(seen)
    assert batches["fixed"] == batches["stock"] < batches["grow"]


@pytest.mark.realdata
@pytest.mark.slow
def test_real_data_trains_from_the_real_trunk_with_balanced_exposure(shared, fod31lt, tmp_path):
    """The main job on fod31lt, shortened to one epoch at a small size; the full one is scripts/compare_recipes.py."""
    keys = {"imgsz": 96, "batch": 16, "optimizer": "AdamW", "lr0": 1e-3, "device": "cpu", "plots": False}
    model = YOLOLT(shared / "weights" / "yolov5n-coco-trunk.pt")
    model.train(**keys, data=str(fod31lt), epochs=1, project=str(tmp_path), name="run", close_mosaic=0, val=False)
    with (tmp_path / "run" / "exposure.csv").open() as f:
        rows = list(csv.DictReader(f))
    for name in ("head", "medium", "tail"):
        asked, tiles = (sum(float(r[k]) for r in rows if r["bin"] == name) for k in ("asked", "tiles"))
        assert tiles == pytest.approx(asked, rel=0.25 if name == "tail" else 0.1)
    report = YOLOLT(tmp_path / "run" / "weights" / "last.pt").val(
        data=str(fod31lt), imgsz=96, plots=False, project=str(tmp_path), bootstrap=20
    )
    sizes = {name: m["n_classes"] for name, m in report.metrics.items()}
    assert sizes == {"all": 31, "head": 10, "medium": 14, "tail": 7}
