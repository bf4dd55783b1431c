"""`yolo-lt val detections= gt=`: what another framework found, on the command line."""

import csv
import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from yolo_lt import YOLOLT, api
from yolo_lt.cli import main
from yolo_lt.errors import UsageError
from yolo_lt.evaluate import evaluate, load_matches

pytestmark = pytest.mark.usefixtures("without_pages")

BOX, AWAY = [10, 10, 20, 20], [200, 200, 20, 20]
IDS = [10, 20, 30]  # 10 is in 40 training images, 20 in 12 and 30 in 2
HIERARCHY = {"LabelName": "/m/all", "Subcategory": [{"LabelName": "thing", "Subcategory": [{"LabelName": "name30"}]}]}


def truth(**of_category):
    """Twelve images with a box of every category; `of_category` are fields, as a list in the order of `IDS`."""
    more = [{k: v[i] for k, v in of_category.items()} for i in range(3)]
    return {
        "images": [{"id": i, "neg_category_ids": [], "not_exhaustive_category_ids": []} for i in range(12)],
        "categories": [{"id": c, "name": f"name{c}", **x} for c, x in zip(IDS, more, strict=True)],
        "annotations": [{"id": 3 * i + k + 1, "image_id": i, "category_id": c, "bbox": BOX, "area": 400, "iscrowd": 0}
                        for i in range(12) for k, c in enumerate(IDS)],
    }  # fmt: skip


def found(right=(12, 8, 4)):
    """Of every category so many right detections, and wrong ones in the other images."""
    return [{"image_id": i, "category_id": c, "bbox": BOX if i < n else AWAY, "score": round(1 - i / 20, 3)}
            for c, n in zip(IDS, right, strict=True) for i in range(12)]  # fmt: skip


@pytest.fixture
def val(tmp_path, monkeypatch):
    """val("official=true", dets=..., gt=...) -> exit code; the files are written first, None is left out."""
    monkeypatch.chdir(tmp_path)

    def call(*words, dets=None, gt=None):
        (tmp_path / "dets.json").write_text(dets if isinstance(dets, str) else json.dumps(dets or found()))
        (tmp_path / "gt.json").write_text(gt if isinstance(gt, str) else json.dumps(gt or truth()))
        return main(["val", "detections=dets.json", "gt=gt.json", "project=out", "bootstrap=20", *words])

    return call


def report(folder="val"):
    with open(f"out/{folder}/report.json", encoding="utf-8") as f:
        return json.load(f)


def test_the_three_files_say_what_evaluate_says(val, caplog):
    gt = truth(frequency=["f", "c", "r"], image_count=[40, 12, 2])
    assert val(gt=gt) == 0
    content = report()
    expected = evaluate(gt, found(), bootstrap=20, examples=6).to_json()
    own = ("model", "data", "versions", "command")
    assert {k: v for k, v in content.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}
    assert (content["model"], content["data"], content["head_measured"]) == ("dets.json", "gt.json", None)
    matches, digest = load_matches("out/val/matches.npz")
    assert (len(matches.score), digest) == (36, content["gt_sha256"])
    with open("out/val/per_class.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [(r["id"], r["name"], r["bin"], r["train_images"], r["n_gt"]) for r in rows] == [
        ("10", "name10", "head", "40", "12"),
        ("20", "name20", "medium", "12", "12"),
        ("30", "name30", "tail", "2", "12"),
    ]
    assert [float(r["AP50"]) for r in rows] == pytest.approx([1, 67 / 101, 34 / 101], abs=1e-5)
    assert "protocol coco, 100 detections per image and class, split -, bins: the data set's frequency" in caplog.text


@pytest.mark.pages
def test_the_page_says_the_same_and_how_to_get_it_again(val):
    assert val(gt=truth(frequency=["f", "c", "r"], image_count=[40, 12, 2])) == 0
    page = Path("out/val/report.html").read_text(encoding="utf-8")
    assert "<title>dets.json on gt.json</title>" in page
    command = re.search("<code>(.*?)</code>", page)[1]
    Path("out/val/report.json").rename("before.json")
    assert main([*shlex.split(html.unescape(command))[1:], "exist_ok=true"]) == 0
    before, after = (json.loads(Path(p).read_text()) for p in ("before.json", "out/val/report.json"))
    assert {**before, "command": None} == {**after, "command": None}
    assert sorted(p.name for p in Path("out/val").glob("*.png")) == [
        "ap_by_images.png",
        "calibration_by_bin.png",
        "errors_by_bin.png",
        "pr_by_bin.png",
    ]


def test_every_call_has_its_own_folder_unless_it_is_told_another(val):
    for words in ([], [], ["name=mine"], ["name=mine", "exist_ok=true", "max_det=1"]):
        assert val(*words) == 0
    differing = ("max_det", "cap", "recall_by_cap", "errors", "command")
    assert report("val") == report("val-2") == {**report("mine"), **{k: report("val")[k] for k in differing}}
    assert report("mine")["max_det"] == 1


BINS = {
    "letters": ([], {"frequency": ["r", "f", "c"]}, ([20], [30], [10]), "the data set's frequency field"),
    "letters before counts": ([], {"frequency": ["r", "f", "c"], "image_count": [9, 9, 9]}, ([20], [30], [10]), "the"),
    "two numbers": (["bins=2,12"], {"image_count": [40, 12, 2]}, ([10], [20], [30]), "tail <= 2 < medium <= 12"),
    "numbers before letters": (
        *(["bins=12,40"], {"image_count": [40, 12, 2], "frequency": ["r", "r", "r"]}),
        *(([], [10], [20, 30]), "tail <= 12"),
    ),
    "thirds of counts": ([], {"image_count": [40, 12, 2]}, ([10], [20], [30]), "auto: thirds of log image count"),
    "a class in no training image": (["bins=2,12"], {"image_count": [40, 12, 0]}, ([10], [20], []), "tail <= 2"),
    "a file": (["bins=bins.yaml"], {}, ([30, 10], [], [20]), "file bins.yaml"),
    "a file before letters": (["bins=bins.yaml"], {"frequency": ["f", "f", "f"]}, ([30, 10], [], [20]), "file"),
}


@pytest.mark.parametrize("what", BINS)
def test_bins_come_from_the_key_then_letters_then_counts(val, tmp_path, what):
    words, fields, bins, rule = BINS[what]
    (tmp_path / "bins.yaml").write_text("head: [30, 10]\ntail: [20]\n")
    assert val(*words, gt=truth(**fields)) == 0
    content = report()
    assert tuple(content["bins"][b] for b in ("head", "medium", "tail")) == tuple(map(sorted, bins))
    assert content["bins"]["rule"].startswith(rule)
    for name, ids in zip(("head", "medium", "tail"), bins, strict=True):
        aps = [c["AP"] for c in content["per_class"] if c["id"] in ids]
        assert content["metrics"][name]["AP"] == (pytest.approx(np.mean(aps)) if aps else None)


def test_without_anything_about_frequency_there_are_no_bins(val, caplog):
    assert val() == 0
    assert report()["bins"]["rule"] is None
    assert report()["metrics"]["tail"] is None
    assert report()["metrics"]["all"]["n_gt"] == 36


def test_the_difference_to_other_detections(val, tmp_path, caplog):
    (tmp_path / "other.json").write_text(json.dumps(found((12, 12, 0))))
    gt = truth(frequency=["f", "c", "r"])
    assert val("baseline=other.json", gt=gt) == 0
    baseline = report()["baseline"]
    assert (baseline["name"], baseline["model"], baseline["replicates"]) == ("other.json", "other.json", 20)
    assert baseline["difference"]["tail"]["AP50"][0] == pytest.approx(34 / 101)
    assert baseline["difference"]["medium"]["AP50"][0] == pytest.approx(67 / 101 - 1)
    assert [baseline["difference"][b]["is"]["AP"] for b in ("head", "medium", "tail")] == [
        *("no difference shown", "worse", "better"),
    ]
    assert "this - other.json" in caplog.text
    assert val("baseline=out/val", dets=found((12, 12, 0)), gt=gt) == 0
    mirrored = report("val-2")["baseline"]
    assert mirrored["difference"]["tail"]["AP"][0] == pytest.approx(-baseline["difference"]["tail"]["AP"][0])
    assert (mirrored["name"], mirrored["model"]) == ("out/val", "dets.json")


def test_a_baseline_that_cannot_be_paired_costs_no_report(val, tmp_path, capsys):
    (tmp_path / "cut.json").write_text(json.dumps(found())[:500])
    assert val("baseline=cut.json") == 1
    assert "cut.json: no valid JSON" in capsys.readouterr().err
    assert report()["baseline"] is None
    assert report()["metrics"]["all"]["AP"] > 0


@pytest.mark.parametrize(("protocol", "package"), [("coco", "pycocotools"), ("lvis", "lvis"), ("lvis_fixed", "lvis")])
def test_the_official_package_agrees(val, caplog, protocol, package):
    assert val("official=true", f"protocol={protocol}", gt=truth(frequency=["f", "c", "r"])) == 0
    official, ours = report()["official"], report()["metrics"]["all"]
    assert official["package"] == package
    assert official["largest_difference"] < 1e-9
    assert {m: official[m] for m in ("AP", "AP50", "AP75", "AR")} == pytest.approx(
        {m: ours[m] for m in ("AP", "AP50", "AP75", "AR")}
    )
    assert f"{package} {official['version']}: AP {ours['AP']:.6f}" in caplog.text


def test_open_images_by_a_hierarchy(val, tmp_path):
    """A box of category 30 also counts for the category above, of which the other boxes are found."""
    gt = truth()
    gt["categories"][0]["name"] = "thing"
    (tmp_path / "tree.json").write_text(json.dumps(HIERARCHY))
    assert val("protocol=openimages", gt=gt) == 0
    assert val("protocol=openimages", "hierarchy=tree.json", gt=gt) == 0
    plain, expanded = (report(name) for name in ("val", "val-2"))
    assert [c["n_gt"] for c in plain["per_class"]] == [12, 12, 12]
    assert [c["n_gt"] for c in expanded["per_class"]] == [24, 12, 12]
    assert (plain["metrics"]["all"]["AP75"], plain["errors"]["shares"], plain["cap"]) == (
        *(None, None, "no cap on detections"),
    )
    assert plain["gt_sha256"] != expanded["gt_sha256"]


PLAIN = {**truth(), "images": [{"id": i} for i in range(12)]}
STRANGE = [*found()[:1], {**found()[0], "image_id": 99}]
ERRORS = {
    "a model beside it": (["model=best.pt"], {}, 2, "model does not act with detections="),
    "a data set beside it": (["data=coco.yaml"], {}, 2, "data does not act with detections="),
    "imgsz": (["imgsz=640"], {}, 2, "imgsz does not act with detections="),
    "conf": (["conf=0.1"], {}, 2, "conf does not act with detections="),
    "a mistyped key": (["boostrap=3"], {}, 2, "did you mean 'bootstrap'?"),
    "a hierarchy for nothing": (["hierarchy=tree.json"], {}, 2, "hierarchy acts only with protocol=openimages"),
    "no package": (["official=true", "protocol=openimages"], {}, 2, "no package computes protocol=openimages"),
    "no counts": (["bins=10,100"], {}, 1, "bins=[10, 100] needs the training images of every category"),
    "not federated": (["protocol=lvis"], {"gt": PLAIN}, 1, "protocol=lvis needs federated ground truth"),
    "half the detections": ([], {"dets": json.dumps(found())[:500]}, 1, "dets.json: no valid JSON at line 1 column"),
    "half the ground truth": ([], {"gt": json.dumps(truth())[:500]}, 1, "gt.json: no valid JSON at line 1 column"),
    "no baseline": (["baseline=none.json"], {}, 1, "baseline=none.json: no such file, and no folder"),
    "an index": (["federated=index.npz"], {}, 2, "federated does not act with detections="),
    "a strange image": ([], {"dets": STRANGE}, 1, "dets.json[1]: 'image_id' is 99"),
    "no such bins": (["bins=missing.yaml"], {}, 1, "bins=missing.yaml: no such file"),
    "another category in the bins": (["bins=wrong.yaml"], {}, 1, "40 under 'tail' is no category id"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors_name_the_file_and_write_nothing(val, tmp_path, what, capfd):
    words, files, code, says = ERRORS[what]
    (tmp_path / "cut.json").write_text('[{"image_id": 1,')
    (tmp_path / "wrong.yaml").write_text("head: [10, 20, 30]\ntail: [40]\n")
    assert val(*words, **files) == code
    error = capfd.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["detections=no.json", "gt=gt.json"], 1, "no.json: no such file"),
        (["detections=dets.json", "gt=no.json"], 1, "no.json: no such file"),
        (["detections=dets.json"], 2, "detections=... needs gt=ANNOTATIONS.json"),
        (["gt=gt.json"], 2, "model=... is missing"),
    ],
)
def test_both_files_must_be_there(val, words, code, says, capfd):
    assert val() == 0
    assert main(["val", *words]) == code
    assert says in capfd.readouterr().err


def test_the_keys_may_stand_in_a_file(val, tmp_path):
    (tmp_path / "keys.yaml").write_text("detections: dets.json\ngt: gt.json\nbootstrap: 0\nproject: out\n")
    assert val() == 0
    assert main(["val", "cfg=keys.yaml"]) == 0
    assert report("val-2")["metrics"]["all"] == {**report()["metrics"]["all"], "ci95": None}


def test_ground_truth_without_detections_and_detections_with_a_model_are_refused(checkpoint, toy):
    weights = checkpoint("yolov8n.yaml")
    with pytest.raises(UsageError, match="gt acts only with detections"):
        api.val(str(weights), data=str(toy), gt="gt.json")
    with pytest.raises(UsageError, match="detections= is evaluated without a model: leave model out"):
        YOLOLT(weights).val(data=str(toy), detections="dets.json", gt="gt.json")
    with pytest.raises(UsageError, match="model does not act with detections="):
        api.val(str(weights), detections="dets.json", gt="gt.json")
