"""Outlines of label lines: parts joined, masks traced, and the box where there is nothing better."""

import json
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycocotools
from ultralytics.data.converter import merge_multi_segment
from ultralytics.utils.ops import segments2boxes

from yolo_lt.dataset.convert.outlines import DIGITS, FITS, MISFIT, WITHOUT, Outlines, as_text, corners, decode_mask

WIDTH, HEIGHT = 100, 50
BOX = [0.2, 0.4, 0.2, 0.4]  # from 10 to 30 and from 10 to 30 pixels
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
CORNERS = [0.1, 0.2, 0.3, 0.2, 0.3, 0.6, 0.1, 0.6]


def outlines(*found, box=BOX, contours=None, join=merge_multi_segment, raw=None):
    """Outlines of as many objects, all of them with one box."""
    texts = raw or [json.dumps(segmentation).encode() for segmentation in found]
    size = np.tile([float(WIDTH), float(HEIGHT)], (len(texts), 1))
    return Outlines([msgspec.Raw(t) for t in texts], np.array([box] * len(texts)), size, join, contours, Counter())


def numbers(text):
    return [float(word) for word in text.split()]


def read(made, m=0):
    return numbers(made(range(m, m + 1))[0])


def box_of(coordinates):
    """The box that Ultralytics takes from an outline."""
    return segments2boxes([np.array(coordinates, np.float32).reshape(-1, 2)])[0]


def test_a_polygon_is_written_in_parts_of_the_image():
    made = outlines([SQUARE])
    assert read(made) == CORNERS
    assert not made.repairs


def test_parts_are_joined_into_one():
    parts = [[10, 10, 15, 10, 15, 30, 10, 30], [20, 12, 30, 12, 25, 20], [20, 25, 30, 25, 30, 28]]
    made = outlines(parts)
    points = set(zip(*[iter(read(made))] * 2, strict=True))
    assert points == {(x / WIDTH, y / HEIGHT) for part in parts for x, y in zip(*[iter(part)] * 2, strict=True)}
    np.testing.assert_allclose(box_of(read(made)), BOX, atol=1e-6)
    assert not made.repairs


POINT = st.tuples(st.integers(10, 30), st.integers(10, 30))
PART = st.lists(POINT, min_size=3, max_size=8).map(lambda points: [v for point in points for v in point])


@settings(deadline=None)
@given(st.lists(PART, min_size=1, max_size=5))
def test_any_parts_keep_their_common_bounds(parts):
    """Ultralytics' own joining loses none of them; odd shapes and repeated points included."""
    made = outlines([*parts, SQUARE])
    np.testing.assert_allclose(box_of(read(made)), BOX, atol=1e-6)
    assert not made.repairs


def test_parts_that_are_no_shape_are_left_out():
    made = outlines([SQUARE, [], [1, 2], [1, 2, 3, 4], [0, 0, 90, 0, 90, 40, 7]])
    assert read(made) == CORNERS
    assert not made.repairs


NONE = {
    "null": None,
    "nothing": [],
    "an empty part": [[]],
    "a line": [[1, 2, 3, 4]],
    "an odd number": [[10, 10, 30, 10, 30, 30, 10]],
    "numbers without a part": SQUARE,
    "points": [[[10, 10], [30, 10], [30, 30]]],
    "text": "none",
    "text in a part": [["10", "10", "30", "10", "30", "30"]],
    "null in a part": [[10, None, 30, 10, 30, 30]],
    "a box": {"bbox": [1, 2, 3, 4]},
    "a mask without counts": {"size": [HEIGHT, WIDTH]},
    "a mask of another image": {"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]},
    "a damaged mask": {"size": [HEIGHT, WIDTH], "counts": "abc"},
    "true": True,
}


@pytest.mark.parametrize("what", NONE)
def test_without_an_outline_the_box_stands_in_and_is_counted(what):
    made = outlines(NONE[what], contours=lambda mask: [SQUARE])
    assert read(made) == CORNERS
    assert made.repairs == {WITHOUT: 1}


@pytest.mark.parametrize("text", [b"[[1e999, 1, 2, 2, 3, 1]]", b"[" * 5000 + b"]" * 5000])
def test_what_no_number_can_hold_is_no_outline(text):
    made = outlines(raw=[text])
    assert read(made) == CORNERS
    assert made.repairs == {WITHOUT: 1}


@pytest.mark.parametrize(
    "outline",
    [
        [10, 10, 30, 10, 30, 28, 10, 28],  # IoU 0.9
        [60, 10, 80, 10, 80, 30, 60, 30],
        [2, 10, 30, 10, 30, 30, 2, 30],
        [10, 2, 30, 2, 30, 30, 10, 30],
        [10, 10, 10, 10, 10, 10],
        [10, 10, 30, 10, 20, 10],
        [0.1, 0.2, 0.3, 0.2, 0.3, 0.6, 0.1, 0.6],  # in parts of the image already
    ],
)
def test_an_outline_that_does_not_fit_its_box_gives_way_to_it(outline):
    made = outlines([outline])
    assert read(made) == CORNERS
    assert made.repairs == {MISFIT: 1}


@pytest.mark.parametrize(("bottom", "fits"), [(29.21, True), (29.19, False), (30.83, True), (30.84, False)])
def test_what_fits_is_said_by_the_iou(bottom, fits):
    assert FITS == 0.96
    made = outlines([[10, 10, 30, 10, 30, bottom, 10, bottom]])
    assert read(made)[5] == pytest.approx((bottom if fits else 30) / HEIGHT)
    assert made.repairs == ({} if fits else {MISFIT: 1})


def test_an_outline_is_cut_at_the_border_as_its_box_is():
    made = outlines([[-20, -20, 30, -20, 30, 60, -20, 60]], box=[0.15, 0.5, 0.3, 1.0])
    assert read(made) == [0, 0, 0.3, 0, 0.3, 1, 0, 1]
    assert not made.repairs


def test_outlines_of_some_objects():
    other = [12, 10, 30, 10, 30, 30, 10, 30]
    made = outlines([SQUARE], None, [other])
    some = made.take(np.array([2, 0]))
    assert read(some, 0)[0] == 0.12
    assert read(some, 1) == CORNERS
    assert read(some.take(np.array([1])), 0) == CORNERS
    assert some.repairs is made.repairs, "what writing mends must be told"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_numbers_are_written_as_ultralytics_reads_them(values):
    words = as_text(np.array(values)).split(" ")
    np.testing.assert_allclose(np.array(words, np.float32), values, atol=0.5 * 10.0**-DIGITS + 6e-8)
    assert all(len(word) <= 8 for word in words)


def test_a_box_as_an_outline_is_the_box():
    assert numbers(corners(np.array(BOX))) == CORNERS
    np.testing.assert_allclose(box_of(CORNERS), BOX, atol=1e-7)


# Masks ----------------------------------------------------------------------------------------------------------------


def masks():
    """Arrays of 0 and 1 with long runs and with short ones."""
    shape = st.tuples(st.integers(1, 12), st.integers(1, 40))
    return shape.flatmap(
        lambda s: st.lists(st.booleans(), min_size=s[0] * s[1], max_size=s[0] * s[1]).map(
            lambda bits: np.repeat(np.array(bits, np.uint8).reshape(s), 3, axis=0)
        )
    )


MANY = [[SQUARE], None, [SQUARE, [10, 10, 12, 10, 12, 12]], [[0, 0, 5, 0, 5, 5]], {"size": [2, 2], "counts": [4]}]


@settings(deadline=None)
@given(st.data())
def test_many_at_once_are_as_each_alone(data):
    """Objects of several images, with a box of their own; their pixels are those of image and box."""
    kinds = data.draw(st.lists(st.integers(0, len(MANY) - 1), min_size=1, max_size=8))
    box = np.array([[0.1 + k / 100, 0.3, 0.1 + k / 50, 0.4] for k in range(len(kinds))])
    size = np.array([[100.0 + 10 * (k % 3), 50.0 + 10 * (k % 2)] for k in range(len(kinds))])
    low, extent = (box[:, :2] - box[:, 2:] / 2) * size, box[:, 2:] * size

    def shown(m):  # what fits is moved onto the box
        return [((np.reshape(p, (-1, 2)) - 10) / 20 * extent[m] + low[m]).ravel().tolist() for p in MANY[kinds[m]]]

    found = [shown(m) if isinstance(MANY[k], list) else MANY[k] for m, k in enumerate(kinds)]
    raw = [msgspec.Raw(json.dumps(outline).encode()) for outline in found]
    made = Outlines(raw, box, size, merge_multi_segment, None, Counter())
    alone = Outlines(raw, box, size, merge_multi_segment, None, Counter())
    start = data.draw(st.integers(0, len(kinds) - 1))
    texts = made(range(start, len(kinds)))
    assert texts == [alone(range(m, m + 1))[0] for m in range(start, len(kinds))]
    assert made.repairs == alone.repairs
    assert sum(made.repairs.values()) == sum(k in (1, 3, 4) for k in kinds[start:])
    for text, own in zip(texts, box[start:], strict=True):
        np.testing.assert_allclose(box_of(numbers(text)), own, atol=2e-6)
    assert made(range(0)) == []


@settings(deadline=None)
@given(masks())
def test_masks_are_read_as_pycocotools_reads_them(mask):
    height, width = mask.shape
    packed = {"size": [height, width], "counts": pycocotools.encode(np.asfortranarray(mask))["counts"].decode()}
    np.testing.assert_array_equal(decode_mask(packed, height, width), mask)
    flat = mask.T.ravel()
    borders = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], borders, [len(flat)]])).tolist()
    counts = [0, *runs] if flat[0] else runs
    plain = {"size": [height, width], "counts": counts}
    np.testing.assert_array_equal(decode_mask(plain, height, width), mask)
    np.testing.assert_array_equal(pycocotools.decode(pycocotools.frPyObjects(plain, height, width)), mask)


def test_a_large_mask_with_long_runs():
    mask = np.zeros((700, 900), np.uint8)
    mask[50:650, 300:880] = 1
    packed = pycocotools.encode(np.asfortranarray(mask))["counts"].decode()
    np.testing.assert_array_equal(decode_mask({"size": [700, 900], "counts": packed}, 700, 900), mask)


@pytest.mark.parametrize(
    "counts",
    [
        [5, 5],
        [26],
        [24],
        [-1, 26],
        [25.0],
        [True, 24],
        ["25"],
        [[25]],
        [],
        "",
        "abc",
        "~~~~",
        "o" * 10_000,
        "ö中",
        25,
        None,
    ],
)
def test_runs_that_do_not_fill_the_image_are_no_mask(counts):
    """pycocotools would show what lies in its memory behind them."""
    assert decode_mask({"size": [5, 5], "counts": counts}, 5, 5) is None


@pytest.mark.parametrize("mask", [None, [], "x", {"counts": [25]}, {"size": 25, "counts": [25]}])
def test_other_things_are_no_mask(mask):
    assert decode_mask(mask, 5, 5) is None


def test_a_mask_gives_its_contours_where_they_are_asked_for():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:30, 10:30] = 1
    rle = {"size": [HEIGHT, WIDTH], "counts": pycocotools.encode(np.asfortranarray(mask))["counts"].decode()}
    seen = []
    made = outlines(rle, contours=lambda found: seen.append(found) or [SQUARE])
    assert read(made) == CORNERS
    np.testing.assert_array_equal(seen[0], mask)
    assert not made.repairs
    unread = outlines(rle)
    assert read(unread) == CORNERS
    assert unread.repairs == {WITHOUT: 1}
