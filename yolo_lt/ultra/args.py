"""What is checked before a trainer or validator exists, as Ultralytics creates the run folder in their constructors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import RANK
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES
from ultralytics.utils.files import get_latest_run

from yolo_lt.config import keys
from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra.features import AUGMENTATION
from yolo_lt.ultra.head import class_branches
from yolo_lt.ultra.labels import plain
from yolo_lt.ultra.validator import VALIDATORS

TASKS = ("detect", "segment", "pose", "obb")
UNSUPPORTED_HEADS = ("World", "YOLOE", "RTDETR", "Classify", "Semantic", "Depth")


def check_keys(theirs: dict[str, Any]) -> None:
    """Ultralytics' own type and range checks on its keys, before anything is created.

    Raises:
        UsageError: A value that Ultralytics does not accept.
    """
    try:
        get_cfg(overrides=dict(theirs))
    except (TypeError, ValueError, SyntaxError) as e:
        raise UsageError(plain(e)) from None


def check_model(task: str, model: Any) -> None:
    """Refuse tasks and model families on which our options would silently do nothing.

    An exported file does not tell its head; it can only predict, which needs nothing of the head.

    Raises:
        UsageError: An unsupported task or head.
    """
    if task not in TASKS:
        raise UsageError(f"task '{task}' is not supported: yolo_lt works on {', '.join(TASKS)}")
    if not isinstance(model, nn.Module):
        return
    head = type(model.model[-1]).__name__
    if any(name in head for name in UNSUPPORTED_HEADS):
        raise UsageError(f"the model family with a {head} head is not supported by yolo_lt")


def check_trainable(model: Any) -> None:
    """Refuse exported files where a PyTorch model is needed.

    Raises:
        UsageError: The model is an exported file.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model={model} is an exported file, which can only predict: give a .pt checkpoint or a .yaml")


def check_prediction(task: str, source: Any, predictor: Any, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Refuse predictions in which a key could not act, or which would download what nobody asked for.

    Raises:
        UsageError: `thresholds` or `save_json` with `embed` or with another predictor; oriented boxes without source.
    """
    acting = [k for k in ("thresholds", "save_json") if {**theirs, **ours}.get(k) not in (None, False, "none")]
    for name, given in (("embed", theirs.get("embed")), ("predictor", predictor)):
        if given and acting:
            raise UsageError(f"{acting[0]} cannot act together with {name}=: leave one of them out")
    if source is None and task == "obb":  # for the other tasks Ultralytics takes images from its own package
        raise UsageError("source=... is missing: name an image, folder or video (Ultralytics would download a sample)")


def check_conflicts(theirs: dict[str, Any], lt: dict[str, Any], task: str) -> None:
    """Refuse pairs of keys of which one would silently undo or double the other.

    Raises:
        UsageError: `rect=true` with a sampler, `cls_pw` with our loss, or `tail_paste` in pose or obb.
    """
    if theirs.get("rect") and lt["sampler"] != "none":
        raise UsageError("rect=true fixes the order of images, so no sampler can act: use rect=false or sampler=none")
    for name in ("tail_paste", "tail_augment"):
        if theirs.get("rect") and lt[name]:
            raise UsageError(f"rect=true trains without the changes that {name} makes to images: use rect=false")
    if lt["tail_paste"] and task not in ("detect", "segment"):
        raise UsageError(f"tail_paste works on detect and segment: an instance of {task} cannot be cut out by its box")
    if theirs.get("rect") and lt["holdout"]:
        raise UsageError("rect=true fixes the batches of all training images, so none can be set apart: use one")
    if theirs.get("cls_pw") and lt["cls_loss"] != "bce":  # other losses of ours show with the data, see preflight
        raise UsageError(f"cls_pw and cls_loss={lt['cls_loss']} would multiply: use one of them")


def resume_path(resume: Any, model: Any) -> Path:
    """The checkpoint that `resume=` names, by path or through `model=`.

    Raises:
        LTError: There is none.
    """
    path = Path(str(resume if resume is not True else model or get_latest_run() or ""))
    if not path.is_file():
        raise LTError(f"resume={resume}: there is no checkpoint '{path}'; name one, for example resume=last.pt")
    return path


def is_finished(path: Path) -> bool:
    """Whether a checkpoint is of a finished training, which Ultralytics strips of its optimizer."""
    ckpt = _load(path)
    return ckpt.get("optimizer") is None or ckpt.get("epoch", -1) < 0


def check_resume(path: Path) -> tuple[Path, dict[str, Any]]:
    """An unfinished checkpoint of `yolo-lt`, and the yolo-lt keys of its run.

    Raises:
        LTError: It is finished, or of another program.
    """
    if is_finished(path):
        raise LTError(f"{path} is of a finished training: there is nothing to resume")
    trained = _load(path).get("train_args") or {}
    if "lt" not in trained:
        raise LTError(f"{path} was not trained by yolo-lt: resume it with `yolo train resume model={path}`")
    return path, trained["lt"]


def check_one_stage(ours: dict[str, Any]) -> None:
    """Refuse keys of stage two, and of its coming about, where there is none.

    Raises:
        UsageError: One of them is given.
    """
    for name in ours:
        if keys()[name].section.startswith(("Two stages", "Stage two")):
            raise UsageError(f"{name} acts in train only with recipe=decoupled")


def check_two_stages() -> None:
    """Refuse both stages in processes that the user started: Ultralytics sets up their group once more per stage.

    Raises:
        UsageError: This is such a process.
    """
    if RANK != -1:
        raise UsageError(
            "recipe=decoupled cannot run in processes that you start yourself: give device=0,1,... and let Ultralytics "
            "start them, or run train and then finetune-head"
        )


def check_stage_one(model: Any, verb: str = "finetune-head") -> Path:
    """The checkpoint whose head is to be re-trained, or calibrated.

    Raises:
        UsageError: The model is no checkpoint, is fused, or has no classification branch.
    """
    if not model.ckpt or not getattr(model, "ckpt_path", None):
        raise UsageError(f"model={model.model_name}: {verb} needs a trained checkpoint (.pt), not a model YAML")
    if model.model.is_fused():
        raise UsageError(f"model={model.ckpt_path} was fused for inference: give the checkpoint before export")
    class_branches(model.model)
    return Path(str(model.ckpt_path)).absolute()


CALIBRATION = (  # of Ultralytics' keys: what acts in calibrate
    *("model", "task", "data", "imgsz", "batch", "device", "workers", "iou", "nms", "agnostic_nms", "quantize", "half"),
    *("conf", "val", "seed", "project", "name", "exist_ok", "verbose", "cfg", "mode"),
)


def check_calibration(theirs: dict[str, Any], lt: dict[str, Any], weights: Path) -> None:
    """Refuse what cannot act in calibrate, and what would be fitted on the wrong images.

    Raises:
        UsageError: `split=`, a file of thresholds, a key that does not act, or a strength that the method has not.
        LTError: The checkpoint is of an unfinished training.
    """
    if theirs.get("split") is not None:
        raise UsageError(
            f"split={theirs['split']}: calibrate fits on the holdout of the training alone, never on a split that is "
            "reported; leave split out"
        )
    for name, value in theirs.items():
        if name not in CALIBRATION and value is not None:
            raise UsageError(f"{name} does not act in calibrate")
    if isinstance(lt["thresholds"], str) and lt["thresholds"] not in ("none", "f1"):
        raise UsageError("calibrate chooses thresholds: give thresholds=f1, or the precision that is asked for")
    for name in ("strength", "judge"):
        if lt["method"] == "none" and lt[name] != "auto":
            raise UsageError(f"{name} does not act with method=none")
    if not is_finished(weights):
        raise LTError(f"{weights} is of an unfinished training: let it finish (train resume={weights}), or use best.pt")


def check_stage_two(theirs: dict[str, Any], lt: dict[str, Any], task: str) -> None:
    """Refuse what stage two sets itself, and what the task or several devices do not allow.

    Raises:
        UsageError: `freeze`, `pretrained=`, `recipe=decoupled`, or a strategy or cache that cannot work here.
    """
    if lt["strategy"] == "hard" and task not in VALIDATORS:
        raise UsageError(f"strategy=hard needs the evaluation of {task}, which is not in this version yet")
    for name in ("feature_cache", "strategy"):
        if lt[name] in (True, "hard") and _devices(theirs) > 1:
            raise UsageError(f"{name}={str(lt[name]).lower()} works in one process: give one device")
    if lt["recipe"] == "decoupled":
        raise UsageError("recipe=decoupled is both stages in one: give it to train; finetune-head is its stage two")
    for name in ("freeze", "pretrained", "distill_model", "single_cls", "classes"):
        if theirs.get(name) not in (None, False, []) or name in theirs.keys() & {"pretrained"}:
            raise UsageError(f"{name} cannot be given to finetune-head, which decides itself what learns and on what")


def fix_augmentation(theirs: dict[str, Any], lt: dict[str, Any]) -> dict[str, Any]:
    """Without views a feature cache holds every image as it is, so augmentation is off; with views it is kept.

    Raises:
        UsageError: An augmentation was asked for that could not act, or something that needs images or processes.
    """
    if not lt["feature_cache"]:
        return theirs
    if not lt["cache_views"]:
        for name in AUGMENTATION:
            if theirs.get(name):
                raise UsageError(f"{name}={theirs[name]} cannot act on cached features: cache_views=k keeps k views")
        theirs = {**theirs, **dict.fromkeys(AUGMENTATION, 0)}
    for name in ("compile", "multi_scale", "tail_paste", "tail_augment"):
        if {**theirs, **lt}.get(name):
            raise UsageError(f"{name} cannot act on cached features: leave it out, or use feature_cache=false")
    return {**theirs, "close_mosaic": 0}


def _devices(theirs: dict[str, Any]) -> int:
    device = theirs.get("device")
    return len(device) if isinstance(device, (list, tuple)) else str(device or "").count(",") + 1


def check_classes(weights: Path, names: dict[int, str], data: Sequence[str]) -> None:
    """The checkpoint must know the data's classes, in the same order.

    Raises:
        LTError: Another number of classes, or the same names at other places: Ultralytics would then carry over the
            rows with equal names and leave the others at random.
    """
    own = [str(names[i]) for i in range(len(names))]
    if len(own) != len(data):
        raise LTError(f"{weights} has {len(own)} classes and the data YAML names {len(data)}: train it on them first")
    differ = [i for i, (a, b) in enumerate(zip(own, data, strict=True)) if a != str(b)]
    if differ and set(own) & {str(b) for b in data}:
        i = differ[0]
        raise LTError(f"class {i} is '{own[i]}' in {weights} and '{data[i]}' in the data YAML: the names must agree")


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch_safe_load(str(path), safe_only=True)[0]
    except Exception as e:
        raise LTError(f"{path} is no Ultralytics checkpoint: {plain(e)}") from None


def check_file(model: Any) -> None:
    """Load a local checkpoint once with code execution off, also where Ultralytics was imported before us.

    A bare name may be one of Ultralytics' own weights or model YAMLs, which it finds or downloads itself.

    Raises:
        LTError: The file is missing or holds anything but Ultralytics' own classes.
    """
    path = Path(str(model))
    known = path.parent == Path() and (path.suffix != ".pt" or path.name in GITHUB_ASSETS_NAMES)
    if path.suffix == ".pt" and path.is_file():
        _load(path)
    elif path.suffix in {".pt", ".yaml", ".yml"} and not path.is_file() and not known:
        raise LTError(f"model={model}: no such file")
