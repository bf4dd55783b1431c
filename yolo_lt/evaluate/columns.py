"""Checked columns: the rows of a JSON file as numpy arrays, every defect named with its place.

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

from yolo_lt.errors import LTError

ROWS = {list, tuple, np.ndarray}  # what may hold the numbers of a box
Source = Mapping | Sequence | str | os.PathLike


def load(source: Source, role: str) -> tuple[Any, str]:
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


def kind(value: Any) -> str:
    """The name of its type."""
    return type(value).__name__


def rows(data: Mapping, key: str, where: str) -> Sequence:
    """The list under a key."""
    found = data.get(key)
    if not isinstance(found, Sequence) or isinstance(found, str):
        instead = f"found {kind(found)}" if key in data else "it is missing"
        raise LTError(f"{where}: expected a list under '{key}', {instead}.")
    return found


def column(rows: Sequence, key: str, where: str) -> list:
    """rows[i][key] for all i."""
    try:
        return [row[key] for row in rows]
    except (KeyError, TypeError, IndexError):
        i, row = next((i, r) for i, r in enumerate(rows) if not isinstance(r, Mapping) or key not in r)
        if not isinstance(row, Mapping):
            raise LTError(f"{where}[{i}]: expected an object, found {kind(row)}.") from None
        raise LTError(f"{where}[{i}]: the key '{key}' is missing; every entry needs it.") from None


def all_types(values: Iterable, kind: type) -> bool:
    """Whether all values are of this kind of number; True and False are none."""
    return all(issubclass(t, kind) and t is not bool for t in set(map(type, values)))


def refuse(values: Sequence, where: str, key: str, wanted: str, good: Any) -> NoReturn:
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


def is_id(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether it is an integer or, where strings are among the kinds, a string."""
    return (isinstance(value, Integral) and not isinstance(value, bool)) or (str in kinds and isinstance(value, str))


def numbers(values: list, key: str, where: str, width: int = 0) -> np.ndarray:
    """A column of finite numbers, shape (n,), or of `width` numbers each, shape (n, width); float64."""
    if not width:
        flat = _flat(values, len(values))
        if flat is None:
            refuse(values, where, key, "a finite number", _is_number)
        return flat
    sized = set(map(type, values)) <= ROWS and set(map(len, values)) <= {width}
    flat = _flat(list(chain.from_iterable(values)), width * len(values)) if sized else None
    if flat is None:
        refuse(values, where, key, f"{width} finite numbers", lambda v: _is_row(v, width))
    return flat.reshape(-1, width)


def _flat(values: list, size: int) -> np.ndarray | None:
    """The numbers as float64, or None if one of them is not a finite number."""
    if not all_types(values, Real):  # numpy would quietly parse "0.5" and count True as 1
        return None
    try:
        flat = np.fromiter(values, np.float64, count=size)
    except OverflowError:
        return None
    return flat if np.isfinite(flat).all() else None


def _is_row(value: Any, width: int) -> bool:
    return type(value) in ROWS and len(value) == width and all(map(_is_number, value))


def sorted_ids(ids: list, where: str, kinds: tuple[type, ...]) -> np.ndarray:
    """Sorted unique ids, int64 or str."""
    wanted = "an integer or a string" if str in kinds else "an integer"
    if not all(is_id(i, kinds) for i in ids):
        refuse(ids, where, "id", wanted, lambda v: is_id(v, kinds))
    if len({isinstance(i, str) for i in ids}) > 1:
        raise LTError(f"{where}: some ids are integers and some are strings; use one kind.")
    check_unique(ids, where)
    try:
        return np.array(sorted(ids), dtype=str if ids and isinstance(ids[0], str) else np.int64)
    except OverflowError:
        raise LTError(f"{where}: an id does not fit into 64 bits; use smaller ids.") from None


def check_unique(ids: list, where: str) -> None:
    """Raise if an id is used twice."""
    try:
        if len(set(ids)) == len(ids):
            return
    except TypeError:
        raise LTError(f"{where}: an id is a list or an object; ids must be integers or strings.") from None
    seen: set = set()
    twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
    raise LTError(f"{where}: the id {twice!r} is used twice; ids must be unique.")


def indices(values: list, ids: np.ndarray, key: str, where: str) -> np.ndarray:
    """Positions of the values in the sorted ids, int64."""
    position = {v: i for i, v in enumerate(ids.tolist())}
    try:
        return np.array(list(map(position.__getitem__, values)), dtype=np.int64)
    except (KeyError, TypeError):
        wanted = f"one of the {len(ids)} ids in the ground truth's list"
        refuse(values, where, key, wanted, lambda v: is_id(v, (int, str)) and v in position)
