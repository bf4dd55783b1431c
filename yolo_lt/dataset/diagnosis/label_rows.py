"""What is wrong in one row of a YOLO label file, by the rules of Ultralytics; `defects` reads the whole file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from yolo_lt.dataset.diagnosis.suspects import BEYOND
from yolo_lt.errors import UsageError

IMAGE, ROW, KEPT, ALL = "drops the image", "drops the row", "trains on it", "refuses the data set"
FLAT = "keeps it: never learnt, always missed"  # augmentation leaves it out, and no detection overlaps it
SLACK = 1e-5  # parts of the image by which rounding to five or six digits may move a coordinate: no defect
SIDES = ("centre x", "centre y", "width", "height")
TASKS = ("detect", "segment", "obb", "pose")
Found = list[tuple[str, str, str]]  # kind, what, fate


@dataclass(frozen=True)
class Form:
    """How rows are to be read.

    Attributes:
        num_classes: Classes that the data YAML names.
        task: detect, segment, obb or pose.
        keypoints: The data YAML's `kpt_shape`: points, and numbers per point; (0, 0) without.
        single_cls: Whether all classes count as one, so that no id is too large.
    """

    num_classes: int
    task: str = "detect"
    keypoints: tuple[int, int] = (0, 0)
    single_cls: bool = False

    def __post_init__(self) -> None:
        """Check what cannot be read."""
        if self.task not in TASKS:
            raise UsageError(f"task={self.task}: labels are read for {' | '.join(TASKS)}")
        if self.task == "pose" and (self.keypoints[0] < 1 or self.keypoints[1] not in (2, 3)):
            raise UsageError(f"kpt_shape={list(self.keypoints)}: pose needs a number of points, and 2 or 3 for each")

    @property
    def pose_columns(self) -> int:
        """Columns of a row with keypoints."""
        return 5 + self.keypoints[0] * self.keypoints[1]


class Row(NamedTuple):
    """A row whose numbers can be compared with those of others: its line, class, upright box and outline."""

    line: int
    cls: float
    box: np.ndarray
    points: np.ndarray | None
    key: bytes


def check_row(line: int, words: list[str], outlines: bool, form: Form) -> tuple[Found, Row | None]:
    """What is wrong in one row, and the row if its numbers can be compared with others.

    Args:
        line: Its line in the file.
        words: What stands in it.
        outlines: Whether the file holds outlines instead of boxes.
        form: How it is to be read.
    """
    if what := _columns(words, outlines, form):
        return [("columns", what, IMAGE)], None
    values, bad = _numbers(words)
    if bad:
        return [("number", bad, IMAGE)], None
    if outlines and len(words) == 5:
        return [], None  # told of the file
    found = [("class", what, IMAGE) for what in [_class(values[0], words[0], form)] if what]
    points = values[1:].reshape(-1, 2) if outlines else None
    if points is None:
        box = values[1:5]
        found += _box(box, form) + _keypoints(values[5:], form)
    else:
        box = _around(points)
        found += _outline(points, box, form)
    key = values.tobytes() if outlines else (values + 0.0).tobytes()  # of boxes -0 and 0 are equal, of outlines not
    return found, Row(line, float(values[0]), box, points, key)


def _columns(words: list[str], outlines: bool, form: Form) -> str:
    """Whether the number of columns cannot be right."""
    n = len(words)
    if form.task == "pose":
        return "" if n == form.pose_columns else f"{n} columns, but kpt_shape asks for {form.pose_columns}"
    if not outlines:
        hint = "; a confidence does not belong into labels" if n == 6 else ""
        return "" if n == 5 else f"{n} columns, but a box has 5 (class, centre x, centre y, width, height){hint}"
    if n == 1:
        return "a class without coordinates"
    return "" if n % 2 else f"{n} columns, so a coordinate is missing: an outline has a class and pairs of x and y"


def _numbers(words: list[str]) -> tuple[np.ndarray, str]:
    """The words as float32, as Ultralytics reads them, and which one is no number."""
    values = np.zeros(len(words))
    for i, word in enumerate(words):
        try:
            values[i] = float(word)
        except ValueError:
            hint = "; decimals take a point" if "," in word else ""
            return values, f"{word[:40]!r} in column {i + 1} is no number{hint}"
        if np.isnan(values[i]):
            return values, f"{word} in column {i + 1}"
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
        return values.astype(np.float32), ""


def _class(value: np.floating, word: str, form: Form) -> str:
    if not np.isfinite(value) or value % 1:
        return f"class id {word[:40]} is no whole number"
    if value < 0:
        return f"class id {word[:40]} is negative"
    if value >= form.num_classes and not form.single_cls:
        return f"class id {word[:40]}, but the data YAML names {form.num_classes} classes (0-{form.num_classes - 1})"
    return ""


def _box(box: np.ndarray, form: Form) -> Found:
    """What is wrong with centre x, centre y, width and height."""
    found: Found = []
    for i, value in enumerate(box):
        least = 0.0 if i > 1 else -BEYOND
        if value < least or (value > 1 + BEYOND and form.task != "pose"):
            pixels = "; coordinates are parts of the image's size, not pixels" if value > 2 else ""
            return [("outside", f"{SIDES[i]} {value:.6g} is outside 0 to 1{pixels}", IMAGE)]  # one tells of all
        if value < -SLACK or value > 1 + SLACK:  # for pose Ultralytics looks at the keypoints alone
            found.append(("outside", f"{SIDES[i]} {value:.6g} is outside 0 to 1", KEPT))
        elif i > 1 and not value:
            found.append(("flat", f"{SIDES[i]} is 0", FLAT))
    reach = float((np.abs(box[:2] - 0.5) + box[2:] / 2).max()) - 0.5
    if not found and reach > BEYOND:
        found.append(("edge", f"the box reaches {reach:.1%} of the image beyond its edge", KEPT))
    return found


def _keypoints(values: np.ndarray, form: Form) -> Found:
    """What is wrong with the keypoints of a pose row."""
    if not len(values):
        return []
    points = values.reshape(form.keypoints)
    if (points < -BEYOND).any() or (points[:, :2] > 1 + BEYOND).any():
        which = int(np.flatnonzero((points < -BEYOND).any(axis=1) | (points[:, :2] > 1 + BEYOND).any(axis=1))[0])
        return [("outside", f"keypoint {which + 1} has a value outside 0 to 1", IMAGE)]
    return []


def _around(points: np.ndarray) -> np.ndarray:
    """The upright box around an outline, in float32 as Ultralytics makes it."""
    low, high = points.min(axis=0), points.max(axis=0)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.concatenate([(low + high) / 2, high - low])


def _outline(points: np.ndarray, box: np.ndarray, form: Form) -> Found:
    """What is wrong with an outline; Ultralytics looks at the box around it."""
    found: Found = []
    reach = float(np.abs(points - 0.5).max()) - 0.5
    if not (box <= 1 + BEYOND).all() or (box < -BEYOND).any():
        found.append(("outside", f"the outline reaches to {reach:.3g} image sides beyond the edge", IMAGE))
    elif reach > SLACK:
        kind, what = ("edge", f"{reach:.1%}") if reach > BEYOND else ("outside", f"{reach:.2%}")
        found.append((kind, f"the outline reaches {what} of the image beyond its edge", KEPT))
    different = len(np.unique(points, axis=0))
    if different < 3:
        what = f"an outline of {different} different point{'s'[: different != 1]} has no area"
        found.append(("points", what, KEPT if box[2:].all() else FLAT))
    elif not box[2:].all():
        found.append(("flat", "the outline is a line", FLAT))
    elif form.task == "obb" and len(points) != 4:
        found.append(("points", f"{len(points)} points, but an oriented box has 4 corners", KEPT))
    return found
