import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.files import copy_file, csv_text, replacing, rewind_csv, slug, write_text


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")

    def half():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_copy_is_whole_or_not_there(tmp_path):
    source = write_text(tmp_path / "a.txt", "content")
    assert copy_file(source, tmp_path / "b" / "c.txt").read_text() == "content"
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "none.txt", tmp_path / "b" / "c.txt")
    assert (tmp_path / "b" / "c.txt").read_text() == "content"
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["c.txt"]


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\tx"])
def test_class_names_are_no_formulas_in_a_spreadsheet(name):
    assert csv_text([[name]]).strip('"\n').startswith("'")


def test_commas_and_quotes_are_quoted_and_numbers_kept_short():
    assert csv_text([["a,b", 'c"d', 1 / 3, None, 7]]) == '"a,b","c""d",0.333333,,7\n'


def test_a_rewound_csv_keeps_whole_rows_of_the_first_epochs_as_they_are(tmp_path):
    path = tmp_path / "results.csv"
    rewind_csv(path, 1)
    assert not path.exists()
    path.write_text("epoch,loss\n1,-0.5\n2,'=x\n3,7\n2,8\n2\n")
    rewind_csv(path, 2)
    assert path.read_text() == "epoch,loss\n1,-0.5\n2,'=x\n2,8\n"
    rewind_csv(path, 0)
    assert path.read_text() == "epoch,loss\n"
    path.write_text("")
    rewind_csv(path, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("traffic light", "traffic-light"),
        ("a-b_c", "a-b_c"),
        ("../../etc/passwd", "etc-passwd"),
        ("a/b\\c", "a-b-c"),
        ("C:\\x.jpg", "C-x-jpg"),
        ("CON", "CON"),
        ("", "unnamed"),
        ("  ", "unnamed"),
        ("...", "unnamed"),
        ("😀", "unnamed"),
        ("😀cat😀", "cat"),
        ("松鼠", "松鼠"),
        ("Größe №1", "Größe-1"),
        ("e\u0301a", "éa"),
        ("a\x00b\nc\x7f", "a-b-c"),
        ("a & b <c>", "a-b-c"),
        ("\ud800x", "x"),
        ("x" * 300, "x" * 40),
        ("x" * 39 + " y", "x" * 39),
        ("猫" * 300, "猫" * 40),
        ("𠀀" * 300, "𠀀" * 30),
    ],
)
def test_a_slug_is_part_of_a_file_name(text, expected):
    assert slug(text) == expected


def test_a_slug_is_as_long_as_asked_for():
    assert slug("one two", 3) == "one"
    assert slug("one two", 4) == "one"
    assert slug("/one", 3) == "one"
    assert slug("x" * 500, 500) == "x" * 120
    assert slug("", 2) == "un"


@given(st.text(), st.integers(1, 200))
def test_any_text_has_a_slug(text, length):
    found = slug(text, length)
    assert 0 < len(found) <= length
    assert len(found.encode()) <= 120
    assert all(c in "-_" or unicodedata.category(c)[0] in "LN" for c in found)
    assert found == found.strip("-") == slug(found, length)
