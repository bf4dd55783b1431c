"""What detections lie on, whatever the class; and from it what objects are taken for at a deployed confidence.

Pure numpy. Boxes that count are those that are neither crowd nor ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from yolo_lt.evaluate.arrays import Detections, GroundTruth, best_positions, run_starts, stable_argsort, take
from yolo_lt.evaluate.matching import Truth, among, assign, counting_order
from yolo_lt.evaluate.overlaps import Pairs, overlapping

FOREGROUND = 0.5  # IoU of a match, and of lying on a box of another class
BACKGROUND = 0.1  # up to this IoU a detection lies on nothing
WORST = 20  # pairs of classes that are listed


class Nearest(NamedTuple):
    """The box that each detection overlaps most; IoU (0 below `BACKGROUND`) and position (-1: none), each (D,)."""

    iou: np.ndarray
    box: np.ndarray


class Scene(NamedTuple):
    """Where every detection lies. Boxes are named by their position in `truth`.

    Attributes:
        dets: Listed detections in counting order: by class, then falling score, image, and as in the input.
        source: Their positions in the input, shape (D,).
        truth: Boxes by image and class.
        pairs: Detections and boxes of another class that count, with an IoU of at least `FOREGROUND`.
        taken: The box of its own class that a detection takes, maybe an ignored one, or -1, shape (D,).
        taken_iou: IoU with that box, 0 without one, shape (D,), float64.
        forgiven: Detections that cannot be wrong, for want of labels, shape (D,), bool.
        crowd: Share of a detection in a crowd of its class, the largest, 0 below `BACKGROUND`, shape (D,).
        own: Among the boxes of its class that count, taken or not.
        other: Among the boxes of other classes that count.
    """

    dets: Detections
    source: np.ndarray
    truth: Truth
    pairs: Pairs
    taken: np.ndarray
    taken_iou: np.ndarray
    forgiven: np.ndarray
    crowd: np.ndarray
    own: Nearest
    other: Nearest

    @property
    def right(self) -> np.ndarray:
        """Detections that take a box that counts, shape (D,), bool."""
        return (self.taken >= 0) & ~np.r_[self.truth.ignored, True][self.taken]

    @property
    def found(self) -> np.ndarray:
        """Boxes that count and are taken, shape (G,), bool."""
        found = np.zeros(len(self.truth.key), bool)
        found[self.taken[self.right]] = True
        return found


def scene(gt: GroundTruth, dets: Detections, max_det: int = 0) -> Scene:
    """Find where detections lie, and match them at IoU 0.5 by the matcher's rule.

    Args:
        gt: The truth.
        dets: The detections; of class -1 they take part in the cap alone.
        max_det: Detections kept per image, best first; 0 keeps all.
    """
    classes, source = len(gt.category_ids), _counting_order(gt, dets, max_det)
    dets, truth = take(dets, source), Truth.of(gt, gt.image * classes + gt.cls)
    by_image, images = stable_argsort(dets.image, len(gt.image_ids)), truth.key // max(classes, 1)
    pairs = overlapping(dets, by_image, dets.image[by_image], truth.boxes, images, truth.crowd, BACKGROUND)
    pairs = pairs._replace(det=by_image[pairs.det])
    key, counts, crowd = dets.image * classes + dets.cls, ~truth.ignored[pairs.gt], truth.crowd[pairs.gt]
    same = key[pairs.det] == truth.key[pairs.gt]
    close = pairs.iou >= FOREGROUND
    taken, taken_iou = _taken(pairs.at(same & close & ~crowd), truth, len(source))
    return Scene(
        dets=dets,
        source=source,
        truth=truth,
        pairs=pairs.at(~same & close & counts),
        taken=taken,
        taken_iou=taken_iou,
        forgiven=among(key, gt.partial),
        crowd=_nearest(pairs.at(same & crowd), truth, len(source)).iou,
        own=_nearest(pairs.at(same & counts), truth, len(source)),
        other=_nearest(pairs.at(~same & counts), truth, len(source)),
    )


def _counting_order(gt: GroundTruth, dets: Detections, max_det: int) -> np.ndarray:
    """Positions of the listed among the best `max_det` of every image, in counting order."""
    kept = best_positions(dets.score, dets.image, len(gt.image_ids), max_det)
    return kept[counting_order(take(dets, kept), len(gt.image_ids), len(gt.category_ids))]


def _taken(pairs: Pairs, truth: Truth, num_dets: int) -> tuple[np.ndarray, np.ndarray]:
    """The box that each detection takes, or -1, and the IoU with it, or 0; each (D,)."""
    order = np.lexsort((pairs.gt, pairs.iou))
    rank = np.empty(len(order))  # `assign` says how much a detection overlaps its box: ranks as IoUs say which it is
    rank[order] = np.arange(1, len(order) + 1)
    *_, taken = assign(pairs._replace(iou=rank), num_dets, truth.key, truth.ignored, truth.crowd, np.ones(1))
    at = taken.astype(np.int64)
    return np.r_[-1, pairs.gt[order]][at], np.r_[0.0, pairs.iou[order]][at]


def _nearest(pairs: Pairs, truth: Truth, num_dets: int) -> Nearest:
    """The pair of each detection with the highest IoU; of equal ones the first box of the file."""
    iou, box = np.zeros(num_dets), np.full(num_dets, -1)
    if not len(pairs.det):
        return Nearest(iou, box)
    starts = run_starts(pairs.det)
    top = np.maximum.reduceat(pairs.iou, starts)
    best = pairs.iou == np.repeat(top, np.diff(np.r_[starts, len(pairs.det)]))
    first = np.minimum.reduceat(np.where(best, truth.order[pairs.gt], len(truth.order)), starts)
    iou[pairs.det[starts]], box[pairs.det[starts]] = top, np.argsort(truth.order)[first]
    return Nearest(iou, box)


class Answers(NamedTuple):
    """What became of every box that counts, by image and class, file order kept within.

    Attributes:
        view: Where the detections from the confidence on lie.
        wrong: Which of them are wrong, shape (D,), bool.
        true: Class of every box, shape (n,).
        taken_for: The class that it is taken for, or -1, shape (n,).
        found: Whether it is found, shape (n,), bool.
        box: Its position in the ground truth, shape (n,).
        det: Position, in the detections as they were given, of the one that takes it or that it is taken for; -1 for a
            missed box, shape (n,).
        iou: IoU with that detection, 0 for a missed box, shape (n,), float64.
    """

    view: Scene
    wrong: np.ndarray
    true: np.ndarray
    taken_for: np.ndarray
    found: np.ndarray
    box: np.ndarray
    det: np.ndarray
    iou: np.ndarray


def answers(gt: GroundTruth, dets: Detections, conf: float | np.ndarray) -> Answers:
    """What becomes of boxes by detections from a confidence on.

    A box that counts is *found* if a detection of its class takes it, by the matcher's rule at IoU 0.5. Otherwise it
    is *taken for* the class of the best wrong detection of another class that overlaps it by 0.5, of equal scores
    the closest; otherwise it is *missed*. A detection is wrong if it takes no box and may not be forgiven (a crowd of
    its class, an ignored box, objects of its class not all boxed); one may be the answer to several boxes.

    Args:
        gt: The truth as the protocol chose it.
        dets: The detections as the protocol chose them; those of class -1 are left out.
        conf: Confidence from which a detection is shown, one for all or one per class, shape (C,).
    """
    classes, shown = len(gt.category_ids), np.flatnonzero(dets.cls >= 0)
    shown = shown[dets.score[shown] >= np.broadcast_to(conf, classes)[dets.cls[shown]]]
    view = scene(gt, take(dets, shown))
    wrong = (view.taken < 0) & ~view.forgiven & (view.crowd < FOREGROUND)
    counts, found, (det, box, iou) = np.flatnonzero(~view.truth.ignored), view.found, _answering(view, wrong)
    det_of, iou_of = np.full(len(found), -1), np.zeros(len(found))
    det_of[box], iou_of[box] = det, iou
    det_of, found = det_of[counts], found[counts]
    return Answers(
        view=view,
        wrong=wrong,
        true=view.truth.key[counts] % max(classes, 1),
        taken_for=np.where(found, -1, np.r_[view.dets.cls, -1][det_of]),
        found=found,
        box=view.truth.order[counts],
        det=np.r_[shown[view.source], -1][det_of],
        iou=iou_of[counts],
    )


def _answering(view: Scene, wrong: np.ndarray) -> Pairs:
    """The detection that takes a box, or that a box which is not found is taken for; no pair for a missed one."""
    right = np.flatnonzero(view.right)
    pairs = view.pairs.at(wrong[view.pairs.det] & ~view.found[view.pairs.gt])
    order = np.lexsort((view.source[pairs.det], -pairs.iou, -view.dets.score[pairs.det], pairs.gt))
    best = pairs.at(order[run_starts(pairs.gt[order])])
    taken = Pairs(right, view.taken[right], view.taken_iou[right])
    return Pairs(*(np.concatenate(columns) for columns in zip(taken, best, strict=True)))


def confusion(
    gt: GroundTruth,
    dets: Detections,
    bins: Mapping[str, np.ndarray],
    conf: float | np.ndarray,
    answered: Answers | None = None,
) -> dict[str, Any]:
    """What objects are taken for by detections from a confidence on, by frequency bin; see `answers`.

    A wrong detection lies *on another class* (a box of another class, found or not, by 0.5), else it is a *duplicate
    or misplaced* (any box by more than 0.1), else it lies *on background*.

    Args:
        gt: The truth as the protocol chose it.
        dets: The detections as the protocol chose them; those of class -1 are left out.
        bins: Class indices by name, every class in one of them; nothing puts all classes under `all`.
        conf: Confidence from which a detection is shown, one for all or one per class, shape (C,).
        answered: What `answers` says of the same, where it is known already.

    Returns:
        `conf` (None if one per class) and `iou`; `rows`, by bin `n_gt`, `found`, `as` by bin (the own bin: another
        class of it) and `missed`, which add up to `n_gt`; `false_positives`, by bin of the detection; and up to 20
        `worst_pairs` in category ids, the most boxes first, then the largest share of the class's boxes.
    """
    bins = bins or {"all": np.arange(len(gt.category_ids))}
    known = answers(gt, dets, conf) if answered is None else answered
    bin_of = np.zeros(len(gt.category_ids), np.int64)
    for i, classes in enumerate(bins.values()):
        bin_of[classes] = i
    return {
        "conf": None if np.ndim(conf) else float(conf),
        "iou": FOREGROUND,
        "rows": _rows(list(bins), bin_of, known.true, known.taken_for, known.found),
        "false_positives": _false_positives(list(bins), bin_of, known.view, known.wrong),
        "worst_pairs": _worst_pairs(gt.category_ids, known.true, known.taken_for),
    }


def _rows(
    names: list[str], bin_of: np.ndarray, true: np.ndarray, taken_for: np.ndarray, found: np.ndarray
) -> dict[str, dict[str, Any]]:
    """The `rows` entry."""
    size = len(names)
    answer = np.where(found, size, np.where(taken_for < 0, size + 1, np.r_[bin_of, -1][taken_for]))
    table = np.bincount(bin_of[true] * (size + 2) + answer, minlength=size * (size + 2)).reshape(size, -1)
    return {
        name: {"n_gt": sum(row), "found": row[size], "as": dict(zip(names, row, strict=False)), "missed": row[size + 1]}
        for name, row in zip(names, table.tolist(), strict=True)
    }


def _false_positives(names: list[str], bin_of: np.ndarray, view: Scene, wrong: np.ndarray) -> dict[str, dict[str, int]]:
    """The `false_positives` entry."""
    own, other = view.own.iou[wrong], view.other.iou[wrong]
    place = np.where(other >= FOREGROUND, 0, np.where(np.maximum(own, other) > BACKGROUND, 1, 2))
    table = np.bincount(bin_of[view.dets.cls[wrong]] * 3 + place, minlength=len(names) * 3).reshape(-1, 3)
    places = ("on_other_class", "duplicate_or_misplaced", "on_background")
    return {name: dict(zip(places, row, strict=True)) for name, row in zip(names, table.tolist(), strict=True)}


def _worst_pairs(category_ids: np.ndarray, true: np.ndarray, taken_for: np.ndarray) -> list[dict[str, int]]:
    """The `worst_pairs` entry."""
    sizes = np.bincount(true, minlength=len(category_ids))
    confused = taken_for >= 0
    pairs, count = np.unique(np.stack([true[confused], taken_for[confused]]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], pairs[0], -count / sizes[pairs[0]], -count))[:WORST]
    columns = (category_ids[pairs[0, order]], category_ids[pairs[1, order]], count[order], sizes[pairs[0, order]])
    keys = ("true", "taken_for", "count", "n_gt")
    return [dict(zip(keys, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
