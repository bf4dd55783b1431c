"""Pictures of single objects: what is in them, what is drawn where, and what a missing image costs."""

import math
import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.utils import ASSETS

from yolo_lt.ultra import pictures
from yolo_lt.ultra.labels import load_data
from yolo_lt.ultra.pictures import draw_examples
from yolo_lt.ultra.truth import ground_truth

DARK, GREY, BRIGHT = 20, 128, 255


def flat(path, value=DARK, size=(400, 400)):
    """An image of one grey, size as height and width; its path."""
    assert cv2.imencode(path.suffix, np.full((*size, 3), value, np.uint8))[1].tofile(path) is None
    return path


def gradient(height, width):
    """An image whose red and green tell where a pixel is: x and y; of at most 256 pixels a side."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    return image


def example(*objects, id=3):
    """A class and its objects, each (box, detection) and, if it is not in image 0, the image's position."""
    shown = [
        {
            "image": more[0] if more else 0,
            "image_id": "x",
            "outcome": "missed" if detection is None else "found",
            "taken_for": None,
            "score": None if detection is None else 0.5,
            "iou": None if detection is None else 0.7,
            "box": list(box),
            "detection": detection,
        }
        for box, detection, *more in objects
    ]
    return {"id": id, "n_gt": len(shown), "found": 0, "confused": 0, "missed": 0, "shown": shown}


def draw(folder, files, *objects):
    """The pictures of some objects, decoded; None for those that are missing."""
    drawn = draw_examples([example(*objects)], files, folder, {3: "cat"})
    return [None if s["file"] is None else cv2.imread(str(folder / s["file"])) for s in drawn[0]["shown"]]


def stroke(picture, start, end, reach=4, ends=0.08):
    """The brightest colour within `reach` of each point from start to end without its ends, BGR, shape (N, 3)."""
    start, end = np.array(start, float), np.array(end, float)
    length = np.hypot(*(end - start))
    t = np.linspace(ends, 1 - ends, int(length))[:, None, None]
    normal = np.array([start[1] - end[1], end[0] - start[0]]) / length
    at = start + t * (end - start) + np.arange(-reach, reach + 0.1, 0.5)[None, :, None] * normal
    x, y = np.clip(np.floor(at).astype(int), 0, np.subtract(picture.shape[1::-1], 1)).transpose(2, 0, 1)
    found = picture[y, x].astype(int)
    return np.take_along_axis(found, found.sum(axis=2).argmax(axis=1)[:, None, None], axis=1)[:, 0]


def white(colors):
    return (colors > 190).all(axis=1)


def yellow(colors):
    return (colors[:, 1:] > 150).all(axis=1) & (colors[:, 0] < 120)


def edges(left, top, right, bottom):
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return list(zip(corners, corners[1:] + corners[:1], strict=True))


def extent(picture):
    """Left, top, right and bottom of the part of a `gradient` that a picture shows; its lines do not matter."""
    height, width = picture.shape[:2]
    left, right = (np.median(half) for half in (picture[:, : width // 2, 2], picture[:, width // 2 :, 2]))
    top, bottom = (np.median(half) for half in (picture[: height // 2, :, 1], picture[height // 2 :, :, 1]))
    x, y = (right - left) / 2, (bottom - top) / 2  # the middle of each half is a quarter from its end
    return left - x, top - y, right + x, bottom + y


# What is drawn -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, DARK, GREY])
def test_the_truth_is_a_solid_white_line_and_the_detection_a_dashed_yellow_one(tmp_path, value):
    (picture,) = draw(tmp_path, [flat(tmp_path / "a.png", value)], ([150, 150, 100, 100], [170.0, 170.0, 100.0, 100.0]))
    assert picture.shape == (320, 320, 3)  # of 240 x 240 pixels from (90, 90)
    truth, detection = edges(80, 80, 213.3, 213.3), edges(106.7, 106.7, 240, 240)
    for edge in truth:
        assert white(stroke(picture, *edge)).mean() > 0.9, "the detection crosses two edges once"
    for edge in (truth[0], truth[3]):
        assert white(stroke(picture, *edge)).all()
    for edge in (detection[1], detection[2]):
        found = yellow(stroke(picture, *edge))
        assert 0.4 < found.mean() < 0.75
        assert np.diff(found.astype(int)).clip(0).sum() >= 4, "there must be several dashes"
        assert not white(stroke(picture, *edge)).any()


def test_an_object_that_was_missed_has_one_line(tmp_path):
    (picture,) = draw(tmp_path, [flat(tmp_path / "a.png")], ([150, 150, 100, 100], None))
    for edge in edges(80, 80, 240, 240):
        assert white(stroke(picture, *edge)).all()
    assert not yellow(picture.reshape(-1, 3).astype(int)).any()
    assert np.abs(picture[84:236, 84:236].astype(int) - DARK).max() < 12, "the object must not be covered"
    assert np.abs(picture[:70].astype(int) - DARK).max() < 12


@pytest.mark.parametrize("value", [0, GREY, BRIGHT])
def test_lines_are_two_pixels_wide_and_seen_on_any_ground(tmp_path, value):
    (picture,) = draw(tmp_path, [flat(tmp_path / "a.png", value)], ([150, 150, 100, 100], None))
    across = picture[160, 72:84].astype(int).mean(axis=1)  # the box begins at 80
    expected = [value] * 4 + [0, 255, 255, 0] + [value] * 4
    np.testing.assert_allclose(across, expected, atol=30)
    np.testing.assert_allclose(picture[72:84, 160].astype(int).mean(axis=1), expected, atol=30)
    np.testing.assert_allclose(picture[160, 236:248].astype(int).mean(axis=1), expected, atol=30)


def test_a_detection_on_its_object_leaves_both_lines_visible(tmp_path):
    box = [150, 150, 100, 100]
    (picture,) = draw(tmp_path, [flat(tmp_path / "a.png")], (box, box))
    for edge in edges(80, 80, 240, 240):
        colors = stroke(picture, *edge)
        assert yellow(colors).mean() > 0.3
        assert white(colors).mean() > 0.15


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, -1.2, 2.5, math.pi / 4])
def test_turned_boxes_are_turned_about_their_centre(tmp_path, angle):
    """As OpenCV turns them, and so Ultralytics."""
    box, detection = [140.0, 175.0, 120.0, 50.0, angle], [130.0, 165.0, 140.0, 70.0, angle]
    (picture,) = draw(tmp_path, [flat(tmp_path / "a.png")], (box, detection))
    outer = cv2.boxPoints(((200, 200), (140, 70), math.degrees(angle)))
    side = 2 * np.ptp(outer, axis=0)
    scale = 320 / max(*side, *side[::-1] / 1.6)
    centre = np.array(picture.shape[1::-1]) / 2
    for size, kind, least in (((120, 50), white, 0.97), ((140, 70), yellow, 0.4)):
        points = (cv2.boxPoints(((200, 200), size, math.degrees(angle))) - 200) * scale + centre
        for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
            found = kind(stroke(picture, start, end, reach=6, ends=0.15)).mean()
            assert least <= found
            assert kind is white or found < 0.8


def test_an_angle_of_zero_is_an_upright_box(tmp_path):
    file = flat(tmp_path / "a.png")
    upright, turned = draw(tmp_path, [file], ([150, 150, 100, 80], None), ([150, 150, 100, 80, 0.0], None))
    assert (upright == turned).all()


def test_the_smallest_object_is_not_covered(tmp_path):
    image = np.full((400, 400, 3), DARK, np.uint8)
    image[200, 200] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    (picture,) = draw(tmp_path, [tmp_path / "a.png"], ([200, 200, 1, 1], None))
    inside = picture[160:164, 160:164].reshape(-1, 3).astype(int)
    assert (inside[:, 2] - inside[:, 0]).max() > 90, "the red pixel must be seen"
    assert white(picture[150:174, 150:174].reshape(-1, 3).astype(int)).sum() >= 20


# Which part of the image ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "detection", "expected"),
    [
        ([100, 90, 60, 60], None, (70, 60, 190, 180)),  # twice the size
        ([100, 90, 40, 60], [80.0, 100.0, 40.0, 60.0], (80 - 30, 90 - 35, 140 + 30, 160 + 35)),  # of both together
        ([120, 120, 10, 10], None, (77, 77, 173, 173)),  # 96 pixels at least
        ([60, 120, 100, 10], None, (10, 62, 210, 188)),  # not slimmer than 1.6 to 1
        ([0, 0, 60, 60], None, (0, 0, 120, 120)),  # moved into the image
        ([230, 230, 26, 26], [240.0, 240.0, 10.0, 10.0], (160, 160, 256, 256)),
        ([-50, -50, 400, 400], None, (0, 0, 256, 256)),  # larger than the image
        ([300, 300, 20, 20], None, (160, 160, 256, 256)),  # outside of it: what is next to it
        ([-80, 100, 20, 20], [-60.0, 100.0, 20.0, 20.0], (0, 62, 96, 158)),
    ],
)
def test_a_crop_shows_both_boxes_and_what_is_around_them(tmp_path, box, detection, expected):
    cv2.imwrite(str(tmp_path / "a.png"), gradient(256, 256))
    (picture,) = draw(tmp_path, [tmp_path / "a.png"], (box, detection))
    np.testing.assert_allclose(extent(picture), expected, atol=5)
    assert max(picture.shape) == 320


@pytest.mark.parametrize("corner", [(0, 0), (380, 0), (0, 380), (380, 380)])
def test_all_four_sides_of_a_box_in_the_corner_of_an_image_are_in_the_picture(tmp_path, corner):
    (picture,) = draw(tmp_path, [flat(tmp_path / "a.png")], ([*corner, 20, 20], None))
    start = [0 if v == 0 else 320 - 320 * 20 / 96 for v in corner]
    for edge in edges(*start, *(v + 320 * 20 / 96 for v in start)):
        assert white(stroke(picture, *edge)).all()


@pytest.mark.parametrize(
    ("size", "box", "shape"),
    [
        ((40, 30), [10, 10, 5, 5], (160, 120)),  # four times at most
        ((300, 2000), [800, 140, 400, 20], (200, 320)),  # no room for twice the width at this ratio
        ((300, 2000), [100, 10, 1800, 280], (48, 320)),  # no way to keep it
        ((3000, 2000), [100, 100, 1500, 1500], (320, 320 * 2 // 3)),
        ((1, 1), [0, 0, 1, 1], (4, 4)),
        ((2, 900), [0, 0, 900, 2], (1, 320)),
        ((5000, 1), [0, 0, 1, 5000], (320, 1)),
    ],
)
def test_the_longer_side_has_320_pixels_where_the_image_allows(tmp_path, size, box, shape):
    (picture,) = draw(tmp_path, [flat(tmp_path / "a.png", size=size)], (box, None))
    np.testing.assert_allclose(picture.shape[:2], shape, atol=1)


BOX = st.tuples(*[st.floats(-300, 900)] * 2, *[st.floats(0, 1200)] * 2, st.floats(-7, 7))


@given(st.lists(BOX, min_size=1, max_size=2), st.integers(1, 700), st.integers(1, 700))
@settings(deadline=None)
def test_a_crop_lies_in_the_image_and_holds_what_the_image_does(boxes, height, width):
    points = np.concatenate([pictures._corners(box) for box in boxes])
    left, top, right, bottom = pictures._window(points, (height, width))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    inside = np.clip(points, 0, [width, height])
    low, high = inside.min(axis=0), inside.max(axis=0)
    assert (low >= [left - 1e-6, top - 1e-6]).all()
    assert (high <= [right + 1e-6, bottom + 1e-6]).all()
    sides = np.array([right - left, bottom - top])
    assert (sides >= np.minimum([width, height], 96)).all()
    assert sides.max() <= np.ceil(max(1.6 * sides.min(), 1.2 * (high - low).max(), 96)) + 2, "slim for no reason"


@given(st.lists(BOX, min_size=2, max_size=2), st.integers(1, 300), st.integers(1, 300))
@settings(deadline=None, max_examples=50)
def test_any_boxes_can_be_drawn_in_any_image(boxes, height, width):
    picture = pictures._picture(np.zeros((height, width, 3), np.uint8), {"box": boxes[0], "detection": boxes[1]})
    assert max(picture.shape[:2]) == min(320, 4 * max(height, width))
    assert picture.dtype == np.uint8


# Images as Ultralytics reads them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_on_images_that_their_exif_turns(tmp_path, orientation):
    """The labels are those of the turned image, as Ultralytics trains on it."""
    for folder in ("images", "labels"):
        (tmp_path / folder / "val").mkdir(parents=True)
    image = Image.fromarray(np.full((200, 300, 3), DARK, np.uint8))
    image.paste((0, 90, 255), (210, 20, 270, 60))  # x from 0.7 to 0.9, y from 0.1 to 0.3
    exif = Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / "images" / "val" / "a.jpg", exif=exif, quality=95)
    turned = cv2.imread(str(tmp_path / "images" / "val" / "a.jpg"))
    rows, columns = np.nonzero(turned[..., 0] > 140)
    low, high = (np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1]))
    numbers = np.r_[(low + high) / 2, high - low] / np.tile(turned.shape[1::-1], 2)
    (tmp_path / "labels" / "val" / "a.txt").write_text(" ".join(["0", *(f"{v:.6f}" for v in numbers)]))
    (tmp_path / "data.yaml").write_text("train: images/val\nval: images/val\nnames: [cat]\n")

    data = load_data(tmp_path / "data.yaml", "val")
    dataset = build_yolo_dataset(get_cfg(overrides={"imgsz": 64}), data["val"], 1, data, mode="val")
    truth = ground_truth(dataset.labels, [dataset.load_image(0)[1]], np.array(["a"]), ["cat"])
    (picture,) = draw(tmp_path, dataset.im_files, (truth.box[0].tolist(), None))
    blue = picture[..., 0].astype(int) - picture[..., 2] > 100
    rows, columns = np.nonzero(blue)
    spot = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert blue[spot[1] : spot[3], spot[0] : spot[2]].mean() > 0.95
    for edge in edges(*spot):
        assert white(stroke(picture, *edge)).all(), "the line must be around the object"


def test_a_turned_label_is_drawn_around_its_object(tmp_path):
    points = cv2.boxPoints(((300, 200), (120, 40), 25))
    image = np.full((400, 600, 3), DARK, np.uint8)
    cv2.fillPoly(image, [np.rint(points).astype(np.int32)], (200, 0, 0))
    cv2.imwrite(str(tmp_path / "a.png"), image)
    label = {"cls": np.zeros((1, 1)), "bboxes": np.zeros((1, 4)), "segments": [(points / [600, 400]).astype("f4")]}
    truth = ground_truth([label], [(400, 600)], np.array(["a"]), ["cat"], turned=True)
    (picture,) = draw(tmp_path, [tmp_path / "a.png"], ([*truth.box[0], truth.angle[0]], None))
    blue = (picture[..., 0].astype(int) - picture[..., 2] > 90).astype(np.uint8)
    around = cv2.boxPoints(cv2.minAreaRect(cv2.findNonZero(blue)))
    for start, end in zip(around, np.roll(around, -1, axis=0), strict=True):
        assert white(stroke(picture, start, end)).all()


def as_stored(path, kind):
    """A dark image with a box, stored in some way."""
    image = np.full((200, 200, 3), DARK, np.uint8)
    image[80:120, 80:120] = 150
    arrays = {
        "grey": image[..., 0],
        "alpha": np.dstack([image, image[..., :1]]),
        "deep": image.astype(np.uint16) << 8,
        "deep grey": image[..., 0].astype(np.uint16) << 8,
        "deep alpha": np.dstack([image, image[..., :1]]).astype(np.uint16) << 8,
        "colour": image,
    }
    if kind == "pages":
        return cv2.imencodemulti(".tiff", [image[..., 0]] * 5)[1].tofile(path)
    return cv2.imencode(path.suffix, arrays[kind])[1].tofile(path)


STORED = [("png", k) for k in ("grey", "alpha", "deep", "deep grey", "deep alpha")]
STORED += [("tiff", k) for k in ("colour", "grey", "alpha", "deep", "deep grey", "deep alpha", "pages")]


@pytest.mark.parametrize(("suffix", "kind"), [*STORED, ("bmp", "grey"), ("webp", "colour"), ("jpg", "grey")])
def test_images_of_any_depth_and_channels_are_drawn(tmp_path, suffix, kind):
    as_stored(tmp_path / f"a.{suffix}", kind)
    (picture,) = draw(tmp_path, [tmp_path / f"a.{suffix}"], ([80, 80, 40, 40], None))
    middle = picture[150:170, 150:170].astype(int)
    assert np.abs(middle - 150).max() < 12
    assert np.abs(picture[:60].astype(int) - DARK).max() < 12
    assert white(stroke(picture, (93, 93), (227, 93))).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_of_many_channels_the_first_three_are_drawn(tmp_path, monkeypatch, channels):
    """Not all releases of Ultralytics reduce a TIFF to three."""
    monkeypatch.setattr(pictures, "imread", lambda file: np.full((200, 200, channels), 90, np.uint8))
    (picture,) = draw(tmp_path, ["a.tiff"], ([80, 80, 40, 40], None))
    assert np.abs(picture[150:170, 150:170].astype(int) - 90).max() < 12


@pytest.mark.parametrize("name", ["белка 松鼠.jpg", "a b/c d.png", "Ünïcödé/😀.jpg", "100%.png", "#1?.jpg"])
def test_images_may_lie_anywhere(tmp_path, name):
    file = tmp_path / "data set" / name
    file.parent.mkdir(parents=True)
    flat(file)
    out = tmp_path / "Läufe 1"
    drawn = draw_examples([example(([150, 150, 100, 100], None))], [str(file)], out, {3: "белка"})
    assert drawn[0]["shown"][0]["file"] == "examples/1-3-белка-1-missed.jpg"
    assert (out / "examples" / "1-3-белка-1-missed.jpg").stat().st_size > 500


# Images that cannot be read ------------------------------------------------------------------------------------------


def broken(path, how):
    if how == "folder":
        path.mkdir()
    elif how == "cut":
        noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
        path.write_bytes(cv2.imencode(".png", noise)[1].tobytes()[:40])
    elif how == "float":
        assert cv2.imencode(".tiff", np.full((200, 200, 3), 0.5, np.float32))[1].tofile(path) is None
    elif how != "missing":
        path.write_bytes({"empty": b"", "text": b"not an image"}[how])


BROKEN = [("missing", "jpg"), ("empty", "jpg"), ("text", "png"), ("folder", "jpg"), ("cut", "png"), ("text", "tiff")]
BROKEN += [("float", "tiff"), ("text", "heic"), ("text", "avif"), ("empty", "webp")]


@pytest.mark.parametrize(("how", "suffix"), BROKEN)
def test_an_image_that_cannot_be_read_costs_its_pictures_and_one_warning(tmp_path, how, suffix, caplog):
    broken(tmp_path / f"bad.{suffix}", how)
    files = [tmp_path / f"bad.{suffix}", flat(tmp_path / "good.png")]
    box = [150, 150, 100, 100]
    found = draw(tmp_path, files, (box, None), (box, None, 1), (box, box), (box, box, 1))
    assert [picture is None for picture in found] == [True, False, True, False]
    warnings = [r.message for r in caplog.records if "pictures" in r.message]
    assert len(warnings) == 1
    assert "2 of 4 pictures" in warnings[0]
    assert f"bad.{suffix} cannot be read" in warnings[0]


def test_a_decoder_that_raises_costs_no_report(tmp_path, monkeypatch, caplog):
    def fail(file):
        raise cv2.error("too large")

    monkeypatch.setattr(pictures, "imread", fail)
    assert draw(tmp_path, [flat(tmp_path / "a.png")], ([1, 1, 9, 9], None)) == [None]
    assert "1 of 1 pictures" in caplog.text


def test_a_full_disk_leaves_no_half_picture(tmp_path, monkeypatch, caplog):
    def fail(*paths):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert draw(tmp_path, [flat(tmp_path / "a.png")], ([1, 1, 9, 9], None), ([9, 9, 9, 9], None)) == [None, None]
    assert not list((tmp_path / "examples").iterdir())
    assert "2 of 2 pictures" in caplog.text
    assert "No space left" in caplog.text


def test_a_file_in_the_folders_place_is_left_alone(tmp_path, caplog):
    (tmp_path / "examples").write_text("mine")
    assert draw(tmp_path, [flat(tmp_path / "a.png")], ([1, 1, 9, 9], None)) == [None]
    assert (tmp_path / "examples").read_text() == "mine"
    assert "1 of 1 pictures" in caplog.text


# Files ---------------------------------------------------------------------------------------------------------------


def test_examples_come_back_as_they_were_with_a_file_each(tmp_path, caplog):
    box = [150.0, 150.0, 100.0, 100.0]
    given = [example((box, None), (box, box), id=7), example(id=5), example((box, box, 1), id=0)]
    given[0]["shown"][1]["outcome"] = "confused"
    files = [flat(tmp_path / f"{i}.png") for i in range(2)]
    drawn = draw_examples(given, files, tmp_path / "out", {7: "a/b", 0: "cat", 5: "none"})
    assert [[s.pop("file") for s in e["shown"]] for e in drawn] == [
        ["examples/1-7-a-b-1-missed.jpg", "examples/1-7-a-b-2-confused.jpg"],
        [],
        ["examples/3-0-cat-1-found.jpg"],
    ]
    assert drawn == given, "the rest stays, and what was given has no file"
    assert sorted(p.name for p in (tmp_path / "out" / "examples").iterdir()) == [
        "1-7-a-b-1-missed.jpg",
        "1-7-a-b-2-confused.jpg",
        "3-0-cat-1-found.jpg",
    ]
    assert not caplog.text


@pytest.mark.parametrize("name", ["../../../up", "/etc/passwd", "a\\..\\b", "C:\\x", "..", "", "x" * 500, "猫" * 200])
def test_no_class_name_leads_out_of_the_folder(tmp_path, name):
    out = tmp_path / "deep" / "er" / "out"
    (object_,) = draw_examples([example(([1, 1, 9, 9], None))], [flat(tmp_path / "a.png")], out, {3: name})[0]["shown"]
    assert (out / object_["file"]).resolve().parent == (out / "examples").resolve()
    assert {p.name for p in tmp_path.rglob("*.jpg")} == {(out / object_["file"]).name}


def test_a_class_without_a_name_is_drawn(tmp_path):
    assert draw_examples([example(([1, 1, 9, 9], None))], [flat(tmp_path / "a.png")], tmp_path, {})[0]["shown"][0][
        "file"
    ]


def test_pictures_of_an_earlier_run_go_and_all_else_stays(tmp_path):
    file, box = flat(tmp_path / "a.png"), [150, 150, 100, 100]
    folder = tmp_path / "examples"
    draw_examples(
        [example((box, None), (box, box)), example((box, None), id=4)], [file], tmp_path, {3: "cat", 4: "松鼠"}
    )
    mine = ["notes.txt", "1-3-cat.jpg", "x1-3-cat-1-missed.jpg", "1-3-cat-1-missed.png", "1-3-cat-1-lost.jpg"]
    for name in mine:
        (folder / name).write_text("mine")
    (folder / "2-4-dog-1-found.jpg").mkdir()
    draw_examples([example((box, box), id=9)], [file], tmp_path, {9: "dog"})
    kept = {*mine, "2-4-dog-1-found.jpg", "1-9-dog-1-found.jpg"}
    assert {p.name for p in folder.iterdir()} == kept
    draw_examples([], [file], tmp_path, {})
    assert {p.name for p in folder.iterdir()} == kept - {"1-9-dog-1-found.jpg"}
    assert all((folder / name).read_text() == "mine" for name in mine)


def test_an_image_gone_since_the_last_run_does_not_keep_its_old_picture(tmp_path):
    file = flat(tmp_path / "a.png")
    draw(tmp_path, [file], ([1, 1, 9, 9], None))
    file.unlink()
    assert draw(tmp_path, [file], ([1, 1, 9, 9], None)) == [None]
    assert not list((tmp_path / "examples").iterdir())


def test_without_examples_there_is_no_folder(tmp_path, caplog):
    assert draw_examples([], [], tmp_path / "out", {}) == []
    assert not (tmp_path / "out").exists()
    assert not caplog.text


def test_an_image_is_read_once(tmp_path, monkeypatch):
    files = [flat(tmp_path / f"{i}.png") for i in range(3)]
    reads, real = [], pictures.imread
    monkeypatch.setattr(pictures, "imread", lambda file: reads.append(file) or real(file))
    box = [150, 150, 100, 100]
    pairs = [example((box, None, 2), (box, None, 0), (box, box, 2), id=i) for i in range(3)]
    draw_examples(pairs, files, tmp_path, {})
    assert reads == [files[0], files[2]]


def check_sizes(folder, drawn):
    sizes = [(folder / s["file"]).stat().st_size for s in drawn[0]["shown"]]
    assert max(sizes) < 40_000
    assert {max(cv2.imread(str(folder / s["file"])).shape) for s in drawn[0]["shown"]} == {320}


def test_pictures_of_a_photograph_are_small(tmp_path):
    boxes = [[50, 400, 200, 500], [20, 230, 780, 520], [670, 390, 140, 490], [0, 550, 60, 320], [300, 300, 20, 20]]
    objects = [(box, [box[0] + 15.0, *map(float, box[1:])]) for box in boxes]
    check_sizes(tmp_path, draw_examples([example(*objects)], [ASSETS / "bus.jpg"], tmp_path, {}))


@pytest.mark.realdata
def test_pictures_of_real_objects_are_small(shared, tmp_path):
    files = sorted((shared / "data" / "fod31lt" / "images" / "train").iterdir())[::40]
    objects = []
    for i, file in enumerate(files):
        label = file.parents[2] / "labels" / "train" / f"{file.stem}.txt"
        height, width = cv2.imread(str(file)).shape[:2]
        x, y, w, h = np.array(label.read_text().split()[1:5], float) * [width, height, width, height]
        objects.append(([x - w / 2, y - h / 2, w, h], [x - w / 3, y - h / 2, w, h], i))
    check_sizes(tmp_path, draw_examples([example(*objects)], files, tmp_path, {}))
