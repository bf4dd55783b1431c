"""Our methods against numbers that the original authors' code computed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from yolo_lt.balance import build_loss, class_weights, repeat_factors
from yolo_lt.balance.sampling import class_repeat_factors
from yolo_lt.dataset import frequency_bins


def vector(name):
    content = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    tolerance = content["suggested_tolerance"]
    return content["inputs"], content["expected"], tolerance


def test_repeat_factors_equal_detectron2():
    inputs, expected, tol = vector("rfs_detectron2")
    for key, value in expected.items():
        thr = float(key.split("=")[1].split(",")[0])
        ours = repeat_factors(inputs["images"], num_classes=12, thr=thr)
        np.testing.assert_allclose(ours, value["repeat_factors"], **tol)


def test_class_repeat_factors_on_lvis_v1():
    inputs, expected, tol = vector("lvis_v1_real_counts")
    ours = class_repeat_factors(np.array(inputs["image_count"]), 100170, 1e-3)
    np.testing.assert_allclose(ours, expected["rfs_category_repeat_t0_001"], **tol)


def test_two_numbers_give_lvis_own_bins():
    inputs, _, _ = vector("lvis_v1_real_counts")
    bins = frequency_bins(inputs["image_count"], (10, 100))
    letters = np.array(list(inputs["frequency"]))
    for name, letter in (("head", "f"), ("medium", "c"), ("tail", "r")):
        assert getattr(bins, name).tolist() == np.flatnonzero(letters == letter).tolist()


@pytest.mark.parametrize("beta", [0.9, 0.999])
def test_class_weights_on_lvis_v1(beta):
    inputs, expected, tol = vector("lvis_v1_real_counts")
    np.testing.assert_allclose(
        class_weights(inputs["instance_count"], "cb", beta), expected[f"cb_weights_beta{beta}"], **tol
    )


def test_class_weights_equal_the_authors():
    inputs, expected, tol = vector("class_balanced")
    for key, value in expected["weights"].items():
        beta, counts = key.removeprefix("beta=").split(",counts=")
        ours = class_weights(inputs[f"{counts}_count"], "cb", float(beta))
        np.testing.assert_allclose(ours, value["normalised"], **tol)


def one_hot(labels, num_classes):
    return torch.nn.functional.one_hot(torch.tensor(labels), num_classes + 1)[None, :, :num_classes].double()


def test_class_balanced_loss_equals_the_authors():
    inputs, expected, tol = vector("class_balanced")
    rows = len(inputs["labels"])
    for key, value in expected["losses"].items():
        z = torch.tensor(inputs["logits"], dtype=torch.float64)[None].requires_grad_()
        beta = float(key.removeprefix("beta=").split(",")[0])
        loss = build_loss("cb", instance_counts=inputs["instance_count"], cb_beta=beta)(
            z, one_hot(inputs["labels"], 12)
        )
        np.testing.assert_allclose(loss.item() / rows, value["loss"], **tol)
        if value["grad"]:
            (grad,) = torch.autograd.grad(loss / rows, z)
            np.testing.assert_allclose(grad[0], value["grad"], **tol)


def test_eql_equals_the_authors():
    inputs, expected, tol = vector("eql_v1")
    counts = np.array(inputs["image_count_frequency"]) * 10_000
    for key, steps in expected.items():
        loss_fn = build_loss("eql", image_counts=counts, num_images=10_000, eql_lambda=float(key.split("=")[1]))
        for step, value in zip(inputs["steps"], steps, strict=True):
            z = torch.tensor(step["logits"], dtype=torch.float64)[None].requires_grad_()
            loss = loss_fn(z, one_hot(step["labels"], 12)) / len(step["labels"])
            (grad,) = torch.autograd.grad(loss, z)
            np.testing.assert_allclose(loss.item(), value["loss"], **tol)
            np.testing.assert_allclose(grad[0], value["grad"], **tol)


def test_eql_rare_classes_on_lvis_v1():
    """The authors' own frequencies are per 100,000 images: a class in 177 of them sits on the border, not below."""
    inputs, expected, _ = vector("lvis_v1_real_counts")
    loss = build_loss("eql", image_counts=inputs["image_count"], num_images=100_000, eql_lambda=1.77e-3)
    assert loss.rare.tolist() == np.flatnonzero(expected["eql_rare_mask_lambda0_00177"]).tolist()
