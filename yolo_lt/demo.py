"""`yolo-lt demo`: the main job on a small data set that it draws itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER, RUNS_DIR
from ultralytics.utils.files import increment_path

from yolo_lt import api, config
from yolo_lt.dataset.demo import TRAIN, generate
from yolo_lt.evaluate import Report
from yolo_lt.evaluate.compare import paired_difference
from yolo_lt.report.tables import comparison_text

RUNS = {"stock": {"recipe": "baseline"}, "balanced": {"recipe": "rfs", "epoch_length": "fixed"}}


def run(**kw: Any) -> dict[str, Report]:
    """Draw a long-tailed set, show its statistics, train stock and balanced at equal iterations, validate both.

    Args:
        **kw: `project`, `name`, `exist_ok`, `seed`, `device`, `epochs` and other training keys of Ultralytics, and
            the yolo-lt keys of val.

    Returns:
        The reports of both runs by name.
    """
    started = time.perf_counter()
    ours, theirs = config.split(kw, "demo")
    place = Path(theirs.pop("project", None) or RUNS_DIR) / str(theirs.pop("name", None) or "demo")
    folder = increment_path(place.resolve(), exist_ok=bool(theirs.pop("exist_ok", False)), mkdir=True)
    seed = theirs.setdefault("seed", 0)
    with step("1/4 draw a long-tailed data set"):
        data = generate(folder / "dataset", seed=seed)
    with step("2/4 statistics: yolo-lt stats"):
        plan = api.stats(data=str(data), project=str(folder), name="stats", exist_ok=True)
    reports = {}
    for number, (name, recipe) in enumerate(RUNS.items(), 3):
        with step(f"{number}/4 {name} training and validation: yolo-lt train recipe={recipe['recipe']}, yolo-lt val"):
            reports[name] = _train_and_validate(name, recipe, data, folder, theirs, ours)
    sets = plan.bins.class_sets(plan.stats.num_classes)
    difference = paired_difference([reports["balanced"].matches], [reports["stock"].matches], sets)
    LOGGER.info(f"\n{comparison_text([r.to_json() for r in reports.values()], list(RUNS), *difference)}\n")
    for name in RUNS:
        LOGGER.info(f"{name:<9} {folder / name / 'weights' / 'last.pt'}\n{'':<9} {folder / name}-val/report.json")
    LOGGER.info(f"\nAll of it took {time.perf_counter() - started:.0f} s and lies in {folder}")
    return reports


def _train_and_validate(
    name: str, recipe: dict[str, Any], data: Path, folder: Path, theirs: dict[str, Any], ours: dict[str, Any]
) -> Report:
    """One run, validated at its last checkpoint: the best of several epochs would be chosen on the reported split."""
    settings = {**TRAIN, **theirs, "data": str(data), "project": str(folder), "exist_ok": True, "plots": False}
    api.train(**settings, **recipe, name=name, val=False, verbose=False)
    weights = folder / name / "weights" / "last.pt"
    shared = {k: settings[k] for k in ("data", "project", "exist_ok", "plots", "imgsz", "device") if k in settings}
    return api.val(model=str(weights), **shared, **ours, name=f"{name}-val", verbose=False)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step and say how long it took."""
    LOGGER.info(f"\n=== {title}")
    started = time.perf_counter()
    yield
    LOGGER.info(f"=== done in {time.perf_counter() - started:.1f} s")
