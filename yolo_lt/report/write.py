"""A page in the run folder: report.html, report.md and the charts as pictures."""

from __future__ import annotations

from pathlib import Path

from yolo_lt.files import write_text
from yolo_lt.report.blocks import markdown
from yolo_lt.report.drawing import save_png
from yolo_lt.report.html import html
from yolo_lt.report.page import Page

HTML, MARKDOWN = "report.html", "report.md"


def write_page(folder: Path, page: Page, plots: bool = True) -> list[Path]:
    """Write a page, each file whole or not at all.

    Args:
        folder: Where it goes.
        page: What it says.
        plots: Whether the charts are also written as PNG, to which report.md then links.

    Returns:
        The pictures.
    """
    pictures = [save_png(folder, chart) for chart in page.charts] if plots else []
    write_text(folder / MARKDOWN, markdown(page.title, page.sections, folder, charts=plots))
    write_text(folder / HTML, html(page))
    return pictures
