"""Open Images' CSV files block after block: two gigabytes need the memory of one block and of what is kept of it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from yolo_lt.errors import LTError

BLOCK = 1 << 24  # bytes read at a time: larger ones are no faster and need several times as much memory
LINE_END = b"\n"
HEADER = 1 << 16  # bytes in which the first line must end

ANY, TEXT, NUMBER, FLAG = "anything", "a text", "a number", "1, 0 or -1"  # what a column holds, as messages call it
FLAGS = (1, 0, -1)  # yes, no, unknown

PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7z",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_number = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Table:
    """A file's form.

    Attributes:
        path: The file.
        header: All its columns.
        wanted: What the columns that are read hold.
    """

    path: Path
    header: tuple[str, ...]
    wanted: dict[str, str]


def read_blocks(path: Path, required: Mapping[str, str], optional: Mapping[str, str]) -> Iterator[Any]:
    """Read some columns of a large CSV file, a block of lines at a time.

    Args:
        path: A CSV file with commas whose first line names the columns, in any order.
        required: Columns and what they hold: ANY text, TEXT that is not empty, a finite NUMBER, or a FLAG.
        optional: The same of columns that may be missing.

    Yields:
        Polars frames with these columns: texts as String, null where ANY is empty, the others as Float32.

    Raises:
        LTError: The file is missing, empty, packed, or not UTF-8; a column is missing or named twice; or a line has too
            few or too many fields or does not hold what it should. The first such line is named.
    """
    try:
        with path.open("rb") as f:
            table = _read_header(f, path, required, optional)
            line = 2
            while block := f.read(BLOCK) + f.readline():
                if block.strip():
                    yield _parse(block, line, table)
                line += block.count(LINE_END)
    except FileNotFoundError:
        raise LTError(f"{path}: no such file") from None
    except OSError as e:
        raise LTError(f"{path} cannot be read: {e.strerror or e}") from None


def _read_header(f: IO[bytes], path: Path, required: Mapping[str, str], optional: Mapping[str, str]) -> _Table:
    text = read_text(f.readline(HEADER), path, 1).removeprefix("\ufeff")
    header = tuple(name.strip().strip('"') for name in text.split(","))
    shown = f"{', '.join(header):.300}"
    if missing := [name for name in required if name not in header]:
        raise LTError(
            f"{path}: the first line must name the columns {', '.join(required)}; missing: {', '.join(missing)}; "
            f"found: {shown}"
        )
    wanted = dict(required) | {name: kind for name, kind in optional.items() if name in header}
    for name in wanted:
        if header.count(name) > 1:
            raise LTError(f"{path}: the first line names the column {name} twice; found: {shown}")
    return _Table(path, header, wanted)


def read_text(content: bytes, path: Path, line: int) -> str:
    """Bytes of a file, from the start of a line on, as text.

    Raises:
        LTError: They are empty (line 1), packed, or not UTF-8.
    """
    if line == 1 and not content.strip():
        raise LTError(f"{path} is empty; fetch it again")
    for start, name in PACKED.items():
        if line == 1 and content.startswith(start):
            raise LTError(f"{path} is packed ({name}); unpack it and give the CSV file")
    try:
        return content.decode()
    except UnicodeDecodeError as e:
        at = line + content.count(LINE_END, 0, e.start)
        raise LTError(f"{path}, line {at}: not UTF-8 text; save the file as UTF-8, or fetch it again") from None


def _parse(block: bytes, line: int, table: _Table) -> Any:
    """The wanted columns of whole lines, the first of which has the number `line`."""
    if not block.isascii():
        read_text(block, table.path, line)
    content = block
    if not _regular(block, len(table.header) - 1):  # polars fills up short lines and cuts long ones without a word
        _check_lines(block, line, table)
        content = LINE_END.join(row for row in block.splitlines() if row)
    try:
        frame = _frame(content, table)
    except pl.exceptions.PolarsError as e:
        _check_lines(block, line, table)
        why = str(e).partition("\n")[0]
        raise LTError(f"{_where(block, line, table)}: no CSV that can be read: {why}") from None
    if not all(_sound(frame[name], kind) for name, kind in table.wanted.items()):
        _check_lines(block, line, table)
        raise LTError(f"{_where(block, line, table)}: a value is empty or no finite number")
    return frame


def _where(block: bytes, line: int, table: _Table) -> str:
    return f"{table.path}, lines {line} to {line + block.rstrip().count(LINE_END)}"


def _regular(block: bytes, commas: int) -> bool:
    """Whether every line has so many commas."""
    content = np.frombuffer(block if block.endswith(LINE_END) else block + LINE_END, np.uint8)
    found, ends = (np.flatnonzero(content == ord(x)) for x in (b",", LINE_END))
    if len(found) != len(ends) * commas:
        return False
    return bool((found[commas - 1 :: commas] < ends).all() and (found[commas::commas] > ends[:-1]).all())


def _frame(content: bytes, table: _Table) -> Any:
    """The wanted columns; the others are not even parsed."""
    header = ",".join(name if name in table.wanted else f"_{i}" for i, name in enumerate(table.header))
    types = {name: pl.Float32 if kind in (NUMBER, FLAG) else pl.String for name, kind in table.wanted.items()}
    return pl.read_csv(
        f"{header}\n".encode() + content, columns=list(types), schema_overrides=types, infer_schema_length=0
    )


def _sound(column: Any, kind: str) -> bool:
    """Whether all cells hold what they should."""
    if kind == ANY or column.null_count():
        return kind == ANY
    if kind == TEXT:
        return True
    values = column.to_numpy()
    return bool((np.isfinite(values) if kind == NUMBER else np.isin(values, FLAGS)).all())


def _check_lines(block: bytes, line: int, table: _Table) -> None:
    """Name the first line that is not as it should be; slow, for blocks that have one or seem to.

    Raises:
        LTError: There is one.
    """
    reader = csv.reader(io.StringIO(block.decode(), newline=""))
    try:
        faults = (_fault(row, table) for row in reader if row)
        fault = next((fault for fault in faults if fault), "")
    except csv.Error as e:
        fault = str(e)
    if fault:
        raise LTError(f"{table.path}, line {line + reader.line_num - 1}: {fault}")


def _fault(row: list[str], table: _Table) -> str:
    """What is wrong with a line, or nothing."""
    if len(row) < len(table.header):
        return f"expected {len(table.header)} fields, found {len(row)}; if the file is cut off, fetch it again"
    if len(row) > len(table.header):
        return f"expected {len(table.header)} fields, found {len(row)}"
    for name, kind in table.wanted.items():
        if not _holds(text := row[table.header.index(name)], kind):
            return f"expected {kind} under {name}, found '{text:.60}'"
    return ""


def _holds(text: str, kind: str) -> bool:
    if kind in (ANY, TEXT):
        return kind == ANY or bool(text)
    if not _number.fullmatch(text) or not math.isfinite(float(text)):
        return False
    return kind == NUMBER or float(text) in FLAGS
