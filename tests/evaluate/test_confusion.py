import json

import numpy as np
import pytest
from coco_oracle import dataset, matches_of, random_case, results

from yolo_lt.evaluate.confusion import confusion
from yolo_lt.evaluate.operating import shown_per_image
from yolo_lt.evaluate.protocols import coco, lvis
from yolo_lt.evaluate.read import read_detections, read_ground_truth

BOX, FAR, AWAY = (0, 0, 10, 10), (100, 100, 10, 10), (300, 300, 10, 10)
HALF, TENTH = (0, 0, 10, 5), (0, 0, 10, 1)  # IoU with BOX
BINS = {"head": np.array([0]), "medium": np.array([1]), "tail": np.array([2, 3]), "unseen": np.array([], int)}
IDS = (10, 20, 30, 40)  # categories of `BINS`


def confused(gt, dets, conf=0.25, bins=BINS, choose=coco.choose):
    truth = read_ground_truth(gt)
    truth, found, _ = choose(truth, read_detections(dets, truth), 0)
    return confusion(truth, found, bins, conf)


def row(found, name):
    """n_gt, found, what is taken for which bin, missed."""
    of_bin = found["rows"][name]
    return of_bin["n_gt"], of_bin["found"], {k: n for k, n in of_bin["as"].items() if n}, of_bin["missed"]


def truth_of(*boxes):
    return dataset([(1, *b) for b in boxes], categories=IDS)


def random_boxes(seed, crowd=0.1):
    """Eight classes in three bins; most detections have another class than the box they come from."""
    gt, dets = random_case(seed, images=60, per_image=12, classes=8, boxes=6, crowd=crowd)
    rng = np.random.default_rng(seed)
    for det in dets:
        if rng.random() < 0.8:
            det["category_id"] = int(rng.integers(1, 9))
    return gt, dets


THREE = {"head": np.arange(3), "medium": np.arange(3, 5), "tail": np.arange(5, 8)}


def test_a_box_is_found_or_taken_for_something_or_missed():
    gt = truth_of((10, BOX), (20, FAR), (30, AWAY))
    found = confused(gt, results((1, 10, BOX, 0.9), (1, 30, FAR, 0.8)))
    assert row(found, "head") == (1, 1, {}, 0)
    assert row(found, "medium") == (1, 0, {"tail": 1}, 0)
    assert row(found, "tail") == (1, 0, {}, 1)
    assert row(found, "unseen") == (0, 0, {}, 0)
    assert found["worst_pairs"] == [{"true": 20, "taken_for": 30, "count": 1, "n_gt": 1}]
    assert (found["conf"], found["iou"]) == (0.25, 0.5)


def test_another_class_of_the_own_bin_is_a_confusion_too():
    assert row(confused(truth_of((30, BOX)), results((1, 40, BOX, 0.9))), "tail") == (1, 0, {"tail": 1}, 0)


def test_an_iou_of_one_half_is_enough_and_less_is_not():
    assert row(confused(truth_of((10, BOX)), results((1, 20, HALF, 0.9))), "head") == (1, 0, {"medium": 1}, 0)
    found = confused(truth_of((10, BOX)), results((1, 20, (0, 0, 10, 4.9), 0.9)))
    assert row(found, "head") == (1, 0, {}, 1)


def test_a_box_that_is_found_is_not_taken_for_anything_else():
    found = confused(truth_of((10, BOX)), results((1, 10, HALF, 0.3), (1, 20, BOX, 0.9)))
    assert row(found, "head") == (1, 1, {}, 0)
    assert found["worst_pairs"] == []


def test_a_detection_that_is_right_answers_for_its_own_box_alone():
    gt = truth_of((10, BOX), (20, BOX))
    found = confused(gt, results((1, 20, BOX, 0.9)))
    assert row(found, "head") == (1, 0, {}, 1)
    found = confused(gt, results((1, 20, BOX, 0.9), (1, 20, BOX, 0.8)))  # the duplicate does
    assert row(found, "head") == (1, 0, {"medium": 1}, 0)


def test_the_best_score_tells_what_a_box_is_taken_for_and_of_equal_ones_the_closest():
    gt = truth_of((10, BOX))
    assert row(confused(gt, results((1, 20, BOX, 0.5), (1, 30, HALF, 0.9))), "head") == (1, 0, {"tail": 1}, 0)
    assert row(confused(gt, results((1, 30, HALF, 0.9), (1, 20, BOX, 0.9))), "head") == (1, 0, {"medium": 1}, 0)
    assert row(confused(gt, results((1, 30, BOX, 0.9), (1, 20, BOX, 0.9))), "head") == (1, 0, {"tail": 1}, 0)


def test_one_wrong_detection_may_be_the_answer_to_several_boxes():
    found = confused(truth_of((10, BOX), (30, BOX)), results((1, 20, BOX, 0.9)))
    assert row(found, "head") == (1, 0, {"medium": 1}, 0)
    assert row(found, "tail") == (1, 0, {"medium": 1}, 0)
    assert found["false_positives"]["medium"]["on_other_class"] == 1


@pytest.mark.parametrize(("conf", "shown"), [(0.5, True), (0.51, False), (np.array([0, 0.5, 1, 1]), True)])
def test_only_detections_from_the_confidence_of_their_class_on_are_shown(conf, shown):
    found = confused(truth_of((10, BOX)), results((1, 20, BOX, 0.5), (1, 30, BOX, 0.9)) if np.ndim(conf) else
                     results((1, 20, BOX, 0.5)), conf)  # fmt: skip
    assert row(found, "head") == (1, 0, {"medium": 1} if shown else {}, int(not shown))
    assert found["conf"] == (None if np.ndim(conf) else conf)


def test_a_detection_that_is_not_shown_takes_no_box():
    found = confused(truth_of((10, BOX)), results((1, 10, BOX, 0.2), (1, 20, BOX, 0.3)))
    assert row(found, "head") == (1, 0, {"medium": 1}, 0)


@pytest.mark.parametrize(
    ("category", "box", "place"),
    [
        (20, BOX, "on_other_class"),
        (20, HALF, "on_other_class"),
        (20, (0, 0, 10, 4.9), "duplicate_or_misplaced"),
        (10, BOX, "duplicate_or_misplaced"),
        (10, (0, 0, 10, 4.9), "duplicate_or_misplaced"),
        (10, TENTH, "on_background"),
        (20, FAR, "on_background"),
    ],
)
def test_where_a_wrong_detection_lies(category, box, place):
    found = confused(truth_of((10, BOX)), results((1, 10, BOX, 0.9), (1, category, box, 0.8)))
    name = {10: "head", 20: "medium"}[category]
    places = ("on_other_class", "duplicate_or_misplaced", "on_background")
    nothing = {b: dict.fromkeys(places, 0) for b in BINS}
    assert found["false_positives"] == nothing | {name: dict.fromkeys(places, 0) | {place: 1}}


def test_crowds_and_ignored_boxes_are_no_objects_and_excuse_detections_of_their_class():
    gt = truth_of((10, (0, 0, 100, 100), {"iscrowd": 1}), (20, BOX))
    found = confused(gt, results((1, 10, BOX, 0.9)))
    assert row(found, "head") == (0, 0, {}, 0)
    assert row(found, "medium") == (1, 0, {}, 1)
    assert not any(found["false_positives"]["head"].values())
    truth = read_ground_truth(truth_of((10, BOX, {"ignore": 1}), (20, BOX)))
    found = confusion(truth, read_detections(results((1, 10, BOX, 0.9), (1, 10, BOX, 0.8)), truth), BINS, 0.25)
    assert row(found, "head") == (0, 0, {}, 0)
    assert row(found, "medium") == (1, 0, {"head": 1}, 0)  # the second one: an ignored box is taken once
    assert sum(found["false_positives"]["head"].values()) == 1


def test_federated_labels_neither_count_what_nobody_looked_for_nor_what_may_be_an_object_without_a_box():
    gt = truth_of((10, BOX), (20, FAR), (30, AWAY))
    gt["images"][0] |= {"neg_category_ids": [], "not_exhaustive_category_ids": [20]}
    dets = results((1, 40, BOX, 0.9), (1, 20, BOX, 0.8), (1, 20, FAR, 0.7), (1, 20, AWAY, 0.6))
    found = confused(gt, dets, choose=lvis.choose)
    assert [row(found, b) for b in ("head", "medium", "tail")] == [(1, 0, {}, 1), (1, 1, {}, 0), (1, 0, {}, 1)]
    assert sum(n for counts in found["false_positives"].values() for n in counts.values()) == 0
    gt["images"][0] |= {"neg_category_ids": [40], "not_exhaustive_category_ids": []}
    found = confused(gt, dets, choose=lvis.choose)
    assert [row(found, b)[2] for b in ("head", "tail")] == [{"tail": 1}, {"medium": 1}]


def test_the_worst_pairs_are_those_with_most_boxes_then_with_the_largest_share():
    spots = [(i * 50, 0, 10, 10) for i in range(10)]
    kinds = (10, 10, 10, 10, 20, 20, 30, 30, 40, 40)
    taken_for = (20, 20, 30, None, 10, 10, 10, 20, 10, 20)
    gt = truth_of(*zip(kinds, spots, strict=True))
    dets = results(*[(1, c, s, 0.9) for c, s in zip(taken_for, spots, strict=True) if c])
    pairs = [tuple(p.values()) for p in confused(gt, dets)["worst_pairs"]]
    assert pairs == [
        (20, 10, 2, 2), (10, 20, 2, 4), (30, 10, 1, 2), (30, 20, 1, 2), (40, 10, 1, 2), (40, 20, 1, 2), (10, 30, 1, 4),
    ]  # fmt: skip


def test_at_most_twenty_pairs_are_listed():
    ids = range(1, 31)
    gt = dataset([(1, c, (c * 50, 0, 10, 10)) for c in ids], categories=ids)
    dets = results(*[(1, c % 30 + 1, (c * 50, 0, 10, 10), 0.9) for c in ids])
    found = confused(gt, dets, bins={})
    assert found["rows"] == {"all": {"n_gt": 30, "found": 0, "as": {"all": 30}, "missed": 0}}
    assert [p["true"] for p in found["worst_pairs"]] == list(range(1, 21))


@pytest.mark.parametrize("seed", range(5))
def test_every_row_adds_up_and_everything_is_a_plain_number(seed):
    found = confused(*random_boxes(seed), 0.3, THREE)
    for of_bin in found["rows"].values():
        assert of_bin["n_gt"] == of_bin["found"] + sum(of_bin["as"].values()) + of_bin["missed"]
    confusions = sum(n for of_bin in found["rows"].values() for n in of_bin["as"].values())
    assert confusions >= sum(p["count"] for p in found["worst_pairs"]) > 20
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("conf", [0, 0.4, np.linspace(0.1, 0.8, 8)])
def test_found_boxes_and_false_positives_are_those_of_the_operating_point(conf):
    gt, dets = random_boxes(7)
    found, matches = confused(gt, dets, conf, THREE), matches_of(gt, dets)
    for name, classes in THREE.items():
        right, shown, boxes = shown_per_image(matches, classes, conf).sum(axis=1)
        assert (found["rows"][name]["n_gt"], found["rows"][name]["found"]) == (boxes, right)
        assert sum(found["false_positives"][name].values()) == shown - right


def iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def one_by_one(gt, dets, conf):
    """What every box is found as, taken for or missed (0), by loops over an image's boxes, best score first."""
    answers = []
    for image in [row["id"] for row in gt["images"]]:
        boxes = [a for a in gt["annotations"] if a["image_id"] == image]
        shown = [d for d in dets if d["image_id"] == image and d["score"] >= conf]
        shown.sort(key=lambda d: -d["score"])
        taken, wrong = {}, []
        for d in shown:
            free = [i for i, a in enumerate(boxes) if a["category_id"] == d["category_id"] and i not in taken]
            fit = max(free, key=lambda i: iou(d["bbox"], boxes[i]["bbox"]), default=None)
            if fit is not None and iou(d["bbox"], boxes[fit]["bbox"]) >= 0.5:
                taken[fit] = d
            else:
                wrong.append(d)
        for i, a in enumerate(boxes):
            others = [d for d in wrong if d["category_id"] != a["category_id"] and iou(d["bbox"], a["bbox"]) >= 0.5]
            answer = taken[i] if i in taken else others[0] if others else {"category_id": 0}
            answers.append((a["category_id"], answer["category_id"]))
    return answers


@pytest.mark.parametrize("seed", range(8))
def test_equals_a_plain_loop_over_boxes(seed):
    gt, dets = random_boxes(seed, crowd=0)
    for rank, i in enumerate(np.random.default_rng(seed).permutation(len(dets))):
        dets[i]["score"] = rank / len(dets)
        dets[i]["bbox"][2:] = [max(v, 1) for v in dets[i]["bbox"][2:]]
    found, answers = confused(gt, dets, 0.3, THREE), one_by_one(gt, dets, 0.3)
    bin_of = {c + 1: name for name, classes in THREE.items() for c in classes.tolist()}
    for name in THREE:
        of_bin = [(t, a) for t, a in answers if bin_of[t] == name]
        others = [bin_of[a] for t, a in of_bin if a not in (0, t)]
        expected = sum(t == a for t, a in of_bin), {b: others.count(b) for b in set(others)}
        assert row(found, name) == (len(of_bin), *expected, sum(a == 0 for _, a in of_bin))
    for pair in found["worst_pairs"]:
        assert answers.count((pair["true"], pair["taken_for"])) == pair["count"]


def test_the_order_of_the_input_changes_nothing():
    gt, dets = random_boxes(3)
    rng = np.random.default_rng(0)
    for rank, i in enumerate(rng.permutation(len(dets))):
        dets[i]["score"] = rank / len(dets)
    expected = confused(gt, dets, 0.3, THREE)
    gt["annotations"] = [gt["annotations"][i] for i in rng.permutation(len(gt["annotations"]))]
    assert confused(gt, [dets[i] for i in rng.permutation(len(dets))], 0.3, THREE) == expected


def test_turned_boxes_and_unlisted_categories():
    gt = truth_of((10, BOX))
    gt["annotations"][0]["rbox"] = [5, 5, 10, 4, 0.7]
    turned = [{"image_id": 1, "category_id": c, "rbox": [5, 5, 10, 4, 0.7], "score": 0.9} for c in (99, 20)]
    assert row(confused(gt, turned), "head") == (1, 0, {"medium": 1}, 0)
    turned[1]["rbox"][4] += np.pi / 2
    assert row(confused(gt, turned), "head") == (1, 0, {}, 1)


@pytest.mark.parametrize("gt", [dataset([], images=(), categories=()), dataset([]), dataset([], images=())])
def test_nothing_at_all_confuses_nothing(gt):
    found = confused(gt, results((1, 1, BOX, 0.9)) if gt["images"] else [], bins={})
    assert found["rows"] == {"all": {"n_gt": 0, "found": 0, "as": {"all": 0}, "missed": 0}}
    assert found["worst_pairs"] == []
