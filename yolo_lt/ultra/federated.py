"""The federated index of a data set: named by a key, by the data YAML, or told by its `known_classes`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt.dataset.convert.coco import lvis_index
from yolo_lt.dataset.federated import EVERYTHING, FederatedIndex, from_known_classes, load
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra.labels import class_names, stats_of

UNFIT = 0.05  # share of labels that an index may not know before it is taken for one of other images or classes


def read_index(
    im_files: Sequence[str],
    stats: ClassStats,
    data: dict[str, Any],
    federated: bool | str,
    single_cls: bool = False,
    split: str = "train",
) -> tuple[FederatedIndex | None, list[str]]:
    """The index of these images, and sentences about it; None if nothing asks for one.

    Args:
        im_files: Paths of the images, N.
        stats: Their classes.
        data: The parsed data YAML: `federated`, an index or LVIS annotations, or one for each split; or
            `known_classes`.
        federated: The key: "auto", a path, or a bool.
        single_cls: Ultralytics' key.
        split: Whose images they are.

    Raises:
        UsageError: `federated=true` and nothing to read, or an index beside `single_cls`.
        LTError: An index that cannot be read or is of other images or classes, or a bad `known_classes`.
    """
    named, known = data.get("federated"), data.get("known_classes")
    if isinstance(named, dict):
        named = named.get(split)
    if federated is False:
        return None, []
    paths, given = [_posix(f) for f in im_files], isinstance(federated, str) and federated != "auto"
    if single_cls and (given or named or known):
        raise UsageError("single_cls=true makes one class of all, which federated labels cannot tell: federated=false")
    if given:
        return _of_file(Path(str(federated)), paths, stats)
    if named and known:
        raise LTError(f"{_yaml(data)} has both 'federated' and 'known_classes': keep one")
    if named:
        return _of_file(Path(data["path"]) / str(named), paths, stats)
    if known:
        return _of_sources(known, paths, stats, data)
    if federated is True:
        raise UsageError(f"federated=true: {_yaml(data)} names neither 'federated' nor 'known_classes'; give a file")
    return None, []


def index_for(
    protocol: str, dataset: Any, data: dict[str, Any], federated: bool | str, split: str = "val"
) -> FederatedIndex | None:
    """What was looked for in the images of a validation split, and its group boxes; None where neither matters.

    Args:
        protocol: The protocol.
        dataset: Ultralytics' data set of the split.
        data: The parsed data YAML.
        federated: The key; false speaks of training alone, as in recipe=baseline.
        split: Which split it is; the holdout is of train.

    Raises:
        UsageError: The protocol needs it, and nothing says it.
        LTError: As `read_index`.
    """
    if protocol == "coco" and not data.get("federated"):  # of an index it takes the crowds alone
        return None
    files = [label["im_file"] for label in dataset.labels]
    index, _ = read_index(files, stats_of(dataset.labels, data), data, federated or "auto", split=split)
    if index is None and protocol != "coco":
        raise UsageError(
            f"protocol={protocol} needs to know which classes were looked for in the validation images: name a "
            f"federated index or LVIS annotations by federated=FILE or in {_yaml(data)}, or use protocol=coco"
        )
    return index


def _of_file(path: Path, paths: list[str], stats: ClassStats) -> tuple[FederatedIndex, list[str]]:
    read = lvis_index(path) if path.suffix == ".json" else load(path)
    if len(read.classes) != stats.num_classes:
        raise LTError(f"federated={path} is of {len(read.classes)} classes, the data YAML names {stats.num_classes}")
    place = {name: c for c, name in enumerate(stats.names)}  # a name may be spelt differently, but not stand elsewhere
    if moved := [c for c, name in enumerate(read.classes) if place.get(name, c) != c]:
        c = moved[0]
        raise LTError(f"federated={path}: class {c} is '{read.classes[c]}' there and '{stats.names[c]}' in the YAML")
    index, missing = read.align(paths)
    if missing == len(paths):
        raise LTError(f"federated={path} knows none of the {len(paths)} images, such as {paths[0]}")
    _check_labels(index, stats, path)
    notes = [f"WARNING: {missing} of {len(paths)} images are not in {path}: they count as labelled for every class"]
    return index, [_what(index, str(path)), *(notes if missing else [])]


def _check_labels(index: FederatedIndex, stats: ClassStats, path: Path) -> None:
    """Refuse an index of other labels: the classes of an image must be among those looked for in it."""
    image, cls = stats.incidences
    listed = np.flatnonzero(index.row[image] != EVERYTHING)
    unfit = listed[~index.among_verified(image[listed], cls[listed])]
    if len(unfit) > UNFIT * len(listed):
        first = f"{index.images[image[unfit[0]]]} has {stats.names[cls[unfit[0]]]}"
        raise LTError(
            f"federated={path} does not fit the labels: {len(unfit)} of {len(listed)} classes of images are not among "
            f"those that it says were looked for, the first: {first}"
        )


def _of_sources(
    known: Any, paths: list[str], stats: ClassStats, data: dict[str, Any]
) -> tuple[FederatedIndex, list[str]]:
    """The index that `known_classes` tells: folders or lists of images, and the classes that their labels cover."""
    where, names = f"{_yaml(data)}, known_classes", class_names(data)
    if not isinstance(known, dict):
        raise LTError(f"{where}: expected lines of 'folder: [classes]', found {type(known).__name__}")
    sources, listed = dict[str, list[int]](), dict[str, str]()
    for name, classes in known.items():
        path = Path(data["path"]) / str(name)
        if not path.exists():
            raise LTError(f"{where}: {path} does not exist")
        sources[_posix(path)] = _class_ids(classes, names, f"{where}: {name}")
        if path.suffix == ".txt":
            listed |= dict.fromkeys(_listed(path), _posix(path))
    index, unused = from_known_classes(paths, sources, names, listed)
    notes = [f"WARNING: known_classes: no training image is in {source}" for source in unused]
    image, cls = stats.incidences
    for row, source in enumerate(sources):
        if len(further := np.setdiff1d(cls[index.row[image] == row], index.negative[row])):
            found = ", ".join(stats.names[c] for c in further[:5]) + (" ..." if len(further) > 5 else "")
            notes.append(f"WARNING: known_classes: {source} has labels of {found}, of which its list does not tell")
    return index, [_what(index, f"{len(sources)} source{'s'[: len(sources) != 1]} of known_classes"), *notes]


def _class_ids(classes: Any, names: Sequence[str], where: str) -> list[int]:
    if classes == "all":
        return list(range(len(names)))
    if not isinstance(classes, list):
        raise LTError(f"{where}: expected a list of class names or ids, or all; found {classes}")
    by_name = {str(name): i for i, name in enumerate(names)}
    found = []
    for c in classes:
        if isinstance(c, int) and not isinstance(c, bool) and 0 <= c < len(names):
            found.append(c)
        elif str(c) in by_name:
            found.append(by_name[str(c)])
        else:
            close = difflib.get_close_matches(str(c), by_name, n=1)
            raise LTError(f"{where}: '{c}' is no class" + (f"; did you mean '{close[0]}'?" if close else ""))
    return found


def _listed(path: Path) -> Iterable[str]:
    """Images of a list file, as Ultralytics reads it: './' stands for the file's folder."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield _posix(path.parent / line.strip() if line.startswith("./") else line.strip())


def _what(index: FederatedIndex, source: str) -> str:
    partial = index.partial
    known = index.looked_for[index.row[partial]]
    mean = f", {known.mean():.3g} of {len(index.classes)} on average" if len(known) else ""
    return f"federated: {source}; {partial.sum()} of {len(partial)} images were looked through for some classes{mean}"


def _posix(path: str | Path) -> str:
    return os.path.abspath(path).replace(os.sep, "/")


def _yaml(data: dict[str, Any]) -> str:
    return str(data.get("yaml_file", "the data YAML"))
