"""What is checked before a trainer or validator exists, as Ultralytics creates the run folder in their constructors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES
from ultralytics.utils.files import get_latest_run

from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra.labels import plain

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

    Raises:
        UsageError: An unsupported task or head, or a model that is no PyTorch checkpoint.
    """
    if task not in TASKS:
        raise UsageError(f"task '{task}' is not supported: yolo_lt works on {', '.join(TASKS)}")
    if not isinstance(model, nn.Module):
        raise UsageError(f"model={model} is an exported file: give a .pt checkpoint or a .yaml")
    head = type(model.model[-1]).__name__
    if any(name in head for name in UNSUPPORTED_HEADS):
        raise UsageError(f"the model family with a {head} head is not supported by yolo_lt")


def check_conflicts(theirs: dict[str, Any], lt: dict[str, Any]) -> None:
    """Refuse pairs of keys of which one would silently undo or double the other.

    Raises:
        UsageError: `rect=true` with a sampler, or `cls_pw` with our loss.
    """
    if theirs.get("rect") and lt["sampler"] != "none":
        raise UsageError("rect=true fixes the order of images, so no sampler can act: use rect=false or sampler=none")
    if theirs.get("cls_pw") and lt["cls_loss"] != "bce":
        raise UsageError(f"cls_pw and cls_loss={lt['cls_loss']} would multiply: use one of them")


def check_resume(resume: Any, model: Any) -> Path:
    """The checkpoint that `resume=` names, by path or through `model=`.

    Raises:
        LTError: There is none, or it was not written by an unfinished `yolo-lt train`.
    """
    path = Path(str(resume if resume is not True else model or get_latest_run() or ""))
    if not path.is_file():
        raise LTError(f"resume={resume}: there is no checkpoint '{path}'; name one, for example resume=last.pt")
    ckpt = _load(path)
    if ckpt.get("optimizer") is None or ckpt.get("epoch", -1) < 0:
        raise LTError(f"{path} is of a finished training: there is nothing to resume")
    if "lt" not in (ckpt.get("train_args") or {}):
        raise LTError(f"{path} was not trained by yolo-lt: resume it with `yolo train resume model={path}`")
    return path


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
