"""The pages in a real browser: without a script, on a phone, in the dark, on paper, and for everyone."""

import re

import browser as tools
import cv2
import numpy as np
import pytest
from browser import (
    DESKTOP,
    FITS,
    MARKS,
    PHONE,
    RGBA,
    ROW,
    SECTIONS,
    contrast,
    shown,
)

pytest_plugins = ["browser_pages"]  # no conftest: tests import from that of the folder above by this name
pytestmark = pytest.mark.slow

# Without a script, on a phone, in the dark, on paper ------------------------------------------------------------------


def test_without_a_script_everything_can_be_read(visit):
    page = visit("report", java_script_enabled=False)
    assert len(shown(page)) == 24
    assert not page.locator(".controls").is_visible()
    assert page.locator("thead button").count() == 0
    for key in SECTIONS:
        assert page.locator(f"#{key} h2").is_visible()
    assert page.locator("svg.chart").first.is_visible()


@pytest.mark.parametrize("kind", ["report", "comparison", "stats"])
def test_on_a_phone_what_is_wide_scrolls_within_its_own_frame(visit, kind):
    page = visit(kind, PHONE)
    outside = page.evaluate(
        """() => [...document.querySelectorAll('body *')]
          .filter(e => !e.closest('.scroll *, svg, .skip') && e.getBoundingClientRect().right > innerWidth + 1)
          .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    wide = page.locator(".scroll").evaluate_all(
        """all => all.filter(e => e.scrollWidth > e.clientWidth + 1)
          .map(e => [e.tabIndex, e.ariaLabel !== '', getComputedStyle(e).overflowX])"""
    )
    assert len(wide) >= 2
    assert set(map(tuple, wide)) == {(0, True, "auto")}
    widths = page.locator("th, td").evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().width)")
    assert max(widths) < 190, "a long name must not push the numbers away"


CHART_TEXT = """svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const around = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(t => t.textContent.trim()).map(t => {
    const box = t.getBoundingClientRect();
    return [t.textContent, parseFloat(getComputedStyle(t).fontSize) * scale,
            box.left - around.left, box.top - around.top, box.right - around.left, box.bottom - around.top,
            around.width, around.height];
  });
}"""


@pytest.mark.parametrize(
    ("kind", "size"), [("big", PHONE), *((k, s) for k in ("report", "comparison", "stats") for s in (PHONE, DESKTOP))]
)
def test_words_in_charts_are_large_enough_and_apart(visit, kind, size):
    page = visit(kind, size)
    for chart in page.locator("svg.chart").all():
        texts = chart.evaluate(CHART_TEXT)
        assert texts
        for words, height, left, top, right, bottom, width, whole_height in texts:
            assert height >= 7.5, words
            assert left >= -1, words
            assert right <= width + 1, words
            assert top >= -1, words
            assert bottom <= whole_height + 1, words
        for i, (one, _, *a) in enumerate(texts):
            for other, _, *b in texts[:i]:
                across = min(a[2], b[2]) - max(a[0], b[0])
                down = min(a[3], b[3]) - max(a[1], b[1])
                assert across < 1 or down < 3, f"{one!r} lies on {other!r}"


def colours_of(image):
    """The colours of a picture, the most frequent first, shape (n, 3), and how many pixels have each."""
    packed, counts = np.unique(image.astype(np.int64) @ [65536, 256, 1], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return (packed[order, None] >> [16, 8, 0]) & 255, counts[order]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_as_a_picture_has_its_theme_and_charts_with_marks(visit, tmp_path, scheme, size):
    page = visit("report", size, scheme)
    path = tmp_path / "page.png"
    page.screenshot(path=str(path), full_page=True)
    image = cv2.imread(str(path))
    assert image.shape[1] == size[0]
    assert image.shape[0] > 3000
    colours, _ = colours_of(image[::4, ::4])
    assert len(colours) > 200
    assert (colours[0].mean() > 240) if scheme == "light" else (colours[0].mean() < 40)
    charts = page.locator("svg.chart").all()
    assert len(charts) == 7
    for chart in charts:
        box = {k: round(v) for k, v in chart.bounding_box().items()}
        drawn = image[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]]
        colours, counts = colours_of(drawn)
        assert (colours[0].mean() > 220) if scheme == "light" else (colours[0].mean() < 50)
        visible = contrast(colours, colours[0]) >= 3
        assert counts[visible].sum() / counts.sum() > 0.01
        coloured = np.ptp(colours, axis=1) > 60
        assert counts[visible & coloured].sum() > 100, "marks that are neither text nor axes"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_in_the_pages_colours_and_stand_out(visit, scheme):
    page = visit("report", scheme=scheme)
    variables = page.evaluate(
        f"""names => {{ {RGBA} const style = getComputedStyle(document.documentElement);
          return Object.fromEntries(names.map(name => [name, rgba(style.getPropertyValue(name)).slice(0, 3)])); }}""",
        [*MARKS, "--paper", "--soft"],
    )
    for name in MARKS:
        assert contrast(variables[name], variables["--paper"]) >= 3, name
        assert contrast(variables[name], variables["--soft"]) >= 3, name
    painted, words = page.evaluate(
        f"""() => {{ {RGBA}
          const seen = (elements, keys) => [...new Set([...elements].flatMap(e => {{
            const style = getComputedStyle(e);
            return keys.map(key => style[key]).filter(c => c !== 'none');
          }}))].map(rgba).filter(c => c[3]).map(c => c.slice(0, 3));
          const all = tags => document.querySelectorAll(tags.map(tag => `svg.chart ${{tag}}:not(defs *)`).join());
          return [seen(all(['path', 'use', 'rect']), ['fill', 'stroke']), seen(all(['text']), ['fill'])]; }}"""
    )
    assert len(painted) >= 4
    assert {tuple(c) for c in painted} <= {tuple(c) for c in variables.values()}
    assert words
    assert all(contrast(colour, variables["--paper"]) >= 4.5 for colour in words)


TEXT_COLOURS = f"""() => {{ {RGBA}
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] / 255 + below[i] * (1 - top[3] / 255));
  const ground = e => {{
    const layers = [];
    for (let at = e; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  }};
  const found = new Map();
  for (const e of document.querySelectorAll('body *:not(svg *, script)')) {{
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const pair = [rgba(getComputedStyle(e).color).slice(0, 3), ground(e)];
    found.set(JSON.stringify(pair), [...pair, e.outerHTML.slice(0, 90)]);
  }}
  return [...found.values()];
}}"""


@pytest.mark.parametrize("kind", ["report", "comparison", "stats"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(visit, kind, scheme):
    found = visit(kind, scheme=scheme).evaluate(TEXT_COLOURS)
    assert len(found) >= 4
    marks = [text for colour, ground, text in found if 'class="mark' in text and contrast(colour, ground) < 3]
    words = [text for colour, ground, text in found if 'class="mark' not in text and contrast(colour, ground) < 4.5]
    assert (marks, words) == ([], [])


AXE = [
    *(("report", size, scheme) for size in (PHONE, DESKTOP) for scheme in ("light", "dark")),
    *(("comparison", PHONE, "dark"), ("stats", DESKTOP, "light")),
    *((kind, DESKTOP, "light") for kind in ("one class", "nothing")),
]


@pytest.mark.parametrize(("kind", "size", "scheme"), AXE)
def test_axe_finds_nothing(visit, kind, size, scheme):
    page = visit(kind, size, scheme)
    page.evaluate(tools.axe_script())
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    found = [(v["id"], v["help"], [node["html"][:120] for node in v["nodes"]][:3]) for v in result["violations"]]
    assert found == []
    passed = {rule["id"] for rule in result["passes"]}
    least = {"color-contrast", "label", "region", "heading-order", "svg-img-alt", "document-title", "html-has-lang"}
    assert least <= passed
    assert kind in ("one class", "nothing") or "scrollable-region-focusable" in passed
    assert kind != "report" or "image-alt" in passed


@pytest.mark.parametrize("kind", ["report", "comparison", "stats"])
def test_paper_is_white_and_nothing_on_it_is_cut(visit, kind):
    page = visit(kind, (690, 400), "dark")
    page.emulate_media(media="print", color_scheme="dark")
    ground = page.evaluate(f"(() => {{ {RGBA} return rgba(getComputedStyle(document.body).backgroundColor); }})()")
    assert ground == [255, 255, 255, 255]
    for part in ("nav", ".controls label", ".skip"):
        assert not page.locator(part).first.is_visible()
    sizes = "all => all.map(e => [e.scrollHeight - e.clientHeight, e.scrollWidth - e.clientWidth])"
    for down, across in page.locator(".scroll").evaluate_all(sizes):
        assert down <= 1
        assert across <= 1
    assert page.evaluate(FITS)
    assert page.locator(ROW).last.is_visible()
    headers = page.locator("thead button").evaluate_all("all => all.map(b => getComputedStyle(b).display)")
    assert set(headers) == {"contents"}, "Chromium repeats no buttons at the head of the next sheet"


@pytest.mark.parametrize(("kind", "least"), [("report", 4), ("comparison", 5), ("stats", 2)])
def test_a_page_prints_on_several_sheets(visit, kind, least):
    pdf = visit(kind, scheme="dark").pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert least <= len(re.findall(rb"/Type\s*/Page\b", pdf)) < 20
