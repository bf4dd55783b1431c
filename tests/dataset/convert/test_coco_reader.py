"""COCO and LVIS files, and what people make in their form: what is read, what is mended, what is refused."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.convert.coco import read_coco
from yolo_lt.errors import LTError
from yolo_lt.evaluate.read import read_ground_truth

CUT = "boxes reached beyond their image and were cut at its border"
OUT = "boxes without an area inside their image were left out"
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}]


def image(i=1, name="a.jpg", **more):
    return {"id": i, "width": 200, "height": 100, "file_name": name, **more}


def box(x=20, y=10, w=40, h=50, i=1, c=2, **more):
    return {"image_id": i, "category_id": c, "bbox": [x, y, w, h], **more}


@pytest.fixture
def read(tmp_path):
    """read(images=..., annotations=...) -> Split; `content` gives the file's bytes, `change` edits what is given."""

    def reader(images=None, annotations=None, categories=None, content=None, change=None, **kw):
        data = {
            "images": [image()] if images is None else images,
            "annotations": [box()] if annotations is None else annotations,
            "categories": CATEGORIES if categories is None else categories,
        }
        data = copy.deepcopy(data)
        if change:
            change(data)
        (tmp_path / "x.json").write_bytes(json.dumps(data).encode() if content is None else content)
        return read_coco(tmp_path / "x.json", **kw)

    return reader


def refused(read, match, **kw):
    with pytest.raises(LTError, match=match) as caught:
        read(**kw)
    assert "x.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def pixels(split, size=(200, 100)):
    """Boxes as left, top, width and height."""
    centre, extent = split.objects.box[:, :2] * size, split.objects.box[:, 2:] * size
    return np.c_[centre - extent / 2, extent].round(4).tolist()


# What is read ---------------------------------------------------------------------------------------------------------


def test_boxes_stand_image_by_image_and_classes_in_the_order_of_their_ids(read):
    annotations = [box(c=7, i="b"), box(0, 0, 200, 100, i="a"), box(1, 2, 3, 4, c=7, i="a"), box(i="b")]
    split = read([image("b", "b.jpg"), image("c", "c.jpg"), image("a")], annotations)
    assert split.categories.names == ("cat", "dog")
    assert split.categories.ids == (2, 7)
    assert (split.categories.frequency, split.categories.labels) == (None, None)
    assert split.images == ("b.jpg", "c.jpg", "a.jpg")
    assert split.objects.offsets.tolist() == [0, 2, 2, 4]
    assert split.objects.cls.tolist() == [1, 0, 0, 1]
    assert pixels(split) == [[20, 10, 40, 50], [20, 10, 40, 50], [0, 0, 200, 100], [1, 2, 3, 4]]
    assert (split.positive, split.negative, len(split.groups)) == (None, None, 0)
    assert not +split.repairs


def test_a_file_without_boxes_or_images_is_one(read):
    assert read(annotations=[]).objects.offsets.tolist() == [0, 0]
    assert read([], []).images == ()


def test_crowds_are_groups_of_which_only_some_objects_are_boxed(read):
    split = read(annotations=[box(), box(5, 5, 5, 5, c=7, iscrowd=1), box(c=7, iscrowd=None), box(iscrowd=False)])
    assert split.objects.cls.tolist() == [0, 1, 0]
    assert split.groups.cls.tolist() == [1]
    assert split.not_exhaustive[0].tolist() == [1]
    assert split.negative is None


def test_lists_of_lvis_are_read(read):
    lists = {"neg_category_ids": [7, 7], "not_exhaustive_category_ids": [2]}
    split = read([image(**lists), image(2, "b.jpg", neg_category_ids=[], pos_category_ids=[7])])
    assert [split.negative[i].tolist() for i in (0, 1)] == [[1], []]
    assert [split.positive[i].tolist() for i in (0, 1)] == [[0], [1]]
    assert [split.not_exhaustive[i].tolist() for i in (0, 1)] == [[0], []]


def test_lists_that_name_no_category_are_told(read):
    split = read([image(neg_category_ids=[7, 99, 98], not_exhaustive_category_ids=[97])])
    assert split.negative[0].tolist() == [1]
    assert +split.repairs == {
        "entries of neg_category_ids name no category and were left out": 2,
        "entries of not_exhaustive_category_ids name no category and were left out": 1,
    }


def test_what_categories_say_of_themselves_is_kept(read):
    more = [{"frequency": "r", "freebase_id": "/m/1"}, {"frequency": "f"}]
    split = read(categories=[{**c, **m} for c, m in zip(CATEGORIES, more, strict=True)])
    assert split.categories.frequency == ("f", "r")
    assert split.categories.labels == ("cat", "/m/1")


def test_categories_of_one_name_are_told_apart_by_their_id(read):
    more = [{"id": 9, "name": "dog"}, {"id": 1, "name": " hot\n dog "}]
    assert read(categories=CATEGORIES + more).categories.names == ("hot dog", "cat", "dog (7)", "dog (9)")


def test_a_byte_order_mark_is_no_defect(read):
    assert len(read(content=b"\xef\xbb\xbf" + json.dumps(whole()).encode()).objects) == 1


def test_outlines_are_read_where_an_object_has_one_and_they_are_asked_for(read):
    def join(parts):
        return [np.array(part).reshape(-1, 2) for part in parts]

    some = [box(), box(segmentation=[[20, 10, 60, 10, 60, 60]]), box(iscrowd=1, segmentation={"counts": [1]})]
    assert read(annotations=some).outline is None
    outline = read(annotations=some, join=join).outline
    assert [len(text.split()) for text in outline(range(2))] == [8, 6]
    for nothing in ([], [[]], None):
        few = [box(segmentation=nothing), some[2]]
        assert read(annotations=few, join=join).outline is None, "what only crowds have is no reason for outlines"


# Names ----------------------------------------------------------------------------------------------------------------

COCO = "http://images.cocodataset.org"
NAMES = {
    "lvis 1": ({"coco_url": f"{COCO}/train2017/01.jpg"}, "train2017/01.jpg"),
    "lvis 1 null": ({"file_name": None, "coco_url": f"{COCO}/train2017/01.jpg"}, "train2017/01.jpg"),
    "lvis 0.5": ({"file_name": "COCO_val2014_01.jpg", "coco_url": f"{COCO}/val2017/01.jpg"}, "val2017/01.jpg"),
    "coco": ({"file_name": "01.jpg", "coco_url": f"{COCO}/val2017/01.jpg"}, "val2017/01.jpg"),
    "another image of coco": ({"file_name": "02.jpg", "coco_url": f"{COCO}/val2017/01.jpg"}, "02.jpg"),
    "a folder of its own": ({"file_name": "my/01.jpg", "coco_url": f"{COCO}/val2017/01.jpg"}, "my/01.jpg"),
    "another server": ({"file_name": "01.jpg", "coco_url": "https://bucket.s3.amazonaws.com/raw/01.jpg"}, "01.jpg"),
    "another server alone": ({"coco_url": "https://host/01.jpg"}, "01.jpg"),
    "no address": ({"file_name": "01.jpg", "coco_url": ""}, "01.jpg"),
    "an address of nothing": ({"file_name": "01.jpg", "coco_url": f"{COCO}/"}, "01.jpg"),
    "folders": ({"file_name": "a/b/./c//01.jpg"}, "a/b/c/01.jpg"),
    "windows": ({"file_name": "a\\b\\01.jpg"}, "a/b/01.jpg"),
    "a drive": ({"file_name": "C:\\a\\01.jpg"}, "C:/a/01.jpg"),
    "absolute": ({"file_name": "/data/a/01.jpg"}, "data/a/01.jpg"),
    "a server's share": ({"file_name": "\\\\host\\share\\01.jpg"}, "host/share/01.jpg"),
    "punctuation": ({"file_name": "a b/'1', #2 100%;\"x\" &.jpg"}, "a b/'1', #2 100%;\"x\" &.jpg"),
    "letters": ({"file_name": "日本/кот ä 🐈.jpg"}, "日本/кот ä 🐈.jpg"),
    "dots": ({"file_name": "..a/b../...jpg"}, "..a/b../...jpg"),
    "as long as can be": ({"file_name": "é" * 125 + ".jpg"}, "é" * 125 + ".jpg"),
}


@pytest.mark.parametrize("what", NAMES)
def test_names_are_paths_within_the_folder_of_all_images(what, read):
    given, expected = NAMES[what]
    assert read([{"id": 1, "width": 200, "height": 100, **given}]).images == (expected,)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../a.jpg",
            "a/../../b.jpg",
            "..\\a.jpg",
            "..",
            "",
            ".",
            "/",
            "a\nb.jpg",
            "a.jpg\n",
            "a.jpg\u2028",
            "a\rb.jpg",
        ),
        *("a\0.jpg", "é" * 126 + ".jpg", "x" * 256 + "/a.jpg", "x" * 252),
    ],
)
def test_a_name_that_is_no_path_of_an_image_is_refused(name, read):
    refused(read, "the image with id 1 has the file name '.*, which is no path of a file", images=[image(name=name)])


def test_an_image_that_is_listed_twice_is_refused(read):
    refused(read, "the image 'x/a.jpg' is listed twice", images=[image(name="x/a.jpg"), image(2, "x\\a.jpg")])


# Boxes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found", "repair"),
    [
        ((20, 10, 40, 50), [20, 10, 40, 50], None),
        ((-30, 10, 40, 50), [0, 10, 10, 50], CUT),
        ((180, 80, 40, 50), [180, 80, 20, 20], CUT),
        ((-5, -5, 500, 500), [0, 0, 200, 100], CUT),
        ((-1, 0, 201.9, 100.9), [0, 0, 200, 100], None),  # within a pixel: tools round
        ((200, 10, 40, 50), None, OUT),
        ((-40, 10, 40, 50), None, OUT),
        ((20, 100.5, 40, 50), None, OUT),
        ((20, 10, 0, 50), None, OUT),
        ((20, 10, 40, 0), None, OUT),
        ((20, 10, -5, 50), None, OUT),
        ((20, 10, 40, -5), None, OUT),
        ((1e308, 10, 1e308, 50), None, OUT),
        ((20, 10, 1e-300, 50), None, OUT),
    ],
)
def test_boxes_are_cut_at_the_border_or_left_out_and_counted(given, found, repair, read):
    split = read(annotations=[box(*given), box(1, 1, 1, 1)])
    assert pixels(split)[:-1] == ([found] if found else [])
    assert +split.repairs == ({repair: 1} if repair else {})


NUMBER = st.floats(-300, 500) | st.sampled_from([0.0, 100.0, 200.0])


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), min_size=1, max_size=5))
def test_every_box_lies_in_its_image_and_has_an_area(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("coco") / "x.json"
    data = {"images": [image()], "categories": CATEGORIES, "annotations": [box(*row) for row in rows]}
    path.write_text(json.dumps(data))
    split = read_coco(path)
    found = split.objects.box
    assert (found[:, 2:] > 0).all()
    assert (found[:, :2] - found[:, 2:] / 2 >= -1e-12).all()
    assert (found[:, :2] + found[:, 2:] / 2 <= 1 + 1e-12).all()
    assert len(found) + split.repairs[OUT] == len(rows)
    kept = [r for r in rows if min(r[0] + r[2], 200) > max(r[0], 0) and min(r[1] + r[3], 100) > max(r[1], 0)]
    for (x, y, w, h), own in zip(kept, pixels(split), strict=True):
        left, top = max(x, 0), max(y, 0)
        np.testing.assert_allclose(own, [left, top, min(x + w, 200) - left, min(y + h, 100) - top], atol=1e-4)


# What is refused ------------------------------------------------------------------------------------------------------


def whole():
    return {"images": [image()], "annotations": [box(segmentation=[[1, 2, 3, 4, 5, 6]])], "categories": CATEGORIES}


CONTENT = {
    "nothing": (b"", "x.json is empty"),
    "half a file": (json.dumps(whole()).encode()[:150], "no valid JSON: it ends in the middle; is it cut off"),
    "a csv": (b"ImageID,LabelName\n1,2\n", r"no valid JSON: .* \(byte 0\), at 'ImageID,"),
    "two files in one": (json.dumps(whole()).encode() * 2, "no valid JSON: .*trailing"),
    "not a number": (json.dumps(whole()).replace("20", "NaN").encode(), "no valid JSON: .*at 'NaN"),
    "infinite": (json.dumps(whole()).replace("20", "Infinity").encode(), "no valid JSON: .*at 'Infinity"),
    "latin-1": (json.dumps(whole()).replace("dog", "d\xf6g").encode("latin-1"), "no valid JSON: it is not in UTF-8"),
    "utf-16": (json.dumps(whole()).encode("utf-16"), "no valid JSON"),
    "a list": (b"[]", "no COCO or LVIS file: Expected `object`, got `array`"),
    "text": (b'"x"', "no COCO or LVIS file: Expected `object`, got `str`"),
    "brackets": (b"[" * 100_000, "no COCO or LVIS file"),
    "cut off behind a bad entry": (b'{"images": [{"id": 1}], "annot', "no COCO or LVIS file: .*`width`"),
    "deep brackets": (b'{"images": ' + b"[" * 100_000, "x.json is no "),
    "a mapping of images": (b'{"images": {}, "annotations": [], "categories": []}', r"Expected `array`.*`\$.images`"),
}


@pytest.mark.parametrize("what", CONTENT)
def test_other_files_are_refused(what, read):
    content, message = CONTENT[what]
    refused(read, message, content=content)


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(LTError, match=r"none\.json: no such file$"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(LTError, match=r"cannot be read: Is a directory$"):
        read_coco(tmp_path)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_list_is_named(key, read):
    refused(read, f"is no COCO or LVIS file: .*missing required field `{key}`", change=lambda data: data.pop(key))


ENTRIES = {
    "no box": ("annotations", {"bbox": ...}, r"annotations\[1\]: .*missing required field `bbox`"),
    "null": ("annotations", {"bbox": None}, r"annotations\[1\]: Expected `array`, got `null` - at `\$.bbox`"),
    "three numbers": ("annotations", {"bbox": [1, 2, 3]}, r"annotations\[1\]: .*length 4 - at `\$.bbox`"),
    "five numbers": ("annotations", {"bbox": [1, 2, 3, 4, 5]}, r"annotations\[1\]: .*length 4 - at `\$.bbox`"),
    "text": ("annotations", {"bbox": ["1", 2, 3, 4]}, r"annotations\[1\]: Expected `float`, got `str` .*bbox\[0\]"),
    "no class": ("annotations", {"category_id": ...}, r"annotations\[1\]: .*`category_id`"),
    "class as text": (
        "annotations",
        {"category_id": "2"},
        r"annotations\[1\]: Expected `int`, got `str` .*category_id",
    ),
    "crowd as text": ("annotations", {"iscrowd": "no"}, r"annotations\[1\]: .*got `str` - at `\$.iscrowd`"),
    "an entry of nothing": ("annotations", None, r"annotations\[1\]: Expected `object`, got `null`"),
    "unlisted image": ("annotations", {"image_id": 5}, r"annotations\[1\]: image_id 5 is not among the images"),
    "text for a number": ("annotations", {"image_id": "1"}, r"annotations\[1\]: image_id '1' is not among the images"),
    "unlisted class": (
        "annotations",
        {"category_id": 5},
        r"annotations\[1\]: category_id 5 is not among the categories",
    ),
    "no width": ("images", {"width": ...}, r"images\[1\]: .*missing required field `width`"),
    "width as text": ("images", {"width": "9"}, r"images\[1\]: Expected `float`, got `str` - at `\$.width`"),
    "width 0": ("images", {"width": 0}, "image 'b.jpg' has no width or height"),
    "height below 0": ("images", {"height": -3}, "image 'b.jpg' has no width or height"),
    "no id": ("images", {"id": ...}, r"images\[1\]: .*missing required field `id`"),
    "an id twice": ("images", {"id": 1}, "the image id 1 is used twice"),
    "negatives as text": ("images", {"neg_category_ids": ["2"]}, r"images\[1\]: .*`\$.neg_category_ids\[0\]`"),
    "a class id twice": ("categories", {"id": 7}, "a category id is used twice"),
    "a name as number": ("categories", {"name": 5}, r"categories\[1\]: Expected `str`, got `int` - at `\$.name`"),
    "one frequency": ("categories", {"frequency": "r"}, "some categories have a frequency, but not every one has r, c"),
    "another frequency": ("categories", {"frequency": "x"}, "some categories have a frequency"),
    "a name like another's": ("categories", {"name": "dog (7)"}, r"two categories are called 'dog \(7\)'; rename one"),
}


@pytest.mark.parametrize("what", ENTRIES)
def test_a_bad_entry_is_named_with_its_key(what, read):
    key, changes, message = ENTRIES[what]

    def change(data):
        data["images"].append(image(2, "b.jpg"))
        data["annotations"] = [box(segmentation=[[1, 2, 3, 4, 5, 6]]) for _ in range(3)]
        data["categories"].append({"id": 11, "name": "dog"})
        if changes is None:
            data[key][1] = None
            return
        data[key][1].update(changes)
        data[key][1] = {k: v for k, v in data[key][1].items() if v is not ...}

    refused(read, message, change=change)


def test_numbers_beyond_all_numbers_are_refused(read):
    content = json.dumps(whole()).replace("[20,", "[1e999,").encode()
    refused(read, r"annotations\[0\]: Number out of range - at `\$.bbox\[0\]`", content=content)


def test_no_categories_are_refused(read):
    refused(read, "there are no categories", categories=[], annotations=[])


# Against the evaluation's reader --------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize("outlines", [False, True])
def test_real_annotations_are_read_as_the_evaluation_reads_them(shared, outlines):
    path = shared / "evaldata" / "lvis_val_100.json"
    truth = read_ground_truth(path)
    split = read_coco(path, join=lambda parts: [np.array(part).reshape(-1, 2) for part in parts] if outlines else None)
    data = json.loads(path.read_bytes())
    size = {i["id"]: (i["width"], i["height"]) for i in data["images"]}
    row = {i["id"]: r for r, i in enumerate(data["images"])}
    assert split.categories.names == truth.names
    assert split.categories.ids == tuple(truth.category_ids.tolist())
    assert split.categories.frequency == truth.frequency
    assert len(split.objects) == len(truth.box) == 977
    for i, image_id in enumerate(truth.image_ids.tolist()):
        own = truth.image == i
        cls, found = split.objects.of(row[image_id])
        assert cls.tolist() == truth.cls[own].tolist()
        width, height = size[image_id]
        corner = (found[:, :2] - found[:, 2:] / 2) * [width, height]
        np.testing.assert_allclose(np.c_[corner, found[:, 2:] * [width, height]], truth.box[own], atol=0.02)
    keys = {"negative": split.negative, "partial": split.not_exhaustive}
    order = [row[i] for i in truth.image_ids.tolist()]
    for name, lists in keys.items():
        found = [i * len(truth.names) + c for i, r in enumerate(order) for c in lists[r].tolist()]
        assert found == getattr(truth, name).tolist()
    assert not +split.repairs
