"""The public verbs in Python; the command line calls these same functions with the same keys."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # read when Ultralytics is imported: no pip install at run time
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "true")  # likewise: a checkpoint from others must not run code

from ultralytics import YOLO
from ultralytics.utils import LOGGER, RUNS_DIR
from ultralytics.utils.events import events
from ultralytics.utils.files import increment_path

from yolo_lt import config
from yolo_lt.balance.plan import Plan, make_plan
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate import Report
from yolo_lt.report import tables
from yolo_lt.ultra import args as checks
from yolo_lt.ultra import labels
from yolo_lt.ultra.evaluation import run_validation
from yolo_lt.ultra.runfiles import write_class_stats
from yolo_lt.ultra.trainer import PREFIX, TRAINERS

events.enabled = False  # Ultralytics' anonymous usage events: this package sends none


class YOLOLT(YOLO):
    """An Ultralytics YOLO that trains rebalanced and validates by frequency bin.

    `predict` and `export` are Ultralytics' own. The checkpoints it writes are ordinary Ultralytics checkpoints.

    Args:
        model: A .pt checkpoint (loaded without running code from it) or a model .yaml.
        task: Ultralytics' task; read from the model if not given.

    Raises:
        UsageError: An unsupported task or model family.
        LTError: A missing or unreadable file.
    """

    def __init__(self, model: str | Path, task: str | None = None, verbose: bool = False) -> None:
        checks.check_file(model)
        try:
            super().__init__(model, task=task, verbose=verbose)
        except NotImplementedError:  # RT-DETR and other heads without one of YOLO's tasks
            raise UsageError(f"model={model}: RT-DETR and other heads that are not YOLO's are not supported") from None
        except Exception as e:
            raise LTError(f"model={model}: {labels.plain(e)}") from None
        if not isinstance(self, YOLOLT):  # YOLO.__init__ swaps the class for YOLO-World, YOLOE and RT-DETR
            raise UsageError(f"model={model}: the {type(self).__name__} family is not supported by yolo_lt")
        checks.check_model(self.task, self.model)

    def train(self, **kw: Any) -> Any:
        """Train with a recipe; keys as on the command line (`yolo-lt train --help`), Ultralytics' keys included.

        Returns:
            Ultralytics' metrics of the final validation.

        Raises:
            UsageError: Unknown, mistyped or conflicting keys.
            LTError: Missing or bad data.
        """
        ours, theirs = config.split(kw, "train")
        if theirs.get("resume"):
            return self._resume(ours, theirs)
        lt = config.resolve(ours)
        checks.check_keys(theirs)
        checks.check_conflicts(theirs, lt)
        _plan(theirs.get("data"), lt, self.task, theirs, splits=("val",))
        theirs.setdefault("augmentations", [])  # with albumentations installed Ultralytics would add blur and grey
        return super().train(trainer=partial(TRAINERS[self.task], lt=lt), **theirs)

    def _resume(self, ours: dict[str, Any], theirs: dict[str, Any]) -> Any:
        """Go on with an unfinished run; its recipe is in the checkpoint."""
        if set(ours) - {"debug", "allow_download"}:
            raise UsageError(f"resume keeps the run's recipe: leave out {', '.join(sorted(ours))}")
        path = checks.check_resume(theirs["resume"], getattr(self, "ckpt_path", None))
        return super().train(trainer=TRAINERS[self.task], **{**theirs, "resume": str(path)})

    def val(self, **kw: Any) -> Report:
        """Validate by frequency bin; writes report.json, matches.npz and per_class.csv into Ultralytics' val folder.

        Raises:
            UsageError: Unknown, mistyped or conflicting keys, or oriented boxes, which this version does not evaluate.
            LTError: Missing or bad data, or another class count than the checkpoint's.
        """
        ours, theirs = config.split(kw, "val")
        checks.check_keys(theirs)
        return run_validation(self, super().val, config.resolve(ours), ours.get("bins"), theirs)

    def finetune_head(self, **kw: Any) -> NoReturn:
        """Re-train the classifier on a frozen trunk."""
        raise not_yet("finetune-head")

    def calibrate(self, *args: Any, **kw: Any) -> NoReturn:
        """Fold a per-class calibration into the checkpoint."""
        raise not_yet("calibrate")

    def tune(self, *args: Any, **kw: Any) -> NoReturn:
        """Refused: Ultralytics' tuner runs stock trainers, so a recipe would silently do nothing."""
        raise UsageError("tune() is not supported: Ultralytics' tuner runs stock trainers, so no recipe would act")


def not_yet(verb: str) -> UsageError:
    """The error of a verb that the design names and this version lacks."""
    return UsageError(f"'{verb}' is not in this version yet")


def train(model: str | Path | None = None, **kw: Any) -> Any:
    """`yolo-lt train`: see `YOLOLT.train`."""
    kw = config.merge_cfg_file(kw)
    resume, model = kw.get("resume"), model or kw.pop("model", None)
    model = model or (resume if isinstance(resume, (str, Path)) else None)
    if model is None and resume is True:
        model = checks.check_resume(True, None)
    if model is None:
        raise UsageError("model=... is missing: name a checkpoint or a model YAML, for example model=yolo26n.pt")
    config.split(kw, "train")  # a mistyped key must not wait for the model to load
    return YOLOLT(model, task=kw.pop("task", None)).train(**kw)


def val(model: str | Path | None = None, **kw: Any) -> Report:
    """`yolo-lt val`: see `YOLOLT.val`."""
    kw = config.merge_cfg_file(kw)
    model = model or kw.pop("model", None)
    if model is None:
        raise UsageError("model=... is missing: name the checkpoint to validate, for example model=best.pt")
    config.split(kw, "val")
    return YOLOLT(model, task=kw.pop("task", None)).val(**kw)


def stats(data: Any = None, **kw: Any) -> Plan:
    """`yolo-lt stats`: counts, imbalance and bins of the training split, and what the recipe would do with them.

    Writes class_stats.csv and class_rank.png into a new folder (`project=`, `name=`).
    """
    ours, theirs = config.split({"data": data, **kw}, "stats")
    checks.check_keys(theirs)
    plan = _plan(data, config.resolve(ours), theirs.get("task", "detect"), theirs)
    LOGGER.info(tables.stats_text(plan))
    name = Path(theirs.get("project") or RUNS_DIR) / str(theirs.get("name") or "stats")
    folder = increment_path(name, exist_ok=bool(theirs.get("exist_ok")), mkdir=True)
    write_class_stats(folder, plan)
    from yolo_lt.report.plots import rank_plot  # matplotlib is slow to load

    rank_plot(folder / "class_rank.png", plan)
    LOGGER.info(f"\n{PREFIX}class_stats.csv and class_rank.png are in {folder}")
    return plan


def demo(**kw: Any) -> dict[str, Report]:
    """`yolo-lt demo`: see `yolo_lt.demo.run`."""
    from yolo_lt.demo import run

    return run(**kw)


def _plan(data: Any, lt: dict[str, Any], task: str, theirs: dict[str, Any], splits: tuple[str, ...] = ()) -> Plan:
    """Check the data, in further splits too, and resolve the recipe, before anything is created."""
    parsed = labels.load_data(data, allow_download=lt["allow_download"])
    if theirs.get("single_cls"):
        parsed = {**parsed, "names": {0: "item"}}
    scans = []
    try:
        scans.append(labels.scan(parsed, "train", task, theirs))
        plan = make_plan(labels.stats_of(scans[0].labels, parsed), lt)
        scans += [labels.scan(parsed, split, task, theirs, empty=True) for split in splits]
    except LTError:
        for scanned in scans:
            scanned.forget()
        raise
    if dropped := scans[0].corrupt:
        LOGGER.warning(f"{PREFIX}Ultralytics drops {len(dropped)} corrupt images or labels, the first: {dropped[0]}")
    if theirs.get("fraction", 1) not in (1, 1.0, None):
        LOGGER.warning(f"{PREFIX}fraction takes the first files in alphabetical order and may drop tail classes")
    return plan
