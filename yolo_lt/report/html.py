"""A page as one HTML file that needs nothing else: styles, script, charts and pictures are in it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from yolo_lt import __version__
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.report.blocks import Block, ClassTable, cell_text
from yolo_lt.report.drawing import svg
from yolo_lt.report.names import markup
from yolo_lt.report.page import Page

_INTERVAL = re.compile(r"\[([+-]?[\d.]+), ([+-]?[\d.]+)\]")
MARKS = {"head": "●", "medium": "■", "tail": "▲", "unseen": "✕"}  # those of the charts


def html(page: Page) -> str:
    """A page as HTML.

    Everything that comes from outside (names, paths, messages) is escaped, and should some of it get through, the
    page's own policy lets no script run but the page's, and nothing be fetched.
    """
    style, script = (_text(name) for name in ("page.css", "page.js"))
    template = _environment().get_template("page.html")
    sections = [section for section in page.sections if section.filled]
    text = template.render(
        title=page.title,
        sections=sections,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(script),
        version=__version__,
    )
    return markup(text).lstrip()


def _text(name: str) -> str:
    return files("yolo_lt.report").joinpath("templates", name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """What a browser may do with the page: show pictures that are in it, and run the one script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("yolo_lt.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(groups=groups, cell=cell, svg=_svg, picture=picture, bars=bars, bins=bins)
    environment.filters.update(prose=prose, share=share)
    environment.tests.update(numeric=numeric)
    return environment


def groups(blocks: Iterable[Block]) -> list[tuple[str, list[Block]]]:
    """Neighbours of one kind, which stand side by side: the kind in lower case, and the blocks."""
    return [(kind, list(same)) for kind, same in groupby(blocks, key=lambda block: type(block).__name__.lower())]


def cell(value: Any, is_bin: bool = False) -> Markup:
    """A cell; bins with the mark that they have in the charts, intervals in small."""
    text = cell_text(value)
    if is_bin and text in MARKS:
        marked = '<span class="bin"><span class="mark {0}" aria-hidden="true">{1}</span> {0}</span>'
        return Markup(marked).format(text, MARKS[text])
    number, bracket, interval = text.partition(" [")
    if isinstance(value, str) and bracket and number.lstrip("+-").replace(".", "", 1).isdigit():
        return Markup("{} <small>[{}</small>").format(number, interval)
    return Markup("<bdi>{}</bdi>").format(text) if isinstance(value, str) else Markup("{}").format(text)


def prose(text: str) -> str:
    """A sentence whose intervals no line break parts."""
    return _INTERVAL.sub("[\\1,\N{NO-BREAK SPACE}\\2]", text)


def numeric(rows: Sequence[Sequence[Any]], column: int) -> bool:
    """Whether a column holds numbers alone, with intervals or without, or nothing."""
    return all(not isinstance(v, str) or v == "-" or " [" in v for v in (row[column] for row in rows))


def share(row: Sequence[Any], column: int) -> float:
    """A cell's share of the second cell of its row."""
    return row[column] / row[1] if row[1] else 0.0


def bars(header: str, value: Any) -> Markup:
    """The style by which a cell with an AP shows a bar."""
    is_ap = header.startswith("AP") and isinstance(value, float) and 0 <= value <= 1
    return Markup(' class="num bar" style="--v:{:.3f}"').format(value) if is_ap else Markup(' class="num"')


def bins(table: ClassTable) -> list[str]:
    """The bins that occur in a table of classes, head first."""
    column = list(table.header).index("bin")
    return [name for name in (*BIN_NAMES, "unseen") if any(row[column] == name for row in table.rows)]


def _svg(chart: Any) -> Markup:
    return Markup(svg(chart))


def picture(path: Path) -> str:
    """A JPEG as an address that holds the picture itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
