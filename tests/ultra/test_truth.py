"""Ultralytics' labels as ground truth: boxes in original pixels, and what was looked for where."""

import os
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import NAMES
from test_epochs import ROWS, ours, table, train, trained
from test_federated_labels import index_of
from ultralytics.cfg import get_cfg
from ultralytics.data import build_dataloader, build_yolo_dataset
from ultralytics.utils import ops

from yolo_lt import YOLOLT
from yolo_lt.cli import main
from yolo_lt.dataset.federated import EVERYTHING
from yolo_lt.dataset.rows import Boxes
from yolo_lt.evaluate.matching import match
from yolo_lt.ultra.labels import load_data
from yolo_lt.ultra.truth import ground_truth, looked_for
from yolo_lt.ultra.validator import VALIDATORS

SIZES = [(200, 100), (90, 160), (80, 80), (320, 240), (100, 200)]  # width and height; at 64 all scale without rounding


def label(*rows):
    """Ultralytics' label of an image from (class, x, y, width, height), relative to its size."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return {"cls": table[:, :1], "bboxes": table[:, 1:], "segments": []}


# By hand -------------------------------------------------------------------------------------------------------------


def test_boxes_are_in_original_pixels_image_by_image():
    labels = [label((2, 0.5, 0.5, 0.2, 0.4), (0, 0.25, 0.75, 0.5, 0.5)), label(), label((1, 1.0, 0.5, 0.5, 1.0))]
    gt = ground_truth(labels, [(100, 200), (7, 7), (40, 10)], np.array(["a", "b", "c"]), NAMES)
    np.testing.assert_allclose(gt.box, [[80, 30, 40, 40], [0, 50, 100, 50], [7.5, 0, 5, 40]], atol=1e-5)
    assert gt.image.tolist() == [0, 0, 2]
    assert gt.cls.tolist() == [2, 0, 1]
    np.testing.assert_allclose(gt.area, gt.box[:, 2] * gt.box[:, 3])
    assert not gt.crowd.any()
    assert (gt.category_ids.tolist(), gt.names) == ([0, 1, 2], tuple(NAMES))
    assert [gt.angle, gt.negative, gt.positive, gt.partial, gt.ignored, gt.frequency] == [None] * 6


@pytest.mark.parametrize("turned", [True, False])
def test_images_without_labels_give_no_boxes(turned):
    gt = ground_truth([label(), label()], [(5, 5), (6, 6)], np.array(["a", "b"]), NAMES, turned)
    assert gt.box.shape == (0, 4)
    assert (gt.angle is None) != turned
    assert len(gt.image) == len(gt.cls) == 0


def corners(x, y, width, height, degrees):
    return cv2.boxPoints(((x, y), (width, height), degrees))


@pytest.mark.parametrize("size", SIZES)
def test_turned_boxes_are_the_least_rectangles_around_their_polygons_in_original_pixels(size):
    """Not in relative coordinates, in which a turned rectangle of an image that is no square has no right angles."""
    rng = np.random.default_rng(0)
    polygons = [corners(*rng.uniform(30, 60, 2), *rng.uniform(8, 40, 2), a) for a in (0, 20, 45, 77, 90, 133, -31)]
    polygons.append(np.array([[20, 20], [40, 22], [52, 30], [38, 41], [22, 33]], np.float32))  # not four corners
    truth = label(*[(i % 3, 0.5, 0.5, 0.1, 0.1) for i in range(len(polygons))])
    truth["segments"] = [(p / size).astype(np.float32) for p in polygons]
    gt = ground_truth([label(), truth], [(9, 9), size[::-1]], np.array(["a", "b"]), NAMES, turned=True)
    for box, angle, polygon in zip(gt.box, gt.angle, polygons, strict=True):
        (x, y), sides, _ = cv2.minAreaRect(polygon.astype(np.float32))
        np.testing.assert_allclose(box[:2] + box[2:] / 2, [x, y], atol=1e-2)
        np.testing.assert_allclose(sorted(box[2:]), sorted(sides), atol=1e-2)
        ours = corners(x, y, *box[2:].tolist(), float(np.degrees(angle)))
        apart = np.linalg.norm(ours[:, None] - cv2.boxPoints(cv2.minAreaRect(polygon))[None], axis=2).min(axis=1)
        assert apart.max() < 0.05, "the corners are not those of the polygon"
    assert gt.image.tolist() == [1] * len(polygons)
    np.testing.assert_allclose(gt.area, gt.box[:, 2] * gt.box[:, 3])


def test_what_was_looked_for_is_sorted_pairs_of_image_and_class():
    lists = {"positive": [[0], [2, 1], []], "negative": [[1, 2], [], [0]], "few": [[], [2], []]}
    rows = np.array([0, EVERYTHING, 1, 0, 2])
    found = looked_for(index_of(["a", "b", "c", "d", "e"], NAMES, **lists, rows=rows))
    assert found.pop("labels") is None
    assert {name: keys.tolist() for name, keys in found.items()} == {
        "negative": [1, 2, 3, 4, 5, 10, 11, 12],
        "positive": [0, 7, 8, 9],
        "partial": [8],
    }
    assert {keys.dtype for keys in found.values()} == {np.dtype(np.int64)}


def test_nothing_looked_for_is_empty_and_not_missing():
    nothing = {"positive": [[]], "negative": [[]], "few": [[]]}
    found = looked_for(index_of(["a"], NAMES, **nothing, rows=np.array([0])))
    del found["labels"]
    assert [(name, keys.shape, keys.dtype) for name, keys in found.items()] == [
        (name, (0,), np.dtype(np.int64)) for name in ("negative", "positive", "partial")
    ]


def with_groups(*images, labels=None):
    """An index of images that were looked through for all, each with these group boxes: class and label box."""
    nothing = {"positive": [[]], "negative": [[]], "few": [[]]}
    rows = [row for image in images for row in image]
    cls, box = np.array([r[0] for r in rows], np.int32), np.array([r[1:] for r in rows], np.float32).reshape(-1, 4)
    index = index_of([f"{i}.png" for i in range(len(images))], **nothing, rows=np.full(len(images), EVERYTHING))
    return replace(index, groups=Boxes(np.cumsum([0, *map(len, images)]), cls, box), labels=labels)


@pytest.mark.parametrize("turned", [False, True])
def test_groups_of_the_index_are_crowds_behind_the_objects(turned):
    index = with_groups([(2, 0.5, 0.5, 0.2, 0.4)], [], [(1, 0.25, 0.75, 0.5, 0.5), (0, 0.5, 0.5, 1, 1)])
    truth = label((0, 0.5, 0.5, 0.1, 0.1), (1, 0.5, 0.5, 0.1, 0.1))
    truth["segments"] = [corners(50, 50, 10, 10, 0) / 100] * 2
    gt = ground_truth([label(), truth, label()], [(100, 200), (100, 100), (40, 10)], np.arange(3), NAMES, turned, index)
    assert gt.crowd.tolist() == [False, False, True, True, True]
    assert gt.image.tolist() == [1, 1, 0, 2, 2]
    assert gt.cls.tolist() == [0, 1, 2, 1, 0]
    np.testing.assert_allclose(gt.box[2:], [[80, 30, 40, 40], [0, 20, 5, 20], [0, 0, 10, 40]], atol=1e-5)
    np.testing.assert_allclose(gt.area, gt.box[:, 2] * gt.box[:, 3])
    assert (gt.angle is not None) == turned
    assert not turned or gt.angle[2:].tolist() == [0, 0, 0]


def test_an_index_without_groups_makes_no_crowds_and_labels_are_those_of_the_index():
    assert not ground_truth([label()], [(5, 5)], np.arange(1), NAMES, index=with_groups([])).crowd.any()
    gt = ground_truth([label()], [(5, 5)], np.arange(1), NAMES, index=with_groups([], labels=("/m/a", "/m/b", "/m/c")))
    assert gt.labels == ("/m/a", "/m/b", "/m/c")


# Through Ultralytics' loader -----------------------------------------------------------------------------------------


def write_set(root, kind):
    """Images of every size with turned rectangles, or the boxes around them; no two overlap."""
    for folder in ("images", "labels"):
        (root / folder / "val").mkdir(parents=True)
    for i, (width, height) in enumerate(SIZES):
        cv2.imwrite(str(root / "images" / "val" / f"{i}.png"), np.full((height, width, 3), 99, np.uint8))
        lines = []
        for k, (x, y, a) in enumerate([(0.3, 0.3, 30 * i), (0.7, 0.3, 17), (0.3, 0.7, 90), (0.7, 0.7, 45 + i)]):
            points = corners(x * width, y * height, 0.3 * min(width, height), 0.12 * min(width, height), a)
            points = points / (width, height)
            low, high = points.min(axis=0), points.max(axis=0)
            numbers = points.ravel() if kind == "obb" else [*((low + high) / 2), *(high - low)]
            lines.append(" ".join([str(k % 3), *(f"{v:.8f}" for v in numbers)]))
        (root / "labels" / "val" / f"{i}.txt").write_text("\n".join(lines))
    names = "".join(f"  {i}: {n}\n" for i, n in enumerate(NAMES))
    (root / "data.yaml").write_text(f"train: images/val\nval: images/val\nnames:\n{names}")
    return root / "data.yaml"


def as_predictions(batch, i, kind):
    """The labels of an image as if a network had predicted them, in pixels of the batch."""
    own, (height, width) = batch["batch_idx"] == i, batch["img"].shape[2:]
    box = batch["bboxes"][own] * torch.tensor([width, height, width, height, 1.0])[: 5 if kind == "obb" else 4]
    box = box if kind == "obb" else ops.xywh2xyxy(box)
    return {"bboxes": box, "conf": torch.ones(len(box)), "cls": batch["cls"][own].flatten()}


@pytest.mark.parametrize("rect", [True, False])
@pytest.mark.parametrize("kind", ["detect", "obb"])
def test_a_perfect_prediction_lies_on_its_object_in_images_that_are_no_squares(tmp_path, kind, rect):
    data = load_data(write_set(tmp_path / "set", kind), "val")
    args = get_cfg(overrides={"task": kind, "imgsz": 64})
    dataset = build_yolo_dataset(args, data["val"], 2, data, mode="val", rect=rect, stride=32)
    loader = build_dataloader(dataset, 2, 0, shuffle=False)
    validator = VALIDATORS[kind](loader, tmp_path / "out", {"task": kind, "imgsz": 64})
    validator.found, validator.sizes = {}, {}
    for batch in loader:
        preds = [as_predictions(batch, i, kind) for i in range(len(batch["im_file"]))]
        for i, rows in enumerate(validator.rows(preds, batch)):
            validator.found[batch["im_file"][i]], validator.sizes[batch["im_file"][i]] = rows, batch["ori_shape"][i]
    files = dataset.im_files[::-1]
    index = index_of(files, positive=[[]] * 5, negative=[[i % 3] for i in range(5)], few=[[]] * 5, rows=np.arange(5))
    truth, found = validator.evaluation_input(NAMES, index=index)
    assert truth.image_ids.tolist() == [f"{i}.png" for i in range(5)]
    absent = {int(os.path.basename(f)[0]): i % 3 for i, f in enumerate(files)}
    assert truth.negative.tolist() == [3 * i + absent[i] for i in range(5)], "the file names decide, not their order"
    assert (truth.angle is not None) == (found.angle is not None) == (kind == "obb")
    matches = match(truth, found)
    assert len(matches.iou) == len(truth.cls) == 4 * len(SIZES)
    assert matches.tp.all()
    assert matches.iou.min() > 0.999
    widths = np.array(SIZES)[truth.image]
    np.testing.assert_allclose(truth.box[:, :2] + truth.box[:, 2:] / 2, centres() * widths, atol=0.01)


def centres():
    return np.tile([[0.3, 0.3], [0.7, 0.3], [0.3, 0.7], [0.7, 0.7]], (len(SIZES), 1))


# By protocols that ask for it ----------------------------------------------------------------------------------------


@pytest.fixture
def partly(tmp_path):
    """The set of `trained`, where a class is known to be absent from no image."""
    holds = ROWS + ROWS[:20]
    images = [f"{split}/{i:04d}.png" for split, count in (("train", len(ROWS)), ("val", 20)) for i in range(count)]
    nothing = [[]] * len(images)
    index_of(images, positive=holds, negative=nothing, few=nothing, rows=np.arange(len(images))).save(
        tmp_path / "index.npz"
    )
    data = trained()[1]
    (tmp_path / "data.yaml").write_text(f"path: {data.parent}\nfederated: {tmp_path}/index.npz\n{data.read_text()}")
    return tmp_path / "data.yaml"


@pytest.mark.slow
def test_a_training_asks_the_index_of_its_validation_images(partly, tmp_path, caplog):
    last = {}
    for protocol in ("coco", "lvis"):  # baseline leaves the index out of the loss, and not out of the protocol
        keys = {"protocol": protocol, "recipe": "baseline", "lr0": 1e-3}
        trainer = train(trained()[0], partly, tmp_path, name=protocol, **keys)
        last[protocol] = table(tmp_path / protocol)[-1]
        assert f"(protocol {protocol}, head one2many)" in caplog.text
    assert last["lvis"]["metrics/mAP50(B)"] == last["coco"]["metrics/mAP50(B)"]
    fewer_wrong = {k: v - ours(last["coco"])[k] for k, v in ours(last["lvis"]).items()}
    assert min(fewer_wrong.values()) >= 0
    assert max(fewer_wrong.values()) > 0.01, "detections where nobody looked must be there, and not count"
    report = validated(trainer.best, partly, tmp_path, protocol="lvis")
    assert {k: trainer.metrics[k] for k in report} == pytest.approx(report, abs=1e-5)


def validated(weights, data, folder, **keys):
    """Columns as `yolo-lt val` would fill them."""
    plain = {"data": str(data), "imgsz": 64, "plots": False, "device": "cpu", "bootstrap": 0, "project": str(folder)}
    metrics = YOLOLT(weights).val(**plain, **keys).metrics
    return {f"lt/{m}({row})": x[m] for row, x in metrics.items() for m in ("AP", "AP50", "AP75", "AR")}


@pytest.mark.slow
def test_max_det_is_the_cap_of_the_columns_too(partly, tmp_path):
    keys = {"protocol": "lvis_fixed", "max_det": 5}  # of every class over the whole split, and of every image
    trainer = train(trained()[0], partly, tmp_path, **keys)
    capped = validated(trainer.best, partly, tmp_path, **keys)
    assert {k: trainer.metrics[k] for k in capped} == pytest.approx(capped, abs=1e-5)
    assert capped["lt/AR(head)"] < 0.5 * validated(trainer.best, partly, tmp_path, protocol="lvis_fixed")["lt/AR(head)"]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "val"])
def test_a_federated_protocol_without_an_index_is_refused_before_a_folder_exists(tmp_path, verb, capfd):
    weights, data = trained()
    assert main([verb, f"model={weights}", f"data={data}", f"project={tmp_path}", "protocol=lvis", "imgsz=64"]) == 2
    assert (
        "protocol=lvis needs to know which classes were looked for in the validation images" in capfd.readouterr().err
    )
    assert not os.listdir(tmp_path)
