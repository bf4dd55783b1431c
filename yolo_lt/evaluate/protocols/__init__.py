"""The protocols: which boxes and detections count, and how they are matched.

A protocol is one module with a function `choose` or `match`, and one line in `PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from yolo_lt.errors import UsageError
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.matching import AREAS, Matches, assigned, candidates
from yolo_lt.evaluate.protocols import coco, lvis, open_images

Chosen = tuple[GroundTruth, Detections, int]


@dataclass(frozen=True)
class Protocol:
    """What a protocol decides.

    Attributes:
        choose: (ground truth, detections, cap) -> what counts of both, and the matcher's cap per image and class.
        cap: The cap when none is asked for; 0 is none.
        cap_text: What the cap is counted over, in words with the number in braces.
        match: Its own matching of what was chosen; None is the greedy rule of `matching`.
        areas: Whether it also reports small, medium and large boxes.
        pooled: Whether the classes of a bin are one class once they are matched.
        official: The package that computes the same numbers, see `official`; None where there is none.
    """

    choose: Callable[[GroundTruth, Detections, int], Chosen]
    cap: int
    cap_text: str
    match: Callable[[GroundTruth, Detections], Matches] | None = None
    areas: bool = True
    pooled: bool = False
    official: str | None = None


PER_CLASS = "the best {} detections of every class over the data set"
PROTOCOLS: dict[str, Protocol] = {
    "coco": Protocol(coco.choose, 100, "{} detections per image and class", official="pycocotools"),
    "lvis": Protocol(lvis.choose, 300, "{} detections per image", official="lvis"),
    "lvis_fixed": Protocol(lvis.choose_fixed, 10_000, PER_CLASS, official="lvis"),
    "lvis_pool": Protocol(lvis.choose_fixed, 10_000, PER_CLASS, areas=False, pooled=True),
    "openimages": Protocol(
        open_images.choose, 0, "{} detections per image", match=open_images.match, areas=False
    ),
}  # fmt: skip


def protocol_of(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"protocol={name} is unknown; choose one of: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def cap_of(name: str, max_det: int | None) -> int:
    """The cap that was asked for, or else the protocol's own; 0 is none."""
    return PROTOCOLS[name].cap if max_det is None else max_det


def cap_text(name: str, max_det: int | None) -> str:
    """The cap in words, for every table."""
    return PROTOCOLS[name].cap_text.format(max_det) if max_det else "no cap on detections"


def choose(name: str, gt: GroundTruth, dets: Detections, max_det: int) -> Chosen:
    """What counts under a protocol; `max_det` is its cap, 0 is none."""
    return PROTOCOLS[name].choose(gt, dets, max_det)


def matched(name: str, chosen: Chosen, max_det: int, areas: bool = False) -> Iterator[tuple[str, Matches]]:
    """The matches of what was chosen, `all` first, then by area: one after the other, as each takes memory.

    Args:
        name: In `PROTOCOLS`.
        chosen: From `choose`.
        max_det: The cap that was chosen by.
        areas: Whether small, medium and large are asked for; left out where the protocol has none.
    """
    rules, (gt, dets, per_class) = PROTOCOLS[name], chosen
    named: dict[str, Any] = {"max_det": max_det, "protocol": name}
    if rules.match is not None:
        yield "all", replace(rules.match(gt, dets), **named)
        return
    found = candidates(gt, dets, per_class)
    del chosen, gt, dets  # from here on the boxes are not needed
    yield "all", replace(assigned(found, max_det), **named)
    if areas and rules.areas:
        for area, bounds in AREAS.items():
            yield area, replace(assigned(found, max_det, bounds), **named)


def run(name: str, gt: GroundTruth, dets: Detections, max_det: int) -> Matches:
    """`choose` and `matched` in one, for boxes of all sizes."""
    return next(matched(name, choose(name, gt, dets, max_det), max_det))[1]
