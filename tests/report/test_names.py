"""Names from others: one line for a terminal or a table, and nothing that XML or UTF-8 cannot hold."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.report.names import markup, number_of, printable


@pytest.mark.parametrize("name", ["Tasse 汉字 é 🐈 <b>", "नमस्ते", "می\u200cخواهم", "👩\u200d🚀", "a  b", ""])
def test_names_of_every_script_stay_as_they_are(name):
    assert printable(name) == name
    assert markup(name) == name


def test_what_steers_a_terminal_or_turns_the_line_is_shown_as_unknown():
    assert printable("\x1b[31ma\tb\nc\x9b2J\u202ed\u2028e\ud800") == "�[31ma�b�c�2J�d�e�"
    assert printable(7) == "7"


@given(st.text())
def test_a_printable_name_is_one_line_of_xml_and_utf8(name):
    text = printable(name)
    assert len(text) == len(name)
    assert len(text.splitlines()) <= 1
    text.encode()
    ElementTree.fromstring(f"<a>{text.replace('&', '&amp;').replace('<', '&lt;')}</a>")


@given(st.text(st.characters(exclude_characters="<&")))
def test_markup_keeps_its_lines(name):
    text = markup(name)
    ElementTree.fromstring(f"<a>{text}</a>")
    assert text.count("\n") == name.count("\n")


def test_a_count_and_its_noun():
    assert [number_of(n, "box", "boxes") for n in (0, 1, 2, 1200)] == ["0 boxes", "1 box", "2 boxes", "1,200 boxes"]
    assert number_of(2, "image") == "2 images"
