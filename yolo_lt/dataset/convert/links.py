"""Where the images and labels of a new data set lie: in folders that show those of others, by links and not by copies.

Every split has folders of its own, `images/SPLIT/FOLDER` and `labels/SPLIT/FOLDER`. So two splits that draw from one
folder of images do not share a label cache, which each of them would write anew for itself again and again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolo_lt.dataset.convert.source import SPLITS
from yolo_lt.errors import LTError
from yolo_lt.files import slug

LINKS = ("symlink", "hardlink", "copy")


@dataclass(frozen=True)
class Places:
    """Where the N images of a split are shown.

    Attributes:
        folders: Names of the folders in the data set, without dots and separators, and the source's folder of each.
        image: Path of every image below `images/SPLIT`.
        label: Path of every label file below `labels/SPLIT`.
    """

    folders: dict[str, str]
    image: tuple[str, ...]
    label: tuple[str, ...]


def places(names: Sequence[str]) -> Places:
    """Give every image a place.

    Images of one folder share one, but for those that differ in the suffix alone, or in the case of letters, which some
    file systems do not tell apart: their labels would have one name.

    Args:
        names: Paths of the images with `/`, none twice.
    """
    folders: dict[str, str] = {}
    known: dict[tuple[str, int], str] = {}
    copies: dict[str, int] = {}
    used = {"images": 1}  # of a path, Ultralytics finds the labels where its last folder of this name is `labels`
    image, label = [], []
    for name in names:
        folder, _, file = name.rpartition("/")
        stem = file.rpartition(".")[0] if "." in file else file
        whole = f"{folder}/{stem}".casefold()
        copies[whole] = copy = copies.get(whole, -1) + 1
        if (folder, copy) not in known:
            known[folder, copy] = _unused(slug(folder) if folder else "all", used)
            folders[known[folder, copy]] = folder
        place = known[folder, copy]
        image.append(f"{place}/{file}")
        label.append(f"{place}/{stem}.txt")
    return Places(folders, tuple(image), tuple(label))


def _unused(name: str, used: dict[str, int]) -> str:
    """The name, with a number behind it if it is used; `used` has the last number of every name."""
    free, key = name, name.casefold()
    while free.casefold() in used:
        used[key] += 1
        free = f"{name}-{used[key]}"
    used[free.casefold()] = 1
    return free


def find_folder(root: Path, folder: str, split: str, names: Collection[str]) -> tuple[Path, set[str]] | None:
    """Where a source's folder of images is: of the usual places below `root` the one that has most of the images.

    Args:
        root: The folder that the user named.
        folder: The folder's path in the source, "" if it gives none.
        split: The split's name; some sets have a folder for each, as val, valid or validation.
        names: File names in that folder.

    Returns:
        The folder, and those of the names that are in it; None if no place has any of them.
    """
    usual = [root / folder, root / "images" / folder]
    for called in (word for word, meant in SPLITS.items() if meant == split):
        usual += [root / called / folder, root / called / "images" / folder, root / "images" / called / folder]
    usual += [root] if folder.rpartition("/")[2] == root.absolute().name else []
    seen = [(place, _files(place).intersection(names)) for place in dict.fromkeys(usual)]
    best = max(seen, key=lambda found: len(found[1]))
    return best if best[1] else None


def _files(folder: Path) -> set[str]:
    """Names of the files in a folder, none if there is no such folder; a link to nothing is no file."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def show_folder(target: Path, at: Path, link: str, names: Iterable[str]) -> None:
    """Let `at` show a folder's files; what it shows already is left alone.

    Args:
        target: The folder.
        at: Where it shall be seen; a link to another folder that is there is replaced.
        link: symlink: one link to the folder; hardlink, copy: the named files, each where it is missing.
        names: Files of the folder.

    Raises:
        LTError: The file system has no such links, or there are files already where a link shall be.
    """
    if link == "symlink" and at.is_dir() and not at.is_symlink():
        raise LTError(f"{at} holds files and is no link: give link=hardlink or link=copy as before, or remove it")
    try:
        at.parent.mkdir(parents=True, exist_ok=True)
        if at.is_symlink() and (link != "symlink" or os.readlink(at) != str(target)):
            at.unlink()
        if link == "symlink":
            if not at.is_symlink():
                at.symlink_to(target, target_is_directory=True)
            return
        at.mkdir(exist_ok=True)
        for name in names:
            if not (at / name).exists():
                _link_file(target / name, at / name, link)
    except OSError as e:
        other = {"symlink": "hardlink or link=copy", "hardlink": "copy", "copy": "symlink"}[link]
        raise LTError(f"{at}: {target} cannot be shown there ({e.strerror}); try link={other}") from None


def _link_file(source: Path, target: Path, link: str) -> None:
    """A file by a hard link or as a copy, whole or not at all."""
    if link == "hardlink":
        os.link(os.path.realpath(source), target)
        return
    temporary = target.with_name(f".{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
