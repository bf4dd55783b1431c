"""A conversion is whole or not there, goes on where it stopped, and leaves alone what is not its own."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from yolo_lt.dataset.convert import job as conversion
from yolo_lt.dataset.convert import layout
from yolo_lt.dataset.convert.coco import read_coco
from yolo_lt.dataset.convert.job import Job, kept_classes, run_job
from yolo_lt.dataset.federated import load
from yolo_lt.errors import LTError, UsageError

CLASSES = ("ant", "bee", "cat", "dog")
SQUARE, MISFIT = [[20, 10, 60, 10, 60, 60, 20, 60]], [[0, 0, 9, 0, 9, 9]]


def write_source(path, images=10, federated=True, crowds=False, name="{}.jpg", frequency=True):
    """Image i has i % 3 objects of class i % 4, every second one without a fitting outline; one is beyond its image."""
    lists = {"neg_category_ids": [2], "not_exhaustive_category_ids": [3]} if federated else {}
    categories = [{"id": 10 + c, "name": n} for c, n in enumerate(CLASSES)]
    if frequency:
        categories = [{**row, "frequency": letter} for row, letter in zip(categories, "fcrr", strict=True)]
    boxes = [(i, k) for i in range(images) for k in range(i % 3)]
    content = {
        "images": [
            {"id": i, "width": 200, "height": 100, "file_name": name.format(i), **_ids(lists)} for i in range(images)
        ],
        "categories": categories,
        "annotations": [
            {
                "image_id": i,
                "category_id": 10 + i % 4,
                "bbox": [20, 10, 40, 50] if i != 1 else [-20, 10, 80, 50],
                "iscrowd": int(crowds and i == 5),
                "segmentation": MISFIT if (i + k) % 2 else SQUARE,
            }
            for i, k in boxes
        ],
    }
    path.write_text(json.dumps(content))
    return path


def _ids(lists):
    return {key: [10 + c for c in classes] for key, classes in lists.items()}


def join(parts):
    return [np.array(part).reshape(-1, 2) for part in parts]


def job(sources, out, segments=True, **more):
    """Files of splits by their name."""
    return Job(
        format="lvis",
        sources={split: [path] for split, path in sources.items()},
        read=lambda split: read_coco(sources[split], join if segments else None),
        out=out,
        options={"segments": segments},
        **more,
    )


@pytest.fixture
def sources(tmp_path):
    return {"train": write_source(tmp_path / "a.json"), "val": write_source(tmp_path / "b.json", 4, name="v{}.png")}


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def state(folder):
    return {p: (p.lstat().st_mtime_ns, p.lstat().st_ino) for p in sorted([folder, *folder.rglob("*")])}


def quiet(text):
    pass


# What is written ------------------------------------------------------------------------------------------------------


def test_the_layout(sources, tmp_path):
    record = run_job(job(sources, tmp_path / "out"), quiet)
    files = content(tmp_path / "out")
    assert {name for name in files if not name.startswith("labels/")} == {
        *("data.yaml", "conversion.json", "train.txt", "val.txt", "federated/train.npz", "federated/val.npz")
    }
    labels = {name.removeprefix("labels/") for name in files if name.startswith("labels/")}
    assert labels == {f"train/all/{i}.txt" for i in range(10)} | {f"val/all/v{i}.txt" for i in range(4)}
    assert files["labels/train/all/0.txt"] == b""
    line = "0.1 0.1 0.3 0.1 0.3 0.6 0.1 0.6"
    assert files["labels/train/all/5.txt"].decode() == f"1 {line}\n1 {line}\n"
    assert files["train.txt"].decode().splitlines() == [f"./images/train/all/{i}.jpg" for i in range(10)]
    assert files["val.txt"].decode().splitlines() == [f"./images/val/all/v{i}.png" for i in range(4)]
    assert json.loads(files["conversion.json"]) == record
    told = record["splits"]["train"]
    assert (told["images"], told["objects"], told["groups"], told["federated"]) == (10, 9, 0, True)
    assert list(tmp_path.glob(".*")) == []


def test_boxes_alone(sources, tmp_path):
    run_job(job(sources, tmp_path / "out", segments=False), quiet)
    assert (tmp_path / "out/labels/train/all/5.txt").read_text() == "1 0.2 0.35 0.2 0.5\n" * 2


def test_the_data_yaml_tells_classes_and_their_counts(sources, tmp_path):
    run_job(job(sources, tmp_path / "out"), quiet)
    text = (tmp_path / "out" / "data.yaml").read_text()
    assert text.startswith("# Written by yolo-lt convert lvis from a.json, b.json\n")
    assert yaml.safe_load(text) == {
        "train": "train.txt",
        "val": "val.txt",
        "federated": {"train": "federated/train.npz", "val": "federated/val.npz"},
        "names": dict(enumerate(CLASSES)),
        "category_ids": [10, 11, 12, 13],
        "frequency": ["f", "c", "r", "r"],
        "image_counts": [2, 2, 1, 1],  # images 4, 8; 1, 5; 2; 7
        "instance_counts": [3, 3, 2, 1],
    }


def test_the_federated_index_has_the_images_as_they_are_shown(sources, tmp_path):
    run_job(job(sources, tmp_path / "out"), quiet)
    index = load(tmp_path / "out" / "federated" / "train.npz")
    assert index.images == tuple(f"all/{i}.jpg" for i in range(10))
    assert index.classes == CLASSES
    assert [index.positive[i].tolist() for i in (0, 1, 2, 7)] == [[], [1], [2], [3]]
    assert [index.negative[i].tolist() for i in range(10)] == [[2]] * 10
    aligned, missing = index.align([f"{tmp_path}/out/images/train/all/{i}.jpg" for i in (3, 1)])
    assert (aligned.row.tolist(), missing) == ([3, 1], 0)


def test_exhaustive_labels_need_no_index_and_crowds_one(tmp_path):
    paths = {"train": write_source(tmp_path / "a.json", federated=False)}
    run_job(job(paths, tmp_path / "plain"), quiet)
    assert not (tmp_path / "plain" / "federated").exists()
    assert "federated" not in yaml.safe_load((tmp_path / "plain" / "data.yaml").read_text())
    paths = {"train": write_source(tmp_path / "a.json", federated=False, crowds=True)}
    record = run_job(job(paths, tmp_path / "crowds"), quiet)
    assert (record["splits"]["train"]["objects"], record["splits"]["train"]["groups"]) == (7, 2)
    assert (tmp_path / "crowds/labels/train/all/5.txt").read_text() == ""
    groups = load(tmp_path / "crowds" / "federated" / "train.npz").groups
    assert groups.image.tolist() == [5, 5]
    np.testing.assert_allclose(groups.box, [[0.2, 0.35, 0.2, 0.5]] * 2)


def test_what_was_mended_is_in_the_record(sources, tmp_path):
    record = run_job(job(sources, tmp_path / "out"), quiet)
    assert record["splits"]["train"]["mended"] == {
        "boxes reached beyond their image and were cut at its border": 1,
        "objects whose outline does not fit their box got the box as outline": 5,
    }
    assert record["classes"] == 4


def test_a_hierarchy_is_copied_and_named(sources, tmp_path):
    (tmp_path / "tree.json").write_text("{}")
    run_job(job(sources, tmp_path / "out", hierarchy=tmp_path / "tree.json"), quiet)
    assert (tmp_path / "out" / "tree.json").read_text() == "{}"
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["hierarchy"] == "tree.json"


def test_images_of_one_name_in_other_folders_and_with_other_endings(tmp_path):
    names = ["train2017/1.jpg", "val2017/1.jpg", "train2017/1.png", "images/1.jpg", "a b,'c'/ä #%.jpg"]
    path = write_source(tmp_path / "a.json", len(names), name="{}")
    data = json.loads(path.read_text())
    for row, name in zip(data["images"], names, strict=True):
        row["file_name"] = name
    path.write_text(json.dumps(data))
    run_job(job({"train": path}, tmp_path / "out"), quiet)
    labels = {name: text for name, text in content(tmp_path / "out").items() if name.startswith("labels/")}
    listed = (tmp_path / "out" / "train.txt").read_text().splitlines()
    found = [labels[f"labels/{x.removeprefix('./images/').rpartition('.')[0]}.txt"].count(b"\n") for x in listed]
    assert found == [0, 1, 2, 0, 1]
    assert len(labels) == len(names)
    assert load(tmp_path / "out/federated/train.npz").align([f"/x/{x[2:]}" for x in listed])[0].row.tolist() == list(
        range(5)
    )


# Which classes --------------------------------------------------------------------------------------------------------


def test_of_federated_labels_only_images_that_say_something_stay(sources, tmp_path):
    """bee is in images 1 and 5; in no image it was looked for in vain."""
    run_job(job(sources, tmp_path / "out", keep=["bee"]), quiet)
    assert (tmp_path / "out" / "train.txt").read_text().split() == [f"./images/train/all/{i}.jpg" for i in (1, 5)]
    assert (tmp_path / "out/labels/train/all/5.txt").read_text().startswith("0 0.1")
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert (data["names"], data["category_ids"], data["frequency"]) == ({0: "bee"}, [11], ["c"])
    assert (data["image_counts"], data["instance_counts"]) == ([2], [3])
    index = load(tmp_path / "out" / "federated" / "train.npz")
    assert (index.classes, index.images) == (("bee",), ("all/1.jpg", "all/5.jpg"))
    assert [index.positive[r].tolist() for r in (0, 1)] == [[0], [0]]
    assert [index.negative[r].tolist() for r in (0, 1)] == [[], []]


def test_where_all_was_looked_for_every_image_stays(tmp_path):
    paths = {"train": write_source(tmp_path / "a.json", federated=False)}
    run_job(job(paths, tmp_path / "out", keep=["dog", "bee"]), quiet)
    assert len((tmp_path / "out" / "train.txt").read_text().split()) == 10
    lines = {i: (tmp_path / f"out/labels/train/all/{i}.txt").read_text()[:1] for i in (2, 5, 7)}
    assert lines == {2: "", 5: "0", 7: "1"}


def test_keeping_every_class_is_keeping_all(sources, tmp_path):
    run_job(job(sources, tmp_path / "all"), quiet)
    run_job(job(sources, tmp_path / "each", keep=list(CLASSES)), quiet)
    every, each = content(tmp_path / "all"), content(tmp_path / "each")
    assert {k: v for k, v in every.items() if k != "conversion.json"} == {
        k: v for k, v in each.items() if k != "conversion.json"
    }


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (["bee"], [1]),
        (["cat", "ant"], [0, 2]),
        ([12], [2]),
        (["12", "ant"], [0, 2]),
        (["tail"], [2, 3]),
        (["head", 13], [0, 3]),
        (["medium"], [1]),
        (["bee", "bee", "medium", 11], [1]),
    ],
)
def test_classes_are_kept_by_name_id_or_bin(keep, expected, sources):
    assert kept_classes(read_coco(sources["train"]), keep) == expected


def test_the_name_of_a_class_comes_before_ids_and_bins(sources):
    split = read_coco(sources["train"])
    named = replace(split, categories=replace(split.categories, names=("tail", "10", "cat", "dog")))
    assert kept_classes(named, ["tail"]) == [0]
    assert kept_classes(named, ["10"]) == kept_classes(named, [10]) == [1]
    assert kept_classes(named, [11]) == [1]


def test_bins_are_those_of_the_training_split(tmp_path):
    """Without letters of frequency images are counted, and val has others of them."""
    train = write_source(tmp_path / "a.json", 60, frequency=False)
    data = json.loads(train.read_text())
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] != 12 or a["image_id"] == 2]
    train.write_text(json.dumps(data))
    val = write_source(tmp_path / "b.json", 4, frequency=False)
    run_job(job({"train": train, "val": val}, tmp_path / "out", keep=["tail"]), quiet)
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"] == {0: "cat"}
    assert load(tmp_path / "out" / "federated" / "val.npz").classes == ("cat",)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (["bea"], "keep=bea is no class name, category id or bin .*; did you mean 'bee'?"),
        (["ant", 99], "keep=99 is no class name, category id or bin"),
        (["unseen"], "keep=unseen is no class name"),
        ([""], "keep= is no class name"),
    ],
)
def test_what_is_no_class_is_refused_before_anything_is_written(keep, message, sources, tmp_path):
    before = set(tmp_path.iterdir())
    with pytest.raises(UsageError, match=message):
        run_job(job(sources, tmp_path / "out", keep=keep), quiet)
    assert set(tmp_path.iterdir()) == before


def test_a_bin_without_classes_is_refused(sources):
    split = read_coco(sources["train"])
    same = replace(split, categories=replace(split.categories, frequency=("f",) * 4))
    with pytest.raises(UsageError, match="keep=tail,medium keeps no class at all"):
        kept_classes(same, ["tail", "medium"])


def test_splits_of_other_classes_are_refused_and_nothing_stays(sources, tmp_path):
    data = json.loads(sources["val"].read_text())
    data["categories"][0]["name"] = "other"
    sources["val"].write_text(json.dumps(data))
    before = set(tmp_path.iterdir())
    with pytest.raises(LTError, match=r"b\.json has other categories than .*a\.json; convert them apart"):
        run_job(job(sources, tmp_path / "out"), quiet)
    assert set(tmp_path.iterdir()) == before


# Twice ----------------------------------------------------------------------------------------------------------------


def test_the_same_again_writes_nothing(sources, tmp_path):
    first = run_job(job(sources, tmp_path / "out"), quiet)
    before, said = state(tmp_path), []
    assert run_job(job(sources, tmp_path / "out"), said.append) == first
    assert state(tmp_path) == before
    assert said == [f"{tmp_path}/out holds this conversion already"]


def test_two_conversions_are_byte_for_byte_the_same(sources, tmp_path):
    for name in ("one", "two"):
        run_job(job(sources, tmp_path / name), quiet)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def changed(sources, what):
    other = job(sources, Path("unused"))
    if what == "option":
        return {"segments": False}
    if what == "keep":
        return {"keep": ["ant"]}
    if what == "split":
        return {"sources": {"train": other.sources["train"]}}
    if what == "format":
        return {"format": "coco"}
    sources["val"].write_text(sources["val"].read_text() + " ")
    return {}


@pytest.mark.parametrize("what", ["option", "keep", "split", "format", "file"])
def test_another_conversion_is_never_overwritten(what, sources, tmp_path):
    out = tmp_path / "out"
    run_job(job(sources, out), quiet)
    before = state(out)
    changes = changed(sources, what)
    other = job(sources, out, segments=changes.pop("segments", True))
    with pytest.raises(LTError, match="out holds another conversion, which is never overwritten: give another out="):
        run_job(replace(other, **changes), quiet)
    assert state(out) == before


@pytest.mark.parametrize("held", ["file", "folder", "list", "hidden", "record"])
def test_what_no_conversion_wrote_is_never_touched(held, sources, tmp_path):
    out = tmp_path / "out"
    if held == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        name = {"folder": "mine.txt", "list": "conversion.json", "hidden": ".mine", "record": "conversion.json"}[held]
        (out / name).write_text({"list": "[]", "record": '{"schema": 1}'}.get(held, "mine"))
    before = state(out)
    with pytest.raises(LTError, match="out holds something that no conversion wrote, which is never overwritten"):
        run_job(job(sources, out), quiet)
    assert state(out) == before
    assert not list(tmp_path.glob(".*"))


def test_an_empty_folder_is_filled_and_a_link_followed(sources, tmp_path):
    (tmp_path / "out").mkdir()
    run_job(job(sources, tmp_path / "out"), quiet)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    (tmp_path / "dangling").symlink_to("disk/new")
    for name in ("link", "dangling", "deep/er/out"):
        (tmp_path / "disk").mkdir(exist_ok=True)
        run_job(job(sources, tmp_path / name), quiet)
        assert content(tmp_path / name) == content(tmp_path / "out")
        if name == "link":
            assert (tmp_path / "link").is_symlink()
            for path in (tmp_path / "disk").rglob("*"):
                if path.is_file():
                    path.unlink()
            (tmp_path / "disk").rename(tmp_path / "emptied")


def test_the_present_folder_may_be_the_new_one(sources, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run_job(job(sources, Path(".")), quiet)
    assert (tmp_path / "here" / "data.yaml").exists()


# Interrupted ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def expected(sources, tmp_path, monkeypatch):
    """The files of a conversion that nothing interrupted; those that follow note their progress every two images."""
    run_job(job(sources, tmp_path / "whole"), quiet)
    monkeypatch.setattr(layout, "CHUNK", 2)
    return content(tmp_path / "whole")


class Disk:
    """Counts the files that are opened for writing, and fails at one of them."""

    def __init__(self, fails, error):
        self.left, self.error = fails, error

    def __call__(self, file, mode="r", *args, **kw):
        if "w" not in mode:
            return open(file, mode, *args, **kw)
        self.left -= 1
        if self.left:
            return open(file, mode, *args, **kw)
        return Half(file, self.error)


class Half(io.StringIO):
    """A file of which only the beginning is written."""

    def __init__(self, file, error):
        super().__init__()
        self.file, self.error = file, error

    def writelines(self, lines):
        Path(self.file).write_text("0 0.5")
        raise self.error


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails", range(1, 15))
@pytest.mark.parametrize("error", [KeyboardInterrupt(), FULL], ids=["stopped", "disk full"])
def test_a_conversion_goes_on_where_it_stopped(fails, error, expected, sources, tmp_path, monkeypatch):
    """At every label file of the two splits; the result is byte for byte that of a conversion without a stop."""
    out, staging = tmp_path / "out", tmp_path / ".out.partial"
    with monkeypatch.context() as patch:
        patch.setattr(layout, "open", Disk(fails, error), raising=False)
        with pytest.raises((KeyboardInterrupt, LTError)) as caught:
            run_job(job(sources, out), quiet)
    assert not out.exists()
    if error is FULL:
        reason = "No space left on device; what is written so far stays, start again to go on"
        assert str(caught.value) == f"{staging}: {reason}"
    kept = {p: p.stat().st_mtime_ns for p in staging.rglob("*.txt")}
    said = []
    run_job(job(sources, out), said.append)
    assert content(out) == expected
    assert not staging.exists()
    assert said[0].startswith("going on where an earlier run stopped: ")
    stayed = sum((out / p.relative_to(staging)).stat().st_mtime_ns == t for p, t in kept.items() if "labels" in p.parts)
    assert stayed >= min((fails - 1) // 2 * 2, 10), "what was written must not be written again"


@pytest.mark.parametrize("call", range(1, 17))
def test_it_goes_on_wherever_a_file_is_not_written(call, expected, sources, tmp_path, monkeypatch):
    """Lists, notes of progress, the data YAML and the record are written in one step each; any of them may fail."""
    left = [call]

    def failing(write):
        def fail(path, content):
            left[0] -= 1
            if not left[0]:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f".{path.stem}.1.tmp{path.suffix}").write_text("abc")  # as a killed process leaves it
                raise KeyboardInterrupt
            return write(path, content)

        return fail

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_text", failing(conversion.write_text))
        patch.setattr(layout, "write_list", failing(layout.write_list))
        try:
            run_job(job(sources, tmp_path / "out"), quiet)
        except KeyboardInterrupt:
            assert not (tmp_path / "out").exists()
    run_job(job(sources, tmp_path / "out"), quiet)
    assert content(tmp_path / "out") == expected
    assert (left[0] <= 0) == (call <= 13), "there are 13 of them"


@pytest.mark.parametrize("written", [0, 1])
def test_a_full_disk_while_the_index_is_written_is_told(written, expected, sources, tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"PK")
        raise FULL

    kinds = [full] if not written else [np.savez_compressed, full]
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", lambda *args, **kw: kinds.pop(0)(*args, **kw))
        with pytest.raises(LTError, match=r"\.out\.partial: No space left on device; .* start again to go on"):
            run_job(job(sources, tmp_path / "out"), quiet)
    assert not (tmp_path / "out").exists()
    run_job(job(sources, tmp_path / "out"), quiet)
    assert content(tmp_path / "out") == expected


def test_a_stop_before_the_last_step_is_no_loss(expected, sources, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(job(sources, tmp_path / "out"), quiet)
    run_job(job(sources, tmp_path / "out"), quiet)
    assert content(tmp_path / "out") == expected


def test_what_another_conversion_left_does_not_mix_in(expected, sources, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(layout, "open", Disk(2, KeyboardInterrupt()), raising=False)
        with pytest.raises(KeyboardInterrupt):
            run_job(job(sources, tmp_path / "out", keep=["bee"], segments=False), quiet)
    said = []
    run_job(job(sources, tmp_path / "out"), said.append)
    assert content(tmp_path / "out") == expected
    assert not any("going on" in text for text in said)


@pytest.mark.parametrize("mine", ["file", "folder"])
def test_a_folder_of_that_name_that_is_not_ours_is_not_removed(mine, sources, tmp_path):
    staging = tmp_path / ".out.partial"
    if mine == "file":
        staging.write_text("mine")
    else:
        staging.mkdir()
        (staging / "mine.txt").write_text("mine")
    before = state(staging)
    with pytest.raises(LTError, match=r"\.out\.partial is where this would be built, and no conversion wrote it"):
        run_job(job(sources, tmp_path / "out"), quiet)
    assert state(staging) == before


def test_a_folder_without_a_right_to_write_is_told(sources, tmp_path, monkeypatch):
    def denied(*args, **kw):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(conversion, "write_text", denied)
    with pytest.raises(LTError, match=r"\.out\.partial: Permission denied"):
        run_job(job(sources, tmp_path / "out"), quiet)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\x00"])
def test_damaged_notes_are_no_notes(text, expected, sources, tmp_path):
    staging = tmp_path / ".out.partial"
    staging.mkdir()
    (staging / "progress.json").write_text(text)
    run_job(job(sources, tmp_path / "out"), quiet)
    assert content(tmp_path / "out") == expected


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_conversion import job
from yolo_lt.dataset.convert import job as conversion, layout

def slowly(path, text, write=conversion.write_text):
    time.sleep(0.03)  # else it may be done before it is killed
    return write(path, text)

conversion.write_text, layout.CHUNK = slowly, 20
conversion.run_job(job({"train": Path(sys.argv[2])}, Path(sys.argv[3])))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_process_loses_little(tmp_path):
    source = write_source(tmp_path / "a.json", 1000)
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(source)]
    process = subprocess.Popen([*command, str(tmp_path / "out")], stdout=subprocess.DEVNULL)
    notes, end = tmp_path / ".out.partial" / "progress.json", time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if notes.exists() and json.loads(notes.read_text())["done"]["train"]["images"] >= 100:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it must be killed while it writes"
    assert not (tmp_path / "out").exists()
    done = json.loads(notes.read_text())["done"]["train"]["images"]
    assert 100 <= done < 1000
    said = []
    run_job(job({"train": source}, tmp_path / "out"), said.append)
    assert said[0] == f"going on where an earlier run stopped: {done} images of train"
    run_job(job({"train": source}, tmp_path / "whole"), quiet)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_source_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(LTError, match=r"none\.json cannot be read: No such file or directory"):
        run_job(job({"train": tmp_path / "none.json"}, tmp_path / "out"), quiet)
    assert not list(tmp_path.iterdir())


def test_names_of_files_that_are_no_text(sources, tmp_path):
    name = os.fsdecode(b"a\xff\n.json")
    try:
        sources["train"] = sources["train"].rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system has no such names")
    record = run_job(job(sources, tmp_path / "out"), quiet)
    assert record["job"]["sources"]["train"][0]["file"] == "a\ufffd\n.json"
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["train"] == "train.txt"
