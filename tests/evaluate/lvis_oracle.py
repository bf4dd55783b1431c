"""lvis-api and hotcoco as oracles of the federated protocols, and federated ground truths to feed them."""

import contextlib
import copy
import io
import json
import logging
import tempfile
import types
import warnings
from pathlib import Path
from unittest import mock

import hotcoco
import lvis.eval
import numpy as np
from hypothesis import strategies as st
from lvis import LVIS, LVISEval, LVISResults

from yolo_lt.evaluate.metrics import precision_recall
from yolo_lt.evaluate.protocols import choose, matched
from yolo_lt.evaluate.read import read_detections, read_ground_truth

OLD_NUMPY = types.ModuleType("numpy")  # lvis 0.5.3 says np.float, which NumPy 1.24 took away
OLD_NUMPY.__dict__.update(np.__dict__, float=float)
logging.getLogger("lvis").setLevel(logging.ERROR)


def lvis_arrays(gt, dets, max_dets=300):
    """Precision (T, R, K, A) and recall (T, K, A) of lvis-api, A being all, small, medium and large; -1 is no cap."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(lvis.eval, "np", OLD_NUMPY):
        path = Path(folder) / "gt.json"
        path.write_text(json.dumps(gt))
        truth = LVIS(str(path))
        e = LVISEval(truth, LVISResults(truth, copy.deepcopy(dets), max_dets), "bbox")
        e.evaluate()
        e.accumulate()
    return e.eval["precision"], e.eval["recall"]


def hotcoco_arrays(gt, dets, max_dets=300):
    """Precision (T, R, K) and recall (T, K) of hotcoco, which keeps boxes without area and knows no ignore."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        truth = hotcoco.COCO(copy.deepcopy(gt))
        found = hotcoco.LVISResults(truth, copy.deepcopy(dets), max_dets=max_dets)  # load_res would cap at 300
        e = hotcoco.LVISEval(truth, found, "bbox")
        e.run()
    return np.array(e.eval["precision"])[:, :, :, 0, 0], np.array(e.eval["recall"])[:, :, 0, 0]


def our_arrays(gt, dets, protocol="lvis", max_det=300, area="all"):
    """Precision (T, R, K) and recall (T, K)."""
    return precision_recall(matches_of(gt, dets, protocol, max_det, area))


def matches_of(gt, dets, protocol="lvis", max_det=300, area="all"):
    truth = read_ground_truth(gt)
    chosen = choose(protocol, truth, read_detections(dets, truth), max_det)
    return dict(matched(protocol, chosen, max_det, areas=True))[area]


def assert_equal(ours, theirs, atol=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


def best_per_class(dets, size):
    """The best of every class over the whole data set, in plain Python; of equal scores the earlier ones."""
    kept = []
    for c in {d["category_id"] for d in dets}:
        places = [n for n, d in enumerate(dets) if d["category_id"] == c]
        kept += sorted(places, key=lambda n: -dets[n]["score"])[:size]
    return [dets[n] for n in sorted(kept)]


def federated(anns, negative=(), partial=(), images=(1, 2), classes=(1, 2)):
    """Ground truth from (image, class, box[, extra fields]) and (image, class) pairs; ids from 1."""
    rows = [
        {"id": n, "image_id": a[0], "category_id": a[1], "bbox": list(a[2]), "area": a[2][2] * a[2][3]}
        | (a[3] if len(a) > 3 else {})
        for n, a in enumerate(anns, 1)
    ]
    lists = {"neg_category_ids": negative, "not_exhaustive_category_ids": partial}
    return {
        "images": [{"id": i} | {key: [c for j, c in v if j == i] for key, v in lists.items()} for i in images],
        "categories": [{"id": c, "name": f"class {c}", "frequency": "rcf"[c % 3]} for c in classes],
        "annotations": rows,
    }


def results(*dets):
    """Detections from (image, class, box, score)."""
    return [{"image_id": i, "category_id": c, "bbox": list(b), "score": s} for i, c, b, s in dets]


def random_case(seed, images=12, per_image=40, classes=6, steps=25, marks=(), scale=1, stray=0.15):
    """Detections around the boxes of every image, many of them of equal score, some twice, some of another class.

    The last class has no box, the last image neither boxes nor detections, the last but one no boxes; class
    classes + 1 is not listed. Entries stand in no order.

    Args:
        seed: Of everything.
        images: Images.
        per_image: Detections per image.
        classes: Listed classes.
        steps: Different scores.
        marks: Extra fields of boxes, each for a tenth of them.
        scale: Factor on all sizes.
        stray: Part of the detections with a class drawn anew, from all and the unlisted one.
    """
    rng = np.random.default_rng(seed)
    anns, dets, negative, partial = [], [], [], []
    for i in range(1, images):
        count = int(rng.integers(1, 8))
        box = scale * np.c_[rng.integers(0, 60, (count, 2)), rng.integers(8, 50, (count, 2))].astype(float)
        kinds = rng.integers(1, classes, count)
        for c, b in zip(kinds.tolist(), box.tolist(), strict=True):
            extra = {key: value for mark in marks for key, value in mark.items() if rng.random() < 0.1}
            anns += [(i, c, b, extra)] if i < images - 1 else []
        pairs = rng.integers(1, classes + 1, (2, 2)).tolist()
        negative += [(i, c) for c in {*pairs[0]} - {*(kinds.tolist() if i % 2 else [])}]  # odd images: none is boxed
        partial += [(i, c) for c in {pairs[1][0], *kinds[:1].tolist(), *pairs[0][: i % 3]} if rng.random() < 0.7]
        near = rng.integers(0, count, per_image)
        found = box[near] + scale * rng.normal(0, 3, (per_image, 4)) * (rng.random((per_image, 1)) < 0.8)
        found[:, 2:] = np.maximum(found[:, 2:], 1)
        stranger = rng.random(per_image) < stray
        kind = np.where(stranger, rng.integers(1, classes + 2, per_image), kinds[near])
        score = rng.integers(0, steps, per_image) / steps
        dets += results(*zip([i] * per_image, kind.tolist(), found.tolist(), score.tolist(), strict=True))
    dets += copy.deepcopy(dets[:: 1 + per_image // 4])
    gt = federated(anns, negative, partial, rng.permutation(images) + 1, rng.permutation(classes) + 1)
    gt["images"] = [{**row, "id": int(row["id"])} for row in gt["images"]]
    gt["categories"] = [{**row, "id": int(row["id"])} for row in gt["categories"]]
    gt["annotations"] = [gt["annotations"][k] for k in rng.permutation(len(gt["annotations"]))]
    return gt, [dets[k] for k in rng.permutation(len(dets))]


@st.composite
def cases(draw, images=3, classes=3):
    """Boxes on a coarse grid: equal IoUs, equal scores, no overlap, boxes and detections without area or turned out."""
    pair = st.tuples(st.integers(1, images), st.integers(1, classes))
    box = st.tuples(*[st.integers(0, 3)] * 2, *[st.integers(0, 4)] * 2)
    mark = st.fixed_dictionaries(
        {},
        optional={
            "ignore": st.sampled_from([0, 0, 1]),
            "iscrowd": st.sampled_from([0, 1]),
            "area": st.sampled_from([0, -1, 5.5, 1024, 1e11]),
        },
    )
    anns = draw(st.lists(st.tuples(pair, box, mark), max_size=8))
    size = st.sampled_from([0, 1, 2, 3, 4, 4, -1, 200_000])
    found = st.one_of(box, st.tuples(*[st.integers(0, 3)] * 2, size, size))
    where = st.tuples(st.integers(1, images), st.integers(1, classes + 1))  # the last is not listed
    score = st.sampled_from([0.1, 0.3, 0.3, 0.5, 0.9, -0.5, 0.0])
    dets = draw(st.lists(st.tuples(where, found, score), min_size=1, max_size=30))
    negative, partial = (draw(st.lists(pair, max_size=4, unique=True)) for _ in range(2))
    gt = federated([(*p, b, m) for p, b, m in anns], negative, partial, (3, 1, 2)[:images], range(1, classes + 1))
    return gt, results(*((*w, b, s) for w, b, s in dets))
