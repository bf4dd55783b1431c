"""Which objects to show of the classes that are found worst: found ones, confused ones, missed ones. Pure numpy.

`outcomes` keeps little of the boxes, so that these need not wait in memory for AP, by which classes are chosen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from yolo_lt.evaluate.arrays import Detections, GroundTruth, run_ranks, run_starts
from yolo_lt.evaluate.binned import Sets
from yolo_lt.evaluate.confusion import Answers

SHOWN = 4  # objects of a class
OUTCOMES = ("confused", "missed", "found")  # in the order in which they are worth a picture
CONFUSED, MISSED, FOUND = range(len(OUTCOMES))


class Outcomes(NamedTuple):
    """What became of every box that counts, by image and class.

    Attributes:
        cls: Class index, shape (n,).
        image: Image index, shape (n,).
        outcome: Position in `OUTCOMES`, shape (n,).
        taken_for: Class index, -1 if not confused, shape (n,).
        score: Of the detection that takes it or that it is taken for, NaN if missed, shape (n,), float64.
        iou: IoU with that detection, NaN if missed, shape (n,), float64.
        area: The annotation's own area, shape (n,), float64.
        box: x, y, width, height, and the angle of turned boxes, as in `GroundTruth`, shape (n, 4 or 5), float64.
        detection: Likewise of that detection, NaN if missed, shape (n, 4 or 5), float64.
    """

    cls: np.ndarray
    image: np.ndarray
    outcome: np.ndarray
    taken_for: np.ndarray
    score: np.ndarray
    iou: np.ndarray
    area: np.ndarray
    box: np.ndarray
    detection: np.ndarray


def outcomes(gt: GroundTruth, dets: Detections, answered: Answers) -> Outcomes:
    """What became of every box that counts; the boxes and detections are those that `answers` was given."""
    seen = answered.det >= 0
    return Outcomes(
        cls=answered.true,
        image=gt.image[answered.box],
        outcome=np.where(answered.found, FOUND, np.where(seen, CONFUSED, MISSED)),
        taken_for=answered.taken_for,
        score=_spread(dets.score[answered.det[seen]], seen),
        iou=_spread(answered.iou[seen], seen),
        area=gt.area[answered.box],
        box=_forms(gt, answered.box),
        detection=_spread(_forms(dets, answered.det[seen]), seen),
    )


def _forms(boxes: GroundTruth | Detections, index: np.ndarray) -> np.ndarray:
    """Some of the boxes as rows of numbers, shape (n, 4), turned ones (n, 5)."""
    box = boxes.box[index]
    return box if boxes.angle is None else np.c_[box, boxes.angle[index]]


def _spread(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The rows at the places that a mask marks, NaN elsewhere, shape (n, ...)."""
    out = np.full((len(where), *rows.shape[1:]), np.nan)
    out[where] = rows
    return out


def worst(table: Outcomes, gt: GroundTruth, sets: Sets, ap50: np.ndarray, most: int) -> list[dict[str, Any]]:
    """The `examples` entry: the classes of the tail with the lowest AP50, and objects of each.

    Args:
        table: From `outcomes`.
        gt: The truth, for its ids.
        sets: Class indices by bin, rising; without a tail that has boxes that count, all classes are asked for.
        ap50: AP50 of every class, shape (C,).
        most: Classes that are shown, at most.

    Returns:
        One dict per class, the lowest AP50 first, of equal ones that with more boxes not found, then by category:
        `id`; `n_gt`, the boxes that count, which `found`, `confused` and `missed` add up to; and `shown`, up to four
        objects: confused, then missed, then found ones, and one at least of each that there is. Of confused ones those
        with the best wrong detection, one of every class that they are taken for before the second of any; of missed
        ones the largest; of found ones those with the best detection.
    """
    shape = len(gt.category_ids), len(OUTCOMES)
    counts = np.bincount(table.cls * shape[1] + table.outcome, minlength=shape[0] * shape[1]).reshape(shape)
    n_gt = counts.sum(axis=1)
    tail = sets.get("tail", np.zeros(0, np.int64))
    asked = tail if n_gt[tail].any() else sets["all"]
    asked = asked[n_gt[asked] > 0]
    order = np.lexsort((counts[asked, FOUND] - n_gt[asked], ap50[asked]))[:most]
    return [_of_class(table, gt, int(c), counts[c]) for c in asked[order]]


def _of_class(table: Outcomes, gt: GroundTruth, c: int, counts: np.ndarray) -> dict[str, Any]:
    """The entry of one class."""
    rows = np.flatnonzero(table.cls == c)
    own = Outcomes(*(column[rows] for column in table))
    by_outcome = dict(zip(OUTCOMES, counts.tolist(), strict=True))
    return {
        "id": gt.category_ids[c].item(),
        "n_gt": len(rows),
        **{name: by_outcome[name] for name in ("found", "confused", "missed")},
        "shown": [_object(own, gt, i) for i in _chosen(own).tolist()],
    }


def _chosen(own: Outcomes) -> np.ndarray:
    """Positions of the objects of one class that are shown; equal ones by image, then as in the file."""
    worth = np.where(own.outcome == MISSED, own.area, own.score)
    by_class = np.lexsort((-worth, own.taken_for))
    turn = np.empty(len(worth), np.int64)  # of those taken for the same class, or for none, how many come first
    turn[by_class] = run_ranks(run_starts(own.taken_for[by_class]), len(worth))
    order = np.lexsort((-worth, turn, own.outcome))
    rank = run_ranks(run_starts(own.outcome[order]), len(order))
    picked = np.argsort(rank > 0, kind="stable")[:SHOWN]  # the first of every outcome, then what is left
    return order[np.sort(picked)]


def _object(own: Outcomes, gt: GroundTruth, i: int) -> dict[str, Any]:
    """One object in plain numbers."""
    missed, taken_for, image = own.outcome[i] == MISSED, own.taken_for[i], int(own.image[i])
    return {
        "image": image,
        "image_id": gt.image_ids[image].item(),
        "outcome": OUTCOMES[own.outcome[i]],
        "taken_for": None if taken_for < 0 else gt.category_ids[taken_for].item(),
        "score": None if missed else float(own.score[i]),
        "iou": None if missed else float(own.iou[i]),
        "box": own.box[i].tolist(),
        "detection": None if missed else own.detection[i].tolist(),
    }
