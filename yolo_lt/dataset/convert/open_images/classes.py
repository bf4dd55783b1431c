"""Open Images' class descriptions."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from yolo_lt.dataset.convert.open_images.blocks import read_text
from yolo_lt.dataset.convert.source import Categories
from yolo_lt.errors import LTError


def read_classes(path: Path) -> Categories:
    """Read a file of class descriptions: a label such as /m/01yrx and a name per line, with or without a header.

    Classes get the ids 1 to C in the order of the file. Names must tell classes apart; where several share one, as two
    Mouse do, each gets its label behind the name: "Mouse (/m/020lf)". Where the name is empty, the label stands for it.
    A third column, an id in some files of the Challenge, is not needed.

    Args:
        path: class-descriptions-boxable.csv, or a file of its form.

    Returns:
        The classes, C of them, with `labels`.

    Raises:
        LTError: The file is missing, not of this form, or gives a label twice.
    """
    try:
        text = read_text(path.read_bytes(), path, 1).removeprefix("\ufeff")
    except FileNotFoundError:
        raise LTError(f"{path}: no such file") from None
    except OSError as e:
        raise LTError(f"{path} cannot be read: {e.strerror}") from None
    names: dict[str, str] = {}
    for line, cells in _lines(text, path):
        if line == 1 and not cells[0].startswith("/"):
            continue  # a header: every label starts with a slash
        _check_class(cells, names, f"{path}, line {line}")
        names[cells[0]] = cells[1] or cells[0]
    if not names:
        raise LTError(f"{path}: no classes; expected lines such as /m/01yrx,Cat")
    return Categories(_distinct_names(names, path), tuple(range(1, len(names) + 1)), labels=tuple(names))


def _lines(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that has any."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as e:
        raise LTError(f"{path}, line {reader.line_num}: no CSV that can be read: {e}") from None


def _check_class(cells: list[str], known: dict[str, str], where: str) -> None:
    plain = len(cells) == 2 or (len(cells) == 3 and cells[2].isdecimal())
    if not plain or not cells[0].startswith("/"):
        shown = f"{','.join(cells):.60}"
        raise LTError(f"{where}: expected a label and a name, such as /m/01yrx,Cat, found '{shown}'; quote commas")
    if cells[0] in known:
        raise LTError(f"{where}: the label {cells[0]} is listed twice, as '{known[cells[0]]}' and '{cells[1]}'")


def _distinct_names(name_of: dict[str, str], path: Path) -> tuple[str, ...]:
    repeated = Counter(name_of.values())
    names = tuple(name if repeated[name] == 1 else f"{name} ({label})" for label, name in name_of.items())
    if len(set(names)) != len(names):
        raise LTError(f"{path}: two classes are called '{Counter(names).most_common(1)[0][0]}'; rename one")
    return names
