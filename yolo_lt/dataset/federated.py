"""The federated index: which classes were looked for in which images. Pure numpy.

LVIS and Open Images do not label every class in every image, and merged sets were labelled for different classes. Where
nobody looked for a class, its absence from the labels says nothing. The index keeps, per image, the classes that are
known to be there, those known not to be there, and those of which only some objects are labelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from yolo_lt.dataset.rows import Boxes, Lists
from yolo_lt.errors import LTError
from yolo_lt.files import replacing

SCHEMA = 1
LISTS = ("positive", "negative", "not_exhaustive")
EVERYTHING = -1  # the row of an image in which every class was looked for


@dataclass(frozen=True)
class FederatedIndex:
    """What is known of the absence of classes, per row; images that were labelled alike share a row.

    A class is verified in a row if it is in `positive` or `negative`. In `negative` are the classes whose absence from
    an image's labels means that they are not there; a source that was labelled for some classes has those.

    Attributes:
        classes: Class names, C.
        images: Names of N images, as paths whose ends tell them apart, with `/`.
        row: The row of every image, shape (N,), int64; `EVERYTHING`: all classes were looked for.
        positive, negative, not_exhaustive: Class ids of every row; of the last kind only some objects are labelled.
        groups: Boxes that stand for many objects (crowds, group-of boxes), which no label has; None: there are none.
        labels: What a class hierarchy calls the classes (Open Images' /m/...), or None: their names.
    """

    classes: tuple[str, ...]
    images: tuple[str, ...]
    row: np.ndarray
    positive: Lists
    negative: Lists
    not_exhaustive: Lists
    groups: Boxes | None = None
    labels: tuple[str, ...] | None = None

    @property
    def num_rows(self) -> int:
        """Rows, R."""
        return len(self.positive)

    @cached_property
    def looked_for(self) -> np.ndarray:
        """How many classes were looked for in the images of every row, shape (R,), int64."""
        return np.array([self.verified(r).sum() for r in range(self.num_rows)], np.int64)

    @property
    def partial(self) -> np.ndarray:
        """The images in which the absence of some class says nothing, shape (N,), bool."""
        whole = (self.looked_for == len(self.classes)) & (np.diff(self.not_exhaustive.offsets) == 0)
        return ~np.append(whole, True)[self.row]  # EVERYTHING is the last

    def verified(self, row: int) -> np.ndarray:
        """Which classes were looked for in the images of a row, shape (C,), bool; those not exhaustively, too."""
        known = np.full(len(self.classes), row == EVERYTHING)
        if row != EVERYTHING:
            known[self.positive[row]] = known[self.negative[row]] = True
        return known

    def negative_weights(self, row: int, unknown: float | np.ndarray) -> np.ndarray:
        """Weight of a negative of every class in the images of a row, shape (C,), float32.

        1 where the class was looked for, `unknown` (a number, or one per class) where it was not, and 0 where only some
        of its objects are labelled.
        """
        weights = np.where(self.verified(row), 1.0, unknown).astype(np.float32)
        if row != EVERYTHING:
            weights[self.not_exhaustive[row]] = 0
        return weights

    def shared_weights(self, rows: Iterable[int], unknown: float | np.ndarray) -> np.ndarray:
        """The same where images of several rows are seen at once: the least of their weights; 1 where there is none."""
        return np.min([np.ones(len(self.classes), np.float32), *(self.negative_weights(r, unknown) for r in rows)], 0)

    def align(self, paths: Sequence[str]) -> tuple[FederatedIndex, int]:
        """The index of these images, in their order, and how many of them it does not know: there everything counts.

        A path is that of the image whose name is its end: `train2017/1.jpg` names `/data/images/train2017/1.jpg`.

        Raises:
            LTError: Two names fit one path equally.
        """
        by_file: dict[str, list[int]] = {}
        for i, name in enumerate(self.images):
            by_file.setdefault(name.rpartition("/")[2], []).append(i)
        found = [_match(path, by_file, self.images) for path in paths]
        rows = [EVERYTHING if i is None else int(self.row[i]) for i in found]
        groups = self.groups and self.groups.take(np.array([-1 if i is None else i for i in found], np.int64))
        return replace(self, images=tuple(paths), row=np.array(rows, np.int64), groups=groups), found.count(None)

    @classmethod
    def everything(cls, classes: Sequence[str], images: Sequence[str]) -> FederatedIndex:
        """The index of images in which every class was looked for."""
        nothing = Lists.of([])
        return cls(tuple(classes), tuple(images), np.full(len(images), EVERYTHING), nothing, nothing, nothing)

    @classmethod
    def joined(cls, parts: Sequence[FederatedIndex]) -> FederatedIndex:
        """The images of several, which have the same classes, one after the other."""
        starts = np.cumsum([0, *(p.num_rows for p in parts)])
        row = [np.where(p.row == EVERYTHING, EVERYTHING, p.row + s) for p, s in zip(parts, starts, strict=False)]
        groups = [p.groups or Boxes.none(len(p.images)) for p in parts]
        positive, negative, partial = (Lists.joined([getattr(p, name) for p in parts]) for name in LISTS)
        return replace(
            parts[0],
            images=tuple(name for p in parts for name in p.images),
            row=np.concatenate(row),
            positive=positive,
            negative=negative,
            not_exhaustive=partial,
            groups=Boxes.joined(groups) if any(p.groups is not None for p in parts) else None,
            labels=next((p.labels for p in parts if p.labels is not None), None),
        )

    def among_verified(self, image: np.ndarray, cls: np.ndarray) -> np.ndarray:
        """Whether a class was looked for in an image, for pairs of both, each shape (P,): shape (P,), bool."""
        count, rows, asked = len(self.classes), np.arange(self.num_rows), self.row[image]
        known = [np.repeat(rows, x.lengths) * count + x.classes for x in (self.positive, self.negative)]
        return (asked == EVERYTHING) | np.isin(asked * count + cls, np.concatenate(known))

    def select(self, keep: np.ndarray) -> FederatedIndex:
        """The index of some images alone; `keep` has shape (N,), bool."""
        groups = self.groups and self.groups.take(np.flatnonzero(keep))
        return replace(self, images=tuple(np.array(self.images, object)[keep]), row=self.row[keep], groups=groups)

    def save(self, path: Path) -> None:
        """Write it as .npz, whole or not at all: plain arrays, readable without pickle."""
        content: dict[str, Any] = {"schema": np.int64(SCHEMA), "row": self.row}
        content |= {"classes": _packed(self.classes), "images": _packed(self.images)}
        for name in LISTS:
            lists = getattr(self, name)
            content |= {f"{name}_classes": lists.classes, f"{name}_offsets": lists.offsets}
        if self.groups is not None:
            content |= {f"groups_{f.name}": getattr(self.groups, f.name) for f in fields(Boxes)}
        if self.labels is not None:
            content["labels"] = _packed(self.labels)
        with replacing(path) as temporary, temporary.open("wb") as f:
            np.savez_compressed(f, **content)


def _match(path: str, by_file: Mapping[str, list[int]], names: Sequence[str]) -> int | None:
    """Which name is the end of a path, the longest if several are."""
    path = "/" + path.replace("\\", "/")
    candidates = by_file.get(path.rpartition("/")[2], ())
    fitting = sorted((len(names[i]), i) for i in candidates if path.endswith("/" + names[i].removeprefix("./")))
    if len(fitting) > 1 and fitting[-1][0] == fitting[-2][0]:
        raise LTError(f"the federated index has the image '{names[fitting[-1][1]]}' twice")
    return fitting[-1][1] if fitting else None


def _packed(names: Sequence[str]) -> np.ndarray:
    """Strings as bytes: numpy's own strings take four bytes times the longest for each."""
    return np.frombuffer("\n".join(names).encode(), np.uint8)


def load(path: Path) -> FederatedIndex:
    """Read an index that `FederatedIndex.save` wrote.

    Raises:
        LTError: It is missing, damaged, of another schema, or its lists do not fit each other.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {k: file[k] for k in file.files}
    except FileNotFoundError:
        raise LTError(f"federated={path}: no such file") from None
    except Exception as e:  # numpy and zipfile raise whatever they like
        raise LTError(f"federated={path} is no federated index: {e}") from None
    try:
        if int(data["schema"]) != SCHEMA:
            raise ValueError(f"schema {int(data['schema'])}, expected {SCHEMA}")
        index = _from_arrays(data)
        _check(index)
    except (KeyError, ValueError, TypeError, UnicodeDecodeError) as e:
        raise LTError(f"federated={path} is damaged: {e}") from None
    return index


def _from_arrays(data: Mapping[str, np.ndarray]) -> FederatedIndex:
    positive, negative, partial = (Lists(data[f"{n}_classes"], data[f"{n}_offsets"]) for n in LISTS)
    groups = Boxes(*(data[f"groups_{f.name}"] for f in fields(Boxes))) if "groups_cls" in data else None
    labels = _unpacked(data["labels"]) if "labels" in data else None
    classes, images = _unpacked(data["classes"]), _unpacked(data["images"])
    return FederatedIndex(classes, images, data["row"], positive, negative, partial, groups, labels)


def _unpacked(data: np.ndarray) -> tuple[str, ...]:
    text = data.astype(np.uint8).tobytes().decode()
    return tuple(text.split("\n")) if text else ()


def _check(index: FederatedIndex) -> None:
    if len(index.row) != len(index.images):
        raise ValueError(f"{len(index.images)} images, but {len(index.row)} rows")
    if index.labels is not None and len(index.labels) != len(index.classes):
        raise ValueError(f"{len(index.classes)} classes, but {len(index.labels)} labels of a hierarchy")
    if len(index.row) and not (index.row.min() >= EVERYTHING and index.row.max() < index.num_rows):
        raise ValueError("an image's row is outside the lists")
    for name in LISTS:
        lists = getattr(index, name)
        borders = lists.offsets
        whole = len(lists) == index.num_rows and borders[0] == 0 and borders[-1] == len(lists.classes)
        ids_fit = not len(lists.classes) or 0 <= lists.classes.min() <= lists.classes.max() < len(index.classes)
        if not whole or (np.diff(borders) < 0).any() or not ids_fit:
            raise ValueError(f"the list '{name}' does not fit")
    if (groups := index.groups) is not None:
        borders, many = groups.offsets, len(groups)
        whole = len(borders) == len(index.images) + 1 and borders[0] == 0 and borders[-1] == many
        ids_fit = not many or 0 <= groups.cls.min() <= groups.cls.max() < len(index.classes)
        if not whole or (np.diff(borders) < 0).any() or not ids_fit or groups.box.shape != (many, 4):
            raise ValueError("the groups do not fit")


def from_known_classes(
    images: Sequence[str],
    known: Mapping[str, Iterable[int]],
    classes: Sequence[str],
    listed: Mapping[str, str] | None = None,
) -> tuple[FederatedIndex, list[str]]:
    """The index of merged sources, each labelled for some of the classes.

    Args:
        images: Paths of all images, with `/`.
        known: Per source, the class ids that its labels cover. A source is a folder, and holds the images below it that
            no deeper one holds; or any name, and holds the images of `listed`.
        classes: All class names.
        listed: Paths of images and the source of each.

    Returns:
        The index, with a row per source, and the sources that hold none of the images. An image of no source was
        labelled for every class.
    """
    rows = {source: r for r, source in enumerate(known)}
    places = {**rows, **{path: rows[source] for path, source in (listed or {}).items()}}
    found = np.fromiter((_place(image, places) for image in images), np.int64, len(images))
    nothing = Lists.of([[] for _ in rows])
    index = FederatedIndex(tuple(classes), tuple(images), found, nothing, Lists.of(list(known.values())), nothing)
    return index, [source for source, r in rows.items() if r not in set(found.tolist())]


def _place(image: str, places: dict[str, int]) -> int:
    """The row of a path, or of the nearest folder above it that has one; a folder's answer is kept in `places`."""
    if image in places:
        return places[image]
    folder = image.rpartition("/")[0]
    if folder == image or not folder:
        return EVERYTHING
    places[folder] = _place(folder, places)
    return places[folder]
