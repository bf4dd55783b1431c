"""Frequency bins: which classes are head, medium and tail, by the number of training images that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from yolo_lt.errors import LTError, UsageError

BIN_NAMES = ("head", "medium", "tail")
LETTERS = {"f": "head", "c": "medium", "r": "tail"}


@dataclass(frozen=True)
class Bins:
    """Classes by frequency.

    Attributes:
        head: Frequent classes, 0-based class indices, shape (n,), int64.
        medium: Common classes.
        tail: Rare classes.
        unseen: Classes without a training image; reported apart, in no bin.
        rule: How the bins were made, in words, for reports.
    """

    head: np.ndarray
    medium: np.ndarray
    tail: np.ndarray
    unseen: np.ndarray
    rule: str

    def as_dict(self) -> dict[str, list[int]]:
        """Class indices of every bin as plain lists."""
        return {name: getattr(self, name).tolist() for name in (*BIN_NAMES, "unseen")}

    def labels(self, num_classes: int) -> np.ndarray:
        """Bin name of every class, shape (C,), dtype str; a class in no bin is 'unseen'."""
        labels = np.full(num_classes, "unseen", dtype="<U6")
        for name in BIN_NAMES:
            labels[getattr(self, name)] = name
        return labels

    def class_sets(self, num_classes: int) -> list[np.ndarray]:
        """Class indices of all, head, medium and tail: the four sets that every table has."""
        return [np.arange(num_classes), *(getattr(self, name) for name in BIN_NAMES)]

    @classmethod
    def from_dict(cls, bins: dict, rule: str) -> Bins:
        """Inverse of `as_dict`; a missing bin is empty."""
        ids = {n: np.array(sorted(bins.get(n) or []), dtype=np.int64) for n in (*BIN_NAMES, "unseen")}
        return cls(**ids, rule=rule)


def frequency_bins(
    image_counts: Sequence[int] | np.ndarray,
    rule: str | tuple[float, float] | list[float] | Path = "auto",
    frequency: Sequence[str] | None = None,
) -> Bins:
    """Put every class into head, medium or tail by its number of training images.

    Args:
        image_counts: Training images per class, shape (C,), integers.
        rule: "auto" (the data set's own frequency letters if given, else thirds of the logarithm over the classes
            that occur), two numbers (a, b) (tail n <= a, medium a < n <= b, head n > b; LVIS: 10, 100), or the path of
            a YAML file with lists of class indices under head, medium and tail.
        frequency: One letter r, c or f per class (LVIS), used by "auto".

    Returns:
        The bins. Classes without a training image are `unseen`, whatever the rule.

    Raises:
        UsageError: The rule is none of the three forms, or its numbers are not ordered.
        LTError: The file is missing, malformed, or names a class that does not exist.
    """
    counts = np.asarray(image_counts)
    if counts.ndim != 1 or (counts < 0).any():
        raise UsageError("image_counts must be one non-negative number per class")
    if rule == "auto":
        if frequency is not None:
            return _from_labels(counts, _letters(frequency, len(counts)), "the data set's frequency field")
        return _log_thirds(counts)
    if isinstance(rule, (tuple, list)):
        return _two_numbers(counts, rule)
    return _from_file(counts, Path(rule))


def _log_thirds(counts: np.ndarray) -> Bins:
    """Thirds of log n between the rarest and the commonest class, in exact integers: n^3 < min^2 max, min max^2."""
    present = [int(n) for n in counts if n > 0]
    if not present:
        return _from_labels(counts, np.full(len(counts), "unseen"), "auto: no class occurs")
    low, high = min(present), max(present)
    first, second = low * low * high, low * high * high
    if low == high:  # one frequency is no tail: thirds of nothing would call every class head by accident of `<`
        return _from_labels(counts, np.full(len(counts), "head"), "auto: every class has the same count, all head")
    names = ["tail" if int(n) ** 3 < first else "medium" if int(n) ** 3 < second else "head" for n in counts]
    rule = f"auto: thirds of log image count, borders {first ** (1 / 3):.1f} and {second ** (1 / 3):.1f}"
    return _from_labels(counts, np.array(names), rule)


def _two_numbers(counts: np.ndarray, rule: Sequence[float]) -> Bins:
    if len(rule) != 2 or not 0 <= rule[0] <= rule[1]:
        raise UsageError(f"bins={list(rule)}: give two numbers a,b with 0 <= a <= b, for example 10,100")
    low, high = rule
    names = np.where(counts <= low, "tail", np.where(counts <= high, "medium", "head"))
    return _from_labels(counts, names, f"tail <= {low:g} < medium <= {high:g} < head images")


def read_lists(path: Path) -> dict[str, list]:
    """The lists of a bins file, under head, medium and tail.

    Raises:
        LTError: The file is missing or malformed.
    """
    try:
        lists = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LTError(f"bins={path}: no such file, and it is neither 'auto' nor two numbers like 10,100") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise LTError(f"bins={path} cannot be read as YAML: {e}") from None
    if not isinstance(lists, dict) or not set(lists) <= set(BIN_NAMES) or not lists:
        raise LTError(f"bins={path}: expected lists of class indices under {', '.join(BIN_NAMES)}")
    return {name: ids or [] for name, ids in lists.items()}


def _from_file(counts: np.ndarray, path: Path) -> Bins:
    lists = read_lists(path)
    names = np.full(len(counts), "unseen", dtype="<U6")
    for name, ids in lists.items():
        for c in ids:
            if isinstance(c, bool) or not isinstance(c, int) or not 0 <= c < len(counts):
                raise LTError(f"bins={path}, key '{name}': {c!r} is no class index in 0..{len(counts) - 1}")
            if names[c] != "unseen":
                raise LTError(f"bins={path}: class {c} is listed under both '{names[c]}' and '{name}'")
            names[c] = name
    missing = np.flatnonzero((names == "unseen") & (counts > 0))
    if len(missing):
        raise LTError(f"bins={path}: class {missing[0]} has training images but is in no list")
    return _from_labels(counts, names, f"file {path.name}")


def _letters(frequency: Sequence[str], num_classes: int) -> np.ndarray:
    if len(frequency) != num_classes or not set(frequency) <= set(LETTERS):
        raise LTError(f"frequency: expected one letter r, c or f for each of {num_classes} classes")
    return np.array([LETTERS[x] for x in frequency])


def _from_labels(counts: np.ndarray, labels: np.ndarray, rule: str) -> Bins:
    labels = np.where(counts > 0, labels, "unseen")
    ids = {name: np.flatnonzero(labels == name).astype(np.int64) for name in (*BIN_NAMES, "unseen")}
    return Bins(**ids, rule=rule)
