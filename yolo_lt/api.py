"""The public verbs in Python; the command line calls these same functions with the same keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # read when Ultralytics is imported: no pip install at run time
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "true")  # likewise: a checkpoint from others must not run code

from ultralytics.utils import LOGGER, RUNS_DIR
from ultralytics.utils.events import events
from ultralytics.utils.files import increment_path

from yolo_lt import config
from yolo_lt.balance.plan import Plan
from yolo_lt.errors import UsageError
from yolo_lt.evaluate import Report
from yolo_lt.report import tables
from yolo_lt.report.diagnosis import diagnosis_text
from yolo_lt.report.stats_page import stats_page
from yolo_lt.report.write import write_page
from yolo_lt.ultra import args as given
from yolo_lt.ultra.comparison import check_baseline, run_comparison, write_compared
from yolo_lt.ultra.evaluation import write_report
from yolo_lt.ultra.foreign import check_foreign, evaluate_file, folder_of
from yolo_lt.ultra.model import YOLOLT
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.runfiles import write_class_stats

events.enabled = False  # Ultralytics' anonymous usage events: this package sends none


def train(model: str | Path | None = None, **kw: Any) -> Any:
    """`yolo-lt train`: see `YOLOLT.train`."""
    kw = config.merge_cfg_file(kw)
    resume, model = kw.get("resume"), model or kw.pop("model", None)
    model = model or (resume if isinstance(resume, (str, Path)) else None)
    if model is None and resume is True:
        model = given.resume_path(True, None)
    if model is None:
        raise UsageError("model=... is missing: name a checkpoint or a model YAML, for example model=yolo26n.pt")
    config.split(kw, "train")  # a mistyped key must not wait for the model to load
    return YOLOLT(model, task=kw.pop("task", None)).train(**kw)


def finetune_head(model: str | Path | None = None, **kw: Any) -> Any:
    """`yolo-lt finetune-head`: see `YOLOLT.finetune_head`."""
    model, kw = _checkpoint("finetune-head", model, kw)
    return _open(model, kw.pop("task", None)).finetune_head(**kw)


def calibrate(model: str | Path | None = None, **kw: Any) -> dict[str, Any]:
    """`yolo-lt calibrate`: see `YOLOLT.calibrate`."""
    model, kw = _checkpoint("calibrate", model, kw)
    return _open(model, kw.pop("task", None)).calibrate(**kw)


def val(model: str | Path | None = None, **kw: Any) -> Report:
    """`yolo-lt val`: see `YOLOLT.val`; with `detections=` and `gt=` no model is needed."""
    kw = config.merge_cfg_file(kw)
    if kw.get("detections") not in (None, "none"):
        return _val_detections(model, kw)
    model, kw = _checkpoint("val", model, kw)
    return _open(model, kw.pop("task", None)).val(**kw)


def _val_detections(model: Any, kw: dict[str, Any]) -> Report:
    """Evaluate a file of detections of another framework."""
    ours, theirs = config.split({**kw, **({} if model is None else {"model": model})}, "val")
    lt = config.resolve(ours)
    config.check_acting(ours, lt)
    check_foreign(ours, lt, theirs)
    check_baseline(lt["baseline"])
    report = evaluate_file(lt, theirs, config.command("val", **ours, **theirs))
    folder = folder_of(theirs)
    if lt["baseline"] == "none":
        write_report(folder, report)
        return report
    plain = {**lt, "official": False, "bootstrap": 0}
    return write_compared(report, folder, lt["baseline"], lambda path: evaluate_file(plain, theirs, "", path))


def compare(*runs: str, **kw: Any) -> dict[str, Any]:
    """`yolo-lt compare A B ...`: paired differences B - A of finished validations, by bin, with intervals, and a page.

    Args:
        *runs: Folders of `yolo-lt val`, the baseline first, or lists with commas, one folder per seed.
        **kw: bootstrap; of Ultralytics' keys project, name, exist_ok, seed (of the bootstrap).

    Returns:
        The content of comparison.json: the first of them, and the `others`.

    Raises:
        UsageError: Fewer than two sides, or keys that do not act.
        LTError: Runs that cannot be read or paired.
    """
    ours, theirs = config.split(kw, "compare")
    acting = ("project", "name", "exist_ok", "seed", "cfg")
    if idle := [name for name, value in theirs.items() if name not in acting and value is not None]:
        raise UsageError(f"{idle[0]} does not act in compare")
    command = config.command("compare", runs, **ours, **theirs)
    return run_comparison(runs, config.resolve(ours)["bootstrap"], theirs, command)


def predict(model: str | Path | None = None, **kw: Any) -> Path:
    """`yolo-lt predict`: see `YOLOLT.predict`; saves drawn images and predictions.json unless told not to.

    Returns:
        The folder of what was saved.
    """
    model, kw = _checkpoint("predict", model, kw)
    yolo = _open(model, kw.pop("task", None))
    saved = {"save": True, "save_json": not kw.get("embed")}
    for _ in yolo.predict(stream=True, **{**saved, **kw}):
        pass  # one image at a time: a long video must not fill the memory
    return yolo.predictor.save_dir


def export(model: str | Path | None = None, **kw: Any) -> str:
    """`yolo-lt export`: see `YOLOLT.export`."""
    model, kw = _checkpoint("export", model, kw)
    return _open(model, kw.pop("task", None)).export(**kw)


def stats(data: Any = None, **kw: Any) -> Plan:
    """`yolo-lt stats`: counts, imbalance and bins of the training split, and what the recipe would do with them.

    Writes class_stats.csv, class_rank.png, report.md and report.html into a new folder (`project=`, `name=`).
    """
    ours, theirs = config.split({"data": data, **kw}, "stats")
    given.check_keys(theirs)
    lt = config.resolve(ours)
    config.check_acting(ours, lt)
    from yolo_lt.ultra.diagnosis import diagnose

    found = diagnose(data, lt, ours, theirs)
    plan = found.plan
    LOGGER.info(f"{tables.stats_text(plan)}\n\n{diagnosis_text(found)}")
    name = Path(theirs.get("project") or RUNS_DIR) / str(theirs.get("name") or "stats")
    folder = increment_path(name, exist_ok=bool(theirs.get("exist_ok")), mkdir=True)
    write_class_stats(folder, plan)
    write_page(folder, stats_page(found, str(data), config.command("stats", **{"data": data, **ours, **theirs})))
    LOGGER.info(f"\n{PREFIX}report.html, report.md, class_stats.csv and class_rank.png are in {folder}")
    return plan


def convert(*names: str, **kw: Any) -> Path:
    """`yolo-lt convert`: see `yolo_lt.convert.convert`; returns the data YAML."""
    from yolo_lt.convert import convert as run

    return run(*names, **kw)


def checks(*names: str, **kw: Any) -> list[str]:
    """`yolo-lt checks`: see `yolo_lt.checks.checks`; returns what was printed."""
    from yolo_lt.checks import checks as run

    return run(*names, **kw)


def make_lt(data: Any = None, **kw: Any) -> Path:
    """`yolo-lt make-lt`: see `yolo_lt.ultra.subsets.run_make_lt`; returns the new data YAML."""
    from yolo_lt.ultra.subsets import run_make_lt

    return _new_set("make-lt", run_make_lt, data, kw)


def split(data: Any = None, **kw: Any) -> Path:
    """`yolo-lt split`: see `yolo_lt.ultra.subsets.run_split`; returns the new data YAML."""
    from yolo_lt.ultra.subsets import run_split

    return _new_set("split", run_split, data, kw)


def _new_set(verb: str, run: Callable[..., Path], data: Any, kw: dict[str, Any]) -> Path:
    """Make a data set out of another one; of Ultralytics' keys data and seed act."""
    ours, theirs = config.split({"data": data, **kw}, verb)
    if idle := [name for name, value in theirs.items() if name not in ("data", "seed", "cfg") and value is not None]:
        raise UsageError(f"{idle[0]} does not act in {verb}")
    lt = config.resolve(ours)
    config.check_acting(ours, lt)
    return run(data, lt, int(theirs.get("seed") or 0))


def demo(**kw: Any) -> dict[str, Report]:
    """`yolo-lt demo`: see `yolo_lt.demo.run`."""
    from yolo_lt.demo import run

    return run(**kw)


def _checkpoint(verb: str, model: Any, kw: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The checkpoint that a verb works on and its other keys, checked before the model is loaded."""
    kw = config.merge_cfg_file(kw)
    resume, model = kw.get("resume"), model or kw.pop("model", None)
    model = model or (resume if isinstance(resume, (str, Path)) else None)
    if model is None:
        raise UsageError(f"model=... is missing: name the checkpoint for {verb}, for example model=best.pt")
    config.split(kw, verb)  # a mistyped key must not wait for the model to load
    return model, kw


def _open(model: str | Path, task: str | None) -> YOLOLT:
    """Load a checkpoint; a task that is given must be its own."""
    opened = YOLOLT(model, task=task)
    if task and task != opened.task:
        raise UsageError(f"task={task}: {model} is a model of task {opened.task}")
    return opened
