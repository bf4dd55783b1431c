"""pycocotools as oracle, and small ground truths to feed it."""

import contextlib
import copy
import io

import numpy as np
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolo_lt.evaluate.matching import match
from yolo_lt.evaluate.read import read_detections, read_ground_truth


def coco_arrays(gt, dets, max_det):
    """Precision (T, R, K) and recall (T, K) of COCOeval for area range 'all' and one cap."""
    gt, dets = copy.deepcopy(gt), copy.deepcopy(dets)
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = gt
        truth.createIndex()
        if dets:
            found = truth.loadRes(dets)
        else:
            found.dataset = {"images": gt["images"], "categories": gt["categories"], "annotations": []}
            found.createIndex()
        e = COCOeval(truth, found, "bbox")
        e.params.maxDets = [max_det]
        e.evaluate()
        e.accumulate()
    return e.eval["precision"][:, :, :, 0, 0], e.eval["recall"][:, :, 0, 0]


def matches_of(gt, dets, max_det=100):
    truth = read_ground_truth(gt)
    return match(truth, read_detections(dets, truth), max_det)


def dataset(anns, images=(1,), categories=(1,)):
    """Ground truth from tuples (image, category, box[, extra fields]); ids from 1."""
    rows = [
        {"id": i, "image_id": a[0], "category_id": a[1], "bbox": list(a[2]), "iscrowd": 0}
        | {"area": a[2][2] * a[2][3]}
        | (a[3] if len(a) > 3 else {})
        for i, a in enumerate(anns, 1)
    ]
    return {
        "images": [{"id": i} for i in images],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        "annotations": rows,
    }


def results(*dets):
    """Detections from tuples (image, category, box, score)."""
    return [{"image_id": i, "category_id": c, "bbox": list(b), "score": s} for i, c, b, s in dets]


def random_case(seed, images, per_image, classes, boxes=4, crowd=0.1):
    """Detections scattered around the ground truth of every image; coarse scores, so that many are equal."""
    rng = np.random.default_rng(seed)
    anns, dets = [], []
    for i in range(1, images + 1):
        count = rng.integers(1, boxes + 1)
        truth = np.c_[rng.integers(0, 60, (count, 2)), rng.integers(5, 40, (count, 2))].astype(float)
        kinds = rng.integers(1, classes + 1, count)
        marks = rng.random(count) < crowd
        anns += [(i, int(c), b.tolist(), {"iscrowd": int(m)}) for c, b, m in zip(kinds, truth, marks, strict=True)]
        source = rng.integers(0, count, per_image)
        box = truth[source] + rng.normal(0, 3, (per_image, 4))
        box[:, 2:] = np.maximum(box[:, 2:], 0)
        score = np.round(rng.random(per_image), 2)
        dets += results(*zip([i] * per_image, kinds[source].tolist(), box.tolist(), score.tolist(), strict=True))
    return dataset(anns, range(1, images + 1), range(1, classes + 1)), dets


@st.composite
def cases(draw, images=3, classes=3, most_boxes=8, most_dets=30):
    """Boxes on a coarse grid: equal IoUs, equal scores, duplicates, no overlap, zero width and no box at all."""
    box = st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(0, 4)] * 2)
    where = (st.integers(1, images), st.integers(1, classes))
    marks = st.fixed_dictionaries(
        {"iscrowd": st.sampled_from([0, 0, 0, 1])}, optional={"area": st.sampled_from([0, 5.5, -1, 1e11])}
    )
    anns = draw(st.lists(st.tuples(*where, box, marks), max_size=most_boxes))
    score = st.sampled_from([0.1, 0.3, 0.3, 0.5, 0.9, -0.5, 0.0])
    size = st.sampled_from([0, 1, 2, 3, 4, 4, -1, 200_000])  # the last two: an area outside COCO's range 'all'
    found = st.tuples(*[st.integers(0, 3)] * 2, size, size)
    listed_and_not = (where[0], st.integers(1, classes + 1))
    dets = draw(st.lists(st.tuples(*listed_and_not, st.one_of(box, found), score), max_size=most_dets))
    return dataset(anns, range(1, images + 1), range(1, classes + 1)), results(*dets)
