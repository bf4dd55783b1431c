"""YOLOLT: an Ultralytics YOLO whose verbs are ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics import YOLO
from ultralytics.engine.results import Results

from yolo_lt import config
from yolo_lt.calibrate.thresholds import read_thresholds
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate import Report
from yolo_lt.ultra import args as checks
from yolo_lt.ultra import decoupled, labels
from yolo_lt.ultra.calibration import run_calibration
from yolo_lt.ultra.comparison import check_baseline, write_compared
from yolo_lt.ultra.evaluation import run_validation, write_report
from yolo_lt.ultra.export import run_export
from yolo_lt.ultra.predictor import PREDICTORS
from yolo_lt.ultra.preflight import read_plan
from yolo_lt.ultra.runfiles import find_lt
from yolo_lt.ultra.stage_two import HEAD_TRAINERS
from yolo_lt.ultra.trainer import TRAINERS


class YOLOLT(YOLO):
    """An Ultralytics YOLO that trains rebalanced, validates by frequency bin and predicts with a threshold per class.

    The checkpoints that it writes are ordinary Ultralytics checkpoints.

    Args:
        model: A .pt checkpoint (loaded without running code from it), a model .yaml, or, to predict with, an exported
            file.
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
        checks.check_trainable(self.model)
        ours, theirs = config.split(kw, "train")
        if theirs.get("resume"):
            return self._resume(ours, theirs)
        two = ours.get("recipe") == "decoupled"
        if two:
            checks.check_two_stages()
        else:
            checks.check_one_stage(ours)
        lt, theirs = decoupled.stages(ours, theirs) if two else (config.resolve(ours), theirs)
        lt |= _given_max_det(theirs)
        checks.check_keys(theirs)
        config.check_acting({} if two else ours, lt)
        checks.check_conflicts(theirs, lt, self.task)
        read_plan(theirs.get("data"), lt, self.task, theirs, splits=("val",))
        if two:  # what stage two would refuse must not wait for the end of stage one
            head_lt, head_theirs = self._head_keys(lt["stage_two"], "the checkpoint of stage one")
            read_plan(theirs.get("data"), head_lt, self.task, head_theirs)
        theirs.setdefault("augmentations", [])  # with albumentations installed Ultralytics would add blur and grey
        metrics = super().train(trainer=partial(TRAINERS[self.task], lt=lt), **theirs)
        return self._stage_two(Path(self.trainer.save_dir)) if two else metrics

    def _resume(self, ours: dict[str, Any], theirs: dict[str, Any]) -> Any:
        """Go on with an unfinished run; its recipe is in the checkpoint, and what follows it in lt.yaml."""
        if set(ours) - {"debug", "allow_download"}:
            raise UsageError(f"resume keeps the run's recipe: leave out {', '.join(sorted(ours))}")
        last = checks.resume_path(theirs["resume"], getattr(self, "ckpt_path", None))
        run = last.absolute().parent.parent
        if checks.is_finished(last) and decoupled.stage_two(run):  # stage one is done
            last = decoupled.head_checkpoint(run)
            if not last.is_file():
                return self._stage_two(run)
        path, lt = checks.check_resume(last)
        trainers = HEAD_TRAINERS if lt.get("head_of") else TRAINERS
        metrics = super().train(trainer=trainers[self.task], **{**theirs, "resume": str(path)})
        return self._stage_two(run) if lt.get("stage_two") else metrics

    def _stage_two(self, run: Path) -> Any:
        """Stage two of recipe=decoupled, in this object, on the last checkpoint of its finished stage one."""
        self._load(str(run / "weights" / "last.pt"))
        return self.finetune_head(**(decoupled.stage_two(run) or {}))

    def finetune_head(self, **kw: Any) -> Any:
        """Re-train the classification branch of this checkpoint on its frozen trunk and box branch.

        The images that stage one set apart (`holdout`, in lt.yaml beside the checkpoint) stay apart, and best.pt is
        chosen on them; without a holdout it is chosen on val, as in Ultralytics.

        Returns:
            Ultralytics' metrics of the final validation.

        Raises:
            UsageError: Unknown, mistyped or conflicting keys, or a model that is no unfused checkpoint.
            LTError: Missing or bad data, other classes than the checkpoint's, or no image for the strategy.
        """
        ours, theirs = config.split(kw, "finetune-head")
        if theirs.get("resume"):
            return self._resume(ours, theirs)
        weights = checks.check_stage_one(self)
        lt, theirs = self._head_keys(kw, str(weights))
        recorded = (find_lt(weights) or {}).get("holdout")
        plan, *_ = read_plan(theirs["data"], lt, self.task, theirs, splits=("val",), recorded=recorded)
        checks.check_classes(weights, self.names, plan.stats.names)
        theirs.setdefault("augmentations", [])
        return super().train(trainer=partial(HEAD_TRAINERS[self.task], lt=lt), **theirs)

    def _head_keys(self, kw: dict[str, Any], head_of: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Every yolo-lt key and the Ultralytics keys of a finetune-head call, checked."""
        ours, theirs = config.split(kw, "finetune-head")
        usual, schedule = config.split(config.stage_two_defaults(), "finetune-head")
        lt = {**config.resolve(usual | ours), "head_of": head_of, **_given_max_det(theirs)}
        if lt["strategy"] == "scale":
            lt["head_part"] = "last"
        theirs = {**schedule, **theirs, "data": theirs.get("data") or self.overrides.get("data")}
        checks.check_keys(theirs)
        config.check_acting(ours, lt)
        checks.check_conflicts(theirs, lt, self.task)
        checks.check_stage_two(theirs, lt, self.task)
        return lt, checks.fix_augmentation(theirs, lt)

    def val(self, **kw: Any) -> Report:
        """Validate by frequency bin; writes report.json, matches.npz and per_class.csv into Ultralytics' val folder.

        `baseline=` validates another checkpoint in the same way, or reads the folder of an earlier val, and adds the
        paired difference.

        Raises:
            UsageError: Unknown, mistyped or conflicting keys, or a protocol that the data do not suit.
            LTError: Missing or bad data, another class count than the checkpoint's, or a baseline that cannot be
                paired.
        """
        checks.check_trainable(self.model)
        ours, theirs = config.split(kw, "val")
        checks.check_keys(theirs)
        lt = config.resolve(ours)
        config.check_acting(ours, lt)
        if lt["detections"] != "none":
            raise UsageError("detections= is evaluated without a model: leave model out")
        check_baseline(lt["baseline"])
        report, folder = run_validation(self, super().val, lt, ours, theirs)
        plots = theirs.get("plots") is not False
        if lt["baseline"] == "none":
            write_report(folder, report, plots)
            return report
        beside = {**theirs, "name": f"{folder.name}-baseline", "project": str(folder.parent)}
        given = {name: value for name, value in ours.items() if name not in ("baseline", "official")}
        alike = partial(_validate, lt={**lt, "official": False}, ours=given, theirs=beside)
        return write_compared(report, folder, lt["baseline"], alike, plots)

    def predict(
        self, source: Any = None, stream: bool = False, predictor: Any = None, **kw: Any
    ) -> list[Results] | Iterator[Results]:
        """Predict as Ultralytics does, with `thresholds=` a file of confidences per class instead of one for all.

        A class that the file leaves out keeps `conf=`; `ultra/predictor.py` says what a threshold means. Drawn images
        are saved with `save=True`, predictions.json with `save_json=True`, as always in Ultralytics only when asked.

        Args:
            source: Ultralytics' sources: image, folder, video, glob, list, array, tensor, URL ...
            stream: Give a generator; nothing runs, and no file is written, until it is consumed.
            predictor: A predictor class of your own, which then knows neither `thresholds` nor `save_json`.
            **kw: Keys as on the command line.

        Returns:
            Ultralytics' Results.

        Raises:
            UsageError: Unknown, mistyped or conflicting keys, or oriented boxes without a source.
            LTError: A missing source or thresholds file, or one that does not fit the model.
        """
        ours, theirs = config.split(kw, "predict")
        listed = theirs.pop("source", None)  # from a cfg= file
        source = listed if source is None else source
        checks.check_keys(theirs)
        checks.check_prediction(self.task, source, predictor, ours, theirs)
        thresholds = self._thresholds(ours, theirs)
        if thresholds is not None:
            theirs["conf"] = float(thresholds.min())  # NMS must see the candidates of every class
        if predictor is None:
            predictor, theirs["prompts"] = PREDICTORS[self.task], {"thresholds": thresholds}
        return super().predict(source, stream, predictor, **theirs)

    def _thresholds(self, ours: dict[str, Any], theirs: dict[str, Any]) -> np.ndarray | None:
        """The thresholds of all classes, shape (C,), or None if none are given."""
        if ours.get("thresholds", "none") == "none":
            return None
        default = 0.25 if theirs.get("conf") is None else theirs["conf"]  # Ultralytics' default in predict
        return read_thresholds(ours["thresholds"], [name for _, name in sorted(self.names.items())], default)

    def export(self, **kw: Any) -> str:
        """Export, to ONNX if no `format` is given; an ONNX file is checked against the checkpoint before it is kept.

        Returns:
            Path of the exported file or folder.

        Raises:
            UsageError: Unknown, mistyped or conflicting keys, or a model that is an exported file already.
            LTError: A missing package, bad files or data, or a file that differs from the checkpoint.
        """
        checks.check_trainable(self.model)
        ours, theirs = config.split(kw, "export")
        checks.check_keys(theirs)
        return run_export(self, super().export, config.resolve(ours), theirs)

    def calibrate(self, **kw: Any) -> dict[str, Any]:
        """Fold a per-class map of the logits into a copy of this checkpoint, which is itself left as it is.

        What is chosen is chosen on the images that the training set apart (`holdout`, in lt.yaml beside the
        checkpoint), and shown on the validation split. `conf=` is the confidence at which precision and recall are
        shown; `val=false` leaves the validation split out.

        Returns:
            The content of calibration.json; `weights` is the path of the new checkpoint.

        Raises:
            UsageError: Unknown, mistyped or conflicting keys, a model that is no unfused checkpoint, or one that is
                calibrated already.
            LTError: Missing or bad data, other classes than the checkpoint's, or no holdout or too small a one.
        """
        ours, theirs = config.split(kw, "calibrate")
        weights = checks.check_stage_one(self, "calibrate")
        theirs = {**theirs, "data": theirs.get("data") or self.overrides.get("data")}
        checks.check_keys(theirs)
        lt = config.resolve(ours)
        checks.check_calibration(theirs, lt, weights)
        return run_calibration(self, weights, lt, theirs)

    def tune(self, *args: Any, **kw: Any) -> Any:
        """Refused: Ultralytics' tuner runs stock trainers, so a recipe would silently do nothing."""
        raise UsageError("tune() is not supported: Ultralytics' tuner runs stock trainers, so no recipe would act")


def _validate(path: str, lt: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> Report:
    """Validate another checkpoint by the same keys; its report is written, too."""
    model = YOLOLT(path)
    report, folder = run_validation(model, super(YOLOLT, model).val, lt, ours, theirs)
    write_report(folder, report, theirs.get("plots") is not False)
    return report


def _given_max_det(theirs: dict[str, Any]) -> dict[str, Any]:
    """max_det if it was given, which Ultralytics cannot tell from its default."""
    return {} if theirs.get("max_det") is None else {"max_det": theirs["max_det"]}
