"""Which of Open Images' official files is what, by their names in versions 4 to 7 and in the Challenges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from yolo_lt.errors import LTError

FOLDERS = {"train": "train", "val": "validation", "test": "test"}  # Open Images' own, of the images of a split

_start = r"(?:oidv\d+-|challenge-\d{4}-)?"
_annotations = re.compile(
    rf"{_start}(train|val|validation|test)-(?:annotations|detection)-(bbox|human-imagelabels(?:-boxable)?)\.csv"
)
_classes = re.compile(rf"{_start}(?:class-descriptions-(?:boxable|500)|classes-description-500)\.csv")
_hierarchies = re.compile(rf"{_start}(?:bbox_labels_\d+_hierarchy|label500-hierarchy)\.json")
_packed = re.compile(r"(.+)\.(?:gz|zip|bz2|xz|7z|zst)")


def find_files(folder: Path) -> dict[str, tuple[Path, list[Path]]]:
    """The annotation files of every split that a folder has, by their official names; folders in it are not searched.

    Files of image labels of all classes (human-imagelabels) and of the boxable ones alone (human-imagelabels-boxable)
    may lie side by side, and are read as one. Machine-generated labels are left alone.

    Returns:
        Under train, val and test, as far as they are there: the box file, and 0 to 2 files of image labels.

    Raises:
        LTError: The folder or all box files are missing, a split has image labels but no box file, or two files have
            one role, such as the boxes of V5 and V6.
    """
    found: dict[tuple[str, str], list[Path]] = {}
    for path in _files(folder):
        if match := _annotations.fullmatch(path.name):
            split = "val" if match[1] == "validation" else match[1]
            found.setdefault((split, match[2]), []).append(path)
    for (split, role), paths in found.items():
        _one(paths, f"{'boxes' if role == 'bbox' else 'image labels'} of {split}")
        if (split, "bbox") not in found:
            expected = f"{FOLDERS[split]}-annotations-bbox.csv"
            raise LTError(f"{folder}: {paths[0].name} has no boxes beside it; {_missing(expected, folder)}")
    if not found:
        raise LTError(f"{folder}: no boxes; {_missing('train-annotations-bbox.csv', folder)}")
    label_roles = ("human-imagelabels", "human-imagelabels-boxable")
    return {
        split: (found[split, "bbox"][0], [path for role in label_roles for path in found.get((split, role), [])])
        for split in FOLDERS
        if (split, "bbox") in found
    }


def class_file(folder: Path) -> Path:
    """The file of class descriptions in a folder; that of all 20,000 classes, most of them never boxed, is none.

    Raises:
        LTError: There is none, or more than one.
    """
    found = [path for path in _files(folder) if _classes.fullmatch(path.name)]
    if not found:
        raise LTError(f"{folder}: no class descriptions; {_missing('class-descriptions-boxable.csv', folder)}")
    return _one(found, "class descriptions")


def hierarchy_file(folder: Path) -> Path | None:
    """The label hierarchy in a folder, if there is one.

    Raises:
        LTError: There is more than one.
    """
    found = [path for path in _files(folder) if _hierarchies.fullmatch(path.name)]
    return _one(found, "label hierarchy") if found else None


def _files(folder: Path) -> list[Path]:
    """Files of a folder by name."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:
        raise LTError(f"{folder}: no such folder") from None
    except OSError as e:
        raise LTError(f"{folder}: the folder cannot be read: {e.strerror}") from None


def _one(paths: Sequence[Path], role: str) -> Path:
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise LTError(f"{paths[0].parent}: several files of {role}: {names}; keep one of them in the folder")
    return paths[0]


def _missing(expected: str, folder: Path) -> str:
    """What to do about a missing file."""
    names = [path.name for path in _files(folder)]
    for name in names:
        unpacked = _packed.fullmatch(name)
        if unpacked and any(kind.fullmatch(unpacked[1]) for kind in (_annotations, _classes)):
            return f"unpack {name}"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"expected {expected}, or its name in another version of Open Images; found: {shown or 'no files'}"
