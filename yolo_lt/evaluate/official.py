"""The protocol's own package beside ours, for people who publish: pycocotools for coco, lvis-api for lvis.

Both get the same boxes and the same ids, and what they say is compared over the whole precision and recall arrays.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import numpy as np

from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.matching import AREA_ALL
from yolo_lt.evaluate.metrics import precision_recall
from yolo_lt.evaluate.protocols import PROTOCOLS, run
from yolo_lt.evaluate.protocols.lvis import best_of_classes

Arrays = tuple[np.ndarray, np.ndarray]  # precision (T, R, C), recall (T, C)


def check_official(protocol: str, wanted: bool = True, turned: bool = False) -> None:
    """Refuse what no package computes.

    Raises:
        UsageError: There is none for the protocol, or none for turned boxes.
    """
    if wanted and protocol in PROTOCOLS and PROTOCOLS[protocol].official is None:
        have = ", ".join(f"{name} ({p.official})" for name, p in PROTOCOLS.items() if p.official)
        raise UsageError(f"official=true: no package computes protocol={protocol}; it acts with {have}.")
    if wanted and turned:
        raise UsageError("official=true: no package computes AP of turned boxes.")


def compare_official(protocol: str, gt: GroundTruth, dets: Detections, max_det: int) -> dict[str, Any]:
    """Run the protocol's own package on the same data.

    Args:
        protocol: In `PROTOCOLS`, with an official package.
        gt: The truth, upright boxes.
        dets: The detections.
        max_det: The protocol's cap.

    Returns:
        package and version; AP, AP50, AP75 and AR over all categories as it says them; and largest_difference, between
        its precision and recall arrays and ours, over all IoU thresholds, recall points and categories.

    Raises:
        UsageError: No package computes the protocol, or not for turned boxes.
        LTError: The package fails.
    """
    check_official(protocol, turned=gt.angle is not None)
    package = str(PROTOCOLS[protocol].official)
    try:
        theirs = RUNNERS[protocol](gt, dets, max_det)
    except Exception as e:  # whatever it raises, the reader asked for its word
        raise LTError(f"official=true: {package} failed ({type(e).__name__}: {e}).") from e
    ours = precision_recall(run(protocol, gt, dets, max_det))
    differences = [float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True) if a.size]
    return {
        "package": package,
        "version": metadata.version(package),
        **_means(*theirs),
        "largest_difference": max(differences, default=0.0),
    }


def _means(precision: np.ndarray, recall: np.ndarray) -> dict[str, float | None]:
    parts = {"AP": precision, "AP50": precision[0], "AP75": precision[5], "AR": recall}
    return {name: float(a[a > -1].mean()) if (a > -1).any() else None for name, a in parts.items()}


def _pycocotools(gt: GroundTruth, dets: Detections, max_det: int) -> Arrays:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset, found.dataset = _dataset(gt), _results(gt, dets)
        truth.createIndex()
        found.createIndex()
        job = COCOeval(truth, found, "bbox")
        job.params.maxDets = [max_det or len(dets.score) + 1]
        job.params.areaRng, job.params.areaRngLbl = job.params.areaRng[:1], ["all"]
        job.evaluate()
        job.accumulate()
    return job.eval["precision"][:, :, :, 0, 0], job.eval["recall"][:, :, 0, 0]


def _lvis_api(gt: GroundTruth, dets: Detections, max_det: int) -> Arrays:
    """lvis-api; a detection of a category that is not listed gets an id that no category has."""
    with _numpy_float(), _quiet():
        from lvis import LVIS, LVISEval, LVISResults

        truth = object.__new__(LVIS)  # its constructor takes a path alone
        truth.logger, truth.dataset = logging.getLogger("lvis"), _dataset(gt)
        truth._create_index()
        rows = _results(gt, dets)["annotations"]
        if not rows:  # lvis-api reads the first
            return _nothing_found(gt)
        job = LVISEval(truth, LVISResults(truth, rows, max_dets=max_det or -1), "bbox")
        job.params.area_rng, job.params.area_rng_lbl = job.params.area_rng[:1], ["all"]
        job.evaluate()
        job.accumulate()
    return job.eval["precision"][..., 0], job.eval["recall"][..., 0]


def _lvis_api_fixed(gt: GroundTruth, dets: Detections, max_det: int) -> Arrays:
    return _lvis_api(gt, best_of_classes(gt, dets, max_det), 0)


RUNNERS: dict[str, Callable[[GroundTruth, Detections, int], Arrays]] = {
    "coco": _pycocotools,
    "lvis": _lvis_api,
    "lvis_fixed": _lvis_api_fixed,
}


def _marked(gt: GroundTruth) -> np.ndarray:
    """Boxes with `ignore`, shape (G,), bool."""
    return np.zeros(len(gt.cls), bool) if gt.ignored is None else gt.ignored


def _nothing_found(gt: GroundTruth) -> Arrays:
    """Precision and recall without detections: 0, and -1 for a class without boxes that count."""
    counted = (gt.area > 0) & (gt.area <= AREA_ALL[1]) & ~_marked(gt)
    counts = np.bincount(gt.cls[counted], minlength=len(gt.category_ids))
    value = np.where(counts > 0, 0.0, -1.0)
    return np.broadcast_to(value, (10, 101, len(counts))), np.broadcast_to(value, (10, len(counts)))


@contextlib.contextmanager
def _numpy_float() -> Iterator[None]:
    """Lvis 0.5.3 says `np.float`, which NumPy 1.24 took away; it is back while lvis-api runs."""
    if hasattr(np, "float"):
        yield
        return
    np.float = float  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del np.float  # type: ignore[attr-defined]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = logging.getLogger("lvis").level
    logging.getLogger("lvis").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger("lvis").setLevel(level)


def _dataset(gt: GroundTruth) -> dict[str, Any]:
    """The truth in LVIS form; images by index, since their ids may be text. Annotation ids begin at 1."""
    classes, ids = max(len(gt.category_ids), 1), gt.category_ids.tolist()
    images: list[dict[str, Any]] = [{"id": i} for i in range(len(gt.image_ids))]
    for key, pairs in (("neg_category_ids", gt.negative), ("not_exhaustive_category_ids", gt.partial)):
        for image in images:
            image[key] = []
        for pair in [] if pairs is None else pairs.tolist():
            images[pair // classes][key].append(ids[pair % classes])
    letters = gt.frequency or ["f"] * len(ids)
    categories = [{"id": c, "name": str(c), "frequency": f} for c, f in zip(ids, letters, strict=True)]
    columns = (gt.image, gt.cls, gt.box, gt.area, gt.crowd, _marked(gt))
    annotations = [
        {"id": n, "image_id": i, "category_id": ids[c], "bbox": b, "area": a, "iscrowd": int(w), "ignore": int(x)}
        for n, (i, c, b, a, w, x) in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1)
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def _results(gt: GroundTruth, dets: Detections) -> dict[str, Any]:
    """The detections as annotations; those of unlisted categories under an id that is none's."""
    ids = [*gt.category_ids.tolist(), max(gt.category_ids.tolist(), default=0) + 1]  # index -1 is the last
    rows = zip(dets.image.tolist(), dets.cls.tolist(), dets.box.tolist(), dets.score.tolist(), strict=True)
    annotations = [
        {"id": n, "image_id": i, "category_id": ids[c], "bbox": b, "area": b[2] * b[3], "score": s, "iscrowd": 0}
        for n, (i, c, b, s) in enumerate(rows, 1)
    ]
    categories = [{"id": c} for c in gt.category_ids.tolist()]
    images = [{"id": i} for i in range(len(gt.image_ids))]
    return {"images": images, "categories": categories, "annotations": annotations}
