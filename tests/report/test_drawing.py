import re
import warnings
from itertools import combinations
from xml.etree import ElementTree

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from yolo_lt.report.drawing import (
    INK,
    PALETTE,
    PAPER,
    STYLE,
    Chart,
    canvas,
    legend_below,
    picture,
    save_png,
    svg,
)
from yolo_lt.report.names import printable

NASTY = ["<script>alert(1)</script>", "a & b \"c\" 'd'", "$a$ and b", "汉字", "\x1b[31mred\x00\ud800", "]]> <!-- -->"]
SVG = "{http://www.w3.org/2000/svg}"


def two_bins(figure):
    """Points of two bins, a bar with a hatch, a clipped line, words in a legend and on an axis."""
    axes = figure.subplots()
    for name, x in (("head", [1, 2, 3]), ("tail", [4, 5, 6])):
        look = STYLE[name]
        axes.plot(x, x[::-1], look.marker, color=look.colour, mec=PAPER, label=name, gid=f"points-{name}")
    axes.barh([1], [2], color=STYLE["medium"].colour, hatch=STYLE["medium"].hatch, ec=PAPER)
    axes.plot([0, 10], [0, 10], color=INK, ls=STYLE["all"].line)
    axes.grid(True)
    axes.set(xlim=(0, 7), ylim=(0, 7), xlabel=printable(NASTY[2]), ylabel=printable(NASTY[3]))
    legend_below(figure)
    return {"points-head": NASTY[:3], "points-tail": NASTY[3:]}


def chart(name="one", title="A title", draw=two_bins):
    return Chart(name, title, 'Two bins & <three> "points" each.', draw)


def luminance(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("colour", [c for c in PALETTE if c != PAPER])
def test_every_colour_stands_out_from_white_paper(colour):
    assert luminance(PAPER) == pytest.approx(1)
    assert 1.05 / (luminance(colour) + 0.05) >= 3


def test_every_colour_has_a_variable_of_its_own():
    assert len({c.lower() for c in PALETTE}) == len(PALETTE)
    assert len(set(PALETTE.values())) == len(PALETTE)
    assert {look.colour for look in STYLE.values()} <= set(PALETTE)


def test_no_bin_is_told_apart_by_colour_alone():
    assert len({look.marker for look in STYLE.values()}) == len(STYLE)
    rows = [STYLE[name] for name in ("all", "head", "medium", "tail")]
    assert len({(str(look.line), look.width) for look in rows}) == 4
    assert len({look.hatch for look in rows[1:]}) == 3
    for one, other in combinations(rows, 2):
        assert one.line != other.line


def test_the_svg_is_one_element_without_a_size_that_says_what_it_shows():
    text = svg(chart())
    root = ElementTree.fromstring(text)
    assert text.startswith("<svg ")
    assert root.tag == f"{SVG}svg"
    assert set(root.attrib) == {"viewBox", "class", "role", "aria-label", "style"}
    assert root.get("viewBox") == "0 0 374.4 252"
    assert (root.get("class"), root.get("role")) == ("chart", "img")
    assert root.get("aria-label") == 'Two bins & <three> "points" each.'
    assert 'aria-label="Two bins &amp; &lt;three&gt; &quot;points&quot; each."' in text


def test_the_svg_refers_to_nothing_outside_and_brings_no_style_or_script():
    text = svg(chart())
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(text).iter()}
    assert tags <= {"svg", "g", "defs", "path", "use", "text", "title", "clipPath", "pattern", "rect"}
    assert re.findall("https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<[?!]|\bon\w+=|xlink|font-family|DejaVu|@import|url\((?!#one-)", text)


def test_the_colours_of_the_svg_are_the_pages():
    text = svg(chart())
    assert not re.search("#[0-9a-fA-F]{3,8}[^0-9a-zA-Z-]", text)
    assert not re.search(r"rgba?\(", text)
    for variable in ("ink", "paper", "head", "tail", "medium"):
        assert f"var(--{variable})" in text
    assert set(re.findall(r"var\([^)]*\)", text)) <= set(PALETTE.values())
    assert 'fill="' not in text  # an attribute gives way to any style of the page


def test_an_svg_has_no_paper_of_its_own():
    first = next(e for e in ElementTree.fromstring(svg(chart())).iter() if "paper" in e.get("style", ""))
    assert first.tag in (f"{SVG}use", f"{SVG}path", f"{SVG}g")
    assert "374.4" not in first.get("d", "")


def test_ids_are_the_charts_own_and_all_are_referred_to():
    found = []
    for name in ("one", "two"):
        text = svg(chart(name))
        ids = re.findall(r'\bid="([^"]*)"', text)
        assert ids
        assert all(i.startswith(f"{name}-") for i in ids)
        assert set(ids) == set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text))
        found += ids
    assert len(set(found)) == len(found)


def test_text_is_text_and_keeps_its_size():
    root = ElementTree.fromstring(svg(chart()))
    texts = {"".join(e.itertext()): e.get("style") for e in root.iter(f"{SVG}text")}
    assert {"$a$ and b", "汉字", "head", "tail", "0", "7"} <= set(texts)
    assert all(re.search(r"font-size: (9|10)px", style) for style in texts.values())
    assert "A title" not in texts  # the page has it


def test_every_point_has_its_tooltip_and_markup_in_it_stays_text():
    text = svg(chart())
    points = [e for e in ElementTree.fromstring(text).iter(f"{SVG}use") if e.find(f"{SVG}title") is not None]
    assert [e.find(f"{SVG}title").text for e in points] == [printable(n) for n in NASTY]
    assert [e.find(f"{SVG}title").text for e in points][:4] == NASTY[:4]
    x = [float(e.get("x")) for e in points]
    assert x == sorted(x)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_tooltip_too_few_is_no_silent_mistake():
    def draw(figure):
        return {"points-head": two_bins(figure)["points-head"][:2]}

    with pytest.raises(ValueError, match="zip"):
        svg(chart(draw=draw))


def test_the_same_chart_is_the_same_bytes(tmp_path):
    assert svg(chart()) == svg(chart())
    one, two = (save_png(tmp_path / str(i), chart()).read_bytes() for i in range(2))
    assert one == two


def test_a_style_of_the_user_changes_nothing_and_stays(tmp_path):
    plain, before = svg(chart()), save_png(tmp_path / "plain", chart()).read_bytes()
    with mpl.rc_context({"axes.facecolor": "#123456", "text.color": "red", "font.size": 30, "lines.linewidth": 9}):
        theirs = dict(mpl.rcParams)
        assert svg(chart()) == plain
        assert save_png(tmp_path / "theirs", chart()).read_bytes() == before
        assert dict(mpl.rcParams) == theirs


def test_the_png_has_white_paper_and_a_title(tmp_path):
    path = save_png(tmp_path, chart())
    assert path == tmp_path / "one.png"
    assert [p.name for p in tmp_path.iterdir()] == ["one.png"]
    image = cv2.imread(str(path))
    assert image.shape == (525, 780, 3)
    assert (image[:2] == 255).all()
    untitled = cv2.imread(str(save_png(tmp_path, chart("two", title=""))))
    assert [bool((i[:30, 10:30] < 128).any()) for i in (image, untitled)] == [True, False]


def test_a_long_title_is_wrapped_into_the_picture(tmp_path):
    image = cv2.imread(str(save_png(tmp_path, chart(title="long words of a title " * 30))))
    assert (image[:, -4:] == 255).all()
    assert (image[:25, :700] < 128).any()


def test_glyphs_that_the_font_lacks_cause_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_png(tmp_path, chart(title="汉字 संयुक्त"))
        svg(chart())


def test_a_picture_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), picture(tmp_path / "a.png", (3, 2)):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("labels", "rows"),
    [(["a"], 1), (["ab"] * 5, 1), (["a label of some length"] * 4, 2), (["x" * 54, "y", "z"], 3), (["x" * 54, "y"], 2)],
)
def test_a_legend_has_as_many_columns_as_fit(labels, rows):
    with canvas((5.2, 3.5)) as figure:
        axes = figure.subplots()
        for label in labels:
            axes.plot([0, 1], [0, 1], label=label)
        legend_below(figure)
        figure.canvas.draw()
        box, width = figure.legends[0].get_window_extent(), figure.bbox.width
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y1 <= axes.get_tightbbox().y0
        assert len(figure.legends) == 1
        assert len({round(t.get_window_extent().y0) for t in figure.legends[0].get_texts()}) == rows


def test_a_figure_without_labels_has_no_legend():
    with canvas((5.2, 3.5)) as figure:
        figure.subplots().plot([1, 2])
        legend_below(figure)
        assert not figure.legends
