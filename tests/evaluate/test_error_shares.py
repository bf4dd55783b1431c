import copy
import json
from dataclasses import replace
from pathlib import Path

import hotcoco
import numpy as np
import pytest
from coco_oracle import dataset, matches_of, random_case, results

from yolo_lt.evaluate import errors
from yolo_lt.evaluate.arrays import take
from yolo_lt.evaluate.confusion import scene
from yolo_lt.evaluate.errors import KINDS, error_shares
from yolo_lt.evaluate.metrics import class_metrics
from yolo_lt.evaluate.protocols import coco, lvis
from yolo_lt.evaluate.read import read_detections, read_ground_truth

BOX, FAR = (0, 0, 10, 10), (100, 100, 10, 10)
ONE = pytest.approx(1, abs=1e-12)  # COCOeval's guard against 0 / 0 leaves the last digit to chance
HALF = pytest.approx(0.5, abs=1e-12)
SPECIAL = ("false_positives", "false_negatives")
FROZEN = json.loads((Path(__file__).parent / "data" / "tidecv.json").read_text(encoding="utf-8"))
TO_HOTCOCO = dict(zip((*KINDS, *SPECIAL), ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN"), strict=True))


def shares(gt, dets, sets=None, max_det=100, choose=coco.choose):
    truth = read_ground_truth(gt)
    truth, found, _ = choose(truth, read_detections(dets, truth), 0)
    return error_shares(truth, found, sets or {"all": np.arange(len(truth.category_ids))}, max_det)


def counted(gt, dets, **options):
    """The kinds of error that occur, with their numbers."""
    return {kind: n for kind, n in shares(gt, dets, **options)["all"]["counts"].items() if n}


def lost(gt, dets, **options):
    """The kinds of error that cost something, with what they cost."""
    return {kind: v for kind, v in shares(gt, dets, **options)["all"]["loss"].items() if v > 1e-12}


def scattered(seed, crowd, ties=False):
    """Six classes, the last ones rare; all kinds of error."""
    gt, dets = random_case(seed, images=40, per_image=20, classes=6, boxes=6, crowd=crowd)
    rng = np.random.default_rng(seed)
    for ann in gt["annotations"]:
        ann["category_id"] = 1 + int(6 * rng.random() ** 2)
    for det in dets:
        det["score"] = det["score"] if ties else float(rng.random())
        det["category_id"] = 1 + int(6 * rng.random() ** 2)
        if rng.random() < 0.2:
            det["bbox"][0] += float(rng.normal(0, 20))
    return gt, dets


def gridded(seed, ties):
    """Few boxes on a coarse grid: equal IoUs, duplicates, images without boxes, images without detections."""
    rng = np.random.default_rng(seed)

    def some(n):
        box = 5.0 * np.c_[rng.integers(0, 4, (n, 2)), rng.integers(1, 5, (n, 2))]
        return rng.integers(1, 5, n).tolist(), rng.integers(1, 4, n).tolist(), box.tolist()

    size = int(rng.integers(1, 40))
    score = rng.choice([0.1, 0.3, 0.5, 0.9], size) if ties else rng.permutation(size) / size + 0.01
    gt = dataset(list(zip(*some(int(rng.integers(1, 12))), strict=True)), range(1, 5), range(1, 4))
    return gt, results(*zip(*some(size), score.tolist(), strict=True))


# Which kind of error a detection is


@pytest.mark.parametrize(
    ("height", "category", "kind"),
    [
        (10, 2, "classification"),
        (5, 2, "classification"),  # IoU 0.5
        (4.9, 2, "both"),
        (1, 2, "background"),  # IoU 0.1
        (1.1, 2, "both"),
        (4.9, 1, "localisation"),
        (1, 1, "localisation"),  # IoU 0.1
        (0.9, 1, "background"),
    ],
)
def test_the_iou_and_the_class_tell_the_kind_with_its_borders(height, category, kind):
    gt = dataset([(1, 1, BOX), (1, 2, FAR)], categories=(1, 2))
    found = results((1, category, (0, 0, 10, height), 0.9), (1, 2, FAR, 0.8))
    freed = kind in ("localisation", "classification")  # the box is not missed: that error points to it
    assert counted(gt, found) == {kind: 1} | ({} if freed else {"missed": 1})


def test_a_second_detection_of_a_box_is_a_duplicate_and_at_an_iou_of_one_half_a_localisation_error():
    assert counted(dataset([(1, 1, BOX)]), results((1, 1, BOX, 0.9), (1, 1, (0, 0, 10, 6), 0.8))) == {"duplicate": 1}
    assert counted(dataset([(1, 1, BOX)]), results((1, 1, BOX, 0.9), (1, 1, (0, 0, 10, 5), 0.8))) == {"localisation": 1}


def test_a_loose_box_of_its_class_comes_before_another_class_and_that_before_a_duplicate():
    both = dataset([(1, 1, BOX), (1, 2, (0, 0, 10, 4))], categories=(1, 2))
    second = (1, 2, (0, 0, 10, 4), 0.9)
    assert counted(both, results((1, 1, (0, 0, 10, 4), 0.8), second)) == {"localisation": 1}
    both = dataset([(1, 1, BOX), (1, 2, BOX)], categories=(1, 2))
    assert counted(both, results((1, 1, BOX, 0.9), (1, 2, BOX, 0.9), (1, 1, BOX, 0.8))) == {"classification": 1}


def test_images_without_boxes_have_background_errors_and_images_without_detections_missed_boxes():
    gt = dataset([(1, 1, BOX), (1, 1, FAR)], images=(1, 2))
    assert counted(gt, results((2, 1, BOX, 0.9))) == {"background": 1, "missed": 2}


def test_of_boxes_with_equal_iou_the_later_one_is_taken_as_in_the_evaluation():
    gt = dataset([(1, 1, (0, 0, 10, 8)), (1, 1, (0, 2, 10, 8))])  # both 0.8 with the first detection
    dets = results((1, 1, BOX, 0.9), (1, 1, (0, 0, 10, 6), 0.8))
    assert counted(gt, dets) == {}
    gt["annotations"].reverse()
    assert counted(gt, dets) == {"duplicate": 1, "missed": 1}
    assert_equal_to_hotcoco(gt, dets)


# What it costs


def test_a_classification_error_put_right_gives_the_detection_to_the_class_of_the_box():
    gt = dataset([(1, 1, BOX), (1, 2, FAR)], categories=(1, 2))
    found = shares(gt, results((1, 2, BOX, 0.9), (1, 2, FAR, 0.8)), {"one": np.array([0]), "two": np.array([1])})
    assert found["one"]["loss"]["classification"] == ONE  # nothing was found, now all is
    assert found["two"]["loss"]["classification"] == HALF  # and here a wrong one stood before the right one
    assert found["one"]["counts"]["classification"] == 0
    assert found["two"]["counts"]["classification"] == 1


def test_of_all_errors_that_point_to_a_box_the_best_takes_it_and_the_others_go():
    gt = dataset([(1, 1, BOX), (2, 2, BOX)], images=(1, 2), categories=(1, 2))
    loose = (0, 0, 10, 4)
    dets = results((1, 1, loose, 0.9), (1, 2, BOX, 0.8), (2, 2, BOX, 0.7))
    assert counted(gt, dets) == {"localisation": 1, "classification": 1}
    assert lost(gt, dets) == {
        "localisation": HALF,
        "classification": pytest.approx(0.25),
    }  # the box is the better one's in both
    dets[0]["score"] = 0.75
    assert lost(gt, dets) == {"classification": pytest.approx(0.75)}


def test_duplicates_and_background_cost_what_stands_below_them():
    gt = dataset([(1, 1, BOX), (1, 1, FAR)])
    wrong = [(1, 1, BOX, 0.8), (1, 1, (50, 50, 10, 10), 0.7)]
    found = shares(gt, results((1, 1, BOX, 0.9), *wrong, (1, 1, FAR, 0.6)))["all"]
    assert found["AP50"] == pytest.approx((51 + 50 * 0.5) / 101, abs=1e-12)
    for kind in ("duplicate", "background"):
        assert found["loss"][kind] == pytest.approx(50 * (2 / 3 - 1 / 2) / 101, abs=1e-12)
    assert found["false_positives"] == pytest.approx(25 / 101, abs=1e-12)
    assert found["false_negatives"] == 0


def test_a_missed_box_is_no_longer_asked_for():
    found = shares(dataset([(1, 1, BOX), (1, 1, FAR)]), results((1, 1, BOX, 0.9)))["all"]
    assert found["loss"]["missed"] == pytest.approx(50 / 101, abs=1e-12)
    assert found["false_negatives"] == found["loss"]["missed"]


def test_false_negatives_are_all_boxes_that_were_not_found_and_missed_only_those_that_no_error_points_to():
    gt = dataset([(1, 1, BOX), (1, 1, FAR)])
    found = shares(gt, results((1, 1, BOX, 0.9), (1, 1, (100, 100, 10, 4), 0.8)))["all"]
    assert found["counts"]["missed"] == 0
    assert found["false_negatives"] == pytest.approx(50 / 101, abs=1e-12)


def test_a_class_of_which_nothing_was_found_gains_nothing_by_asking_for_nothing():
    gt, dets = dataset([(1, 1, BOX), (1, 2, FAR)], categories=(1, 2)), results((1, 1, BOX, 0.9))
    found = shares(gt, dets)["all"]
    assert (found["AP50"], found["counts"]["missed"]) == (HALF, 1)
    assert found["loss"]["missed"] == found["false_negatives"] == 0  # tidecv: 0.5 for a class without detections
    assert_equal_to_hotcoco(gt, dets)


@pytest.mark.parametrize("seed", range(5))
def test_with_every_kind_put_right_at_once_all_that_is_left_is_right(seed):
    truth = read_ground_truth(scattered(seed, crowd=0)[0])
    view = scene(truth, read_detections(scattered(seed, crowd=0)[1], truth), 100)
    kinds = errors._kinds(view)
    heir, missed = errors._heirs(view, kinds)
    cls = np.where(heir >= 0, view.truth.key[heir] % 6, view.dets.cls)
    right = view.right | (heir >= 0)
    verdict = errors._Verdict(cls, right, (kinds != errors.NO_ERROR) & (heir < 0), ~missed)
    np.testing.assert_allclose(errors._ap50(truth, view, verdict), 1, atol=1e-12)
    assert right.sum() == (~missed).sum()
    assert ((kinds == errors.NO_ERROR) == view.right).all()  # every wrong detection has a kind


# tidecv and hotcoco


# Seeds at which no recall is 0.35 or another of the hundredths that COCOeval's recall points miss by a rounding
@pytest.mark.parametrize("case", FROZEN, ids=lambda c: f"seed {c['seed']} crowd {c['crowd']} cap {c['cap']}")
def test_equals_tidecv_in_total_and_in_the_means_of_its_classes(case):
    sets = {"all": range(6), "head": [0, 1], "medium": [2, 3], "tail": [4, 5]}
    found = shares(*scattered(case["seed"], case["crowd"]), {k: np.array(v) for k, v in sets.items()}, case["cap"])
    assert found["all"]["counts"] == dict(zip(KINDS, case["counts"], strict=True))
    for name in sets:
        of_set = found[name]
        values = [of_set["AP50"], *of_set["loss"].values(), *(of_set[key] for key in SPECIAL)]
        np.testing.assert_allclose(values, case["means"][name], rtol=0, atol=1e-9, err_msg=name)
        assert of_set["n_classes_evaluated"] == len(sets[name])


def hotcoco_errors(gt, dets):
    truth = hotcoco.COCO(copy.deepcopy(gt))
    e = hotcoco.COCOeval(truth, truth.load_res(copy.deepcopy(dets)), "bbox")
    e.evaluate()
    return e.tide_errors()


def assert_equal_to_hotcoco(gt, dets, but=()):
    ours, theirs = shares(gt, dets)["all"], hotcoco_errors(gt, dets)
    assert {TO_HOTCOCO[kind]: n for kind, n in ours["counts"].items()} == theirs["counts"]
    assert ours["AP50"] == pytest.approx(theirs["ap_base"], abs=1e-9)
    gains = ours["loss"] | {key: ours[key] for key in SPECIAL}
    expected = {key: theirs["delta_ap"][name] for key, name in TO_HOTCOCO.items()}
    for key in gains.keys() - set(but):
        assert gains[key] == pytest.approx(expected[key], abs=1e-9), key


@pytest.mark.parametrize("seed", range(150))
def test_equals_hotcoco_on_a_coarse_grid(seed):
    assert_equal_to_hotcoco(*gridded(seed, ties=False))


@pytest.mark.parametrize("seed", range(10))
def test_equals_hotcoco_on_many_boxes(seed):
    assert_equal_to_hotcoco(*scattered(seed, crowd=0))


@pytest.mark.parametrize("seed", range(10))
def test_equals_hotcoco_with_equal_scores_but_where_a_detection_goes_to_another_class(seed):
    # which of equal scores comes first there is nobody's rule: here the order of images and of the file
    assert_equal_to_hotcoco(*scattered(seed, crowd=0, ties=True), but=["classification"])


def test_a_detection_in_a_crowd_is_counted_as_tidecv_does_and_hotcoco_does_not_and_costs_nothing():
    gt = dataset([(1, 1, (0, 0, 100, 100), {"iscrowd": 1}), (1, 1, (200, 0, 10, 10))])
    dets = results((1, 1, (50, 50, 10, 10), 0.9), (1, 1, (200, 0, 10, 10), 0.8))
    assert counted(gt, dets) == {"background": 1}
    assert hotcoco_errors(gt, dets)["counts"]["Bkg"] == 0
    assert shares(gt, dets)["all"]["AP50"] == ONE
    assert lost(gt, dets) == {}


def test_a_crowd_excuses_with_more_than_half_of_the_area_inside_and_its_own_class_only():
    gt = dataset([(1, 1, (0, 0, 100, 100), {"iscrowd": 1}), (1, 1, FAR), (1, 2, FAR)], categories=(1, 2))
    right = results((1, 1, FAR, 0.5), (1, 2, FAR, 0.5))
    for box, category, ap in [((95, 0, 10, 10), 1, 0.75), ((94, 0, 10, 10), 1, 1), ((50, 0, 10, 10), 2, 0.75)]:
        assert shares(gt, [*right, *results((1, category, box, 0.9))])["all"]["AP50"] == pytest.approx(ap)


def test_classes_without_ground_truth_are_in_no_mean_where_tidecv_takes_those_with_detections_as_zero():
    gt = dataset([(1, 1, BOX)], categories=(1, 2, 3))
    dets = results((1, 1, BOX, 0.9), (1, 2, FAR, 0.8))
    found = shares(gt, dets)["all"]
    assert (found["AP50"], found["n_classes_evaluated"]) == (ONE, 1)  # tidecv: 0.5
    assert lost(gt, dets) == {}  # tidecv: 0.5 by background, for the class is then gone
    assert found["counts"]["background"] == 1
    assert_equal_to_hotcoco(gt, dets)


def test_a_set_without_ground_truth_has_no_values_but_its_detections_are_counted():
    gt = dataset([(1, 1, BOX)], categories=(1, 2))
    found = shares(gt, results((1, 2, BOX, 0.9)), {"tail": np.array([1]), "none": np.array([], int)})
    assert found["tail"]["AP50"] is found["tail"]["loss"]["missed"] is found["tail"]["false_negatives"] is None
    assert found["tail"]["counts"] == dict.fromkeys(KINDS, 0) | {"classification": 1}
    assert found["none"]["n_classes_evaluated"] == sum(found["none"]["counts"].values()) == 0
    json.dumps(found)


# What takes part


def test_the_cap_is_per_image_whatever_the_class_and_unlisted_categories_take_part_in_it_alone():
    gt = dataset([(1, 1, BOX), (1, 2, FAR)], categories=(1, 2))
    dets = results((1, 99, BOX, 0.9), (1, 1, BOX, 0.8), (1, 2, FAR, 0.7))
    assert [shares(gt, dets, max_det=n)["all"]["AP50"] for n in (0, 1, 2, 3)] == [ONE, 0, HALF, ONE]
    assert counted(gt, dets) == {}


def test_the_base_is_the_ap50_of_the_evaluation():
    gt, dets = scattered(3, crowd=0.1, ties=True)
    sets = {"all": np.arange(6), "tail": np.array([5])}
    found = shares(gt, dets, sets)
    ap50 = class_metrics(matches_of(gt, dets))[:, 1]
    assert found["all"]["AP50"] == pytest.approx(ap50.mean(), abs=1e-12)
    assert found["tail"]["AP50"] == pytest.approx(ap50[5], abs=1e-12)


def test_a_detection_on_an_ignored_box_is_left_out_of_everything():
    gt = read_ground_truth(dataset([(1, 1, BOX, {"ignore": 1}), (1, 1, FAR)]))
    dets = read_detections(results((1, 1, BOX, 0.9), (1, 1, FAR, 0.8), (1, 1, BOX, 0.7)), gt)
    found = error_shares(gt, dets, {"all": np.arange(1)})["all"]
    assert found["counts"] == dict.fromkeys(KINDS, 0) | {"background": 1}  # an ignored box is taken once
    assert found["AP50"] == ONE


FEDERATED = dataset([(1, 1, BOX), (2, 2, BOX)], images=(1, 2), categories=(1, 2, 3))
FEDERATED["images"][0] |= {"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}
FEDERATED["images"][1] |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}


def test_detections_of_classes_that_nobody_looked_for_never_count():
    right = results((1, 1, BOX, 0.5), (2, 2, BOX, 0.5))
    unchecked = results((1, 3, BOX, 0.9), (2, 1, BOX, 0.9), (2, 3, FAR, 0.9))
    federated = {"max_det": 0, "choose": lvis.choose}
    assert shares(FEDERATED, right + unchecked, **federated) == shares(FEDERATED, right, **federated)
    assert counted(FEDERATED, right + results((1, 2, BOX, 0.9)), **federated) == {"classification": 1}


def test_where_not_all_objects_are_boxed_an_unmatched_detection_is_left_out_of_everything():
    dets = results((1, 1, BOX, 0.5), (2, 2, BOX, 0.5), (1, 1, BOX, 0.9), (1, 1, FAR, 0.9), (2, 2, BOX, 0.4))
    assert counted(FEDERATED, dets, max_det=0, choose=lvis.choose) == {"duplicate": 1}
    assert lost(FEDERATED, dets, max_det=0, choose=lvis.choose) == {}


def test_turned_boxes_are_told_apart_like_upright_ones():
    gt = dataset([(1, 1, BOX), (1, 2, FAR)], categories=(1, 2))
    for ann in gt["annotations"]:
        x, y, w, h = ann.pop("bbox")
        ann["rbox"] = [x + w / 2, y + h / 2, w, h, 0.3]
    found = [{"image_id": 1, "category_id": 2, "rbox": gt["annotations"][0]["rbox"], "score": 0.9}]
    assert counted(gt, found) == {"classification": 1, "missed": 1}


@pytest.mark.parametrize("crowd", [0, 0.2])
def test_the_order_of_the_input_changes_nothing(crowd):
    truth = read_ground_truth(scattered(5, crowd)[0])
    dets = read_detections(scattered(5, crowd)[1], truth)
    sets = {"all": np.arange(6), "tail": np.array([4, 5])}
    expected, rng = error_shares(truth, dets, sets), np.random.default_rng(0)
    boxes = rng.permutation(len(truth.cls))
    columns = {name: getattr(truth, name)[boxes] for name in ("image", "cls", "box", "area", "crowd", "ignored")}
    assert error_shares(replace(truth, **columns), take(dets, rng.permutation(len(dets.cls))), sets) == expected


@pytest.mark.parametrize("gt", [dataset([], images=(), categories=()), dataset([]), dataset([], images=())])
def test_nothing_at_all_loses_nothing(gt):
    found = shares(gt, [])["all"]
    assert found["AP50"] is None
    assert sum(found["counts"].values()) == 0
