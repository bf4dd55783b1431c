"""What surrounds the classes: how many in an image, beside which others, in how many scenes, where and how large.

Two classes with as many images can be told apart unequally well: twelve images of twelve kitchens teach more than
twelve frames of one video. Everything here is counted per class and stands beside the number of images it rests on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError

GRID = 3  # cells per side: enough to tell the middle from the edges, few enough to be filled by some ten boxes
QUANTILES = (0.1, 0.5, 0.9)  # of the sizes
WIDEST = 8.0  # images: what is wider is a mistake in the label, which must not cost the others their digits


@dataclass(frozen=True)
class Context:
    """One value per class, shape (C,), unless said otherwise; float64, nan where the class does not occur.

    Attributes:
        images: Images that hold the class, int64.
        instances: Boxes of the class, int64.
        per_image: Mean number of its boxes in those images.
        fullest: Most of its boxes in one image.
        fullest_share: Share of all its boxes that lie in that image.
        shared: Images that hold both of two classes, shape (C, C), int32; the diagonal is `images`.
        alone: Share of its images that hold no other class.
        contexts: Distinct sets of other classes in its images; none is a set, too. At most `images`.
        contexts_effective: Exponential of their entropy: how many equally frequent sets would be as diverse.
        contexts_expected: Distinct sets that as many images of another class have, mean over the other classes with at
            least as many images; nan without such a class.
        scenes: Distinct scenes of its images, at most `images`; nan if scenes are unknown.
        cells: Effective number of cells of a grid of 3 x 3 in which its boxes have their centres, over 9. At most
            `instances` / 9.
        sizes: 10, 50 and 90 % quantiles of the square root of the box area in parts of the image, shape (C, 3).
    """

    images: np.ndarray
    instances: np.ndarray
    per_image: np.ndarray
    fullest: np.ndarray
    fullest_share: np.ndarray
    shared: np.ndarray
    alone: np.ndarray
    contexts: np.ndarray
    contexts_effective: np.ndarray
    contexts_expected: np.ndarray
    scenes: np.ndarray
    cells: np.ndarray
    sizes: np.ndarray


class Neighbours(NamedTuple):
    """The classes that others are most often beside, the most images first, then by class id; K per class.

    Attributes:
        ids: Class ids, shape (C, K), int64; -1 where there is no further one.
        share: Share of the class's images that hold the other, P(b|a), shape (C, K), float64; nan where there is none.
        lift: P(b|a) / P(b), shape (C, K), float64: above 1 they come together more often than by chance. From few
            images it says little: beside a class of one image every class in it has a large lift.
    """

    ids: np.ndarray
    share: np.ndarray
    lift: np.ndarray


def class_context(stats: ClassStats, box: np.ndarray | None = None, scenes: np.ndarray | None = None) -> Context:
    """Count what surrounds every class.

    Where labels are federated, a class that nobody looked for in an image counts as absent from it.

    Args:
        stats: Class occurrences of N images, M boxes and C classes.
        box: Centre x, centre y, width and height of every box in parts of the image's size, shape (M, 4), in the order
            of `stats.classes`; None leaves positions and sizes unknown. Boxes with a value that is not finite do not
            count there.
        scenes: A number per image, the same for images of one scene (a video, near duplicates), shape (N,), integers;
            None if unknown.

    Raises:
        LTError: `box` or `scenes` do not fit the statistics.

    Source: the expected number of sets is Hurlbert's rarefaction (Ecology 52, 1971).
    """
    _check(stats, box, scenes)
    fullest = _fullest(stats)
    cells, sizes = _placement(stats.classes, box, stats.num_classes)
    distinct, effective, expected = _diversity(stats)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Context(
            images=stats.image_counts,
            instances=stats.instance_counts,
            per_image=stats.instance_counts / stats.image_counts,
            fullest=fullest,
            fullest_share=fullest / stats.instance_counts,
            shared=co_occurrence(stats),
            alone=_alone(stats) / stats.image_counts,
            contexts=distinct,
            contexts_effective=effective,
            contexts_expected=expected,
            scenes=_scenes(stats, scenes),
            cells=cells,
            sizes=sizes,
        )


def _check(stats: ClassStats, box: np.ndarray | None, scenes: np.ndarray | None) -> None:
    if box is not None and np.shape(box) != (len(stats.classes), 4):
        raise LTError(f"box of shape {np.shape(box)}: expected four numbers for each of {len(stats.classes)} boxes")
    if scenes is not None and np.shape(scenes) != (stats.num_images,):
        raise LTError(f"scenes of shape {np.shape(scenes)}: expected a number for each of {stats.num_images} images")


def co_occurrence(stats: ClassStats) -> np.ndarray:
    """Images that hold both of two classes, shape (C, C), int32; the diagonal counts the images of the class.

    Dense: 6 MB at 1203 classes, 100 MB at 5000.
    """
    image, cls = stats.incidences
    size = stats.num_classes
    shared = np.zeros(size * size, np.int32)
    place = cls.astype(np.int64)
    first = np.arange(len(image))
    for lag in range(1, len(image)):  # pairs within an image, a step further apart each time
        first = first[: np.searchsorted(first, len(image) - lag)]
        first = first[image[first] == image[first + lag]]
        if not len(first):
            break
        np.add.at(shared, place[first] * size + place[first + lag], 1)
    square = shared.reshape(size, size)
    square += square.T.copy()
    np.fill_diagonal(square, stats.image_counts)
    return square


def neighbours(shared: np.ndarray, num_images: int, most: int = 3) -> Neighbours:
    """The classes that every class is most often beside.

    Args:
        shared: `Context.shared`, shape (C, C).
        num_images: All images of the split, N, those without labels included.
        most: How many neighbours per class.
    """
    images, others = np.diagonal(shared).astype(np.float64), shared.copy()
    np.fill_diagonal(others, 0)
    ids = np.argsort(-others, axis=1, kind="stable")[:, :most]
    together = np.take_along_axis(others, ids, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(together > 0, together / images[:, None], np.nan)
        lift = share * num_images / images[ids]
    return Neighbours(np.where(together > 0, ids, -1), share, lift)


def _unless_empty(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, values, np.nan)


def _fullest(stats: ClassStats) -> np.ndarray:
    """Most boxes of the class in one image, shape (C,), float64."""
    rows = np.arange(stats.num_images, dtype=np.int64) * stats.num_classes
    keys = np.repeat(rows, np.diff(stats.offsets)) + stats.classes
    keys.sort(kind="stable")  # merge sort: the images are in order already
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    most = np.zeros(stats.num_classes)
    np.maximum.at(most, stats.incidences[1], np.diff(np.append(starts, len(keys))))  # both are sorted alike
    return _unless_empty(most, stats.image_counts)


def _alone(stats: ClassStats) -> np.ndarray:
    """Images that hold the class and no other, shape (C,), int64."""
    image, cls = stats.incidences
    kinds = np.bincount(image, minlength=stats.num_images)
    return np.bincount(cls[kinds[image] == 1], minlength=stats.num_classes)


def _scenes(stats: ClassStats, scenes: np.ndarray | None) -> np.ndarray:
    """Distinct scenes per class, shape (C,), float64."""
    if scenes is None:
        return np.full(stats.num_classes, np.nan)
    image, cls = stats.incidences
    numbers, size = np.unique(scenes, return_inverse=True)[1], max(stats.num_images, 1)
    keys = np.unique(cls.astype(np.int64) * size + numbers[image])
    count = np.bincount(keys // size, minlength=stats.num_classes)
    return _unless_empty(count, stats.image_counts)


# Sets of other classes ------------------------------------------------------------------------------------------------
def _diversity(stats: ClassStats) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct sets of other classes, their effective and their expected number, each shape (C,), float64."""
    cls, count = _context_counts(stats)
    n = stats.image_counts
    distinct = np.bincount(cls, minlength=stats.num_classes)
    share = count / n[cls]
    entropy = np.bincount(cls, weights=-share * np.log(share), minlength=stats.num_classes)
    effective = _unless_empty(np.exp(entropy), n)
    return _unless_empty(distinct, n), effective, _rarefied(cls, count, distinct, n)


def _context_counts(stats: ClassStats) -> tuple[np.ndarray, np.ndarray]:
    """Every distinct (class, set of other classes): the class, and the images that have it, each shape (K,), int64.

    A set is known by the sum of a random 64-bit number per class, modulo 2^64: two of a million different sets have the
    same sum with a probability of 3e-8.
    """
    image, cls = stats.incidences
    marks = np.random.default_rng(0).integers(0, 2**64, stats.num_classes, dtype=np.uint64)
    whole = np.zeros(stats.num_images, np.uint64)
    np.add.at(whole, image, marks[cls])
    others = whole[image] - marks[cls]
    order = np.lexsort((others, cls))
    cls, others = cls[order], others[order]
    new = np.append(True, (cls[1:] != cls[:-1]) | (others[1:] != others[:-1]))[: len(cls)]
    starts = np.flatnonzero(new)
    return cls[starts].astype(np.int64), np.diff(np.append(starts, len(cls)))


def _rarefied(cls: np.ndarray, count: np.ndarray, distinct: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Expected distinct sets in as many images of another class, shape (C,), float64.

    Of n_d images of class d, of which m have a set, n drawn without replacement miss it with the probability
    C(n_d - m, n) / C(n_d, n).
    """
    most = int(images.max(initial=0)) + 1
    keys, times = np.unique(cls * most + count, return_counts=True)  # most sets occur once: few (class, count) remain
    size, m = images[keys // most], keys % most
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most)))])
    expected = np.full(len(images), np.nan)
    for n in np.unique(images[images > 0]):
        large = size >= n
        missed = _missed(size[large], m[large], n, log_factorial)
        own, others = images == n, int((images >= n).sum()) - 1
        if others:  # of a class with n images, all n: its own number, which does not count
            expected[own] = ((times[large] * (1 - missed)).sum() - distinct[own]) / others
    return expected


def _missed(size: np.ndarray, m: np.ndarray, n: int, log_factorial: np.ndarray) -> np.ndarray:
    """Probability that n of `size` images have none of m, float64."""
    rest = size - m - n
    log = log_factorial[size - m] + log_factorial[size - n] - log_factorial[np.maximum(rest, 0)] - log_factorial[size]
    return np.where(rest >= 0, np.exp(log), 0.0)


# Positions and sizes --------------------------------------------------------------------------------------------------
def _placement(cls: np.ndarray, box: np.ndarray | None, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """`cells` (C,) and `sizes` (C, 3)."""
    if box is None:
        return np.full(num_classes, np.nan), np.full((num_classes, len(QUANTILES)), np.nan)
    finite = np.isfinite(box).all(axis=1)
    if not finite.all():
        cls, box = cls[finite], box[finite]
    return _cells(cls, box, num_classes), _sizes(cls, box, num_classes)


def _cells(cls: np.ndarray, box: np.ndarray, num_classes: int) -> np.ndarray:
    """Effective share of the cells that hold centres; a centre outside the image is in the nearest cell."""
    column, row = (np.clip(box[:, i] * GRID, 0, GRID - 1).astype(np.int64) for i in (0, 1))
    counts = np.bincount(cls * GRID**2 + row * GRID + column, minlength=num_classes * GRID**2)
    counts = counts.reshape(num_classes, GRID**2)
    total = counts.sum(axis=1)
    share = counts / np.maximum(total, 1)[:, None]
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
    return _unless_empty(np.exp(entropy) / GRID**2, total)


def _sizes(cls: np.ndarray, box: np.ndarray, num_classes: int) -> np.ndarray:
    """Quantiles of the square root of the area, as numpy interpolates them; a side is taken from 0 to `WIDEST`."""
    width, height = (np.clip(box[:, i], 0, WIDEST).astype(np.float64) for i in (2, 3))
    stride = 2 * WIDEST
    size = np.sort(np.sqrt(width * height) + cls * stride)  # one sort for all classes: each has a range of its own
    count = np.bincount(cls, minlength=num_classes)
    start = np.cumsum(count) - count
    place = start[:, None] + np.asarray(QUANTILES) * np.maximum(count - 1, 0)[:, None]
    low = np.floor(place).astype(np.int64)
    last = len(size) - 1
    if last < 0:
        return np.full((num_classes, len(QUANTILES)), np.nan)
    below, above = size[np.minimum(low, last)], size[np.minimum(np.ceil(place).astype(np.int64), last)]
    found = below + (place - low) * (above - below) - np.arange(num_classes)[:, None] * stride
    return _unless_empty(np.clip(found, 0, WIDEST), count[:, None])
