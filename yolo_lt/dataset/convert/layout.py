"""The files of a converted data set, in Ultralytics' layout.

data.yaml                     names, category ids, frequencies, counts of the training split, and the files below
train.txt, missing-train.txt  the images that are there, and those that are not
images/train/FOLDER           a link to the folder of images
labels/train/FOLDER/X.txt     the labels
federated/train.npz           which classes were looked for in which images, and group boxes
conversion.json               what was converted from what, and what was mended
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolo_lt.dataset.convert.links import Places, find_folder, show_folder
from yolo_lt.dataset.convert.outlines import DIGITS
from yolo_lt.dataset.convert.source import Split, image_counts, index_of
from yolo_lt.errors import LTError
from yolo_lt.files import replacing

CHUNK = 2000  # images between two notes of progress
BATCH = 128  # outlines at a time: their numbers fit into a processor's cache
Found = tuple[Path, set[str]]  # a folder, and those of the wanted files that are in it


def write_labels(split: Split, at: Places, folder: Path, start: int, note: Callable[[int], None]) -> None:
    """Write the label files of a split; an image without objects gets an empty one.

    Args:
        split: The split.
        at: Where its images and labels are.
        folder: `labels/SPLIT`.
        start: Images that are written already.
        note: Is told how many are written, every now and then.
    """
    for place in at.folders:
        (folder / place).mkdir(parents=True, exist_ok=True)
    for first in range(start, len(at.label), CHUNK):
        images = range(first, min(first + CHUNK, len(at.label)))
        lines, borders = _lines(split, images), split.objects.offsets[first : images.stop + 1]
        for label, (a, b) in zip(at.label[first : images.stop], pairwise((borders - borders[0]).tolist()), strict=True):
            with open(folder / label, "w", encoding="ascii") as f:
                f.writelines(lines[a:b])
        note(images.stop)


def _lines(split: Split, images: range) -> list[str]:
    """The label lines of some images, one after the other."""
    objects = slice(split.objects.offsets[images.start], split.objects.offsets[images.stop])
    classes = split.objects.cls[objects].tolist()
    if split.outline is not None:
        starts = range(objects.start, objects.stop, BATCH)
        texts = chain.from_iterable(split.outline(range(m, min(m + BATCH, objects.stop))) for m in starts)
        return [f"{c} {text}\n" for c, text in zip(classes, texts, strict=True)]
    boxes = split.objects.box[objects].astype(np.float64).round(DIGITS).tolist()
    return [f"{c} {x} {y} {w} {h}\n" for c, (x, y, w, h) in zip(classes, boxes, strict=True)]


def write_split(folder: Path, name: str, split: Split, at: Places) -> dict[str, Any]:
    """Write the list of images and the federated index of a split.

    Returns:
        What the record says of it.
    """
    write_list(folder / f"{name}.txt", (f"./images/{name}/{image}" for image in at.image))
    index = index_of(split)
    if index is not None:
        replace(index, images=at.image).save(folder / "federated" / f"{name}.npz")
    return {
        "images": len(split.images),
        "objects": len(split.objects),
        "groups": len(split.groups),
        "federated": index is not None,
        "folders": at.folders,
        "mended": dict(+split.repairs),
    }


def write_list(path: Path, lines: Iterable[str]) -> None:
    """Write a list of images, one per line; there may be millions."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as f:
        f.writelines(f"{line}\n" for line in lines)


def read_list(path: Path) -> list[str]:
    """The lines of a list; none if there is no such file."""
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def class_entries(split: Split, counted: bool) -> dict[str, Any]:
    """What the data YAML says of the classes, by a split; with its counts if it is that of training."""
    found = split.categories
    entries: dict[str, Any] = {"names": dict(enumerate(found.names)), "category_ids": list(found.ids)}
    if found.labels:
        entries["hierarchy_labels"] = list(found.labels)
    if found.frequency:
        entries["frequency"] = list(found.frequency)
    if not counted:
        return entries
    entries["image_counts"] = image_counts(split.objects, len(found.names)).tolist()
    entries["instance_counts"] = np.bincount(split.objects.cls, minlength=len(found.names)).tolist()
    return entries


def data_yaml(title: str, entries: Mapping[str, Any], splits: Mapping[str, Mapping[str, Any]]) -> str:
    """The data YAML; without `path`, so that the folder may be moved.

    Args:
        title: What the first line says.
        entries: Everything but the splits that are written here.
        splits: These splits, and whether they are `federated`.
    """
    text = [f"# {_printable(title)}"]
    standing_in = _standing_in([*entries, *splits])
    for name, other in standing_in.items():
        text.append(f"# there is no split '{name}', which Ultralytics asks for: {other} stands in for it")
    files = {name: name for name in splits} | {n: other for n, other in standing_in.items() if other in splits}
    federated = {name: f"federated/{file}.npz" for name, file in files.items() if splits[file]["federated"]}
    text.append(_block({name: f"{file}.txt" for name, file in files.items()}))
    text += [_block({"federated": federated})] if federated else []
    for key, value in entries.items():
        text.append(_block({key: value}, style=None if isinstance(value, list) else False))  # a list is one line
    return "\n".join(text)


def _standing_in(keys: Sequence[str]) -> dict[str, str]:
    """For train and val, of which Ultralytics wants both, the split that stands for the one that is missing."""
    others = {"train": ("val", "minival", "test"), "val": ("minival", "test", "train")}
    found = {name: next((other for other in order if other in keys), None) for name, order in others.items()}
    return {name: other for name, other in found.items() if name not in keys and other is not None}


def _block(content: Mapping[str, Any], style: bool | None = False) -> str:
    return yaml.safe_dump(content, default_flow_style=style, sort_keys=False, width=1 << 20, allow_unicode=True)


def _printable(text: str) -> str:
    """Text for a comment: names of files may hold anything."""
    return "".join(c if c.isprintable() else "?" for c in text)


def look_for_images(folder: Path, record: Mapping[str, Any], images: Path, link: str) -> dict[str, int]:
    """Show the images that are there, and sort those that are not into lists of their own.

    What is so already is not written anew. Where not a single image is found nothing changes.

    Args:
        folder: The data set.
        record: What its conversion.json says.
        images: Where the images are.
        link: How they are shown: symlink, hardlink or copy.

    Returns:
        How many images are missing, by split.

    Raises:
        LTError: Not a single image is there, two folders of the source would be one, a list has a line that the
            conversion did not write, or the disk is full.
    """
    if not images.is_dir():
        raise LTError(f"images={images}: no such folder")
    lines = {name: _listed(folder, name, told["folders"]) for name, told in record["splits"].items()}
    found = {name: _found(images, name, record["splits"][name]["folders"], lines[name]) for name in lines}
    _check_distinct(found, record, images)
    if not any(found.values()):
        example = next((line for split in lines.values() for line in split), "")
        raise LTError(f"images={images} has none of the images, such as {example.rpartition('/')[2]}")
    try:
        return {name: _show(folder, name, found[name], lines[name], link) for name in lines}
    except OSError as e:
        raise LTError(f"{folder}: {e.strerror or e}; start again to go on") from None


def _listed(folder: Path, split: str, places: Collection[str]) -> list[str]:
    """All images of a split, those that are there and those that are missing."""
    path, start = folder / f"{split}.txt", f"./images/{split}/"
    if not path.exists():
        raise LTError(f"{path} is missing: remove {folder} and convert again")
    lines = sorted({*read_list(path), *read_list(folder / f"missing-{split}.txt")})
    for line in lines:
        if not line.startswith(start) or line[len(start) :].partition("/")[0] not in places:
            raise LTError(f"{path}: the conversion did not write the line '{line}'; keep lists of your own elsewhere")
    return lines


def _found(images: Path, split: str, folders: Mapping[str, str], lines: Sequence[str]) -> dict[str, Found]:
    """The folders of a split that are there."""
    by_place: dict[str, set[str]] = {}
    for line in lines:
        *_, place, file = line.split("/")
        by_place.setdefault(place, set()).add(file)
    found = {place: find_folder(images, folders[place], split, files) for place, files in by_place.items()}
    return {place: where for place, where in found.items() if where is not None}


def _check_distinct(found: Mapping[str, Mapping[str, Found]], record: Mapping[str, Any], images: Path) -> None:
    """Refuse to take one folder for two: images of one name would be mistaken for each other."""
    taken: dict[Path, str] = {}
    for split, places in found.items():
        for place, (where, _) in places.items():
            folder = record["splits"][split]["folders"][place]
            if taken.setdefault(where, folder) != folder:
                both = f"'{taken[where]}' and '{folder}'"
                raise LTError(f"images={images}: {where} would be both {both} of the source; give the folder above")


def _show(folder: Path, split: str, found: Mapping[str, Found], lines: Sequence[str], link: str) -> int:
    """Show the folders that are there and write the lists of a split; how many of its images are missing."""
    there: set[str] = set()
    for place, (where, present) in found.items():
        show_folder(where.resolve(), folder / "images" / split / place, link, sorted(present))
        there |= {f"./images/{split}/{place}/{file}" for file in present}
    path, absent = folder / f"{split}.txt", folder / f"missing-{split}.txt"
    listed, missing = [x for x in lines if x in there], [x for x in lines if x not in there]
    if (listed, missing) != (read_list(path), read_list(absent)):
        write_list(absent, lines)  # a kill between the lists must lose no image
        write_list(path, listed)
        write_list(absent, missing)
    if not missing:
        absent.unlink(missing_ok=True)
    return len(missing)
