"""Long-tailed subsets of a set whose images hold several classes: target counts, and whole images that reach them.

Boxes are never dropped from an image that stays: they would be objects without a label. So the counts of all classes
move together, and a target may be out of reach.
"""

from __future__ import annotations

import numpy as np

from yolo_lt.dataset.stats import ClassStats
from yolo_lt.dataset.subset.flips import LEAST, Goal, Rows, Search, descend, descend_by_chains
from yolo_lt.errors import UsageError, check_number

PROFILES = ("exponential", "pareto")
STIFFNESS = 30.0  # of the targets against the entropy, per image; a stiffer fit is slower where targets conflict
NEWTON_STEPS = 20
INNER_STEPS = 40  # conjugate gradients within one Newton step
CLOSE = 2e-3  # the fit ends when every target is that near: what is left is less than the rounding to whole images
CENTRE = 0.01  # weight of the squared error itself, once the excess over the tolerance is what counts


def profile(name: str, counts: np.ndarray, imbalance: float, largest: int | None = None) -> np.ndarray:
    """Target instance counts that fall from the commonest class to the rarest by the wished factor.

    Classes keep their ranking: rank k = 0, 1, ..., R - 1 by count, ties by class id. Classes without instances are not
    ranked and stay at 0; every other class gets at least 1.

    "exponential": n_k = n_0 * imbalance ** (-k / (R - 1)) (Cao et al., LDAM, NeurIPS 2019).
    "pareto": n_k = n_0 * (k + 1) ** -a with a = log(imbalance) / log(R), a power law of the rank. Counts drawn from a
    Pareto distribution of power 1 / a have that rank curve; Liu et al. (CVPR 2019) cut ImageNet-LT by one of power 6,
    whereas here the power follows from the imbalance.

    Args:
        name: One of `PROFILES`.
        counts: Instances per class, shape (C,), integers.
        imbalance: Largest over smallest target, at least 1.
        largest: n_0, the target of the commonest class; None: the largest at which no target exceeds its class's count.

    Returns:
        Shape (C,), int64, rounded to the nearest. With `largest` given, targets may exceed the counts.

    Raises:
        UsageError: Another name, an imbalance below 1, a `largest` below 1, or counts that are none.
    """
    if name not in PROFILES:
        raise UsageError(f"profile={name}: expected one of {', '.join(PROFILES)}")
    check_number("imbalance", imbalance, low=1)
    counts = _whole("counts", counts, len(counts))
    ranked = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    rank, last = np.arange(len(ranked)), max(len(ranked) - 1, 1)
    fall = rank / last if name == "exponential" else np.log(rank + 1) / np.log(last + 1)
    factors = float(imbalance) ** -fall
    first = _largest(counts[ranked], factors) if largest is None else check_number("largest", largest, low=1)
    targets = np.zeros(len(counts), np.int64)
    targets[ranked] = _scaled(first, factors)
    return targets


def _scaled(first: float, factors: np.ndarray) -> np.ndarray:
    return np.maximum(np.floor(first * factors + 0.5), 1).astype(np.int64)


def _largest(counts: np.ndarray, factors: np.ndarray) -> int:
    """The largest target of the first class at which no target exceeds its count."""
    first = int(np.floor(((counts + 0.5) / factors).min(initial=1e18)))
    while first > 1 and (_scaled(first, factors) > counts).any():  # half a box is rounded up
        first -= 1
    return max(first, 1)


def off_target(counts: np.ndarray, targets: np.ndarray, tolerance: float = 0.05) -> np.ndarray:
    """Classes whose count differs from its target by more than `tolerance` times the target, either way.

    Args:
        counts: Instances or images per class, shape (C,).
        targets: What they were to be, shape (C,).
        tolerance: Relative; a target of fewer than 1 / tolerance must be met exactly.

    Returns:
        Class ids, ascending, int64.
    """
    targets = np.asarray(targets, np.float64)
    return np.flatnonzero(np.abs(counts - targets) > tolerance * targets * (1 + LEAST))


def choose(
    stats: ClassStats,
    targets: np.ndarray,
    image_targets: np.ndarray | None = None,
    seed: int = 0,
    tolerance: float = 0.05,
) -> np.ndarray:
    """Choose images so that every class has its target count of instances, and of images if asked.

    First the inclusion probabilities of largest entropy that meet the targets on average,
    w_i = 1 / (1 + exp(sum_c lambda_c a_ic)) for an image with a_ic instances of class c; then a seeded draw; then flips
    of single images as long as they lessen the sum of squared relative errors. If a class still misses its target by
    more than the tolerance, flips and chains of flips lessen the excess over the tolerance, which serves as many
    classes as can be found, at the expense of those that cannot be served.

    A head class shrinks more by its crowded images than by those with one instance, as that leaves more images;
    `image_targets` in the proportion of the instance targets keep its images as crowded as they were.

    Args:
        stats: Class occurrences, N images, C classes.
        targets: Instances per class, shape (C,), whole numbers; above a class's count: its count. A target of 0 leaves
            out every image with that class.
        image_targets: Images per class, likewise, if they matter too (COCO-LT of SimCal has both).
        seed: Decides among images that would serve alike.
        tolerance: Relative error that counts as reached.

    Returns:
        Shape (N,), bool: True for the chosen images. Images without labels are kept in the same share as the others.
        Targets that conflict are not reached: see `off_target`.

    Raises:
        UsageError: Targets of another shape, or not whole numbers from 0, or a tolerance outside [0, 1).

    Source: the probabilities are those of maximum entropy sampling with given sums (Bernoulli design with a logistic
    link); their dual is solved by Newton's method with conjugate gradients.
    """
    check_number("tolerance", tolerance, high=1)
    rows = _rows(stats, image_targets is not None)
    target = np.minimum(_whole("targets", targets, stats.num_classes), stats.instance_counts)
    if image_targets is not None:
        wished = np.minimum(_whole("image_targets", image_targets, stats.num_classes), stats.image_counts)
        target = np.concatenate([target, wished])
    rng = np.random.default_rng(seed)
    barred = np.zeros(stats.num_images, bool)
    barred[rows.image[target[rows.column] == 0]] = True
    drawn = (rng.random(stats.num_images) < _probabilities(rows, target)) & ~barred
    search = Search.of(rows, target, drawn, barred, rng.permutation(stats.num_images))
    return _with_empty(_improved(search, tolerance), np.diff(stats.offsets) == 0, rng)


def _whole(name: str, values: np.ndarray, size: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (size,) or array.dtype.kind not in "iuf":
        raise UsageError(f"{name}: expected {size} numbers, one per class, found shape {array.shape} of {array.dtype}")
    bad = np.flatnonzero(~((array >= 0) & (array < 2**53) & (array == np.floor(array))))
    if len(bad):
        raise UsageError(f"{name}: class {bad[0]} has {array[bad[0]]}; expected a whole number from 0")
    return array.astype(np.int64)


def _with_empty(chosen: np.ndarray, empty: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images without labels added, in the share of the others."""
    labelled = np.count_nonzero(~empty)
    share = np.count_nonzero(chosen[~empty]) / labelled if labelled else 1.0
    ids = rng.permutation(np.flatnonzero(empty))
    chosen[ids] = False
    chosen[ids[: int(share * len(ids) + 0.5)]] = True
    return chosen


def _rows(stats: ClassStats, with_images: bool) -> Rows:
    """Every image's instances per class; with images, also a 1 for each of its classes, in C further columns."""
    image, cls = (x.astype(np.int64) for x in stats.incidences)
    keys = np.repeat(np.arange(stats.num_images) * stats.num_classes, np.diff(stats.offsets)) + stats.classes
    count = np.bincount(np.searchsorted(image * stats.num_classes + cls, keys), minlength=len(image))
    if not with_images:
        return Rows.of(image, cls, count, stats.num_images, stats.num_classes)
    both = np.stack([cls, cls + stats.num_classes], 1).reshape(-1)
    count = np.stack([count, np.ones_like(count)], 1).reshape(-1)
    return Rows.of(np.repeat(image, 2), both, count, stats.num_images, 2 * stats.num_classes)


def _improved(search: Search, tolerance: float) -> np.ndarray:
    """The choice when nothing improves it; of the two stages the one with fewer sums off target."""
    slack = np.floor(tolerance * search.target * (1 + LEAST))
    descend(search, Goal(np.zeros_like(slack), 2, 0.0))
    spread, single = Goal(slack, 2, CENTRE), Goal(slack, 1, CENTRE)
    first, off = search.chosen.copy(), len(search.off(single))
    if off:
        descend(search, spread)  # everything may move to the edge of its tolerance, which gives the next more room
        descend(search, single)
        descend_by_chains(search, single)
    return search.chosen if len(search.off(single)) < off else first


def _probabilities(rows: Rows, target: np.ndarray) -> np.ndarray:
    """Inclusion probabilities of largest entropy whose sums are near the targets, shape (N,), float64.

    They maximise the entropy less a quadratic penalty of the relative errors, so there is an answer where targets
    conflict.
    """
    ridge = np.maximum(target, 1.0) ** 2 / (STIFFNESS * max(len(rows.starts) - 1, 1))

    def value(dual: np.ndarray, exponent: np.ndarray) -> float:
        return float(np.logaddexp(0, -exponent).sum() + dual @ target + ridge @ dual**2 / 2)

    dual, exponent = np.zeros(rows.columns), np.zeros(len(rows.starts) - 1)
    for _ in range(NEWTON_STEPS):
        w = _logistic(exponent)
        gradient = target - rows.per_column(rows.count * w[rows.image]) + ridge * dual
        if (np.abs(gradient) <= CLOSE * np.maximum(target, 1)).all():
            break
        step = _newton_step(rows, w * (1 - w), ridge, gradient)
        along, before = rows.per_image(rows.count * step[rows.column]), value(dual, exponent)
        scales = (s for s in 0.5 ** np.arange(16) if value(dual + s * step, exponent + s * along) < before)
        if not (scale := next(scales, 0.0)):
            break
        dual, exponent = dual + scale * step, exponent + scale * along
    return _logistic(exponent)


def _logistic(exponent: np.ndarray) -> np.ndarray:
    return (1 - np.tanh(exponent / 2)) / 2  # 1 / (1 + exp(x)) without its overflow


def _newton_step(rows: Rows, spread: np.ndarray, ridge: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Minus the inverse Hessian times the gradient, by conjugate gradients with the diagonal as preconditioner."""
    entries = rows.count * spread[rows.image]
    diagonal = rows.per_column(rows.count * entries) + ridge
    step, rest = np.zeros_like(gradient), -gradient
    search = rest / diagonal
    size = first = rest @ search
    for _ in range(INNER_STEPS):
        if size <= 1e-4 * first:
            break
        image = rows.per_image(rows.count * search[rows.column])
        curved = rows.per_column(entries * image[rows.image]) + ridge * search
        length = size / (search @ curved)
        step, rest = step + length * search, rest - length * curved
        before, size = size, rest @ (rest / diagonal)
        search = rest / diagonal + size / before * search
    return step
