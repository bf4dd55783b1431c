import copy
import json

import numpy as np
import pytest
from lvis_oracle import federated, results

from yolo_lt.errors import LTError
from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.read import read_detections, read_ground_truth
from yolo_lt.evaluate.store import ground_truth_sha256

BOX, AWAY = (10, 10, 20, 20), (200, 200, 20, 20)
LISTS = {"negative": "neg_category_ids", "positive": "pos_category_ids", "partial": "not_exhaustive_category_ids"}


def three_classes():
    """Images 7 and 3, in this order, classes 30, 10, 20; nothing is said about what is absent."""
    gt = federated([(7, 30, BOX), (3, 10, BOX)], images=(7, 3), classes=(30, 10, 20))
    for image in gt["images"]:
        image.clear()
    gt["images"][0]["id"], gt["images"][1]["id"] = 7, 3
    return gt


def pairs(gt, keys):
    """(image id, category id) of sorted keys."""
    image, cls = np.divmod(keys, len(gt.category_ids))
    return list(zip(gt.image_ids[image].tolist(), gt.category_ids[cls].tolist(), strict=True))


@pytest.mark.parametrize(("name", "key"), LISTS.items())
def test_lists_of_an_image_are_read_by_id_and_make_the_labels_federated(name, key):
    gt = three_classes()
    gt["images"][0][key] = [30, 10, 30]
    gt["images"][1][key] = [20]
    found = read_ground_truth(gt)
    assert pairs(found, getattr(found, name)) == [(3, 20), (7, 10), (7, 30)]
    assert [getattr(found, other) for other in LISTS if other != name] == [None, None]


@pytest.mark.parametrize(("name", "key"), LISTS.items())
def test_ids_that_no_category_has_say_nothing(name, key):
    gt = three_classes()
    gt["images"][1][key] = [99, 20, -1, 0]
    found = read_ground_truth(gt)
    assert pairs(found, getattr(found, name)) == [(3, 20)]


@pytest.mark.parametrize(("name", "key"), LISTS.items())
@pytest.mark.parametrize("empty", [[], None, [99]])
def test_an_empty_list_is_a_list_and_a_missing_one_is_empty_where_another_image_has_one(name, key, empty):
    gt = three_classes()
    assert getattr(read_ground_truth(gt), name) is None
    gt["images"][1][key] = empty
    assert getattr(read_ground_truth(gt), name).tolist() == []


@pytest.mark.parametrize("key", LISTS.values())
@pytest.mark.parametrize("value", [5, "10", {"10": 1}, [10, "20"], [1.0], [True], [None], [[10]], 0])
def test_a_malformed_list_is_named_with_its_image_and_key(key, value):
    gt = three_classes()
    gt["images"][0][key], gt["images"][1][key] = [10], value
    with pytest.raises(LTError) as e:
        read_ground_truth(gt)
    assert f"ground truth, images[1]: '{key}' is {value!r}; it must be a list of category ids" in str(e.value)


def test_lists_without_images_or_categories_are_none_and_empty():
    assert read_ground_truth(federated([], images=(), classes=())).negative is None
    assert read_ground_truth(federated([], [(1, 1)], classes=())).negative.tolist() == []


@pytest.mark.parametrize("key", ["iscrowd", "isgroupof", "is_group_of", "IsGroupOf"])
def test_every_name_of_a_group_is_read(key):
    gt = federated([(1, 1, BOX), (1, 1, BOX, {key: 1}), (1, 1, BOX, {key: 0}), (1, 1, BOX, {key: True})])
    assert read_ground_truth(gt).crowd.tolist() == [False, True, False, True]


def test_ignore_is_read_and_is_no_crowd():
    found = read_ground_truth(federated([(1, 1, BOX, {"ignore": 1}), (1, 1, BOX), (1, 1, BOX, {"ignore": False})]))
    assert found.ignored.tolist() == [True, False, False]
    assert not found.crowd.any()


@pytest.mark.parametrize("key", ["ignore", "isgroupof", "is_group_of", "IsGroupOf"])
@pytest.mark.parametrize("value", [2, "1", None, 0.5, []])
def test_a_flag_that_is_neither_is_named_with_its_place(key, value):
    gt = federated([(1, 1, BOX), (1, 1, BOX, {key: value})])
    with pytest.raises(LTError) as e:
        read_ground_truth(gt)
    assert f"annotations[1]: '{key}' is {value!r}; it must be 0 or 1" in str(e.value)


def test_image_counts_are_read_by_sorted_id_if_every_category_has_one():
    gt = three_classes()
    for c in gt["categories"]:
        c["image_count"] = c["id"] + 1
    assert read_ground_truth(gt).image_counts.tolist() == [11, 21, 31]
    rows = evaluate(gt, [], bootstrap=0).to_json()["per_class"]
    assert [r["train_images"] for r in rows] == [11, 21, 31]
    del gt["categories"][1]["image_count"]
    assert read_ground_truth(gt).image_counts is None


def test_an_image_count_that_is_no_number_is_named():
    gt = three_classes()
    for c in gt["categories"]:
        c["image_count"] = "many"
    with pytest.raises(LTError, match=r"categories.*'image_count' is 'many'"):
        read_ground_truth(gt)


def test_a_hierarchy_calls_classes_by_freebase_id_where_they_have_one():
    gt = three_classes()
    gt["categories"][0]["freebase_id"] = "/m/01"
    del gt["categories"][1]["name"]
    found = read_ground_truth(gt)
    assert found.labels == ("10", "class 20", "/m/01")
    assert found.names == ("10", "class 20", "class 30")


def test_turned_boxes_are_kept_by_their_corner_before_the_turn_and_the_angle():
    gt = federated([(1, 1, BOX), (2, 2, BOX)])
    for a, angle in zip(gt["annotations"], (0.5, -2), strict=True):
        a["rbox"] = [20, 30, 8, 4, angle]
    truth = read_ground_truth(gt)
    assert truth.box.tolist() == [[16, 28, 8, 4]] * 2
    assert truth.angle.tolist() == [0.5, -2]
    found = read_detections([{"image_id": 2, "category_id": 1, "rbox": [1, 2, 4, 2, 7], "score": 1}], truth)
    assert (found.box.tolist(), found.angle.tolist()) == ([[-1, 1, 4, 2]], [7])
    assert read_detections([], truth).angle is None


def test_a_form_of_boxes_holds_for_all_entries():
    gt = federated([(1, 1, BOX), (2, 2, BOX)])
    del gt["annotations"][1]["bbox"]
    gt["annotations"][1]["rbox"] = [1, 1, 1, 1, 0]
    with pytest.raises(LTError, match=r"annotations\[1\]: the key 'bbox' is missing"):
        read_ground_truth(gt)
    gt["annotations"].reverse()
    with pytest.raises(LTError, match=r"annotations\[1\]: the key 'rbox' is missing"):
        read_ground_truth(gt)


@pytest.mark.parametrize("value", [[1, 2, 3, 4], [1, 2, 3, 4, float("nan")], [1, 2, 3, 4, "5"], None])
def test_a_malformed_turned_box_is_named(value):
    gt = federated([(1, 1, BOX), (2, 2, BOX)])
    gt["annotations"][0]["rbox"], gt["annotations"][1]["rbox"] = [1, 2, 3, 4, 5], value
    with pytest.raises(LTError, match=r"annotations\[1\]: 'rbox' is .*; it must be 5 finite numbers"):
        read_ground_truth(gt)


def digest(gt):
    return ground_truth_sha256(read_ground_truth(gt))


def everything():
    """Ground truth with every kind of entry that the digest covers, two boxes equal but for angle and ignore."""
    gt = federated([(1, 1, BOX), (2, 1, BOX), (2, 2, AWAY), (2, 2, AWAY)], [(1, 2)], [(2, 1)])
    gt["images"][0]["pos_category_ids"], gt["images"][1]["pos_category_ids"] = [1], [2, 1]
    for n, a in enumerate(gt["annotations"]):
        a |= {"rbox": [10, 10, 5, 5, n / 4], "ignore": n % 2, "iscrowd": int(n == 1)}
    return gt


def swap(gt):
    for image in gt["images"]:
        image["neg_category_ids"], image["pos_category_ids"] = image["pos_category_ids"], image["neg_category_ids"]


CHANGES = {
    **{f"{key} gains": lambda gt, key=key: gt["images"][0][key].append(3) for key in LISTS.values()},
    **{f"{key} loses": lambda gt, key=key: [i.update({key: []}) for i in gt["images"]] for key in LISTS.values()},
    **{f"{key} is gone": lambda gt, key=key: [i.pop(key) for i in gt["images"]] for key in LISTS.values()},
    "what is absent is there": swap,
    "ignore of one": lambda gt: gt["annotations"][0].update(ignore=1),
    "ignore of the other of two equal boxes": lambda gt: [
        a.update(ignore=1 - a["ignore"]) for a in gt["annotations"][2:]
    ],
    "ignore of all": lambda gt: [a.update(ignore=0) for a in gt["annotations"]],
    "angle": lambda gt: gt["annotations"][1]["rbox"].__setitem__(4, 0.26),
    "angle of one of two equal boxes": lambda gt: gt["annotations"][3]["rbox"].__setitem__(4, 0.5),
    "no angle": lambda gt: [a.pop("rbox") for a in gt["annotations"]],
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_the_digest_covers_what_federated_and_turned_labels_say(name):
    gt = everything()
    gt["categories"].append({"id": 3, "name": "class 3", "frequency": "r"})
    other = copy.deepcopy(gt)
    CHANGES[name](other)
    assert digest(other) != digest(gt)


def test_the_digest_does_not_depend_on_the_order_of_entries_or_on_what_is_said_twice():
    gt = everything()
    other = copy.deepcopy(gt)
    for key in ("images", "categories", "annotations"):
        other[key] = [dict(reversed(row.items())) for row in reversed(other[key])]
    for image in other["images"]:
        for key in LISTS.values():
            image[key] = [99, *reversed(image[key]), *image[key]]
    assert digest(other) == digest(gt)


def test_the_digest_of_labels_without_lists_is_not_that_of_empty_lists():
    gt = federated([(1, 1, BOX)])
    plain = copy.deepcopy(gt)
    for image in plain["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    assert digest(plain) != digest(gt)


def test_ground_truth_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(federated([(1, 1, BOX)]))[:-40])
    with pytest.raises(LTError, match=r"gt\.json: no valid JSON at line 1 column .*cut off"):
        evaluate(path, [], protocol="lvis")


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_boxes_outside_the_image_count_as_they_are(protocol):
    outside = (-50, 90, 40, 30)
    gt = federated([(1, 1, outside), (1, 1, BOX)])
    gt["images"] = [{**i, "width": 100, "height": 100} for i in gt["images"]]
    report = evaluate(gt, results((1, 1, outside, 0.9), (1, 1, BOX, 0.8)), protocol, bootstrap=0)
    assert [report.metrics["all"][k] for k in ("AP", "n_gt")] == [pytest.approx(1), 2]
    cut = evaluate(gt, results((1, 1, (0, 90, 0, 10), 0.9), (1, 1, BOX, 0.8)), protocol, bootstrap=0)
    assert cut.metrics["all"]["AR"] == 0.5


@pytest.mark.parametrize(("cap", "right"), [(2, 0), (3, 1)])
def test_detections_of_unlisted_categories_take_their_place_below_the_cap_and_are_counted_in_a_warning(cap, right):
    gt = federated([(1, 1, BOX)], [(1, 2)])
    dets = results((1, 99, BOX, 0.9), (1, 98, BOX, 0.8), (1, 1, BOX, 0.7))
    report = evaluate(gt, dets, "lvis", max_det=cap, bootstrap=0).to_json()
    assert report["metrics"]["all"]["AP"] == pytest.approx(right)
    assert report["warnings"] == ["2 of 3 detections have a category that the ground truth does not list; dropped."]
    assert evaluate(gt, dets, "coco", max_det=1, bootstrap=0).metrics["all"]["AP"] == pytest.approx(1)
    assert evaluate(gt, dets, "lvis_fixed", max_det=1, bootstrap=0).metrics["all"]["AP"] == pytest.approx(1)
