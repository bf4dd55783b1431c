"""Charts from one drawing function: a PNG file in light colours, or SVG inside an HTML page, in the page's colours."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from yolo_lt.files import replacing
from yolo_lt.report.names import printable

INK, MUTED, PAPER = "#1b1f24", "#6b7280", "#ffffff"
HEAD, MEDIUM, TAIL = "#0072B2", "#009E73", "#D55E00"  # Okabe and Ito's: told apart with every common colour vision
UNSEEN = "#6b727f"  # MUTED to the eye, but another colour to the page

# The page says what each is, so that a chart follows its light and dark theme
PALETTE = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    PAPER: "var(--paper)",
    HEAD: "var(--head)",
    MEDIUM: "var(--medium)",
    TAIL: "var(--tail)",
    UNSEEN: "var(--unseen)",
}
VARIABLES = {colour.lower(): variable for colour, variable in PALETTE.items()}  # as matplotlib writes colours

DPI = 150
LINE_OF_TITLE = 12  # characters per inch of a title
SHAPES = {"use", "path"}  # what a marker becomes in SVG
SVG = "http://www.w3.org/2000/svg"
STYLE_RC = {
    "font.size": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 2.6,  # shows a whole dash and dot
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 1.2,
    "text.parse_math": False,  # a class may be called `$a$`
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
}


class Look(NamedTuple):
    """How a bin is told apart, never by colour alone: markers, lines and bars differ as well."""

    colour: str
    marker: str
    line: Any = "-"
    hatch: str = ""
    width: float = 1.8


STYLE = {
    "all": Look(INK, "D", (0, (1, 1.2)), "", 2.4),
    "head": Look(HEAD, "o", "-", ""),
    "medium": Look(MEDIUM, "s", (0, (5, 1.8)), "////"),
    "tail": Look(TAIL, "^", (0, (6, 1.6, 1.2, 1.6)), "xxxx"),
    "unseen": Look(UNSEEN, "x"),
}

Tips = Mapping[str, Sequence[str]]  # tooltips in the order of the points, by the gid of the artist that draws them


class Chart(NamedTuple):
    """A figure that is not drawn yet.

    Attributes:
        name: Stem of its file, and prefix of its ids inside a page.
        title: One line that says what is drawn.
        alt: What it shows, in words and numbers.
        draw: Fills a matplotlib Figure; may return tooltips.
        size: Width and height in inches.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[Any], Tips | None]
    size: tuple[float, float] = (5.2, 3.5)


@contextmanager
def canvas(size: tuple[float, float], salt: str | None = None) -> Iterator[Any]:
    """An empty figure in this package's style, whatever style the user has set; ids in SVG follow from `salt`."""
    import matplotlib as mpl  # slow to load, and most commands draw nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(), warnings.catch_warnings():
        for message in ("Glyph .* missing from", "Matplotlib currently does not support"):  # a browser has the glyphs
            warnings.filterwarnings("ignore", message=message)
        mpl.rcdefaults()
        mpl.rcParams.update({**STYLE_RC, "svg.hashsalt": salt})
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


@contextmanager
def picture(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """A figure that is written whole to `path` at the end."""
    with canvas(size) as figure:
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=DPI, facecolor=PAPER)


def save_png(folder: Path, chart: Chart) -> Path:
    """Write a chart with its title to `folder`, under its name."""
    path = folder / f"{chart.name}.png"
    with picture(path, chart.size) as figure:
        chart.draw(figure)
        lines = textwrap.wrap(printable(chart.title), int(chart.size[0] * LINE_OF_TITLE), max_lines=3)
        figure.suptitle("\n".join(lines), x=0.015, ha="left", fontsize=11)
    return path


def svg(chart: Chart) -> str:
    """A chart as an <svg> element for a page, which has its title as text and says what its colours are.

    It has no size of its own but fills the width that it is given, and refers to nothing outside itself.
    """
    out = io.StringIO()
    with canvas(chart.size, salt=chart.name) as figure:  # without it ids are drawn by lot
        tips = chart.draw(figure)
        figure.patch.set_visible(False)
        figure.savefig(out, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(out.getvalue())
    _plain_names(root)
    _drop(root)
    for gid, titles in (tips or {}).items():
        _add_titles(root, gid, titles)
    for element in root.iter():
        _restyle(element)
    _share_styles(root)
    _rename_ids(root, chart.name)
    root.attrib = {
        "xmlns": SVG,
        "viewBox": root.attrib["viewBox"],
        "class": "chart",
        "role": "img",
        "aria-label": printable(chart.alt),
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _plain_names(root: Any) -> None:
    """Tags and attributes without namespaces; HTML knows <svg> and href by themselves."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        if element.tag != "text" and not (element.text or "").strip():
            element.text = None
        element.tail = None


def _drop(root: Any) -> None:
    """Remove metadata and the style sheet, whose `*` would be every element of the page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)


def _add_titles(root: Any, gid: str, titles: Sequence[str]) -> None:
    """Give the markers that the artist `gid` drew their tooltips, in order."""
    group = next(element for element in root.iter("g") if element.get("id") == gid)
    hidden = {id(shape) for defs in group.iter("defs") for shape in defs.iter()}
    shapes = [e for e in group.iter() if e.tag in SHAPES and id(e) not in hidden]
    for shape, title in zip(shapes, titles, strict=True):
        ElementTree.SubElement(shape, "title").text = printable(title)


def _restyle(element: Any) -> None:
    """Colours of the page, its font, and coordinates to a hundredth of a point."""
    style = dict(_declaration(part) for part in element.attrib.pop("style", "").split(";") if ":" in part)
    for key in ("fill", "stroke"):
        if key in element.attrib:
            style[key] = element.attrib.pop(key)
    if "font" in style:
        style = {**_font(style.pop("font")), **style}
    style.pop("font-family", None)
    if style:
        coloured = {k: re.sub("#[0-9a-f]{6}", _variable, v, flags=re.IGNORECASE) for k, v in style.items()}
        element.set("style", "; ".join(f"{k}: {v}" for k, v in coloured.items()))
    for key in ("d", "x", "y", "width", "height", "transform"):
        if key in element.attrib:
            element.set(key, re.sub(r"-?\d+\.\d{3,}", _short, " ".join(element.get(key).split())))


def _declaration(part: str) -> tuple[str, str]:
    key, _, value = part.partition(":")
    return key.strip(), value.strip()


def _font(shorthand: str) -> dict[str, str]:
    """What remains of `font: bold 10px 'DejaVu Sans'` in the page's font."""
    size, weight = re.search(r"[\d.]+px", shorthand), re.match("bold|[1-9]00", shorthand)
    return {**({"font-weight": weight[0]} if weight else {}), **({"font-size": size[0]} if size else {})}


def _variable(colour: re.Match) -> str:
    return VARIABLES.get(colour[0].lower(), colour[0])


def _short(number: re.Match) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _share_styles(root: Any) -> None:
    """Say once what all markers of a group look like: a thousand classes are a thousand markers."""
    for group in root.iter("g"):
        styles = {child.get("style") if child.tag == "use" else None for child in group}
        if len(group) > 1 and len(styles) == 1 and None not in styles and "style" not in group.attrib:
            group.set("style", styles.pop())
            for child in group:
                del child.attrib["style"]


def _rename_ids(root: Any, name: str) -> None:
    """Keep the ids that something refers to, under the chart's name: a page has many charts."""
    points = re.compile(r"(?<=url\(#)[^)]+|(?<=^#).+")
    used = {i for element in root.iter() for value in element.attrib.values() for i in points.findall(value)}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        element.attrib = {k: points.sub(lambda m: f"{name}-{m[0]}", v) for k, v in element.attrib.items()}
        if own in used:
            element.set("id", f"{name}-{own}")


def legend_below(figure: Any, handles: Sequence[Any] = ()) -> None:
    """A legend under the axes, where it covers nothing, in as many columns as there is room for."""
    shown = list(handles) or figure.axes[0].get_legend_handles_labels()[0]
    for columns in range(len(shown), 0, -1):
        legend = figure.legend(handles=shown, loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width < figure.bbox.width:
            break
        legend.remove()
