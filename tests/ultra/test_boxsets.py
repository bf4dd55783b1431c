"""Comparing sets of boxes on made-up numbers: what passes, what does not, and what the border may decide."""

from dataclasses import replace

import numpy as np
import pytest

from yolo_lt.ultra.boxsets import Differences, Graph, compare

GRAPH = Graph("nms", 2, ((64, 64),), 1, 3, False, 0.25, 0.5, 300, False, 1e-4, 1e-4)
TRUTH = np.array(  # x1 y1 x2 y2, scores of two classes; anchors 0 and 1 overlap by 0.8, 2 stands alone, 3 is below conf
    [
        [0, 0, 10, 10, 0.9, 0.1],
        [0, 0, 10, 8, 0.8, 0.1],
        [30, 30, 40, 40, 0.2, 0.7],
        [50, 50, 60, 60, 0.2, 0.1],
    ],
    np.float32,
)
ROWS = np.array([[0, 0, 10, 10, 0.9, 0], [30, 30, 40, 40, 0.7, 1]], np.float32)


def run(rows, graph=GRAPH, truth=TRUTH):
    found = Differences()
    return compare([np.asarray(rows, np.float32)], [truth], graph, found), found


def ok(rows, graph=GRAPH, truth=TRUTH):
    fault, found = run(rows, graph, truth)
    return fault is None and found.within(graph, (64, 64))


def test_nms_rows_that_are_right_in_any_order_and_with_padding():
    assert ok(ROWS)
    assert ok(np.concatenate([ROWS[::-1], np.zeros((3, 6))]))
    fault, found = run(ROWS)
    assert (fault, found.boxes, found.score, found.box) == (None, 2, 0, 0)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROWS[:1], "leaves out a box of class 1 with score 0.7000"),
        (np.zeros((0, 6)), "leaves out a box of class 0 with score 0.9000"),
        ([*ROWS, TRUTH[1, [0, 1, 2, 3, 4, 4]] * [1, 1, 1, 1, 1, 0]], "class 0 under a better one"),
        ([*ROWS, [50, 50, 60, 60, 0.2, 0]], "below conf"),
        ([ROWS[0], [30, 30, 40, 40, 0.2, 0]], "below conf, or with another class"),
        ([ROWS[0], [30, 30, 40, 40, 0.7, 2]], "none of 0 to 1"),
        ([ROWS[0], [30, 30, 40, 40, 0.7, np.nan]], "none of 0 to 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nms_rows_that_are_wrong(rows, says):
    assert says in run(rows)[0]


def test_values_that_differ_are_found():
    for column, by in ((4, 2e-4), (0, 0.02), (4, np.nan), (3, np.nan)):
        rows = ROWS.copy()
        rows[1, column] += by
        assert not ok(rows), (column, by)
    assert not ok([ROWS[0], ROWS[0], ROWS[1]]), "a box twice"
    assert not ok([ROWS[0], [30, 30, 40, 40, 0.7, 0]]), "another class with the score of the right one"


def test_rounding_may_decide_at_the_border_of_conf_iou_and_the_last_row():
    at_conf = replace(GRAPH, conf=0.7)
    assert ok(ROWS, at_conf)
    assert ok(ROWS[:1], at_conf)
    at_iou = replace(GRAPH, iou=0.8)
    both = [*ROWS, [0, 0, 10, 8, 0.8, 0]]
    assert ok(ROWS, at_iou)
    assert ok(both, at_iou)
    assert not ok(both, replace(GRAPH, iou=0.75))
    assert not ok(ROWS, replace(GRAPH, iou=0.85))
    assert ok(ROWS[:1], replace(GRAPH, max_det=1))
    assert not ok(ROWS[1:], replace(GRAPH, max_det=1))


def test_agnostic_nms_and_classes_apart():
    truth = TRUTH.copy()
    truth[2, :4] = [0, 0, 10, 9]
    rows = ROWS.copy()
    rows[1, :4] = [0, 0, 10, 9]
    assert ok(rows, truth=truth)
    assert not ok(rows, replace(GRAPH, agnostic=True), truth)
    assert ok(rows[:1], replace(GRAPH, agnostic=True), truth)


def test_fast_nms_of_oriented_boxes_suppresses_by_candidates_that_are_not_kept():
    boxes = np.array([[32, 32, 20, 10], [34, 32, 20, 10], [36, 32, 20, 10]], np.float32)  # a hides b, b hides c
    truth = np.concatenate([boxes, [[0.9, 0], [0.8, 0], [0.7, 0]], np.zeros((3, 1))], 1).astype(np.float32)
    rows = truth[:, [0, 1, 2, 3, 4, 5, 6]]
    graph = replace(GRAPH, rotated=True, iou=0.75)
    assert ok(rows[:1], graph, truth), "fast NMS: b hides c though b is hidden"
    assert run(rows[[0, 2]], graph, truth)[0] == "it keeps a box of class 0 under a better one"
    assert ok(rows, replace(graph, iou=0.99), truth)


TOP = replace(GRAPH, kind="topk", max_det=3)
BEST = np.array([[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 8, 0.8, 0], [30, 30, 40, 40, 0.7, 1]], np.float32)


def test_top_rows():
    assert ok(BEST[[2, 0, 1]], TOP)
    assert "2 rows instead of 3" in run(BEST[:2], TOP)[0]
    wrong = BEST.copy()
    wrong[1] = [30, 30, 40, 40, 0.2, 0]  # an anchor's second class instead of a better anchor
    assert "leaves out a box of class 0 with score 0.8" in run(wrong, TOP)[0]


def test_ties_at_the_last_row_may_fall_either_way():
    truth = TRUTH.copy()
    truth[3, 5] = 0.69995
    other = BEST.copy()
    other[2] = [50, 50, 60, 60, 0.69995, 1]
    assert ok(other, TOP, truth)
    truth[3, 5] = other[2, 4] = 0.6995
    assert not ok(other, TOP, truth)


def test_raw_rows_are_compared_anchor_by_anchor():
    raw = replace(GRAPH, kind="raw")
    assert ok(TRUTH, raw)
    assert not ok(TRUTH[::-1], raw)
    assert "numbers instead of" in run(TRUTH[:, :5], raw)[0]


def test_prototypes_and_extra_columns_are_compared():
    truth = np.concatenate([TRUTH, np.ones((4, 1))], 1).astype(np.float32)
    rows = np.concatenate([ROWS, np.ones((2, 1))], 1).astype(np.float32)
    protos = np.full((2, 4, 4), 3, np.float32)
    for spoil in (lambda r, p: None, lambda r, p: r.__setitem__((0, 6), 1.1), lambda r, p: p.__setitem__((0, 0, 0), 4)):
        r, p, found = rows.copy(), protos.copy(), Differences()
        spoil(r, p)
        assert compare([r, p], [truth, protos], GRAPH, found) is None
        assert found.within(GRAPH, (64, 64)) == (found.other == 0)
    assert found.other == pytest.approx(1 / 3)
