"""`yolo-lt checks`: whether what is needed is installed, and whether a data set's official files are there."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from yolo_lt import __version__, config
from yolo_lt.dataset.convert.catalog import checklist, datasets
from yolo_lt.errors import LTError, UsageError


def checks(*names: str, **kw: Any) -> list[str]:
    """`yolo-lt checks [DATASET annotations=DIR images=DIR]`: versions and devices, or a data set's official files.

    Returns:
        What was printed, one line each.

    Raises:
        UsageError: No such data set, or a key that does not act.
        LTError: Something is missing; the message lists everything.
    """
    ours, theirs = config.split(kw, "checks")
    if theirs or len(names) > 1 or (ours and not names):
        raise UsageError("checks takes nothing, or one data set and where its files are: checks lvis annotations=DIR")
    lt = config.resolve(ours)
    folder = "." if lt["annotations"] == "none" else lt["annotations"]
    lines = files_of(names[0], folder, lt["images"]) if names else environment()
    print("\n".join(lines))
    return lines


def installed() -> list[tuple[str, str, str, bool]]:
    """Every package that is needed: its name, the version found or "", the versions that do, and whether it does."""
    rows = []
    for text in metadata.requires("yolo-lt") or []:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            found = ""
        rows.append((need.name, found, str(need.specifier), bool(found) and need.specifier.contains(found, True)))
    return rows


def environment() -> list[str]:
    """Versions and devices, one line each; what does not do says so.

    Raises:
        LTError: A package is missing or of a version that is not supported.
    """
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines = [f"yolo_lt {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    lines.append(f"GPUs: {', '.join(devices) or 'none, training runs on the CPU'}")
    rows = installed()
    lines += [f"{name:<16} {found or 'missing':<12} needs {wanted}" for name, found, wanted, _ in rows]
    if bad := [name for name, _, _, good in rows if not good]:
        raise LTError("\n".join([*lines, f"not as needed: {', '.join(bad)}; pip install --upgrade yolo-lt"]))
    return [*lines, "all as needed"]


def files_of(name: str, annotations: str, images: str) -> list[str]:
    """Every official file of a data set, where it is or where it comes from, one line each.

    Raises:
        UsageError: No such data set.
        LTError: A file is missing.
    """
    if name not in datasets():
        raise UsageError(f"checks {name}: no such data set; cfg/datasets has {', '.join(datasets())}")
    lines, missing = [f"{name}: {datasets()[name]['homepage']}"], []
    for file, path, url in checklist(name, Path(annotations)):
        lines.append(f"found    {path}" if path else f"MISSING  {file}, from {url}")
        missing += [] if path else [file]
    for folder, url in datasets()[name]["images"].items() if images != "none" else ():
        path = Path(images) / folder
        lines.append(f"found    {path}" if path.is_dir() else f"MISSING  {path}, from {url}")
        missing += [] if path.is_dir() else [folder]
    if missing:
        raise LTError("\n".join([*lines, f"missing: {', '.join(missing)}"]))
    return lines
