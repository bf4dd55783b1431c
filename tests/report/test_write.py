"""The files of a page: whole, or as they were before."""

from pathlib import Path

import cv2
import pytest
from test_page import content, with_baseline, with_pictures

from yolo_lt.report import write
from yolo_lt.report.blocks import Section
from yolo_lt.report.drawing import Chart
from yolo_lt.report.html import html
from yolo_lt.report.page import Page, validation_page
from yolo_lt.report.write import write_page


def line(figure):
    figure.subplots().plot([1, 2])


def fail(figure):
    figure.subplots()
    raise RuntimeError("no such marker")


def chart(name, draw=line):
    return Chart(name, f"Title of {name}", f"What {name} shows.", draw, (2, 1.5))


def page(*charts, text="text"):
    first, *others = charts or [chart("one")]
    return Page("A title", [Section("a", "A", [text, first]), Section("b", "B", [], [("run", others)])])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_page_is_written_in_both_forms_beside_its_charts(tmp_path):
    shown = page(chart("one"), chart("two"))
    assert write_page(tmp_path, shown) == [tmp_path / "one.png", tmp_path / "two.png"]
    assert sorted(files(tmp_path)) == ["one.png", "report.html", "report.md", "two.png"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html(shown)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# A title\n\n## A\n\ntext\n\n![What one shows.](<one.png>)")
    assert "](<two.png>)" in text
    assert cv2.imread(str(tmp_path / "two.png")).shape == (225, 300, 3)


def test_a_folder_that_is_not_there_is_made(tmp_path):
    write_page(tmp_path / "a" / "b", page(), plots=False)
    assert sorted(files(tmp_path / "a" / "b")) == ["report.html", "report.md"]


def test_without_plots_there_are_no_pictures_and_no_links_to_them(tmp_path):
    assert write_page(tmp_path, page(chart("one"), chart("two")), plots=False) == []
    assert sorted(files(tmp_path)) == ["report.html", "report.md"]
    assert ".png" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<svg ") == 2


def test_pictures_of_objects_are_linked_even_without_plots(tmp_path):
    report = with_pictures(content(train_images=None, training=None, bootstrap=0), tmp_path)
    write_page(tmp_path, validation_page(report, tmp_path), plots=False)
    assert "](<examples/9-0.jpg>)" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_page_is_written_over_an_old_one(tmp_path):
    write_page(tmp_path, page(text="old"))
    write_page(tmp_path, page(text="new"))
    assert sorted(files(tmp_path)) == ["one.png", "report.html", "report.md"]
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "new" in text
        assert "old" not in text


def test_the_same_page_is_the_same_bytes(tmp_path):
    for name in "ab":
        write_page(tmp_path / name, page())
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_chart_that_fails_leaves_nothing_half_written(tmp_path):
    with pytest.raises(RuntimeError, match="no such marker"):
        write_page(tmp_path, page(chart("one"), chart("two", fail)))
    assert sorted(files(tmp_path)) == ["one.png"]


def test_a_chart_that_fails_leaves_the_old_page(tmp_path):
    write_page(tmp_path, page(chart("one"), chart("two"), text="old"))
    before = files(tmp_path)
    with pytest.raises(RuntimeError):
        write_page(tmp_path, page(chart("one"), chart("two", fail), text="new"))
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["markdown", "html"])
def test_a_form_that_fails_leaves_its_old_file_whole(tmp_path, monkeypatch, name):
    write_page(tmp_path, page(text="old"))
    before = files(tmp_path)

    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(write, name, broken)
    with pytest.raises(RuntimeError, match="broken"):
        write_page(tmp_path, page(text="new"))
    after = files(tmp_path)
    assert set(after) == set(before)
    assert after["report.html"] == before["report.html"]
    assert (after["report.md"] == before["report.md"]) == (name == "markdown")


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, monkeypatch, name):
    write_page(tmp_path, page(text="old"), plots=False)
    before, whole = files(tmp_path), type(tmp_path).write_text

    def full(self, text, **keys):
        if self.suffix != Path(name).suffix:
            return whole(self, text, **keys)
        whole(self, text[:10], **keys)
        raise OSError("no space left")

    monkeypatch.setattr(type(tmp_path), "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write_page(tmp_path, page(text="new"), plots=False)
    after = files(tmp_path)
    assert set(after) == set(before)
    assert after[name] == before[name]


def test_a_whole_validation_is_written(tmp_path):
    report = {**with_baseline(), "training": None, "curves": None}
    shown = validation_page(with_pictures(report, tmp_path), tmp_path)
    pictures = write_page(tmp_path, shown)
    assert [path.stem for path in pictures] == [c.name for c in shown.charts]
    assert all(path.stat().st_size > 5000 for path in pictures)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {s.title}" for s in shown.sections if s.key != "training"
    ]
    for path in pictures:
        assert f"](<{path.name}>)" in text
