import contextlib
import io
import warnings

import hotcoco
import numpy as np
import pytest

from yolo_lt.errors import LTError
from yolo_lt.evaluate.metrics import class_metrics
from yolo_lt.evaluate.protocols import choose, run
from yolo_lt.evaluate.read import read_detections, read_ground_truth

BOX = (10, 10, 20, 20)
CROWD = (100, 100, 100, 100)
LEFT, RIGHT = (100, 100, 10, 10), (150, 150, 10, 10)  # both within it
AWAY = (300, 300, 20, 20)


def dataset(boxes, groups=(), verified=(), images=(1, 2), classes=(1, 2)):
    """Ground truth from (image, class, box) and from verified (image, class, whether it is there)."""
    rows = [(*b, 0) for b in boxes] + [(*b, 1) for b in groups]
    label = {"pos": [v for v in verified if v[2]], "neg": [v for v in verified if not v[2]]}
    return {
        "images": [
            {"id": i} | {f"{sign}_category_ids": [c for j, c, _ in label[sign] if j == i] for sign in label}
            for i in images
        ],
        "categories": [{"id": c, "name": f"class {c}"} for c in classes],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": list(b), "area": b[2] * b[3], "isgroupof": g}
            for n, (i, c, b, g) in enumerate(rows, 1)
        ],
    }


def matches_of(gt, dets, max_det=0):
    """Detections are (image, class, box, score)."""
    truth = read_ground_truth(gt)
    rows = [{"image_id": i, "category_id": c, "bbox": list(b), "score": s} for i, c, b, s in dets]
    return run("openimages", truth, read_detections(rows, truth), max_det)


def ap_of(gt, dets, max_det=0):
    return class_metrics(matches_of(gt, dets, max_det))[:, 0]


def overlap(a, b, of_union):
    sides = [min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k]) for k in (0, 1)]
    inter = max(sides[0], 0) * max(sides[1], 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter if of_union else a[2] * a[3])


def best_of(box, others, of_union):
    """Position of the first box with the highest overlap, or None where that is below one half."""
    overlaps = [overlap(box, other, of_union) for other in others]
    return overlaps.index(max(overlaps)) if overlaps and max(overlaps) >= 0.5 else None


def judged(boxes, groups, dets):
    """The rules in plain Python: right, wrong or left out for every detection of an image and class, best first."""
    verdicts, taken, hit = [], set(), set()
    for det in dets:
        at = best_of(det, boxes, True)
        into = best_of(det, groups, False)
        if at is not None and at not in taken:
            taken.add(at)
            verdicts.append("right")
        elif into is not None:
            verdicts.append("left out" if into in hit else "right")
            hit.add(into)
        else:
            verdicts.append("wrong")
    return verdicts


def area_under(verdicts, count):
    precisions, right = [], 0
    counted = [v for v in verdicts if v != "left out"]
    for rank, verdict in enumerate(counted, 1):
        if verdict == "right":
            right += 1
            precisions.append(right / rank)
    return sum(max(precisions[k:]) for k in range(len(precisions))) / count


def capped(dets, max_det):
    if not max_det:
        return dets
    kept = [
        k for image in {d[0] for d in dets}
        for k in sorted((k for k, d in enumerate(dets) if d[0] == image), key=lambda k: -dets[k][3])[:max_det]
    ]  # fmt: skip
    return [dets[k] for k in sorted(kept)]


def expected(gt, dets, max_det=0):
    """AP of every class by plain loops; NaN without ground truth."""
    found, dets = [], capped(dets, max_det)
    for c in sorted(row["id"] for row in gt["categories"]):
        anns = [a for a in gt["annotations"] if a["category_id"] == c]
        verified = {i["id"] for i in gt["images"] if c in i["pos_category_ids"] + i["neg_category_ids"]}
        verified |= {a["image_id"] for a in anns}
        mine = [d for d in dets if d[1] == c and d[0] in verified and d[2][2] > 0 and d[2][3] > 0]
        mine.sort(key=lambda d: (-d[3], d[0]))
        verdicts = [""] * len(mine)
        for image in verified:
            at = [k for k, d in enumerate(mine) if d[0] == image]
            kinds = [[a["bbox"] for a in anns if a["image_id"] == image and a["isgroupof"] == g] for g in (0, 1)]
            for k, verdict in zip(at, judged(*kinds, [mine[k][2] for k in at]), strict=True):
                verdicts[k] = verdict
        found.append(area_under(verdicts, len(anns)) if anns else np.nan)
    return np.array(found)


def crowded_case(seed):
    """Boxes on a coarse grid: equal overlaps, equal scores, duplicates; images and classes without anything."""
    rng = np.random.default_rng(seed)

    def entries(most, classes, least_size=1):
        n = int(rng.integers(0, most))
        boxes = np.c_[rng.integers(0, 4, (n, 2)), rng.integers(least_size, 6, (n, 2))]
        return [
            (int(i), int(c), tuple(b.tolist()))
            for i, c, b in zip(rng.choice([1, 1, 2, 3], n), rng.choice(classes, n), boxes, strict=True)
        ]

    boxes, groups = entries(14, [1, 1, 1, 2]), entries(5, [1, 1, 2, 3])
    verified = [(int(i), int(c), bool(i % 2)) for i, c in rng.integers(1, 5, (rng.integers(0, 5), 2))]
    dets = [(*e, float(rng.integers(0, 8)) / 8) for e in entries(50, [1, 1, 1, 1, 2, 3, 4, 9], -1)]
    return dataset(boxes, groups, verified, images=(4, 3, 1, 2), classes=(2, 3, 1, 4)), dets


def random_case(seed, images=40, classes=12, cell=40):
    """Boxes in a grid of cells, so that no detection has a second choice; groups lie anywhere."""
    rng = np.random.default_rng(seed)
    names, cells = range(1, images + 1), [(x, y) for x in range(0, 160, cell) for y in range(0, 160, cell)]
    boxes, groups, verified, dets = [], [], [], []
    for i in names:
        for x, y in (cells[k] for k in rng.permutation(len(cells))[: rng.integers(0, 9)]):
            c, size = int(rng.integers(1, classes)), rng.uniform(15, cell, 2)  # the last class has no box
            boxes.append((i, c, (float(x), float(y), *size.tolist())))
        for c in rng.integers(1, classes, rng.integers(0, 3)):
            groups.append((i, int(c), tuple(rng.uniform(20, 90, 4).tolist())))
        verified += [(i, int(c), bool(rng.random() < 0.3)) for c in rng.integers(1, classes + 1, 4)]
    for i, c, box in (boxes + groups) * 4:
        near = np.array(box) + rng.normal(0, 4, 4)
        c, i = int(rng.integers(1, classes + 2)) if rng.random() < 0.2 else c, int(rng.choice([i, rng.choice(names)]))
        dets.append((i, c, (*near[:2].tolist(), *np.maximum(near[2:], 1).tolist()), float(rng.random())))
    return dataset(boxes, groups, verified, names, range(1, classes + 1)), dets


def hotcoco_ap(gt, dets):
    """AP by hotcoco's Open Images mode; it knows no verified labels, so only detections of those may come."""
    pairs = {(i["id"], c) for i in gt["images"] for k in ("pos", "neg") for c in i[f"{k}_category_ids"]}
    pairs |= {(a["image_id"], a["category_id"]) for a in gt["annotations"]}
    rows = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in dets if (i, c) in pairs]
    anns = [{**a, "is_group_of": a["isgroupof"], "iscrowd": 0} for a in gt["annotations"]]
    truth = hotcoco.COCO(gt | {"annotations": anns})
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        e = hotcoco.COCOeval(truth, truth.load_res(rows), "bbox", oid_style=True)
        e.params.max_dets = [10_000]
        e.run()
    found = e.results(per_class=True)["per_class"]
    return np.array([found.get(c["name"], np.nan) for c in gt["categories"]])


@pytest.mark.parametrize("max_det", [0, 1, 3, 100])
def test_equals_the_rules_in_plain_loops_on_generated_cases(max_det):
    for seed in range(300):
        case = crowded_case(seed)
        np.testing.assert_allclose(
            ap_of(*case, max_det), expected(*case, max_det), atol=1e-9, rtol=0, err_msg=f"{seed}"
        )


@pytest.mark.parametrize("seed", range(4))
def test_equals_hotcoco_and_the_plain_loops_on_many_images(seed):
    gt, dets = random_case(seed)
    ap = ap_of(gt, dets)
    np.testing.assert_allclose(ap, expected(gt, dets), atol=1e-9, rtol=0)
    np.testing.assert_allclose(ap, hotcoco_ap(gt, dets), atol=1e-9, rtol=0)
    assert 0.1 < np.nanmean(ap) < 0.9
    assert np.isnan(ap[-1])


def test_a_detection_of_a_class_that_nobody_verified_is_dropped():
    dets = [(2, 1, BOX, 0.9), (1, 1, BOX, 0.5)]
    assert ap_of(dataset([(1, 1, BOX)]), dets)[0] == 1
    assert hotcoco_ap(dataset([(1, 1, BOX)], verified=[(2, 1, False)]), dets)[0] == 0.5


@pytest.mark.parametrize("there", [True, False])
def test_a_detection_of_a_verified_class_without_a_box_is_wrong(there):
    gt = dataset([(1, 1, BOX)], verified=[(2, 1, there)])
    m = matches_of(gt, [(2, 1, BOX, 0.9), (2, 2, BOX, 0.9), (1, 1, BOX, 0.5)])
    assert m.image.tolist() == [1, 0]
    assert m.tp[:, 0].tolist() == [False, True]
    assert not m.ignore.any()


def test_there_is_no_second_choice():
    gt = dataset([(1, 1, (0, 0, 10, 10)), (1, 1, (0, 2, 10, 10))])
    dets = [(1, 1, (0, 0, 10, 10), 0.9), (1, 1, (0, 0.5, 10, 10), 0.8)]
    m = matches_of(gt, dets)
    assert m.tp[:, 0].tolist() == [True, False]
    assert m.iou.tolist() == [1, 0]
    assert ap_of(gt, dets)[0] == 0.5
    assert hotcoco_ap(gt, dets)[0] == 1


def test_of_equal_ious_the_earlier_box_is_the_one_to_be_found():
    gt = dataset([(1, 1, (0, 0, 10, 8)), (1, 1, (0, 2, 10, 8))])  # both 0.8 with the first detection
    dets = [(1, 1, (0, 0, 10, 10), 0.9), (1, 1, (0, 0, 10, 8), 0.8)]
    assert matches_of(gt, dets).iou.tolist() == [0.8, 0]
    gt["annotations"].reverse()
    assert matches_of(gt, dets).iou.tolist() == [0.8, 1]


def test_of_equal_scores_the_first_in_the_file_takes_the_box():
    m = matches_of(dataset([(1, 1, BOX)]), [(1, 1, (10, 10, 20, 15), 0.5), (1, 1, BOX, 0.5)])
    assert m.iou.tolist() == [0.75, 0]


@pytest.mark.parametrize(("height", "right"), [(5, True), (4.9, False)])
def test_an_iou_of_one_half_is_enough(height, right):
    m = matches_of(dataset([(1, 1, (0, 0, 10, 10))]), [(1, 1, (0, 0, 10, height), 0.9)])
    assert m.tp.tolist() == [[right]]
    assert m.iou_thresholds.tolist() == [0.5]


def test_the_best_detection_in_a_group_is_right_and_the_others_do_not_count():
    gt = dataset([], groups=[(1, 1, CROWD)])
    m = matches_of(gt, [(1, 1, LEFT, 0.5), (1, 1, RIGHT, 0.9), (1, 1, LEFT, 0.9), (1, 1, AWAY, 0.7)])
    assert m.score.tolist() == [0.9, 0.9, 0.7, 0.5]
    assert m.tp[:, 0].tolist() == [True, False, False, False]
    assert m.ignore[:, 0].tolist() == [False, True, False, True]
    assert m.iou.tolist() == [0, 0, 0, 0]
    assert m.gt_count.tolist() == [1]


@pytest.mark.parametrize(("left", "inside"), [(95, True), (94.9, False)])
def test_a_group_absorbs_what_lies_half_in_it(left, inside):
    m = matches_of(dataset([], groups=[(1, 1, CROWD)]), [(1, 1, (left, 100, 10, 10), 0.9)])
    assert m.tp.tolist() == [[inside]]


def test_a_group_that_nothing_hits_is_missed():
    gt = dataset([(1, 1, BOX)], groups=[(1, 1, CROWD)])
    assert ap_of(gt, [(1, 1, BOX, 0.9)])[0] == 0.5


def test_a_box_comes_before_the_group_around_it_and_its_duplicate_falls_to_the_group():
    gt = dataset([(1, 1, LEFT)], groups=[(1, 1, CROWD)])
    m = matches_of(gt, [(1, 1, LEFT, 0.9), (1, 1, LEFT, 0.8), (1, 1, LEFT, 0.7)])
    assert m.tp[:, 0].tolist() == [True, True, False]
    assert m.ignore[:, 0].tolist() == [False, False, True]
    assert m.iou.tolist() == [1, 0, 0]
    assert m.gt_count.tolist() == [2]


def test_a_detection_in_two_groups_counts_for_the_one_that_holds_more_of_it_then_for_the_first():
    groups = [(1, 1, (0, 0, 8, 10)), (1, 1, (0, 0, 10, 10)), (1, 1, (0, 0, 20, 10))]
    m = matches_of(dataset([], groups), [(1, 1, (0, 0, 10, 10), s) for s in (0.9, 0.8)])
    assert m.tp[:, 0].tolist() == [True, False]
    assert m.gt_count.tolist() == [3]


def test_ap_is_the_whole_area_under_the_curve():
    gt = dataset([(1, 1, BOX), (2, 1, BOX)])
    dets = [(1, 1, BOX, 0.9), (1, 1, AWAY, 0.8), (2, 1, BOX, 0.7)]
    values = class_metrics(matches_of(gt, dets))[0]
    np.testing.assert_allclose(values, [5 / 6, 5 / 6, np.nan, 1], rtol=1e-12)


def test_the_cap_is_per_image_over_all_classes_listed_or_not_and_verified_or_not():
    gt = dataset([(1, 1, BOX), (2, 1, BOX)])
    dets = [(1, 9, BOX, 0.9), (1, 2, BOX, 0.8), (1, 1, BOX, 0.7), (2, 1, BOX, 0.1)]
    assert matches_of(gt, dets, max_det=2).image.tolist() == [1]
    assert matches_of(gt, dets, max_det=3).image.tolist() == [0, 1]
    assert matches_of(gt, dets).max_det == 0


def test_detections_of_an_unlisted_category_are_dropped():
    truth = read_ground_truth(dataset([(1, 2, BOX), (2, 1, BOX)]))
    rows = [{"image_id": i, "category_id": c, "bbox": BOX, "score": 0.5} for i, c in ((2, 9), (2, 1))]
    assert choose("openimages", truth, read_detections(rows, truth), 0)[1].cls.tolist() == [0]


def test_a_detection_without_width_or_height_is_dropped():
    m = matches_of(dataset([(1, 1, BOX)]), [(1, 1, (10, 10, *size), 0.9) for size in ((0, 5), (5, 0), (-5, -5))])
    assert m.score.tolist() == []


def test_ignore_and_lists_of_what_is_only_partly_boxed_change_nothing():
    gt = dataset([(1, 1, BOX)])
    gt["annotations"][0]["ignore"] = 1
    gt["images"][0]["not_exhaustive_category_ids"] = [1]
    m = matches_of(gt, [(1, 1, BOX, 0.9), (1, 1, AWAY, 0.8)])
    assert m.tp[:, 0].tolist() == [True, False]
    assert not m.ignore.any()
    assert m.protocol == "openimages"


def test_ground_truth_without_image_level_labels_is_refused():
    gt = dataset([(1, 1, BOX)])
    for image in gt["images"]:
        del image["neg_category_ids"]
    assert ap_of(gt, [(1, 1, BOX, 0.9)])[0] == 1
    for image in gt["images"]:
        del image["pos_category_ids"]
    with pytest.raises(LTError, match="needs verified image-level labels"):
        matches_of(gt, [])


@pytest.mark.parametrize("gt", [dataset([]), dataset([], classes=())])
def test_nothing_at_all_has_no_matches(gt):
    m = matches_of(gt, [])
    assert m.tp.shape == (0, 1)
    assert len(m.gt_count) == 0
