"""Pages of every kind, opened in one browser window per theme; what they are made of is in `browser.py`."""

from functools import cache

import browser as tools
import numpy as np
import pytest
from browser import DESKTOP, NASTY, Noise, ground_truth, measured, resize, run, whole

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.evaluate.runs import compare_runs
from yolo_lt.report.compare_page import Side, comparison_page
from yolo_lt.report.diagnosis import Diagnosis
from yolo_lt.report.html import html
from yolo_lt.report.page import validation_page
from yolo_lt.report.stats_page import stats_page

REPORTS = {
    "report": lambda folder: whole(folder, ground_truth(24, 60)),
    "big": lambda folder: whole(folder, ground_truth(1203, 600)),
    "two classes": lambda folder: whole(folder, ground_truth(2, 20)),
    "one class": lambda folder: whole(folder, ground_truth(1, 20)),
    "no bins": lambda folder: measured(ground_truth(12, 20, letters=False)).to_json(),
    "nothing": lambda folder: measured(ground_truth(12, 20, boxes=0)).to_json(),
    "no detections": lambda folder: measured(ground_truth(24, 60), quality=0).to_json(),
}


class Made(dict):
    """What is made when it is first asked for."""

    def __init__(self, make):
        self.make = make

    def __missing__(self, name):
        self[name] = self.make(name)
        return self[name]


def _compared():
    gt = ground_truth(24, 60)
    names = [f"runs/{name}" for name in ("<b>stock", "rfs", "long_" * 20)]
    runs = [run(name, measured(gt, 0.4 + 0.15 * i, i)) for i, name in enumerate(names)]
    found = [compare_runs([other], runs[:1], 20) for other in runs[1:]]
    return comparison_page(
        [Side([r.name], [r.report]) for r in runs], found, "yolo-lt compare '<b>stock' rfs " + "long_" * 20
    )


def _counted():
    counts = np.maximum(1, 400 // np.arange(1, 23) ** 2)
    lists = [[c] for c, n in enumerate(counts) for _ in range(n)]
    names = [*NASTY, *(f"Sort {i}" for i in range(len(NASTY), 24))]
    plan = make_plan(ClassStats.from_lists(lists, 24, names), config.resolve({"recipe": "rfs"}))
    return stats_page(Diagnosis(plan), "sets/<b>street.yaml", "yolo-lt stats data='sets/<b>street.yaml'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def reports(folder):
    """Every kind of validation by name."""
    return Made(lambda name: REPORTS[name](folder / name))


@pytest.fixture(scope="module")
def big(reports):
    """The report of 1203 classes."""
    return reports["big"]


@pytest.fixture(scope="module")
def pages(folder, reports):
    """Every kind of page by name."""
    others = {"comparison": _compared, "stats": _counted}
    return Made(lambda name: others[name]() if name in others else validation_page(reports[name], folder / name))


@pytest.fixture(scope="module")
def files(folder, pages):
    """The pages as files."""

    def write(name):
        path = folder / f"{name}.html"
        path.write_text(html(pages[name]), encoding="utf-8")
        return path

    return Made(write)


@pytest.fixture(scope="module")
def window():
    """window("dark") -> a window of the browser that has this theme; made once."""
    with tools.chromium() as browser:

        @cache
        def make(scheme, **more):
            return browser.new_context(color_scheme=scheme, reduced_motion="reduce", **more)

        yield make


@pytest.fixture
def visit(window, files):
    """visit("report") -> the opened page, with its `noise`; closed at the end."""
    opened = []

    def go(name, size=DESKTOP, scheme="light", until="load", **more):
        page = window(scheme, **more).new_page()
        opened.append(page)
        page.noise = Noise(page)
        resize(page, size)
        page.goto((files[name] if isinstance(name, str) else name).as_uri(), wait_until=until)
        return page

    yield go
    for page in opened:
        page.close()
