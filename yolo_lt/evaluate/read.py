"""COCO-style JSON into compact arrays, every defect named with its place.

Whole columns are converted at once, since half a million detections must not cost seconds; only when a column does
not fit is it walked again to find the first bad entry.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from yolo_lt.dataset.bins import LETTERS
from yolo_lt.errors import LTError
from yolo_lt.evaluate.matching import Detections, GroundTruth

ROWS = {list, tuple, np.ndarray}  # what may hold the four numbers of a box
Source = Mapping | Sequence | str | os.PathLike


def read_ground_truth(source: Source) -> GroundTruth:
    """Read ground truth in COCO or LVIS form.

    Args:
        source: A dict with lists under images, categories and annotations, or the path of such a JSON file. Category
            ids are any integers, image ids all integers or all strings. An annotation needs image_id, category_id and
            bbox (x, y, width, height); area defaults to width * height, iscrowd to 0; annotation ids are only checked
            for duplicates. Boxes may reach outside the image, as in COCO.

    Returns:
        The arrays, images and categories sorted by id, annotations in file order.

    Raises:
        LTError: The file is missing or malformed, a key is missing, a number is not finite, an id is used twice, or
            an annotation names an image or category that is not listed.
    """
    data, where = _load(source, "ground truth")
    if not isinstance(data, Mapping):
        raise LTError(f"{where}: expected an object with images, categories and annotations, found {_kind(data)}.")
    images, cats, anns = (_rows(data, key, where) for key in ("images", "categories", "annotations"))
    image_ids = _sorted_ids(_column(images, "id", f"{where}, images"), f"{where}, images", (int, str))
    category_ids = _sorted_ids(_column(cats, "id", f"{where}, categories"), f"{where}, categories", (int,))
    by_id = sorted(cats, key=lambda c: c["id"])
    place = f"{where}, annotations"
    _check_unique([a["id"] for a in anns if isinstance(a, Mapping) and "id" in a], place)
    box = _numbers(_column(anns, "bbox", place), "bbox", place, 4)
    return GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        names=tuple(str(c.get("name", c["id"])) for c in by_id),
        image=_indices(_column(anns, "image_id", place), image_ids, "image_id", place),
        cls=_indices(_column(anns, "category_id", place), category_ids, "category_id", place),
        box=box,
        area=_areas(anns, box, place),
        crowd=_crowd(anns, place),
        frequency=_frequency(by_id, f"{where}, categories"),
    )


def read_detections(source: Source, gt: GroundTruth) -> Detections:
    """Read detections in COCO results form.

    Args:
        source: A list of dicts with image_id, category_id, bbox (x, y, width, height) and score, or the path of a
            JSON file with such a list. It may be empty.
        gt: The ground truth that they belong to.

    Returns:
        The arrays in file order; class -1 where the ground truth does not list the category.

    Raises:
        LTError: The file is missing or malformed, a key is missing, a score or box is not finite, or an image id is
            not in the ground truth.
    """
    data, where = _load(source, "detections")
    if isinstance(data, (Mapping, str)) or not isinstance(data, Sequence):
        raise LTError(f"{where}: expected a list of detections (COCO results), found {_kind(data)}.")
    known = {c: i for i, c in enumerate(gt.category_ids.tolist())}
    category = _column(data, "category_id", where)
    if not _all_types(category, Integral):
        _refuse(category, where, "category_id", "an integer", lambda v: _is_id(v, (int,)))
    return Detections(
        image=_indices(_column(data, "image_id", where), gt.image_ids, "image_id", where),
        cls=np.array([known.get(c, -1) for c in category], dtype=np.int64),
        box=_numbers(_column(data, "bbox", where), "bbox", where, 4),
        score=_numbers(_column(data, "score", where), "score", where),
    )


def _load(source: Source, role: str) -> tuple[Any, str]:
    """The object and what messages call it: the file's path, or its role."""
    if not isinstance(source, (str, os.PathLike)):
        return source, role
    path = Path(source)
    try:
        return json.loads(path.read_text(encoding="utf-8")), str(path)
    except FileNotFoundError:
        raise LTError(f"{path}: no such file; give the {role} as a COCO JSON file.") from None
    except json.JSONDecodeError as e:
        at = f"line {e.lineno} column {e.colno}"
        raise LTError(f"{path}: no valid JSON at {at} ({e.msg}). Is the file cut off? Write it again.") from None
    except (OSError, UnicodeDecodeError, RecursionError) as e:
        raise LTError(f"{path}: cannot be read as JSON ({e}).") from None


def _kind(value: Any) -> str:
    return type(value).__name__


def _rows(data: Mapping, key: str, where: str) -> Sequence:
    rows = data.get(key)
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        found = f"found {_kind(rows)}" if key in data else "it is missing"
        raise LTError(f"{where}: expected a list under '{key}', {found}.")
    return rows


def _column(rows: Sequence, key: str, where: str) -> list:
    """rows[i][key] for all i."""
    try:
        return [row[key] for row in rows]
    except (KeyError, TypeError, IndexError):
        i, row = next((i, r) for i, r in enumerate(rows) if not isinstance(r, Mapping) or key not in r)
        if not isinstance(row, Mapping):
            raise LTError(f"{where}[{i}]: expected an object, found {_kind(row)}.") from None
        raise LTError(f"{where}[{i}]: the key '{key}' is missing; every entry needs it.") from None


def _all_types(values: Iterable, kind: type) -> bool:
    """Whether all values are of this kind of number; True and False are none."""
    return all(issubclass(t, kind) and t is not bool for t in set(map(type, values)))


def _refuse(values: Sequence, where: str, key: str, wanted: str, good: Any) -> NoReturn:
    """Raise for the first value that is not good."""
    i, value = next((i, v) for i, v in enumerate(values) if not good(v))
    found = repr(value)
    found = found if len(found) < 80 else found[:77] + "..."
    raise LTError(f"{where}[{i}]: '{key}' is {found}; it must be {wanted}.")


def _is_number(value: Any) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_id(value: Any, kinds: tuple[type, ...]) -> bool:
    return (isinstance(value, Integral) and not isinstance(value, bool)) or (str in kinds and isinstance(value, str))


def _numbers(values: list, key: str, where: str, width: int = 0) -> np.ndarray:
    """A column of finite numbers, shape (n,), or of `width` numbers each, shape (n, width); float64."""
    if not width:
        flat = _flat(values, len(values))
        if flat is None:
            _refuse(values, where, key, "a finite number", _is_number)
        return flat
    sized = set(map(type, values)) <= ROWS and set(map(len, values)) <= {width}
    flat = _flat(list(chain.from_iterable(values)), width * len(values)) if sized else None
    if flat is None:
        _refuse(values, where, key, f"{width} finite numbers", lambda v: _is_row(v, width))
    return flat.reshape(-1, width)


def _flat(values: list, size: int) -> np.ndarray | None:
    """The numbers as float64, or None if one of them is not a finite number."""
    if not _all_types(values, Real):  # numpy would quietly parse "0.5" and count True as 1
        return None
    try:
        flat = np.fromiter(values, np.float64, count=size)
    except OverflowError:
        return None
    return flat if np.isfinite(flat).all() else None


def _is_row(value: Any, width: int) -> bool:
    return type(value) in ROWS and len(value) == width and all(map(_is_number, value))


def _sorted_ids(ids: list, where: str, kinds: tuple[type, ...]) -> np.ndarray:
    """Sorted unique ids, int64 or str."""
    wanted = "an integer or a string" if str in kinds else "an integer"
    if not all(_is_id(i, kinds) for i in ids):
        _refuse(ids, where, "id", wanted, lambda v: _is_id(v, kinds))
    if len({isinstance(i, str) for i in ids}) > 1:
        raise LTError(f"{where}: some ids are integers and some are strings; use one kind.")
    _check_unique(ids, where)
    try:
        return np.array(sorted(ids), dtype=str if ids and isinstance(ids[0], str) else np.int64)
    except OverflowError:
        raise LTError(f"{where}: an id does not fit into 64 bits; use smaller ids.") from None


def _check_unique(ids: list, where: str) -> None:
    try:
        if len(set(ids)) == len(ids):
            return
    except TypeError:
        raise LTError(f"{where}: an id is a list or an object; ids must be integers or strings.") from None
    seen: set = set()
    twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
    raise LTError(f"{where}: the id {twice!r} is used twice; ids must be unique.")


def _indices(values: list, ids: np.ndarray, key: str, where: str) -> np.ndarray:
    """Positions of the values in the sorted ids, int64."""
    position = {v: i for i, v in enumerate(ids.tolist())}
    try:
        return np.array(list(map(position.__getitem__, values)), dtype=np.int64)
    except (KeyError, TypeError):
        wanted = f"one of the {len(ids)} ids in the ground truth's list"
        _refuse(values, where, key, wanted, lambda v: _is_id(v, (int, str)) and v in position)


def _areas(anns: Sequence, box: np.ndarray, where: str) -> np.ndarray:
    """The area field, or width times height where it is missing; float64."""
    default = (box[:, 2] * box[:, 3]).tolist()
    return _numbers([a.get("area", d) for a, d in zip(anns, default, strict=True)], "area", where)


def _crowd(anns: Sequence, where: str) -> np.ndarray:
    values = [a.get("iscrowd", 0) for a in anns]
    if not all(isinstance(v, (int, np.bool_)) and v in (0, 1) for v in values):
        _refuse(values, where, "iscrowd", "0 or 1", lambda v: isinstance(v, (int, np.bool_)) and v in (0, 1))
    return np.array(values, dtype=bool)


def _frequency(cats: Sequence, where: str) -> tuple[str, ...] | None:
    """The letters r, c, f if the categories have them."""
    if not any("frequency" in c for c in cats):
        return None
    for c in cats:
        if c.get("frequency") not in list(LETTERS):
            found = repr(c.get("frequency"))
            raise LTError(f"{where}: category {c['id']} has frequency {found}; it must be r, c or f for all.")
    return tuple(c["frequency"] for c in cats)
