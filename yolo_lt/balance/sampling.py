"""Class counts to class factors to image repeat factors. Pure numpy; a sampler is one line in `SAMPLERS`.

A sampler gives every class a factor; an image takes the largest of its classes' (class_aware: their sum over the
distinct classes). rfs, irfs and eirfs are repeat factors, 1 at least; class_aware and inverse are laws, of which only
the proportions count, scaled to a mean of 1 over the labelled images. An image without labels always has factor 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from yolo_lt.dataset.bins import Bins
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import UsageError


class Counts(Protocol):
    """What class factors are made from; ClassStats has it."""

    @property
    def image_counts(self) -> np.ndarray:
        """Images that hold the class, shape (C,)."""

    @property
    def instance_counts(self) -> np.ndarray:
        """Boxes of the class, shape (C,)."""

    @property
    def num_images(self) -> int:
        """All images, those without labels included."""


# How frequent a class is, shape (C,), float64; inf if it does not occur, so that its factor is the smallest -----------
def image_frequency(counts: Counts) -> np.ndarray:
    """Share of all images that hold the class."""
    return _occurring(counts, counts.image_counts) / max(counts.num_images, 1)


def instance_frequency(counts: Counts) -> np.ndarray:
    """Share of all boxes that are of the class."""
    return _occurring(counts, counts.instance_counts) / max(counts.instance_counts.sum(), 1)


def _occurring(counts: Counts, n: np.ndarray) -> np.ndarray:
    return np.where(counts.image_counts > 0, n, np.inf).astype(np.float64)


MEANS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # of image and instance frequency (IRFS)
    "geometric": lambda a, b: np.sqrt(a * b),
    "arithmetic": lambda a, b: (a + b) / 2,
    "harmonic": lambda a, b: 2 / (1 / a + 1 / b),
    "quadratic": lambda a, b: np.sqrt((a**2 + b**2) / 2),
    "instance": lambda a, b: b,
}


def mean_frequency(counts: Counts, mean: str = "geometric") -> np.ndarray:
    """A mean of image and instance frequency (Yaman et al., arXiv 2305.08069)."""
    with np.errstate(divide="ignore"):
        return MEANS[mean](image_frequency(counts), instance_frequency(counts))


def sampler_frequency(counts: Counts, method: str, variant: str | None = None) -> np.ndarray:
    """What rfs, irfs and bounded eirfs compare with their threshold."""
    if method not in ("irfs", "eirfs"):
        return image_frequency(counts)
    return mean_frequency(counts, variant if variant in MEANS else "geometric")


# Class factors, shape (C,), float64 ----------------------------------------------------------------------------------
def none(counts: Counts, thr: float = 1e-3) -> np.ndarray:
    """Every image once."""
    return np.ones(len(counts.image_counts))


def rfs(counts: Counts, thr: float = 1e-3, power: float = 0.5) -> np.ndarray:
    """r_c = max(1, (t / f_c)^power), f_c the share of images (Gupta et al., LVIS, CVPR 2019: power 1/2).

    The linear form, power 1, is detectron2's `sqrt=False`, for imbalance on which the root acts too weakly.
    """
    return np.maximum(1.0, (thr / image_frequency(counts)) ** power)


def irfs(counts: Counts, thr: float = 1e-3, mean: str = "geometric") -> np.ndarray:
    """r_c = max(1, sqrt(t / f_c)), f_c a mean of the shares of images and boxes (Yaman et al., arXiv 2305.08069)."""
    return np.maximum(1.0, np.sqrt(thr / mean_frequency(counts, mean)))


def eirfs(counts: Counts, thr: float = 1e-3, alpha: float = 2.0) -> np.ndarray:
    """The authors' weights exp(alpha sqrt(t / sqrt(f g))) (Ahmed et al., arXiv 2503.21893; futurians/E-IRFS@ca71d32).

    As their code has it: f and g are shares of all (image, class) pairs and of all boxes, a class counts one box too
    many and at least one image. Unbounded: on LVIS' counts with the authors' alpha 2 and t 1e-4 it reaches 1e6.
    """
    pairs = np.maximum(counts.image_counts, 1.0)
    boxes = counts.instance_counts + 1.0
    return np.exp(alpha * np.sqrt(thr / np.sqrt(pairs / pairs.sum() * boxes / boxes.sum())))


def eirfs_bounded(counts: Counts, thr: float = 1e-3, alpha: float = 2.0) -> np.ndarray:
    """exp(alpha (1 - sqrt(f_c / t))) where f_c < t, else 1: a factor in [1, e^alpha). Ours, after E-IRFS.

    f_c is IRFS' frequency (shares of images and of boxes, nothing added), so t means what it means there. At f_c = t it
    sets in with the slope of exp(alpha (sqrt(t / f_c) - 1)), the exponential that E-IRFS is after, and then saturates,
    so that the rarest classes cannot take the epoch; their order is kept.
    """
    return np.exp(alpha * np.maximum(0.0, 1 - np.sqrt(mean_frequency(counts) / thr)))


def class_aware(counts: Counts, thr: float = 1e-3) -> np.ndarray:
    """1 / n_c: every class gets the same share of draws, its images alike (Shen et al., ECCV 2016; mmdet's sampler)."""
    return 1 / _occurring(counts, counts.image_counts)


def inverse(counts: Counts, thr: float = 1e-3) -> np.ndarray:
    """1 / f_c: images in inverse proportion to the frequency of their rarest class."""
    return 1 / image_frequency(counts)


SAMPLERS: dict[
    str, dict[str, Callable[..., np.ndarray]]
] = {  # sampler: variant: class factors; the first is the original
    "none": {"": none},
    "rfs": {"sqrt": rfs, "linear": partial(rfs, power=1.0)},
    "irfs": {mean: partial(irfs, mean=mean) for mean in MEANS},
    "eirfs": {"original": eirfs, "bounded": eirfs_bounded},
    "class_aware": {"": class_aware},
    "inverse": {"": inverse},
}
LAWS = ("class_aware", "inverse")
ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "stochastic": np.asarray,
    "ceil": np.ceil,
    "floor": np.floor,
}


# Image factors, shape (N,), float64 ----------------------------------------------------------------------------------
def class_factors(
    counts: Counts, method: str = "rfs", thr: float = 1e-3, variant: str | None = None, **kw: Any
) -> np.ndarray:
    """Class factors of the named sampler, before images, cap and rounding; see `repeat_factors`."""
    return _function(method, variant, thr)(counts, thr=thr, **kw)


def repeat_factors(
    stats_or_lists: ClassStats | Sequence[Sequence[int]],
    num_classes: int | None = None,
    method: str = "rfs",
    thr: float = 1e-3,
    *,
    variant: str | None = None,
    cap: float | None = None,
    rounding: str = "stochastic",
    **kw: Any,
) -> np.ndarray:
    """Image repeat factors of the named sampler.

    Args:
        stats_or_lists: ClassStats, or one list of class ids per image, with repeats.
        num_classes: Needed with lists if the highest ids may not occur; default: the highest id plus one.
        method: A name in `SAMPLERS`.
        thr: Threshold t of rfs, irfs and eirfs, in (0, 1].
        variant: A name in `SAMPLERS[method]`; default: the first, as the authors have it.
        cap: No image is drawn more often than this per epoch, >= 1; a law keeps its mean of 1.
        rounding: stochastic leaves fractions to the index stream; ceil (mmdet) and floor are the same in every epoch.
        **kw: `alpha` of eirfs.

    Returns:
        Factors, shape (N,), float64; an image without labels has factor 1.

    Raises:
        UsageError: Unknown method, variant or rounding, or a threshold or cap out of range.
        LTError: A class id is outside 0..num_classes-1.
    """
    stats = _stats(stats_or_lists, num_classes)
    return image_and_class_factors(stats, method, thr, variant, cap, rounding, **kw)[0]


def image_and_class_factors(
    stats: ClassStats,
    method: str,
    thr: float = 1e-3,
    variant: str | None = None,
    cap: float | None = None,
    rounding: str = "stochastic",
    **kw: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """`repeat_factors`, shape (N,), and the class factors behind them, capped and in the same scale, shape (C,)."""
    of_class = class_factors(stats, method, thr, variant, **kw)
    if cap is not None and not cap >= 1:
        raise UsageError(f"repeat_cap={cap}: expected a number of repeats, 1 or more")
    allowed = ["stochastic"] if method in LAWS else list(ROUNDINGS)
    if rounding not in allowed:
        raise UsageError(f"rounding={rounding}: sampler={method} takes {' | '.join(allowed)}")
    top = np.inf if cap is None else float(cap)
    of_image = _of_images(stats, of_class, method)
    if method in LAWS:
        of_image, scale = _scaled(of_image, np.diff(stats.offsets) > 0, top)
        return of_image, np.minimum(of_class * scale, top)
    return ROUNDINGS[rounding](np.minimum(of_image, top)), np.minimum(of_class, top)


def _function(method: str, variant: str | None, thr: float) -> Callable[..., np.ndarray]:
    if method not in SAMPLERS:
        raise UsageError(f"sampler={method}: expected {' | '.join(SAMPLERS)}")
    if not (np.isfinite(thr) and 0 < thr <= 1):
        raise UsageError(f"repeat_thr={thr}: expected a fraction of images in (0, 1], for example 0.001")
    variants = SAMPLERS[method]
    variant = next(iter(variants)) if variant is None else variant
    if variant not in variants:
        known = " | ".join(v for v in variants if v)
        raise UsageError(f"sampler_variant={variant}: sampler={method} " + (f"has {known}" if known else "has none"))
    return variants[variant]


def _stats(stats_or_lists: ClassStats | Sequence[Sequence[int]], num_classes: int | None) -> ClassStats:
    if isinstance(stats_or_lists, ClassStats):
        return stats_or_lists
    if num_classes is None:
        num_classes = 1 + max((int(c) for row in stats_or_lists for c in row), default=-1)
    return ClassStats.from_lists(stats_or_lists, num_classes)


def _of_images(stats: ClassStats, of_class: np.ndarray, method: str) -> np.ndarray:
    """The image's factor from its classes'; 1 without labels."""
    if method != "class_aware":
        return stats.per_image_max(of_class, empty=1.0)
    image, cls = stats.incidences
    total = np.bincount(image, weights=of_class[cls], minlength=stats.num_images)
    return np.where(np.diff(stats.offsets) > 0, total, 1.0)


def _scaled(factors: np.ndarray, labelled: np.ndarray, top: float) -> tuple[np.ndarray, float]:
    """Labelled images scaled to a mean of 1, and the scale; what images above `top` lose, the others share."""
    out, free, left, scale = np.ones(len(factors)), labelled.copy(), float(labelled.sum()), 1.0
    while free.any():
        scale = left / factors[free].sum()
        out[free] = factors[free] * scale
        above = free & (out > top)
        if not above.any():
            break
        out[above] = top
        left -= top * above.sum()
        free &= ~above
    return out, scale


# The threshold that `auto` stands for --------------------------------------------------------------------------------
AUTHORS_EIRFS_THR = 1e-4


def auto_threshold(stats: ClassStats, bins: Bins, method: str = "rfs", variant: str | None = None) -> tuple[float, str]:
    """The threshold `auto` stands for, and why: the frequency of the rarest head class, as the sampler counts it.

    Every class outside the head is below it, so all of medium and tail are repeated and the head is left alone. On
    LVIS' own bins (more than 100 of 100,170 images is frequent) this gives LVIS' threshold of 0.001. The original
    E-IRFS has no such border, and other frequencies: it keeps its authors' 1e-4.
    """
    if method == "eirfs" and variant == "original":
        return AUTHORS_EIRFS_THR, "the authors' value, as the original has no border above which nothing is repeated"
    group = bins.head if len(bins.head) else np.flatnonzero(stats.image_counts > 0)
    if not len(group):
        return 1.0, "no class occurs"
    frequency = sampler_frequency(stats, method, variant)
    c = group[np.argmin(frequency[group])]
    kind = "head class" if len(bins.head) else "class"
    why = f"the rarest {kind} ({stats.names[c]}) is in {stats.image_counts[c]} of {stats.num_images} images"
    if method in ("irfs", "eirfs"):
        mean = f", their {variant if variant in MEANS else 'geometric'} mean"
        why += f" with {stats.instance_counts[c]} of {stats.instance_counts.sum()} boxes{mean}"
    return float(frequency[c]), why
