"""Per-class confidence thresholds: chosen on detections that are right or wrong, and thresholds.yaml.

The file has one line `class name: confidence` per class.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from yolo_lt.errors import LTError, UsageError, check_number
from yolo_lt.files import write_text

LEAST_BOXES = 10  # classes with fewer objects choose together: one object more or less would move their threshold


def choose_thresholds(
    scores: np.ndarray, classes: np.ndarray, right: np.ndarray, boxes: np.ndarray, rule: str | float
) -> np.ndarray:
    """Confidence from which each class should be shown.

    Args:
        scores: Of every detection, shape (D,).
        classes: Their classes, shape (D,), int.
        right: Whether they match an object, shape (D,), bool.
        boxes: Objects of every class, shape (C,).
        rule: "f1": the best F1; a number in (0, 1): the lowest threshold at which the precision is at least this.

    Returns:
        Thresholds, shape (C,), float64. Classes with fewer than `LEAST_BOXES` objects share the one that is best for
        all of them together. 1, so that nothing is shown, where no threshold reaches the precision.
    """
    if rule != "f1":
        check_number("thresholds", float(rule), 0, 1, above=True)
    rare = boxes < LEAST_BOXES
    group = np.where(rare, len(boxes), np.arange(len(boxes)))  # the last group is the rare classes'
    sizes = np.bincount(group, boxes, len(boxes) + 1)
    order = np.lexsort((-scores, group[classes]))
    groups, scores, right = group[classes][order], scores[order], right[order]
    cuts = np.searchsorted(groups, np.arange(len(boxes) + 2))
    spans = [slice(*cuts[g : g + 2]) for g in range(len(boxes) + 1)]
    chosen = np.array([_cut(scores[s], right[s], n, rule) for s, n in zip(spans, sizes, strict=True)])
    return chosen[group]


def _cut(scores: np.ndarray, right: np.ndarray, boxes: float, rule: str | float) -> float:
    """The threshold of one group, scores falling; halfway to the next score below, so that `>` and `>=` agree."""
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True]) if len(scores) else np.zeros(0, int)
    hits, shown = np.cumsum(right)[last], last + 1
    worth = 2 * hits / (shown + boxes) if rule == "f1" else np.where(hits / shown >= float(rule), shown, 0)
    if not len(last) or not hits.any() or worth.max() == 0:
        return 1.0
    best = int(np.argmax(worth))
    below = scores[last[best] + 1] if last[best] + 1 < len(scores) else 0.0
    return float((scores[last[best]] + below) / 2)


def write_thresholds(path: Path, names: Sequence[str], thresholds: np.ndarray) -> Path:
    """Write thresholds.yaml, which `read_thresholds` reads.

    Raises:
        LTError: Two classes have one name, by which the file goes.
    """
    if twice := sorted({n for n in names if list(names).count(n) > 1}):
        raise LTError(f"{path} goes by class name, and two classes are called '{twice[0]}'")
    content = {n: 1.0 if t >= 1 else min(round(float(t), 6), 1 - 1e-6) for n, t in zip(names, thresholds, strict=True)}
    return write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_thresholds(path: str | float | Path, names: Sequence[str], default: float) -> np.ndarray:
    """Confidence thresholds of all classes of a model.

    Args:
        path: YAML of `class name: confidence`.
        names: The model's class names in the order of their ids.
        default: Threshold of the classes that the file leaves out.

    Returns:
        Thresholds, shape (C,), float64.

    Raises:
        UsageError: A rule, by which calibrate chooses, instead of a file.
        LTError: The file is missing or no such mapping, names an unknown class, or has a value outside [0, 1].
    """
    if path == "f1" or isinstance(path, (int, float)):
        raise UsageError(f"thresholds={path} is chosen by calibrate, which writes thresholds.yaml: give that file here")
    thresholds = np.full(len(names), float(default))
    index = {name: i for i, name in enumerate(names)}
    for name, value in _load(Path(path)).items():
        if str(name) not in index:
            close = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise LTError(f"thresholds={path}: the model has no class '{name}'{hint}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise LTError(f"thresholds={path}, class '{name}': {value} is no confidence between 0 and 1")
        thresholds[index[str(name)]] = value
    return thresholds


def _load(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LTError(f"thresholds={path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise LTError(f"thresholds={path} cannot be read as YAML: {' '.join(str(e).split())}") from None
    if not isinstance(content, dict) or not content:
        raise LTError(f"thresholds={path}: expected lines of 'class name: confidence'")
    return content
