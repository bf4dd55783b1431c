"""What the frozen part of a network gives, on disk: float16 arrays read through memory maps. numpy only.

A store is a folder: one raw file per array, `truth.npz` with what has another length per sample, and `store.json`,
written last, with the key, the shapes and the SHA-256 of every file. It is made under a temporary name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from yolo_lt.errors import LTError

GB = 1e9
Chunk = tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]  # arrays (B, ...), and one dict of truths per sample


class Damaged(Exception):
    """A store that is not whole: it is made again."""


@dataclass(frozen=True)
class FeatureStore:
    """An open store of M samples.

    Attributes:
        folder: Where it lies.
        shapes: Shape of a sample of every array, by name.
        truth: By name the values of all samples, concatenated on their first axis, and where each sample's begin.
        size: Number of samples M.
    """

    folder: Path
    shapes: dict[str, list[int]]
    truth: dict[str, tuple[np.ndarray, np.ndarray]]
    size: int

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """float16 memory maps by name, each (M, ...)."""
        return {
            name: np.memmap(self.folder / f"{name}.f16", np.float16, "r").reshape(self.size, *shape)
            for name, shape in self.shapes.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps, which would be pickled with all that they hold: a spawned worker maps anew."""
        return {k: v for k, v in vars(self).items() if k != "arrays"}

    def gather(self, indices: list[int]) -> dict[str, np.ndarray]:
        """The arrays of some samples, each (B, ...), float16."""
        return {name: array[indices] for name, array in self.arrays.items()}

    def truth_of(self, index: int) -> dict[str, np.ndarray]:
        """What has another length in every sample: classes, boxes, masks, keypoints, source images."""
        return {name: values[at[index] : at[index + 1]] for name, (values, at) in self.truth.items()}


def key_of(facts: dict[str, Any]) -> str:
    """SHA-256 of everything that the content depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def write_store(
    folder: Path, key: str, chunks: Iterator[Chunk], size: int, limit_gb: float, announce: Callable[[str], None]
) -> None:
    """Write a store whole or not at all.

    Args:
        folder: Where it will be; its parents are made.
        key: From `key_of`.
        chunks: Arrays of some samples each, all with the same names and shapes, `size` samples in all.
        size: Number of samples.
        limit_gb: The most that may be written.
        announce: Told the size before anything is written.

    Raises:
        LTError: The folder cannot be written, the limit or the disk does not suffice, or a value is no float16.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        _sweep(folder)
        temporary.mkdir(parents=True)
        _write(temporary, key, chunks, size, limit_gb, announce)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError as e:
        raise LTError(f"feature cache {folder}: {e.strerror or e}; give another cache_dir= or free space") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left of this store, but not what another one is writing just now."""
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        owner = int(left.name.split(".")[-2])
        if owner == os.getpid() or not psutil.pid_exists(owner):
            shutil.rmtree(left, ignore_errors=True)


def _write(
    folder: Path, key: str, chunks: Iterator[Chunk], size: int, limit_gb: float, announce: Callable[[str], None]
) -> None:
    files: dict[str, Any] = {}
    shapes: dict[str, list[int]] = {}
    sums: dict[str, Any] = {}
    truths: list[dict[str, np.ndarray]] = []
    try:
        for arrays, truth in chunks:
            if not files:
                _check_room(folder, arrays, size, limit_gb, announce)
                files = {name: (folder / f"{name}.f16").open("wb") for name in arrays}
                shapes = {name: list(a.shape[1:]) for name, a in arrays.items()}
                sums = {name: hashlib.sha256() for name in arrays}
            for name, array in arrays.items():
                raw = _as_float16(name, array).tobytes()
                files[name].write(raw)
                sums[name].update(raw)
            truths += truth
    finally:
        for file in files.values():
            file.close()
    _write_truth(folder / "truth.npz", truths)
    content = {
        "key": key,
        "size": len(truths),
        "shapes": shapes,
        "sha256": {**{f"{n}.f16": s.hexdigest() for n, s in sums.items()}, "truth.npz": _sha256(folder / "truth.npz")},
    }
    (folder / "store.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _check_room(
    folder: Path, arrays: dict[str, np.ndarray], size: int, limit_gb: float, announce: Callable[[str], None]
) -> None:
    """Say what will be written, and refuse it before the first byte if it cannot fit."""
    need = sum(2 * a[0].size for a in arrays.values()) * size
    free = shutil.disk_usage(folder).free
    announce(f"feature cache: {size} samples, {need / GB:.3g} GB, in {folder.parent} ({free / GB:.3g} GB free)")
    if need > limit_gb * GB:
        raise LTError(
            f"the feature cache needs {need / GB:.3g} GB and cache_limit is {limit_gb:g}: raise it or imgsz=less"
        )
    if need > free:
        raise LTError(f"the feature cache needs {need / GB:.3g} GB and {folder.parent} has {free / GB:.3g} GB free")


def _as_float16(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise LTError(f"feature cache: '{name}' has values beyond float16, so it cannot be kept: feature_cache=false")
    return half


def _write_truth(path: Path, truths: list[dict[str, np.ndarray]]) -> None:
    """All samples' values of a name in one array, with the borders of the samples."""
    columns: dict[str, np.ndarray] = {}
    for name in truths[0]:
        values = [t[name] for t in truths]
        columns[name] = np.concatenate(values)
        columns[f"{name}.at"] = np.cumsum([0, *(len(v) for v in values)])
    np.savez(path, allow_pickle=False, **columns)


def open_store(folder: Path, key: str) -> FeatureStore:
    """Open a store and check every byte of it.

    Raises:
        FileNotFoundError: There is none.
        Damaged: It is not whole, changed, or of another key.
    """
    if not folder.exists():
        raise FileNotFoundError(folder)
    try:
        content = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        if content["key"] != key:
            raise Damaged("it was made from something else")
        for name, wanted in content["sha256"].items():
            if _sha256(folder / name) != wanted:
                raise Damaged(f"{name} was changed")
        columns = dict(np.load(folder / "truth.npz"))
        truth = {name: (v, columns[f"{name}.at"]) for name, v in columns.items() if not name.endswith(".at")}
        store = FeatureStore(folder, content["shapes"], truth, content["size"])
        store.gather([])  # maps every array
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise Damaged(" ".join(str(e).split()) or type(e).__name__) from None
    return store


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        sha = hashlib.sha256()
        while block := file.read(1 << 22):
            sha.update(block)
    return sha.hexdigest()
