"""The official files of a data set: found in a folder, or named with the place that they come from (cfg/datasets)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from yolo_lt.dataset.convert import open_images
from yolo_lt.dataset.convert.source import SPLITS
from yolo_lt.errors import LTError, UsageError

FORMATS = ("lvis", "coco", "openimages")


@cache
def datasets() -> dict[str, dict[str, Any]]:
    """What cfg/datasets says, by data set."""
    folder = files("yolo_lt.cfg.datasets")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {name.removesuffix(".yaml"): yaml.safe_load(folder.joinpath(name).read_text("utf-8")) for name in found}


@dataclass(frozen=True)
class Sources:
    """What a conversion reads.

    Attributes:
        format: lvis, coco or openimages.
        files: The files of every split, train first.
        classes: Open Images' class descriptions.
        hierarchy: Open Images' class hierarchy, if it is there.
        expected: What cfg/datasets expects of the splits, by name.
    """

    format: str
    files: dict[str, list[Path]]
    classes: Path | None = None
    hierarchy: Path | None = None
    expected: Mapping[str, Any] | None = None


def find_sources(name: str, annotations: str) -> Sources:
    """The files to convert.

    Args:
        name: A format, or a data set of cfg/datasets.
        annotations: A folder of official files or of COCO files by split; or files with commas between, each of which
            may say its split, `train:FILE`.

    Raises:
        UsageError: The name is neither.
        LTError: A file is missing, or one does not say which split it is.
    """
    known = datasets()
    if name not in FORMATS and name not in known:
        close = difflib.get_close_matches(name, [*FORMATS, *known], n=1)
        hint = (
            f"; did you mean '{close[0]}'?"
            if close
            else f"; give one of {', '.join(dict.fromkeys([*FORMATS, *known]))}"
        )
        raise UsageError(f"convert {name}: no such format or data set{hint}")
    told = known.get(name) or {"format": name}
    if told["format"] == "openimages":
        return _open_images(Path(annotations), told)
    if Path(annotations).is_dir():
        found = _official(Path(annotations), told) if "files" in told else _by_name(Path(annotations))
    else:
        found = _listed(annotations)
    return Sources(told["format"], _ordered(found), expected=_expected(told, found))


def checklist(name: str, folder: Path) -> list[tuple[str, Path | None, str]]:
    """Every official file of a data set: its name, where it is in a folder or None, and where it comes from."""
    told = datasets()[name]
    also = {names[0]: names for names in told["splits"].values()} | told.get("also", {})
    return [(file, _find(folder, [file, *also.get(file, [])]), url) for file, url in told["files"].items()]


def _ordered(found: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    order = list(dict.fromkeys(SPLITS.values()))
    return {split: found[split] for split in sorted(found, key=lambda s: (order.index(s) if s in order else 9, s))}


def _expected(told: Mapping[str, Any], found: Mapping[str, list[Path]]) -> dict[str, Any] | None:
    """What to expect, if the files are the official ones."""
    official = {split for split, paths in found.items() if paths[0].name in told.get("splits", {}).get(split, ())}
    return {k: v for k, v in told.get("expected", {}).items() if k in official | {"classes"}} if official else None


def _find(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of some names that is in a folder, or in its folder `annotations`."""
    places = (folder / part / name for part in ("", "annotations") for name in names)
    return next((path for path in places if path.is_file()), None)


def _official(folder: Path, told: Mapping[str, Any]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for split, names in told["splits"].items():
        path = _find(folder, names)
        if path is None:
            what = _where_from(folder, told["files"][names[0]])
            raise LTError(
                f"annotations={folder}: {' or '.join(names)} is missing; {what}. "
                f"To convert other files, name them: annotations=train:FILE,val:FILE"
            )
        found[split] = [path]
    return found


def _where_from(folder: Path, url: str) -> str:
    archive = _find(folder, [url.rpartition("/")[2]])
    return f"unpack {archive}" if archive else f"it comes from {url} (nothing is downloaded here)"


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """The COCO files of a folder or of its sub-folders, by the split that their names tell."""
    candidates = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])
    candidates = [p for p in candidates if p.name.startswith("instances_")] or candidates
    found: dict[str, list[Path]] = {}
    for path in candidates:
        split = _split_of(path)
        if split in found:
            raise LTError(f"{found[split][0]} and {path} are both of split {split}: name one, annotations={split}:FILE")
        if split:
            found[split] = [path]
    if not found:
        raise LTError(f"annotations={folder}: no COCO file whose name says train, val or test, as instances_train.json")
    return found


def _listed(annotations: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    words = [annotations] if Path(annotations).is_file() else annotations.split(",")  # a name may have a comma
    for word in filter(None, map(str.strip, words)):
        start, colon, file = word.partition(":")
        told = SPLITS.get(start) if colon else None
        path = Path(file.strip() if told else word)
        split = told or _split_of(path)
        if not path.is_file():
            what = "is a folder, where a file is needed" if path.is_dir() else "no such file or folder"
            raise LTError(f"annotations={path}: {what}")
        if not split:
            raise LTError(f"annotations={path}: its name says no split; write train:{path} or val:{path}")
        if split in found:
            raise LTError(f"annotations={annotations}: {found[split][0]} and {path} are both of split {split}")
        found[split] = [path]
    if not found:
        raise LTError(f"annotations={annotations}: no such file or folder")
    return found


def _split_of(path: Path) -> str:
    """The split that a word of a file's name tells, or its folder's name; "" if neither does, or it tells two."""
    words, folder = _words(path.stem), _words(path.absolute().parent.name)
    for told in (words, folder if len(folder) == 1 else []):
        splits = {SPLITS[word] for word in told if word in SPLITS}
        if splits:
            return splits.pop() if len(splits) == 1 else ""
    return ""


def _words(name: str) -> list[str]:
    """Words of a name, as of train2017 or instancesTrain; a contest is no test."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]


def _open_images(folder: Path, told: Mapping[str, Any]) -> Sources:
    if not folder.is_dir():
        raise LTError(f"annotations={folder}: no such folder; give the one that holds Open Images' CSV files")
    found = {split: [boxes, *labels] for split, (boxes, labels) in open_images.find_files(folder).items()}
    hierarchy = open_images.hierarchy_file(folder)
    return Sources("openimages", _ordered(found), open_images.class_file(folder), hierarchy, _expected(told, found))
