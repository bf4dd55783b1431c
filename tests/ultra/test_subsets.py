"""`yolo-lt make-lt` and `yolo-lt split`: new data sets of the images of one, with what was said of them."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import write_yolo_set

from yolo_lt import api
from yolo_lt.cli import main
from yolo_lt.dataset.federated import EVERYTHING, FederatedIndex, load
from yolo_lt.dataset.rows import Boxes, Lists
from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra.federated import read_index
from yolo_lt.ultra.labels import class_stats, load_data, scan, stats_of

NAMES = ["ant", "bee", "cat", "dog"]
ROWS = [[0, 1]] * 20 + [[0]] * 20 + [[1, 2]] * 8 + [[2, 3]] * 2 + [[3]] * 6 + [[]] * 4


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """60 images of four classes; read only but for its label caches."""
    return write_yolo_set(tmp_path_factory.mktemp("own") / "set", ROWS, NAMES, val=12)


def table(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def tree(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".cache"}


# make-lt --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("profile", ["exponential", "pareto"])
def test_a_subset_has_the_wished_counts_of_whole_images(own, profile, tmp_path):
    before = tree(own.parent)
    made = api.make_lt(own, tail_profile=profile, imbalance=5, out=str(tmp_path / "lt"))
    stats, rows = class_stats(made), table(tmp_path / "lt" / "make_lt.csv")
    assert stats.instance_counts.tolist() == [int(row["chosen"]) for row in rows]
    for row in rows:
        near = abs(int(row["chosen"]) - int(row["wished"])) <= 0.05 * int(row["wished"])
        assert row["reached"] == ("yes" if near else "no")
    assert profile == "pareto" or {row["reached"] for row in rows} == {"yes"}
    assert int(rows[0]["wished"]) / min(int(row["wished"]) for row in rows) == pytest.approx(5, abs=1)
    for label in (tmp_path / "lt" / "labels" / "train").rglob("*.txt"):
        assert label.read_bytes() == (own.parent / "labels" / "train" / label.name).read_bytes()
    assert tree(own.parent) == before


def test_a_subset_has_a_label_cache_of_its_own_and_the_other_splits(own, tmp_path):
    made = api.make_lt(own, imbalance=5, out=str(tmp_path / "lt"))
    whole = class_stats(own)
    cache = own.parent / "labels" / "train.cache"
    written = cache.stat().st_mtime_ns
    assert class_stats(made).num_images < whole.num_images
    assert cache.stat().st_mtime_ns == written
    assert class_stats(made, "val").instance_counts.tolist() == class_stats(own, "val").instance_counts.tolist()


def test_counts_from_a_file_by_images_and_instances(own, tmp_path):
    wished = {"ant": [20, 20], "bee": [14, 14], "cat": [4, 4], "dog": [3, 3]}
    (tmp_path / "counts.yaml").write_text(yaml.safe_dump(wished))
    made = api.make_lt(own, tail_profile=str(tmp_path / "counts.yaml"), out=str(tmp_path / "lt"))
    assert class_stats(made).instance_counts.tolist() == [n for _, n in wished.values()]
    assert table(tmp_path / "lt" / "make_lt.csv")[0]["wished images"] == "20"


def test_what_cannot_be_reached_is_reported(own, tmp_path, caplog):
    (tmp_path / "counts.yaml").write_text("{ant: 40, bee: 0, cat: 9, dog: 8}")  # bee is in half of ant's images
    api.make_lt(own, tail_profile=str(tmp_path / "counts.yaml"), out=str(tmp_path / "lt"))
    assert "miss their wish by more than 5%" in caplog.text
    missed = [row["name"] for row in table(tmp_path / "lt" / "make_lt.csv") if row["reached"] == "no"]
    assert missed
    assert all(f"\n{name}" in caplog.text for name in missed)


def test_a_seed_gives_the_same_subset_and_another_one_another(own, tmp_path):
    lists = [
        (api.make_lt(own, imbalance=5, seed=seed, out=str(tmp_path / f"lt{i}")).parent / "train.txt").read_text()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert lists[0] == lists[1] != lists[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{ant: 1, bee: 2, cat: 3}", "no count for the class 'dog'"),
        ("{ant: 1, bee: 2, cat: 3, dog: 4, eel: 5}", "'eel', which is no class"),
        ("{ant: 1, bee: 2, cat: 3, dog: many}", "'dog' has 'many'"),
        ("{ant: 1, bee: 2, cat: 3, dog: [1, 2, 3]}", r"'dog' has \[1, 2, 3\]"),
        ("[1, 2]", "found list"),
        ("{", "cannot be read as YAML"),
    ],
)
def test_a_file_of_counts_that_does_not_fit_is_refused(own, content, message, tmp_path):
    (tmp_path / "counts.yaml").write_text(content)
    with pytest.raises(LTError, match=message):
        api.make_lt(own, tail_profile=str(tmp_path / "counts.yaml"), out=str(tmp_path / "lt"))
    assert not (tmp_path / "lt").exists()


def test_coco_lt_wants_cocos_classes(own, tmp_path):
    with pytest.raises(LTError, match="tail_profile=coco-lt has no count for the class 'ant'"):
        api.make_lt(own, tail_profile="coco-lt", out=str(tmp_path / "lt"))


# split ----------------------------------------------------------------------------------------------------------------
def test_a_split_has_every_class_on_both_sides_and_every_image_once(own, tmp_path):
    made = api.split(own, val_share=0.25, duplicates="none", out=str(tmp_path / "split"))
    train, val = class_stats(made), class_stats(made, "val")
    assert train.num_images + val.num_images == len(ROWS)
    assert val.num_images == pytest.approx(len(ROWS) / 4, abs=2)
    assert (train.image_counts > 0).all()
    assert (val.image_counts > 0).all()
    rows = table(tmp_path / "split" / "split.csv")
    assert sorted(os.path.basename(row["image"]) for row in rows) == [f"{i:04d}.png" for i in range(len(ROWS))]


def test_pooled_splits_and_three_sides(own, tmp_path, caplog):
    made = api.split(own, pool="train,val", val_share=0.2, test_share=0.2, duplicates="none", out=str(tmp_path / "s"))
    sizes = [class_stats(made, split).num_images for split in ("train", "val", "test")]
    assert sum(sizes) == len(ROWS) + 12
    assert "every class that occurs is in every split" in caplog.text


def test_copies_and_groups_stay_together(own, tmp_path):
    copy = write_yolo_set(tmp_path / "set", ROWS, NAMES)
    images = copy.parent / "images" / "train"
    for i in range(0, 40, 4):  # four copies each of ten images
        for k in (1, 2, 3):
            (images / f"{i + k:04d}.png").write_bytes((images / f"{i:04d}.png").read_bytes())
    made = api.split(copy, duplicates="exact", val_share=0.5, out=str(tmp_path / "split"))
    side = {os.path.basename(row["image"]): row["split"] for row in table(made.parent / "split.csv")}
    assert all(len({side[f"{i + k:04d}.png"] for k in range(4)}) == 1 for i in range(0, 40, 4))
    made = api.split(copy, duplicates="none", groups=r"/(\d{3})\d\.", val_share=0.5, out=str(tmp_path / "tens"))
    side = {os.path.basename(row["image"]): row["split"] for row in table(made.parent / "split.csv")}
    assert all(len({side[f"{ten}{k}.png"] for k in range(10)}) == 1 for ten in ("000", "001", "002", "003", "004"))
    assert set(side.values()) == {"train", "val"}


def test_what_is_on_one_side_only_is_said(own, tmp_path, caplog):
    rows = [[0]] * 10 + [[1]]
    lone = write_yolo_set(tmp_path / "set", rows, NAMES)
    api.split(lone, duplicates="none", out=str(tmp_path / "split"))
    assert "1 classes are not in every split: bee" in caplog.text


# Both -----------------------------------------------------------------------------------------------------------------
def federated(own, folder):
    """The set, of whose training images every third was looked through for ants and bees alone, with a crowd each."""
    copy = write_yolo_set(folder / "set", ROWS, NAMES)
    names = tuple(f"train/{i:04d}.png" for i in range(len(ROWS)))
    row = np.array([0 if i % 3 == 0 else EVERYTHING for i in range(len(names))])
    some = (row == 0).sum()
    crowd = Boxes(np.cumsum([0, *(row == 0)]), np.full(some, 2, np.int32), np.full((some, 4), 0.5))
    lists = Lists.of([[]]), Lists.of([[0, 1, 2, 3]]), Lists.of([[2]])
    FederatedIndex(tuple(NAMES), names, row, *lists, groups=crowd).save(copy.parent / "train.npz")
    copy.write_text(copy.read_text() + "federated: {train: train.npz}\nfrequency: fccr\ndownload: print('never')\n")
    return copy


@pytest.mark.parametrize("verb", ["make_lt", "split"])
def test_what_was_looked_for_goes_along(own, verb, tmp_path):
    copy = federated(own, tmp_path)
    more = {"imbalance": 5} if verb == "make_lt" else {"duplicates": "none"}
    made = getattr(api, verb)(copy, out=str(tmp_path / "new"), **more)
    data = load_data(made)
    scanned = scan(data, "train")
    files = [x["im_file"] for x in scanned.labels]
    index, _ = read_index(files, stats_of(scanned.labels, data), data, "auto")
    numbers = [int(Path(f).stem) for f in files]
    assert index is not None
    assert (index.row != EVERYTHING).tolist() == [i % 3 == 0 for i in numbers]
    assert np.diff(index.groups.offsets).tolist() == [int(i % 3 == 0) for i in numbers]
    assert load(made.parent / "federated" / "train.npz").not_exhaustive[0].tolist() == [2]
    assert "download" not in made.read_text()
    assert "frequency" not in made.read_text()  # of counts that are not these


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_images_are_linked_or_copied_as_asked(own, link, tmp_path):
    made = api.split(own, duplicates="none", link=link, out=str(tmp_path / "new"))
    folder = made.parent / "images" / "train" / "train"
    image = next(folder.iterdir())
    original = own.parent / "images" / "train" / image.name
    assert folder.is_symlink() == (link == "symlink")
    assert image.samefile(original) == (link != "copy")
    assert image.read_bytes() == original.read_bytes()
    assert class_stats(made).num_images + class_stats(made, "val").num_images == len(ROWS)


@pytest.mark.parametrize("verb", ["make-lt", "split"])
def test_a_folder_that_is_there_is_never_touched(own, verb, tmp_path, capsys):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "precious.txt").write_text("mine")
    assert main([verb, f"data={own}", f"out={tmp_path / 'new'}"]) == 1
    assert "is there already and is never overwritten" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["precious.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_the_new_set_is_named_after_the_old_one(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert api.make_lt(own, imbalance=5) == Path("set-lt/data.yaml")
    assert api.split(own, duplicates="none") == Path("set-split/data.yaml")


def test_shares_must_leave_something_to_train_on(own, tmp_path):
    with pytest.raises(UsageError, match="leave nothing for train"):
        api.split(own, val_share=0.6, test_share=0.4, out=str(tmp_path / "new"))


def test_a_disk_that_is_full_leaves_nothing(own, tmp_path, monkeypatch):
    def full(*args, **kw):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yolo_lt.dataset.subset.view.write_list", full)
    with pytest.raises(LTError, match="new: No space left on device; nothing was written"):
        api.split(own, duplicates="none", out=str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []
