import cv2
import numpy as np
import pytest
from coco_oracle import coco_arrays, random_case

from yolo_lt.errors import LTError
from yolo_lt.evaluate import evaluate, overlaps
from yolo_lt.evaluate.matching import match
from yolo_lt.evaluate.metrics import precision_recall
from yolo_lt.evaluate.read import read_detections, read_ground_truth


def turned_set(truth, found, crowd=False):
    """One image per pair of turned boxes (centre x, centre y, width, height, radians)."""
    gt = {
        "images": [{"id": i} for i in range(len(truth))],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "rbox": list(map(float, r)), "iscrowd": int(crowd)}
            for i, r in enumerate(truth)
        ],
    }
    dets = [{"image_id": i, "category_id": 1, "rbox": list(map(float, r)), "score": 0.5} for i, r in enumerate(found)]
    return gt, dets


def matches_of(gt, dets, max_det=100):
    truth = read_ground_truth(gt)
    return match(truth, read_detections(dets, truth), max_det)


def iou_of(truth, found):
    """IoU of every pair, 0 below one half."""
    m = matches_of(*turned_set(truth, found))
    iou = np.zeros(len(truth))
    iou[m.image] = m.iou
    return iou


def corners(r):
    """By the half axes: centre, and the directions of width and height."""
    u, v = r[2] / 2 * np.array([np.cos(r[4]), np.sin(r[4])]), r[3] / 2 * np.array([-np.sin(r[4]), np.cos(r[4])])
    return np.array(r[:2]) + np.array([-u - v, u - v, u + v, v - u])


def clipped_iou(a, b):
    """IoU by cutting polygon a with the sides of b (Sutherland and Hodgman), and the shoelace formula."""
    polygon, knife = list(corners(a)), corners(b)
    for p, q in zip(knife, np.roll(knife, -1, axis=0), strict=True):
        side = [(q[0] - p[0]) * (s[1] - p[1]) - (q[1] - p[1]) * (s[0] - p[0]) for s in polygon]
        cut = []
        for k, s in enumerate(polygon):
            if side[k - 1] * side[k] < 0:
                cut.append(polygon[k - 1] + (s - polygon[k - 1]) * side[k - 1] / (side[k - 1] - side[k]))
            if side[k] >= 0:
                cut.append(s)
        polygon = cut
    x, y = np.array(polygon).reshape(-1, 2).T
    inter = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def close_pairs(seed, count=400):
    rng = np.random.default_rng(seed)
    truth = np.c_[rng.uniform(50, 400, (count, 2)), rng.uniform(10, 120, (count, 2)), rng.uniform(-7, 7, count)]
    found = truth + np.c_[truth[:, [2, 3, 2, 3]] * rng.normal(0, 0.08, (count, 4)), rng.normal(0, 0.15, count)]
    return truth, found


@pytest.mark.parametrize("seed", range(3))
def test_iou_equals_that_of_polygons_clipped_by_hand(seed):
    truth, found = close_pairs(seed)
    theirs = np.array([clipped_iou(a, b) for a, b in zip(truth, found, strict=True)])
    np.testing.assert_allclose(iou_of(truth, found), np.where(theirs >= 0.5, theirs, 0), atol=1e-10, rtol=0)
    assert 100 < (theirs >= 0.5).sum() < 400


def test_iou_equals_that_of_opencv_as_far_as_its_single_precision_goes():
    truth, found = close_pairs(9)
    ours, theirs = iou_of(truth, found), []
    for a, b in zip(truth, found, strict=True):
        _, shape = cv2.rotatedRectangleIntersection(*((r[:2], r[2:4], np.degrees(r[4])) for r in (a, b)))
        inter = cv2.contourArea(cv2.convexHull(shape))
        theirs.append(inter / (a[2] * a[3] + b[2] * b[3] - inter))
    seen = ours > 0
    np.testing.assert_allclose(ours[seen], np.array(theirs)[seen], atol=2e-3)
    assert (np.array(theirs)[~seen] < 0.502).all()
    assert seen.sum() > 100


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 137, -400])
def test_turning_both_boxes_alike_keeps_their_iou(degrees):
    by = np.radians(degrees)
    turn = np.array([[np.cos(by), -np.sin(by)], [np.sin(by), np.cos(by)]])
    found = [*(turn @ [2, 0]), 10, 6, by]  # of 10 x 6 boxes 2 apart along their width, 8 / 12 overlap
    assert iou_of([[0, 0, 10, 6, by]], [found]) == pytest.approx([2 / 3], abs=1e-12)


def test_the_angle_turns_from_x_towards_y():
    truth = [[0, 0, 100, 10, np.pi / 6]]
    centres = [(40 * np.cos(a), 40 * np.sin(a)) for a in (np.pi / 6, -np.pi / 6)]
    along = [[*c, 20, 10, np.pi / 6] for c in centres]
    m = [matches_of(*turned_set(truth, [b], crowd=True)).ignore.all() for b in along]
    assert m == [True, False]


def test_half_a_turn_changes_nothing_and_a_quarter_turn_swaps_the_sides():
    truth, found = close_pairs(4, 100)
    expected = iou_of(truth, found)
    assert (expected > 0.5).sum() > 30
    quarter = np.array([0, 0, 0, 0, np.pi / 2])
    np.testing.assert_allclose(iou_of(truth + 2 * quarter, found), expected, atol=1e-10)
    np.testing.assert_allclose(iou_of(truth, found[:, [0, 1, 3, 2, 4]] + quarter), expected, atol=1e-10)
    assert not np.allclose(iou_of(truth, found + quarter), expected, atol=0.1)


def as_turned(gt, dets):
    """The same boxes with an angle of zero."""

    def row(r):
        x, y, w, h = r["bbox"]
        return {k: v for k, v in r.items() if k != "bbox"} | {"rbox": [x + w / 2, y + h / 2, w, h, 0.0]}

    return {**gt, "annotations": list(map(row, gt["annotations"]))}, list(map(row, dets))


@pytest.mark.parametrize("seed", range(3))
def test_boxes_that_are_turned_by_nothing_are_matched_as_upright_ones(seed):
    gt, dets = random_case(seed, images=20, per_image=30, classes=3, crowd=0.2)
    upright, turned = matches_of(gt, dets, 20), matches_of(*as_turned(gt, dets), 20)
    np.testing.assert_array_equal(turned.tp, upright.tp)
    np.testing.assert_array_equal(turned.ignore, upright.ignore)
    np.testing.assert_allclose(turned.iou, upright.iou, atol=1e-12)
    assert upright.tp.any()
    assert upright.ignore.any()
    np.testing.assert_allclose(precision_recall(turned)[0], coco_arrays(gt, dets, 20)[0], atol=1e-12)


def test_pairs_in_small_chunks_change_nothing(monkeypatch):
    case = as_turned(*random_case(5, images=10, per_image=20, classes=2))
    whole = matches_of(*case)
    monkeypatch.setattr(overlaps, "PAIR_CHUNK", 7)
    np.testing.assert_array_equal(matches_of(*case).tp, whole.tp)


@pytest.mark.parametrize("angle", [0, 0.7])
@pytest.mark.parametrize("size", [(0, 10), (10, 0), (0, 0), (-5, 10), (10, -4), (-10, -10), (1e-200, 1e-200)])
def test_a_box_without_size_never_matches(size, angle):
    sound, flat = [5, 5, 10, 10, angle], [5, 5, *size, angle]
    for truth, found in ((sound, flat), (flat, sound), (flat, flat)):
        assert not matches_of(*turned_set([truth], [found])).tp.any()
    assert not matches_of(*turned_set([sound], [flat], crowd=True)).iou.any()
    assert matches_of(*turned_set([sound], [sound])).tp.all()


def test_a_turned_crowd_takes_what_lies_in_it():
    truth = [[0, 0, 100, 20, np.pi / 4]] * 3
    found = [[20, 20, 10, 10, 0.3], [20, -20, 10, 10, 0.3], [0, 0, 100, 20, np.pi / 4]]
    m = matches_of(*turned_set(truth, found, crowd=True))
    assert m.ignore[:, 0].tolist() == [True, False, True]
    assert not m.tp.any()


def test_turned_boxes_from_file_to_report():
    truth, found = close_pairs(6, 60)
    gt, dets = turned_set(truth, found)
    theirs = np.array([clipped_iou(a, b) for a, b in zip(truth, found, strict=True)])
    report = evaluate(gt, dets, bootstrap=20).to_json()
    assert report["iou_type"] == "rotated box"
    recall = np.mean([(theirs >= t).mean() for t in report["iou_thresholds"]])
    assert report["metrics"]["all"]["AR"] == pytest.approx(recall)
    assert report["operating_point"]["all"]["n_right"] == (theirs >= 0.5).sum()
    assert report["box_quality"]["all"]["mean_iou"] == pytest.approx(theirs[theirs >= 0.5].mean())
    low, high = report["metrics"]["all"]["ci95"]["AP"]
    assert low < report["metrics"]["all"]["AP"] < high
    upright = [{**d, "rbox": [*d["rbox"][:4], 0.0]} for d in dets]
    assert evaluate(gt, upright, bootstrap=0).metrics["all"]["AP"] < report["metrics"]["all"]["AP"] / 2


def test_the_area_of_a_turned_box_is_width_times_height_unless_given():
    gt, dets = turned_set([[50, 50, 20, 20, 0.5], [50, 50, 20, 20, 0.5]], [[50, 50, 20, 20, 0.5]] * 2)
    gt["annotations"][1]["area"] = 5000.0
    areas = evaluate(gt, dets, bootstrap=0, explain=False).to_json()["areas"]
    assert {a: areas[a]["all"]["n_gt"] for a in areas} == {"small": 1, "medium": 1, "large": 0}


def test_boxes_in_two_forms_are_refused():
    gt, dets = turned_set([[5, 5, 10, 10, 0]], [[5, 5, 10, 10, 0]])
    upright = [{"image_id": 0, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}]
    with pytest.raises(LTError, match="the ground truth alone has turned boxes"):
        evaluate(gt, upright, bootstrap=0)
    boxed = {**gt, "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 10, 10]}]}
    with pytest.raises(LTError, match=r"the detections alone ha\w+ turned boxes"):
        evaluate(boxed, dets, bootstrap=0)
