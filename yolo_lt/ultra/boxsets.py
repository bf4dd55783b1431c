"""Compare the boxes of an exported file with those of the checkpoint, image by image, as sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ultralytics.utils.metrics import batch_probiou


@dataclass(frozen=True)
class Graph:
    """What an export fixed in the file, and what that asks of the comparison.

    Attributes:
        kind: "raw" (every anchor, in order), "nms" (NMS inside) or "topk" (the best rows of an end-to-end head).
        num_classes: C.
        sizes: Heights and widths to run, pixels; two of them if the shapes are dynamic.
        batch: Images per run.
        channels: Image channels.
        rotated: Oriented boxes, whose NMS is Ultralytics' fast NMS over probabilistic IoU.
        conf: Confidence below which the file's NMS drops boxes.
        iou: IoU above which it does.
        max_det: Rows per image.
        agnostic: One class per anchor, NMS over all classes together.
        tolerance: Largest difference of scores.
        span: Largest difference of boxes over the image size, and of all else over its largest value.
    """

    kind: str
    num_classes: int
    sizes: tuple[tuple[int, int], ...]
    batch: int
    channels: int
    rotated: bool
    conf: float
    iou: float
    max_det: int
    agnostic: bool
    tolerance: float
    span: float


@dataclass
class Differences:
    """Largest absolute differences so far, over the images and boxes compared."""

    images: int = 0
    boxes: int = 0
    top: float = 0.0  # highest score that was compared
    score: float = 0.0
    box: float = 0.0  # pixels
    other: float = 0.0  # mask coefficients, keypoints, angles and prototypes, relative to their largest value

    def add(self, score: np.ndarray, box: np.ndarray, other: float) -> None:
        """Take in one image: differences of scores and boxes, one row per box, and the relative rest."""
        self.images, self.boxes = self.images + 1, self.boxes + len(box)
        self.score, self.box = _largest(self.score, score), _largest(self.box, box)
        self.other = _largest(self.other, np.array([other]))

    def within(self, graph: Graph, size: tuple[int, int]) -> bool:
        """Whether all are in the tolerance for images of this size; NaN is not."""
        return self.score <= graph.tolerance and self.box <= graph.span * max(size) and self.other <= graph.span

    def text(self) -> str:
        """The differences in words."""
        rest = f", masks, keypoints or angles by {self.other:.1g} of their largest value" if self.other else ""
        return f"largest score difference {self.score:.1g}, largest box difference {self.box:.1g} px{rest}"


@dataclass(frozen=True)
class Truth:
    """The checkpoint's boxes of one image before any selection: box (A, 4), score (A, C), extra (A, E)."""

    box: np.ndarray
    score: np.ndarray
    extra: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, num_classes: int) -> Truth:
        """From rows of shape (A, 4 + C + E)."""
        return cls(*np.split(rows, [4, 4 + num_classes], axis=1))


def compare(exported: list[np.ndarray], truth: list[np.ndarray], graph: Graph, found: Differences) -> str | None:
    """Compare one image and take the differences into `found`.

    A raw file is compared anchor by anchor. A file that selects boxes is compared as a set: every row is held against
    its nearest box of the checkpoint, and the selection must be right, see `_topk_fault` and `_nms_fault`. Boxes whose
    score or overlap is within the tolerance of the selection's border may be on either side: there rounding decides.

    Args:
        exported: The file's rows, (A, 4 + C + E) if raw, else (k, 6 + E), and mask prototypes if it has them.
        truth: The checkpoint's boxes before any selection, (A, 4 + C + E), and mask prototypes if it has them.
        graph: What the export fixed.
        found: Changed in place.

    Returns:
        What is wrong with the selection of boxes, or None.
    """
    rows, boxes = exported[0], Truth.of(truth[0], graph.num_classes)
    protos = _relative(exported[1], truth[1]) if len(truth) > 1 else 0.0
    if graph.kind == "raw":
        if rows.shape != truth[0].shape:
            return (
                f"it gives {rows.shape[0]} x {rows.shape[1]} numbers instead of {len(boxes.box)} x {truth[0].shape[1]}"
            )
        given = Truth.of(rows, graph.num_classes)
        found.top = max(found.top, float(boxes.score.max()))
        rest = _relative(given.extra, boxes.extra)
        found.add(np.abs(given.score - boxes.score), np.abs(given.box - boxes.box), max(protos, rest))
        return None
    rows = rows[rows[:, 4] != 0] if graph.kind == "nms" else rows  # NMS fills up with rows of zeros
    cls = rows[:, 5].astype(int)
    if (cls != rows[:, 5]).any() or (cls < 0).any() or (cls >= graph.num_classes).any():
        return f"it gives a class that is none of 0 to {graph.num_classes - 1}"
    anchor = match(rows, boxes)
    found.top = max(found.top, float(rows[:, 4].max(initial=0)))
    rest = _relative(rows[:, 6:], boxes.extra[anchor])
    score, box = np.abs(rows[:, 4] - boxes.score[anchor, cls]), np.abs(rows[:, :4] - boxes.box[anchor])
    found.add(score, box, max(protos, rest))
    fault = _nms_fault if graph.kind == "nms" else _topk_fault
    return fault(rows[:, 4], anchor, cls, boxes, graph) if found.score <= graph.tolerance else None


def match(rows: np.ndarray, truth: Truth) -> np.ndarray:
    """For every exported row the anchor that is nearest in box and in the score of the row's class; none is used twice.

    Args:
        rows: (k, 6 + E): box, score, class.
        truth: The checkpoint's boxes.

    Returns:
        Anchors, (k,), int.
    """
    used = np.zeros(truth.score.shape, bool)
    size = max(1.0, float(np.abs(truth.box).max()))
    anchor = np.zeros(len(rows), int)
    for i, row in enumerate(rows):
        c = int(row[5])
        apart = np.abs(truth.box - row[:4]).max(1) / size + np.abs(truth.score[:, c] - row[4])
        anchor[i] = np.argmin(np.where(used[:, c], np.inf, apart))
        used[anchor[i], c] = True
    return anchor


def _topk_fault(score: np.ndarray, anchor: np.ndarray, cls: np.ndarray, truth: Truth, graph: Graph) -> str | None:
    """What is wrong with the rows of an end-to-end head, which must be the best pairs of anchor and class.

    The lowest exported score is the border.
    """
    if len(score) != graph.max_det:
        return f"it gives {len(score)} rows instead of {graph.max_det}"
    wanted = truth.score > score.min() + graph.tolerance
    if graph.agnostic:
        wanted &= truth.score == truth.score.max(1, keepdims=True)
    wanted[anchor, cls] = False
    missing = np.argwhere(wanted)
    return _left_out(truth, *missing[0]) if len(missing) else None


def _nms_fault(score: np.ndarray, anchor: np.ndarray, cls: np.ndarray, truth: Truth, graph: Graph) -> str | None:
    """What is wrong with the rows of a file with NMS inside, by what defines NMS instead of by a second NMS.

    Candidates are the anchors whose best class scores above `conf`. Each must be a row, or be overlapped by a better
    row (oriented boxes: by a better candidate, as fast NMS has it), unless all rows are in use; and no row may be
    overlapped by a better one. This determines the rows, and a flip at a border has no consequences elsewhere.
    """
    best, best_cls, tolerance = truth.score.max(1), truth.score.argmax(1), graph.tolerance
    if (score < graph.conf - tolerance).any() or (score < best[anchor] - tolerance).any():
        return "it keeps a box below conf, or with another class than its best"
    able = np.flatnonzero(best > graph.conf - tolerance)
    able = able[np.argsort(-best[able])]
    floor = score.min() if len(score) >= graph.max_det else graph.conf
    if graph.rotated and len(able) > 5 * graph.max_det:  # Ultralytics gives no more candidates to this NMS
        able = able[: 5 * graph.max_det]
        floor = max(floor, best[able[-1]])
    dropped = np.setdiff1d(able[best[able] > floor + tolerance], anchor)
    better = able if graph.rotated else anchor
    hidden = _overlapped(dropped, better, truth, graph, tolerance)
    if not hidden.all():
        return _left_out(truth, dropped[~hidden][0], best_cls[dropped[~hidden][0]])
    doubled = _overlapped(anchor, better, truth, graph, -tolerance)
    return f"it keeps a box of class {cls[doubled][0]} under a better one" if doubled.any() else None


def _overlapped(a: np.ndarray, b: np.ndarray, truth: Truth, graph: Graph, slack: float) -> np.ndarray:
    """Which anchors of `a` an anchor of `b` suppresses: same class, higher score, IoU above the limit; (len(a),), bool.

    With a positive slack those that may be suppressed, given that rounding moves scores by it and IoU by ten times as
    much; with a negative one those that surely are.
    """
    best = truth.score.max(1, keepdims=True)
    may = (truth.score >= best - abs(slack)).astype(np.float32)  # the classes that an anchor may carry
    same = graph.agnostic | (may[a] @ may[b].T > 0)
    if slack < 0:
        sure = may.sum(1) == 1
        same &= graph.agnostic | (sure[a, None] & sure[b])
    shape = np.concatenate([truth.box, truth.extra[:, -1:]], 1) if graph.rotated else truth.box
    higher = (best[b, 0] > best[a] - slack) & (a[:, None] != b)
    return ((_iou(shape[a], shape[b]) > graph.iou - 10 * slack) & same & higher).any(1)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes x1 y1 x2 y2, or probabilistic IoU of x y w h angle; (n, 4) and (m, 4), or (n, 5), to (n, m)."""
    if a.shape[1] == 5:
        return batch_probiou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clip(0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return shared / (area_a[:, None] + area_b - shared).clip(1e-9)


def _left_out(truth: Truth, anchor: int, c: int) -> str:
    return f"it leaves out a box of class {c} with score {truth.score[anchor, c]:.4f}"


def _largest(so_far: float, values: np.ndarray) -> float:
    """The larger one; NaN stays NaN."""
    return float(np.maximum(so_far, values.max(initial=0)))


def _relative(values: np.ndarray, truth: np.ndarray) -> float:
    """Largest absolute difference over the largest value of the truth, or over 1 if that is smaller."""
    if not truth.size:
        return 0.0
    return float(np.abs(values - truth).max() / max(1.0, float(np.abs(truth).max())))
