"""Per-class confidence thresholds: thresholds.yaml, one line `class name: confidence` per class."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from yolo_lt.errors import LTError


def read_thresholds(path: str | Path, names: Sequence[str], default: float) -> np.ndarray:
    """Confidence thresholds of all classes of a model.

    Args:
        path: YAML of `class name: confidence`.
        names: The model's class names in the order of their ids.
        default: Threshold of the classes that the file leaves out.

    Returns:
        Thresholds, shape (C,), float64.

    Raises:
        LTError: The file is missing or no such mapping, names an unknown class, or has a value outside [0, 1].
    """
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
