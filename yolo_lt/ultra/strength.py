"""How strong a calibration should be: cross-validation on images that the training did not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from yolo_lt.balance.sampling import repeat_factors
from yolo_lt.calibrate import CALIBRATORS, Affine, logit_affine
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.budget import budget_matches
from yolo_lt.evaluate.matching import Matches, match
from yolo_lt.evaluate.metrics import METRICS, class_metrics
from yolo_lt.evaluate.operating import best_common_f1
from yolo_lt.ultra.maps import mean_and_std

FOLDS = 5
LEAST_SCORE = 1e-9  # float32 scores reach 0 and 1, whose logits are not finite


@dataclass(frozen=True)
class Evidence:
    """What the images that were set apart say about the network as it is.

    Attributes:
        truth: Their objects.
        found: The network's detections.
        matches: Both matched, no cap per class.
        fold: Fold of every image, shape (N,).
        folds: The same by name of the image.
        moments: Of the logits, by fold, (F, 3, C); see `maps.MapMixin`.
    """

    truth: GroundTruth
    found: Detections
    matches: Matches
    fold: np.ndarray
    folds: dict[str, int]
    moments: np.ndarray


@dataclass(frozen=True)
class Point:
    """One strength, and what the images that its map was not learnt from say about it.

    Attributes:
        strength: 0 is no change.
        ap: AP over all classes, by detection budget.
        f1: The best F1 that one confidence gives, mean over classes.
        conf: That confidence.
        log_loss: Of the confidences.
        worth: What decides, higher is better.
    """

    strength: float
    ap: dict[int, float]
    f1: float
    conf: float
    log_loss: float
    worth: float


def assign_folds(size: int, seed: int) -> np.ndarray:
    """Folds of equal size at random, shape (N,), int."""
    fold = np.empty(size, int)
    fold[np.random.default_rng(seed).permutation(size)] = np.arange(size) % FOLDS
    return fold


def make_map(
    method: str, strength: float, counts: np.ndarray, weights: Any, evidence: Evidence | None, kept: np.ndarray | None
) -> Affine:
    """The map of a method at a strength.

    Args:
        method: Name in `CALIBRATORS`.
        strength: Its strength; 0 is no change.
        counts: Training images per class, shape (C,). The most frequent class keeps its scores where only differences
            between classes mean something.
        weights: Weights of the branch's last convolutions.
        evidence: For methods that learn from images.
        kept: Folds that are learnt from; None: all.
    """
    calibrator = CALIBRATORS[method]
    facts = _facts(method, counts, weights, evidence, kept)
    given: dict[str, Any] = {} if calibrator.needs == "nothing" else {calibrator.strength: strength}
    found = logit_affine(method, **facts, **given)
    return found.relative_to(int(np.argmax(counts))) if calibrator.relative else found


def _facts(
    method: str, counts: np.ndarray, weights: Any, evidence: Evidence | None, kept: np.ndarray | None
) -> dict[str, Any]:
    """What the method's map is made from."""
    needs = CALIBRATORS[method].needs
    if needs == "nothing":
        return {"num_classes": len(counts)}
    if needs == "counts":
        return {"image_counts": counts}
    if needs == "weight":
        return {"weight": weights}
    assert evidence is not None, "methods that learn from images are refused without a holdout"
    return _statistics(evidence, kept) if needs == "logits" else _outcomes(method, evidence, kept, len(counts))


def _statistics(evidence: Evidence, kept: np.ndarray | None) -> dict[str, Any]:
    moments = evidence.moments if kept is None else evidence.moments[kept]
    mean, std = mean_and_std(moments.sum(0))
    return {"mean": mean, "std": std}


def _outcomes(method: str, evidence: Evidence, kept: np.ndarray | None, num_classes: int) -> dict[str, Any]:
    """Logits of detections, and whether they are right, on the kept folds."""
    m = evidence.matches
    chosen = ~m.ignore[:, 0]
    if kept is not None:
        chosen &= np.isin(evidence.fold, kept)[m.image]
    facts = {
        "logits": logits_of(m.score[chosen]),
        "classes": m.cls[chosen].astype(np.int64),
        "right": m.tp[chosen, 0],
        "num_classes": num_classes,
    }
    if method == "lws":
        facts["weights"] = _class_aware(evidence.truth)[m.image[chosen]]
    return facts


def _class_aware(truth: GroundTruth) -> np.ndarray:
    """Weight of every image as class-aware draws would give it; an image without objects 1, shape (N,)."""
    order = np.argsort(truth.image, kind="stable")
    lengths = np.bincount(truth.image, minlength=len(truth.image_ids))
    stats = ClassStats.from_flat(truth.cls[order], lengths, len(truth.category_ids), truth.names)
    return repeat_factors(stats, method="class_aware")


def logits_of(scores: np.ndarray) -> np.ndarray:
    """The logits of scores: log p - log(1 - p), p kept away from 0 and 1."""
    p = np.clip(np.asarray(scores, np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
    return np.log(p) - np.log1p(-p)


def search(
    method: str,
    strengths: list[float],
    counts: np.ndarray,
    weights: Any,
    evidence: Evidence,
    detect: Callable[[list[list[Affine]]], list[Detections]],
    judge: str = "f1",
) -> list[Point]:
    """Judge every strength on images that its map was not learnt from.

    Args:
        method: Name in `CALIBRATORS`.
        strengths: To be judged; 0 is always judged as well, first.
        counts: Training images per class.
        weights: Weights of the measured branch's last convolutions.
        evidence: The network as it is.
        detect: Detections under maps, one list of maps per strength, one map per fold.
        judge: What decides: "ap", its mean over detection budgets, "f1" or "log_loss".

    Returns:
        The points, 0 first.
    """
    strengths = [s for s in strengths if s]
    folds = np.unique(evidence.fold)
    fitted = CALIBRATORS[method].fitted

    def per_fold(strength: float) -> list[Affine]:
        if not fitted:
            return [make_map(method, strength, counts, weights, evidence, None)] * len(folds)
        return [make_map(method, strength, counts, weights, evidence, np.setdiff1d(folds, f)) for f in folds]

    maps = [per_fold(s) for s in strengths]
    found = [evidence.found, *detect(maps)]
    points = []
    for strength, of_folds, dets in zip([0.0, *strengths], [None, *maps], found, strict=True):
        matches = budget_matches(evidence.truth, dets)
        ap = {n: mean_ap(m, evidence.fold if fitted else None) for n, m in matches.items()}
        (f1, conf), loss = best_common_f1(matches[max(matches)]), log_loss(evidence, of_folds)
        worth = {"ap": float(np.mean(list(ap.values()))), "f1": f1, "log_loss": -loss}[judge]
        points.append(Point(strength, ap, f1, conf, loss, worth))
    return points


def best(points: list[Point]) -> Point:
    """The point of the highest worth; of equal ones the least strength."""
    return max(points, key=lambda p: (p.worth, -p.strength))


def level_of(method: str, points: list[Point], chosen: float) -> float:
    """What is to be added to all logits so that the best confidence for all classes stays where it was.

    Where only differences between classes mean something, something must say what a score means: without it, a tail
    that is lifted by 3 has to be shown from a confidence of 0.9. 0 for methods that learn levels, and without points.
    """
    if not CALIBRATORS[method].relative or not points:
        return 0.0
    before, after = (logits_of(np.array([next(p.conf for p in points if p.strength == s)]))[0] for s in (0.0, chosen))
    return float(before - after)


def mean_ap(matches: Matches, fold: np.ndarray | None = None) -> float:
    """AP over all classes with objects.

    Args:
        matches: From `match`.
        fold: Where every fold has a map of its own, the fold of every image, (N,): scores are then compared within
            folds alone, and a class has the mean over the folds in which it occurs.
    """
    size = len(matches.category_ids)
    ap = class_metrics(matches if fold is None else _apart(matches, fold))[:, METRICS.index("AP")].reshape(-1, size)
    known = ~np.isnan(ap)
    by_class = np.where(known, ap, 0).sum(0)[known.any(0)] / known.sum(0)[known.any(0)]
    return float(by_class.mean())


def _apart(m: Matches, fold: np.ndarray) -> Matches:
    """The same matches with the classes of every fold as classes of their own, fold by fold."""
    size, folds = len(m.category_ids), fold.max() + 1
    cls = fold[m.image] * size + m.cls
    order = np.argsort(cls, kind="stable")
    rows = {name: getattr(m, name)[order] for name in ("image", "score", "tp", "ignore", "iou")}
    gt_class = (fold[m.gt_image] * size + m.gt_class).astype(np.int32)
    ids = np.arange(size * folds)
    return replace(m, **rows, cls=cls[order].astype(np.int32), gt_class=gt_class, category_ids=ids)


def log_loss(evidence: Evidence, of_folds: list[Affine] | None) -> float:
    """Mean cross-entropy of the confidences of the network's detections under maps; None: as they are."""
    m = evidence.matches
    z, y = logits_of(m.score), m.tp[:, 0].astype(np.float64)
    if of_folds is not None:
        scale, shift = (np.stack([getattr(a, name) for a in of_folds]) for name in ("scale", "shift"))
        at = evidence.fold[m.image], m.cls
        z = scale[at] * z + shift[at]
    return float(np.mean((np.logaddexp(0, z) - y * z)[~m.ignore[:, 0]]))


def gather_evidence(
    truth: GroundTruth, found: Detections, fold: np.ndarray, folds: dict[str, int], moments: np.ndarray
) -> Evidence:
    """Match the detections of the network as it is."""
    return Evidence(truth, found, match(truth, found, max_det=0), fold, folds, moments)
