import numpy as np
import pytest
from lvis_oracle import (
    assert_equal,
    best_per_class,
    federated,
    hotcoco_arrays,
    lvis_arrays,
    matches_of,
    random_case,
    results,
)

from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.metrics import precision_recall
from yolo_lt.evaluate.pool import pooled

BOX, AWAY = (10, 10, 20, 20), (200, 200, 20, 20)
BINS = {"head": [1, 4], "medium": [2], "tail": [3, 5, 6]}
SETS = {"all": [1, 2, 3, 4, 5, 6], **BINS}


def relabelled(gt, dets, classes):
    """The classes as one: every (image, class) becomes an image, every class category 1."""
    order = [(c, i) for c in sorted(classes) for i in sorted(row["id"] for row in gt["images"])]
    number = {pair: n for n, pair in enumerate(order, 1)}
    new = [
        {**a, "image_id": number.get((a["category_id"], a["image_id"])), "category_id": 1} for a in gt["annotations"]
    ]
    lists = ("neg_category_ids", "not_exhaustive_category_ids")
    images = [
        {"id": number[c, row["id"]]} | {key: [1] * (c in row[key]) for key in lists}
        for row in gt["images"]
        for c in classes
    ]
    found = [{**d, "image_id": number[d["category_id"], d["image_id"]], "category_id": 1}
             for d in dets if d["category_id"] in classes]  # fmt: skip
    truth = {"images": images, "annotations": [a for a in new if a["image_id"]]}
    return truth | {"categories": [{"id": 1, "name": "any", "frequency": "f"}]}, found


def assert_row(row, precision, recall):
    theirs = {"AP": precision, "AP50": precision[0], "AP75": precision[5], "AR": recall}
    assert {k: row[k] for k in theirs} == {k: pytest.approx(v.mean(), abs=1e-12) for k, v in theirs.items()}


@pytest.mark.parametrize("size", [40, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_every_bin_equals_hotcoco_on_relabelled_images(seed, size):
    gt, dets = random_case(seed, images=20, per_image=60)
    metrics = evaluate(gt, dets, "lvis_pool", BINS, size, bootstrap=0, explain=False).to_json()["metrics"]
    fixed = evaluate(gt, dets, "lvis_fixed", BINS, size, bootstrap=0, explain=False).to_json()["metrics"]
    for name, classes in SETS.items():
        case = relabelled(gt, best_per_class(dets, size), classes)
        assert_row(metrics[name], *hotcoco_arrays(*case, -1))
        assert (metrics[name]["AP"] == fixed[name]["AP"]) == (len(classes) == 1)


@pytest.mark.parametrize("seed", range(3))
def test_every_bin_equals_lvis_api_on_relabelled_images_with_marked_boxes(seed):
    marks = ({"ignore": 1}, {"area": 0}, {"iscrowd": 1})
    gt, dets = random_case(seed, images=20, per_image=60, marks=marks)
    index = [np.array(classes) - 1 for classes in SETS.values()]
    ours = precision_recall(pooled(matches_of(gt, dets, "lvis_pool", 50), index))
    for k, classes in enumerate(SETS.values()):
        theirs = lvis_arrays(*relabelled(gt, best_per_class(dets, 50), classes), -1)
        assert_equal([a[..., k] for a in ours], [a[..., 0, 0] for a in theirs])


def pair_of_classes():
    """Class 1 is found with little confidence, class 2 with much, and wrongly between the two."""
    gt = federated([(1, 1, BOX), (1, 2, BOX)])
    return gt, results((1, 2, BOX, 0.9), (1, 2, AWAY, 0.6), (1, 1, BOX, 0.3))


def test_scores_of_the_classes_of_a_bin_compete_and_classes_alone_do_not():
    bins = {"head": [1, 2]}
    pool = evaluate(*pair_of_classes(), "lvis_pool", bins, bootstrap=0).to_json()
    alone = evaluate(*pair_of_classes(), "lvis_fixed", bins, bootstrap=0).to_json()
    ap = (51 * 1 + 50 * 2 / 3) / 101  # right, wrong, right
    assert [pool["metrics"][name]["AP"] for name in ("all", "head")] == pytest.approx([ap, ap])
    assert alone["metrics"]["head"]["AP"] == pytest.approx(1)
    assert pool["per_class"] == alone["per_class"]
    assert [row["AP"] for row in pool["per_class"]] == pytest.approx([1, 1])
    assert [pool["metrics"]["head"][k] for k in ("n_classes", "n_evaluated", "n_gt")] == [2, 2, 2]
    assert (pool["areas"], pool["max_det"]) == (None, 10_000)


def test_the_truth_of_an_undetected_class_lowers_the_recall_of_its_bin():
    gt, dets = pair_of_classes()
    row = evaluate(gt, dets[:1], "lvis_pool", {"head": [1, 2]}, bootstrap=0).to_json()["metrics"]["head"]
    assert (row["AP"], row["AR"]) == (pytest.approx(51 / 101), 0.5)


@pytest.mark.parametrize(("first", "ap"), [(1, 1), (2, 0.5)])
def test_of_equal_scores_the_class_of_the_lower_id_comes_first(first, ap):
    gt = federated([(1, first, BOX)], negative=[(1, 3 - first)])
    dets = results((1, 3 - first, AWAY, 0.5), (1, first, BOX, 0.5))
    pool = evaluate(gt, dets, "lvis_pool", {"tail": [1, 2]}, bootstrap=0).to_json()
    assert pool["metrics"]["tail"]["AP"] == pytest.approx(ap)


def test_the_operating_point_and_the_box_quality_stay_those_of_classes_alone():
    pool, alone = (evaluate(*pair_of_classes(), p, {"head": [1, 2]}, bootstrap=0) for p in ("lvis_pool", "lvis_fixed"))
    for name in ("operating_point", "calibration", "box_quality"):
        assert getattr(pool, name) == getattr(alone, name)


def test_every_bin_has_an_interval_around_its_pooled_value():
    gt, dets = random_case(1, images=30, per_image=60)
    metrics = evaluate(gt, dets, "lvis_pool", BINS, bootstrap=200, explain=False).to_json()["metrics"]
    fixed = evaluate(gt, dets, "lvis_fixed", BINS, bootstrap=200, explain=False).to_json()["metrics"]
    for name in SETS:
        for metric in ("AP", "AP50", "AP75", "AR"):
            low, high = metrics[name]["ci95"][metric]
            assert low < metrics[name][metric] < high
    assert metrics["tail"]["ci95"] != fixed["tail"]["ci95"]
    assert metrics["medium"]["ci95"] == fixed["medium"]["ci95"]


def test_a_bin_without_ground_truth_has_no_value():
    gt, dets = pair_of_classes()
    gt["categories"].append({"id": 3, "name": "class 3", "frequency": "r"})
    metrics = evaluate(gt, dets, "lvis_pool", {"head": [1, 2], "tail": [3]}, bootstrap=5).to_json()["metrics"]
    assert {metrics["tail"][k] for k in ("AP", "AP50", "AP75", "AR")} == {None}
    assert metrics["tail"]["ci95"]["AP"] is None
