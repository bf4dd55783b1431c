"""The protocols: how detections are chosen and matched. A protocol is one function and one line in `PROTOCOLS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from yolo_lt.evaluate.matching import Detections, GroundTruth, Matches, match


@dataclass(frozen=True)
class Protocol:
    """What a protocol decides before the metrics.

    Attributes:
        match: (ground truth, detections, max_det) -> Matches.
        max_det: The cap when none is asked for; 0 is none. Whether it counts per image or per image and class is the
            protocol's own rule.
    """

    match: Callable[[GroundTruth, Detections, int], Matches]
    max_det: int


PROTOCOLS: dict[str, Protocol] = {
    "coco": Protocol(match, max_det=100),
}
