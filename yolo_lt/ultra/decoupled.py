"""`recipe=decoupled`: stage one and stage two in one command, recorded so that a killed run can go on.

Stage two lies in the folder `head` of stage one's run, whose lt.yaml holds the keys of the finetune-head call to come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_lt import config
from yolo_lt.errors import UsageError
from yolo_lt.ultra.runfiles import find_lt

FOLDER = "head"
# Of our keys: both stages; holdout is stage one's.
SHARED = ("bins", "epoch_length", "protocol", "hierarchy", "select", "allow_download", "debug")
STAGE_ONE_ONLY = (  # of Ultralytics' keys: stage two has its own schedule, from cfg/finetune-head.yaml
    *("epochs", "optimizer", "lr0", "lrf", "cos_lr", "momentum", "weight_decay", "close_mosaic", "patience"),
    *("warmup_epochs", "warmup_momentum", "warmup_bias_lr"),
    *("model", "pretrained", "freeze", "project", "name", "exist_ok", "save_dir", "resume", "mode"),
)


def stages(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the keys of one call into those of its stages.

    Args:
        ours: The given yolo-lt keys, `recipe=decoupled` among them.
        theirs: The given Ultralytics keys; `epochs` counts both stages.

    Returns:
        Every yolo-lt key of stage one, in which `stage_two` holds the keys of the finetune-head call after it, and
        stage one's Ultralytics keys.

    Raises:
        UsageError: The epochs leave nothing for stage one, or `time=`, of which the share of a stage is not known.
    """
    recipe = {**config.load_recipe("decoupled"), **ours}
    epochs = int(theirs.get("epochs") or config.ultralytics_defaults()["epochs"])
    last = recipe["head_epochs"]
    last = max(round(epochs / 5), 1) if last in (None, "auto") else last
    if last >= epochs:
        raise UsageError(f"head_epochs={last} of epochs={epochs} leaves none for stage one")
    if theirs.get("time"):
        raise UsageError("time= cannot be shared out between two stages: give recipe=decoupled epochs=")
    first = {k: recipe[k] for k in (*SHARED, "holdout") if k in recipe}
    second = {k: v for k, v in recipe.items() if "finetune-head" in config.keys()[k].verbs and k != "recipe"}
    second |= {k: v for k, v in theirs.items() if k not in STAGE_ONE_ONLY}
    lt = config.resolve({**first, "recipe": recipe["stage_one"]})
    return {**lt, "stage_two": {**second, "epochs": last}}, {**theirs, "epochs": epochs - last}


def stage_two(run: Path) -> dict[str, Any] | None:
    """The finetune-head call that follows a finished stage one in this run folder, or None if none was planned."""
    lt = find_lt(run / "weights" / "last.pt")
    keys = (lt or {"keys": {}})["keys"].get("stage_two")
    return {**keys, "project": str(run), "name": FOLDER, "exist_ok": True} if keys else None


def head_checkpoint(run: Path) -> Path:
    """The last checkpoint of stage two in a run folder; it need not exist yet."""
    return run / FOLDER / "weights" / "last.pt"
