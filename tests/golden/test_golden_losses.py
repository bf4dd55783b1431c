"""Our losses against values, gradients and accumulators that the original authors' code computed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from yolo_lt.balance import build_loss, class_weights
from yolo_lt.balance.federated import draw_classes, remaining_weights, sampling_weights
from yolo_lt.balance.losses import federated
from yolo_lt.balance.losses.loce import updated
from yolo_lt.balance.losses.seesaw import log_factors
from yolo_lt.balance.margins import ecm_margins, logit_adjustment

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


@pytest.mark.parametrize("settings", ["default", "mitigation_only", "compensation_only"])
def test_seesaw_factors_in_the_authors_softmax(settings):
    """Their loss of the classes is a mean over the rows of objects; two more columns are an objectness of its own."""
    inputs, expected, tol = vector("seesaw")
    p, q = expected[settings]["p"], expected[settings]["q"]
    loss_fn = build_loss("seesaw", seesaw_p=p, seesaw_q=q)
    for step, value in zip(inputs["steps"], expected[settings]["steps"], strict=True):
        z, labels = leaf(step["logits"], 12), torch.tensor(step["labels"])
        loss_fn(z, targets_of(step["labels"], 12))
        assert loss_fn.counts.tolist() == value["cum_samples_after"][:12]
        rows, own = z[0, labels < 12], labels[labels < 12]
        shift = log_factors(loss_fn.counts, rows.detach().log_softmax(-1), own, p, q)
        ours, grad = value_and_gradient(cross_entropy(rows + shift, own), z)
        np.testing.assert_allclose(ours, value["loss_cls_classes"], **tol)
        np.testing.assert_allclose(grad, np.array(value["grad"])[:, :12], **tol)


@pytest.mark.parametrize("ratio", [6.3313, 1.0])
def test_ecm(ratio):
    """Their thirteenth column is the background, a class like the others."""
    inputs, expected, tol = vector("ecm")
    value = expected[f"fg_bg_ratio={ratio}"]
    names = ("pos_margin", "neg_margin", "detection_cls_weight")
    for ours, name in zip(ecm_margins(inputs["image_count"], ratio), names, strict=True):
        np.testing.assert_allclose(ours, value[name][:12], **tol)
    positive, negative, weight = (value[name][12] for name in names)
    z, rows = leaf(inputs["logits"]), len(inputs["labels"])
    is_background = torch.tensor([[float(c == 12) for c in inputs["labels"]]], dtype=torch.float64)
    x = 2 * z[..., 12] + positive - negative
    extra = weight * binary_cross_entropy_with_logits(x, is_background, reduction="sum")
    loss_fn = build_loss("ecm", image_counts=inputs["image_count"], ecm_background=ratio)
    loss = loss_fn(z[..., :12], targets_of(inputs["labels"], 12))
    ours, grad = value_and_gradient((loss + extra) / rows, z)
    np.testing.assert_allclose(ours, value["loss"], **tol)
    np.testing.assert_allclose(grad, value["grad"], **tol)


def test_loce_margins_in_the_authors_softmax():
    """Their thirteenth column is the background, whose mean score stays that of the start; they add a tiny number."""
    inputs, expected, tol = vector("loce_ebl")
    mean = torch.full((13,), 0.01, dtype=torch.float64)
    for step, value in zip(inputs["steps"], expected, strict=True):
        classes = torch.tensor(step["batch_gt_labels"])
        scores = torch.tensor(step["batch_mean_scores"], dtype=torch.float64)
        total = torch.zeros_like(mean).index_add(0, classes, scores)
        mean = updated(mean, total, torch.bincount(classes, minlength=13).double(), 0.9)
        np.testing.assert_allclose(mean, value["mean_score_after"], **tol)
        z = leaf(step["logits"])
        ours, grad = value_and_gradient(cross_entropy(z[0] + mean.log(), torch.tensor(step["labels"])), z)
        np.testing.assert_allclose(ours, value["loss"], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(grad, value["grad"], rtol=1e-7, atol=1e-9)


def test_loce_keeps_the_authors_mean_scores():
    inputs, expected, tol = vector("loce_ebl")
    loss_fn = build_loss("loce")
    for step, value in zip(inputs["steps"], expected, strict=True):
        scores = torch.tensor(step["batch_mean_scores"], dtype=torch.float64)[None, :, None].expand(-1, -1, 12)
        loss_fn(scores.logit().requires_grad_(), targets_of(step["batch_gt_labels"], 12))
        np.testing.assert_allclose(loss_fn.state_dict()["mean"], value["mean_score_after"][:12], **tol)


@pytest.mark.parametrize("reference", ["none", "max"])
def test_logit_adjustment(reference):
    """Their loss is a softmax, which does not feel the reference."""
    inputs, expected, tol = vector("logit_adjustment")
    assert len(expected["original"]) == 4
    for key, value in expected["original"].items():
        z, shift = leaf(inputs["logits"]), 0.0
        if key != "baseline_ce":
            tau = float(key.removeprefix("tau="))
            shift = torch.from_numpy(logit_adjustment(inputs["instance_count"], tau, reference))
        ours, grad = value_and_gradient(cross_entropy(z[0] + shift, torch.tensor(inputs["labels"])), z)
        if key == "baseline_ce":
            np.testing.assert_allclose(ours, value, **tol)
            continue
        np.testing.assert_allclose(ours, value["la_loss"], **tol)
        np.testing.assert_allclose(grad, value["la_grad"], **tol)
        if reference == "none":
            np.testing.assert_allclose(shift, value["adjustment"], **tol)


def test_the_shift_of_a_sigmoid_is_the_log_prior():
    """No original exists; the authors' 1e-12 is within the tolerance."""
    inputs, expected, tol = vector("logit_adjustment")
    for key, value in expected["own_sigmoid"].items():
        tau = float(key.removeprefix("tau="))
        loss_fn = build_loss("logit_adjusted", instance_counts=inputs["instance_count"], logit_tau=tau)
        np.testing.assert_allclose(loss_fn.shift, value["log_prior"], **tol)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_federated_weights(power):
    inputs, expected, tol = vector("federated_loss")
    weights = sampling_weights(inputs["image_count"], power)
    np.testing.assert_allclose(weights, expected["freq_weight"][str(power)], **tol)
    cases = [case for case in expected["cases"] if case["freq_weight_power"] == power]
    assert cases
    for case in cases:
        *appeared, background = case["unique_gt_incl_background"]
        assert background == 12
        rest = remaining_weights(weights, np.array(appeared))
        np.testing.assert_allclose(rest, case["multinomial_prob_unnormalised"][:12], **tol)


def test_federated_draws_as_many_where_the_background_takes_one_of_the_authors_places():
    """Where they ask for more classes than there are, their draw is an error; here it is all classes."""
    inputs, expected, _ = vector("federated_loss")
    errors = 0
    for case in expected["cases"]:
        weights = sampling_weights(inputs["image_count"], case["freq_weight_power"])
        appeared = np.array(case["unique_gt_incl_background"][:-1])
        ours = draw_classes(weights, appeared, case["num_sample_cats"] - 1, np.random.default_rng(0))
        theirs = case.get("class_mask", [1] * 12)
        errors += case["error"] is not None
        assert ours.sum() == sum(theirs)
        assert ours[appeared].all()
    assert errors


def test_federated_loss_of_the_authors_draw(monkeypatch):
    inputs, expected, tol = vector("federated_loss")
    cases = [case for case in expected["cases"] if case["error"] is None]
    assert {sum(case["class_mask"]) for case in cases} == {5, 12}
    for case in cases:
        chosen = np.array(case["class_mask"], bool)
        monkeypatch.setattr(federated.Federated, "chosen", lambda self, appeared, chosen=chosen: chosen)
        z = leaf(inputs["logits_per_step"][case["step"]])
        loss_fn = build_loss("federated", image_counts=inputs["image_count"])
        loss = loss_fn(z, targets_of(case["labels"], 12)) / len(case["labels"])
        ours, grad = value_and_gradient(loss, z)
        np.testing.assert_allclose(ours, case["loss"], **tol)
        np.testing.assert_allclose(grad, case["grad"], **tol)


def check_state(loss_fn, value, tol):
    state = loss_fn.state_dict()
    np.testing.assert_allclose(state["positive"], value["pos_grad_after"], **tol)
    np.testing.assert_allclose(state["negative"], value["neg_grad_after"], **tol)
    like = torch.empty(0, dtype=torch.float64)
    np.testing.assert_allclose(loss_fn.ratio(12, like), value["pos_neg_after"], **tol)


def of_processes(name, world, tmp_path):
    """What every rank printed: losses and states after every step."""
    command = [sys.executable, str(HERE / "one_rank.py"), name]
    ranks = [
        subprocess.Popen([*command, str(rank), str(world), str(tmp_path / "meet")], stdout=subprocess.PIPE)
        for rank in range(world)
    ]
    return [json.loads(process.communicate(timeout=120)[0]) for process in ranks]


@pytest.mark.parametrize(("world", "name"), [(2, "eqlv2"), (4, "eqfl")])
def test_accumulators_of_several_processes(name, world, tmp_path):
    """Every rank has the sums over all, which are those of the authors' two ranks however the rows are dealt out.

    EQFL's normalizer is the number of positives per rank, so its sums grow with the number of ranks.
    """
    _, expected, tol = vector("ddp2_eqlv2_eqfl")
    ours = of_processes(name, world, tmp_path)
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


@pytest.mark.parametrize(
    ("world", "name", "file", "kept"), [(2, "seesaw", "seesaw", "counts"), (4, "loce", "loce_ebl", "mean")]
)
def test_several_processes_learn_what_one_learns_from_all_rows(name, file, kept, world, tmp_path):
    """The authors' Seesaw does not sum its counts: there every rank keeps its own."""
    inputs, _, _ = vector(file)
    ours, loss_fn = of_processes(name, world, tmp_path), build_loss(name)
    for i, step in enumerate(inputs["steps"]):
        alone = loss_fn(leaf(step["logits"], 12), targets_of(step["labels"], 12)).item()
        states = [steps[i][kept] for steps in ours]
        assert states == [states[0]] * world
        np.testing.assert_allclose(states[0], loss_fn.state_dict()[kept], rtol=1e-12)
        assert sum(steps[i]["loss"] for steps in ours) == pytest.approx(alone, rel=1e-12)
