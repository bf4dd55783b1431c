"""Tail augmentation: the policy acts on images with tail classes alone, and labels follow the pixels in every task."""

import random

import albumentations as A
import numpy as np
import pytest
import torch
from conftest import LONG_TAIL
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.errors import LTError
from yolo_lt.ultra.augment import TailAugment, read_policy
from yolo_lt.ultra.changes import make_changes
from yolo_lt.ultra.dataset import BalancedDataset
from yolo_lt.ultra.labels import load_data, stats_of

TAIL = [i for i, row in enumerate(LONG_TAIL) if 2 in row]


def balanced(data_yaml, task="detect", policy=True, **hyp):
    data = load_data(data_yaml)
    off = {"mosaic": 0.0, "translate": 0.0, "scale": 0.0, "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    args = get_cfg(overrides={"imgsz": 64, "task": task, "augmentations": [], **off, **hyp})
    dataset = build_yolo_dataset(args, data["train"], 8, data, stride=32)
    plan = make_plan(stats_of(dataset.labels, data), config.resolve({"recipe": "baseline", "tail_augment": policy}))
    return BalancedDataset.adopt(dataset, plan.factors, True, make_changes(dataset, plan, args))


@pytest.fixture
def mirrored(tmp_path):
    path = tmp_path / "mirror.yaml"
    A.save(A.Compose([A.HorizontalFlip(p=1.0)]), path, data_format="yaml")
    return str(path)


def test_images_without_tail_classes_stay_bit_for_bit(toy):
    dataset = balanced(toy)
    random.seed(0)
    torch.manual_seed(0)
    changed = set()
    for _ in range(4):
        for index in range(len(LONG_TAIL)):
            labels = dataset.get_image_and_label(index)
            if (labels["img"] != dataset.load_image(index)[0]).any():
                changed.add(index)
    assert changed == set(TAIL)


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb"])
def test_labels_follow_the_pixels(sets, mirrored, task):
    """A policy that mirrors moves boxes, polygons and keypoints to the other side, and swaps left and right."""
    dataset, plain = balanced(sets(task), task, mirrored), balanced(sets(task), task, policy=False)
    assert plain.changes == []
    for index in TAIL:
        ours, before = dataset.get_image_and_label(index), plain.get_image_and_label(index)
        assert (ours["img"] == before["img"][:, ::-1]).all()
        new, old = ours["instances"], before["instances"]
        new.convert_bbox("xywh")
        expected = old.bboxes.copy()
        expected[:, 0] = 1 - expected[:, 0]
        np.testing.assert_allclose(new.bboxes, expected, atol=0.02)
        if task in ("segment", "obb"):
            outline = old.segments.copy()
            outline[..., 0] = 1 - outline[..., 0]
            np.testing.assert_allclose(np.sort(new.segments[..., 0]), np.sort(outline[..., 0]), atol=0.02)
        if task == "pose":
            points = old.keypoints[:, [1, 0]].copy()  # flip_idx of the set
            points[..., 0] = 1 - points[..., 0]
            np.testing.assert_allclose(new.keypoints[..., :2], points[..., :2], atol=0.02)


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb"])
def test_the_default_policy_goes_through_the_whole_pipeline(sets, task):
    dataset = balanced(sets(task), task, mosaic=1.0, mixup=0.3)
    random.seed(0)
    for index in TAIL * 5:
        sample = dataset[index]
        assert len(sample["bboxes"]) == len(sample["cls"])
        assert torch.isfinite(sample["bboxes"]).all()


def test_a_policy_may_change_the_size_of_the_image(toy, tmp_path):
    A.save(A.Compose([A.CenterCrop(40, 48, p=1.0)]), tmp_path / "crop.json", data_format="json")
    dataset = balanced(toy, policy=str(tmp_path / "crop.json"), mosaic=1.0)
    labels = dataset.get_image_and_label(TAIL[0])
    assert labels["img"].shape[:2] == labels["resized_shape"] == (40, 48)
    random.seed(0)
    for index in TAIL * 3:
        boxes = dataset[index]["bboxes"]
        assert ((boxes >= 0) & (boxes <= 1)).all()


def test_a_saved_policy_is_read_as_it_was(tmp_path):
    policy = A.Compose([A.GaussianBlur((5, 5), p=0.7), A.VerticalFlip(p=0.2)])
    for name, form in (("p.yaml", "yaml"), ("p.json", "json")):
        A.save(policy, tmp_path / name, data_format=form)
        again = read_policy(tmp_path / name)
        assert [(type(t).__name__, t.p) for t in again] == [("GaussianBlur", 0.7), ("VerticalFlip", 0.2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("just words", "is no policy that albumentations saved with A.save"),
        ("transform: {__class_fullname__: os.system, p: 1}", "is no policy"),
        ("a: [", "is no policy"),
    ],
)
def test_bad_policies(tmp_path, content, message):
    path = tmp_path / "policy.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LTError, match=message):
        read_policy(path)


def test_images_with_other_channels_are_refused():
    with pytest.raises(LTError, match="not on 5 channels"):
        TailAugment(True, np.ones(3, bool), {"channels": 5})
