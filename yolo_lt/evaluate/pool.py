"""AP-pool: the classes of a bin as one class, once they are matched.

Scores of different classes then compete, as they do in an application with one confidence for all.

Source: Dave et al., "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from yolo_lt.evaluate.matching import Matches
from yolo_lt.evaluate.protocols import PROTOCOLS


def scored(matches: Matches, sets: Sequence[np.ndarray]) -> tuple[Matches, list[np.ndarray]]:
    """What is averaged by the protocol of the matches: as given, or with every set pooled into one class.

    Args:
        matches: Of any protocol.
        sets: Class indices of each set; a class may be in several.

    Returns:
        Matches and, for each set, the class indices whose mean is its value.
    """
    if not PROTOCOLS[matches.protocol].pooled:
        return matches, list(sets)
    return pooled(matches, sets), [np.array([i]) for i in range(len(sets))]


def pooled(matches: Matches, sets: Sequence[np.ndarray]) -> Matches:
    """Matches in which class i is set i; equal scores by class, then image."""
    rows = [np.flatnonzero(np.isin(matches.cls, s)) for s in sets]
    rows = [r[np.argsort(-matches.score[r], kind="stable")] for r in rows]
    truths = [np.flatnonzero(np.isin(matches.gt_class, s)) for s in sets]
    det, gt = np.concatenate([np.zeros(0, int), *rows]), np.concatenate([np.zeros(0, int), *truths])
    return replace(
        matches,
        **{name: getattr(matches, name)[det] for name in ("image", "score", "tp", "ignore", "iou")},
        **{name: getattr(matches, name)[gt] for name in ("gt_image", "gt_count")},
        cls=np.repeat(np.arange(len(sets)), [len(r) for r in rows]).astype(np.int32),
        gt_class=np.repeat(np.arange(len(sets)), [len(t) for t in truths]).astype(np.int32),
        category_ids=np.arange(len(sets)),
    )
