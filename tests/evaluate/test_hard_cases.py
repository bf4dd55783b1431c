"""Confident false positives and missed objects per image, against a brute-force count."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.hard_cases import hard_cases

IMAGES, CLASSES = 4, 3


def truth(rows):
    """rows: (image, class, box)."""
    box = np.array([r[2] for r in rows], np.float64).reshape(-1, 4)
    return GroundTruth(
        image_ids=np.array([f"{i}.jpg" for i in range(IMAGES)]),
        category_ids=np.arange(CLASSES),
        names=tuple("abc"),
        image=np.array([r[0] for r in rows], np.int64),
        cls=np.array([r[1] for r in rows], np.int64),
        box=box,
        area=box[:, 2] * box[:, 3],
        crowd=np.zeros(len(rows), bool),
    )


def found(rows):
    """rows: (image, class, box, score)."""
    return Detections(
        np.array([r[0] for r in rows], np.int64),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float64).reshape(-1, 4),
        np.array([r[3] for r in rows], np.float64),
    )


def iou(a, b):
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def brute_force(gt, dets, missable, conf):
    """Greedy matching at IoU 0.5, one image and class after the other, best score first."""
    false, missed = [0] * IMAGES, [0] * IMAGES
    for image in range(IMAGES):
        for cls in range(CLASSES):
            free = [r[2] for r in gt if r[:2] == (image, cls)]
            shown = [r for r in dets if r[:2] == (image, cls) and r[3] >= conf]
            for r in sorted(shown, key=lambda r: -r[3]):
                best = max(free, key=lambda b: iou(r[2], b), default=None)
                if best is not None and iou(r[2], best) >= 0.5:
                    free.remove(best)
                else:
                    false[image] += 1
            if cls in missable:
                missed[image] += len(free)
    return false, missed


BOXES = st.tuples(
    st.sampled_from([0, 3, 7, 40]), st.sampled_from([0, 2, 9, 50]), st.just(20), st.sampled_from([17, 23])
)
PLACE = (st.integers(0, IMAGES - 1), st.integers(0, CLASSES - 1), BOXES)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*PLACE), max_size=12, unique=True),
    st.lists(st.tuples(*PLACE), max_size=14, unique=True),
    st.sets(st.integers(0, CLASSES - 1)),
    st.permutations(np.linspace(0.05, 0.95, 14).tolist()),
)
def test_equal_to_a_slow_count(gt, places, missable, scores):
    dets = [(*p, s) for p, s in zip(places, scores, strict=False)]
    false, missed = hard_cases(truth(gt), found(dets), np.array(sorted(missable), np.int64), conf=0.25)
    assert (false.tolist(), missed.tolist()) == brute_force(gt, dets, missable, 0.25)


A, B = (0, 0, 20, 20), (40, 40, 20, 20)


def test_what_counts_and_what_does_not():
    gt = [(0, 2, A), (0, 0, B), (1, 2, A), (2, 2, A)]
    dets = [
        (0, 2, A, 0.9),  # right
        (0, 0, A, 0.9),  # another object of the class is at B: a false positive, and class 0 is not missable
        (1, 2, A, 0.2),  # right, but not shown
        (2, 1, A, 0.3),  # the wrong class: a false positive and a missed tail object
        (3, 1, B, 0.25),  # an image without objects; the border of what is shown is inside
    ]
    false, missed = hard_cases(truth(gt), found(dets), np.array([2]))
    assert false.tolist() == [1, 0, 1, 1]
    assert missed.tolist() == [0, 1, 1, 0]
    assert false.dtype == missed.dtype == np.int64


def test_no_detection_and_no_truth():
    false, missed = hard_cases(truth([(1, 2, A)]), found([]), np.array([2]))
    assert (false.tolist(), missed.tolist()) == ([0] * 4, [0, 1, 0, 0])
    false, missed = hard_cases(truth([]), found([(0, 0, A, 0.9)]), np.array([2]))
    assert (false.tolist(), missed.tolist()) == ([1, 0, 0, 0], [0] * 4)


def test_hundreds_of_false_positives_are_all_counted():
    """No cap per image: COCO's 100 detections would make a crowded image look like any other."""
    dets = [(0, 1, (float(i), 0.0, 10.0, 10.0), 0.5) for i in range(300)]
    assert hard_cases(truth([(0, 2, B)]), found(dets), np.array([2]))[0].tolist() == [300, 0, 0, 0]


def test_turned_boxes_are_compared_as_they_lie():
    """Two long boxes that cross hardly overlap, though they are equal before they are turned."""
    box, angles = (10, 40, 80, 10), [np.pi / 4, -np.pi / 4]
    gt = replace(truth([(0, 2, box), (1, 2, box)]), angle=np.array(angles))
    dets = found([(0, 2, box, 0.9), (1, 2, box, 0.9)])
    for turned, expected in ((angles, [0, 0, 0, 0]), (angles[::-1], [1, 1, 0, 0])):
        false, missed = hard_cases(gt, replace(dets, angle=np.array(turned)), np.array([2]))
        assert (false.tolist(), missed.tolist()) == (expected, expected)
