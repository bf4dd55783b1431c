"""What is wrong in a YOLO label file, line by line, and what Ultralytics makes of it.

The rules of `ultralytics.data.utils.verify_image_label` (8.4) as far as one file decides them: one bad row costs the
whole image, repeated rows are dropped, and much else is trained on as it stands. A byte order mark, blank lines and an
empty file are no defects.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolo_lt.dataset.diagnosis.label_rows import ALL, IMAGE, KEPT, ROW, Form, Row, check_row
from yolo_lt.dataset.diagnosis.suspects import NEAR, TINY, earlier_twins

KINDS = {  # what is wrong, in a word or two, in the order of reports
    "unreadable": "files that cannot be read as text",
    "mixed": "box rows among polygon rows",
    "columns": "rows of a wrong number of columns",
    "number": "entries that are no number",
    "class": "class ids that do not exist",
    "outside": "coordinates outside the image",
    "edge": "boxes that reach beyond the edge",
    "flat": "boxes without width or height",
    "points": "outlines of too few or too many points",
    "tiny": "boxes under 2 pixels",
    "repeated": "rows that are there twice",
    "doubled": "nearly equal boxes of one class",
    "contested": "the same box under two classes",
}
MOST_POINTS = 500  # of an outline that are compared with another's


class Defect(NamedTuple):
    """Something wrong.

    Attributes:
        line: The line of the file, from 1; 0 for the whole file.
        kind: A key of `KINDS`.
        what: In words.
        fate: What Ultralytics does with it.
    """

    line: int
    kind: str
    what: str
    fate: str


def file_defects(path: str | os.PathLike[str], form: Form, shape: tuple[int, int] | None = None) -> list[Defect]:
    """`label_defects` of a file; where there is none the image is background, which is no defect."""
    try:
        with open(path, "rb") as f:
            return label_defects(f.read(), form, shape)
    except (FileNotFoundError, IsADirectoryError):
        return []
    except OSError as e:
        return [Defect(0, "unreadable", f"the file cannot be read: {e.strerror}", IMAGE)]


def label_defects(content: bytes, form: Form, shape: tuple[int, int] | None = None) -> list[Defect]:
    """What is wrong in the content of a label file.

    Args:
        content: Its bytes.
        form: How its rows are to be read.
        shape: Height and width of the image in pixels; None leaves out boxes that are too small.

    Returns:
        The defects in the order of their lines; empty where there are none.

    Source: `verify_image_label` of ultralytics 8.4.190 decides what becomes of them.
    """
    try:
        rows = _rows(content.decode("utf-8-sig"), form)
    except UnicodeDecodeError as e:
        return [_undecodable(content, e)]
    outlines = form.task != "pose" and any(len(words) > 6 for _, words in rows)
    found, read = _layout(rows, outlines, form), []
    for line, words in rows:
        wrong, row = check_row(line, words, outlines, form)
        found += [Defect(line, *what) for what in wrong]
        read += [row] if row else []
    found += [d for row in read for d in _small(row, shape)]
    return sorted(found + _twins(read), key=lambda d: d.line)


def _rows(text: str, form: Form) -> list[tuple[int, list[str]]]:
    """The lines that are not blank and their words; of pose labels the keypoints are left out for other tasks."""
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if form.task != "pose" and form.keypoints[0]:
        rows = [(n, words[:5] if len(words) == form.pose_columns else words) for n, words in rows]
    return rows


def _undecodable(content: bytes, error: UnicodeDecodeError) -> Defect:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Defect(0, "unreadable", "the file is UTF-16 text; save it as UTF-8", IMAGE)
    line = content.count(b"\n", 0, error.start) + 1
    return Defect(line, "unreadable", f"byte 0x{content[error.start]:02x} is no UTF-8 text", IMAGE)


def _layout(rows: list[tuple[int, list[str]]], outlines: bool, form: Form) -> list[Defect]:
    """Box rows where outlines must be, one defect for the file."""
    boxes = [line for line, words in rows if len(words) == 5]
    if not boxes or form.task == "pose":
        return []
    many = f"{len(boxes)} box rows of 5 columns" if len(boxes) > 1 else "a box row of 5 columns"
    if outlines:
        return [Defect(boxes[0], "mixed", f"{many} among {len(rows) - len(boxes)} of outlines", IMAGE)]
    if form.task in ("segment", "obb"):
        return [Defect(boxes[0], "mixed", f"{many}, but task {form.task} needs outlines in every row", ALL)]
    return []


def _small(row: Row, shape: tuple[int, int] | None) -> list[Defect]:
    if shape is None:
        return []
    width, height = (float(side) * of for side, of in zip(row.box[2:], reversed(shape), strict=True))
    if not 0 < min(width, height) < TINY:
        return []
    what = f"{width:.1f} x {height:.1f} pixels"
    return [Defect(row.line, "tiny", what, "trains on it unless it has under 2 pixels when resized")]


# Rows against each other ----------------------------------------------------------------------------------------------
def _twins(rows: Sequence[Row]) -> list[Defect]:
    """Rows that repeat an earlier one, exactly or nearly."""
    first: dict[bytes, int] = {}
    found, single = [], []
    for row in rows:
        if (line := first.setdefault(row.key, row.line)) != row.line:
            found.append(Defect(row.line, "repeated", f"the same as line {line}", ROW))
        else:
            single.append(row)
    return found + _nearly(single)


def _nearly(rows: list[Row]) -> list[Defect]:
    if len(rows) < 2:
        return []
    box, cls = np.stack([r.box for r in rows]), np.array([r.cls for r in rows])
    same, near, other = earlier_twins(cls, np.array([0, len(rows)]), box)
    same_box = np.where(same >= 0, same, near)  # equal boxes around different outlines
    found = []
    for kind, what, twins in (("doubled", "the same class", same_box), ("contested", "another class", other)):
        for i in np.flatnonzero(twins >= 0).tolist():
            earlier, row = rows[twins[i]], rows[i]
            if _same_outline(earlier, row):
                text = f"nearly the box of line {earlier.line} (IoU above {NEAR:g}), of {what}"
                found.append(Defect(row.line, kind, text, KEPT))
    return found


def _same_outline(a: Row, b: Row) -> bool:
    """Whether two outlines with one box run alike: every point lies within 5 % of the box's diagonal of one of both."""
    if a.points is None or b.points is None:
        return True
    one, two = (points[:: 1 + len(points) // MOST_POINTS].astype(np.float64) for points in (a.points, b.points))
    apart = np.linalg.norm(one[:, None] - two[None], axis=2)
    limit = (1 - NEAR) * float(np.hypot(*a.box[2:]))
    return bool(apart.min(axis=0).max() <= limit and apart.min(axis=1).max() <= limit)
