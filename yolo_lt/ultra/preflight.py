"""The data and the plan, read and checked before a trainer exists and before anything is created."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ultralytics.utils import LOGGER, colorstr

from yolo_lt.balance.paste import class_need
from yolo_lt.balance.plan import Plan
from yolo_lt.config import ultralytics_defaults
from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra import labels
from yolo_lt.ultra.augment import read_policy
from yolo_lt.ultra.bank import choose
from yolo_lt.ultra.epochs import check_select, classes_in
from yolo_lt.ultra.federated import index_for
from yolo_lt.ultra.holdout import plan_split

PREFIX = colorstr("yolo-lt: ")


def read_plan(
    data: Any,
    lt: dict[str, Any],
    task: str,
    theirs: dict[str, Any],
    splits: Sequence[str] = (),
    recorded: Sequence[str] | None = None,
) -> tuple[Plan, labels.LabelScan, dict[str, Any]]:
    """Read the labels of train, and of further splits, and resolve the recipe.

    Args:
        data: The data YAML.
        lt: Every yolo-lt key.
        task: Ultralytics' task.
        theirs: Ultralytics' keys.
        splits: Further splits that must be readable.
        recorded: Training images that an earlier stage set apart.

    Returns:
        The plan, the labels of train, and the parsed data YAML.

    Raises:
        UsageError: A missing or unsupported `data=`, or a key out of range or beside another that it would undo.
        LTError: Bad data; a label cache that this reading wrote is removed again.
    """
    parsed = labels.load_data(data, allow_download=lt["allow_download"])
    if theirs.get("single_cls"):
        parsed = {**parsed, "names": {0: "item"}}
    scans = []
    try:
        scans.append(labels.scan(parsed, "train", task, theirs))
        seed = int(theirs.get("seed") or 0)
        plan, apart = plan_split(scans[0], parsed, lt, recorded, seed)
        if theirs.get("cls_pw") and plan.reweighs:
            raise UsageError("cls_pw cannot act beside cls_loss, box_weight or federated labels: use one of them")
        _check_changes(plan, scans[0], ~apart, theirs, seed)
        scans += [labels.scan(parsed, split, task, theirs, empty=True) for split in splits]
        if splits:
            _check_epochs(plan, scans, apart if recorded else None, parsed)
            if lt.get("stage_two") and apart.any():  # stage two will compare its epochs on the holdout
                _check_epochs(plan, scans, apart, parsed)
    except LTError:
        for scanned in scans:
            scanned.forget()
        raise
    if dropped := scans[0].corrupt:
        LOGGER.warning(f"{PREFIX}Ultralytics drops {len(dropped)} corrupt images or labels, the first: {dropped[0]}")
    if theirs.get("fraction", 1) not in (1, 1.0, None):
        LOGGER.warning(f"{PREFIX}{_fraction_text(plan, theirs['fraction'])}")
    return plan, scans[0], parsed


def _check_epochs(plan: Plan, scans: list[labels.LabelScan], held: np.ndarray | None, data: dict[str, Any]) -> None:
    """Refuse a choice of best.pt, or a protocol, for which the images that epochs are compared on do not suffice."""
    shown = scans[-1].labels if held is None else [scans[0].labels[i] for i in np.flatnonzero(held)]
    check_select(plan.keys["select"], plan.bins, classes_in(shown, plan.stats.num_classes))
    split = ("val", scans[-1]) if held is None else ("train", scans[0])
    index_for(plan.keys["protocol"], split[1], data, plan.keys["federated"], split[0])


def _fraction_text(plan: Plan, fraction: float) -> str:
    """Ultralytics' `fraction` is no sample: say which classes it leaves without an image."""
    lost = [plan.stats.names[c] for c in plan.bins.unseen]
    many = f" and {len(lost) - 10} more" if len(lost) > 10 else ""
    left = f"fraction={fraction} leaves no image of {', '.join(lost[:10])}{many}" if lost else "every class has images"
    return f"fraction takes the first files in alphabetical order: {left}"


def _check_changes(plan: Plan, scanned: labels.LabelScan, kept: np.ndarray, theirs: dict[str, Any], seed: int) -> None:
    """Refuse a policy that cannot be read, and tail paste without an instance to paste."""
    if isinstance(plan.keys["tail_augment"], str):
        read_policy(plan.keys["tail_augment"])
    if plan.paste_share:
        of_kept = [scanned.labels[i] for i in np.flatnonzero(kept)]
        imgsz, need = theirs.get("imgsz") or ultralytics_defaults()["imgsz"], class_need(plan.stats, plan.bins)
        choose(of_kept, int(imgsz), need, plan.keys["paste_memory"], seed, scanned.channels)
