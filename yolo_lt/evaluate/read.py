"""COCO, LVIS and Open Images JSON into compact arrays, every defect named with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from yolo_lt.dataset.bins import LETTERS
from yolo_lt.errors import LTError
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.columns import (
    Source,
    all_types,
    check_unique,
    column,
    indices,
    is_id,
    kind,
    load,
    numbers,
    refuse,
    rows,
    sorted_ids,
)

CROWDS = ("iscrowd", "isgroupof", "is_group_of", "IsGroupOf")  # COCO's, and what writers of Open Images call theirs
FEDERATED = {
    "negative": "neg_category_ids",
    "positive": "pos_category_ids",
    "partial": "not_exhaustive_category_ids",
}


def read_ground_truth(source: Source) -> GroundTruth:
    """Read ground truth in COCO or LVIS form.

    Args:
        source: A dict with lists under images, categories and annotations, or the path of such a JSON file. Category
            ids are any integers, image ids all integers or all strings. An annotation needs image_id, category_id and
            bbox (x, y, width, height), or rbox (centre x, centre y, width, height, radians) in every annotation; area
            defaults to width * height, iscrowd (Open Images: isgroupof) and ignore to 0; annotation ids are only
            checked for duplicates. Boxes may reach outside the image, as in COCO. Lists of category ids under
            neg_category_ids, pos_category_ids and not_exhaustive_category_ids of the images make the labels federated.

    Returns:
        The arrays, images and categories sorted by id, annotations in file order.

    Raises:
        LTError: The file is missing or malformed, a key is missing, a number is not finite, an id is used twice, or
            an annotation names an image or category that is not listed.
    """
    data, where = load(source, "ground truth")
    if not isinstance(data, Mapping):
        raise LTError(f"{where}: expected an object with images, categories and annotations, found {kind(data)}.")
    images, cats, anns = (rows(data, key, where) for key in ("images", "categories", "annotations"))
    image_ids = sorted_ids(column(images, "id", f"{where}, images"), f"{where}, images", (int, str))
    category_ids = sorted_ids(column(cats, "id", f"{where}, categories"), f"{where}, categories", (int,))
    by_id = sorted(cats, key=lambda c: c["id"])
    place = f"{where}, annotations"
    check_unique([a["id"] for a in anns if isinstance(a, Mapping) and "id" in a], place)
    box, angle = _boxes(anns, place)
    return GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        names=tuple(str(c.get("name", c["id"])) for c in by_id),
        image=indices(column(anns, "image_id", place), image_ids, "image_id", place),
        cls=indices(column(anns, "category_id", place), category_ids, "category_id", place),
        box=box,
        area=_areas(anns, box, place),
        crowd=np.any([_flags(anns, key, place) for key in CROWDS], axis=0),
        frequency=_frequency(by_id, f"{where}, categories"),
        image_counts=_image_counts(by_id, f"{where}, categories"),
        ignored=_flags(anns, "ignore", place),
        angle=angle,
        labels=tuple(str(c.get("freebase_id", c.get("name", c["id"]))) for c in by_id),
        **_federated(images, image_ids, category_ids, f"{where}, images"),
    )


def read_detections(source: Source, gt: GroundTruth) -> Detections:
    """Read detections in COCO results form.

    Args:
        source: A list of dicts with image_id, category_id, score, and bbox (x, y, width, height) or, for turned boxes,
            rbox (centre x, centre y, width, height, radians), or the path of a JSON file with such a list. It may be
            empty.
        gt: The ground truth that they belong to.

    Returns:
        The arrays in file order; class -1 where the ground truth does not list the category.

    Raises:
        LTError: The file is missing or malformed, a key is missing, a score or box is not finite, or an image id is
            not in the ground truth; or boxes are upright on one side and turned on the other.
    """
    data, where = load(source, "detections")
    if isinstance(data, (Mapping, str)) or not isinstance(data, Sequence):
        raise LTError(f"{where}: expected a list of detections (COCO results), found {kind(data)}.")
    known = {c: i for i, c in enumerate(gt.category_ids.tolist())}
    category = column(data, "category_id", where)
    if not all_types(category, Integral):
        refuse(category, where, "category_id", "an integer", lambda v: is_id(v, (int,)))
    box, angle = _boxes(data, where)
    if len(box) and len(gt.box) and (angle is None) != (gt.angle is None):
        turned = "the detections" if gt.angle is None else "the ground truth"
        raise LTError(f"{where}: {turned} alone has turned boxes (rbox); give both sides in one form.")
    return Detections(
        image=indices(column(data, "image_id", where), gt.image_ids, "image_id", where),
        cls=np.array([known.get(c, -1) for c in category], dtype=np.int64),
        box=box,
        score=numbers(column(data, "score", where), "score", where),
        angle=angle,
    )


def _boxes(entries: Sequence, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """x, y, width, height (n, 4), and the angles (n,) where the first entry has an rbox."""
    if not entries or not isinstance(entries[0], Mapping) or "rbox" not in entries[0]:
        return numbers(column(entries, "bbox", where), "bbox", where, 4), None
    turned = numbers(column(entries, "rbox", where), "rbox", where, 5)
    return np.c_[turned[:, :2] - turned[:, 2:4] / 2, turned[:, 2:4]], turned[:, 4]


def _areas(anns: Sequence, box: np.ndarray, where: str) -> np.ndarray:
    """The area field, or width times height where it is missing; float64."""
    default = (box[:, 2] * box[:, 3]).tolist()
    return numbers([a.get("area", d) for a, d in zip(anns, default, strict=True)], "area", where)


def _flags(anns: Sequence, key: str, where: str) -> np.ndarray:
    """A column of 0 and 1, 0 where it is missing; bool."""
    values = [a.get(key, 0) for a in anns]
    if not all(isinstance(v, (int, np.bool_)) and v in (0, 1) for v in values):
        refuse(values, where, key, "0 or 1", lambda v: isinstance(v, (int, np.bool_)) and v in (0, 1))
    return np.array(values, dtype=bool)


def _federated(
    images: Sequence, image_ids: np.ndarray, category_ids: np.ndarray, where: str
) -> dict[str, np.ndarray | None]:
    """The image-level lists as sorted keys; None where no image has one. Unlisted categories have nothing to say."""
    image = indices([row["id"] for row in images], image_ids, "id", where)
    known = {c: i for i, c in enumerate(category_ids.tolist())}
    found: dict[str, np.ndarray | None] = dict.fromkeys(FEDERATED)
    for name, key in FEDERATED.items():
        if any(key in row for row in images):
            lists = [_id_list(row.get(key), f"{where}[{i}]", key) for i, row in enumerate(images)]
            keys = [
                i * len(known) + known[c]
                for i, ids in zip(image.tolist(), lists, strict=True)
                for c in ids
                if c in known
            ]
            found[name] = np.unique(np.array(keys, dtype=np.int64))
    return found


def _id_list(value: Any, where: str, key: str) -> Sequence:
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str) or not all_types(value, Integral):
        raise LTError(f"{where}: '{key}' is {value!r:.60}; it must be a list of category ids.")
    return value


def _image_counts(cats: Sequence, where: str) -> np.ndarray | None:
    """Training images per class, if all categories say them (LVIS)."""
    if not cats or not all("image_count" in c for c in cats):
        return None
    return numbers([c["image_count"] for c in cats], "image_count", where).astype(np.int64)


def _frequency(cats: Sequence, where: str) -> tuple[str, ...] | None:
    """The letters r, c, f if the categories have them."""
    if not any("frequency" in c for c in cats):
        return None
    for c in cats:
        if c.get("frequency") not in list(LETTERS):
            found = repr(c.get("frequency"))
            raise LTError(f"{where}: category {c['id']} has frequency {found}; it must be r, c or f for all.")
    return tuple(c["frequency"] for c in cats)
