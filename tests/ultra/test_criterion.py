"""The loss acts: on every supported task and head the classification gradients change and the box gradients not."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from yolo_lt.balance import build_loss
from yolo_lt.errors import UsageError
from yolo_lt.ultra.criterion import branches, install

MODELS = ["yolov5n.yaml", "yolov8n.yaml", "yolov10n.yaml", "yolo11n.yaml", "yolo26n.yaml"]
TASKS = ["yolov8n-seg.yaml", "yolo11n-pose.yaml", "yolo11n-obb.yaml", "yolo26n-seg.yaml", "yolo26n-pose.yaml"]
COUNTS = {"image_counts": [5000, 400, 3], "instance_counts": [9000, 500, 3], "num_images": 5000}


@cache
def built(name):
    torch.manual_seed(0)
    return YOLO(name).model


def network(name):
    """The model as built, without a criterion and with BatchNorm frozen, so that two passes see one network."""
    model = built(name)
    model.args, model.criterion = get_cfg(), None
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


def batch(model, with_boxes=True):
    g = torch.Generator().manual_seed(1)
    n = 6 if with_boxes else 0
    width = 5 if "OBB" in type(model).__name__ else 4
    boxes = torch.rand(n, width, generator=g) * 0.3 + 0.3
    out = {
        "img": torch.rand(2, 3, 64, 64, generator=g),
        "cls": torch.tensor([[0.0], [1], [2], [2], [1], [0]])[:n],
        "bboxes": boxes,
        "batch_idx": torch.tensor([0.0, 0, 0, 1, 1, 1])[:n],
        "masks": torch.randint(0, 2, (2, 16, 16), generator=g).float(),
        "keypoints": torch.rand(n, 17, 3, generator=g),
        "sem_masks": torch.zeros(2, 16, 16),
    }
    return out


def gradients(model, data):
    """Gradients of the last classification convs (rows of the three classes) and of the box convs, all levels."""
    model.zero_grad()
    loss, _ = model.loss(data)
    loss.sum().backward()
    head = model.model[-1]
    cls = [seq[-1].weight.grad[:3].flatten(1) for n in ("cv3", "one2one_cv3") for seq in getattr(head, n, None) or []]
    box = [seq[-1].weight.grad for n in ("cv2", "one2one_cv2") for seq in getattr(head, n, None) or []]
    return torch.stack([c.norm(dim=1) for c in cls]), torch.cat([b.flatten() for b in box])


def counts80():
    pad = 77
    return {k: v if isinstance(v, int) else np.r_[v, np.full(pad, 50)] for k, v in COUNTS.items()}


@pytest.mark.parametrize("name", MODELS + TASKS)
def test_weighted_positives_raise_the_tails_gradient_and_leave_the_boxes(name):
    model = network(name)
    data = batch(model)
    cls_before, box_before = gradients(model, data)
    installed = install(model, lambda: build_loss("cb", **counts80(), cb_form="positives"))
    cls_after, box_after = gradients(model, data)
    end_to_end = hasattr(model.model[-1], "one2one_cv3")
    assert set(installed) == ({"one2many", "one2one"} if end_to_end else {"one2many"})
    assert all(loss.batches == 1 for loss in installed.values())
    ratio = cls_after.sum(0) / cls_before.sum(0)
    assert ratio[2] > 1.05, ratio
    assert ratio[2] > ratio[0]
    torch.testing.assert_close(box_after, box_before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS + TASKS)
def test_eql_takes_the_rare_class_negatives_on_foreground_anchors(name):
    model = network(name)
    data = batch(model)
    data["cls"][:] = 0.0  # only head objects: the rare class has negatives alone
    cls_before, box_before = gradients(model, data)
    install(model, lambda: build_loss("eql", **counts80(), eql_lambda=0.0009))
    cls_after, box_after = gradients(model, data)
    assert (cls_after[:, 2] <= cls_before[:, 2] * (1 + 1e-5)).all()  # a level without foreground anchors keeps its own
    assert cls_after[:, 2].sum() < 0.95 * cls_before[:, 2].sum()
    torch.testing.assert_close(cls_after[:, :2], cls_before[:, :2], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(box_after, box_before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS + TASKS)
@pytest.mark.parametrize("with_boxes", [True, False])
def test_plain_bce_of_ours_is_the_stock_loss(name, with_boxes):
    model = network(name)
    data = batch(model, with_boxes)
    stock, _ = model.loss(data)
    install(model, lambda: build_loss("bce"))
    ours, _ = model.loss(data)
    torch.testing.assert_close(ours, stock, rtol=1e-6, atol=0)


def test_a_criterion_without_bce_is_refused():
    with pytest.raises(UsageError, match="cannot act"):
        branches(SimpleNamespace())


def test_validation_batches_are_not_counted():
    model = network("yolov8n.yaml")
    installed = install(model, lambda: build_loss("bce"))
    with torch.no_grad():
        model.loss(batch(model))
    assert installed["one2many"].batches == 0


def test_nothing_of_ours_enters_the_state_dict():
    model = network("yolo26n.yaml")
    before = set(model.state_dict())
    install(model, lambda: build_loss("cb", **counts80()))
    assert set(model.state_dict()) == before
