import shutil

import pytest
from conftest import LONG_TAIL, NAMES, write_yolo_set

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra.labels import class_stats, load_data, plain, scan


def tree(folder):
    return sorted((p.relative_to(folder).as_posix(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def own(tmp_path):
    return write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)


def test_counts_equal_the_lists_that_were_written(own):
    stats, expected = class_stats(own), ClassStats.from_lists(LONG_TAIL, 3)
    assert stats.image_counts.tolist() == expected.image_counts.tolist()
    assert stats.instance_counts.tolist() == expected.instance_counts.tolist()
    assert stats.num_images == len(LONG_TAIL)
    assert stats.names == tuple(NAMES)


def test_the_data_sets_own_letters_make_the_bins(own):
    own.write_text(own.read_text() + "frequency: crf\n")
    plan = make_plan(class_stats(own), config.resolve({}))
    assert [x.tolist() for x in (plan.bins.head, plan.bins.medium, plan.bins.tail)] == [[2], [0], [1]]


def test_what_ultralytics_drops_is_said(own, caplog):
    from yolo_lt.api import stats

    (own.parent / "labels" / "train" / "0004.txt").write_text("0 0.5 0.5 7.0 0.2")
    assert stats(data=str(own), project=str(own.parent / "runs")).stats.num_images == len(LONG_TAIL) - 1
    assert "drops 1 corrupt images or labels" in caplog.text
    assert "0004.png" in caplog.text
    written = sorted(p.name for p in (own.parent / "runs" / "stats").iterdir())
    assert written == ["class_rank.png", "class_stats.csv", "report.html", "report.md"]


def test_ultralytics_cache_is_used(own):
    class_stats(own)
    cache = own.parent / "labels" / "train.cache"
    before = cache.stat().st_mtime_ns
    class_stats(own)
    assert cache.stat().st_mtime_ns == before


@pytest.mark.parametrize("line", ["3 0.5 0.5 0.2 0.2", "-1 0.5 0.5 0.2 0.2", "0.5 0.5 0.5 0.2 0.2"])
def test_a_class_out_of_range_is_found_with_file_and_line_and_nothing_is_written(own, line):
    label = own.parent / "labels" / "train" / "0005.txt"
    label.write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    before = tree(own.parent)
    with pytest.raises(LTError, match=r"0005\.txt, line 2: class id .* names 3 classes"):
        class_stats(own)
    assert tree(own.parent) == before


def test_a_class_out_of_range_is_found_in_an_old_cache_too(own):
    (own.parent / "labels" / "train" / "0005.txt").write_text("7 0.5 0.5 0.2 0.2")
    from ultralytics.data.dataset import YOLODataset

    data = load_data(own)
    YOLODataset(img_path=data["train"], data=data, task="detect", augment=False, prefix="\033[34mtrain: \033[0m")
    with pytest.raises(LTError, match=r"0005\.txt, line 1"):
        class_stats(own)


def test_single_cls_makes_every_id_valid(own):
    (own.parent / "labels" / "train" / "0005.txt").write_text("7 0.5 0.5 0.2 0.2")
    data = load_data(own)
    assert scan(data, "train", args={"single_cls": True}).labels[5]["cls"].tolist() == [[0.0]]


def test_no_labels(own):
    shutil.rmtree(own.parent / "labels")
    with pytest.raises(LTError, match=r"not one label|No labels"):
        class_stats(own)
    assert not list(own.parent.rglob("*.cache"))


def test_no_images(own):
    shutil.rmtree(own.parent / "images" / "train")
    with pytest.raises(LTError, match="train"):
        class_stats(own)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "data.yaml"),
        ("- 1\n- 2", "data.yaml"),
        ("train: images/train\nval: images/val\nnc: 5\nnames: [a, b, c]\n", "must match"),
        ("train: images/train\nval: images/val\n", "names"),
        ("val: images/val\nnames: [a]\n", "train"),
        ("train: nowhere\nval: images/val\nnames: [a, b, c]\n", "nowhere"),
    ],
)
def test_a_malformed_yaml_is_one_plain_line(own, text, message):
    own.write_text(text)
    with pytest.raises(LTError, match=message) as error:
        load_data(own)
    assert "\n" not in str(error.value)
    assert str(error.value).isascii()


def test_missing_and_listed_data():
    with pytest.raises(LTError, match="no such file"):
        load_data("nowhere.yaml")
    with pytest.raises(UsageError, match="missing"):
        load_data(None)
    with pytest.raises(UsageError, match="list"):
        load_data(["a.yaml", "b.yaml"])


def test_download_code_is_not_run_unless_asked(own, tmp_path):
    shutil.rmtree(own.parent / "images")
    marker = tmp_path / "ran"
    own.write_text(own.read_text() + f"download: |\n  open({str(marker)!r}, 'w').close()\n")
    with pytest.raises(LTError, match="allow_download=true"):
        load_data(own)
    assert not marker.exists()
    with pytest.raises(LTError):
        load_data(own, allow_download=True)  # it runs now, though it brings no images
    assert marker.exists()


@pytest.mark.parametrize("name", ["https://example.com/d.yaml", "set.zip", "set.ndjson"])
def test_remote_data_is_not_fetched_unless_asked(name):
    with pytest.raises(LTError, match="allow_download=true"):
        load_data(name)


def test_plain():
    assert plain("\033[31mDataset 'x' error ❌ no file.\nNote dataset directory is '/y'") == "Dataset 'x' error no file"
