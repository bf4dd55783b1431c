"""Writing without loss: every output goes to a temporary name first and is renamed when it is whole."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolo_lt.errors import LTError

SLUG_BYTES = 120  # of the 255 that file systems allow a name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it if the block succeeds and removed if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_new(path: Path) -> Path:
    """The path of a folder that is to be made.

    Raises:
        LTError: There is something at it.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise LTError(f"out={path} is there already and is never overwritten: give another name, or remove it")
    return path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it if the block succeeds and removed if it fails.

    Raises:
        LTError: There is something at `path`, or the block raised an OSError, as when a disk is full.
    """
    check_new(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.rmdir()  # empty, as was seen above
        os.replace(temporary, path)
    except OSError as e:
        raise LTError(f"out={path}: {e.strerror or e}; nothing was written") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file whole or not at all."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def slug(text: str, length: int = 40) -> str:
    """Part of a file name, made from any text, for example the name of a class.

    Args:
        text: Letters and digits of any script and `_` stay; every run of anything else becomes one `-`.
        length: The most characters, at least 1; what needs more than 120 bytes is cut as well.

    Returns:
        The text without dots and separators of folders, never empty. On its own it may still be a name that Windows
        reserves, such as CON.
    """
    composed = unicodedata.normalize("NFC", text)  # a letter with an accent as one letter
    cut = re.sub(r"\W+", "-", composed).strip("-")[:length]
    whole = cut.encode()[:SLUG_BYTES].decode(errors="ignore")  # half a character is none
    return whole.strip("-") or "unnamed"[:length]


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[_cell(v) for v in row] for row in rows])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def rewind_csv(path: Path, epochs: int) -> None:
    """Keep a CSV's header and its rows up to an epoch (first column), as a resumed run writes the later ones again.

    A line that a killed process left unfinished is dropped. Without the file nothing happens.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f))
    kept = [r for r in rows[1:] if len(r) == len(rows[0]) and r[0].isdigit() and int(r[0]) <= epochs]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([*rows[:1], *kept])
    write_text(path, out.getvalue())
