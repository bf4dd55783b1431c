"""What a report is made of, and its two plain dresses: text for a terminal, and Markdown. `html.py` is the third."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from yolo_lt.report.drawing import Chart
from yolo_lt.report.names import printable

_LIST = re.compile(r"^(\d+)([.)])(?=\s|$)")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$&]|^[#+=-])")


class Table(NamedTuple):
    """Rows under a header.

    Attributes:
        header: Names of the columns.
        rows: Text is shown on the left, numbers on the right, None as '-'.
        head: What the table says, above it.
        note: Below it.
        shaded: The cells between the second column and the end are shares of it: HTML shades them.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    head: str = ""
    note: str = ""
    shaded: bool = False


class ClassTable(NamedTuple):
    """One row per class, to be sorted and filtered; the columns `name` and `bin` must be among the header's."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Tile(NamedTuple):
    """A number to see first: of a bin, with what it rests on and how it differs from a baseline, in words."""

    bin: str
    value: str
    interval: str
    more: Sequence[str]


class Picture(NamedTuple):
    """A picture file, what can be seen on it, and in a word what became of the object."""

    file: Path
    caption: str
    outcome: str


class Gallery(NamedTuple):
    """Pictures of one class."""

    name: str
    bin: str | None
    text: str
    pictures: Sequence[Picture]


class Facts(NamedTuple):
    """Names and values, and a command line to be copied."""

    rows: Sequence[tuple[str, str]]
    command: str = ""


Block = str | Table | ClassTable | Chart | Tile | Gallery | Facts


class Section(NamedTuple):
    """A part of a page under a title; of several runs, each has a column of its own below what concerns all."""

    key: str
    title: str
    blocks: Sequence[Block]
    columns: Sequence[tuple[str, Sequence[Block]]] = ()

    @property
    def filled(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.blocks) or any(blocks for _, blocks in self.columns)


def show(table: Table) -> str:
    """A table for the terminal: columns aligned, between its head and its note."""
    parts = (printable(table.head), aligned(table.header, table.rows), printable(table.note))
    return "\n".join(part for part in parts if part)


def aligned(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under a header, columns aligned: text left, numbers right; None is shown as '-'."""
    cells = [[printable(h) for h in header], *([printable(cell_text(v)) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    left = [_is_text(rows, i) for i in range(len(header))]
    lines = [
        "  ".join(c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(row, widths, left, strict=True))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def _is_text(rows: Sequence[Sequence[Any]], column: int) -> bool:
    return all(isinstance(row[column], str) for row in rows)


def cell_text(value: Any) -> str:
    """A cell as it is shown everywhere."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def with_interval(value: float | None, interval: Sequence[float] | None, sign: str = "") -> str:
    """`0.123 [0.100, 0.150]`; with sign="+" signed, for differences; None is shown as '-'."""
    if value is None:
        return "-"
    return f"{value:{sign}.3f}" + (f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]" if interval else "")


def markdown(title: str, sections: Iterable[Section], folder: Path, charts: bool) -> str:
    """A page as Markdown.

    Args:
        title: Its heading.
        sections: Those without content are left out.
        folder: Where it will lie: links are relative to it.
        charts: Whether the charts are picture files in it.
    """
    parts = [f"# {escaped(title)}"]
    for section in sections:
        if section.filled:
            parts += [f"## {section.title}", *(_in_markdown(b, folder, charts) for b in section.blocks)]
            for label, blocks in section.columns:
                parts += [f"### {escaped(label)}", *(_in_markdown(b, folder, charts) for b in blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _in_markdown(block: Block, folder: Path, charts: bool) -> str:
    if isinstance(block, str):
        return escaped(block)
    if isinstance(block, Chart):
        return _picture(block.alt, f"{block.name}.png", block.title) if charts else ""
    if isinstance(block, Tile):
        return f"- **{block.bin}** {escaped('; '.join([f'{block.value} {block.interval}'.strip(), *block.more]))}"
    if isinstance(block, Gallery):
        shown = [_picture(p.caption, _relative(p.file, folder), p.caption) for p in block.pictures]
        return "\n\n".join([f"**{escaped(block.name)}**: {escaped(block.text)}", *shown])
    if isinstance(block, Facts):
        facts = "\n".join(f"- {escaped(name)}: {escaped(value)}" for name, value in block.rows)
        return f"{facts}\n\n{_code(block.command)}" if block.command else facts
    parts = (escaped(getattr(block, "head", "")), _pipes(block), escaped(getattr(block, "note", "")))
    return "\n\n".join(part for part in parts if part)


def _relative(file: Path, folder: Path) -> str:
    """The way from a folder to a file; where there is none, to another drive, the file's whole path."""
    try:
        return os.path.relpath(file, folder).replace(os.sep, "/")
    except ValueError:
        return file.resolve().as_posix()


def _picture(alt: str, file: str, caption: str) -> str:
    return f"![{escaped(alt)}](<{quote(os.fsencode(file))}>)\n\n{escaped(caption)}"


def _code(command: str) -> str:
    """A command, fenced by more backticks than it holds."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
    return f"{fence}bash\n{printable(command)}\n{fence}"


def _pipes(table: Table | ClassTable) -> str:
    marks = ["---" if _is_text(table.rows, i) else "---:" for i in range(len(table.header))]
    rows = [table.header, *([cell_text(v) for v in row] for row in table.rows)]
    lines = ["| " + " | ".join(escaped(c) for c in row) + " |" for row in rows]
    return "\n".join([lines[0], f"| {' | '.join(marks)} |", *lines[1:]])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _LIST.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", printable(text)))
