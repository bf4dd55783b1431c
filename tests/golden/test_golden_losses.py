"""Our losses against values, gradients and accumulators that the original authors' code computed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from yolo_lt.balance import build_loss, class_weights

HERE = Path(__file__).parent


def vector(name):
    content = json.loads((HERE / f"{name}.json").read_text())
    tol = content["suggested_tolerance"]
    if content["dtype"].startswith("float64"):
        tol = {"rtol": 1e-9, "atol": 1e-9}
    return content["inputs"], content["expected"], tol


def targets_of(labels, num_classes, values=None):
    """Dense targets (1, N, C) of labels 0..C-1; anything else is background."""
    labels = torch.tensor(labels)
    inside = (labels >= 0) & (labels < num_classes)
    y = one_hot(torch.where(inside, labels, num_classes), num_classes + 1)[None, :, :num_classes].double()
    return y if values is None else y * torch.tensor(values, dtype=torch.float64)[None, :, None]


def leaf(logits, columns=None):
    return torch.tensor(logits, dtype=torch.float64)[None, :, :columns].requires_grad_()


def value_and_gradient(loss, z):
    return loss.item(), torch.autograd.grad(loss, z)[0][0].numpy()


def test_class_balanced_with_and_without_focus():
    """All of the authors' and vandit15's sigmoid losses; their softmax is BCE of softmax outputs, which we have not."""
    inputs, expected, tol = vector("class_balanced")
    rows, seen = len(inputs["labels"]), set()
    for key, value in expected["losses"].items():
        parts = key.split(",")
        if len(parts) < 3 or parts[1] != "focal":
            continue
        beta, gamma = (float(p.split("=")[1]) for p in (parts[0], parts[2]))
        seen.add((beta, gamma))
        kw = {"cb_beta": beta, "focal_gamma": gamma}
        z = leaf(inputs["logits"])
        loss = build_loss("cb", instance_counts=inputs["instance_count"], **kw)(z, targets_of(inputs["labels"], 12))
        ours, grad = value_and_gradient(loss / rows, z)
        np.testing.assert_allclose(ours, value["loss"], **tol)
        np.testing.assert_allclose(ours, expected["author_tf_code"][f"beta={beta},gamma={gamma}"], **tol)
        if value["grad"]:
            np.testing.assert_allclose(grad, value["grad"], **tol)
    assert len(seen) == 12


def test_inverse_columns_equal_cls_pw():
    inputs, expected, tol = vector("ultralytics_cls_pw")
    for key, value in expected.items():
        which, power = key.split(",cls_pw=")
        counts = inputs["instance_count" if which == "full" else "instance_count_absent"]
        weights = class_weights(counts, "inverse", power=float(power))
        np.testing.assert_allclose(weights, value["class_weights"], **tol)
        z, y = leaf(inputs["logits"]), targets_of(inputs["labels"], 12, inputs["quality"])
        loss = build_loss("inverse", instance_counts=counts, inverse_power=float(power))(z, y)
        ours, grad = value_and_gradient(loss / y.sum().clamp(min=1), z)
        np.testing.assert_allclose(ours, value["own_line_by_line_cls_loss"], **tol)
        if value["grad"]:
            np.testing.assert_allclose(grad, value["grad"], **tol)


def test_eql():
    inputs, expected, tol = vector("eql_v1")
    counts = np.array(inputs["image_count_frequency"]) * 10_000
    for key, steps in expected.items():
        loss_fn = build_loss("eql", image_counts=counts, num_images=10_000, eql_lambda=float(key.split("=")[1]))
        for step, value in zip(inputs["steps"], steps, strict=True):
            z = leaf(step["logits"])
            loss = loss_fn(z, targets_of(step["labels"], 12)) / len(step["labels"])
            ours, grad = value_and_gradient(loss, z)
            np.testing.assert_allclose(ours, value["loss"], **tol)
            np.testing.assert_allclose(grad, value["grad"], **tol)


def test_eql_rare_classes_on_lvis_v1():
    """The authors' own frequencies are per 100,000 images: a class in 177 of them sits on the border, not below."""
    inputs, expected, _ = vector("lvis_v1_real_counts")
    loss = build_loss("eql", image_counts=inputs["image_count"], num_images=100_000, eql_lambda=1.77e-3)
    assert loss.rare.tolist() == np.flatnonzero(expected["eql_rare_mask_lambda0_00177"]).tolist()


@pytest.mark.parametrize("settings", ["default", "alt"])
def test_eqlv2_as_published(settings):
    """Their thirteenth column is the objectness of a two-stage head: plain BCE, and not accumulated."""
    inputs, expected, tol = vector("eqlv2")
    params = {f"eqlv2_{k}": v for k, v in expected[settings]["params"].items()}
    loss_fn = build_loss("eqlv2", **params)
    for step, value in zip(inputs["steps"], expected[settings]["steps"], strict=True):
        rows, z = len(step["labels"]), leaf(step["logits"])
        objectness = torch.tensor([[float(c == 12) for c in step["labels"]]], dtype=torch.float64)
        extra = binary_cross_entropy_with_logits(z[..., 12], objectness, reduction="sum")
        loss = (loss_fn(z[..., :12], targets_of(step["labels"], 12)) + extra) / rows
        ours, grad = value_and_gradient(loss, z)
        np.testing.assert_allclose(ours, value["loss"], **tol)
        np.testing.assert_allclose(grad, value["grad"], **tol)
        check_state(loss_fn, value, tol)


def test_eqlv2_on_soft_targets():
    """How it is mapped onto TAL's targets; no original exists."""
    inputs, expected, tol = vector("eqlv2_tal_soft_reference")
    loss_fn = build_loss("eqlv2")
    for step, value in zip(inputs["steps"], expected, strict=True):
        z, y = leaf(step["logits"]), targets_of(step["labels"], 12, step["quality"])
        ours, grad = value_and_gradient(loss_fn(z, y) / value["normaliser"], z)
        np.testing.assert_allclose(ours, value["loss"], **tol)
        np.testing.assert_allclose(grad, value["grad"], **tol)
        check_state(loss_fn, value, tol)


@pytest.mark.parametrize("name", ["efl", "eqfl"])
@pytest.mark.parametrize("settings", ["default", "yolox"])
def test_equalized_focal_losses(name, settings):
    """Their target is 0 on background, 1..C on classes, and -1 on rows that are ignored."""
    inputs, expected, tol = vector(name)
    params = expected[settings]["params"]
    loss_fn = build_loss(name, focal_gamma=params["focal_gamma"], efl_scale=params["scale_factor"])
    ignored = 0
    for step, value in zip(inputs["steps"], expected[settings]["steps"], strict=True):
        z, target = leaf(step["logits"]), np.array(step["target"])
        y = targets_of(target - 1, 12, step.get("scores"))
        ctx = {"valid": torch.from_numpy(target >= 0)[None, :, None], "normalizer": step["normalizer"]}
        ignored += (target < 0).sum()
        ours, grad = value_and_gradient(loss_fn(z, y, ctx) / step["normalizer"], z)
        np.testing.assert_allclose(ours, value["loss"], **tol)
        np.testing.assert_allclose(grad, value["grad"], **tol)
        check_state(loss_fn, value, tol)
    assert ignored


def check_state(loss_fn, value, tol):
    state = loss_fn.state_dict()
    np.testing.assert_allclose(state["positive"], value["pos_grad_after"], **tol)
    np.testing.assert_allclose(state["negative"], value["neg_grad_after"], **tol)
    like = torch.empty(0, dtype=torch.float64)
    np.testing.assert_allclose(loss_fn.ratio(12, like), value["pos_neg_after"], **tol)


@pytest.mark.parametrize("name", ["eqlv2", "eqfl"])
@pytest.mark.parametrize("world", [2, 4])
def test_accumulators_of_several_processes(name, world, tmp_path):
    """Every rank has the sums over all, which are those of the authors' two ranks however the rows are dealt out.

    EQFL's normalizer is the number of positives per rank, so its sums grow with the number of ranks.
    """
    _, expected, tol = vector("ddp2_eqlv2_eqfl")
    command = [sys.executable, str(HERE / "one_rank.py"), name]
    ranks = [
        subprocess.Popen([*command, str(rank), str(world), str(tmp_path / "meet")], stdout=subprocess.PIPE)
        for rank in range(world)
    ]
    ours = [json.loads(process.communicate(timeout=120)[0]) for process in ranks]
    scale = world / 2 if name == "eqfl" else 1
    for steps in ours:
        assert [s["positive"] for s in steps] == [s["positive"] for s in ours[0]]
        assert [s["negative"] for s in steps] == [s["negative"] for s in ours[0]]
        for step, value in zip(steps, expected["rank0"][name], strict=True):
            np.testing.assert_allclose(np.array(step["positive"]) / scale, value["pos_grad_after"], **tol)
            np.testing.assert_allclose(np.array(step["negative"]) / scale, value["neg_grad_after"], **tol)
    if world == 2 and name == "eqfl":
        for rank, steps in enumerate(ours):
            for step, value in zip(steps, expected[f"rank{rank}"][name], strict=True):
                np.testing.assert_allclose(step["loss"] / value["normalizer"], value["loss"], **tol)
