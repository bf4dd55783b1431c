"""`yolo-lt stats`: what a data set's labels and images say before anything is trained on them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ultralytics.data.utils import img2label_paths

from yolo_lt import config
from yolo_lt.balance.advice import Findings, recipe_costs, recommend
from yolo_lt.balance.plan import Plan, make_plan
from yolo_lt.dataset.diagnosis.context import class_context
from yolo_lt.dataset.diagnosis.defects import file_defects
from yolo_lt.dataset.diagnosis.label_rows import Form
from yolo_lt.dataset.diagnosis.leaks import find_leaks, joined, label_conflicts
from yolo_lt.dataset.diagnosis.suspects import find_gaps, find_suspects
from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError
from yolo_lt.report.diagnosis import Diagnosis
from yolo_lt.ultra import labels
from yolo_lt.ultra.preflight import read_plan
from yolo_lt.ultra.twins import find_twins

MOST_FILES = 1000  # label files that are read again for the lines of their defects, about a millisecond each
_IMAGE = re.compile(r"^(?:\w+: )?(?P<image>.+?): (?:ignoring corrupt image/label|\d+ duplicate labels removed)")


@dataclass(frozen=True)
class _Split:
    """One split in memory: N images, M boxes."""

    scan: labels.LabelScan
    stats: ClassStats
    box: np.ndarray

    @classmethod
    def of(cls, scan: labels.LabelScan, data: dict[str, Any]) -> _Split:
        """From Ultralytics' labels."""
        boxes = [x["bboxes"] for x in scan.labels]
        box = np.concatenate(boxes) if boxes else np.zeros((0, 4), np.float32)
        return cls(scan, labels.stats_of(scan.labels, data), box)

    @property
    def files(self) -> list[str]:
        """The images that Ultralytics kept."""
        return [x["im_file"] for x in self.scan.labels]

    @property
    def complained(self) -> list[str]:
        """The images that the reading of labels complained of."""
        plain = (labels.uncoloured(message) for message in self.scan.scan_messages)
        return [m["image"] for m in map(_IMAGE.match, plain) if m]


def diagnose(data: Any, lt: dict[str, Any], ours: Mapping[str, Any], theirs: dict[str, Any]) -> Diagnosis:
    """Find out what `report/diagnosis.py` tells.

    Args:
        data: The data YAML.
        lt: Every yolo-lt key.
        ours: The given yolo-lt keys.
        theirs: Ultralytics' keys.

    Raises:
        UsageError: Bad keys.
        LTError: Bad data.
    """
    task = theirs.get("task", "detect")
    plan, scan, parsed = read_plan(data, lt, task, theirs)
    train = _Split.of(scan, parsed)
    others = [name for name in ("val", "test") if parsed.get(name)]
    same = [name for name in others if parsed[name] == parsed["train"]]
    splits = {"train": train, **_read(parsed, [name for name in others if name not in same], task, theirs)}
    paths = [split.files for split in splits.values()]
    twins = find_twins([path for of in paths for path in of], lt["duplicates"], lt["groups"])
    stats, box = joined([s.stats for s in splits.values()]), np.concatenate([s.box for s in splits.values()])
    leaks = find_leaks({name: s.stats for name, s in splits.items()}, twins.groups)
    conflicts = label_conflicts(twins.exact, stats, box)
    scenes = None if twins.scenes is None else twins.scenes[: train.stats.num_images]
    context = class_context(train.stats, train.box, scenes)
    costs = recipe_costs(_plans(plan, ours, train.stats), int(theirs.get("epochs") or 100))
    known = Findings(context, leaks, conflicts, plan.federated)
    suspects = find_suspects(train.stats, train.box, np.array([x["shape"] for x in scan.labels]))
    again = sorted({*train.complained, *(train.files[i] for i in suspects.images(train.stats).tolist())})
    return Diagnosis(
        plan=plan,
        context=context,
        defects=_defects(again[:MOST_FILES], {x["im_file"]: x["shape"] for x in scan.labels}, parsed, task, theirs),
        suspects=suspects if len(again) > MOST_FILES else None,
        **_gaps(splits, parsed),
        leaks=leaks,
        paths=[[labels.below(path, parsed) for path in of] for of in paths],
        conflicts=conflicts,
        costs=costs,
        advice=recommend(train.stats, plan.bins, known),
        notes=(*twins.notes, *(f"{name} has the very images of train, so its AP says nothing." for name in same)),
    )


def _read(data: dict[str, Any], names: Sequence[str], task: str, theirs: dict[str, Any]) -> dict[str, _Split]:
    """Some splits, those that can be read."""
    found = {}
    for name in names:
        try:
            found[name] = _Split.of(labels.scan(data, name, task, theirs, empty=True), data)
        except LTError:  # train is what is diagnosed; val may not be there yet
            continue
    return found


def _plans(plan: Plan, ours: Mapping[str, Any], stats: ClassStats) -> dict[str, Plan]:
    """The plan of every recipe beside the given keys, those that can act on these data."""
    plans = {}
    for recipe in config.keys()["recipe"].choices:
        try:
            lt = config.resolve({**ours, "recipe": recipe})
            plans[recipe] = make_plan(stats, lt, plan.bins, _index(plan, stats))
        except LTError:  # the given keys do not go with this recipe
            continue
    return plans


def _index(plan: Plan, stats: ClassStats) -> FederatedIndex | None:
    return plan.federated if plan.stats.num_images == stats.num_images else None


def _defects(
    images: Sequence[str], shapes: Mapping[str, Any], data: dict[str, Any], task: str, theirs: dict[str, Any]
) -> dict[str, list]:
    """The defects of some images' label files, by the path below the data set; sizes are known of kept images alone."""
    points, numbers = data.get("kpt_shape") or (0, 0)
    form = Form(len(data["names"]), task, (points, numbers), bool(theirs.get("single_cls")))
    files = zip(images, img2label_paths(list(images)), strict=True)
    return {labels.below(path, data): file_defects(path, form, shapes.get(image)) for image, path in files}


def _gaps(splits: Mapping[str, _Split], data: dict[str, Any]) -> dict[str, Any]:
    """Images and label files that do not belong together."""
    images, boxes = list[str](), list[int]()
    for split in splits.values():
        images += split.files
        boxes += np.diff(split.stats.offsets).tolist()
        dropped = sorted(set(split.complained) - set(split.files))
        images += dropped
        boxes += [1] * len(dropped)
    wanted = img2label_paths(images)
    folders = dict.fromkeys(os.path.dirname(path) for path in wanted)
    there = [f"{folder}{os.sep}{name}" for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]
    gaps = find_gaps(wanted, boxes, (path for path in there if path.endswith(".txt")))
    return {"gaps": gaps, "images": [labels.below(path, data) for path in images]}
