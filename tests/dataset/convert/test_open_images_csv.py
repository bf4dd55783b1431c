"""Open Images' CSV files become splits, whatever their version, order and size of blocks; every defect is named."""

import gzip
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.convert.open_images import blocks, read_classes, read_split
from yolo_lt.dataset.convert.open_images.ids import encode_ids
from yolo_lt.dataset.convert.source import Categories
from yolo_lt.dataset.rows import Lists
from yolo_lt.errors import LTError

MIDS = ("/m/a", "/m/b", "/m/c")
CATEGORIES = Categories(("Ant", "Bee", "Cat"), (1, 2, 3), labels=MIDS)
V4 = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
V6 = f"{V4},XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
LABELS = "ImageID,Source,LabelName,Confidence"


def v4(image, mid, box="0.1,0.3,0.2,0.6", group=0):
    return f"{image},xclick,{mid},1,{box},0,1,{group},0,0"


def write(path, *lines, end="\n"):
    path.write_bytes((end.join(lines) + end).encode())
    return path


def split_of(tmp_path, boxes, labels=None, header=V4, categories=CATEGORIES):
    files = [write(tmp_path / "labels.csv", LABELS, *labels)] if labels is not None else []
    return read_split(write(tmp_path / "boxes.csv", header, *boxes), files, categories, "train")


def rows(lists):
    return [lists[i].tolist() for i in range(len(lists))]


def message(tmp_path, *lines, **options):
    with pytest.raises(LTError) as error:
        read_split(write(tmp_path / "boxes.csv", *lines, **options), [], CATEGORIES, "train")
    return str(error.value).removeprefix(str(tmp_path / "boxes.csv"))


# boxes ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_version_has_the_same_boxes(tmp_path, end):
    versions = {
        V4: [v4("i2", "/m/b"), v4("i1", "/m/a", group=1)],
        V6: [f"{v4('i2', '/m/b')}{',-1' * 8}", f"{v4('i1', '/m/a', group=1)}{',0.5' * 8}"],
        "ImageID,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf": [
            "i2,/m/b,1,0.1,0.3,0.2,0.6,0",
            "i1,/m/a,1,0.1,0.3,0.2,0.6,1",
        ],
        "IsGroupOf,YMax,YMin,XMax,XMin,LabelName,ImageID": ["0,.6,.2,.3,.1,/m/b,i2", "1.0,0.6,2e-1,0.3,0.1,/m/a,i1"],
        "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf": [
            '"i2","/m/b","0.1","0.3","0.2","0.6","-1"',
            '"i1","/m/a","0.1","0.3","0.2","0.6","1"',
        ],
    }
    for header, lines in versions.items():
        path = write(tmp_path / "boxes.csv", f"\ufeff{header}", *lines, end=end)
        split = read_split(path, [], CATEGORIES, "validation")
        assert split.images == ("validation/i1.jpg", "validation/i2.jpg")
        assert split.objects.offsets.tolist() == [0, 0, 1]
        assert split.objects.cls.tolist() == [1]
        np.testing.assert_allclose(split.objects.box, [[0.2, 0.4, 0.2, 0.4]], rtol=1e-6)
        assert split.groups.offsets.tolist() == [0, 1, 1]
        assert split.groups.cls.tolist() == [0]
        assert (rows(split.positive), rows(split.not_exhaustive)) == ([[0], [1]], [[0], []])
        assert not split.repairs
    types = [a.dtype for a in (split.objects.offsets, split.objects.cls, split.objects.box, split.positive.classes)]
    assert types == [np.int64, np.int32, np.float32, np.int32]


def test_without_the_column_nothing_is_a_group_and_without_label_files_nothing_is_negative(tmp_path):
    split = split_of(tmp_path, ["i,/m/c,0,1,0,1"], header="ImageID,LabelName,XMin,XMax,YMin,YMax")
    assert (len(split.objects), len(split.groups)) == (1, 0)
    assert (rows(split.positive), rows(split.negative), rows(split.not_exhaustive)) == ([[2]], [[]], [[]])


def test_boxes_are_cut_or_left_out_and_both_is_counted(tmp_path):
    boxes = [
        v4("i", "/m/a", "-0.1,0.5,0.5,1.2"),
        v4("i", "/m/a", "0.5,0.4,0,1"),
        v4("i", "/m/a", "0,1,0.5,0.4"),
        v4("i", "/m/a", "0.3,0.3,0,1"),
        v4("i", "/m/a", "1.1,1.3,0,1"),
        v4("i", "/m/unknown", "0.3,0.3,0,1"),
        v4("i", "/m/b"),
        v4("i", "/m/b"),
        v4("j", "/m/unknown"),
    ]
    split = split_of(tmp_path, boxes)
    assert split.images == ("train/i.jpg", "train/j.jpg")
    assert split.objects.cls.tolist() == [0, 1, 1], "equal boxes stay, in the order of the file"
    np.testing.assert_allclose(split.objects.box[:2], [[0.25, 0.75, 0.5, 0.5], [0.2, 0.4, 0.2, 0.4]], rtol=1e-6)
    assert split.repairs == {
        "boxes reached beyond their image and were cut at its border": 1,
        "boxes whose XMin is above their XMax, or YMin above YMax, were left out": 2,
        "boxes without an area inside their image were left out": 2,
        "boxes of classes that the class file does not list were left out": 2,
    }


def test_images_are_sorted_by_name_even_where_one_id_begins_with_another(tmp_path):
    ids = ["b", "a-c", "a", "ab", "a.1", "é", "B"]
    split = split_of(tmp_path, [v4(i, "/m/a") for i in [*ids, "a"]])
    assert list(split.images) == sorted(f"train/{i}.jpg" for i in ids)
    assert np.diff(split.objects.offsets).tolist() == [1 + (i == "train/a.jpg") for i in split.images]


def test_the_official_class_descriptions_are_read(shared):
    classes = read_classes(shared / "annotations" / "openimages_class_descriptions_boxable.csv")
    assert len(classes.names) == len(set(classes.names)) == len(classes.labels) == 601
    split = read_split(shared / "annotations" / "openimages_train_bbox_head.csv", [], classes, "train")
    assert split.images == ("train/000002b66c9c498e.jpg",)
    assert [classes.names[c] for c in split.objects.cls] == ["Person"] * 6 + ["Dairy"]
    np.testing.assert_allclose(split.objects.box[0], [0.103906, 0.367969, 0.182812, 0.439062], atol=1e-6)
    assert [classes.names[c] for c in split.groups.cls] == ["Person"]
    assert [classes.names[c] for c in split.not_exhaustive[0]] == ["Person"]


def test_ids_are_numbers_only_if_all_have_sixteen_hexadecimal_digits():
    assert encode_ids(["00000000000000ff", "f" * 16]).tolist() == [255, 2**64 - 1]
    for odd in ("0" * 15, "0" * 17, "0" * 32, "A" * 16, "g" * 16, "é" * 8):
        assert encode_ids([odd]).tolist() == [f"{odd}.jpg".encode()]
    assert encode_ids(["0" * 15, "0" * 17]).dtype.kind == "S", "as long as two together"


# labels ---------------------------------------------------------------------------------------------------------------
def test_labels_and_boxes_together_say_what_is_known(tmp_path):
    labels = [
        "both,verification,/m/a,1",
        "both,verification,/m/a,0",
        "both,verification,/m/b,0",
        "boxed,verification,/m/a,0",
        "boxed,verification,/m/a,1",
        "boxed,crowdsource-verification,/m/b,0.0",
        "boxed,verification,/m/c,1",
        "empty,verification,/m/c,0",
        "boxed,machine,/m/b,1",
        "left,machine-generated,/m/b,1",
        "left,verification,/m/b,0.7",
        "left,verification,/m/unknown,1",
        "no source,,/m/b,1",
    ]
    labels[-1] = "nosource,,/m/b,1"
    split = split_of(tmp_path, [v4("boxed", "/m/a"), v4("group", "/m/b", group=1)], labels)
    names = ["both", "boxed", "empty", "group", "nosource"]
    assert split.images == tuple(f"train/{name}.jpg" for name in names)
    assert dict(zip(names, rows(split.positive), strict=True)) == {
        "both": [],
        "boxed": [0, 2],
        "empty": [],
        "group": [1],
        "nosource": [1],
    }
    assert rows(split.negative) == [[1], [1], [2], [], []]
    assert rows(split.not_exhaustive) == [[], [2], [], [1], [1]]
    assert split.repairs == {
        "classes of an image were verified both present and absent, and count as unknown": 1,
        "classes of an image were verified absent but have a box there, and count as present": 1,
        "image labels that nobody verified were left out": 3,
        "image labels of classes that the class file does not list were left out": 1,
    }


def test_several_files_of_labels_are_read_as_one(tmp_path):
    boxes = write(tmp_path / "boxes.csv", V4, v4("i", "/m/a"), v4("0" * 16, "/m/a"))
    first = write(tmp_path / "first.csv", LABELS, "i,verification,/m/b,1", "k,verification,/m/c,1")
    second = write(tmp_path / "second.csv", "LabelName,Confidence,ImageID", "/m/b,1,i", "/m/b,0,k", "/m/c,0,k")
    none = write(tmp_path / "none.csv", LABELS, "l,machine,/m/c,1")
    split = read_split(boxes, [none, first, second], CATEGORIES, "train")
    assert split.images == ("train/0000000000000000.jpg", "train/i.jpg", "train/k.jpg")
    assert (rows(split.positive), rows(split.negative)) == ([[0], [0, 1], []], [[], [], [1]])


def slowly(boxes, labels):
    """What `read_split` reads, label by label."""
    single, group, said = defaultdict(list), defaultdict(list), {1: set(), 0: set()}
    for image, c, *box, is_group in boxes:
        (group if is_group else single)[image].append((c, box))
    for image, c, value in labels:
        said[value].add((image, c))
    images = sorted({row[0] for row in [*boxes, *labels]})
    has = [{(i, c) for i in of for c, _ in of[i]} for of in (single, group)]
    unclear = (said[0] & said[1]) - has[0] - has[1]
    positive = (said[1] - unclear) | has[0] | has[1]
    known = (positive, said[0] - positive - unclear, has[1] | (positive - has[0]))
    return images, single, group, [[sorted(c for i, c in pairs if i == image) for image in images] for pairs in known]


a_class, coordinate = st.integers(0, 2), st.integers(0, 4)
official = [f"{i:016x}" for i in (0, 1, 0x2B66C9C498E, 1 << 63, (1 << 64) - 1)]
all_ids = st.sampled_from([official, [*official, "a", "A" * 16, "0" * 17]])
a_place = st.integers(0, 7)
a_box = st.tuples(a_place, a_class, coordinate, coordinate, st.booleans())
a_label = st.tuples(a_place, a_class, st.integers(0, 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(all_ids, st.lists(a_box, min_size=1, max_size=25), st.lists(a_label, max_size=25), st.integers(1, 300))
def test_any_order_of_lines_and_size_of_blocks_gives_what_a_slow_reader_finds(tmp_path, ids, boxes, labels, block):
    boxes, labels = ([(ids[i % len(ids)], *row) for i, *row in lines] for lines in (boxes, labels))
    lines = [v4(i, MIDS[c], f"0.{x},0.{x + 3},0.{y},0.{y + 5}", int(g)) for i, c, x, y, g in boxes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        split = split_of(tmp_path, lines, [f"{i},verification,{MIDS[c]},{v}" for i, c, v in labels])
    images, single, group, known = slowly(boxes, labels)
    assert list(split.images) == [f"train/{i}.jpg" for i in images]
    assert [rows(lists) for lists in (split.positive, split.negative, split.not_exhaustive)] == known
    for found, wanted in ((split.objects, single), (split.groups, group)):
        for at, image in enumerate(images):
            cls, box = found.of(at)
            assert cls.tolist() == [c for c, _ in wanted[image]]
            exact = [(x / 10 + 0.15, y / 10 + 0.25, 0.3, 0.5) for _, (x, y) in wanted[image]]
            np.testing.assert_allclose(box, np.reshape(exact, (-1, 4)), rtol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=40))
def test_lists_of_pairs_are_those_of_rows(pairs):
    row, cls = np.array(pairs, np.int64).reshape(-1, 2).T
    wanted = Lists.of([[c for r, c in pairs if r == i] for i in range(6)])
    found = Lists.from_pairs(row, cls, 6)
    np.testing.assert_array_equal(found.classes, wanted.classes)
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    assert (found.classes.dtype, found.offsets.dtype) == (np.int32, np.int64)


# defects --------------------------------------------------------------------------------------------------------------
GOOD = [v4("i", "/m/a")] * 3


def test_missing_files_are_named(tmp_path):
    with pytest.raises(LTError, match=r"none\.csv: no such file"):
        read_split(tmp_path / "none.csv", [], CATEGORIES, "train")
    with pytest.raises(LTError, match=r"none\.csv: no such file"):
        read_split(write(tmp_path / "boxes.csv", V4, v4("i", "/m/a")), [tmp_path / "none.csv"], CATEGORIES, "train")


@pytest.mark.parametrize("block", [1, 1 << 24])
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (v4("i", "/m/a", "0.1,x,0.2,0.3"), "expected a number under XMax, found 'x'"),
        (v4("i", "/m/a", "0.1,0.2,nan,0.3"), "expected a number under YMin, found 'nan'"),
        (v4("i", "/m/a", "0.1,0.2,0.2,inf"), "expected a number under YMax, found 'inf'"),
        (v4("i", "/m/a", ",0.2,0.2,0.3"), "expected a number under XMin, found ''"),
        (v4("i", "/m/a", "0.1,0.2,0.2,1_0"), "expected a number under YMax, found '1_0'"),
        (v4("", "/m/a"), "expected a text under ImageID, found ''"),
        (v4("i", "/m/a", group=2), "expected 1, 0 or -1 under IsGroupOf, found '2'"),
        (v4("i", "/m/a", group="True"), "expected 1, 0 or -1 under IsGroupOf, found 'True'"),
        ("i,xclick,/m/a,1,0.1,0.3,0.2", "expected 13 fields, found 7; if the file is cut off, fetch it again"),
        (f"{v4('i', '/m/a')},0", "expected 13 fields, found 14"),
    ],
)
def test_the_first_bad_line_is_named(tmp_path, monkeypatch, bad, why, block):
    monkeypatch.setattr(blocks, "BLOCK", block)
    assert message(tmp_path, V4, *GOOD, "", bad, bad, *GOOD) == f", line 6: {why}"
    assert message(tmp_path, V4, *GOOD, bad, end="\r\n") == f", line 5: {why}"


def test_a_line_too_short_and_a_line_too_long_do_not_make_up_for_each_other(tmp_path):
    short, long = v4("i", "/m/a").removesuffix(",0"), f"{v4('i', '/m/a')},0"
    assert message(tmp_path, V4, *GOOD, short, long).startswith(", line 5: expected 13 fields, found 12")
    assert message(tmp_path, V4, long, short) == ", line 2: expected 13 fields, found 14"


def test_a_number_too_large_for_its_column_is_an_error_of_its_lines(tmp_path):
    assert message(tmp_path, V4, *GOOD, v4("i", "/m/a", "0,1e39,0,1")) == (
        ", lines 2 to 5: a value is empty or no finite number"
    )


def test_a_bad_label_file_is_named_with_its_line(tmp_path):
    with pytest.raises(LTError) as error:
        split_of(tmp_path, GOOD, ["i,verification,/m/a,1", "i,verification,/m/a,yes"])
    assert str(error.value) == f"{tmp_path / 'labels.csv'}, line 3: expected a number under Confidence, found 'yes'"


def test_blank_lines_commas_in_quotes_and_a_missing_last_line_end_do_no_harm(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        f"\n{V4}\n".lstrip() + f"\n{v4('i', '/m/a')}\n\n{v4('j', '/m/b').replace('xclick', chr(34) + 'a,b' + chr(34))}"
    )
    split = read_split(path, [], CATEGORIES, "train")
    assert split.objects.cls.tolist() == [0, 1]
    path.write_text(f"{V4}\n{v4('i', '/m/a')}\n\n\n")
    assert read_split(path, [], CATEGORIES, "train").objects.cls.tolist() == [0]


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    assert message(tmp_path, "ImageID,Label,XMin,XMax,YMin", "i,a,0,1,0") == (
        ": the first line must name the columns ImageID, LabelName, XMin, XMax, YMin, YMax; "
        "missing: LabelName, YMax; found: ImageID, Label, XMin, XMax, YMin"
    )
    assert "names the column XMin twice" in message(tmp_path, f"{V4},XMin", *GOOD)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", " is empty; fetch it again"),
        (b"\n\n", " is empty; fetch it again"),
        (gzip.compress(V4.encode()), " is packed (gzip); unpack it and give the CSV file"),
        (b"PK\x03\x04....", " is packed (zip); unpack it and give the CSV file"),
        (V4.encode("utf-16"), ", line 1: not UTF-8 text; save the file as UTF-8, or fetch it again"),
        (f"{V4}\n{GOOD[0]}\nFianc\xe9{GOOD[0]}\n".encode("latin-1"), ", line 3: not UTF-8 text"),
        (f"{V4}\n".encode(), ": no images, as neither it nor a file of image labels has a line that can be used"),
        (f"{V4}\n{v4('../i', '/m/a')}\n".encode(), ", or a file of image labels: the ImageID '../i' cannot be part of"),
    ],
)
def test_what_is_no_box_file_is_named(tmp_path, content, why):
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    with pytest.raises(LTError) as error:
        read_split(path, [], CATEGORIES, "train")
    assert str(error.value).startswith(f"{path}{why}")


def test_repairs_are_counted_over_all_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1)
    split = split_of(tmp_path, [v4("i", "/m/unknown"), *GOOD, v4("j", "/m/unknown")])
    assert split.repairs == Counter({"boxes of classes that the class file does not list were left out": 2})
