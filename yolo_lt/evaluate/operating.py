"""What a user sees at a deployed confidence, and whether the confidence tells the truth. Pure numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from yolo_lt.evaluate.matching import Matches

DEPLOYED = 0.25  # Ultralytics' default of predict
COMMON_STEPS = np.linspace(0, 1, 201)  # quantiles of the right detections that are tried as a common confidence
ECE_FLOOR = 0.05  # below it lie nearly all detections, and nobody looks at them
ECE_BINS = 20


def shown_per_image(matches: Matches, classes: np.ndarray, conf: float | np.ndarray) -> np.ndarray:
    """Detections that are right, detections, and objects of some classes in every image, at IoU 0.5.

    Args:
        matches: From `match`.
        classes: Class indices that count.
        conf: Confidence from which a detection is shown, one for all or one per class, shape (C,).

    Returns:
        Shape (3, N), float64; ignored detections are not counted.
    """
    least = np.broadcast_to(conf, len(matches.category_ids))[matches.cls]
    shown = np.isin(matches.cls, classes) & (matches.score >= least) & ~matches.ignore[:, 0]
    truth, size = np.isin(matches.gt_class, classes), len(matches.image_ids)
    right = np.bincount(matches.image[shown], matches.tp[shown, 0], size)
    found = np.bincount(matches.image[shown], minlength=size)
    boxes = np.bincount(matches.gt_image[truth], matches.gt_count[truth], size)
    return np.stack([right, found, boxes]).astype(np.float64)


def rates(counts: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 from right, found and boxes along the first axis; NaN without ground truth."""
    right, found, boxes = counts
    with np.errstate(invalid="ignore", divide="ignore"):
        found_rates = np.stack([right / found, right / boxes, 2 * right / (found + boxes)])
    return np.where(boxes > 0, found_rates, np.nan)


def best_common_f1(matches: Matches) -> tuple[float, float]:
    """The best F1 that one confidence for all classes gives, the mean over classes with ground truth, at IoU 0.5.

    It does not change when all scores move together, only when classes move against each other.

    Args:
        matches: From `match`.

    Returns:
        The F1 and its confidence; 0 and 1 where nothing is right.
    """
    counted, size = ~matches.ignore[:, 0], len(matches.category_ids)
    cls, score, right = matches.cls[counted], matches.score[counted], matches.tp[counted, 0]
    boxes = np.bincount(matches.gt_class, matches.gt_count, size)
    confs = np.unique(np.quantile(score[right], COMMON_STEPS, method="nearest")) if right.any() else np.ones(1)
    f1 = np.zeros(len(confs))
    for c in np.flatnonzero(boxes):
        own, hits = np.sort(score[cls == c]), np.sort(score[(cls == c) & right])
        shown, found = (len(s) - np.searchsorted(s, confs) for s in (own, hits))
        f1 += 2 * found / (shown + boxes[c]) / (boxes > 0).sum()
    best = int(np.argmax(f1))
    return float(f1[best]), float(confs[best])


class Reliability(NamedTuple):
    """Mean confidence, precision and detections of every bin of confidence that holds some, rising; each (B,)."""

    confidence: np.ndarray
    precision: np.ndarray
    n_det: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the distance of confidence and precision, a mean over detections; or NaN."""
        total = self.n_det.sum()
        return float(self.n_det @ np.abs(self.confidence - self.precision) / total) if total else float("nan")


def reliability(matches: Matches, classes: np.ndarray, floor: float = ECE_FLOOR, bins: int = ECE_BINS) -> Reliability:
    """How often detections of a confidence are right, at IoU 0.5, by bins of equal width.

    Args:
        matches: From `match`.
        classes: Class indices that count.
        floor: Detections with less confidence are left out.
        bins: Bins over [0, 1].

    Source: Naeini et al., AAAI 2015; on detections: Kueppers et al., CVPR workshops 2020.
    """
    counted = np.isin(matches.cls, classes) & (matches.score >= floor) & ~matches.ignore[:, 0]
    score, right = matches.score[counted], matches.tp[counted, 0]
    at = np.minimum((score * bins).astype(int), bins - 1)
    count = np.bincount(at, minlength=bins)
    full = np.flatnonzero(count)
    confidence, precision = (np.bincount(at, column, bins)[full] / count[full] for column in (score, right))
    return Reliability(confidence, precision, count[full])
