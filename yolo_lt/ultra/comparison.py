"""`val baseline=` and the verb compare: two networks on the same images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER, RUNS_DIR
from ultralytics.utils.files import increment_path

from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate import Report
from yolo_lt.evaluate.runs import Run, against, compare_runs, read_run
from yolo_lt.files import write_text
from yolo_lt.report.blocks import show
from yolo_lt.report.compare_page import Side, comparison_page
from yolo_lt.report.results import comparison
from yolo_lt.report.write import write_page
from yolo_lt.ultra.evaluation import write_report


def check_baseline(baseline: str) -> None:
    """Refuse a baseline that is not there before anything is validated.

    Raises:
        LTError: It is neither a file nor a folder; or a folder without a validation.
    """
    path = Path(baseline)
    if baseline != "none" and path.is_dir():
        read_run(path)
    elif baseline != "none" and not path.is_file():
        raise LTError(f"baseline={baseline}: no such file, and no folder of an earlier val either")


def write_compared(
    report: Report, folder: Path, baseline: str, evaluate: Callable[[str], Report], plots: bool = True
) -> Report:
    """Write the report with its difference to a baseline; without it, if the two cannot be paired.

    Args:
        report: Ours.
        folder: Where it goes, and what ours is called.
        baseline: The folder of an earlier val, or a file that `evaluate` takes.
        evaluate: Gives the report of such a file.
        plots: Whether the charts are also written as PNG.

    Raises:
        LTError: The two cannot be paired, or the file is bad.
    """
    path = Path(baseline)
    try:
        other = read_run(path) if path.is_dir() else _run(str(path), evaluate(str(path)))
        difference = against(_run(str(folder), report), other, report.bootstrap["replicates"])
        report = replace(report, baseline=difference)
    finally:
        write_report(folder, report, plots)
    return report


def _run(name: str, report: Report) -> Run:
    return Run(name, report.matches, report.gt_sha256, report.to_json())


def run_comparison(sides: Sequence[str], replicates: int, theirs: dict[str, Any], command: str) -> dict[str, Any]:
    """Compare finished validations; writes comparison.json and the page.

    Args:
        sides: Two or more, baseline first, each one folder or several with commas between them, one per seed.
        replicates: Of the images and pairs; 0: no intervals.
        theirs: Ultralytics' keys: project, name, exist_ok, seed.
        command: What was called, for the page's foot.

    Raises:
        UsageError: Fewer than two sides, or not equally many runs on all.
        LTError: Runs that cannot be read or paired.
    """
    if len(sides) < 2:
        raise UsageError(
            "compare takes two or more sides: yolo-lt compare runs/a runs/b, or a0,a1 b0,b1 with a run per seed"
        )
    folders = [[folder for folder in side.split(",") if folder] for side in sides]
    for other in folders[1:]:
        if len(other) != len(folders[0]) or not other:
            raise UsageError(f"compare pairs runs by seed: {len(folders[0])} on one side and {len(other)} on the other")
    baseline, *ours = [[read_run(folder) for folder in side] for side in folders]
    found = [compare_runs(side, baseline, replicates, int(theirs.get("seed") or 0)) for side in ours]
    place = Path(theirs.get("project") or RUNS_DIR) / str(theirs.get("name") or "compare")
    folder = increment_path(place, exist_ok=bool(theirs.get("exist_ok")), mkdir=True)
    content = {**found[0], "others": found[1:]}
    write_text(folder / "comparison.json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    told = [Side([run.name for run in side], [run.report for run in side]) for side in (baseline, *ours)]
    write_page(folder, comparison_page(told, found, command))
    tables = "\n\n".join(show(comparison(f)) for f in found)
    LOGGER.info(f"\n{tables}\n\nreport.html, report.md and comparison.json are in {folder}")
    return content
