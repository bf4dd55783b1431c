"""The federated index: built from LVIS annotations and from merged sources, written, read, aligned and asked."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.dataset.federated import EVERYTHING, FederatedIndex, Lists, from_known_classes, from_lvis, load
from yolo_lt.errors import LTError

CLASSES = ("ant", "bee", "cat", "dog", "eel")
LVIS = {
    "categories": [{"id": i, "name": n} for i, n in ((7, "dog"), (2, "bee"), (9, "eel"), (1, "ant"), (4, "cat"))],
    "images": [
        {"id": 10, "coco_url": "http://x/train2017/a.jpg", "neg_category_ids": [4], "not_exhaustive_category_ids": [1]},
        {"id": 5, "file_name": "b.jpg", "neg_category_ids": [], "not_exhaustive_category_ids": []},
        {"id": 6, "file_name": "c.jpg", "neg_category_ids": [9, 2, 9], "not_exhaustive_category_ids": []},
    ],
    "annotations": [{"image_id": i, "category_id": c} for i, c in ((10, 1), (10, 1), (10, 2), (6, 7))],
}


def lvis():
    return from_lvis(LVIS)


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
    index, data = from_lvis(path), json.loads(path.read_bytes())
    ids = [c["id"] for c in sorted(data["categories"], key=lambda c: c["id"])]
    assert len(index.images) == index.num_rows == 100
    assert index.images[0].startswith("val2017/")
    for r, image in enumerate(data["images"]):
        present = {a["category_id"] for a in data["annotations"] if a["image_id"] == image["id"]}
        assert {ids[c] for c in index.positive[r]} == present
        assert {ids[c] for c in index.negative[r]} == set(image["neg_category_ids"])
        assert {ids[c] for c in index.not_exhaustive[r]} == set(image["not_exhaustive_category_ids"])


@pytest.mark.parametrize("missing", ["categories", "images", "annotations"])
def test_json_that_is_not_of_lvis_is_refused(missing, tmp_path):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({k: v for k, v in LVIS.items() if k != missing}))
    with pytest.raises(LTError, match=rf"coco.json: not LVIS annotations: KeyError '{missing}'"):
        from_lvis(path)


def test_coco_annotations_without_negatives_are_refused():
    images = [{k: v for k, v in image.items() if k != "neg_category_ids"} for image in LVIS["images"]]
    with pytest.raises(LTError, match="not LVIS annotations: KeyError 'neg_category_ids'"):
        from_lvis({**LVIS, "images": images})


@pytest.mark.parametrize(("content", "message"), [(b"{", "is no JSON"), (None, "cannot be read: No such file")])
def test_a_file_that_cannot_be_read_is_named(content, message, tmp_path):
    path = tmp_path / "lvis.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LTError, match=f"lvis.json {message}"):
        from_lvis(path)


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
