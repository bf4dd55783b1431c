"""Why AP is lost, in TIDE's sense: every wrong detection, and every box that nothing found, has one kind of error.

The weight of a kind is by how much AP50 rises when its errors alone are put right. Pure numpy. Source: Bolya et al.,
"TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.

Of a wrong detection, the first that holds:

* localisation: it overlaps a box of its class by 0.1 to 0.5, both included;
* classification: a box of another class, by 0.5 or more;
* duplicate: a box of its class, by more than 0.5, which another detection has taken;
* background: no box by more than 0.1;
* both: what is left, wrong in class and place.

A box that nothing took is missed, unless a localisation or classification error points to it. To put right means: of
the detections that point to a free box the best takes it (of the box's class), and all others of the kind disappear;
missed boxes are no longer asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from yolo_lt.evaluate.arrays import Detections, GroundTruth, run_starts, take
from yolo_lt.evaluate.confusion import BACKGROUND, FOREGROUND, Scene, scene
from yolo_lt.evaluate.matching import Matches, counted
from yolo_lt.evaluate.metrics import class_metrics, set_means

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND_ERROR, MISSED = range(len(KINDS))
NO_ERROR = -1


class _Verdict(NamedTuple):
    """What counts of one variant: class, right and left out of every detection, (D,); boxes asked for, (G,)."""

    cls: np.ndarray
    right: np.ndarray
    left_out: np.ndarray
    asked: np.ndarray


def error_shares(
    gt: GroundTruth, dets: Detections, sets: Mapping[str, np.ndarray], max_det: int = 100
) -> dict[str, dict[str, Any]]:
    """AP50, and by how much it would rise without errors of each kind, by set of classes.

    Errors are found over all classes: a tail class's detection on a head class's box is that detection's error, and
    the box's class gains when it is put right. What a set gains is the mean over its classes with ground truth; as in
    TIDE a mean below 0 is given as 0, here a matter of the last digit.

    A crowd excuses the detections of its class with more than half of their area in it; as in TIDE they have a kind
    of error all the same, are counted, and may take a box when it is put right. A detection that takes an ignored box,
    or takes none where not all objects of its class are boxed, is left out of everything. Boxes and detections of
    every size count. A class of which nothing was found gains nothing where missed boxes are no longer asked for: with
    no box left it has no AP, and 0 is put in its place.

    Args:
        gt: The truth as the protocol chose it.
        dets: The detections as the protocol chose them; those of class -1 take part in the cap and are then left out.
        sets: Class indices by name.
        max_det: Detections kept per image, whatever their class, best first; 0 keeps all.

    Returns:
        By set: `AP50`; `loss`, the rise of AP50 for each of `KINDS`; `false_positives` and `false_negatives`, the
        rise if all wrong detections disappear, and if no box that was not found is asked for; all of them None
        without ground truth. And `counts` of each kind, by the class of the detection, or of the missed box; and
        `n_classes_evaluated`.

        Equal to tidecv 1.0.1 but for four things: its order of equal scores and of equal IoUs; recalls of exactly
        0.35 and a few more, which miss COCOeval's points by a rounding; classes without ground truth, which it
        averages as 0 if they have detections; and classes of which all boxes are missed, which leave its mean
        for `missed` and `false_negatives` if they have no detection.
    """
    view = scene(gt, dets, max_det)
    kinds = _kinds(view)
    heir, missed = _heirs(view, kinds)
    fixed = [_ap50(gt, view, v) for v in _variants(gt, view, kinds, heir, missed)]
    base = fixed[0]
    gains = [np.nan_to_num(ap) - base for ap in fixed[1:]]
    means = set_means(np.stack([base, *gains], axis=1), list(sets.values()))
    counts = _counts(gt, view, kinds, missed)
    evaluated = ~np.isnan(base)
    return {
        name: _entry(row, counts[classes].sum(axis=0), int(evaluated[classes].sum()))
        for (name, classes), row in zip(sets.items(), means, strict=True)
    }


def _kinds(view: Scene) -> np.ndarray:
    """Position in `KINDS` of every detection, `NO_ERROR` where it is not wrong, shape (D,)."""
    own, other = view.own.iou, view.other.iou
    rules = [
        ((view.taken >= 0) | view.forgiven, NO_ERROR),
        ((own >= BACKGROUND) & (own <= FOREGROUND), LOCALISATION),
        (other >= FOREGROUND, CLASSIFICATION),
        (own > FOREGROUND, DUPLICATE),
        (other <= BACKGROUND, BACKGROUND_ERROR),
    ]
    return np.select([where for where, _ in rules], [kind for _, kind in rules], BOTH)


def _heirs(view: Scene, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box that a detection takes when it is put right, or -1, shape (D,); and the missed boxes, (G,), bool."""
    target = np.where(kinds == LOCALISATION, view.own.box, np.where(kinds == CLASSIFICATION, view.other.box, -1))
    missed = ~view.truth.ignored & ~view.found
    det = np.flatnonzero(target >= 0)
    det = det[missed[target[det]]]
    det = det[np.lexsort((view.source[det], -view.dets.score[det], target[det]))]
    best = det[run_starts(target[det])]
    heir = np.full(len(kinds), -1)
    heir[best] = target[best]
    missed[target[det]] = False
    return heir, missed


def _variants(gt: GroundTruth, view: Scene, kinds: np.ndarray, heir: np.ndarray, missed: np.ndarray) -> list[_Verdict]:
    """As it is; each of `KINDS` put right; without false positives; without false negatives."""
    excused = view.forgiven | (view.crowd > FOREGROUND) | (view.taken >= 0)
    base = _Verdict(view.dets.cls, view.right, excused & ~view.right, ~view.truth.ignored)
    variants = [base]
    for kind in range(MISSED):
        moved = (kinds == kind) & (heir >= 0)
        variants.append(
            _Verdict(
                cls=np.where(moved, view.truth.key[heir] % len(gt.category_ids), base.cls) if moved.any() else base.cls,
                right=base.right | moved,
                left_out=(base.left_out | (kinds == kind)) & ~moved,
                asked=base.asked,
            )
        )
    without_missed = base._replace(asked=base.asked & ~missed)
    return [*variants, without_missed, base._replace(left_out=~base.right), base._replace(asked=view.found)]


def _ap50(gt: GroundTruth, view: Scene, verdict: _Verdict) -> np.ndarray:
    """AP50 of every class, shape (C,), NaN where no box is asked for."""
    kept = np.flatnonzero(~verdict.left_out)
    if (verdict.cls[kept] != view.dets.cls[kept]).any():
        cls, score = verdict.cls[kept], view.dets.score[kept]
        kept = kept[np.lexsort((view.source[kept], view.dets.image[kept], -score, cls))]
    dets, right = take(view.dets, kept), verdict.right[kept, None]
    gt_image, gt_class, gt_count = counted(view.truth.key[verdict.asked], len(gt.category_ids)).values()
    matches = Matches(
        image=dets.image.astype(np.int32),
        cls=verdict.cls[kept].astype(np.int32),
        score=dets.score,
        tp=right,
        ignore=np.zeros_like(right),
        iou=np.zeros(len(kept)),
        gt_image=gt_image,
        gt_class=gt_class,
        gt_count=gt_count,
        image_ids=gt.image_ids,
        category_ids=gt.category_ids,
        iou_thresholds=np.array([FOREGROUND]),
        max_det=0,
    )
    return class_metrics(matches)[:, 1]


def _counts(gt: GroundTruth, view: Scene, kinds: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Errors of every class and kind, shape (C, 6)."""
    size, wrong = len(gt.category_ids), kinds != NO_ERROR
    cell = np.r_[
        view.dets.cls[wrong] * len(KINDS) + kinds[wrong],
        view.truth.key[missed] % max(size, 1) * len(KINDS) + MISSED,
    ]
    return np.bincount(cell, minlength=size * len(KINDS)).reshape(size, len(KINDS))


def _entry(means: np.ndarray, counts: np.ndarray, evaluated: int) -> dict[str, Any]:
    """One set's numbers from the means of AP50 and of the gains."""
    base, *gains = [None if np.isnan(v) else float(v) for v in means]
    kinds, (no_positives, no_negatives) = gains[: len(KINDS)], gains[len(KINDS) :]
    return {
        "AP50": base,
        "loss": {kind: None if v is None else max(v, 0.0) for kind, v in zip(KINDS, kinds, strict=True)},
        "false_positives": no_positives,
        "false_negatives": no_negatives,
        "counts": dict(zip(KINDS, counts.tolist(), strict=True)),
        "n_classes_evaluated": evaluated,
    }
