"""`yolo-lt val` through Ultralytics, against pycocotools live on the same detections."""

import base64
import contextlib
import csv
import io
import json

import cv2
import numpy as np
import pytest
from conftest import LONG_TAIL, NAMES, write_yolo_set
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shapely import Polygon
from ultralytics import YOLO

from yolo_lt import YOLOLT
from yolo_lt.errors import LTError
from yolo_lt.evaluate import load_matches
from yolo_lt.evaluate.metrics import precision_recall
from yolo_lt.files import slug
from yolo_lt.ultra.validator import VALIDATORS

pytestmark = pytest.mark.usefixtures("without_pages")

MODELS = {
    "detect": "yolov8n.yaml",
    "segment": "yolov8n-seg.yaml",
    "pose": "yolo11n-pose.yaml",
    "obb": "yolov8n-obb.yaml",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network of every task, trained for a moment so that some boxes are right; {task: (weights, data)}."""
    found = {}

    def get(task, model=None):
        model = model or MODELS[task]
        if model not in found:
            folder = tmp_path_factory.mktemp(model.split(".")[0])
            data = write_yolo_set(folder / "set", LONG_TAIL, NAMES, val=20, kind=task)
            keys = {"imgsz": 64, "batch": 8, "optimizer": "AdamW", "lr0": 3e-3, "plots": False, "device": "cpu"}
            keys |= {"epochs": 12, "mosaic": 0, "nbs": 8, "val": False, "save": False}  # the last epoch is saved anyway
            YOLO(model).train(**keys, data=str(data), project=str(folder), name="run")
            found[model] = (folder / "run" / "weights" / "last.pt", data)
        return found[model]

    return get


class TurnedEval(COCOeval):
    """With the IoU of the polygons of boxes that have an angle."""

    def computeIoU(self, image, category):
        found = sorted(self._dts[image, category], key=lambda d: -d["score"])[: self.params.maxDets[-1]]
        mine, theirs = ([polygon(x) for x in rows] for rows in (found, self._gts[image, category]))
        return np.array([[a.intersection(b).area / a.union(b).area for b in theirs] for a in mine])


def polygon(row):
    (x, y, width, height), angle = row["bbox"], row["angle"]
    return Polygon(cv2.boxPoints(((x + width / 2, y + height / 2), (width, height), float(np.degrees(angle)))))


def oracle(gt, dets, max_det):
    """pycocotools' precision (T, R, K) and recall (T, K)."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = gt
        truth.createIndex()
        e = (TurnedEval if "angle" in dets[0] else COCOeval)(truth, truth.loadRes(dets), "bbox")
        e.params.maxDets = [max_det]
        e.evaluate()
        e.accumulate()
    return e.eval["precision"][:, :, :, 0, 0], e.eval["recall"][:, :, 0, 0]


def as_coco(truth, found):
    annotations = [
        {"id": i + 1, "image_id": int(m), "category_id": int(c), "bbox": b.tolist(), "area": float(a), "iscrowd": 0}
        for i, (m, c, b, a) in enumerate(zip(truth.image, truth.cls, truth.box, truth.area, strict=True))
    ]
    images = [{"id": i} for i in range(len(truth.image_ids))]
    gt = {"images": images, "annotations": annotations, "categories": [{"id": int(c)} for c in truth.category_ids]}
    columns = zip(found.image, found.cls, found.box, found.score, strict=True)
    dets = [
        {"image_id": int(m), "category_id": int(c), "bbox": b.tolist(), "score": float(s)} for m, c, b, s in columns
    ]
    for boxes, rows in ((truth, annotations), (found, dets)) if truth.angle is not None else ():
        for row, angle in zip(rows, boxes.angle, strict=True):
            row["angle"] = float(angle)
    return gt, dets


@pytest.mark.slow
@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("max_det", [None, 7])
def test_report_equals_pycocotools_on_the_same_run(trained, tmp_path, monkeypatch, task, max_det):
    weights, data = trained(task)
    seen = {}
    real = VALIDATORS[task].evaluation_input

    def keep(self, names, index=None):
        seen["input"] = real(self, names, index=index)
        return seen["input"]

    monkeypatch.setattr(VALIDATORS[task], "evaluation_input", keep)
    keys = {} if max_det is None else {"max_det": max_det}
    keys |= {"data": str(data), "imgsz": 64, "project": str(tmp_path), "plots": False, "conf": 1e-4}
    report = YOLOLT(weights).val(**keys)
    gt, dets = as_coco(*seen["input"])
    assert len(dets) > 100
    precision, recall = oracle(gt, dets, max_det or 100)
    ours = precision_recall(report.matches)
    assert report.iou_type == ("rotated box" if task == "obb" else "box")
    np.testing.assert_allclose(ours[0], precision, atol=1e-9)
    np.testing.assert_allclose(ours[1], recall, atol=1e-9)
    metrics = report.to_json()["metrics"]
    assert metrics["all"]["AP"] > 0.001, "a test on all-zero numbers shows nothing"
    known = precision[:, :, report.bins["head"]]
    assert metrics["head"]["AP"] == pytest.approx(known[known > -1].mean(), abs=1e-9)


@pytest.mark.slow
def test_files_of_a_validation(trained, tmp_path):
    weights, data = trained("detect")
    report = YOLOLT(weights).val(data=str(data), imgsz=64, project=str(tmp_path), name="v", plots=False, bootstrap=50)
    folder = tmp_path / "v"
    content = json.loads((folder / "report.json").read_text())
    assert content == json.loads(json.dumps(report.to_json()))
    assert content["weights_sha256"]
    assert (content["max_det"], content["split"], content["head_measured"]) == (100, "val", "one2many")
    assert [c["train_images"] for c in content["per_class"]] == [33, 12, 3]
    assert content["bins"]["tail"] == [2]
    low, high = content["metrics"]["head"]["ci95"]["AP50"]
    assert low <= content["metrics"]["head"]["AP50"] <= high
    matches, digest = load_matches(folder / "matches.npz")
    assert digest == content["gt_sha256"]
    assert len(matches.image_ids) == 20
    with (folder / "per_class.csv").open() as f:
        assert [row["name"] for row in csv.DictReader(f)] == NAMES


@pytest.mark.slow
def test_end_to_end_heads_say_which_head_was_measured(trained, tmp_path):
    weights, data = trained("detect", "yolo26n.yaml")
    for nms, name in ((None, "one2many"), (False, "one2one")):
        model = YOLOLT(weights)
        report = model.val(data=str(data), imgsz=64, project=str(tmp_path), plots=False, bootstrap=0, nms=nms)
        assert report.to_json()["head_measured"] == name


@pytest.mark.slow
def test_bins_come_from_the_key_then_the_run_then_the_train_labels(trained, tmp_path):
    weights, data = trained("detect")
    keys = {"data": str(data), "imgsz": 64, "project": str(tmp_path), "plots": False, "bootstrap": 0}

    def bins(**more):
        return YOLOLT(weights).val(**keys, **more).bins

    assert bins()["rule"].startswith("auto")
    assert bins(bins=[5, 20])["medium"] == [1]
    lt = {"keys": {}, "names": NAMES, "image_counts": [1, 2, 300], "instance_counts": [1, 2, 300]}
    lt["bins"] = {"rule": "from the run", "head": [2], "medium": [], "tail": [0, 1], "unseen": []}
    beside = weights.parent.parent / "lt.yaml"
    beside.write_text(json.dumps(lt))
    try:
        assert bins()["rule"] == "from the run"
        assert bins(bins=[5, 20])["head"] == [2]
        beside.write_text("keys: [")
        with pytest.raises(LTError, match=r"lt\.yaml"):
            bins()
    finally:
        beside.unlink()
    train = data.parent / "labels" / "train"
    train.rename(train.with_name("away"))
    (data.parent / "labels" / "train.cache").unlink(missing_ok=True)
    try:
        with pytest.raises(LTError, match="no training counts"):
            bins()
    finally:
        train.with_name("away").rename(train)


@pytest.mark.slow
def test_nms_never_drops_images_for_time(trained, tmp_path, monkeypatch):
    """Ultralytics gives zero boxes to the images after its time limit; with a clock that races, ours must not."""
    from ultralytics.utils import nms

    weights, data = trained("detect")
    keys = {"data": str(data), "imgsz": 64, "project": str(tmp_path), "plots": False, "bootstrap": 0}
    expected = YOLOLT(weights).val(**keys)

    class Racing:
        now = 0.0

        @classmethod
        def time(cls):
            cls.now += 100.0
            return cls.now

    monkeypatch.setattr(nms, "time", Racing)
    ours = YOLOLT(weights).val(**keys)
    assert len(ours.matches.score) == len(expected.matches.score)


@pytest.mark.slow
@pytest.mark.pages
@pytest.mark.parametrize("task", MODELS)
def test_the_page_of_every_task_shows_objects_of_the_weakest_class(trained, tmp_path, task):
    weights, data = trained(task)
    keys = {"data": str(data), "imgsz": 64, "project": str(tmp_path), "name": "v", "plots": False, "bootstrap": 0}
    report = YOLOLT(weights).val(**keys, examples=1)
    (example,) = json.loads((tmp_path / "v" / "report.json").read_text())["examples"]
    aps = {c["id"]: c["AP50"] for c in report.per_class if c["n_gt"]}
    assert aps[example["id"]] == min(aps.values()), "of all classes: the tail is in no image of val"
    assert example["found"] + example["confused"] + example["missed"] == example["n_gt"]
    pictures = [tmp_path / "v" / shown["file"] for shown in example["shown"]]
    assert 0 < len(pictures) <= 4
    page = (tmp_path / "v" / "report.html").read_text(encoding="utf-8")
    for shown, picture in zip(example["shown"], pictures, strict=True):
        assert picture.name.startswith(f"1-{example['id']}-{slug(NAMES[example['id']])}-")
        assert min(cv2.imread(str(picture)).shape[:2]) > 100
        assert base64.b64encode(picture.read_bytes()).decode() in page
        assert (len(shown["box"]) == 5) == (task == "obb")
    assert f"model={weights}" in page
    assert page.count("<svg xmlns") >= 3, "AP by images, errors, precision and recall; calibration needs detections"
    assert not list((tmp_path / "v").glob("*.png"))


@pytest.mark.slow
@pytest.mark.pages
def test_no_examples_no_pictures(trained, tmp_path):
    weights, data = trained("detect")
    keys = {"data": str(data), "imgsz": 64, "project": str(tmp_path), "name": "v", "plots": False, "bootstrap": 0}
    YOLOLT(weights).val(**keys, examples=3)
    assert len(list((tmp_path / "v" / "examples").iterdir())) > 0
    YOLOLT(weights).val(**keys, examples=0, exist_ok=True)
    assert json.loads((tmp_path / "v" / "report.json").read_text())["examples"] is None
    assert not list(tmp_path.glob("v/examples/*"))
    assert "data:image/jpeg" not in (tmp_path / "v" / "report.html").read_text(encoding="utf-8")
