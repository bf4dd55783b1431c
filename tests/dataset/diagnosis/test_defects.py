"""What is wrong in a label file, and that Ultralytics does with it what is said."""

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ultralytics.data.utils import verify_image_label

from yolo_lt.dataset.diagnosis.defects import KINDS, file_defects, label_defects
from yolo_lt.dataset.diagnosis.label_rows import ALL, FLAT, IMAGE, KEPT, ROW, Form
from yolo_lt.errors import UsageError

BOX = "0 .5 .5 .2 .2"
SQUARE = "0 .4 .4 .6 .4 .6 .6 .4 .6"
DETECT = Form(3)
FORMS = {"detect": DETECT, "segment": Form(3, "segment"), "obb": Form(3, "obb"), "pose": Form(3, "pose", (2, 3))}


def defects(text, form=DETECT, shape=None):
    return label_defects(text.encode() if isinstance(text, str) else text, form, shape)


def kinds(text, form=DETECT, shape=None):
    """Line, kind and fate of every defect."""
    return [(d.line, d.kind, d.fate) for d in defects(text, form, shape)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("\n  \n", []),
        (BOX, []),
        (f"\ufeff{BOX}\r\n\r\n1 .2 .2 .1 .1\r\n", []),
        ("0 0 0 1 1", [(1, "edge", KEPT)]),
        ("0 .5 .5 1 1", []),
        ("0 .500004 .5 1.000009 1", []),
        (f"{BOX}\n1 .9 .5 .23 .1", [(2, "edge", KEPT)]),
        ("0 .9 .5 .21 .1", []),
        ("0 abc .5 .2 .2", [(1, "number", IMAGE)]),
        ("0 nan .5 .2 .2", [(1, "number", IMAGE)]),
        ("0 inf .5 .2 .2", [(1, "outside", IMAGE)]),
        ("0 ,5 ,5 ,2 ,2", [(1, "number", IMAGE)]),
        ("0 .5 .5 .2", [(1, "columns", IMAGE)]),
        ("0 .5 .5 .2 .2 .9", [(1, "columns", IMAGE)]),
        ("0.5 .5 .5 .2 .2", [(1, "class", IMAGE)]),
        ("-1 .5 .5 .2 .2", [(1, "class", IMAGE)]),
        ("3 .5 .5 .2 .2", [(1, "class", IMAGE)]),
        ("inf .5 .5 .2 .2", [(1, "class", IMAGE)]),
        ("1.0 .5 .5 .2 .2", []),
        ("0 320 240 64 48", [(1, "outside", IMAGE)]),
        ("0 1.005 .5 .01 .2", [(1, "outside", KEPT)]),
        ("0 -.005 .5 .01 .2", [(1, "outside", KEPT)]),
        ("0 -.02 .5 .01 .2", [(1, "outside", IMAGE)]),
        ("0 .5 .5 -.005 .2", [(1, "outside", IMAGE)]),
        ("0 .5 .5 0 .2", [(1, "flat", FLAT)]),
        ("0 .5 .5 .2 0", [(1, "flat", FLAT)]),
        ("9 2 .5 .2 0", [(1, "class", IMAGE), (1, "outside", IMAGE)]),
        (f"{BOX}\n1 .2 .2 .1 .1\n0 0.50 0.50 0.2 0.2\n{BOX}", [(3, "repeated", ROW), (4, "repeated", ROW)]),
        (f"{BOX}\n1 .5 .5 .2 .2", [(2, "contested", KEPT)]),
        (f"{BOX}\n0 .501 .5 .2 .2", [(2, "doubled", KEPT)]),
        (f"{BOX}\n0 .51 .5 .2 .2", []),
        (f"{BOX}\n{SQUARE}", [(1, "mixed", IMAGE)]),
        (SQUARE, []),
        (f"{SQUARE} .5", [(1, "columns", IMAGE)]),
        (f"{SQUARE}\n0", [(2, "columns", IMAGE)]),
        (f"{SQUARE}\n1 .2 .2", [(2, "points", FLAT)]),
        (f"{SQUARE}\n1 .2 .2 .3 .3 .2 .2", [(2, "points", KEPT)]),
        (f"{SQUARE}\n1 .2 .2 .3 .2 .4 .2", [(2, "flat", FLAT)]),
        ("0 .4 .4 1.2 .4 1.2 .6", [(1, "edge", KEPT)]),
        ("0 .4 .4 1.002 .4 1.0 .6", [(1, "outside", KEPT)]),
        ("0 .9 .4 1.2 .4 1.2 .6", [(1, "outside", IMAGE)]),
        (b"\xff\xfe0\x00 \x00", [(0, "unreadable", IMAGE)]),
        (b"0 .5 .5 .2 .2\n0 .5\xb5", [(2, "unreadable", IMAGE)]),
        ("0\x00.5 .5 .2 .2", [(1, "columns", IMAGE)]),
    ],
)
def test_what_is_found_in_boxes_and_outlines(text, found):
    assert kinds(text) == found
    assert {kind for _, kind, _ in found} <= set(KINDS)


@pytest.mark.parametrize(
    ("form", "text", "found"),
    [
        ("segment", f"{BOX}\n1 .2 .2 .1 .1", [(1, "mixed", ALL)]),
        ("obb", BOX, [(1, "mixed", ALL)]),
        ("obb", SQUARE, []),
        ("obb", f"{SQUARE}\n1 .2 .2 .3 .2 .25 .3", [(2, "points", KEPT)]),
        ("pose", BOX, [(1, "columns", IMAGE)]),
        ("pose", f"{BOX} .5 .5 2 .5 .5 1", []),
        ("pose", f"{BOX} .5 .5 2 .5 1.1 1", [(1, "outside", IMAGE)]),
        ("pose", f"{BOX} .5 .5 2 .5 .5 -1", [(1, "outside", IMAGE)]),
        ("pose", "0 1.1 .5 .2 .2 .5 .5 2 .5 .5 1", [(1, "outside", KEPT)]),
    ],
)
def test_what_a_task_asks_for(form, text, found):
    assert kinds(text, FORMS[form]) == found


def test_keypoints_are_no_columns_too_many_for_other_tasks():
    text = f"{BOX} .5 .5 2 .5 .5 1"
    assert not kinds(text, Form(3, "detect", (2, 3)))
    assert kinds(text) == [(1, "outside", IMAGE)], "without kpt_shape it is an outline"


def test_one_class_for_all_allows_every_id():
    assert not kinds("7 .5 .5 .2 .2", Form(1, single_cls=True))


def test_small_boxes_need_the_image_to_be_known():
    text = "0 .5 .5 .01 .2\n0 .2 .2 .03 .2"
    assert not kinds(text)
    (found,) = defects(text, shape=(480, 100))
    assert (found.line, found.kind, found.what) == (1, "tiny", "1.0 x 96.0 pixels")


def test_outlines_in_one_box_are_told_apart():
    rising, falling = "0 .40 .41 .41 .40 .60 .59 .59 .60", "0 .59 .40 .60 .41 .41 .60 .40 .59"
    assert not kinds(f"{rising}\n{falling}", FORMS["obb"]), "two that cross like an X"
    assert kinds(f"{rising}\n{rising.replace('.59', '.591')}", FORMS["obb"]) == [(2, "doubled", KEPT)]
    assert kinds(f"{rising}\n1{rising[1:]}", FORMS["obb"]) == [(2, "contested", KEPT)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 .5 .5 .2 .2\n7 .5 .5 .2 .2", "class id 7, but the data YAML names 3 classes (0-2)"),
        ("0 320 .5 .2 .2", "centre x 320 is outside 0 to 1; coordinates are parts of the image's size, not pixels"),
        ("0 ,5 .5 .2 .2", "',5' in column 2 is no number; decimals take a point"),
        ("0 .5 .5 .2 .2 .9", "a confidence does not belong into labels"),
        (f"{BOX}\n{BOX}", "the same as line 1"),
        (f"{BOX}\n1 .5 .5 .2 .2", "nearly the box of line 1 (IoU above 0.95), of another class"),
        (f"{BOX}\n\n{BOX}1\n{SQUARE}", "2 box rows of 5 columns among 1 of outlines"),
        ("0 .99 .5 .2 .2", "the box reaches 9.0% of the image beyond its edge"),
        (b"\xff\xfe0\x00", "the file is UTF-16 text; save it as UTF-8"),
        (b"0 .5 .5 .2 .2\xe9", "byte 0xe9 is no UTF-8 text"),
    ],
)
def test_it_says_what_was_found(text, said):
    assert any(said in d.what for d in defects(text))


def test_files_and_what_is_none(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("0 .5 .5 .2 0")
    assert [d.kind for d in file_defects(tmp_path / "a.txt", DETECT)] == ["flat"]
    assert file_defects(tmp_path / "missing.txt", DETECT) == file_defects(tmp_path, DETECT) == []

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    (found,) = file_defects(tmp_path / "a.txt", DETECT)
    assert found == (0, "unreadable", "the file cannot be read: Permission denied", IMAGE)


@pytest.mark.parametrize(("task", "keypoints"), [("classify", (0, 0)), ("pose", (0, 0)), ("pose", (17, 4))])
def test_what_cannot_be_read_is_refused(task, keypoints):
    with pytest.raises(UsageError):
        Form(3, task, keypoints)


def test_ten_thousand_times_one_row_is_no_matter_of_minutes():
    found = defects("\n".join([BOX] * 10_000))
    assert len(found) == 9_999
    near = "\n".join(f"0 {0.5 + i * 1e-6:.6f} .5 .2 .2" for i in range(1200))
    assert len(defects(near)) == 1199


# Against Ultralytics itself -------------------------------------------------------------------------------------------
COLUMNS = {"detect": [5], "segment": [5, 7, 9], "obb": [9], "pose": [11]}
ENTRIES = [
    "0",
    "-0",
    ".5",
    "0.50",
    ".2",
    "1",
    "1.009",
    "1.02",
    "-.009",
    "-.011",
    "nan",
    "inf",
    "1e39",
    "1e-50",
    "x",
    ".4",
]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "image.png"
    cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    return path


@st.composite
def files(draw):
    """A task and a label file that is mostly right."""
    task = draw(st.sampled_from(sorted(COLUMNS)))
    usual = draw(st.sampled_from(COLUMNS[task]))
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        columns = usual if draw(st.integers(0, 9)) else draw(st.integers(1, 10))
        common = st.sampled_from([".5", ".2", ".4"])
        entries = [draw(st.sampled_from(ENTRIES) if draw(st.integers(0, 19)) == 0 else common) for _ in range(columns)]
        cls = draw(st.sampled_from(["0", "1", "2", "-0", "1.0"] if draw(st.integers(0, 9)) else ["3", "-1", ".5", "x"]))
        rows.append(" ".join([cls, *entries[1:]]))
    rows += draw(st.lists(st.sampled_from(rows), max_size=2)) if rows else []
    return task, draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(rows)


@pytest.mark.filterwarnings("ignore:overflow")
@settings(max_examples=200, deadline=None)
@given(files(), st.booleans())
@example(("detect", f"{BOX}\n0 -.5 .5 .2 .2"), False)
@example(("detect", f"{BOX}\n0 .5 .5 .2 .2\n-0 .5 .5 .2 .2"), True)
@example(("segment", f"{SQUARE}\n-{SQUARE}"), False)
@example(("segment", "0 .9 .4 1.1 .4 1.1 .6"), False)
@example(("segment", "0 .95 .4 1.1 .4 1.1 .6"), False)
@example(("pose", "0 1.5 .5 inf .2 .5 .5 inf .5 .5 1"), False)
@example(("pose", "0 .5 .5 .2 .2 .5 .5 inf .5 .5 1\n0 .5 .5 .2 .2 .5 .5 inf .5 .5 1"), False)
def test_ultralytics_does_what_is_said_of_it(image, case, single):
    task, text = case
    label = image.with_suffix(".txt")
    label.write_text(text, newline="")
    form = Form(3, task, (2, 3) if task == "pose" else (0, 0), single)
    found = label_defects(text.encode(), form)
    theirs = verify_image_label((str(image), str(label), "", task == "pose", 3, *form.keypoints, single))
    dropped = theirs[0] is None
    assert dropped == any(d.fate == IMAGE for d in found), (text, theirs[-1], found)
    if not dropped:
        rows = sum(bool(line.strip()) for line in text.splitlines())
        assert rows - len(theirs[1]) == sum(d.fate == ROW for d in found)
        flat = {d.line for d in found if d.fate == FLAT} - {d.line for d in found if d.fate == ROW}
        assert len(flat) == (theirs[1][:, 3:].min(axis=1, initial=1) == 0).sum()
