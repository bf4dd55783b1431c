"""Where images and labels lie, how images are shown, and what happens to those that are missing."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ultralytics.data.utils import img2label_paths

from yolo_lt.dataset.convert import links
from yolo_lt.dataset.convert.layout import data_yaml, look_for_images, read_list, write_list
from yolo_lt.dataset.convert.links import find_folder, places, show_folder
from yolo_lt.errors import LTError

# Places ---------------------------------------------------------------------------------------------------------------

FOLDER = st.sampled_from(
    ["", "a", "A", "a b", "a-b", "images", "x/images", "images/x", "labels", "日本", "all", "a.b", "."]
)
FILE = st.sampled_from(
    ["1.jpg", "1.png", "1.JPG", "y.jpg", "Y.png", ".jpg", "1.2.jpg", "x.", "x", "ä b#%'.jpg", "images.jpg"]
)
NAME = st.tuples(FOLDER, FILE).map("/".join).map(lambda name: name.removeprefix("./").removeprefix("/"))


@settings(deadline=None)
@given(st.lists(NAME, unique=True, max_size=12))
@example(["images/1.jpg", "Images/1.jpg"])
@example(["a/1.jpg", "a/1.png", "a-2/1.jpg"])
@example(["a/y.jpg", "a/Y.png"])
@example(["x/" + "y" * 60 + f"{i}/1.jpg" for i in range(4)])
def test_ultralytics_looks_for_the_labels_where_they_are_and_no_two_share_a_file(names):
    at = places(names)
    assert len({label.casefold() for label in at.label}) == len(names), "some file systems know no case"
    assert len(set(at.image)) == len(names)
    assert len({place.casefold() for place in at.folders}) == len(at.folders)
    for name, image, label in zip(names, at.image, at.label, strict=True):
        place, file = image.split("/")
        folder = at.folders[place]
        assert (f"{folder}/{file}" if folder else file) == name
        assert "." not in place
        if "." in file:  # Ultralytics takes nothing else for an image
            assert img2label_paths([f"/d/images/train/{image}"]) == [f"/d/labels/train/{label}"]


def test_images_of_a_folder_share_a_place():
    at = places(["train2017/1.jpg", "val2017/1.jpg", "train2017/2.jpg", "3.jpg"])
    assert at.image == ("train2017/1.jpg", "val2017/1.jpg", "train2017/2.jpg", "all/3.jpg")
    assert at.label == ("train2017/1.txt", "val2017/1.txt", "train2017/2.txt", "all/3.txt")
    assert at.folders == {"train2017": "train2017", "val2017": "val2017", "all": ""}


def test_images_that_differ_in_the_suffix_have_places_of_their_own():
    at = places(["a.jpg", "a.png", "b.jpg", "a.webp"])
    assert at.image == ("all/a.jpg", "all-2/a.png", "all/b.jpg", "all-3/a.webp")
    assert at.folders == {"all": "", "all-2": "", "all-3": ""}


def test_many_folders_take_no_time():
    """Names of places are cut, so that these are one in their first letters."""
    at = places([f"{'sequence' * 6}/{i}/1.jpg" for i in range(20_000)])
    assert len(at.folders) == 20_000


# Folders --------------------------------------------------------------------------------------------------------------


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.mark.parametrize(
    ("there", "folder", "split"),
    [
        ("train2017", "train2017", "val"),
        ("images/train2017", "train2017", "train"),
        ("a/b", "a/b", "train"),
        ("images", "images", "train"),
        (".", "", "train"),
        ("images", "", "train"),
        ("train", "", "train"),
        ("train/images", "", "train"),
        ("images/train", "", "train"),
        ("val", "", "val"),
        ("valid", "", "val"),
        ("validation/images", "", "val"),
        ("images/testing", "", "test"),
        ("train/a/b", "a/b", "train"),
        (".", "x/root", "train"),
        (".", "root", "train"),
    ],
)
def test_a_folder_is_found_in_the_usual_places(there, folder, split, tmp_path):
    root = touch(tmp_path / "root", f"{there}/1.jpg", f"{there}/2.jpg", f"{there}/other.jpg")
    where, present = find_folder(root, folder, split, ["1.jpg", "2.jpg", "3.jpg"])
    assert where.resolve() == (root / there).resolve()
    assert present == {"1.jpg", "2.jpg"}


def test_the_place_with_most_of_the_images_is_taken_and_among_equals_the_first(tmp_path):
    root = touch(tmp_path, "images/1.jpg", "images/2.jpg", "1.jpg", "train/2.jpg")
    assert find_folder(root, "", "train", ["1.jpg", "2.jpg"])[0] == root / "images"
    assert find_folder(root, "", "train", ["1.jpg"])[0] == root


def test_one_image_of_many_is_enough(tmp_path):
    """Part of a set is often there for a trial."""
    root = touch(tmp_path, "a/9999.jpg")
    assert find_folder(root, "a", "train", [f"{i:04d}.jpg" for i in range(10_000)])[1] == {"9999.jpg"}


def test_what_is_no_file_is_no_image(tmp_path):
    (tmp_path / "a" / "1.jpg").mkdir(parents=True)
    (tmp_path / "a" / "2.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert find_folder(tmp_path, "a", "train", ["1.jpg", "2.jpg"]) is None
    assert find_folder(tmp_path / "none", "a", "train", ["1.jpg"]) is None


# Showing --------------------------------------------------------------------------------------------------------------


def state(folder):
    """Every entry of a folder with what would change if it were written anew."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_mtime_ns, path.lstat().st_ino)
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_a_folder_is_shown_once(link, tmp_path):
    source, at = touch(tmp_path / "source", "1.jpg", "2.jpg", "3.jpg"), tmp_path / "set" / "images" / "all"
    show_folder(source, at, link, ["1.jpg", "2.jpg"])
    assert (at / "1.jpg").read_bytes() == b"1.jpg"
    assert {p.name for p in at.iterdir()} == ({"1.jpg", "2.jpg"} if link != "symlink" else set(os.listdir(source)))
    before = state(tmp_path)
    show_folder(source, at, link, ["1.jpg", "2.jpg"])
    assert state(tmp_path) == before
    same = (at / "1.jpg").stat().st_ino == (source / "1.jpg").stat().st_ino
    assert same == (link != "copy")
    assert at.is_symlink() == (link == "symlink")


def test_files_that_came_later_are_added(tmp_path):
    source, at = touch(tmp_path / "source", "1.jpg", "2.jpg"), tmp_path / "at"
    show_folder(source, at, "copy", ["1.jpg"])
    first = (at / "1.jpg").stat().st_mtime_ns
    show_folder(source, at, "copy", ["1.jpg", "2.jpg"])
    assert (at / "2.jpg").exists()
    assert (at / "1.jpg").stat().st_mtime_ns == first


@pytest.mark.parametrize("link", ["symlink", "hardlink"])
def test_a_link_to_another_folder_is_replaced(link, tmp_path):
    touch(tmp_path, "old/1.jpg", "new/1.jpg")
    show_folder(tmp_path / "old", tmp_path / "at", "symlink", [])
    show_folder(tmp_path / "new", tmp_path / "at", link, ["1.jpg"])
    assert (tmp_path / "at" / "1.jpg").read_bytes() == b"new/1.jpg"
    assert (tmp_path / "old" / "1.jpg").read_bytes() == b"old/1.jpg"


def test_files_are_not_replaced_by_a_link(tmp_path):
    touch(tmp_path, "source/1.jpg", "at/1.jpg")
    with pytest.raises(LTError, match="at holds files and is no link: give link=hardlink or link=copy as before"):
        show_folder(tmp_path / "source", tmp_path / "at", "symlink", ["1.jpg"])
    assert (tmp_path / "at" / "1.jpg").read_bytes() == b"at/1.jpg"


def test_a_link_to_a_file_is_shown_as_the_file(tmp_path):
    touch(tmp_path, "store/x")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "1.jpg").symlink_to("../store/x")
    show_folder(tmp_path / "source", tmp_path / "deep" / "er" / "at", "hardlink", ["1.jpg"])
    assert (tmp_path / "deep" / "er" / "at" / "1.jpg").read_bytes() == b"store/x"


@pytest.mark.parametrize(
    ("link", "call", "advice"),
    [
        ("symlink", "symlink", "try link=hardlink or link=copy"),
        ("hardlink", "link", "try link=copy"),
        ("copy", "replace", "try link=symlink"),
    ],
)
def test_a_file_system_that_cannot_is_told(link, call, advice, tmp_path, monkeypatch):
    source = touch(tmp_path / "source", "1.jpg")

    def fail(*args, **kw):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(links.os, call, fail)
    message = rf"at: .*source cannot be shown there \(Invalid cross-device link\); {advice}$"
    with pytest.raises(LTError, match=message):
        show_folder(source, tmp_path / "at", link, ["1.jpg"])


def test_a_copy_that_was_cut_off_is_no_image(tmp_path, monkeypatch):
    source = touch(tmp_path / "source", "1.jpg")

    def half(old, new):
        Path(new).write_bytes(Path(old).read_bytes()[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(links.shutil, "copyfile", half)
        with pytest.raises(LTError, match="No space left"):
            show_folder(source, tmp_path / "at", "copy", ["1.jpg"])
    assert not list((tmp_path / "at").iterdir())
    show_folder(source, tmp_path / "at", "copy", ["1.jpg"])
    assert (tmp_path / "at" / "1.jpg").read_bytes() == b"1.jpg"


# Missing images -------------------------------------------------------------------------------------------------------

NAMES = {"train": ["a/1.jpg", "a/2.jpg", "b/1.jpg"], "val": ["a/3.jpg"]}


def record_of(folder, names=NAMES):
    """The lists of a conversion and its record."""
    splits = {}
    for split, own in names.items():
        at = places(own)
        splits[split] = {"folders": at.folders}
        write_list(folder / f"{split}.txt", [f"./images/{split}/{image}" for image in at.image])
    return {"splits": splits}


def lists(folder):
    return {p.name: [x.split("/", 2)[2] for x in read_list(p)] for p in sorted(folder.glob("*.txt"))}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def test_missing_images_are_listed_and_found_later(folder, tmp_path):
    record, images = record_of(folder), touch(tmp_path / "pictures", "a/2.jpg", "a/3.jpg")
    assert look_for_images(folder, record, images, "symlink") == {"train": 2, "val": 0}
    found = {"train.txt": ["train/a/2.jpg"], "missing-train.txt": ["train/a/1.jpg", "train/b/1.jpg"]}
    assert lists(folder) == {**found, "val.txt": ["val/a/3.jpg"]}
    assert (folder / "images" / "train" / "a" / "2.jpg").read_bytes() == b"a/2.jpg"
    assert not (folder / "images" / "train" / "b").exists()
    touch(images, "b/1.jpg", "a/1.jpg")
    assert look_for_images(folder, record, images, "symlink") == {"train": 0, "val": 0}
    assert lists(folder)["train.txt"] == ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg"]
    assert not list(folder.glob("missing*"))
    (images / "a" / "2.jpg").unlink()
    assert look_for_images(folder, record, images, "symlink") == {"train": 1, "val": 0}
    assert lists(folder)["missing-train.txt"] == ["train/a/2.jpg"]


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
@pytest.mark.parametrize("there", [("a/2.jpg", "a/3.jpg"), ("a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg")])
def test_a_second_look_writes_nothing(link, there, folder, tmp_path):
    record, images = record_of(folder), touch(tmp_path / "pictures", *there)
    first = look_for_images(folder, record, images, link)
    before = state(folder)
    assert look_for_images(folder, record, images, link) == first
    assert state(folder) == before


def test_images_may_move(folder, tmp_path):
    record, images = record_of(folder), touch(tmp_path / "pictures", "a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg")
    look_for_images(folder, record, images, "symlink")
    before = lists(folder)
    images.rename(tmp_path / "moved")
    assert look_for_images(folder, record, tmp_path / "moved", "symlink") == {"train": 0, "val": 0}
    assert (folder / "images" / "train" / "a" / "1.jpg").exists()
    assert lists(folder) == before


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_no_image_is_lost_where_a_look_is_killed_between_the_lists(fails, folder, tmp_path, monkeypatch):
    from yolo_lt.dataset.convert import layout

    record, images = record_of(folder), touch(tmp_path / "pictures", "a/2.jpg", "a/3.jpg")
    expected = {"train": 2, "val": 0}
    for there in ((), ("a/1.jpg", "b/1.jpg")):  # images go from the one list to the other, and back
        touch(images, *there)
        expected = {"train": 0, "val": 0} if there else expected
        calls = []

        def killed(path, lines, calls=calls):
            calls.append(path)
            if len(calls) == fails:
                raise KeyboardInterrupt
            path.write_text("".join(f"{line}\n" for line in lines))

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(layout, "write_list", killed)
            look_for_images(folder, record, images, "symlink")
        assert len(calls) == fails
        assert look_for_images(folder, record, images, "symlink") == expected
        every = [x for name, own in lists(folder).items() if "train" in name for x in own]
        assert sorted(every) == ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg"]


def test_where_no_image_is_there_nothing_changes(folder, tmp_path):
    record, images = record_of(folder), touch(tmp_path / "pictures", "a/1.jpg", "a/3.jpg")
    look_for_images(folder, record, images, "symlink")
    before = state(folder)
    wrong = touch(tmp_path / "wrong", "a/x.jpg")
    with pytest.raises(LTError, match=r"images=.*wrong has none of the images, such as 1\.jpg"):
        look_for_images(folder, record, wrong, "symlink")
    with pytest.raises(LTError, match=r"images=.*nowhere: no such folder"):
        look_for_images(folder, record, tmp_path / "nowhere", "symlink")
    assert state(folder) == before


def test_one_folder_is_not_taken_for_two(folder, tmp_path):
    """`images=` names the folder of the one split, and the other's images have the same names."""
    record = record_of(folder, {"train": ["train/img/1.jpg"], "val": ["val/img/1.jpg"]})
    images = touch(tmp_path / "train" / "img", "1.jpg")
    with pytest.raises(
        LTError, match="img would be both 'train/img' and 'val/img' of the source; give the folder above"
    ):
        look_for_images(folder, record, images, "symlink")
    assert look_for_images(folder, record, tmp_path, "symlink") == {"train": 0, "val": 1}


def test_two_links_to_one_folder_are_two_folders(folder, tmp_path):
    """People who have all images in one folder help themselves so."""
    images = touch(tmp_path / "pictures", "all/1.jpg")
    for name in ("a", "b"):
        (images / name).symlink_to("all")
    record = record_of(folder, {"train": ["a/1.jpg", "b/1.jpg"]})
    assert look_for_images(folder, record, images, "symlink") == {"train": 0}


@pytest.mark.parametrize("line", ["/data/1.jpg", "./images/val/a/1.jpg", "./images/train/c/1.jpg", ""])
def test_lists_that_were_edited_are_refused(line, folder, tmp_path):
    record, images = record_of(folder), touch(tmp_path / "pictures", "a/1.jpg")
    write_list(folder / "train.txt", [*read_list(folder / "train.txt"), line])
    with pytest.raises(LTError, match=r"train\.txt: the conversion did not write the line"):
        look_for_images(folder, record, images, "symlink")


def test_a_list_that_is_gone_is_told(folder, tmp_path):
    record, images = record_of(folder), touch(tmp_path / "pictures", "a/1.jpg")
    (folder / "val.txt").unlink()
    with pytest.raises(LTError, match=r"val\.txt is missing: remove .*set and convert again"):
        look_for_images(folder, record, images, "symlink")


def test_a_full_disk_is_told(folder, tmp_path, monkeypatch):
    from yolo_lt.dataset.convert import layout

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    record, images = record_of(folder), touch(tmp_path / "pictures", "a/1.jpg")
    monkeypatch.setattr(layout, "write_list", full)
    with pytest.raises(LTError, match="set: No space left on device; start again to go on"):
        look_for_images(folder, record, images, "symlink")


# The data YAML --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("splits", "train", "val"),
    [
        (["train", "val", "test"], "train", "val"),
        (["train"], "train", "train"),
        (["val"], "val", "val"),
        (["test"], "test", "test"),
        (["train", "minival"], "train", "minival"),
        (["train", "test"], "train", "test"),
        (["minival", "test"], "minival", "minival"),
    ],
)
def test_train_and_val_are_always_there(splits, train, val):
    """Ultralytics reads no data YAML without both of them."""
    text = data_yaml("x", {"names": {0: "a"}}, {name: {"federated": name == splits[0]} for name in splits})
    read = yaml.safe_load(text)
    assert (read["train"], read["val"]) == (f"{train}.txt", f"{val}.txt")
    assert all(read[name] == f"{name}.txt" for name in splits)
    expected = {name for name, file in (("train", train), ("val", val), ("test", "test")) if file == splits[0]}
    assert read["federated"] == dict.fromkeys({*expected, splits[0]}, f"federated/{splits[0]}.npz")
    stands_in = [line for line in text.splitlines() if "stands in for it" in line]
    assert len(stands_in) == ("train" not in splits) + ("val" not in splits)


def test_splits_that_are_elsewhere_are_not_stood_in_for():
    text = data_yaml("x", {"val": "/other/val", "names": {0: "a"}}, {"train": {"federated": False}})
    assert yaml.safe_load(text) == {"train": "train.txt", "val": "/other/val", "names": {0: "a"}}
    assert "stands in" not in text


NAMES_OF_CLASSES = [
    "no",
    "null",
    "1.0",
    "a: b",
    "#x",
    "- y",
    "'",
    '"',
    "日本 🐈",
    "",
    "x" * 300,
    "a\\b",
    "{c}",
    "&d",
    "12",
]


def test_any_name_of_a_class_survives():
    entries = {"names": dict(enumerate(NAMES_OF_CLASSES)), "category_ids": list(range(2000)), "hierarchy": "x.json"}
    text = data_yaml("one\ntwo \x07", entries, {"train": {"federated": False}})
    assert yaml.safe_load(text) == {"train": "train.txt", "val": "train.txt", **entries}
    assert len(text.splitlines()) < 40, "a list is one line, or nobody could look at the file"
    assert text.splitlines()[0] == "# one?two ?"
