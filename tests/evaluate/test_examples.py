import itertools
import json

import lvis_oracle
import numpy as np
import pytest
from coco_oracle import cases, dataset, random_case, results
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.errors import UsageError
from yolo_lt.evaluate import evaluate

BOX, FAR, AWAY = (0, 0, 10, 10), (100, 100, 10, 10), (300, 300, 10, 10)
HALF = (0, 0, 10, 5)  # IoU 0.5 with BOX
IDS = (10, 20, 30, 40)
BINS = {"head": [10], "medium": [20], "tail": [30, 40]}


def report_of(gt, dets, bins=BINS, most=9, conf=0.25, protocol="coco", **kw):
    report = evaluate(gt, dets, protocol, bins, bootstrap=0, conf=conf, examples=most, **kw).to_json()
    return json.loads(json.dumps(report, allow_nan=False))


def examples_of(gt, dets, **kw):
    return report_of(gt, dets, **kw)["examples"]


def truth_of(*boxes, images=(1,)):
    """From tuples (category, box[, extra fields]), all in image 1."""
    return dataset([(1, *b) for b in boxes], images, IDS)


def spots(count, side=10):
    return [(i * 50, 0, side, side) for i in range(count)]


def seen(entry):
    """What is shown of a class: outcome, what it is taken for, and where."""
    return [(o["outcome"], o["taken_for"], tuple(o["box"])) for o in entry["shown"]]


def test_an_object_of_each_outcome_with_everything_that_a_picture_needs():
    gt = dataset([(7, 30, BOX), (3, 30, FAR), (5, 30, AWAY), (3, 10, BOX)], (7, 3, 5), IDS)
    dets = results((3, 10, (100, 100, 10, 8), 0.8), (7, 30, HALF, 0.6), (5, 30, AWAY, 0.2), (3, 10, BOX, 0.7))
    assert examples_of(gt, dets) == [
        {
            "id": 30,
            "n_gt": 3,
            "found": 1,
            "confused": 1,
            "missed": 1,
            "shown": [
                {
                    "image": 0,
                    "image_id": 3,
                    "outcome": "confused",
                    "taken_for": 10,
                    "score": 0.8,
                    "iou": pytest.approx(0.8),
                    "box": [100, 100, 10, 10],
                    "detection": [100, 100, 10, 8],
                },
                {
                    "image": 1,
                    "image_id": 5,
                    "outcome": "missed",
                    "taken_for": None,
                    "score": None,
                    "iou": None,
                    "box": [300, 300, 10, 10],
                    "detection": None,
                },
                {
                    "image": 2,
                    "image_id": 7,
                    "outcome": "found",
                    "taken_for": None,
                    "score": 0.6,
                    "iou": pytest.approx(0.5),
                    "box": [0, 0, 10, 10],
                    "detection": [0, 0, 10, 5],
                },
            ],
        }
    ]


def test_they_are_left_out_unless_asked_for_and_change_nothing_else():
    case = random_case(2, images=30, per_image=12, classes=4)
    bins = {"head": [1, 2], "tail": [3, 4]}
    without, asked = (report_of(*case, bins, most) for most in (0, 3))
    assert without["examples"] is None
    assert asked.pop("examples")
    without.pop("examples")
    assert asked == without
    keys = list(report_of(*case, bins, 1))
    assert keys[keys.index("errors") + 1] == "examples"


def test_they_do_not_need_the_reasons():
    case = random_case(2, images=30, per_image=12, classes=4)
    bins = {"head": [1, 2], "tail": [3, 4]}
    alone = report_of(*case, bins, 2, explain=False)
    assert alone["errors"] is None
    assert len(alone["examples"]) == 2
    assert alone["examples"] == examples_of(*case, bins=bins, most=2)


@pytest.mark.parametrize("number", [-1, 2.5, True, None, "3"])
def test_a_number_of_classes_that_is_none(number):
    with pytest.raises(UsageError, match="examples="):
        evaluate(truth_of((30, BOX)), [], bins=BINS, bootstrap=0, examples=number)


def test_the_class_with_the_lowest_ap50_comes_first():
    """Class 30 is found as well as 40, but with a wrong detection above it."""
    gt = truth_of((40, BOX), (30, FAR))
    dets = results((1, 40, BOX, 0.9), (1, 30, AWAY, 0.9), (1, 30, FAR, 0.8))
    assert [e["id"] for e in examples_of(gt, dets)] == [30, 40]
    dets[0]["bbox"], dets[0]["score"] = list(AWAY), 0.3
    assert [e["id"] for e in examples_of(gt, dets)] == [40, 30]
    assert [e["id"] for e in examples_of(gt, dets, most=1)] == [40]


def test_of_equal_ap50_the_class_with_more_boxes_not_found_comes_first_then_the_order_of_ids():
    gt = truth_of((40, BOX), (40, FAR), (30, AWAY))
    assert [e["id"] for e in examples_of(gt, [])] == [40, 30]
    gt = truth_of((40, BOX), (40, FAR), (30, BOX), (30, FAR))
    assert [e["id"] for e in examples_of(gt, [])] == [30, 40]
    low = results(*((1, c, b, 0.1) for c in (30, 40) for b in (BOX, FAR)))
    low[0]["score"] = 0.9  # found from the confidence on; AP50 is 1 for both
    assert [e["id"] for e in examples_of(gt, low)] == [40, 30]


def test_bins_with_ids_in_no_order():
    assert [e["id"] for e in examples_of(truth_of((30, BOX), (40, FAR)), [], bins={"tail": [40, 30]})] == [30, 40]


def test_only_the_tail_is_asked_for():
    gt = truth_of((10, BOX), (20, FAR), (40, AWAY))
    assert [e["id"] for e in examples_of(gt, [])] == [40]


@pytest.mark.parametrize("bins", [None, {"head": [10], "tail": [30]}, {"head": [10]}, {}])
def test_without_a_tail_that_has_ground_truth_all_classes_are_asked_for(bins):
    gt = truth_of((10, BOX), (20, FAR), (20, AWAY))
    assert [e["id"] for e in examples_of(gt, results((1, 30, BOX, 0.9)), bins=bins)] == [20, 10]


def test_a_tail_of_crowds_has_no_ground_truth():
    gt = truth_of((10, BOX), (30, FAR, {"iscrowd": 1}))
    assert [e["id"] for e in examples_of(gt, [])] == [10]


def test_without_ground_truth_the_list_is_empty():
    assert examples_of(truth_of(), results((1, 30, BOX, 0.9))) == []
    assert examples_of({"images": [], "categories": [], "annotations": []}, [], bins=None) == []


def test_four_objects_at_most_and_every_outcome_that_occurs():
    """Five confused, three missed and three found boxes: two, one and one are shown."""
    places = spots(11)
    gt = truth_of(*((30, b) for b in places))
    dets = results(*((1, 10, b, 0.5) for b in places[:5]), *((1, 30, b, 0.9) for b in places[8:]))
    (entry,) = examples_of(gt, dets)
    assert [entry[k] for k in ("n_gt", "found", "confused", "missed")] == [11, 3, 5, 3]
    assert seen(entry) == [
        ("confused", 10, places[0]),
        ("confused", 10, places[1]),
        ("missed", None, places[5]),
        ("found", None, places[8]),
    ]


@pytest.mark.parametrize(
    ("confused", "missed", "found", "shown"),
    [
        (9, 0, 0, (4, 0, 0)),
        (0, 9, 0, (0, 4, 0)),
        (0, 0, 9, (0, 0, 4)),
        (9, 9, 0, (3, 1, 0)),
        (0, 9, 9, (0, 3, 1)),
        (9, 0, 9, (3, 0, 1)),
        (1, 9, 9, (1, 2, 1)),
        (1, 1, 9, (1, 1, 2)),
        (1, 1, 1, (1, 1, 1)),
        (0, 1, 9, (0, 1, 3)),
    ],
)
def test_what_fills_the_places(confused, missed, found, shown):
    places = spots(confused + missed + found)
    gt = truth_of(*((30, b) for b in places))
    dets = results(
        *((1, 10, b, 0.5) for b in places[:confused]), *((1, 30, b, 0.5) for b in places[confused + missed :])
    )
    (entry,) = examples_of(gt, dets)
    outcomes = [o["outcome"] for o in entry["shown"]]
    assert outcomes == [name for name, n in zip(("confused", "missed", "found"), shown, strict=True) for _ in range(n)]


def test_of_confused_ones_the_best_scores_and_every_other_class_before_the_second_of_one():
    places = spots(6)
    gt = truth_of(*((30, b) for b in places))
    taken_for, scores = (10, 10, 20, 10, 40, 40), (0.9, 0.8, 0.4, 0.95, 0.3, 0.35)
    dets = results(*((1, c, b, s) for c, b, s in zip(taken_for, places, scores, strict=True)))
    (entry,) = examples_of(gt, dets)
    assert seen(entry) == [("confused", c, places[i]) for c, i in ((10, 3), (20, 2), (40, 5), (10, 0))]
    assert [o["score"] for o in entry["shown"]] == [0.95, 0.4, 0.35, 0.9]


def test_of_missed_ones_the_largest_by_the_area_of_the_annotation():
    gt = truth_of(*((30, b, {"area": a}) for b, a in zip(spots(6), (3, 9, 1, 7, 7, 8), strict=True)))
    (entry,) = examples_of(gt, [])
    assert seen(entry) == [("missed", None, spots(6)[i]) for i in (1, 5, 3, 4)]


def test_of_found_ones_those_with_the_best_detection():
    places = spots(6)
    dets = results(*((1, 30, b, s) for b, s in zip(places, (0.3, 0.5, 0.9, 0.4, 0.9, 0.8), strict=True)))
    (entry,) = examples_of(truth_of(*((30, b) for b in places)), dets)
    assert seen(entry) == [("found", None, places[i]) for i in (2, 4, 5, 1)]


def test_equal_ones_stand_by_image_then_as_in_the_file():
    gt = dataset([(i, 30, b) for i in (4, 2, 3) for b in (FAR, BOX)], (4, 2, 3), IDS)
    (entry,) = examples_of(gt, [])
    assert [(o["image"], o["image_id"], tuple(o["box"])) for o in entry["shown"]] == [
        (0, 2, FAR), (0, 2, BOX), (1, 3, FAR), (1, 3, BOX),
    ]  # fmt: skip


def test_crowds_and_ignored_boxes_are_never_shown():
    gt = truth_of((30, BOX, {"iscrowd": 1}), (30, FAR))
    (entry,) = examples_of(gt, results((1, 30, BOX, 0.9)))
    assert (entry["n_gt"], seen(entry)) == (1, [("missed", None, FAR)])
    gt = lvis_oracle.federated([(1, 1, BOX, {"ignore": 1}), (1, 1, FAR)], [(1, 2)])
    dets = results((1, 1, BOX, 0.9), (1, 2, FAR, 0.8))
    (entry,) = examples_of(gt, dets, bins={"tail": [1]}, protocol="lvis")
    assert (entry["n_gt"], seen(entry)) == (1, [("confused", 2, FAR)])


@pytest.mark.parametrize(
    ("threshold", "outcome"), [((0, 0, 0.5, 1), "found"), ((0.6, 1, 0.51, 1), "confused"), ((0.61, 1, 1, 1), "missed")]
)
def test_every_class_has_a_confidence_of_its_own(threshold, outcome):
    dets = results((1, 30, BOX, 0.5), (1, 10, BOX, 0.6), (1, 20, BOX, 0.9))
    (entry,) = examples_of(truth_of((30, BOX)), dets, conf=np.array(threshold))
    assert [o["outcome"] for o in entry["shown"]] == [outcome]
    expected = {"found": (None, 0.5), "confused": (10, 0.6), "missed": (None, None)}[outcome]
    assert tuple(entry["shown"][0][k] for k in ("taken_for", "score")) == expected


def test_the_best_score_tells_which_detection_is_shown_and_of_equal_ones_the_closest():
    for scores, taken_for, iou in (((0.9, 0.5), 10, 0.5), ((0.9, 0.9), 20, 1)):
        dets = results(*((1, c, b, s) for c, b, s in zip((10, 20), (HALF, BOX), scores, strict=True)))
        (entry,) = examples_of(truth_of((30, BOX)), dets)
        assert [entry["shown"][0][k] for k in ("taken_for", "iou")] == [taken_for, pytest.approx(iou)]


def test_a_found_box_is_shown_with_the_detection_that_takes_it_not_with_a_closer_one():
    dets = results((1, 30, BOX, 0.5), (1, 30, HALF, 0.9), (1, 10, BOX, 0.95))
    (entry,) = examples_of(truth_of((30, BOX)), dets)
    shown = entry["shown"][0]
    assert [shown[k] for k in ("outcome", "score", "iou", "detection")] == ["found", 0.9, pytest.approx(0.5), [*HALF]]


def test_of_two_close_boxes_each_is_shown_with_its_own_detection():
    """The better detection takes the box that it fits best, the other what is left: an IoU of 2/3, not of 1."""
    gt = truth_of((30, (0, 0, 12, 10)), (30, (0, 0, 18, 10)))
    dets = results((1, 30, (0, 0, 18, 10), 0.9), (1, 30, (0, 0, 18, 10), 0.8))
    (entry,) = examples_of(gt, dets)
    assert [(o["score"], o["box"][2], o["iou"]) for o in entry["shown"]] == [
        (0.9, 18, pytest.approx(1)),
        (0.8, 12, pytest.approx(12 / 18)),
    ]


def test_detections_that_may_not_be_wrong_confuse_nothing():
    gt = truth_of((30, BOX))
    gt["images"][0] |= {"neg_category_ids": [10], "not_exhaustive_category_ids": []}
    dets = results((1, 20, BOX, 0.9), (1, 10, BOX, 0.5))  # nobody looked for 20
    (entry,) = examples_of(gt, dets, protocol="lvis")
    assert seen(entry) == [("confused", 10, BOX)]
    gt["images"][0] |= {"neg_category_ids": [], "not_exhaustive_category_ids": [10]}
    gt["annotations"].append({**gt["annotations"][0], "id": 9, "category_id": 10, "bbox": list(FAR)})
    (entry,) = examples_of(gt, dets, protocol="lvis")
    assert seen(entry) == [("missed", None, BOX)]


def test_boxes_and_detections_that_a_protocol_leaves_out_move_none_of_the_others():
    gt = truth_of((30, AWAY, {"area": 0}), (30, BOX), (30, FAR))
    gt["images"][0] |= {"neg_category_ids": [10], "not_exhaustive_category_ids": []}
    unlisted = {"image_id": 1, "category_id": 99, "bbox": list(FAR), "score": 0.9}
    dets = [unlisted, *results((1, 20, FAR, 0.9), (1, 30, FAR, 0.1), (1, 10, FAR, 0.8), (1, 30, HALF, 0.7))]
    for protocol in ("lvis", "lvis_fixed", "lvis_pool", "openimages"):
        kept = {**gt, "annotations": gt["annotations"][protocol == "openimages" :]}
        (entry,) = examples_of(kept, dets, protocol=protocol)
        assert [(o["outcome"], o["score"], o["box"], o["detection"]) for o in entry["shown"]] == [
            ("confused", 0.8, [*FAR], [*FAR]),
            ("found", 0.7, [*BOX], [*HALF]),
        ]


def test_turned_boxes_have_an_angle():
    gt, turned = truth_of((30, BOX), (30, FAR), (30, AWAY)), [5, 5, 10, 4, 0.7]
    for i, ann in enumerate(gt["annotations"]):
        ann["rbox"] = [5 + 100 * i, *turned[1:]]
    dets = [
        {"image_id": 1, "category_id": 30, "rbox": [5, 5, 10, 3, 0.7], "score": 0.9},
        {"image_id": 1, "category_id": 10, "rbox": [105, 5, 10, 4, 0.7 + np.pi], "score": 0.8},
        {"image_id": 1, "category_id": 10, "rbox": [205, 5, 10, 4, 0.7 + np.pi / 2], "score": 0.8},
    ]
    (entry,) = examples_of(gt, dets)
    confused, missed, found = entry["shown"]
    assert confused["box"] == pytest.approx([100, 3, 10, 4, 0.7])
    assert confused["detection"] == pytest.approx([100, 3, 10, 4, 0.7 + np.pi])
    assert confused["iou"] == pytest.approx(1)
    assert missed["box"] == pytest.approx([200, 3, 10, 4, 0.7])
    assert missed["detection"] is None
    assert found["detection"] == pytest.approx([0, 3.5, 10, 3, 0.7])
    assert found["iou"] == pytest.approx(0.75)


def test_image_ids_may_be_text():
    gt, dets = truth_of((30, BOX), images=("b", "a")), results(("b", 10, BOX, 0.9))
    gt["annotations"][0]["image_id"] = "b"
    (entry,) = examples_of(gt, dets)
    assert [entry["shown"][0][k] for k in ("image", "image_id")] == [1, "b"]


def iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def assert_sound(report, gt, dets, least, bins):
    """Counts are those of the confusion, order and choice those that are promised, and every object is in the input."""
    rows, entries = report["errors"]["confusion"]["rows"], report["examples"]
    ap50 = {row["id"]: row["AP50"] for row in report["per_class"]}
    names = ["tail"] if rows["tail"]["n_gt"] else list(rows)
    assert {e["id"] for e in entries} <= set(bins["tail"] if names == ["tail"] else ap50)
    assert sum(e["n_gt"] for e in entries) == sum(rows[n]["n_gt"] for n in names)
    assert sum(e["found"] for e in entries) == sum(rows[n]["found"] for n in names)
    assert sum(e["missed"] for e in entries) == sum(rows[n]["missed"] for n in names)
    assert sum(e["confused"] for e in entries) == sum(sum(rows[n]["as"].values()) for n in names)
    known = [(np.inf if ap50[e["id"]] is None else ap50[e["id"]], e["found"] - e["n_gt"], e["id"]) for e in entries]
    assert known == sorted(known)
    boxes = [(a["image_id"], a["category_id"], list(a["bbox"])) for a in gt["annotations"] if not a.get("iscrowd")]
    found = [(d["image_id"], d["category_id"], d["score"], list(d["bbox"])) for d in dets]
    for e in entries:
        assert e["n_gt"] == e["found"] + e["confused"] + e["missed"] > 0
        outcomes = [o["outcome"] for o in e["shown"]]
        assert len(outcomes) == min(e["n_gt"], 4)
        assert {k for k in ("found", "confused", "missed") if e[k]} == set(outcomes)
        assert [k for k, _ in itertools.groupby(outcomes)] == [k for k in ("confused", "missed", "found") if e[k]]
        for o in e["shown"]:
            assert (o["image_id"], e["id"], o["box"]) in boxes
            if o["outcome"] == "missed":
                continue
            det = (o["image_id"], o["taken_for"] or e["id"], o["score"], o["detection"])
            assert det in found
            assert det[2] >= least(det[1])
            assert (o["taken_for"] is None) == (o["outcome"] == "found")
            assert o["taken_for"] != e["id"]
            assert o["iou"] == pytest.approx(iou(o["box"], o["detection"]), abs=1e-9)
            assert o["iou"] >= 0.5


LEAST = st.lists(st.sampled_from([0.0, 0.3, 0.4]), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None)
@given(cases(most_boxes=12), LEAST)
def test_any_scene_adds_up(case, least):
    gt, dets = case
    bins = {"head": [1], "tail": [2, 3]}
    report = report_of(gt, dets, bins, conf=np.array(least))
    assert_sound(report, gt, dets, lambda c: least[c - 1], bins)


@settings(max_examples=100, deadline=None)
@given(lvis_oracle.cases(), LEAST, st.sampled_from(["lvis", "lvis_fixed"]))
def test_any_federated_scene_adds_up(case, least, protocol):
    gt, dets = case
    gt["annotations"] = [{**a, "iscrowd": 0} for a in gt["annotations"] if not a.get("ignore")]
    bins = {"head": [1], "tail": [2, 3]}
    report = report_of(gt, dets, bins, conf=np.array(least), protocol=protocol)
    assert_sound(report, gt, dets, lambda c: least[c - 1], bins)


@pytest.mark.parametrize("seed", range(4))
def test_a_large_scene_adds_up_and_the_order_of_the_input_changes_nothing(seed):
    gt, dets = random_case(seed, images=60, per_image=12, classes=8, boxes=6)
    rng = np.random.default_rng(seed)
    for rank, i in enumerate(rng.permutation(len(dets))):
        dets[i]["score"] = rank / len(dets)
        dets[i]["bbox"][2:] = [max(v, 1) for v in dets[i]["bbox"][2:]]
        if rng.random() < 0.8:
            dets[i]["category_id"] = int(rng.integers(1, 9))
    for n, ann in enumerate(gt["annotations"]):
        ann["area"] += n * 1e-6  # none are equal
    bins = {"head": [1, 2, 3], "medium": [4, 5], "tail": [6, 7, 8]}
    report = report_of(gt, dets, bins, conf=0.3)
    assert_sound(report, gt, dets, lambda c: 0.3, bins)
    assert all(min(e[k] for k in ("found", "confused", "missed")) > 3 for e in report["examples"])
    gt["annotations"] = [gt["annotations"][i] for i in rng.permutation(len(gt["annotations"]))]
    assert examples_of(gt, [dets[i] for i in rng.permutation(len(dets))], bins=bins, conf=0.3) == report["examples"]
