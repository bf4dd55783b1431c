"""The page of a comparison: what two or more ways of training differ in, and each run's own page side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from yolo_lt.evaluate.metrics import METRICS
from yolo_lt.report import charts, results, words
from yolo_lt.report.blocks import Block, ClassTable, Facts, Section, Table
from yolo_lt.report.drawing import Chart
from yolo_lt.report.page import Page, details, facts, filled

METRIC = words.METRIC
Reports = Sequence[dict[str, Any]]


class Side(NamedTuple):
    """A way of training: the folders of its validations, one per seed, and their reports."""

    folders: Sequence[str]
    reports: Reports


def comparison_page(sides: Sequence[Side], found: Sequence[dict[str, Any]], command: str) -> Page:
    """The page of a comparison.

    Args:
        sides: The baseline, then the others.
        found: For every other side, its comparison to the baseline (see `compare_runs`).
        command: What was called.
    """
    names = _names([folder for side in sides for folder in side.folders])
    labels = [", ".join(names[folder] for folder in side.folders) for side in sides]
    means = [_mean(side.reports) for side in sides]
    summary = [*_told(labels, found, means), *_differences(labels, found, means), _levels(labels, means)]
    summary += [results.comparison(f) for f in found]
    runs = [(names[f], Path(f), r) for side in sides for f, r in zip(side.folders, side.reports, strict=True)]
    parts = [Section("summary", "What differs", filled(summary))]
    classes = Section("classes", "Every class", [_classes(labels, means)])
    told = [(name, [*report["warnings"], facts(report)]) for name, _, report in runs]
    about = Section("about", "How this was measured", [Facts([], command)], told)
    return Page(" against ".join([" and ".join(labels[1:]), labels[0]]), [*parts, *_columns(runs), classes, about])


def _names(folders: Sequence[str]) -> dict[str, str]:
    """What to call every run: the last parts of its path, as many as tell all of them apart."""
    paths = {folder: PurePath(folder).parts or (folder,) for folder in folders}
    for length in range(1, max(map(len, paths.values())) + 1):
        found = {folder: "/".join(parts[-length:]) for folder, parts in paths.items()}
        if len(set(found.values())) == len(found):
            break
    return found


def _mean(reports: Reports) -> dict[str, Any]:
    """The first report with the means over the runs as its metrics, by bin and by class."""
    first = reports[0]
    metrics = {
        name: None if m is None else {**m, **_metrics([r["metrics"][name] for r in reports])}
        for name, m in first["metrics"].items()
    }
    of_class = zip(*(r["per_class"] for r in reports), strict=True)
    per_class = [{**rows[0], **_means(rows, ("AP", "AP50", "AP75"))} for rows in of_class]
    return {**first, "metrics": metrics, "per_class": per_class}


def _metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of one bin; the interval of one run is not that of a mean."""
    return {**_means(rows, METRICS), "ci95": rows[0]["ci95"] if len(rows) == 1 else None}


def _means(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, float | None]:
    return {k: None if rows[0][k] is None else float(np.mean([row[k] for row in rows])) for k in keys}


def _told(labels: Sequence[str], found: Sequence[dict[str, Any]], means: Reports) -> list[Block]:
    """Every side against the baseline, in words and in tiles."""
    blocks: list[Block] = []
    for label, f, mean in zip(labels[1:], found, means[1:], strict=True):
        against = {"name": labels[0], "difference": f["difference"]}
        text = words.against(f["difference"], labels[0])
        blocks += [f"{label}: {text[:1].lower()}{text[1:] or 'nothing can be compared'}"]
        blocks += words.tiles({**mean, "baseline": against}, labels[0])
    return blocks


def _levels(labels: Sequence[str], means: Reports) -> Table:
    """AP by bin of every side."""
    rows = [
        (name, metric, *(m["metrics"][name][metric] for m in means))
        for name in results.known(means[0])
        for metric in METRICS
    ]
    seeds = "; means over the runs of a side" if any(", " in label for label in labels) else ""
    head = f"{results.protocol_text(means[0])}, bins: {means[0]['bins']['rule']}{seeds}"
    return Table(("bin", "metric", *labels), rows, head)


def _differences(labels: Sequence[str], found: Sequence[dict[str, Any]], means: Reports) -> list[Block | None]:
    """Charts of the paired differences to the baseline, by bin and by class."""
    blocks: list[Block | None] = []
    for i, (label, f) in enumerate(zip(labels[1:], found, strict=True), 1):
        title = f"{label} - {labels[0]}"
        drawn = charts.difference_by_bin(f["difference"], f"{title}, paired difference with 95 % interval")
        by_class = charts.change_by_images(means[i], means[0])
        if by_class is not None:
            by_class = by_class._replace(title=f"{title}, {by_class.title[0].lower()}{by_class.title[1:]}")
        blocks += [_numbered(drawn, i, len(found)), _numbered(by_class, i, len(found))]
    return blocks


def _numbered(block: Block | None, i: int, of: int) -> Block | None:
    """A chart under a name of its own, for file names and the ids of its parts."""
    return block._replace(name=f"{block.name}_{i}") if isinstance(block, Chart) and of > 1 else block


def _columns(runs: Sequence[tuple[str, Path, dict[str, Any]]]) -> list[Section]:
    """What every run's own page says, run beside run, on common axes."""
    top = max((s for _, _, report in runs for s in _losses(report)), default=None)
    told = [details(report, folder, top) for _, folder, report in runs]
    sections = []
    for same in zip(*told, strict=True):
        columns = [
            (name, filled([_numbered(block, i, len(runs)) for block in blocks]))
            for i, ((name, _, _), (_, _, blocks)) in enumerate(zip(runs, same, strict=True), 1)
        ]
        sections.append(Section(same[0][0], same[0][1], [], columns))
    return sections


def _losses(report: dict[str, Any]) -> list[float]:
    shares = ((report["errors"] or {}).get("shares") or {}).values()
    return [loss for share in shares if share and share["AP50"] is not None for loss in share["loss"].values()]


def _classes(labels: Sequence[str], means: Reports) -> ClassTable:
    """One row per class: AP50 of every side, and its change to the baseline."""
    keys = ("id", "name", "bin", "train_images", "n_gt")
    header = [*(key.replace("_", " ") for key in keys), *(f"{METRIC} {label}" for label in labels)]
    header += [f"change {label}" for label in labels[1:]]
    rows = []
    for same in zip(*(m["per_class"] for m in means), strict=True):
        values = [c[METRIC] for c in same]
        changes = [None if v is None else v - values[0] for v in values[1:]]
        rows.append((*(same[0][k] for k in keys), *values, *changes))
    return ClassTable(header, rows)
