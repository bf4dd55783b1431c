"""ClassStats to image repeat factors. Pure numpy; one function per sampler and one line in `SAMPLERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from yolo_lt.dataset.bins import Bins
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import UsageError


def class_repeat_factors(image_counts: np.ndarray, num_images: int, thr: float = 1e-3) -> np.ndarray:
    """Category-level repeat factors r_c = max(1, sqrt(t / f_c)), f_c = image_counts / num_images.

    Args:
        image_counts: Images per class, shape (C,).
        num_images: All images, the empty ones included.
        thr: The threshold t.

    Returns:
        Factors, shape (C,), float64, >= 1; a class without images has factor 1.

    Raises:
        UsageError: `thr` is not a positive finite number.

    Source: Gupta et al., LVIS, CVPR 2019, section "repeat factor sampling".
    """
    if not (np.isfinite(thr) and thr > 0):
        raise UsageError(f"repeat_thr={thr}: expected a positive fraction of images, for example 0.001")
    counts = np.asarray(image_counts, np.float64)
    frequency = np.where(counts > 0, counts, np.inf) / max(num_images, 1)
    return np.maximum(1.0, np.sqrt(thr / frequency))


def rfs(stats: ClassStats, thr: float = 1e-3) -> np.ndarray:
    """Image repeat factors r_i = max over the classes of image i of r_c; 1 without labels. Shape (N,), float64."""
    return stats.per_image_max(class_repeat_factors(stats.image_counts, stats.num_images, thr), empty=1.0)


def none(stats: ClassStats, thr: float = 1e-3) -> np.ndarray:
    """Every image once: ones, shape (N,), float64."""
    return np.ones(stats.num_images)


SAMPLERS: dict[str, Callable[..., np.ndarray]] = {"none": none, "rfs": rfs}


def repeat_factors(
    stats_or_lists: ClassStats | Sequence[Sequence[int]],
    num_classes: int | None = None,
    method: str = "rfs",
    thr: float = 1e-3,
    **kw: Any,
) -> np.ndarray:
    """Image repeat factors of the named sampler.

    Args:
        stats_or_lists: ClassStats, or one list of class ids per image, with repeats.
        num_classes: Needed with lists if the highest ids may not occur; default: the highest id plus one.
        method: A name in `SAMPLERS`.
        thr: Threshold of the repeat factors.
        **kw: Further keywords of the sampler.

    Returns:
        Factors, shape (N,), float64; an image without labels has factor 1.

    Raises:
        UsageError: Unknown method or a threshold out of range.
        LTError: A class id is outside 0..num_classes-1.
    """
    if method not in SAMPLERS:
        raise UsageError(f"sampler={method}: expected {' | '.join(SAMPLERS)}")
    if isinstance(stats_or_lists, ClassStats):
        return SAMPLERS[method](stats_or_lists, thr=thr, **kw)
    if num_classes is None:
        num_classes = 1 + max((int(c) for row in stats_or_lists for c in row), default=-1)
    return SAMPLERS[method](ClassStats.from_lists(stats_or_lists, num_classes), thr=thr, **kw)


def head_border(stats: ClassStats, bins: Bins) -> tuple[float, str]:
    """The threshold `auto` stands for, and why: the frequency of the rarest head class.

    Every class outside the head is below it, so all of medium and tail are repeated and the head is left alone. On
    LVIS' own bins (more than 100 of 100,170 images is frequent) this gives LVIS' threshold of 0.001.
    """
    group = bins.head if len(bins.head) else np.flatnonzero(stats.image_counts > 0)
    if not len(group):
        return 1.0, "no class occurs"
    c = group[np.argmin(stats.image_counts[group])]
    thr = float(stats.image_counts[c] / stats.num_images)
    kind = "head class" if len(bins.head) else "class"
    why = f"the rarest {kind} ({stats.names[c]}) is in {stats.image_counts[c]} of {stats.num_images} images"
    return thr, why
