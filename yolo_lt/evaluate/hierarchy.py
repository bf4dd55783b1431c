"""Open Images' label hierarchy: a cat is an animal, so what is known of cats says something of animals.

The ground truth of the Challenge is expanded before it is scored: boxes and positive image labels hold for all
ancestors of their class, negative image labels for all descendants. Detections are scored as they are: a detector has
to report the ancestors itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt.errors import LTError
from yolo_lt.evaluate.arrays import GroundTruth, run_ranks, take_boxes
from yolo_lt.evaluate.columns import kind, load

FILE = "Open Images' bbox_labels_600_hierarchy.json"


def read_hierarchy(path: str | os.PathLike) -> dict[str, set[str]]:
    """All ancestors of every label.

    Args:
        path: A JSON file of nested objects with a LabelName and, under Subcategory, a list of such objects. Parts (a
            wheel of a car) are no subcategories. The outermost object only holds the others together: it is neither a
            label nor an ancestor.

    Raises:
        LTError: The file is missing or malformed, or holds no labels.
    """
    if not Path(path).is_file():
        raise LTError(f"{path}: no such file; give {FILE}, or a file of its form.")
    root, where = load(path, "hierarchy")
    found: dict[str, set[str]] = {}
    no_labels: frozenset[str] = frozenset()
    waiting = [(node, no_labels) for node in _children(root, where)]
    while waiting:
        node, above = waiting.pop()
        label = _label(node, where)
        found.setdefault(label, set()).update(above)  # a label may stand in several places
        waiting += [(child, above | {label}) for child in _children(node, where)]
    if not found:
        raise LTError(f"{where}: no labels under 'Subcategory'; give {FILE}, or a file of its form.")
    return found


def _children(node: Any, where: str) -> list:
    if not isinstance(node, dict):
        raise LTError(f"{where}: expected an object with LabelName and Subcategory, found {kind(node)}; give {FILE}.")
    children = node.get("Subcategory", [])
    if not isinstance(children, list):
        place = node.get("LabelName", "the outermost object")
        raise LTError(f"{where}: expected a list under 'Subcategory' of {place}, found {kind(children)}.")
    return children


def _label(node: Any, where: str) -> str:
    label = node.get("LabelName") if isinstance(node, dict) else None
    if not isinstance(label, str):
        raise LTError(f"{where}: every entry of 'Subcategory' needs a text under 'LabelName', found {node!r:.60}.")
    return label


def expand(gt: GroundTruth, parents: Mapping[str, set[str]], labels: Sequence[str]) -> GroundTruth:
    """Copy boxes and positive labels to all ancestors, and negative labels to all descendants, that are categories.

    Every copy counts: two kinds of animal in an image are two animals, and so is a box that the file gives for the cat
    and once more for the animal. A copy stands behind its original.

    Args:
        gt: The truth as annotated.
        parents: All ancestors of every label, from `read_hierarchy`.
        labels: The label of every class, in the order of `gt.category_ids`.

    Raises:
        LTError: None of the labels is in the hierarchy.
    """
    if not any(label in parents for label in labels):
        shown = ", ".join(labels[:3]) or "none"
        raise LTError(
            f"None of the {len(labels)} categories ({shown}, ...) is in the label hierarchy, so nothing can be "
            "expanded; the categories' labels and the hierarchy's must be of one kind, such as /m/01yrx."
        )
    below, above = _related(parents, labels)
    classes = len(labels)
    source, cls = _spread(gt.cls, below, above, classes)
    boxes: dict[str, Any] = take_boxes(gt, source) | {"cls": cls}
    return replace(
        gt,
        **boxes,
        positive=_spread_keys(gt.positive, below, above, classes),
        negative=_spread_keys(gt.negative, above, below, classes),
    )


def _related(parents: Mapping[str, set[str]], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Class indices (class, ancestor) of all that are categories, each (K,)."""
    classes: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        classes.setdefault(label, []).append(i)
    related = [
        (i, j)
        for i, label in enumerate(labels)
        for ancestor in parents.get(label, ())
        if ancestor != label
        for j in classes.get(ancestor, ())
    ]
    below, above = np.array(sorted(related), dtype=np.int64).reshape(-1, 2).T
    return below, above


def _spread(cls: np.ndarray, start: np.ndarray, end: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Every entry, followed by its copies for the classes to which the pairs start, end lead.

    Args:
        cls: Class of every entry, shape (n,).
        start: Class from which a copy is made, shape (K,).
        end: Class for which it is made, shape (K,).
        classes: Number of classes.

    Returns:
        Position of the original, and class, of every entry and copy, each (m,).
    """
    order = np.argsort(start, kind="stable")
    count = np.bincount(start, minlength=classes)
    first = np.cumsum(count) - count
    sizes = count[cls] + 1
    source = np.repeat(np.arange(len(cls)), sizes)
    rank = run_ranks(np.cumsum(sizes) - sizes, len(source))
    out, copied = cls[source], rank > 0
    out[copied] = end[order][(first[out] + rank - 1)[copied]]
    return source, out


def _spread_keys(keys: np.ndarray | None, start: np.ndarray, end: np.ndarray, classes: int) -> np.ndarray | None:
    """Likewise for sorted keys image * classes + class."""
    if keys is None:
        return None
    image, cls = np.divmod(keys, classes)
    source, cls = _spread(cls, start, end, classes)
    return np.unique(image[source] * classes + cls)


def expanded(gt: GroundTruth, path: str | os.PathLike | None) -> GroundTruth:
    """The truth expanded by the hierarchy in a file; as it is without one."""
    return gt if path is None else expand(gt, read_hierarchy(path), gt.labels or gt.names)
