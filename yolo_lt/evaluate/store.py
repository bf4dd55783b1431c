"""What lets two runs be compared later: the digest of the ground truth, and the matches as a file."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt.errors import LTError
from yolo_lt.evaluate.arrays import GroundTruth
from yolo_lt.evaluate.matching import Matches
from yolo_lt.files import replacing

BITS = ("tp", "ignore")


def ground_truth_sha256(gt: GroundTruth) -> str:
    """Digest of everything in the ground truth that can change a number.

    Image ids, category ids, boxes with all that belongs to them, and what was looked for where, in sorted order:
    neither the order of keys and entries in a file nor names and annotation ids matter.

    Returns:
        64 hexadecimal digits, equal on every machine.
    """
    box = gt.box + 0.0  # -0.0 and 0.0 are one number
    columns = [gt.image, gt.cls, *box.T, gt.area + 0.0, gt.crowd]
    marks = {name: column for name in ("angle", "ignored") if (column := getattr(gt, name)) is not None}
    order = np.lexsort([*marks.values(), *columns[::-1]])
    digest = hashlib.sha256(b"yolo_lt ground truth 1\n")
    digest.update(json.dumps([gt.image_ids.tolist(), gt.category_ids.tolist()]).encode())
    for column in columns:
        digest.update(column[order].astype("<f8").tobytes())
    for name, column in marks.items():
        if column.any():
            digest.update(name.encode() + column[order].astype("<f8").tobytes())
    for name in ("negative", "positive", "partial"):  # sorted keys
        if (keys := getattr(gt, name)) is not None:
            digest.update(name.encode() + keys.astype("<i8").tobytes())
    return digest.hexdigest()


def save_matches(path: str | os.PathLike, matches: Matches, gt_sha256: str) -> None:
    """Write matches.npz: the fields of `Matches`, bits packed eight to a byte, and the ground truth's digest.

    The file appears whole or not at all. `numpy.load(path, allow_pickle=False)` reads it.

    Raises:
        LTError: The file cannot be written.
    """
    path = Path(path)
    arrays = {f.name: np.asarray(getattr(matches, f.name)) for f in fields(matches)}
    arrays.update({name: np.packbits(arrays[name], axis=1) for name in BITS})
    try:
        with replacing(path) as part:
            np.savez(part, gt_sha256=np.array(gt_sha256), **arrays)  # type: ignore[arg-type]
    except OSError as e:
        raise LTError(f"{path}: the matches cannot be written ({e}).") from None


def load_matches(path: str | os.PathLike) -> tuple[Matches, str]:
    """Read what `save_matches` wrote.

    Returns:
        The matches and the digest of their ground truth.

    Raises:
        LTError: The file is missing, cut off, or no matches file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = ("gt_sha256", *(f.name for f in fields(Matches)))
            arrays: dict[str, Any] = {name: file[name] for name in names}
        levels = len(arrays["iou_thresholds"])
        arrays |= {name: np.unpackbits(arrays[name], axis=1, count=levels).astype(bool) for name in BITS}
        digest, protocol = str(arrays.pop("gt_sha256")), str(arrays.pop("protocol"))
        whole: dict[str, Any] = {name: int(arrays.pop(name)) for name in ("max_det", "recall_points")}
    except FileNotFoundError:
        raise LTError(f"{path}: no such file; run `yolo-lt val` to make it.") from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as e:
        raise LTError(f"{path}: no matches file, or cut off ({e}); run `yolo-lt val` again.") from None
    return Matches(**arrays, **whole, protocol=protocol), digest
