"""Post-hoc calibrations as one scale and one shift per class: one function and one line in `CALIBRATORS`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_lt.balance.weights import checked_counts
from yolo_lt.calibrate.fit import learn
from yolo_lt.errors import LTError, UsageError, check_number


@dataclass(frozen=True)
class Affine:
    """z' = scale z + shift, per class: what the last convolution of a classification branch can take into itself.

    Attributes:
        scale: Shape (C,), float64, positive, so that no class changes its own order of detections.
        shift: Shape (C,), float64.
        keep_bias: The scale acts on the weights alone: z' = scale (z - b) + b + shift, b the convolution's bias.
    """

    scale: np.ndarray
    shift: np.ndarray
    keep_bias: bool = False

    def __call__(self, logits: Any, bias: Any = 0.0) -> Any:
        """The calibrated logits, classes last; `bias`, shape (C,), is needed where it is kept."""
        kept = bias - self.scale * bias if self.keep_bias else 0.0
        return self.scale * logits + self.shift + kept

    def relative_to(self, c: int) -> Affine:
        """This map after one that is common to all classes, such that class `c` keeps its scores.

        A common map changes no order among classes (but for biases that are kept, which it does not scale), only what a
        score means. A softmax does not feel a common shift, and for it the published rules were made; sigmoids do.
        """
        return Affine(self.scale / self.scale[c], (self.shift - self.shift[c]) / self.scale[c], self.keep_bias)

    def lifted(self, level: float) -> Affine:
        """This map, and then `level` added to every logit: the order among classes stays, what a score means moves."""
        return Affine(self.scale, self.shift + level, self.keep_bias)

    def share(self, part: float) -> Affine:
        """A part of the way from no change (0) to this map (1): scale^part and part * shift."""
        check_number("share", part, 0)
        return Affine(self.scale**part, self.shift * part, self.keep_bias)


@dataclass(frozen=True)
class Calibrator:
    """A method.

    Attributes:
        make: The function.
        needs: "nothing", "counts", "weight", or what images give: "logits", "detections".
        strength: The keyword of its strength.
        fixed: The strength where nothing chooses one.
        grid: The strengths among which cross-validation chooses, beside 0, which changes nothing.
        judge: What its strengths are judged by, unless it is said: "f1", or "log_loss" where confidences shall be true.
        relative: Whether only the differences between classes mean something: see `Affine.relative_to`.
    """

    make: Callable[..., Affine]
    needs: str
    strength: str = "share"
    fixed: float = 1.0
    grid: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    judge: str = "f1"
    relative: bool = False

    @property
    def fitted(self) -> bool:
        """Whether it learns from images."""
        return self.needs in ("logits", "detections")


def none(num_classes: int) -> Affine:
    """No change."""
    return Affine(np.ones(num_classes), np.zeros(num_classes))


def norcal(image_counts: Sequence[int] | np.ndarray, gamma: float = 0.6) -> Affine:
    """Shift = -gamma log n_c: odds are divided by n_c^gamma.

    Source: Pan et al., On Model Calibration for Long-Tailed Object Detection (NorCal), NeurIPS 2021, equation 3, for
    one sigmoid per class: the background of a class is its own 1 - p, whose logit is 0.
    """
    counts = _occurring(image_counts, "norcal")
    check_number("gamma", gamma, 0)
    return Affine(np.ones(len(counts)), -gamma * np.log(counts))


def logit_adjustment(image_counts: Sequence[int] | np.ndarray, tau: float = 1.0) -> Affine:
    """Shift = -tau (log pi_c - log(1 - pi_c)), pi_c the class's share of the counts.

    Source: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021, equation 9, for sigmoids: the prior enters
    as log-odds.
    """
    counts = _occurring(image_counts, "logit_adjustment")
    check_number("tau", tau, 0)
    prior = counts / counts.sum()
    return Affine(np.ones(len(counts)), -tau * (np.log(prior) - np.log1p(-prior)))


def tau_norm(weight: Any, tau: float = 1.0) -> Affine:
    """Scale = 1 / |W_c|^tau on the weights, the bias kept; a class whose weights are all 0 keeps its scale.

    Args:
        weight: Weights of the last convolution, (C, F), or of all levels, of which the norm is taken together: with a
            norm per level the levels would disagree about an object.
        tau: Strength.

    Source: Kang et al., Decoupling Representation and Classifier, ICLR 2020, equation 6. The original drops the bias; a
    sigmoid without its prior would start at 0.5 everywhere.
    """
    levels = weight if isinstance(weight, (list, tuple)) and np.ndim(weight[0]) > 1 else [weight]
    joined = np.concatenate([np.asarray(w, np.float64).reshape(len(w), -1) for w in levels], 1)
    check_number("tau", tau, 0)
    norm = np.linalg.norm(joined, axis=1)
    return Affine(np.where(norm == 0, 1.0, norm) ** -tau, np.zeros(len(norm)), keep_bias=True)


def logn(mean: np.ndarray, std: np.ndarray, share: float = 1.0) -> Affine:
    """Normalised logits: z' = (z - (mean_c - min mean)) / std_c.

    Args:
        mean: Mean logit of every class over proposals, shape (C,).
        std: Their standard deviation, shape (C,).
        share: Strength: the part of the way to this map.

    Source: Zhao et al., LogN, IJCV 2024, and its authors' code; a background class would have mean 0 and be in the
    minimum.
    """
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if not (np.isfinite(mean).all() and (std > 0).all()):
        raise LTError("logn: a class whose logits do not vary, or are not finite, cannot be normalised")
    return Affine(1 / std, -(mean - mean.min()) / std).share(share)


def lws(
    logits: np.ndarray,
    classes: np.ndarray,
    right: np.ndarray,
    num_classes: int,
    weights: np.ndarray | None = None,
    share: float = 1.0,
) -> Affine:
    """Scale and shift learnt on detections that are right or wrong, images weighed class-aware; see `fit.learn`.

    Source: learnable weight scaling, Kang et al., ICLR 2020: the scale is learnt with everything else frozen, on
    class-balanced draws. There on the training images by cross-entropy, bias scaled as well; so does
    `finetune-head strategy=scale`. Here on the detections of images that were set apart, with a shift.
    """
    return Affine(*learn(logits, classes, right, num_classes, weights, shifts=True)).share(share)


def temperature(
    logits: np.ndarray, classes: np.ndarray, right: np.ndarray, num_classes: int, share: float = 1.0
) -> Affine:
    """Scale = 1 / T_c, learnt on detections that are right or wrong; rare classes shrink towards one common T.

    Source: temperature scaling, Guo et al., ICML 2017, per class; see `fit.learn` for the shrinkage.
    """
    return Affine(*learn(logits, classes, right, num_classes, None, shifts=False)).share(share)


CALIBRATORS: dict[str, Calibrator] = {
    "none": Calibrator(none, "nothing", grid=()),
    "norcal": Calibrator(norcal, "counts", "gamma", 0.6, (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0), relative=True),
    "logit_adjustment": Calibrator(
        logit_adjustment, "counts", "tau", 1.0, (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0), relative=True
    ),
    "logn": Calibrator(logn, "logits", relative=True),
    "tau_norm": Calibrator(tau_norm, "weight", "tau", 1.0, (0.25, 0.5, 0.75, 1.0, 1.5), relative=True),
    "lws": Calibrator(lws, "detections"),
    "temperature": Calibrator(temperature, "detections", judge="log_loss"),
}


def logit_affine(
    method: str, image_counts: Sequence[int] | np.ndarray | None = None, weight: Any = None, **kw: Any
) -> Affine:
    """The map of a method, by its original rule; training's own choices are in `yolo-lt calibrate`.

    Args:
        method: Name in `CALIBRATORS`.
        image_counts: Training images per class, shape (C,): norcal, logit_adjustment.
        weight: Weights of the last classification convolution(s): tau_norm.
        **kw: The method's own: gamma (norcal), tau (logit_adjustment, tau_norm), num_classes (none), mean and std
            (logn), logits, classes, right and num_classes (lws, temperature), share (logn, lws, temperature).

    Returns:
        The map; folded per level as W' = scale W, b' = (b if keep_bias else scale b) + shift.

    Raises:
        UsageError: Unknown method, or a keyword that it does not take or that is missing.
        LTError: A class without an image, fewer than two classes, or data that are not finite.

    Example:
        >>> logit_affine("norcal", image_counts=[100, 10], gamma=0.5).shift.round(3)
        array([-2.303, -1.151])
    """
    if method not in CALIBRATORS:
        raise UsageError(f"method={method}: expected {' | '.join(CALIBRATORS)}")
    given = {k: v for k, v in {"image_counts": image_counts, "weight": weight, **kw}.items() if v is not None}
    takes = inspect.signature(CALIBRATORS[method].make).parameters
    if method == "none" and "num_classes" not in given and image_counts is not None:
        given = {"num_classes": len(image_counts)}
    for name in given:
        if name not in takes:
            raise UsageError(f"method={method} takes {', '.join(takes)}, not {name}")
    if missing := [n for n, p in takes.items() if p.default is p.empty and n not in given]:
        raise UsageError(f"method={method} needs {' and '.join(missing)}")
    found = CALIBRATORS[method].make(**given)
    if not (np.isfinite(found.scale).all() and np.isfinite(found.shift).all() and (found.scale > 0).all()):
        raise LTError(f"method={method} gives a scale or shift that is no positive or finite number")
    return found


def _occurring(image_counts: Sequence[int] | np.ndarray, method: str) -> np.ndarray:
    counts = checked_counts(image_counts, "image counts")
    if len(counts) < 2:
        raise LTError(f"{method} compares classes, and there is one: nothing can be calibrated")
    if absent := np.flatnonzero(counts == 0).tolist():
        more = f" (and {len(absent) - 5} more)" if len(absent) > 5 else ""
        raise LTError(f"{method}: class {', '.join(map(str, absent[:5]))}{more} has no training image to be shifted by")
    return counts
