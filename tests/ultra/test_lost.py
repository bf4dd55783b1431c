"""Objects that the network saw and that NMS or max_det took away: by hand, and through `yolo-lt val`."""

import numpy as np
import pytest
import torch
from conftest import LONG_TAIL, NAMES, random_network, write_yolo_set
from test_epochs import trained

from yolo_lt import YOLOLT
from yolo_lt.evaluate import load_matches
from yolo_lt.ultra import evaluation
from yolo_lt.ultra.lost import LostCounts
from yolo_lt.ultra.validator import VALIDATORS, LTDetectionValidator

SIZE = 100  # pixels, so that a label of 0.2 is a box of 20
CONF = 0.1


def objects(*rows, image=0):
    """Labels of an image, (class, x, y, width, height) in pixels."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return torch.full((len(rows),), float(image)), table[:, :1], table[:, 1:] / SIZE


def batch(*images):
    parts = [objects(*rows, image=i) for i, rows in enumerate(images)]
    idx, cls, boxes = (torch.cat(x) for x in zip(*parts, strict=True))
    return {"img": torch.zeros(len(images), 3, SIZE, SIZE), "batch_idx": idx, "cls": cls, "bboxes": boxes}


def candidates(*images, extra=0):
    """The network's output of images with equally many candidates: (x, y, width, height, score of every class)."""
    raw = torch.tensor(images, dtype=torch.float32).transpose(1, 2)
    return torch.cat([raw, torch.ones(len(images), extra, raw.shape[2])], 1)


def left(*rows):
    """What NMS leaves of an image: (x, y, width, height, score, class), best first."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    table[:, :2] -= table[:, 2:4] / 2
    table[:, 2:4] += table[:, :2]
    return table


OBJECT = (1, 50, 50, 20, 20)
HERE, NEAR, FAR = (50, 50, 20, 20), (50, 55, 20, 20), (50, 58, 20, 20)  # IoU 1, 0.6 and 0.43


@pytest.mark.parametrize(
    ("raw", "kept", "expected"),
    [
        ([(*HERE, 0, 0.9)], [(*HERE, 0.9, 1)], [1, 1, 1, 1]),
        ([(*NEAR, 0, 0.9)], [(*NEAR, 0.9, 1)], [1, 1, 1, 1]),
        ([(*FAR, 0, 0.9)], [(*FAR, 0.9, 1)], [1, 0, 0, 0]),
        ([(*HERE, 0, CONF)], [], [1, 0, 0, 0]),
        ([(*HERE, 0.9, 0.05)], [(*HERE, 0.9, 0)], [1, 0, 0, 0]),
        ([(*HERE, 0.9, 0.2)], [(*HERE, 0.9, 0)], [1, 1, 0, 0]),
        ([(*NEAR, 0, 0.2), (*FAR, 0, 0.9)], [(*FAR, 0.9, 1)], [1, 1, 0, 0]),
        ([(*NEAR, 0, 0.2), (*FAR, 0.9, 0)], [(*FAR, 0.9, 0), (*FAR, 0.8, 0), (*NEAR, 0.2, 1)], [1, 1, 1, 0]),
        ([(*NEAR, 0, 0.2), (*FAR, 0.9, 0)], [(*FAR, 0.9, 0), (*NEAR, 0.2, 1)], [1, 1, 1, 1]),
    ],
    ids=["found", "near", "off", "at the least score", "of another class", "agnostic NMS", "NMS", "max_det", "within"],
)
def test_an_object_is_seen_and_dropped_or_never_seen(raw, kept, expected):
    lost = LostCounts(2)
    lost.add(batch([OBJECT]), candidates(raw), [left(*kept)], CONF, 2)
    assert lost.counts.tolist() == [[0, n] for n in expected]


def test_images_and_classes_are_kept_apart_and_batches_add_up():
    """Three images: an empty one, one with two objects of a class, and one whose boxes lie in the other's place."""
    lost, other = LostCounts(3), (0, 20, 20, 10, 10)
    objects_of = batch([], [OBJECT, OBJECT, other], [(2, 80, 80, 20, 20)])
    raw = candidates([(*HERE, 0, 0.9, 0)], [(*HERE, 0, 0.9, 0)], [(*HERE, 0, 0.9, 0)], extra=32)
    kept = [left((*HERE, 0.9, 1)), left((*HERE, 0.9, 1)), left()]
    for _ in range(2):
        lost.add(objects_of, raw, kept, CONF, 300)
    assert lost.counts.tolist() == [[2, 4, 2], [0, 4, 0], [0, 4, 0], [0, 4, 0]]


# Through val ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    return {"imgsz": 64, "plots": False, "device": "cpu", "bootstrap": 0, "project": str(tmp_path), "exist_ok": True}


def detections(folder):
    matches = load_matches(folder / "val" / "matches.npz")[0]
    return [getattr(matches, name) for name in ("image", "cls", "score", "tp", "iou")]


@pytest.mark.slow
@pytest.mark.parametrize("max_det", [1, 300])
def test_counting_changes_no_detection_and_adds_up(tmp_path, keys, monkeypatch, max_det):
    weights, data = trained()
    said = YOLOLT(weights).val(**keys, data=str(data), max_det=max_det).errors["lost"]
    counted = detections(tmp_path)
    assert [said[k] for k in ("iou", "conf", "nms_iou", "max_det")] == [0.5, 0.001, 0.7, max_det]
    parts = ("n_gt", "never_seen", "lost_to_nms", "lost_to_max_det")
    of_bin = np.array([[said[b][p] for p in parts] for b in ("all", "head", "medium", "tail")])
    assert of_bin[0].tolist() == of_bin[1:].sum(axis=0).tolist()
    assert of_bin[:, 0].tolist() == [24, 12, 8, 4]
    assert (of_bin >= 0).all()
    assert (of_bin[:, 1:].sum(axis=1) <= of_bin[:, 0]).all()
    assert (of_bin[0, 3] > 0) == (max_det == 1), "of images with two objects one is lost to max_det=1"
    monkeypatch.setattr(evaluation, "VALIDATORS", {"detect": Uncounted})
    assert YOLOLT(weights).val(**keys, data=str(data), max_det=max_det).errors["lost"] is None
    for ours, plain in zip(counted, detections(tmp_path), strict=True):
        assert np.array_equal(ours, plain)


class Uncounted(LTDetectionValidator):
    """One that does not count, whatever it is told."""

    counts_lost = property(lambda self: False, lambda self, value: None)


@pytest.mark.slow
@pytest.mark.parametrize(("cfg", "task"), [("yolov8n.yaml", "detect"), ("yolo11n-seg.yaml", "segment")])
def test_it_changes_nothing_where_nms_has_much_to_do(tmp_path, keys, monkeypatch, cfg, task):
    """On a network of many boxes, with a low IoU and few that may stay."""
    names = [*NAMES, *(f"class {i}" for i in range(3, 80))]
    data = write_yolo_set(tmp_path / "set", [[0, 1, 2, 0, 1, 2]] * 12 + LONG_TAIL, names, val=12, kind=task)
    weights, seen = random_network(cfg, tmp_path / "network.pt", active=3, size=64), []
    plain = type("Plain", (VALIDATORS[task],), {"counts_lost": Uncounted.counts_lost})
    for validators in (VALIDATORS, {task: plain}):
        monkeypatch.setattr(evaluation, "VALIDATORS", validators)
        seen.append((YOLOLT(weights).val(**keys, data=str(data), iou=0.1, max_det=20), detections(tmp_path)))
    assert all(np.array_equal(a, b) for a, b in zip(seen[0][1], seen[1][1], strict=True))
    assert seen[1][0].errors["lost"] is None
    said = seen[0][0].errors["lost"]["all"]
    assert said["n_gt"] == 72
    assert said["lost_to_nms"] > 0
    assert said["lost_to_max_det"] > 0 or task == "segment"
    assert sum(said.values()) < 2 * 72, "and some objects must be found"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cfg", "kind", "more"), [("yolo26n.yaml", "detect", {"nms": False}), ("yolo11n-obb.yaml", "obb", {})]
)
def test_heads_without_nms_and_turned_boxes_have_no_such_count(checkpoint, sets, tmp_path, keys, cfg, kind, more):
    report = YOLOLT(checkpoint(cfg)).val(**keys, data=str(sets(kind)), **more)
    assert report.errors["lost"] is None
    assert report.errors["confusion"] is not None


@pytest.mark.slow
@pytest.mark.parametrize(("cfg", "kind"), [("yolo26n.yaml", "detect"), ("yolov8n-pose.yaml", "pose")])
def test_a_bin_that_val_does_not_show_has_counts_of_0(checkpoint, sets, keys, cfg, kind):
    """An end-to-end network is counted by its one-to-many head."""
    report = YOLOLT(checkpoint(cfg)).val(**keys, data=str(sets(kind)))
    assert report.errors["lost"]["head"]["n_gt"] == 8
    assert report.errors["lost"]["tail"] == dict.fromkeys(("n_gt", "never_seen", "lost_to_nms", "lost_to_max_det"), 0)
