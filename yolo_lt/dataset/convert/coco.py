"""COCO and LVIS annotation files, and whatever has their form, read without making an object of every number.

msgspec reads the file in place: boxes become arrays, and an outline stays where it lies in the file until its label is
written, so a gigabyte of polygons costs little more memory than the file itself.
"""

from __future__ import annotations

import codecs
import mmap
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from yolo_lt.dataset.bins import LETTERS
from yolo_lt.dataset.convert.outlines import Contours, Join, Outlines
from yolo_lt.dataset.convert.source import Categories, Split, index_of
from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.dataset.rows import Boxes, Lists
from yolo_lt.errors import LTError

COCO_SERVER = "//images.cocodataset.org/"  # COCO and LVIS tell the folder of an image by its address alone
NAME_BYTES = 255  # that file systems allow
BEYOND = 1.0  # pixels by which a box may leave its image without being called a defect: annotators' tools round


class _Image(msgspec.Struct, gc=False):
    id: int | str
    width: float
    height: float
    file_name: str | None = None
    coco_url: str | None = None
    neg_category_ids: list[int] | None = None
    pos_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str
    frequency: str | None = None
    freebase_id: str | None = None


class _Annotation(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: int | bool | None = 0


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


class _Entries(msgspec.Struct):
    images: list[msgspec.Raw] = []
    categories: list[msgspec.Raw] = []
    annotations: list[msgspec.Raw] = []


def read_coco(path: Path, join: Join | None = None, contours: Contours | None = None) -> Split:
    """Read one split in COCO or LVIS form.

    Images are named by their `file_name`; where that has no folder, by the last two parts of their `coco_url` if it is
    one of COCO's own (LVIS has no other name at all). Classes are in the order of their category ids. Boxes are cut at
    the border of their image.

    Args:
        path: The JSON file.
        join: Joins the parts of an object's outline into one, with `contours` what makes outlines be read at all.
        contours: The outlines of a run-length mask.

    Returns:
        The split; crowds are its groups, and LVIS' lists of categories make it federated.

    Raises:
        LTError: The file is missing, cut off or not of this form; an id is used twice or not listed; or an image has no
            size.
    """
    data = _decode(path)
    categories, place = _categories(data.categories, path)
    names = _names(data.images, path)
    index = {image.id: i for i, image in enumerate(data.images)}
    if len(index) != len(data.images):
        twice = Counter(image.id for image in data.images).most_common(1)[0][0]
        raise LTError(f"{path}: the image id {twice!r} is used twice; ids must be unique")
    image = _indices(data.annotations, "image_id", index, path)
    cls = _indices(data.annotations, "category_id", place, path)
    size = np.array([(i.width, i.height) for i in data.images], np.float64).reshape(-1, 2)
    if len(bad := np.flatnonzero(~(size > 0).all(1))):
        raise LTError(f"{path}: image '{names[bad[0]]}' has no width or height; they are needed to scale its boxes")
    repairs: Counter[str] = Counter()
    box, sound = _normalised(data.annotations, size, image, repairs)
    crowd = np.array([bool(a.iscrowd) for a in data.annotations], bool)
    order = np.argsort(image, kind="stable")
    single, group = order[(sound & ~crowd)[order]], order[(sound & crowd)[order]]
    raw, outline = [data.annotations[m].segmentation for m in single.tolist()], None
    if join is not None and any(len(outlined) > len("null") for outlined in raw):
        outline = Outlines(raw, box[single], size[image[single]], join, contours, repairs)
    return Split(
        categories=categories,
        images=names,
        objects=_boxes(single, image, cls, box, len(names)),
        groups=_boxes(group, image, cls, box, len(names)),
        **_lists(data.images, image, cls, group, place, repairs),
        outline=outline,
        repairs=repairs,
    )


def lvis_index(path: Path) -> FederatedIndex:
    """The federated index of LVIS annotations, a row per image.

    Raises:
        LTError: As `read_coco`, or the file has nothing that makes it federated.
    """
    split = read_coco(path)
    if split.negative is None:
        raise LTError(f"{path} are no LVIS annotations: no image has neg_category_ids")
    index = index_of(split)
    assert index is not None
    return index


def _decode(path: Path) -> _File:
    """The parsed file; its outlines still lie in the mapped file."""
    try:
        with path.open("rb") as f:
            mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise LTError(f"{path}: no such file") from None
    except OSError as e:
        raise LTError(f"{path} cannot be read: {e.strerror}") from None
    except ValueError:
        raise LTError(f"{path} is empty: fetch or write it again") from None
    content = memoryview(mapped)[3 if mapped[:3] == codecs.BOM_UTF8 else 0 :]
    try:
        return msgspec.json.decode(content, type=_File)
    except msgspec.ValidationError as e:
        raise LTError(f"{path} is no COCO or LVIS file: {_place(content, e)}") from None
    except UnicodeDecodeError:
        raise LTError(f"{path} is no valid JSON: it is not in UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as e:
        raise LTError(f"{path} is no valid JSON: {_defect(content, e)}") from None


def _defect(content: memoryview, error: Exception) -> str:
    """What is wrong with JSON, and what stands there."""
    if "truncated" in str(error):
        return "it ends in the middle; is it cut off? Fetch or write it again"
    at = re.search(r"\(byte (\d+)\)", str(error))
    found = bytes(content[int(at[1]) :][:20]).decode(errors="replace") if at else ""
    return f"{error}" + (f", at {found!r}" if found else "")


def _place(content: memoryview, error: msgspec.ValidationError) -> str:
    """What was found, with the number of the entry: msgspec names the list only."""
    kinds = {"images": _Image, "categories": _Category, "annotations": _Annotation}
    try:
        entries = msgspec.json.decode(content, type=_Entries)
    except (msgspec.DecodeError, RecursionError):  # it may be cut off as well
        return str(error)
    for key, kind in kinds.items():
        for i, entry in enumerate(getattr(entries, key)):
            try:
                msgspec.json.decode(entry, type=kind)
            except msgspec.ValidationError as e:
                return f"{key}[{i}]: {e}"
    return str(error)


def _categories(found: Sequence[_Category], path: Path) -> tuple[Categories, dict[int, int]]:
    """The classes, and the place of every category id among them."""
    ordered = sorted(found, key=lambda c: c.id)
    place = {c.id: i for i, c in enumerate(ordered)}
    if len(place) != len(ordered) or not ordered:
        raise LTError(f"{path}: {'a category id is used twice' if ordered else 'there are no categories'}")
    letters = tuple(c.frequency or "" for c in ordered)
    if any(letters) and not set(letters) <= set(LETTERS):
        raise LTError(f"{path}: some categories have a frequency, but not every one has r, c or f")
    words = [" ".join(c.name.split()) for c in ordered]  # a list of names has one per line
    repeated = Counter(words)
    names = tuple(w if repeated[w] == 1 else f"{w} ({c.id})" for w, c in zip(words, ordered, strict=True))
    if len(set(names)) != len(names):
        raise LTError(f"{path}: two categories are called '{Counter(names).most_common(1)[0][0]}'; rename one")
    labels = tuple(c.freebase_id or c.name for c in ordered) if any(c.freebase_id for c in ordered) else None
    return Categories(names, tuple(c.id for c in ordered), letters if any(letters) else None, labels), place


def _names(images: Sequence[_Image], path: Path) -> tuple[str, ...]:
    names = tuple(_name(image, path) for image in images)
    if len(set(names)) != len(names):
        raise LTError(f"{path}: the image '{Counter(names).most_common(1)[0][0]}' is listed twice")
    return names


def _name(image: _Image, path: Path) -> str:
    """The image's path with `/`, within the folder of all images."""
    name, url = (image.file_name or "").replace("\\", "/"), image.coco_url or ""
    last = url.rpartition("/")[2]
    official = COCO_SERVER in url and last and name.endswith(last)  # LVIS v0.5: COCO_val2014_ before it
    if not name or (official and "/" not in name):
        name = "/".join(url.partition("://")[2].split("/")[1:][-2:])
    parts = [part for part in PurePosixPath(name).parts if part.strip("/")]
    if not parts or ".." in parts or "\0" in name or name.splitlines() != [name] or _too_long(parts):
        shown = f"{name!r:.100}"
        raise LTError(f"{path}: the image with id {image.id!r} has the file name {shown}, which is no path of a file")
    return "/".join(parts)


def _too_long(parts: Sequence[str]) -> bool:
    """Whether a part, or the name of the label file, is longer than a name can be."""
    label = PurePosixPath(parts[-1]).stem + ".txt"
    return max(len(part.encode()) for part in (*parts, label)) > NAME_BYTES


def _indices(annotations: Sequence[_Annotation], key: str, place: dict, path: Path) -> np.ndarray:
    try:
        return np.fromiter((place[getattr(a, key)] for a in annotations), np.int32, len(annotations))
    except KeyError as e:
        at = next(i for i, a in enumerate(annotations) if getattr(a, key) not in place)
        listed = "images" if key == "image_id" else "categories"
        raise LTError(f"{path}, annotations[{at}]: {key} {e.args[0]!r} is not among the {listed}") from None


def _normalised(
    annotations: Sequence[_Annotation], size: np.ndarray, image: np.ndarray, repairs: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Label boxes (M, 4) cut at the border, and which of them have an area left (M,), bool."""
    xywh = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    of = size[image]
    with np.errstate(over="ignore"):
        corners = np.stack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
    inside = np.clip(corners, 0, of[:, None])
    sound = (inside[:, 1] > inside[:, 0]).all(1)
    cut = sound & (np.abs(inside - corners) > BEYOND).any((1, 2))
    repairs["boxes reached beyond their image and were cut at its border"] += int(cut.sum())
    repairs["boxes without an area inside their image were left out"] += int((~sound).sum())
    inside /= of[:, None]
    return np.concatenate([inside.mean(1), inside[:, 1] - inside[:, 0]], 1), np.asarray(sound)


def _boxes(at: np.ndarray, image: np.ndarray, cls: np.ndarray, box: np.ndarray, images: int) -> Boxes:
    """Some of the boxes, given in the order of their images."""
    return Boxes(np.searchsorted(image[at], np.arange(images + 1)).astype(np.int64), cls[at], box[at])


def _lists(
    images: Sequence[_Image],
    image: np.ndarray,
    cls: np.ndarray,
    group: np.ndarray,
    place: dict[int, int],
    repairs: Counter[str],
) -> dict[str, Lists | None]:
    """What was looked for: LVIS' lists; where there are none, crowds alone say that not every object has a box."""
    n = len(images)
    partial = (_pairs(images, "not_exhaustive_category_ids", place, repairs), (image[group], cls[group]))
    lists: dict[str, Lists | None] = {"not_exhaustive": _joined(partial, n)}
    if all(i.neg_category_ids is None for i in images):
        return lists
    positive = (_pairs(images, "pos_category_ids", place, repairs), (image, cls))
    lists["positive"] = _joined(positive, n)
    lists["negative"] = _joined((_pairs(images, "neg_category_ids", place, repairs),), n)
    return lists


def _pairs(images: Sequence[_Image], key: str, place: dict[int, int], repairs: Counter[str]) -> tuple[Any, Any]:
    rows = [(i, place.get(c, -1)) for i, image in enumerate(images) for c in getattr(image, key) or ()]
    row, cls = np.array(rows, np.int64).reshape(-1, 2).T
    repairs[f"entries of {key} name no category and were left out"] += int((cls < 0).sum())
    return row[cls >= 0], cls[cls >= 0]


def _joined(pairs: Sequence[tuple[np.ndarray, np.ndarray]], rows: int) -> Lists:
    row, cls = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    return Lists.from_pairs(row, cls, rows)
