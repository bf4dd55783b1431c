"""Our calibrations against scores and logits that the original authors' code computed."""

import json
from pathlib import Path

import numpy as np
import pytest

from yolo_lt.calibrate import logit_affine

HERE = Path(__file__).parent


def vector(name):
    content = json.loads((HERE / f"{name}.json").read_text())
    return content["inputs"], content["expected"], content["suggested_tolerance"]


def of_key(key, name):
    """The number behind `name=` in a key such as method=gamma,gamma=0.3,on=exps."""
    return float(dict(part.split("=") for part in key.split(","))[name])


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z)))


def softmax(z):
    exps = np.exp(z - z.max(1, keepdims=True))
    return exps / exps.sum(1, keepdims=True)


@pytest.mark.parametrize("name", ["odds_shift", "sigmoid_norcal_with_background"])
def test_norcal_with_a_background_of_its_own_for_every_class(name):
    inputs, expected, tol = vector("norcal")
    classes = np.array(inputs["logits"])[:, :12]
    assert {of_key(key, "gamma") for key in expected["own_sigmoid_fold"]} == {0.3, 0.6, 1.0}
    for key, value in expected["own_sigmoid_fold"].items():
        affine = logit_affine("norcal", inputs["image_count"], gamma=of_key(key, "gamma"))
        np.testing.assert_allclose(sigmoid(affine(classes)), value[name], **tol)


def test_norcal_in_the_authors_softmax_with_the_background_untouched():
    inputs, expected, tol = vector("norcal")
    logits = np.array(inputs["logits"])
    assert {of_key(key, "gamma") for key in expected["original"]} == {0.0, 0.3, 0.6, 1.0}
    for key, value in expected["original"].items():
        affine = logit_affine("norcal", inputs["image_count"], gamma=of_key(key, "gamma"))
        ours = softmax(np.c_[affine(logits[:, :12]), logits[:, 12]])
        np.testing.assert_allclose(ours[: len(value)], value, **tol)


def test_logit_adjustment_of_sigmoids_is_by_the_log_odds_of_the_prior():
    """The vectors' scores are those of the log prior, so the share of the other classes is taken off again."""
    inputs, expected, tol = vector("logit_adjustment")
    prior = np.array(inputs["base_probs"])
    assert set(expected["own_sigmoid"]) == {"tau=0.5", "tau=1.0"}
    for key, value in expected["own_sigmoid"].items():
        tau = of_key(key, "tau")
        affine = logit_affine("logit_adjustment", inputs["instance_count"], tau=tau)
        np.testing.assert_allclose(affine.shift, -np.array(value["log_odds_prior"]), **tol)
        ours = sigmoid(affine(inputs["logits"]) - tau * np.log1p(-prior))
        np.testing.assert_allclose(ours, value["posthoc_sigmoid"], **tol)


def test_logit_adjustment_of_rare_classes_is_the_authors():
    """log pi and the log-odds of pi differ by -log(1 - pi), about pi; the authors' 1e-12 is less than that."""
    inputs, expected, tol = vector("logit_adjustment")
    prior = np.array(inputs["base_probs"])
    rare = prior < 1e-3
    assert rare.sum() == 3
    assert set(expected["original"]) == {"tau=0.5", "tau=1.0", "tau=2.0", "baseline_ce"}
    for key, value in expected["original"].items():
        if key == "baseline_ce":
            continue
        tau = of_key(key, "tau")
        affine = logit_affine("logit_adjustment", inputs["instance_count"], tau=tau)
        ours, theirs = affine(inputs["logits"]), np.array(value["posthoc_adjusted_logits"])
        np.testing.assert_allclose(ours[:, rare], theirs[:, rare], rtol=0, atol=tau * 1.01e-3)
        tiny = np.log(prior**tau + 1e-12) - tau * np.log(prior)
        np.testing.assert_allclose(ours, theirs + tiny + tau * np.log1p(-prior), **tol)


def test_tau_norm():
    inputs, expected, tol = vector("tau_norm")
    weight, bias, features = (np.array(inputs[k]) for k in ("weight", "bias", "features"))
    logits = features @ weight.T
    assert {of_key(key, "tau") for key in expected} == {0, 0.3, 0.5, 0.7, 1, 1.5}
    for key, value in expected.items():
        affine = logit_affine("tau_norm", weight=weight, tau=of_key(key, "tau"))
        np.testing.assert_allclose(affine.scale[:, None] * weight, value["weight"], **tol)
        np.testing.assert_allclose(affine(logits), value["logits_no_bias"], **tol)
        np.testing.assert_allclose(affine(logits + bias, bias), value["own_logits_bias_kept"], **tol)


def test_logn():
    """The authors' minimum goes over the background as well, whose mean they set to 0; here the classes lie below."""
    inputs, expected, tol = vector("logn")
    logits = np.array(inputs["logits_steps"][0])
    assert set(expected) == {"momentum=0.0001", "momentum=0.1"}
    for value in expected.values():
        mean, std = (np.array(value[k]) for k in ("mean_used", "std_used"))
        assert mean[12] == 0
        assert (mean[:12] < 0).all()
        affine = logit_affine("logn", mean=mean[:12], std=std[:12])
        np.testing.assert_allclose(affine.scale, value["fold_scale"][:12], **tol)
        np.testing.assert_allclose(affine.shift, value["fold_shift"][:12], **tol)
        ours = np.c_[affine(logits[:, :12]), logits[:, 12]]
        np.testing.assert_allclose(ours, value["eval_output_step0"], **tol)
