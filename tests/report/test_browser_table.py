"""The table of classes in a real browser: it sorts and filters, by mouse and by keyboard."""

import pytest
from browser import (
    IDS,
    ROW,
    header,
    in_order,
    shown,
    sorted_by,
)

pytest_plugins = ["browser_pages"]  # no conftest: tests import from that of the folder above by this name
pytestmark = pytest.mark.slow

# It sorts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "column", "key"), [("big", "AP50", "AP50"), ("report", "n gt", "n_gt"), ("report", "id", "id")]
)
def test_a_click_sorts_by_numbers_and_another_turns_it_round(visit, reports, kind, column, key):
    page, report = visit(kind), reports[kind]
    assert sorted_by(page) == []
    assert page.locator(ROW).evaluate_all(IDS) == [c["id"] for c in report["per_class"]]
    for sign, said in ((1, "ascending"), (-1, "descending"), (1, "ascending")):
        header(page, column).click()
        assert page.locator(ROW).evaluate_all(IDS) == in_order(report, key, sign)
        assert sorted_by(page) == [(column, said)]


def test_classes_without_a_number_and_ties_are_among_those_that_are_sorted(big):
    values = [c["AP50"] for c in big["per_class"]]
    assert values.count(None) > 20
    assert len(set(values)) < len(values) - 100


def test_sorting_by_another_column_starts_anew(visit, reports):
    page = visit("report")
    for column in ("AP50", "AP50", "n gt"):
        header(page, column).click()
    assert sorted_by(page) == [("n gt", "ascending")]
    assert page.locator(ROW).evaluate_all(IDS) == in_order(reports["report"], "n_gt", 1)


def test_names_are_sorted_as_words(visit):
    page = visit("report")
    original = page.locator(f"{ROW} th").all_text_contents()
    header(page, "name").click()
    names = page.locator(f"{ROW} th").all_text_contents()
    assert sorted(names) == sorted(original)
    assert names != original
    ordered = "names => names.slice(1).every((name, i) => new Intl.Collator().compare(names[i], name) <= 0)"
    assert page.evaluate(ordered, names)
    assert [n for n in names if n.startswith("Sort")] == sorted(n for n in names if n.startswith("Sort"))
    header(page, "name").click()
    assert page.locator(f"{ROW} th").all_text_contents() == names[::-1]


@pytest.mark.parametrize("kind", ["report", "stats"])
def test_bins_are_sorted_from_head_to_tail(visit, kind):
    page = visit(kind)
    for turn in (1, -1):
        header(page, "bin").click()
        bins = page.locator(ROW).evaluate_all("rows => rows.map(row => row.dataset.bin)")
        known = ["head", "medium", "tail", "unseen"][: len(set(bins))]
        assert list(dict.fromkeys(bins)) == known[::turn]
        assert bins == sorted(bins, key=known[::turn].index)


def test_the_keyboard_reaches_and_sorts(visit, reports):
    page = visit("report")
    page.locator("[type=search]").focus()
    passed = []
    while page.evaluate("document.activeElement.textContent") != "AP50":
        page.keyboard.press("Tab")
        passed.append(page.evaluate("[document.activeElement.tagName, document.activeElement.type]"))
        assert len(passed) < 15
    assert passed[:4] == [["INPUT", "checkbox"]] * 3 + [["DIV", None]], "the scrolled table can be reached"
    assert passed[4:] == [["BUTTON", "button"]] * 8
    outline = "[getComputedStyle(document.activeElement).outlineStyle, document.activeElement.textContent]"
    for key, sign, said in (("Enter", 1, "ascending"), ("Space", -1, "descending")):
        page.keyboard.press(key)
        assert sorted_by(page) == [("AP50", said)]
        assert page.locator(ROW).evaluate_all(IDS) == in_order(reports["report"], "AP50", sign)
        assert page.evaluate(outline) == ["solid", "AP50"], "the focus must stay, and be seen"


def test_the_first_stop_of_the_keyboard_skips_the_navigation(visit):
    page = visit("report")
    page.keyboard.press("Tab")
    box = page.locator(".skip").bounding_box()
    assert page.evaluate("document.activeElement.className") == "skip"
    assert box["x"] >= 0
    page.keyboard.press("Enter")
    assert page.url.endswith("#summary")


# It filters ----------------------------------------------------------------------------------------------------------


PARTS = ["sort 00", "SORT 110", "類", "فئة", "<SCRIPT>", "q\" '", "  sort 0100 ", ".*", "\\"]


def test_a_part_of_a_name_shows_the_classes_that_have_it(visit, big):
    page, names = visit("big"), [c["name"] for c in big["per_class"]]
    for text in PARTS:
        page.locator("[type=search]").fill(text)
        found = [name for name in names if text.strip().lower() in name.lower()]
        assert shown(page) == found
        assert page.locator("output").text_content() == f"{len(found)} of 1203 classes"
    page.locator("[type=search]").fill("12")
    found = [c["name"] for c in big["per_class"] if c["id"] == 12 or "12" in c["name"]]
    assert shown(page) == found, "a number finds the class with that id as well"
    assert "12" not in found[0], "class 12 has its number in the id alone"
    assert found[1] == "Sort 0112"


def test_bins_are_shown_and_hidden_by_their_boxes(visit, big):
    page = visit("big")
    for off in (["head"], ["head", "tail"], ["head", "tail", "medium"]):
        page.locator(f"[name=bin][value={off[-1]}]").uncheck()
        found = [c["name"] for c in big["per_class"] if c["bin"] not in off]
        assert shown(page) == found
        assert page.locator("output").text_content() == f"{len(found)} of 1203 classes"
    for name in ("head", "medium", "tail"):
        page.get_by_role("checkbox", name=name, exact=True).check()
    assert len(shown(page)) == 1203
    assert page.locator("output").text_content() == "1203 classes"


def test_a_filter_survives_sorting_and_goes_with_its_text(visit, big):
    page = visit("big")
    page.locator("[type=search]").fill("sort 05")
    page.get_by_role("checkbox", name="medium", exact=True).uncheck()
    wanted = {c["name"] for c in big["per_class"] if "Sort 05" in c["name"] and c["bin"] != "medium"}
    names = {c["id"]: c["name"] for c in big["per_class"]}
    for sign in (1, -1):
        header(page, "AP50").click()
        assert shown(page) == [names[i] for i in in_order(big, "AP50", sign) if names[i] in wanted]
    page.locator("[type=search]").fill("")
    assert len(shown(page)) == sum(c["bin"] != "medium" for c in big["per_class"])


def test_nothing_found_is_said_to_those_who_do_not_see_it(visit):
    page = visit("report")
    page.locator("[type=search]").fill("no class is called so")
    assert shown(page) == []
    said = page.locator("output[aria-live=polite]")
    assert said.is_visible()
    assert said.text_content() == "0 of 24 classes"


def test_enter_in_the_field_leaves_the_page_and_what_is_found(visit):
    page = visit("report")
    page.locator("[type=search]").press_sequentially("類")
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert shown(page) == ["類別"]
    assert page.url.endswith("report.html")
    assert len(page.noise.requests) == 1
    assert page.noise.said == []


def test_without_bins_there_are_no_boxes_to_tick_and_the_text_still_filters(visit):
    page = visit("no bins")
    assert page.locator("[type=checkbox]").count() == 0
    page.locator("[type=search]").fill("類")
    assert shown(page) == ["類別"]
