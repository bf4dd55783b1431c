"""The federated index: built from LVIS annotations and from merged sources, written, read, aligned and asked."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.convert.coco import lvis_index
from yolo_lt.dataset.convert.source import Categories, Split, index_of, keep_classes
from yolo_lt.dataset.federated import EVERYTHING, FederatedIndex, Lists, from_known_classes, load
from yolo_lt.dataset.rows import Boxes
from yolo_lt.errors import LTError

CLASSES = ("ant", "bee", "cat", "dog", "eel")
SIZE = {"width": 40, "height": 20}
LVIS = {
    "categories": [{"id": i, "name": n} for i, n in ((7, "dog"), (2, "bee"), (9, "eel"), (1, "ant"), (4, "cat"))],
    "images": [
        {"id": 10, "coco_url": "http://x/train2017/a.jpg", "neg_category_ids": [4], "not_exhaustive_category_ids": [1]},
        {"id": 5, "file_name": "b.jpg", "neg_category_ids": [], "not_exhaustive_category_ids": []},
        {"id": 6, "file_name": "c.jpg", "neg_category_ids": [9, 2, 9], "not_exhaustive_category_ids": []},
    ],
    "annotations": [{"image_id": i, "category_id": c} for i, c in ((10, 1), (10, 1), (10, 2), (6, 7))],
}


def whole(content):
    """LVIS annotations with sizes of images, and boxes."""
    boxed = [{**a, "bbox": [1, 2, 3, 4]} for a in content["annotations"]]
    return {**content, "images": [{**image, **SIZE} for image in content["images"]], "annotations": boxed}


def read_lvis(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lvis.json"
        path.write_text(json.dumps(content))
        return lvis_index(path)


def lvis():
    return read_lvis(whole(LVIS))


def test_lvis_annotations_give_a_row_per_image_with_classes_in_the_order_of_their_ids():
    index = lvis()
    assert index.classes == CLASSES
    assert index.images == ("train2017/a.jpg", "b.jpg", "c.jpg")
    assert index.row.tolist() == [0, 1, 2]
    assert [index.positive[r].tolist() for r in range(3)] == [[0, 1], [], [3]]
    assert [index.negative[r].tolist() for r in range(3)] == [[2], [], [1, 4]]
    assert [index.not_exhaustive[r].tolist() for r in range(3)] == [[0], [], []]
    assert [np.flatnonzero(index.verified(r)).tolist() for r in range(3)] == [[0, 1, 2], [], [1, 3, 4]]


def test_partial_are_the_images_of_which_a_class_is_not_known():
    lists = Lists.of([range(5), range(5), [0]])
    nothing, partly = Lists.of([[], [], []]), Lists.of([[], [3], []])
    index = FederatedIndex(CLASSES, tuple("abcde"), np.array([0, 1, 2, EVERYTHING, 0]), nothing, lists, partly)
    assert index.partial.tolist() == [False, True, True, False, False]
    assert lvis().partial.all()


def test_a_negative_counts_where_the_class_was_looked_for_and_never_where_it_was_labelled_in_part():
    index = lvis()
    assert index.negative_weights(0, 0.25).tolist() == [0, 1, 1, 0.25, 0.25]
    assert index.negative_weights(0, np.array([1, 0.5, 0.5, 0.5, 0])).tolist() == [0, 1, 1, 0.5, 0]
    assert index.negative_weights(EVERYTHING, 0.25).tolist() == [1] * 5
    assert index.negative_weights(0, 1.0).tolist() == [0, 1, 1, 1, 1]


def test_where_images_are_blended_the_lesser_weight_counts():
    index = lvis()
    assert index.shared_weights((0, 2), 0.5).tolist() == [0, 1, 0.5, 0.5, 0.5]
    assert index.shared_weights((0, EVERYTHING), 0.5).tolist() == index.negative_weights(0, 0.5).tolist()
    assert index.shared_weights((), 0.5).tolist() == [1] * 5


@pytest.mark.realdata
def test_the_lists_of_real_lvis_annotations(shared):
    path = shared / "evaldata" / "lvis_val_100.json"
    index, data = lvis_index(path), json.loads(path.read_bytes())
    ids = [c["id"] for c in sorted(data["categories"], key=lambda c: c["id"])]
    assert len(index.images) == index.num_rows == 100
    assert index.images[0].startswith("val2017/")
    for r, image in enumerate(data["images"]):
        present = {a["category_id"] for a in data["annotations"] if a["image_id"] == image["id"]}
        assert {ids[c] for c in index.positive[r]} == present
        assert {ids[c] for c in index.negative[r]} == set(image["neg_category_ids"])
        assert {ids[c] for c in index.not_exhaustive[r]} == set(image["not_exhaustive_category_ids"])


@pytest.mark.parametrize("missing", ["categories", "images", "annotations"])
def test_json_that_is_not_of_lvis_is_refused(missing):
    with pytest.raises(LTError, match=rf"lvis.json is no COCO or LVIS file: .*missing required field `{missing}`"):
        read_lvis({k: v for k, v in whole(LVIS).items() if k != missing})


def test_coco_annotations_without_negatives_are_refused():
    images = [{k: v for k, v in image.items() if k != "neg_category_ids"} for image in LVIS["images"]]
    with pytest.raises(LTError, match=r"lvis.json are no LVIS annotations: no image has neg_category_ids"):
        read_lvis(whole({**LVIS, "images": images}))


def test_a_class_is_known_by_a_box_that_lies_outside_its_image():
    content = whole(LVIS)
    content["annotations"][3]["bbox"] = [100, 100, 5, 5]
    assert read_lvis(content).positive[2].tolist() == [3]


def test_crowds_of_lvis_annotations_are_groups_of_the_index():
    content = whole(LVIS)
    content["annotations"][2]["iscrowd"] = 1
    index = read_lvis(content)
    assert (index.groups.image.tolist(), index.groups.cls.tolist()) == ([0], [1])
    np.testing.assert_allclose(index.groups.box, [[2.5 / 40, 4 / 20, 3 / 40, 4 / 20]], rtol=1e-6)
    assert index.not_exhaustive[0].tolist() == [0, 1]
    assert lvis().groups is None


# Sources --------------------------------------------------------------------------------------------------------------


def test_a_source_holds_the_images_below_it_that_no_deeper_one_holds():
    images = ["/d/a/1.jpg", "/d/a/sub/2.jpg", "/d/b/3.jpg", "/other/4.jpg", "/d/ab/5.jpg"]
    index, unused = from_known_classes(images, {"/d/a": [1, 0], "/d/a/sub": [2], "/d/c": [3]}, CLASSES)
    assert index.row.tolist() == [0, 1, EVERYTHING, EVERYTHING, EVERYTHING]
    assert unused == ["/d/c"]
    assert index.negative[0].tolist() == [0, 1]
    assert index.negative_weights(1, 0.0).tolist() == [0, 0, 1, 0, 0]
    assert not len(index.positive[0])
    assert not len(index.not_exhaustive[0])


def test_a_list_of_images_is_a_source_too():
    images = ["/d/a/1.jpg", "/d/a/2.jpg", "/d/a/3.jpg"]
    listed = {"/d/a/2.jpg": "/d/some.txt"}
    index, unused = from_known_classes(images, {"/d/a": [0], "/d/some.txt": [1]}, CLASSES, listed)
    assert index.row.tolist() == [0, 1, 0]
    assert unused == []


def test_relative_paths_and_the_root_end_somewhere():
    index, _ = from_known_classes(["a.jpg", "/a.jpg", "x/a.jpg"], {"x": [0]}, CLASSES)
    assert index.row.tolist() == [EVERYTHING, EVERYTHING, 0]


# Files and images -----------------------------------------------------------------------------------------------------

ROWS = st.lists(st.lists(st.integers(0, 4)), min_size=1, max_size=6)


@given(st.data())
def test_what_is_written_is_read(tmp_path_factory, data):
    rows = data.draw(ROWS)
    lists = [Lists.of(data.draw(st.permutations(rows))) for _ in range(3)]
    row = data.draw(st.lists(st.integers(EVERYTHING, len(rows) - 1)))
    names = tuple(f"ordner/bild {i} ä.jpg" for i in range(len(row)))
    index = FederatedIndex(CLASSES, names, np.array(row, np.int64), *lists)
    path = tmp_path_factory.mktemp("index") / "federated.npz"
    index.save(path)
    read = load(path)
    assert (read.classes, read.images, read.row.tolist()) == (index.classes, index.images, row)
    for name in ("positive", "negative", "not_exhaustive"):
        for r in range(len(rows)):
            assert getattr(read, name)[r].tolist() == sorted(set(getattr(index, name)[r].tolist()))
    assert [p.name for p in path.parent.iterdir()] == ["federated.npz"]


def test_images_are_found_by_the_end_of_their_path():
    index, missing = lvis().align(["/data/images/train2017/a.jpg", "/x/c.jpg", "/x/d.jpg", "/y/xb.jpg", "a.jpg"])
    assert index.row.tolist() == [0, 2, EVERYTHING, EVERYTHING, EVERYTHING]
    assert missing == 3
    assert index.negative[2].tolist() == [1, 4]


def test_the_longest_name_that_fits_is_the_image():
    empty = Lists.of([[], []])
    index = FederatedIndex(CLASSES, ("a.jpg", "x/a.jpg"), np.array([0, 1]), empty, empty, empty)
    assert index.align(["/d/x/a.jpg", "/d/a.jpg"])[0].row.tolist() == [1, 0]


def test_a_name_that_is_there_twice_is_refused():
    empty = Lists.of([[], []])
    index = FederatedIndex(CLASSES, ("x/a.jpg", "x/a.jpg"), np.array([0, 1]), empty, empty, empty)
    with pytest.raises(LTError, match=r"has the image 'x/a\.jpg' twice"):
        index.align(["/d/x/a.jpg"])


def test_a_selection_keeps_images_and_rows_together():
    index = lvis().select(np.array([True, False, True]))
    assert (index.images, index.row.tolist()) == (("train2017/a.jpg", "c.jpg"), [0, 2])


def test_there_is_no_row_beyond_the_last():
    with pytest.raises(IndexError):
        lvis().positive[3]
    assert [row.tolist() for row in lvis().positive] == [[0, 1], [], [3]]


def damaged(tmp_path, **changed):
    path = tmp_path / "federated.npz"
    lvis().save(path)
    with np.load(path) as file:
        content = {k: file[k] for k in file.files}
    np.savez(path, **{k: v for k, v in {**content, **changed}.items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema": np.int64(2)}, "is damaged: schema 2, expected 1"),
        ({"schema": None}, "is damaged: .*schema"),
        ({"row": np.array([0, 1])}, "is damaged: 3 images, but 2 rows"),
        ({"row": np.array([0, 1, 3])}, "is damaged: an image's row is outside the lists"),
        ({"row": np.array([0, 1, -2])}, "is damaged: an image's row is outside the lists"),
        ({"negative_offsets": np.array([0, 1, 1, 2])}, "is damaged: the list 'negative' does not fit"),
        ({"negative_offsets": np.array([0, 2, 1, 3])}, "is damaged: the list 'negative' does not fit"),
        ({"positive_classes": np.array([0, 1, 5], np.int32)}, "is damaged: the list 'positive' does not fit"),
        ({"not_exhaustive_offsets": np.array([0, 1])}, "is damaged: the list 'not_exhaustive' does not fit"),
        ({"images": np.frombuffer(b"\xff\n\n", np.uint8)}, "is damaged: .*decode"),
        ({"images": np.array([None], object)}, "is no federated index: .*pickle"),
    ],
)
def test_a_damaged_index_is_refused(changed, message, tmp_path):
    with pytest.raises(LTError, match=rf"federated.npz {message}"):
        load(damaged(tmp_path, **changed))


def test_other_files_are_no_index(tmp_path):
    path = tmp_path / "federated.npz"
    with pytest.raises(LTError, match=r"federated=.*federated.npz: no such file"):
        load(path)
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(LTError, match="is no federated index"):
        load(path)
    lvis().save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(LTError, match="is no federated index"):
        load(path)


# Groups and labels ----------------------------------------------------------------------------------------------------

OLD_KEYS = {"schema", "row", "classes", "images"} | {
    f"{name}_{part}" for name in ("positive", "negative", "not_exhaustive") for part in ("classes", "offsets")
}


def boxes(*images):
    """Boxes of images, each given by the classes of its boxes; every box differs."""
    cls = np.array([c for classes in images for c in classes], np.int32)
    box = np.linspace(0.1, 0.9, 4 * len(cls), dtype=np.float32).reshape(-1, 4)
    return Boxes(np.cumsum([0, *map(len, images)]), cls, box)


def grouped(*images, **more):
    """An index of images that were all looked through, with group boxes of these classes."""
    rows, names = np.full(len(images), EVERYTHING), tuple(f"{i}.jpg" for i in range(len(images)))
    return FederatedIndex(CLASSES, names, rows, *[Lists.of([])] * 3, boxes(*images), **more)


def of_image(groups, i):
    cls, box = groups.of(i)
    return cls.tolist(), box.tolist()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=5), st.booleans())
def test_groups_and_labels_are_written_and_read(tmp_path_factory, images, labelled):
    labels = tuple(f"/m/{name} ä" for name in CLASSES) if labelled else None
    index = grouped(*images, labels=labels)
    path = tmp_path_factory.mktemp("index") / "federated.npz"
    index.save(path)
    read = load(path)
    assert read.labels == labels
    assert [of_image(read.groups, i) for i in range(len(images))] == [
        of_image(index.groups, i) for i in range(len(images))
    ]
    assert read.groups.box.dtype == np.float32


def test_an_index_without_groups_is_the_file_that_it_always_was(tmp_path):
    lvis().save(tmp_path / "federated.npz")
    with np.load(tmp_path / "federated.npz") as file:
        assert set(file.files) == OLD_KEYS
    read = load(tmp_path / "federated.npz")
    assert (read.groups, read.labels) == (None, None)


def test_groups_follow_their_images():
    index = grouped([0, 1], [], [2], labels=CLASSES)
    aligned, missing = index.align(["/x/2.jpg", "/x/new.jpg", "/x/0.jpg", "/y/2.jpg"])
    assert missing == 1
    expected = [of_image(index.groups, 2), ([], []), of_image(index.groups, 0), of_image(index.groups, 2)]
    assert [of_image(aligned.groups, i) for i in range(4)] == expected
    selected = aligned.select(np.array([False, True, True, True]))
    assert [of_image(selected.groups, i) for i in range(3)] == expected[1:]
    assert selected.labels == CLASSES
    assert selected.images == aligned.images[1:]


@pytest.mark.parametrize("again", ["select", "align"])
def test_images_without_groups_stay_images_without_groups(again, tmp_path):
    """Their groups are empty, and as many images must be in them as in the index, or it could not be read."""
    empty = grouped([], [0], []).select(np.array([True, False, True]))
    fewer = empty.select(np.array([False, True])) if again == "select" else empty.align(["2.jpg"])[0]
    fewer.save(tmp_path / "federated.npz")
    assert len(load(tmp_path / "federated.npz").groups.offsets) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"groups_offsets": np.array([0, 1, 2])}, "the groups do not fit"),
        ({"groups_offsets": np.array([0, 2, 1, 3])}, "the groups do not fit"),
        ({"groups_offsets": np.array([1, 2, 2, 3])}, "the groups do not fit"),
        ({"groups_cls": np.array([0, 1, 5], np.int32)}, "the groups do not fit"),
        ({"groups_cls": np.array([0, -1, 2], np.int32)}, "the groups do not fit"),
        ({"groups_box": np.zeros((3, 3), np.float32)}, "the groups do not fit"),
        ({"groups_box": None}, ".*groups_box"),
        ({"labels": np.frombuffer(b"one\ntwo", np.uint8)}, "5 classes, but 2 labels of a hierarchy"),
    ],
)
def test_damaged_groups_are_refused(changed, message, tmp_path):
    path = tmp_path / "federated.npz"
    grouped([0, 1], [], [2], labels=CLASSES).save(path)
    with np.load(path) as file:
        content = {k: file[k] for k in file.files}
    np.savez(path, **{k: v for k, v in {**content, **changed}.items() if v is not None})
    with pytest.raises(LTError, match=rf"federated.npz is damaged: {message}"):
        load(path)


# Of a source ----------------------------------------------------------------------------------------------------------


def split(objects, groups=(), positive=None, negative=None, few=None, outline=None):
    """A split of a source whose images are given by the classes of their boxes."""
    names, ids = CLASSES, tuple(10 + c for c in range(5))
    categories = Categories(names, ids, tuple("rcffr"), tuple(f"/m/{n}" for n in names))
    images = tuple(f"{i}.jpg" for i in range(len(objects)))
    lists = [None if rows is None else Lists.of(rows) for rows in (positive, negative, few)]
    return Split(categories, images, boxes(*objects), boxes(*(groups or [[]] * len(objects))), *lists, outline)


def rows_of(index, lists):
    return [[] if r == EVERYTHING else getattr(index, lists)[int(r)].tolist() for r in index.row]


def test_a_source_in_which_all_was_looked_for_needs_no_index():
    assert index_of(split([[0], [1]])) is None
    assert index_of(split([[0], [1]], few=[[], []])) is None


def test_crowds_alone_make_an_index_in_which_all_is_known_but_their_class():
    index = index_of(split([[0], [1], [2], []], groups=[[], [1], [1, 3], [1]], few=[[], [1], [1, 3], [1]]))
    assert index.row.tolist() == [EVERYTHING, 0, 1, 0], "images that are alike share a row"
    assert rows_of(index, "not_exhaustive") == [[], [1], [1, 3], [1]]
    assert rows_of(index, "positive") == [[]] * 4
    assert all(index.verified(int(r)).all() for r in index.row)
    assert index.negative_weights(1, 0.5).tolist() == [1, 0, 1, 0, 1]
    assert [of_image(index.groups, i)[0] for i in range(4)] == [[], [1], [1, 3], [1]]
    assert index.labels == tuple(f"/m/{n}" for n in CLASSES)


def test_lists_of_a_source_are_the_rows_of_its_images():
    index = index_of(split([[0], []], positive=[[0], [4]], negative=[[1, 2], []]))
    assert rows_of(index, "positive") == [[0], [4]]
    assert rows_of(index, "negative") == [[1, 2], []]
    assert rows_of(index, "not_exhaustive") == [[], []]
    assert index.groups is None


CLASSES_OF = st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=6)


@given(st.data())
def test_of_some_classes_stays_what_is_said_of_them(data):
    """Against the same made of plain lists."""
    objects = data.draw(CLASSES_OF)
    some = st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=len(objects), max_size=len(objects))
    groups, negative, few = data.draw(some), data.draw(st.none() | some), data.draw(st.none() | some)
    positive = None if negative is None else objects
    classes = sorted(data.draw(st.sets(st.integers(0, 4), min_size=1)))
    whole = split(objects, groups, positive, negative, few)
    kept = keep_classes(whole, classes)

    def says(i):
        return negative is None or {*objects[i], *negative[i], *(few[i] if few else [])} & set(classes)

    images = [i for i in range(len(objects)) if says(i)]
    assert kept.images == tuple(f"{i}.jpg" for i in images)
    assert kept.categories.names == tuple(CLASSES[c] for c in classes)
    assert kept.categories.ids == tuple(10 + c for c in classes)
    assert kept.categories.frequency == tuple("rcffr"[c] for c in classes)
    assert kept.categories.labels == tuple(f"/m/{CLASSES[c]}" for c in classes)
    for name, before, after in (("objects", whole.objects, kept.objects), ("groups", whole.groups, kept.groups)):
        for new, old in enumerate(images):
            own = [k for k, c in enumerate(before.of(old)[0].tolist()) if c in classes]
            assert after.of(new)[0].tolist() == [classes.index(before.of(old)[0][k]) for k in own], name
            assert after.of(new)[1].tolist() == before.of(old)[1][own].tolist(), name
    for name, rows in (("positive", positive), ("negative", negative), ("not_exhaustive", few)):
        lists = getattr(kept, name)
        assert (lists is None) == (rows is None)
        for new, old in enumerate(images if rows is not None else []):
            assert lists[new].tolist() == sorted({classes.index(c) for c in rows[old] if c in classes})


def test_of_some_classes_the_outlines_follow_their_boxes():
    class Numbered:
        def __init__(self, own):
            self.own = np.asarray(own)

        def take(self, at):
            return Numbered(self.own[at])

    whole = split([[0, 1], [2], [1, 2, 0]], negative=[[], [], []], positive=[[0, 1], [2], [0, 1, 2]])
    kept = keep_classes(replace(whole, outline=Numbered(range(6))), [0, 1])
    assert kept.images == ("0.jpg", "2.jpg")
    assert kept.outline.own.tolist() == [0, 1, 3, 5]
    assert kept.objects.cls.tolist() == [0, 1, 1, 0]
