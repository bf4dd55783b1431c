"""Pictures of single objects for the report: a crop of the image with the true box and the detection drawn in it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import imread

from yolo_lt.files import replacing, slug
from yolo_lt.ultra.preflight import PREFIX

FOLDER = "examples"
OURS = re.compile(r"\d+-\d+-[\w-]+-\d+-(found|confused|missed)\.jpg")

SIDE = 320  # the longer side of a picture, pixels
ENLARGED = 4  # at most
CONTEXT = 2  # how much longer and wider a crop is than what it shows
MARGIN = 1.2  # likewise, at least, where the image is too narrow for both context and RATIO
LEAST = 96  # sides of a crop, pixels of the image
RATIO = 1.6  # a crop's longer side over its shorter one, at most
SAMPLING, FULL = 7, 0x111111  # cv2.IMWRITE_JPEG_SAMPLING_FACTOR and ..._444, which OpenCV 4.6 neither has nor minds
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 75, SAMPLING, FULL]  # colour as sharp as brightness, or thin yellow lines turn beige

HALF, BORDER = 1, 1  # half a line's width, and the black on either side of it, pixels of the picture
DASH, GAP = 10, 7
BLACK, WHITE, YELLOW = (0, 0, 0), (255, 255, 255), (0, 225, 255)  # BGR

Named = tuple[str, dict[str, Any]]  # the name of a picture's file, and the object that it shows


def draw_examples(
    examples: Sequence[Mapping[str, Any]], files: Sequence[str | Path], folder: Path, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Draw every object that the report shows: its true box as a solid white line, a detection as a dashed yellow one.

    An image that cannot be read costs its pictures and nothing else. Pictures that an earlier run left are removed.

    Args:
        examples: The report's examples: per class its `id` and the objects `shown`, each with the position of its
            `image`, its `outcome`, its `box` and the `detection` or None. A box is x, y, width and height in pixels of
            the original image; a fifth number is the angle, in radians, by which it is turned about its centre.
        files: The images.
        folder: The report's folder; the pictures go into its folder "examples".
        names: Class names by id, for the names of the files.

    Returns:
        The examples; each object shown has its `file`, relative to `folder`, or None.
    """
    drawn = [{**example, "shown": [{**shown, "file": None} for shown in example["shown"]]} for example in examples]
    wanted = _by_image(drawn, names)
    _remove_old(folder / FOLDER)
    reasons = [reason for image in sorted(wanted) for reason in _draw_image(files[image], wanted[image], folder)]
    if reasons:
        count = sum(map(len, wanted.values()))
        LOGGER.warning(f"{PREFIX}{len(reasons)} of {count} pictures of objects are missing; the first: {reasons[0]}")
    return drawn


def _by_image(examples: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> dict[int, list[Named]]:
    """The objects shown with the names of their pictures, by image, so that each is read once."""
    found: dict[int, list[Named]] = defaultdict(list)
    for rank, example in enumerate(examples, 1):
        start = f"{rank}-{example['id']}-{slug(names.get(example['id'], ''))}"
        for i, shown in enumerate(example["shown"], 1):
            found[shown["image"]].append((f"{start}-{i}-{shown['outcome']}.jpg", shown))
    return found


def _draw_image(file: str | Path, objects: Iterable[Named], folder: Path) -> list[str]:
    """Draw the objects of one image, set their `file`, and say why others have none."""
    image, reasons = _read(file), []
    for name, shown in objects:
        if image is None:
            reasons.append(f"{file} cannot be read")
            continue
        try:
            _write(folder / FOLDER / name, _picture(image, shown))
            shown["file"] = f"{FOLDER}/{name}"
        except OSError as e:  # the report is worth more than its pictures
            reasons.append(str(e))
    return reasons


def _read(file: str | Path) -> np.ndarray | None:
    """An image as Ultralytics' loader reads it, turned as its EXIF says: (height, width, 3), BGR, uint8; or None."""
    try:
        image = imread(file)
    except Exception:  # decoders raise what they like
        return None
    if image is None or image.dtype != np.uint8 or not image.size:
        return None
    return image[..., :3] if image.shape[2] >= 3 else image[..., [0, 0, 0]]  # some releases keep a TIFF's channels


def _write(path: Path, picture: np.ndarray) -> None:
    jpeg = cv2.imencode(".jpg", picture, JPEG)[1]
    with replacing(path) as temporary:
        temporary.write_bytes(jpeg.tobytes())


def _remove_old(folder: Path) -> None:
    """Remove what an earlier run has drawn here, and no other file."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if OURS.fullmatch(path.name):
            with suppress(OSError):  # a folder, or open in a program on Windows: it stays, and nothing links to it
                path.unlink()


def _picture(image: np.ndarray, shown: Mapping[str, Any]) -> np.ndarray:
    """The object's surroundings, enlarged or reduced, and then the lines, so that these are sharp; BGR, uint8."""
    boxes = [shown["box"]] if shown["detection"] is None else [shown["box"], shown["detection"]]
    left, top, right, bottom = _window(np.concatenate([_corners(box) for box in boxes]), image.shape[:2])
    crop = image[top:bottom, left:right]
    scale = min(ENLARGED, SIDE / max(crop.shape[:2]))
    size = [max(1, round(n * scale)) for n in crop.shape[1::-1]]
    picture = cv2.resize(crop, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    for box, color, dashed in zip(boxes, (WHITE, YELLOW), (False, True), strict=False):
        around = _corners(box, (HALF + BORDER) / scale)  # the line covers nothing of the smallest object
        _outline(picture, (around - (left, top)) * np.divide(size, crop.shape[1::-1]), color, dashed)
    return picture


def _corners(box: Sequence[float], grow: float = 0) -> np.ndarray:
    """Corners of a box, turned about its centre if it has an angle, and moved outwards by `grow`; (4, 2), pixels."""
    x, y, width, height, angle = [*box, 0.0][:5]
    half = np.maximum([width, height], 0) / 2 + grow
    cos, sin = np.cos(angle), np.sin(angle)
    corners = half * [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    return corners @ [[cos, sin], [-sin, cos]] + [x + width / 2, y + height / 2]


def _window(points: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where to crop: left, top, right and bottom, pixels.

    Args:
        points: What must be in it as far as it is in the image, x and y, (P, 2).
        shape: The image's height and width.
    """
    limit = np.array(shape[::-1])
    low, high = np.clip([points.min(axis=0), points.max(axis=0)], 0, limit)
    side = np.maximum(CONTEXT * (high - low), LEAST)
    side = np.minimum(np.maximum(side, side[::-1] / RATIO), limit)
    enough = np.maximum(MARGIN * (high - low), LEAST)
    side = np.minimum(side, np.maximum(RATIO * side[::-1], enough))  # where the image is too narrow for the ratio
    start = np.clip((low + high - side) / 2, 0, limit - side)
    left, top = np.floor(start).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(start + side), limit).astype(int).tolist()
    return left, top, right, bottom


def _outline(picture: np.ndarray, points: np.ndarray, color: tuple[int, int, int], dashed: bool) -> None:
    """Draw a closed line with a black border.

    Args:
        picture: Is drawn into, (H, W, 3), uint8.
        points: Corners, x and y, (4, 2), pixels.
        color: BGR.
        dashed: Whether the line has gaps.
    """
    if (np.abs(points - np.roll(points, 1, axis=0)).min(axis=1) < 0.01).all():  # upright: sharp, and in the picture
        edge = HALF + BORDER
        points = np.clip(np.rint(points), edge, np.subtract(picture.shape[1::-1], edge))
    for half, paint in ((HALF + BORDER, BLACK), (HALF, color)):
        for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
            _line(picture, start, end, half, paint, dashed)


def _line(
    picture: np.ndarray, start: np.ndarray, end: np.ndarray, half: float, color: tuple[int, int, int], dashed: bool
) -> None:
    """Draw a line by how much it covers of each pixel: OpenCV's are wider than asked for.

    Args:
        picture: Is drawn into, (H, W, 3), uint8.
        start: x and y, (2,), pixels.
        end: Likewise.
        half: Half the width, pixels; a border's is wider than the line's and also reaches around the dashes' ends.
        color: BGR.
        dashed: Whether the line has gaps; either end has half a dash.
    """
    low = np.maximum(np.floor(np.minimum(start, end) - half - 1), 0).astype(int)
    high = np.minimum(np.ceil(np.maximum(start, end) + half + 1), picture.shape[1::-1]).astype(int)
    if (low >= high).any():
        return
    window = picture[low[1] : high[1], low[0] : high[0]]
    x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5 - start[0], np.arange(low[1], high[1]) + 0.5 - start[1])
    length = max(float(np.hypot(*(end - start))), 1e-6)
    cos, sin = (end - start) / length
    along, across = x * cos + y * sin, np.abs(y * cos - x * sin)
    beyond = np.abs(along - length / 2) - length / 2
    if dashed:
        step = length / max(1, round(length / (DASH + GAP)))
        from_dash = np.abs((along + step / 2) % step - step / 2)
        beyond = np.maximum(beyond, from_dash - step * DASH / (DASH + GAP) / 2 + HALF)
    cover = np.clip(half + 0.5 - np.maximum(across, beyond), 0, 1)[..., None]
    window[...] = np.rint(window + cover * (np.array(color) - window))
