import pytest

from yolo_lt.files import csv_text, replacing, write_text


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


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\tx"])
def test_class_names_are_no_formulas_in_a_spreadsheet(name):
    assert csv_text([[name]]).strip('"\n').startswith("'")


def test_commas_and_quotes_are_quoted_and_numbers_kept_short():
    assert csv_text([["a,b", 'c"d', 1 / 3, None, 7]]) == '"a,b","c""d",0.333333,,7\n'
