"""Tail paste and tail augmentation in trainings: what they leave behind, what they say, and where they are refused."""

import csv

import pytest
from conftest import LONG_TAIL, NAMES, write_yolo_set

from yolo_lt import YOLOLT
from yolo_lt.cli import main
from yolo_lt.errors import LTError, UsageError


@pytest.mark.slow
@pytest.mark.parametrize(("task", "model"), [("detect", "yolo26n.yaml"), ("segment", "yolo11n-seg.yaml")])
def test_a_training_with_both(sets, tmp_path, tiny, task, model, caplog):
    keys = {**tiny, "plots": True, "data": str(sets(task)), "epochs": 2, "project": str(tmp_path), "name": "run"}
    YOLOLT(model).train(**keys, recipe="rfs", tail_paste=0.8, tail_augment=True, close_mosaic=1, val=False)
    folder = tmp_path / "run"
    with (folder / "exposure.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0]) == ["epoch", "class_id", "name", "bin", "asked", "tiles", "boxes", "pasted"]
    assert all((int(r["pasted"]) > 0) == (r["bin"] == "tail") for r in rows)
    first, second = (int(r["pasted"]) for r in rows if r["bin"] == "tail")
    assert first > 2 * second, "four tiles an image until mosaic closes"
    assert (folder / "tail_paste.jpg").stat().st_size > 5000
    assert "tail_paste: 80% of the source images get a tail instance" in caplog.text
    assert "tail_augment: the default policy on images with tail classes" in caplog.text
    shape = "along their polygons" if task == "segment" else "with a soft border"
    assert shape in caplog.text
    assert "instances pasted" in caplog.text


@pytest.mark.slow
def test_paste_without_a_sampler_keeps_the_stock_number_of_draws(toy, tmp_path, tiny):
    keys = {**tiny, "data": str(toy), "epochs": 1, "project": str(tmp_path), "name": "run", "mosaic": 0}
    YOLOLT("yolov8n.yaml").train(**keys, recipe="baseline", tail_paste=1.0, val=False)
    with (tmp_path / "run" / "exposure.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [int(r["tiles"]) for r in rows] == [33, 12, 3], "every image once"
    assert int(rows[2]["boxes"]) > 3 + 20


@pytest.mark.parametrize(
    ("kind", "given", "error", "message"),
    [
        ("pose", {"tail_paste": 0.5}, UsageError, "tail_paste works on detect and segment"),
        ("obb", {"tail_paste": 0.5}, UsageError, "tail_paste works on detect and segment"),
        ("detect", {"tail_paste": 0.5, "rect": True}, UsageError, "rect=true"),
        ("detect", {"tail_augment": True, "rect": True, "recipe": "baseline"}, UsageError, "rect=true"),
        ("detect", {"tail_paste": 1.5}, UsageError, "tail_paste=1.5: expected number in"),
        ("detect", {"tail_augment": "nowhere.yaml"}, LTError, "tail_augment=nowhere.yaml cannot be read"),
        ("detect", {"tail_paste": 0.5, "paste_memory": 0.0001}, LTError, "not one instance fits"),
        ("detect", {"tail_paste": 0.5, "bins": (0, 1)}, LTError, "no training image holds a tail class"),
        ("detect", {"tail_paste": 0.5, "single_cls": True, "bins": (0, 1)}, LTError, "no training image holds a tail"),
    ],
)
def test_where_they_cannot_act_nothing_is_written(sets, tmp_path, tiny, kind, given, error, message):
    model = {"pose": "yolov8n-pose.yaml", "obb": "yolov8n-obb.yaml", "detect": "yolov8n.yaml"}[kind]
    with pytest.raises(error, match=message):
        YOLOLT(model).train(**{**tiny, **given}, data=str(sets(kind)), epochs=1, project=str(tmp_path), name="run")
    assert not (tmp_path / "run").exists()


def test_masks_need_polygons(toy, tmp_path, tiny):
    """Ultralytics itself refuses box labels for segment; the run folder is not made."""
    with pytest.raises(LTError, match="Segment dataset requires equal numbers of boxes and segments"):
        YOLOLT("yolo11n-seg.yaml").train(**tiny, data=str(toy), tail_paste=0.5, epochs=1, project=str(tmp_path))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["tail_paste", "tail_augment"])
def test_cached_features_cannot_be_changed(toy, checkpoint, key):
    with pytest.raises(UsageError, match=f"{key} cannot act on cached features"):
        YOLOLT(checkpoint("yolov8n.yaml")).finetune_head(data=str(toy), feature_cache=True, **{key: True})


def test_a_tail_that_cannot_be_cut_out_is_refused_before_training(tmp_path, tiny):
    data = write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)
    for i, row in enumerate(LONG_TAIL):
        if 2 in row:
            path = data.parent / "labels" / "train" / f"{i:04d}.txt"
            path.write_text("\n".join("2 0.05 0.5 0.1 0.3" for _ in row))
    with pytest.raises(LTError, match="tail_paste cannot act: every tail instance is cut"):
        YOLOLT("yolov8n.yaml").train(**tiny, data=str(data), tail_paste=0.5, project=str(tmp_path), name="run")
    assert not (tmp_path / "run").exists()


def test_a_fraction_that_drops_tail_classes_is_said(toy, tmp_path, capsys, caplog):
    """The first files in alphabetical order: classes beta and gamma come later in the toy set."""
    assert main(["stats", f"data={toy}", "fraction=0.5", f"project={tmp_path}"]) == 0
    assert "fraction=0.5 leaves no image of beta, gamma" in caplog.text + capsys.readouterr().err


def test_sampler_keys_that_cannot_act_are_refused_on_every_verb(toy, checkpoint, tmp_path, capsys):
    for words in (
        ["stats", "recipe=baseline", "repeat_thr=0.1"],
        ["train", "model=yolov8n.yaml", "sampler=class_aware", "repeat_thr=0.1"],
        ["finetune-head", f"model={checkpoint('yolov8n.yaml')}", "sampler=inverse", "repeat_thr=0.1"],
    ):
        assert main([*words, f"data={toy}", f"project={tmp_path}"]) == 2
        assert "repeat_thr acts only with sampler=rfs" in capsys.readouterr().err
