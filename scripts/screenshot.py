"""Pictures of a report.html, as they stand in the README.

    python scripts/screenshot.py page=val/report.html out=docs prefix=demo shots=summary

Needs `pip install playwright` and Chromium on the path (CHROMIUM=/path/to/it otherwise).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

SHOTS: dict[str, dict[str, Any]] = {  # name: width and colour scheme, the sections shown, and how much of them
    "summary": {"width": 1100, "scheme": "light", "sections": ("header", "#summary"), "height": 1030},
    "worst": {"width": 1100, "scheme": "light", "sections": ("#worst",), "height": 560},
    "errors": {"width": 1100, "scheme": "dark", "sections": ("#errors",), "height": 640},
    "phone": {"width": 390, "scheme": "light", "sections": ("header", "#summary"), "height": 800},
}
MARGIN = 12  # pixels above the first section


def main(page: str, out: str, shots: str = ",".join(SHOTS), prefix: str = "report") -> None:
    with chromium() as browser:
        for name in shots.split(","):
            shoot(browser, Path(page).resolve(), Path(out) / f"{prefix}-{name}.png", **SHOTS[name])


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium, without a window."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def shoot(browser: Any, page: Path, out: Path, width: int, scheme: str, sections: tuple, height: int) -> None:
    """The sections from the first one's top, at most `height` pixels of them."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=1.5)
    tab.goto(page.as_uri())
    boxes = [tab.locator(selector).first.bounding_box() for selector in sections]
    top, bottom = max(0, boxes[0]["y"] - MARGIN), boxes[-1]["y"] + boxes[-1]["height"]
    clip = {"x": 0, "y": top, "width": width, "height": min(height, bottom - top)}
    out.parent.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=out, full_page=True, clip=clip)
    tab.close()
    print(out)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
