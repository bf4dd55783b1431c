"""The two plain dresses of a report: tables for a terminal, and Markdown that no name can break."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from yolo_lt.report.blocks import (
    ClassTable,
    Facts,
    Gallery,
    Picture,
    Section,
    Table,
    Tile,
    aligned,
    escaped,
    markdown,
    printable,
    show,
    with_interval,
)
from yolo_lt.report.drawing import Chart

FOLDER = Path("/runs/rfs/val")
NASTY = (
    "a|b",
    "a\\|b",
    "`a`",
    "<script>alert(1)</script>",
    "*a*",
    "_a_",
    "[x](y)",
    "![x](y)",
    "<http://a.b>",
    "a\nb",
    "a\r\n\r\n# b",
    "\x1b[31mred",
    "&lt;",
    "$a$",
    "~~a~~",
    "# a",
    "- a",
    "\\",
    "---",
    "",
)
names = st.lists(st.text(max_size=12) | st.sampled_from(NASTY), min_size=1, max_size=5)


def cells(line):
    """What stands between the pipes of a row that are not escaped."""
    first, *between, last = re.sub(r"(\\.)|\|", lambda m: m[1] or "\n", line).split("\n")
    assert (first, last) == ("", "")
    return [cell.strip(" ") for cell in between]


def shown(text):
    """What a reader sees of Markdown in which everything is escaped."""
    assert not re.search(r"[`*_\[\]<>|~$&]", re.sub(r"\\.", "", text))
    return re.sub(r"\\(.)", r"\1", text)


def page(*blocks, folder=FOLDER, charts=True, columns=()):
    return markdown("A title", [Section("one", "One", blocks, columns)], folder, charts)


# Tables for a terminal -----------------------------------------------------------------------------------------------


def test_numbers_stand_on_the_right_text_on_the_left_and_nothing_is_a_dash():
    rows = [("a", 1, "x", 0.25), ("long", None, "yy", None), ("b", 1000, "z", 12.5)]
    assert aligned(("name", "n", "", "value"), rows).splitlines() == [
        "name     n       value",
        "a        1  x    0.250",
        "long     -  yy       -",
        "b     1000  z   12.500",
    ]


def test_a_column_that_is_text_only_in_part_stands_on_the_right():
    assert aligned(("", "n"), [("a", "0.1 [0.0, 0.2]"), ("b", None)]).splitlines()[2] == "b               -"


def test_a_table_without_rows_is_its_header():
    assert aligned(("a", "bc"), []) == "a  bc"


def test_a_table_stands_between_its_head_and_its_note():
    assert show(Table(("a",), [("b",)], "head", "note")) == "head\na\nb\nnote"
    assert show(Table(("a",), [("b",)])) == "a\nb"


@given(names)
@example(list(NASTY))
def test_no_name_breaks_a_line_or_moves_the_cursor(given_names):
    lines = aligned(("name", "n"), [(name, i) for i, name in enumerate(given_names)]).split("\n")
    assert len(lines) == 1 + len(given_names)
    assert len({len(line) for line in lines}) == 1
    assert all(line == printable(line) for line in lines)


@pytest.mark.parametrize("part", ["head", "note"])
def test_a_name_in_the_head_or_the_note_does_no_more(part):
    text = show(Table(("a",), [("b",)], **{part: "cup as \x1b[2J\r\x07mug\n"}))
    assert text.replace("\n", "").isprintable()
    assert text.count("\n") == 2


def test_what_can_be_printed_stays():
    assert printable("Tasse 汉字 é 🐈 <b>") == "Tasse 汉字 é 🐈 <b>"
    assert printable("\x1b[31ma\tb\n\u202ec\ud800") == "�[31ma�b��c�"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.1234, (0.1, 0.15)), "0.123 [0.100, 0.150]"),
        ((0.1234, None), "0.123"),
        ((0.0, (-0.1, 0.1), "+"), "+0.000 [-0.100, +0.100]"),
        ((None, (0.1, 0.2)), "-"),
        ((None, None), "-"),
    ],
)
def test_a_number_is_shown_with_its_interval_and_without_a_number_there_is_none(arguments, text):
    assert with_interval(*arguments) == text


# Markdown ------------------------------------------------------------------------------------------------------------


@given(st.text() | st.sampled_from(NASTY))
def test_escaped_text_is_one_line_that_shows_what_was_there(text):
    line = escaped(text)
    assert len(line.splitlines()) <= 1
    assert shown(line) == printable(text)
    assert not re.match("[#+=-]", line)


@settings(max_examples=60)
@given(names)
@example(list(NASTY))
def test_every_row_of_a_table_has_its_cells_and_shows_the_name(given_names):
    rows = [(i, name, "tail", 0.5, None) for i, name in enumerate(given_names)]
    header = ("id", "name", "bin", "AP|50", "AP")
    for table in (Table(header, rows), ClassTable(header, rows)):
        lines = page(table).splitlines()[4:]
        assert len(lines) == 2 + len(rows)
        assert {len(cells(line)) for line in lines} == {len(header)}
        assert [shown(cell) for cell in cells(lines[0])] == list(header)
        assert [shown(cells(line)[1]) for line in lines[2:]] == [printable(n).strip(" ") for n in given_names]
        assert {tuple(map(shown, cells(line)[2:])) for line in lines[2:]} == {("tail", "0.500", "-")}


def test_the_second_line_of_a_table_says_which_columns_are_numbers():
    assert page(Table(("a", "b", "c"), [("x", 1, None), ("y", 2, 0.5)])).splitlines()[5] == "| --- | ---: | ---: |"


def test_a_page_is_its_title_and_its_sections_in_order():
    sections = [
        Section("a", "A", ["text", Table(("x",), [("y",)], "head", "note")]),
        Section("b", "B", []),
        Section("c", "C", ["first"], [("run *1*", ["one"]), ("run 2", [])]),
        Section("d", "D", [], [("run 1", []), ("run 2", [])]),
    ]
    parts = ["# 1 \\< 2", "## A", "text", "head", "| x |\n| --- |\n| y |", "note"]
    parts += ["## C", "first", "### run \\*1\\*", "one", "### run 2"]
    assert markdown("1 < 2", sections, FOLDER, True) == "\n\n".join(parts) + "\n"


def test_a_tile_is_a_line_of_a_list():
    text = page(Tile("tail", "0.25", "[0.1, 0.3]", ["AP 0.1", "2 of 3 *classes*"]), Tile("head", "-", "", []))
    assert text.splitlines()[4:] == [
        "- **tail** 0.25 \\[0.1, 0.3\\]; AP 0.1; 2 of 3 \\*classes\\*",
        "",
        "- **head** \\-",
    ]


@pytest.mark.parametrize("command", ["yolo-lt val model=a.pt", "yolo-lt val name='`a`'", "a ```` b ``` c", "a\n```\nb"])
def test_nothing_in_a_command_closes_its_fence(command):
    lines = page(Facts([("model", "a|b"), ("data", "[x](y)")], command)).splitlines()[4:]
    assert lines[:3] == ["- model: a\\|b", "- data: \\[x\\](y)", ""]
    opening, inside, closing = lines[3:]
    assert opening == f"{closing}bash"
    assert set(closing) == {"`"}
    assert len(closing) >= 3
    assert closing not in inside
    assert inside == printable(command)


def test_facts_without_a_command_have_no_fence():
    assert page(Facts([("model", "a")])).splitlines()[4:] == ["- model: a"]


def chart(name="errors", title="Errors <1>"):
    return Chart(name, title, "In *words*", lambda figure: None)


def test_a_chart_is_linked_beside_the_page_with_its_title_below():
    assert page(chart()).splitlines()[4:] == ["![In \\*words\\*](<errors.png>)", "", "Errors \\<1\\>"]


def test_without_pictures_of_charts_none_is_linked():
    assert (
        page("text", chart(), charts=False, columns=[("run", [chart()])]) == "# A title\n\n## One\n\ntext\n\n### run\n"
    )


def linked(text):
    return re.findall(r"\]\(<([^<>\n\r]*)>\)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("place", "link"),
    [("examples/a.jpg", "examples/a.jpg"), ("../test/a.jpg", "../test/a.jpg"), ("/runs/b/a.jpg", "../../b/a.jpg")],
)
def test_pictures_are_linked_from_the_folder_of_the_page(place, link):
    gallery = Gallery("a|b", "tail", "AP50 *0*", [Picture(FOLDER / place, "found: [1](2)", "found")])
    text = page(gallery)
    assert linked(text) == [link]
    assert "**a\\|b**: AP50 \\*0\\*" in text.splitlines()
    assert text.count("found: \\[1\\](2)") == 2
    assert linked(page(gallery, charts=False)) == [link]  # these are no charts


@pytest.mark.parametrize(
    "name", ["a b", "a<b>(c)", "a#b", "a?b", "100%25", "a%20b", "a\nb\rc", "a\\>b", "ü", "x:y", "&lt;"]
)
def test_a_link_leads_to_its_picture_whatever_the_folder_is_called(name):
    (link,) = linked(page(Gallery("cup", None, "", [Picture(Path("/runs", name, "a.jpg"), "found", "found")])))
    assert unquote(link) == f"../../{name}/a.jpg"
    assert not re.search(r"[#?&\\]|%(?![0-9A-F]{2})|^\w+:", link)
    assert os.path.normpath(FOLDER / unquote(link)) == f"/runs/{name}/a.jpg"
