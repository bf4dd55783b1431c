"""A stratified share of the training images, set apart: for choices that must not be made on the validation split."""

from __future__ import annotations

import numpy as np

from yolo_lt.dataset.stats import ClassStats


def stratified_holdout(stats: ClassStats, share: float, seed: int = 0) -> np.ndarray:
    """Which images are set apart, so that every class gives the same share of its images.

    A class on n images gives round(share * n) of them, never more and never all, so the rarest classes stay whole in
    training: at a share of 0.1 a class on fewer than 5 images gives none. Classes are served from the rarest to the
    commonest, as the rare ones have the least choice; an image is taken only while all its classes still have room.
    Images without labels give their share as well.

    Args:
        stats: Class occurrences of the split, N images.
        share: Fraction of the images, in [0, 1).
        seed: Decides among images that would serve alike.

    Returns:
        Shape (N,), bool: True for the images set apart.

    Source: the order of classes follows iterative stratification (Sechidis et al., ECML PKDD 2011).
    """
    rng = np.random.default_rng(seed)
    apart = np.zeros(stats.num_images, bool)
    counts = stats.image_counts
    room = np.clip(np.floor(share * counts + 0.5), 0, np.maximum(counts - 1, 0)).astype(np.int64)
    image, cls = stats.incidences
    starts = np.searchsorted(image, np.arange(stats.num_images + 1))
    by_class = np.split(image[np.argsort(cls, kind="stable")], np.cumsum(counts)[:-1])
    for c in np.argsort(counts, kind="stable"):
        for i in rng.permutation(by_class[c]):
            if not room[c]:
                break
            classes = cls[starts[i] : starts[i + 1]]
            if not apart[i] and room[classes].all():
                apart[i], room[classes] = True, room[classes] - 1
    empty = rng.permutation(np.flatnonzero(np.diff(starts) == 0))
    apart[empty[: int(share * len(empty) + 0.5)]] = True
    return apart
