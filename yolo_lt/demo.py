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
from yolo_lt.report.results import comparison_text

RUNS = {"stock": {"recipe": "baseline"}, "balanced": {"recipe": "recommended"}}
HOLDOUT = 0.1  # of the training images: what calibrate chooses on
HEAD_EPOCHS = 5  # of stage two, on cached features: together they cost less than one epoch of stage one


def run(**kw: Any) -> dict[str, Report]:
    """Draw a long-tailed set, train stock and balanced, re-train the head, calibrate, validate, export.

    Stock and balanced are trained at equal iterations; the head that is re-trained afterwards has seen more.

    Args:
        **kw: `project`, `name`, `exist_ok`, `seed`, `device`, `epochs` and other training keys of Ultralytics, and
            the yolo-lt keys of val.

    Returns:
        The reports of the runs by name: stock, balanced, head.
    """
    started = time.perf_counter()
    ours, theirs = config.split(kw, "demo")
    place = Path(theirs.pop("project", None) or RUNS_DIR) / str(theirs.pop("name", None) or "demo")
    folder = increment_path(place.resolve(), exist_ok=bool(theirs.pop("exist_ok", False)), mkdir=True)
    seed = theirs.setdefault("seed", 0)
    with step("1/7 draw a long-tailed data set"):
        data = generate(folder / "dataset", seed=seed)
    with step("2/7 statistics: yolo-lt stats"):
        plan = api.stats(data=str(data), project=str(folder), name="stats", exist_ok=True)
    settings = {**TRAIN, **theirs, "data": str(data), "project": str(folder), "exist_ok": True, "plots": False}
    reports = {}
    for number, (name, recipe) in enumerate(RUNS.items(), 3):
        with step(f"{number}/7 {name} training and validation: yolo-lt train recipe={recipe['recipe']}, yolo-lt val"):
            api.train(**settings, **recipe, holdout=HOLDOUT, name=name, val=False, verbose=False)
            reports[name] = _validate(name, folder, settings, ours)
    with step("5/7 the classifier of balanced again: yolo-lt finetune-head feature_cache=true, yolo-lt val"):
        _finetune_head(folder, settings)
        reports["head"] = _validate("head", folder, settings, ours)
    with step("6/7 stock again, without training: yolo-lt calibrate thresholds=f1"):
        calibrated = _calibrate(folder, settings)
    with step("7/7 export of head, and of calibrated with its thresholds: yolo-lt export"):
        exported = [api.export(model=str(_weights(folder, "head")), imgsz=settings["imgsz"])]
        file = calibrated["thresholds"]["file"]
        exported.append(api.export(model=calibrated["weights"], imgsz=settings["imgsz"], thresholds=file))
    sets = plan.bins.class_sets(plan.stats.num_classes)
    for name in ("balanced", "head"):
        pair = {"stock": reports["stock"], name: reports[name]}
        difference = paired_difference([reports[name].matches], [reports["stock"].matches], sets)
        LOGGER.info(f"\n{comparison_text([r.to_json() for r in pair.values()], list(pair), *difference)}\n")
    for name in reports:
        LOGGER.info(f"{name:<10} {_weights(folder, name)}\n{'':<10} {folder / name}-val/report.html")
    LOGGER.info(f"{'calibrated':<10} {calibrated['weights']}\n{'ONNX':<10} {exported[0]}\n{'':<10} {exported[1]}")
    LOGGER.info(f"\nAll of it took {time.perf_counter() - started:.0f} s and lies in {folder}")
    return reports


def _weights(folder: Path, name: str) -> Path:
    """A run's last checkpoint: the best of several epochs would be chosen on the reported split."""
    return folder / name / "weights" / "last.pt"


def _finetune_head(folder: Path, settings: dict[str, Any]) -> None:
    """Stage two with its own schedule; what augments images has nothing to act on."""
    shared = ("data", "project", "exist_ok", "plots", "imgsz", "batch", "device", "seed", "workers")
    given = {k: settings[k] for k in shared if k in settings}
    weights, epochs = str(_weights(folder, "balanced")), min(HEAD_EPOCHS, settings["epochs"])
    api.finetune_head(model=weights, **given, epochs=epochs, name="head", feature_cache=True, val=False, verbose=False)


def _calibrate(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What the holdout says about the scores of a network that nothing has balanced."""
    shared = {k: settings[k] for k in ("data", "project", "exist_ok", "imgsz", "device", "seed") if k in settings}
    return api.calibrate(model=str(_weights(folder, "stock")), **shared, thresholds="f1", name="calibrated")


def _validate(name: str, folder: Path, settings: dict[str, Any], ours: dict[str, Any]) -> Report:
    shared = {k: settings[k] for k in ("data", "project", "exist_ok", "plots", "imgsz", "device") if k in settings}
    against = {} if name == "stock" else {"baseline": str(folder / "stock-val")}
    return api.val(model=str(_weights(folder, name)), **shared, **ours, **against, name=f"{name}-val", verbose=False)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step and say how long it took."""
    LOGGER.info(f"\n=== {title}")
    started = time.perf_counter()
    yield
    LOGGER.info(f"=== done in {time.perf_counter() - started:.1f} s")
