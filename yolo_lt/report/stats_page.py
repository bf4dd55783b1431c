"""The page of a data set: its classes, how far they are from equal, and what a recipe would do."""

from __future__ import annotations

from yolo_lt import __version__
from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.report import charts, tables
from yolo_lt.report.blocks import Block, Facts, Section
from yolo_lt.report.diagnosis import Diagnosis, diagnosis_sections
from yolo_lt.report.page import Page
from yolo_lt.report.scatter import classes_of
from yolo_lt.report.words import NAMED, data_name, listed


def stats_page(found: Diagnosis, data: str, command: str) -> Page:
    """The page of a data set's training split.

    Args:
        found: Statistics, what the recipe makes of them, and what else was found out.
        data: Its data YAML.
        command: What was called.
    """
    plan, told = found.plan, diagnosis_sections(found)
    summary: list[Block] = [tables.size_text(plan) + ".", *_spread(plan)]
    summary += [charts.rank(plan), tables.imbalances(plan)]
    recipe: list[Block] = [tables.recipe_text(plan) + ".", *plan.notes, tables.by_bin(plan)]
    facts = Facts([("data", data), ("bins", plan.bins.rule), ("versions", f"yolo_lt {__version__}")], command)
    sections = [
        Section("summary", "Summary", summary),
        *(section for section in told if section.key == "advice"),
        Section("recipe", "What the recipe would do", recipe),
        *(section for section in told if section.key != "advice"),
        Section("classes", "Every class", [tables.classes(plan)]),
        Section("about", "How this was counted", [facts]),
    ]
    return Page(f"Classes of {data_name({'data': data})}, split train", sections)


def _spread(plan: Plan) -> list[str]:
    """Which bin holds how much, in words."""
    counts, every = plan.stats.instance_counts, max(int(plan.stats.instance_counts.sum()), 1)
    parts = [
        f"{NAMED[name]} ({classes_of(len(ids))}) {100 * counts[ids].sum() / every:.1f} %"
        for name in BIN_NAMES
        if len(ids := getattr(plan.bins, name))
    ]
    return [f"Of all instances {listed(parts)}."] if parts else []
