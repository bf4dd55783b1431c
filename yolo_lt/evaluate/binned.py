"""Bins in the ground truth's category ids, and the sets of classes that every table has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt.dataset.bins import BIN_NAMES, LETTERS, Bins, frequency_bins, read_lists
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate.arrays import GroundTruth

ALL_BINS = (*BIN_NAMES, "unseen")
ROWS = ("all", *BIN_NAMES)  # of every table
Sets = Mapping[str, np.ndarray]  # class indices by name


def find_bins(bins: Bins | Mapping[str, Any] | None, gt: GroundTruth) -> Bins | None:
    """Bins in category ids; every category of the ground truth is in exactly one of the four lists.

    Args:
        bins: As `evaluate` takes them; None: the frequency letters of the ground truth, if it has some.
        gt: The truth.

    Raises:
        UsageError: A name is no bin's.
        LTError: A category is not listed by the ground truth, or in two bins.
    """
    if bins is None and gt.frequency is None:
        return None
    if bins is None:
        letters = np.array(gt.frequency, dtype=str)
        given: dict = {name: gt.category_ids[letters == letter] for letter, name in LETTERS.items()}
        rule = "the data set's frequency field"
    else:
        given, rule = _given(bins)
    ids = {name: _ids_of_bin(name, given.get(name), gt) for name in BIN_NAMES}
    listed = [c for name in BIN_NAMES for c in ids[name]]
    if len(set(listed)) < len(listed):
        twice = next(c for c in listed if listed.count(c) > 1)
        raise LTError(f"bins: category {twice} is listed more than once; a category belongs to one bin.")
    return Bins.from_dict({**ids, "unseen": sorted(set(gt.category_ids.tolist()) - set(listed))}, rule)


def bins_of_rule(rule: Any, gt: GroundTruth) -> Bins | None:
    """Bins by the key `bins`, for ground truth that comes as a file, in category ids.

    Args:
        rule: "auto", two numbers, or a YAML file that lists category ids.
        gt: The truth; its image counts are LVIS' image_count.

    Returns:
        The bins, or None: auto, and the file says nothing of frequency.

    Raises:
        LTError: Two numbers and no image counts, or a bad file.
    """
    if isinstance(rule, str) and rule == "auto":
        if gt.frequency is not None or gt.image_counts is None:
            return find_bins(None, gt)
    elif isinstance(rule, (str, Path)):
        return find_bins({**read_lists(Path(rule)), "rule": f"file {Path(rule).name}"}, gt)
    elif gt.image_counts is None:
        raise LTError(f"bins={list(rule)} needs the training images of every category, and the ground truth has no "
                      "image_count; list category ids in a file instead: bins=FILE.yaml.")  # fmt: skip
    by_index = frequency_bins(gt.image_counts, rule)
    ids = {name: gt.category_ids[index].tolist() for name, index in by_index.as_dict().items()}
    return Bins.from_dict(ids, by_index.rule)


def class_sets(category_ids: np.ndarray, bins: Bins | None) -> dict[str, np.ndarray]:
    """Class indices of all, and of head, medium and tail if there are bins."""
    sets = {"all": np.arange(len(category_ids))}
    if bins is None:
        return sets
    return sets | {name: np.searchsorted(category_ids, getattr(bins, name)) for name in BIN_NAMES}


def _given(bins: Bins | Mapping[str, Any]) -> tuple[dict, str]:
    """Lists by name, and the rule in words."""
    if isinstance(bins, Bins):
        return bins.as_dict(), bins.rule
    wrong = set(bins) - {*ALL_BINS, "rule"} if isinstance(bins, Mapping) else {type(bins).__name__}
    if wrong:
        raise UsageError(f"bins: {sorted(map(str, wrong))[0]!r} is no bin; give ids under {', '.join(BIN_NAMES)}.")
    return dict(bins), str(bins.get("rule") or "given")


def _ids_of_bin(name: str, ids: Any, gt: GroundTruth) -> list[int]:
    ids = [] if ids is None else list(ids)
    known = set(gt.category_ids.tolist())
    for c in ids:
        if not isinstance(c, (int, np.integer)) or int(c) not in known:
            raise LTError(f"bins: {c!r} under '{name}' is no category id of the ground truth.")
    return [int(c) for c in ids]
