import copy
import json
import os
from dataclasses import fields

import lvis_oracle
import numpy as np
import pytest
from coco_oracle import coco_arrays, dataset, random_case, results

from yolo_lt.dataset.bins import Bins
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate import Matches, evaluate
from yolo_lt.evaluate.read import read_detections, read_ground_truth
from yolo_lt.evaluate.report import load_matches, save_matches
from yolo_lt.evaluate.store import ground_truth_sha256

BOX = (10, 10, 20, 20)
SCHEMA_KEYS = {
    *("schema", "protocol", "max_det", "iou_thresholds", "model", "weights_sha256"),
    *("data", "split", "gt_sha256", "imgsz", "conf", "nms_iou"),
    *("head_measured", "versions", "command", "training", "bins", "metrics", "curves", "operating_point", "errors"),
    *("calibration", "examples", "box_quality", "baseline", "per_class"),
}


def three_bins():
    """Categories 10, 20, 30, 40 (no ground truth), 50 (ground truth, in no bin), with ids out of order in the file."""
    anns = [(i, c, BOX) for i in (1, 2, 3, 4) for c in (30, 10, 20)] + [(1, 50, BOX)]
    gt = dataset(anns, (4, 2, 3, 1), (30, 10, 50, 20, 40))
    found = [(i, 10, BOX, 0.9) for i in (1, 2, 3, 4)] + [(i, 20, BOX, 0.9) for i in (1, 2)]
    return gt, results(*found)


BINS = {"head": [10], "medium": [20], "tail": [30, 40]}


def test_schema_is_complete_and_plain_json():
    report = evaluate(*three_bins(), bins=BINS, bootstrap=20).to_json()
    assert set(report) >= SCHEMA_KEYS
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["schema"], report["protocol"], report["max_det"]) == (1, "coco", 100)
    assert (report["task"], report["iou_type"]) == ("detect", "box")
    assert report["iou_thresholds"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert report["bins"] == {"rule": "given", **BINS, "unseen": [50]}
    assert report["cap"] == "100 detections per image and class"
    for key in ("official", "baseline", "examples", "model", "split", "command", "training"):
        assert report[key] is None
    keys = list(report)
    assert keys[keys.index("versions") :][:4] == ["versions", "command", "training", "gt_sha256"]


def test_metrics_by_bin():
    metrics = evaluate(*three_bins(), bins=BINS, bootstrap=0).to_json()["metrics"]
    sizes = ("n_classes", "n_evaluated", "n_gt")
    assert {k: [m[s] for s in sizes] for k, m in metrics.items()} == {
        "all": [5, 4, 13],
        "head": [1, 1, 4],
        "medium": [1, 1, 4],
        "tail": [2, 1, 4],
    }
    assert [metrics["head"][k] for k in ("AP", "AP50", "AP75", "AR")] == [1.0] * 4
    assert metrics["medium"]["AR"] == 0.5
    assert metrics["tail"]["AP"] == 0.0
    assert metrics["all"]["AP"] == pytest.approx((1 + 51 / 101 + 0 + 0) / 4)
    assert metrics["all"]["ci95"] is None


RATES = ("precision", "recall", "F1")
SEEN = ("n_right", "n_det", "n_gt")


def seen_at_two_confidences():
    """As `three_bins`, with a wrong detection of category 10 at 0.5 and a right one of category 30 at 0.1."""
    gt, dets = three_bins()
    return gt, [*dets, *results((1, 10, (200, 200, 5, 5), 0.5), (2, 30, BOX, 0.1))]


def test_the_operating_point_by_bin():
    point = evaluate(*seen_at_two_confidences(), bins=BINS, bootstrap=0).to_json()["operating_point"]
    assert list(point) == ["conf", "thresholds", "iou", "all", "head", "medium", "tail"]
    assert (point["conf"], point["thresholds"], point["iou"]) == (0.25, None, 0.5)
    assert {k: [point[k][n] for n in SEEN] for k in ("all", "head", "medium", "tail")} == {
        "all": [6, 7, 13],
        "head": [4, 5, 4],
        "medium": [2, 2, 4],
        "tail": [0, 0, 4],
    }
    assert [point["all"][r] for r in RATES] == pytest.approx([6 / 7, 6 / 13, 12 / 20])
    assert [point["head"][r] for r in RATES] == pytest.approx([0.8, 1, 8 / 9])
    assert [point["medium"][r] for r in RATES] == pytest.approx([1, 0.5, 2 / 3])
    assert [point["tail"][r] for r in RATES] == [None, 0, 0]


def test_the_operating_point_at_another_confidence_changes_nothing_else():
    case = seen_at_two_confidences()
    low, usual = (evaluate(*case, bins=BINS, bootstrap=5, **kw).to_json() for kw in ({"conf": 0.05}, {}))
    assert low["operating_point"]["conf"] == 0.05
    assert [low["operating_point"]["tail"][k] for k in (*RATES, *SEEN)] == [1, 0.25, 0.4, 1, 1, 4]
    differ = {key for key in low if low[key] != usual[key]}
    assert differ == {"operating_point", "errors"}
    assert low["errors"]["shares"] == usual["errors"]["shares"]  # the confusion is at that confidence, too


def test_the_operating_point_at_thresholds_per_category():
    thresholds = np.array([0.6, 0.95, 0.1, 0, 0])  # of 10, 20, 30, 40, 50
    report = evaluate(*seen_at_two_confidences(), bins=BINS, bootstrap=0, conf=thresholds).to_json()
    point = report["operating_point"]
    assert point["conf"] is None
    assert point["thresholds"] == {"10": 0.6, "20": 0.95, "30": 0.1, "40": 0, "50": 0}
    assert {k: [point[k][n] for n in SEEN] for k in ("all", "head", "medium", "tail")} == {
        "all": [5, 5, 13],
        "head": [4, 4, 4],
        "medium": [0, 0, 4],
        "tail": [1, 1, 4],
    }
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("conf", [[0.5, 0.5], np.full(6, 0.5)])
def test_thresholds_are_one_per_category(conf):
    with pytest.raises(UsageError, match="conf"):
        evaluate(*three_bins(), bootstrap=0, conf=conf)


def test_the_calibration_error_by_bin():
    calibration = evaluate(*seen_at_two_confidences(), bins=BINS, bootstrap=0).to_json()["calibration"]
    assert list(calibration) == ["floor", "bins", "iou", "all", "head", "medium", "tail"]
    assert [calibration[k] for k in ("floor", "bins", "iou")] == [0.05, 20, 0.5]
    # 4 and 2 right ones at 0.9, a wrong one at 0.5, a right one at 0.1
    expected = {
        "head": ((4 * 0.1 + 0.5) / 5, 5, [0.5, 0.9], [0, 1], [1, 4]),
        "medium": (0.1, 2, [0.9], [1], [2]),
        "tail": (0.9, 1, [0.1], [1], [1]),
        "all": ((6 * 0.1 + 0.5 + 0.9) / 8, 8, [0.1, 0.5, 0.9], [1, 0, 1], [1, 1, 6]),
    }
    for name, (error, count, *columns) in expected.items():
        found = calibration[name]
        assert list(found) == ["ECE", "n_det", "reliability"]
        assert (found["ECE"], found["n_det"]) == (pytest.approx(error), count)
        assert list(found["reliability"]) == ["confidence", "precision", "n_det"]
        assert [*found["reliability"].values()] == [pytest.approx(column) for column in columns]


@pytest.mark.parametrize("protocol", ["coco", "lvis", "lvis_fixed", "lvis_pool", "openimages"])
def test_the_calibration_error_is_the_mean_gap_of_its_bins_of_confidence(protocol):
    gt, dets = lvis_oracle.random_case(0, images=30, per_image=60, marks=({"iscrowd": 1},), steps=97)
    report = evaluate(gt, dets, protocol, {"head": [1, 2], "tail": [3, 4, 5]}, bootstrap=0, explain=False).to_json()
    for name in ("all", "head", "tail"):
        found = report["calibration"][name]
        confidence, precision, count = map(np.array, found["reliability"].values())
        assert found["ECE"] == pytest.approx(float(count @ abs(confidence - precision) / count.sum()), abs=1e-9)
        assert count.sum() == found["n_det"]
        at = (confidence * 20).astype(int)
        assert at.tolist() == sorted(set(at.tolist()))
        assert at[0] == 1  # from the floor on
        assert 0 < precision.max() <= 1
    assert report["calibration"]["medium"]["reliability"] == {"confidence": [], "precision": [], "n_det": []}


def test_without_bins_or_detections_or_ground_truth_nothing_is_made_up():
    gt, _ = three_bins()
    report = evaluate(gt, [], bootstrap=0).to_json()
    for key in ("operating_point", "calibration"):
        assert [report[key][name] for name in ("head", "medium", "tail")] == [None] * 3
    assert [report["operating_point"]["all"][k] for k in (*RATES, *SEEN)] == [None, 0, 0, 0, 0, 13]
    nothing = {"confidence": [], "precision": [], "n_det": []}
    assert report["calibration"]["all"] == {"ECE": None, "n_det": 0, "reliability": nothing}
    gt["annotations"] = []
    empty = evaluate(gt, results((1, 10, BOX, 0.9)), bootstrap=0).to_json()
    assert [empty["operating_point"]["all"][k] for k in ("recall", "F1", *SEEN)] == [None, None, 0, 1, 0]


def test_per_class_rows_are_in_the_order_of_ids_and_null_without_ground_truth():
    context = {"train_images": {10: 7, 30: 1}, "train_instances": [9, 5, 2, 0, 0]}
    rows = evaluate(*three_bins(), bins=BINS, bootstrap=0, context=context).to_json()["per_class"]
    assert [r["id"] for r in rows] == [10, 20, 30, 40, 50]
    assert [r["bin"] for r in rows] == ["head", "medium", "tail", "tail", "unseen"]
    assert [r["train_images"] for r in rows] == [7, None, 1, None, None]
    assert [r["train_instances"] for r in rows] == [9, 5, 2, 0, 0]
    assert [r["n_gt"] for r in rows] == [4, 4, 4, 0, 1]
    assert rows[0]["name"] == "class 10"
    assert [r["AP50"] for r in rows] == pytest.approx([1.0, 51 / 101, 0.0, None, 0.0])
    assert (rows[3]["AP"], rows[3]["AP75"]) == (None, None)


def test_bins_as_bins_object_and_as_frequency_letters_give_the_same_numbers():
    gt, dets = three_bins()
    given = evaluate(gt, dets, bins=Bins.from_dict(BINS, "mine"), bootstrap=10).to_json()
    for c in gt["categories"]:
        c["frequency"] = {10: "f", 20: "c"}.get(c["id"], "r")
    letters = evaluate(gt, dets, bootstrap=10).to_json()
    assert given["bins"]["rule"] == "mine"
    assert letters["bins"]["tail"] == [30, 40, 50]
    assert letters["metrics"]["head"] == given["metrics"]["head"]
    assert letters["metrics"]["tail"]["n_evaluated"] == 2


def test_without_bins_only_all_is_reported():
    report = evaluate(*three_bins(), bootstrap=10).to_json()
    assert report["bins"] == dict.fromkeys(("rule", "head", "medium", "tail", "unseen"))
    assert [k for k, m in report["metrics"].items() if m is None] == ["head", "medium", "tail"]
    assert report["metrics"]["all"]["AP"] > 0
    assert {r["bin"] for r in report["per_class"]} == {None}


def test_an_empty_bin_has_null_metrics_and_null_intervals():
    tail = evaluate(*three_bins(), bins={"head": [10, 20, 30], "tail": [40]}, bootstrap=10).to_json()["metrics"]["tail"]
    nothing = dict.fromkeys(("AP", "AP50", "AP75", "AR"))
    assert tail == {**nothing, "n_classes": 1, "n_evaluated": 0, "n_gt": 0, "ci95": nothing}


def test_means_and_intervals_agree_with_pycocotools_and_the_seed():
    gt, dets = random_case(0, images=40, per_image=12, classes=5)
    first = evaluate(gt, dets, bins={"head": [1, 2], "tail": [3, 4, 5]}, bootstrap=50, max_det=7)
    precision, _ = coco_arrays(gt, dets, 7)
    metrics = first.to_json()["metrics"]
    assert metrics["head"]["AP75"] == pytest.approx(precision[5, :, :2].mean(), abs=1e-12)
    assert metrics["tail"]["AP"] == pytest.approx(precision[:, :, 2:].mean(), abs=1e-12)
    low, high = metrics["tail"]["ci95"]["AP"]
    assert low < metrics["tail"]["AP"] < high
    again = evaluate(gt, dets, bins={"head": [1, 2], "tail": [3, 4, 5]}, bootstrap=50, max_det=7)
    other = evaluate(gt, dets, bins={"head": [1, 2], "tail": [3, 4, 5]}, bootstrap=50, max_det=7, seed=1)
    assert again.to_json() == first.to_json()
    assert other.to_json()["metrics"]["tail"]["ci95"] != metrics["tail"]["ci95"]


def test_empty_detections_are_zero_and_no_ground_truth_is_null():
    gt, dets = three_bins()
    empty = evaluate(gt, [], bins=BINS, bootstrap=10).to_json()["metrics"]
    assert (empty["all"]["AP"], empty["tail"]["AR"], empty["tail"]["ci95"]["AP"]) == (0.0, 0.0, [0.0, 0.0])
    gt["annotations"] = []
    report = evaluate(gt, dets, bins=BINS, bootstrap=10).to_json()
    assert {m["AP"] for m in report["metrics"].values()} == {None}
    assert {r["AP"] for r in report["per_class"]} == {None}
    nothing = evaluate({"images": [], "categories": [], "annotations": []}, [], bootstrap=10).to_json()
    assert (nothing["metrics"]["all"]["AP"], nothing["metrics"]["all"]["ci95"]) == (None, None)


def test_paths_strings_as_image_ids_and_prepared_arrays(tmp_path):
    gt, dets = three_bins()
    expected = evaluate(gt, dets, bins=BINS, bootstrap=0).to_json()["metrics"]
    gt["images"] = [{"id": f"image_{i['id']}"} for i in gt["images"]]
    for row in (*gt["annotations"], *dets):
        row["image_id"] = f"image_{row['image_id']}"
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dets.json").write_text(json.dumps(dets))
    from_files = evaluate(tmp_path / "gt.json", str(tmp_path / "dets.json"), bins=BINS, bootstrap=0)
    truth = read_ground_truth(gt)
    from_arrays = evaluate(truth, read_detections(dets, truth), bins=BINS, bootstrap=0)
    assert from_files.to_json()["metrics"] == from_arrays.to_json()["metrics"] == expected


def test_detections_of_unlisted_categories_are_dropped_with_a_warning():
    gt, dets = three_bins()
    clean = evaluate(gt, dets, bins=BINS, bootstrap=0).to_json()
    report = evaluate(gt, [*dets, *results((1, 7, BOX, 0.9))], bins=BINS, bootstrap=0).to_json()
    assert clean["warnings"] == []
    assert report["warnings"] == ["1 of 7 detections have a category that the ground truth does not list; dropped."]
    assert report["metrics"] == clean["metrics"]


def test_context_is_carried():
    context = {"model": "best.pt", "imgsz": 640, "split": "val", "versions": {"numpy": "2"}, "task": "segment"}
    context |= {"command": "yolo-lt val model=best.pt", "training": {"epochs": 3}}
    report = evaluate(*three_bins(), bootstrap=0, context=context).to_json()
    assert {k: report[k] for k in context} == context


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"protocol": "voc"}, "protocol=voc is unknown; choose one of: coco"),
        ({"max_det": 0}, "max_det=0"),
        ({"bootstrap": -1}, "bootstrap=-1"),
        ({"bootstrap": 2.5}, "bootstrap=2.5"),
        ({"bootstrap": None}, "bootstrap=None"),
        ({"bins": {"rare": [10]}}, "'rare' is no bin"),
        ({"bins": [1, 2]}, "'list' is no bin"),
        ({"context": {"modle": "x"}}, "'modle'"),
        ({"context": {"train_images": [1, 2]}}, "2 numbers for 5 categories"),
    ],
)
def test_wrong_usage(keys, sentence):
    with pytest.raises(UsageError) as e:
        evaluate(*three_bins(), **{"bootstrap": 0, **keys})
    assert sentence in str(e.value)


def broken(change):
    gt, dets = three_bins()
    change(gt, dets)
    return gt, dets


def put(where, index, **values):
    return lambda gt, dets: (dets if where == "dets" else gt[where])[index].update(values)


def drop(where, index, key):
    return lambda gt, dets: (dets if where == "dets" else gt[where])[index].pop(key)


DEFECTS = [
    (put("dets", 2, score=float("nan")), "detections[2]: 'score' is nan"),
    (put("dets", 1, score=float("inf")), "detections[1]: 'score' is inf"),
    (put("dets", 0, score="0.5"), "detections[0]: 'score' is '0.5'"),
    (put("dets", 0, score=True), "detections[0]: 'score' is True"),
    (put("dets", 0, score=10**400), "detections[0]: 'score' is 1000"),
    (put("dets", 3, bbox=[0, 0, float("nan"), 1]), "detections[3]: 'bbox' is [0, 0, nan, 1]"),
    (put("dets", 3, bbox=[0, 0, 1]), "detections[3]: 'bbox' is [0, 0, 1]; it must be 4 finite numbers"),
    (put("dets", 3, bbox=None), "detections[3]: 'bbox' is None"),
    (put("dets", 3, bbox="1234"), "detections[3]: 'bbox' is '1234'"),
    (put("dets", 4, image_id=77), "detections[4]: 'image_id' is 77"),
    (put("dets", 4, image_id=[1]), "detections[4]: 'image_id' is [1]"),
    (put("dets", 4, category_id="cat"), "detections[4]: 'category_id' is 'cat'"),
    (drop("dets", 5, "score"), "detections[5]: the key 'score' is missing"),
    (drop("dets", 5, "image_id"), "detections[5]: the key 'image_id' is missing"),
    (lambda gt, dets: dets.insert(1, 5), "detections[1]: expected an object, found int"),
    (lambda gt, dets: gt.pop("images"), "expected a list under 'images', it is missing"),
    (lambda gt, dets: gt.update(categories={}), "expected a list under 'categories', found dict"),
    (put("images", 1, id=4), "images: the id 4 is used twice"),
    (put("images", 1, id="two"), "some ids are integers and some are strings"),
    (put("images", 1, id=1.5), "images[1]: 'id' is 1.5"),
    (put("images", 1, id=2**70), "does not fit into 64 bits"),
    (put("categories", 1, id=30), "categories: the id 30 is used twice"),
    (put("categories", 2, id="x"), "categories[2]: 'id' is 'x'"),
    (put("categories", 2, frequency="q"), "category 10 has frequency None; it must be r, c or f"),
    (put("annotations", 4, id=1), "annotations: the id 1 is used twice"),
    (put("annotations", 4, id=[1]), "annotations: an id is a list"),
    (put("annotations", 4, image_id=77), "annotations[4]: 'image_id' is 77"),
    (put("annotations", 4, category_id=77), "annotations[4]: 'category_id' is 77"),
    (put("annotations", 4, bbox=[0, 0, float("inf"), 1]), "annotations[4]: 'bbox' is [0, 0, inf, 1]"),
    (put("annotations", 4, area=float("nan")), "annotations[4]: 'area' is nan"),
    (put("annotations", 4, iscrowd="no"), "annotations[4]: 'iscrowd' is 'no'"),
    (drop("annotations", 4, "bbox"), "annotations[4]: the key 'bbox' is missing"),
]


@pytest.mark.parametrize(("change", "sentence"), DEFECTS, ids=[s for _, s in DEFECTS])
def test_a_defect_is_named_with_its_place(change, sentence):
    gt, dets = broken(change)
    with pytest.raises(LTError) as e:
        evaluate(gt, dets, bootstrap=0)
    assert sentence in str(e.value)
    assert e.value.exit_code == 1


@pytest.mark.parametrize(
    ("bins", "sentence"),
    [
        ({"head": [10], "tail": [99]}, "99 under 'tail'"),
        ({"head": [10], "tail": [10]}, "category 10 is listed more than once"),
    ],
)
def test_bins_that_do_not_fit_the_ground_truth(bins, sentence):
    with pytest.raises(LTError, match=sentence) as e:
        evaluate(*three_bins(), bins=bins, bootstrap=0)
    assert e.value.exit_code == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'[{"image_id": 1, "category', "no valid JSON at line 1 column"),
        (b"", "no valid JSON at line 1 column 1"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b'{"annotations": []}', "expected a list of detections"),
        (b'"text"', "expected a list of detections"),
        (b"[NaN]", "[0]: expected an object, found float"),
        (b'[{"image_id":1,"category_id":10,"bbox":[0,0,1,1],"score":NaN}]', "[0]: 'score' is nan"),
    ],
)
def test_a_defective_file_is_named(tmp_path, content, sentence):
    path = tmp_path / "dets.json"
    path.write_bytes(content)
    with pytest.raises(LTError) as e:
        evaluate(three_bins()[0], path, bootstrap=0)
    assert str(e.value).startswith(str(path))
    assert sentence in str(e.value)


def test_a_missing_file_and_a_list_as_ground_truth():
    with pytest.raises(LTError, match=r"nowhere\.json: no such file"):
        evaluate("nowhere.json", [])
    with pytest.raises(LTError, match="expected an object with images"):
        evaluate([], [])


def test_the_digest_depends_on_what_is_scored_and_on_nothing_else():
    gt, _ = three_bins()
    digest = ground_truth_sha256(read_ground_truth(gt))
    same = copy.deepcopy(gt)
    for key in ("images", "categories", "annotations"):
        same[key] = [dict(reversed(list(row.items()))) for row in reversed(same[key])]
    same["annotations"] = [{**a, "id": 900 - n} for n, a in enumerate(same["annotations"])]
    del same["annotations"][0]["area"]
    assert ground_truth_sha256(read_ground_truth(same)) == digest
    for key, value in (("bbox", [10, 10, 20, 21]), ("iscrowd", 1), ("area", 3.0), ("image_id", 3), ("category_id", 50)):
        other = copy.deepcopy(gt)
        other["annotations"][0][key] = value
        assert ground_truth_sha256(read_ground_truth(other)) != digest
    more = {**gt, "images": [*gt["images"], {"id": 9}]}
    assert ground_truth_sha256(read_ground_truth(more)) != digest


@pytest.mark.parametrize("text_ids", [False, True])
def test_matches_survive_the_file(tmp_path, text_ids):
    gt, dets = random_case(1, images=20, per_image=15, classes=3)
    if text_ids:
        for row in (*gt["annotations"], *dets):
            row["image_id"] = f"a/{row['image_id']}.jpg"
        gt["images"] = [{"id": f"a/{i['id']}.jpg"} for i in gt["images"]]
    report = evaluate(gt, dets, bootstrap=0)
    save_matches(tmp_path / "matches.npz", report.matches, report.gt_sha256)
    loaded, digest = load_matches(tmp_path / "matches.npz")
    assert digest == report.gt_sha256
    for f in fields(Matches):
        before, after = getattr(report.matches, f.name), getattr(loaded, f.name)
        np.testing.assert_array_equal(before, after)
        assert np.asarray(before).dtype == np.asarray(after).dtype
    assert report.matches.ignore.any()
    assert os.listdir(tmp_path) == ["matches.npz"]


def test_an_unwritable_place_and_a_cut_off_file(tmp_path):
    report = evaluate(*three_bins(), bootstrap=0)
    (tmp_path / "a_file").touch()
    with pytest.raises(LTError, match="cannot be written"):
        save_matches(tmp_path / "a_file" / "matches.npz", report.matches, report.gt_sha256)
    path = tmp_path / "matches.npz"
    save_matches(path, report.matches, report.gt_sha256)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(LTError, match="cut off"):
        load_matches(path)
    np.savez(path, a=np.arange(3))
    with pytest.raises(LTError, match="no matches file"):
        load_matches(path)
    path.write_text("plain text")
    with pytest.raises(LTError, match="no matches file"):
        load_matches(path)
    with pytest.raises(LTError, match="no such file"):
        load_matches(tmp_path / "other.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    report = evaluate(*three_bins(), bootstrap=0)
    path = tmp_path / "matches.npz"
    path.write_text("old")

    def full(*args, **kw):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(LTError, match="disk full"):
        save_matches(path, report.matches, report.gt_sha256)
    assert os.listdir(tmp_path) == ["matches.npz"]
    assert path.read_text() == "old"
