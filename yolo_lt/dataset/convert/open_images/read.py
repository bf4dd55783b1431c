"""Open Images V4 to V7 and its Challenges of 2018 and 2019, read from their CSV files.

Open Images verifies some classes per image, present or absent, and draws boxes for those that are present; where nobody
looked for a class, its absence from the boxes says nothing.

Source: Kuznetsova et al., The Open Images Dataset V4, IJCV 2020.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from yolo_lt.dataset.convert.open_images.blocks import ANY, FLAG, NUMBER, TEXT, read_blocks
from yolo_lt.dataset.convert.open_images.ids import encode_ids, index_ids, paths_of
from yolo_lt.dataset.convert.open_images.pairs import among, as_lists, pairs_of, pairs_of_boxes, union
from yolo_lt.dataset.convert.source import Categories, Split
from yolo_lt.dataset.rows import Boxes
from yolo_lt.errors import LTError

SIDES = ("XMin", "XMax", "YMin", "YMax")
BOX_COLUMNS = {"ImageID": TEXT, "LabelName": TEXT, **dict.fromkeys(SIDES, NUMBER)}
LABEL_COLUMNS = {"ImageID": TEXT, "LabelName": TEXT, "Confidence": NUMBER}

UNLISTED_BOXES = "boxes of classes that the class file does not list were left out"
UNLISTED_LABELS = "image labels of classes that the class file does not list were left out"
UNVERIFIED = "image labels that nobody verified were left out"
REVERSED = "boxes whose XMin is above their XMax, or YMin above YMax, were left out"
BEYOND = "boxes reached beyond their image and were cut at its border"
NO_AREA = "boxes without an area inside their image were left out"
ABSENT_BUT_BOXED = "classes of an image were verified absent but have a box there, and count as present"
BOTH = "classes of an image were verified both present and absent, and count as unknown"


@dataclass(frozen=True)
class _Rows:
    """Some of the lines of all files, in the pieces in which they were read.

    Attributes:
        image: Places in the image ids of all files, shape (n,), int32.
        cls: Classes, shape (n,), int32 or smaller.
        box: As label lines have them, shape (n, 4), float32; none for image labels.
    """

    image: list[np.ndarray] = field(default_factory=list)
    cls: list[np.ndarray] = field(default_factory=list)
    box: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class _Lines:
    """What is kept of the lines of all files.

    Attributes:
        places: The labels of the classes.
        ids: Image ids as `encode_ids` gives them, shape (I,), in pieces; an image may have several.
        objects, groups: Boxes.
        present, absent: Verified image labels.
        repairs: What was left out or mended.
    """

    places: Sequence[str]
    ids: list[np.ndarray] = field(default_factory=list)
    objects: _Rows = field(default_factory=_Rows)
    groups: _Rows = field(default_factory=_Rows)
    present: _Rows = field(default_factory=_Rows)
    absent: _Rows = field(default_factory=_Rows)
    repairs: Counter[str] = field(default_factory=Counter)


def read_split(boxes: Path, labels: Sequence[Path], categories: Categories, folder: str) -> Split:
    """Read the boxes and verified image labels of one split.

    The images are those of the box file, and those with a verified label of a class in `categories`. A class is
    positive in an image where it was verified as present or has a box; negative where it was verified as absent, and
    has no box. Verified as both, and without a box, it is unknown. Not exhaustive are classes with a group of objects
    in one box, and those verified as present of which no single object has a box: only the most specific of an object's
    classes is boxed.

    Without label files, only what is boxed is known: nothing is negative, and as nobody says what was looked for, the
    absence of a class from an image says nothing.

    Args:
        boxes: A CSV file of boxes: ImageID, LabelName, XMin, XMax, YMin, YMax, and IsGroupOf if there are groups.
        labels: CSV files of image labels: ImageID, LabelName, Confidence (1: present, 0: absent, else not verified),
            and perhaps Source, which begins with "machine" where nobody verified the label.
        categories: The classes, by `read_classes`.
        folder: The folder of the images, Open Images' own are train, validation and test.

    Returns:
        The split, with a row per image in the order of their names, "folder/ImageID.jpg"; boxes of an image in the
        order of the file, equal ones too. What was left out or mended is counted in `repairs`.

    Raises:
        LTError: A file is missing, or not of this form; its first bad line is named. Or there is no image.
    """
    lines = _Lines(categories.labels or categories.names)
    for frame in read_blocks(boxes, BOX_COLUMNS, {"IsGroupOf": FLAG}):
        _add_boxes(frame, lines)
    for path in labels:
        for frame in read_blocks(path, LABEL_COLUMNS, {"Source": ANY}):
            _add_labels(frame, lines)
    images, image = index_ids(lines.ids)
    if not len(images):
        raise LTError(f"{boxes}: no images, as neither it nor a file of image labels has a line that can be used")
    objects, groups = (_sorted_boxes(rows, image, len(images)) for rows in (lines.objects, lines.groups))
    present, absent = (_verified(rows, image, len(images), len(lines.places)) for rows in (lines.present, lines.absent))
    known = _known(present, absent, objects, groups, lines)
    positive, negative, partial = (as_lists(pairs, len(images), len(lines.places)) for pairs in known)
    paths = paths_of(images, folder, boxes)
    return Split(categories, paths, objects, groups, positive, negative, partial, repairs=+lines.repairs)


def _add_boxes(frame: Any, lines: _Lines) -> None:
    """Keep the boxes of a block that have an area and a listed class."""
    cls, listed = _classes(frame["LabelName"], lines.places)
    left, right, top, bottom = (frame[side].to_numpy() for side in SIDES)
    turned = (left > right) | (top > bottom)
    corners = np.stack([left, top, right, bottom], 1)
    inside = np.clip(corners, 0, 1)
    box = np.concatenate([(inside[:, :2] + inside[:, 2:]) / 2, inside[:, 2:] - inside[:, :2]], 1)
    sound = listed & (box[:, 2:] > 0).all(1)
    lines.repairs[UNLISTED_BOXES] += int((~listed).sum())
    lines.repairs[REVERSED] += int((listed & turned).sum())
    lines.repairs[NO_AREA] += int((listed & ~turned & ~sound).sum())
    lines.repairs[BEYOND] += int((sound & (inside != corners).any(1)).sum())
    image, group = _image_places(frame["ImageID"], lines), _is_group(frame)
    for rows, kept in ((lines.objects, sound & ~group), (lines.groups, sound & group)):
        rows.image.append(image[kept])
        rows.cls.append(cls[kept])
        rows.box.append(box[kept])


def _is_group(frame: Any) -> np.ndarray:
    """Which boxes stand for many objects, (n,), bool; none where that is not said, or unknown."""
    if "IsGroupOf" not in frame.columns:
        return np.zeros(frame.height, bool)
    return frame["IsGroupOf"].to_numpy() == 1


def _add_labels(frame: Any, lines: _Lines) -> None:
    """Keep the verified labels of a block that have a listed class."""
    confidence = frame["Confidence"].to_numpy()
    verified = (confidence == 1) | (confidence == 0)
    if "Source" in frame.columns:
        verified &= ~frame["Source"].fill_null("").str.starts_with("machine").to_numpy()
    cls, listed = _classes(frame["LabelName"], lines.places)
    kept = verified & listed
    lines.repairs[UNVERIFIED] += int((~verified).sum())
    lines.repairs[UNLISTED_LABELS] += int((verified & ~listed).sum())
    image, is_there = _image_places(frame["ImageID"].filter(pl.Series(kept)), lines), confidence[kept] == 1
    for rows, chosen in ((lines.present, is_there), (lines.absent, ~is_there)):
        rows.image.append(image[chosen])
        rows.cls.append(cls[kept][chosen])


def _classes(labels: Any, places: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Class of every line, in as few bytes as it needs, and whether it is listed, each (n,)."""
    cls = labels.cast(pl.Enum(places), strict=False).to_physical()
    return cls.fill_null(0).to_numpy(), cls.is_not_null().to_numpy()


def _image_places(column: Any, lines: _Lines) -> np.ndarray:
    """Append a block's image ids, one for every run of equal ones, and give the place of every line's, (n,), int32."""
    first = (column != column.shift(1)).fill_null(True)
    before = sum(map(len, lines.ids))
    lines.ids.append(encode_ids(column.filter(first).to_list()))
    return (before - 1 + np.cumsum(first.to_numpy())).astype(np.int32)


def _joined(pieces: list[np.ndarray], dtype: Any) -> np.ndarray:
    """Pieces as one array; they are given up, because both take much memory."""
    whole = np.concatenate(pieces) if pieces else np.zeros(0, dtype)
    pieces.clear()
    return whole


def _sorted_boxes(rows: _Rows, image: np.ndarray, images: int) -> Boxes:
    """Boxes image after image; `image` is the index of the image of every id."""
    index = image[_joined(rows.image, np.int32)]
    offsets = np.zeros(images + 1, np.int64)
    np.cumsum(np.bincount(index, minlength=images), out=offsets[1:])
    cls = _joined(rows.cls, np.int32).astype(np.int32)
    box = _joined(rows.box, np.float32).reshape(-1, 4)
    if (index[1:] < index[:-1]).any():  # not so in the official files
        order = np.argsort(index, kind="stable")
        cls = cls[order]
        for column in box.T:  # one after another, in place: a second copy of all would take as much again
            column[:] = column[order]
    return Boxes(offsets, cls, box)


def _verified(rows: _Rows, image: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Pairs of image labels; `image` is the index of the image of every id."""
    return pairs_of(image[_joined(rows.image, np.int32)], _joined(rows.cls, np.int32), images, classes)


def _known(yes: np.ndarray, no: np.ndarray, objects: Boxes, groups: Boxes, lines: _Lines) -> tuple[np.ndarray, ...]:
    """Pairs that are positive, negative and not exhaustive, from those verified as present and as absent.

    Those that are said to be both are counted.
    """
    classes = len(lines.places)
    single, group = pairs_of_boxes(objects, classes), pairs_of_boxes(groups, classes)
    boxed = union(single, group)
    refuted = among(no, boxed)
    unclear = among(no, yes) & ~refuted
    lines.repairs[ABSENT_BUT_BOXED] += int(refuted.sum())
    lines.repairs[BOTH] += int(unclear.sum())
    yes = yes[~among(yes, no[unclear])]
    return union(yes, boxed), no[~refuted & ~unclear], union(group, yes[~among(yes, single)])
