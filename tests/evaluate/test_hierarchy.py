import json

import numpy as np
import pytest

from yolo_lt.errors import LTError
from yolo_lt.evaluate.hierarchy import expand, read_hierarchy
from yolo_lt.evaluate.metrics import class_metrics
from yolo_lt.evaluate.protocols import run
from yolo_lt.evaluate.read import read_detections, read_ground_truth

LABELS = ("cat", "animal", "pet", "car", "thing")
CAT, ANIMAL, PET, CAR, THING = range(1, 6)
BOX = [10, 10, 20, 20]


def node(label, *children, **more):
    return {"LabelName": label, **({"Subcategory": list(children)} if children else {}), **more}


ANIMALS = node("animal", node("mammal", node("cat", node("kitten")), node("dog")))
TREE = node("thing", ANIMALS, node("pet", node("cat")), node("car", Part=[node("wheel")]))


def written(tmp_path, content):
    path = tmp_path / "hierarchy.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def truth_of(anns, positive=(), negative=()):
    """Ground truth of two images from (image, class[, fields]) and verified (image, class)."""
    rows = [
        {"image_id": i, "category_id": c, "bbox": BOX, "isgroupof": 0} | dict(*more) | {"id": n}
        for n, (i, c, *more) in enumerate(anns, 1)
    ]
    lists = {"pos_category_ids": positive, "neg_category_ids": negative}
    images = [{"id": i} | {k: [c for j, c in pairs if j == i] for k, pairs in lists.items()} for i in (1, 2)]
    categories = [{"id": c, "name": label} for c, label in enumerate(LABELS, 1)]
    return read_ground_truth({"images": images, "categories": categories, "annotations": rows})


def expanded(tmp_path, *args, **kwargs):
    return expand(truth_of(*args, **kwargs), read_hierarchy(written(tmp_path, TREE)), LABELS)


def pairs(keys):
    """(image id, category id) of sorted keys."""
    return [(int(k) // len(LABELS) + 1, int(k) % len(LABELS) + 1) for k in keys]


def test_every_label_has_all_its_ancestors_but_not_the_outermost_object(tmp_path):
    assert read_hierarchy(written(tmp_path, TREE)) == {
        "animal": set(),
        "mammal": {"animal"},
        "cat": {"animal", "mammal", "pet"},
        "kitten": {"animal", "mammal", "cat"},
        "dog": {"animal", "mammal"},
        "pet": set(),
        "car": set(),
    }


def test_a_very_deep_hierarchy_is_read(tmp_path):
    tree = node("0")
    for k in range(1, 200):
        tree = node(str(k), tree)
    assert len(read_hierarchy(written(tmp_path, tree))["0"]) == 198


def test_boxes_are_copied_to_all_ancestors_that_are_categories(tmp_path):
    gt = expanded(tmp_path, [(2, CAR), (1, CAT, {"isgroupof": 1, "bbox": [1, 2, 3, 4]}), (1, ANIMAL)])
    assert (gt.cls + 1).tolist() == [CAR, CAT, ANIMAL, PET, ANIMAL]
    assert (gt.image + 1).tolist() == [2, 1, 1, 1, 1]
    assert gt.crowd.tolist() == [False, True, True, True, False]
    assert gt.box[:, 0].tolist() == [10, 1, 1, 1, 10]
    assert gt.area.tolist() == [400, 12, 12, 12, 400]


def test_positive_labels_go_up_and_negative_labels_go_down(tmp_path):
    gt = expanded(tmp_path, [], positive=[(1, CAT), (2, ANIMAL)], negative=[(2, PET), (1, CAR), (1, ANIMAL)])
    assert pairs(gt.positive) == [(1, CAT), (1, ANIMAL), (1, PET), (2, ANIMAL)]
    assert pairs(gt.negative) == [(1, CAT), (1, ANIMAL), (1, CAR), (2, CAT), (2, PET)]


def test_labels_that_are_not_given_stay_so(tmp_path):
    truth = read_ground_truth({
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    })  # fmt: skip
    gt = expand(truth, read_hierarchy(written(tmp_path, TREE)), ["cat"])
    assert gt.positive is None
    assert gt.negative is None
    assert len(gt.cls) == 0


def test_the_outermost_object_is_no_ancestor_even_where_it_is_a_category(tmp_path):
    gt = expanded(tmp_path, [(1, CAT)], negative=[(1, THING)])
    assert THING - 1 not in gt.cls
    assert pairs(gt.negative) == [(1, THING)]


def test_a_box_given_for_the_class_and_for_its_ancestor_counts_twice_for_the_ancestor(tmp_path):
    gt = expanded(tmp_path, [(1, CAT), (1, ANIMAL)])
    assert (gt.cls == ANIMAL - 1).sum() == 2


def test_a_label_of_several_classes_is_copied_to_all_of_them():
    truth = truth_of([(1, CAT), (1, CAR)])
    gt = expand(truth, {"a": {"b"}, "b": set()}, ["a", "b", "b", "x", "a"])
    assert (gt.cls + 1).tolist() == [1, 2, 3, 4]


def test_a_label_above_itself_is_copied_once(tmp_path):
    parents = read_hierarchy(written(tmp_path, node("root", node("cat", node("cat")))))
    gt = expand(truth_of([(1, CAT)]), parents, LABELS)
    assert gt.cls.tolist() == [CAT - 1]


def test_a_detector_must_find_the_ancestors_itself(tmp_path):
    gt = expanded(tmp_path, [(1, CAT)], positive=[(1, CAT)])
    rows = [{"image_id": 1, "category_id": c, "bbox": BOX, "score": 0.9} for c in (CAT, PET)]
    ap = class_metrics(run("openimages", gt, read_detections(rows, gt), 0))[:, 0]
    np.testing.assert_allclose(ap, [1, 0, 1, np.nan, np.nan])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LTError, match=r"none\.json: no such file; give Open Images' bbox_labels_600"):
        read_hierarchy(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"LabelName": "a"', "no valid JSON at line 1"),
        ([TREE], "expected an object with LabelName and Subcategory, found list"),
        ({"LabelName": "a"}, "no labels under 'Subcategory'"),
        ({"Subcategory": "cat"}, "expected a list under 'Subcategory' of the outermost object, found str"),
        (node("a", node("b", Subcategory={})), "expected a list under 'Subcategory' of b, found dict"),
        (node("a", node(7)), "needs a text under 'LabelName', found {'LabelName': 7}"),
        (node("a", "cat"), "needs a text under 'LabelName', found 'cat'"),
    ],
)
def test_a_malformed_file_is_named_with_its_fault(tmp_path, content, message):
    with pytest.raises(LTError, match=r"hierarchy\.json: ") as e:
        read_hierarchy(written(tmp_path, content))
    assert message in str(e.value)


def test_a_hierarchy_of_other_labels_is_refused():
    with pytest.raises(
        LTError, match=r"None of the 5 categories \(cat, animal, pet, \.\.\.\) is in the label hierarchy"
    ):
        expand(truth_of([]), {"/m/01yrx": {"/m/0jbk"}, "/m/0jbk": set()}, LABELS)
