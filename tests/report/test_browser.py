"""The pages in a real browser: they open, are small, and fetch and run nothing that is not theirs."""

import re
import socket
import time
from contextlib import contextmanager

import browser as tools
import pytest
from browser import (
    DESKTOP,
    FITS,
    IDS,
    NASTY,
    PHONE,
    ROW,
    SECTIONS,
    SMALL,
    header,
    in_order,
    resize,
    shown,
    sorted_by,
)

pytest_plugins = ["browser_pages"]  # no conftest: tests import from that of the folder above by this name
pytestmark = pytest.mark.slow

KINDS = ["report", "big", "two classes", "one class", "no bins", "nothing", "no detections", "comparison", "stats"]


# It opens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_opens_in_silence_and_asks_for_nothing(visit, files, pages, kind):
    page = visit(kind)
    assert page.noise.said == []
    assert page.noise.outside(files[kind]) == []
    assert page.noise.requests[0] == files[kind].as_uri()
    assert page.title() == pages[kind].title
    assert page.locator("h1").text_content() == pages[kind].title
    for size in (PHONE, SMALL, DESKTOP):
        resize(page, size)
        assert page.evaluate(FITS), f"the page scrolls sideways at {size}"
    _check_parts(page, pages[kind])


def _check_parts(page, told):
    """Every section and chart is there, and every link of the navigation leads to a section."""
    keys = [section.key for section in told.sections if section.filled]
    links = page.locator("nav a").evaluate_all("links => links.map(a => a.getAttribute('href'))")
    assert page.locator("section").evaluate_all("parts => parts.map(part => part.id)") == keys
    assert links == [f"#{key}" for key in keys]
    assert page.locator("nav a").all_text_contents() == [s.title for s in told.sections if s.filled]
    drawn = [(chart.title, re.sub(r"\s+", " ", chart.alt)) for chart in told.charts]
    shown = page.locator("figure:has(svg)").evaluate_all(
        "figures => figures.map(f => [f.querySelector('figcaption').textContent, f.querySelector('svg').ariaLabel])"
    )
    assert [(title, alt) for title, alt in shown] == drawn
    assert page.locator("figure svg[role=img]").count() == len(drawn)


def test_the_report_of_these_tests_lacks_nothing(pages, visit):
    assert [section.key for section in pages["report"].sections] == SECTIONS
    assert len(pages["report"].charts) == 7
    pictures = visit("report").locator("img").evaluate_all("images => images.map(i => [i.alt, i.naturalWidth])")
    assert len(pictures) >= 6
    assert all(alt and width > 50 for alt, width in pictures)
    assert any("<" in alt for alt, _ in pictures), "a class with a nasty name"


def test_a_link_of_the_navigation_jumps_to_its_section(visit):
    page = visit("report", PHONE)
    page.locator("nav a[href='#classes']").click()
    assert -2 <= page.locator("#classes").bounding_box()["y"] <= 60
    assert len(page.noise.requests) == 1, "the page was loaded again"


# Names that try to get out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["report", "comparison", "stats"])
def test_nothing_in_a_page_points_outside_of_it(visit, kind):
    found = visit(kind).evaluate(
        """() => [...document.querySelectorAll('*')].flatMap(e =>
          ['src', 'srcset', 'href', 'xlink:href', 'action', 'formaction', 'poster', 'data', 'background']
            .map(name => e.getAttribute(name)).filter(value => value !== null))"""
    )
    assert len(found) > 10
    assert [value for value in found if not value.startswith(("#", "data:image/jpeg;base64,"))] == []


@pytest.mark.parametrize("kind", ["report", "comparison", "stats"])
def test_names_are_shown_as_they_are_and_make_no_element(visit, kind):
    page = visit(kind)
    shown = page.locator(f"{ROW} th").all_text_contents()
    assert sorted(set(NASTY) - set(shown)) == []
    counts = {tag: page.locator(tag).count() for tag in ("script", "style", "title", "b", "i", "u")}
    assert counts == {"script": 1, "style": 1, "title": counts["title"], "b": 0, "i": 0, "u": 0}
    assert page.locator("head title").count() == 1
    assert page.locator("img[src=x], [onerror], [onload], [onclick]").count() == 0
    assert page.locator("main").is_visible()


def test_a_name_in_another_direction_leaves_the_row_in_order(visit):
    page = visit("report")
    row = page.locator(ROW, has_text="فئة نادرة")
    lefts = row.locator("th, td").evaluate_all("cells => cells.map(cell => cell.getBoundingClientRect().left)")
    assert lefts == sorted(lefts)


@contextmanager
def listening():
    """A port of this machine, and afterwards whether anybody connected."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.3)
        yield server


def _connected(server):
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("policy", [True, False], ids=["with its policy", "without"])
def test_the_policy_stops_what_gets_into_the_page(visit, files, tmp_path, policy):
    with listening() as server:
        port = server.getsockname()[1]
        more = f'<script>document.title = "ran"</script><img src="http://127.0.0.1:{port}/x" onerror="document.x = 1">'
        text = files["two classes"].read_text(encoding="utf-8").replace("</body>", f"{more}</body>")
        if not policy:
            text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        (tmp_path / "changed.html").write_text(text, encoding="utf-8")
        page = visit(tmp_path / "changed.html", until="domcontentloaded")
        assert _connected(server) is not policy
        assert (page.title() == "ran") is not policy
        assert page.locator("thead button").count(), "the page's own script must run"


# Size ----------------------------------------------------------------------------------------------------------------


def test_a_page_of_1203_classes_is_small_and_quick(visit, files, big):
    assert len(big["per_class"]) == 1203
    assert files["big"].stat().st_size < 3e6
    start = time.perf_counter()
    page = visit("big")
    assert page.locator(ROW).count() == 1203
    opened = time.perf_counter()
    header(page, "AP50").click()
    assert page.locator(ROW).evaluate_all(IDS) == in_order(big, "AP50", 1)
    done = time.perf_counter()
    assert opened - start < 5
    assert done - opened < 5


@pytest.mark.parametrize(("kind", "count"), [("two classes", 2), ("one class", 1)])
def test_few_classes_are_sorted_and_filtered_as_well(visit, kind, count):
    page = visit(kind)
    header(page, "AP50").click()
    header(page, "AP50").click()
    assert sorted_by(page) == [("AP50", "descending")]
    assert len(shown(page)) == count
    page.locator("[type=search]").fill("Sort 0001")
    assert shown(page) == ["Sort 0001"]


def test_where_nothing_was_evaluated_the_page_says_so(visit):
    page = visit("nothing")
    assert "there is nothing to measure" in page.locator("#summary").text_content()
    header(page, "AP50").click()
    assert page.locator(ROW).evaluate_all(IDS) == list(range(1, 13))


# Without a browser ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_browser_skips_but_not_in_ci(monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    with pytest.raises(outcome, match="Chromium"), tools.chromium():
        pass
