"""Our methods against numbers that the original authors' code computed."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from yolo_lt.balance import class_weights, repeat_factors
from yolo_lt.balance.sampling import ROUNDINGS, SAMPLERS, class_factors
from yolo_lt.balance.stream import epoch_indices
from yolo_lt.dataset import ClassStats, frequency_bins


def vector(name):
    content = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    tolerance = content["suggested_tolerance"]
    return content["inputs"], content["expected"], tolerance


def settings(key):
    """ "t=0.05,sqrt=True" -> {"t": "0.05", "sqrt": "True"}."""
    return dict(part.split("=", 1) for part in key.split(","))


def test_repeat_factors_equal_detectron2():
    inputs, expected, tol = vector("rfs_detectron2")
    assert {settings(key)["sqrt"] for key in expected} == {"True", "False"}
    for key, value in expected.items():
        s = settings(key)
        variant = "sqrt" if s["sqrt"] == "True" else "linear"
        ours = repeat_factors(inputs["images"], num_classes=12, thr=float(s["t"]), variant=variant)
        np.testing.assert_allclose(ours, value["repeat_factors"], **tol)
        np.testing.assert_allclose(ours, value["repeat_factors_float32_verbatim"], rtol=1e-6)
        if "int_part" in value:
            np.testing.assert_array_equal(np.trunc(ours), value["int_part"])


def test_the_stream_rounds_as_detectron2_does():
    """Their draw of an image is floor(r) or ceil(r) as well; the orders differ, the counts of every image may not."""
    inputs, expected, _ = vector("rfs_detectron2")
    for key, value in expected.items():
        if "epoch0_indices_unshuffled_seed123" in value:
            factors = repeat_factors(inputs["images"], num_classes=12, thr=float(settings(key)["t"]))
            theirs = np.bincount(value["epoch0_indices_unshuffled_seed123"], minlength=60)
            ours = np.bincount(epoch_indices(factors, 0, 0), minlength=60)
            for counts in (ours, theirs):
                assert (np.floor(factors) <= counts).all()
                assert (counts <= np.ceil(factors)).all()
            assert abs(ours.sum() - theirs.sum()) <= 4 * np.sqrt((factors % 1 * (1 - factors % 1)).sum()) + 1


def test_ceil_equals_mmdet_and_mmengine():
    """mmdet with filter_empty_gt=True; with False it counts images without boxes as a class and repeats them."""
    inputs, expected, tol = vector("rfs_mmdet")
    for key, value in expected.items():
        thr = float(settings(key)["t"])
        ours = repeat_factors(inputs["images"], num_classes=12, thr=thr)
        np.testing.assert_allclose(ours, value["filter_empty_gt=True"]["repeat_factors"], **tol)
        np.testing.assert_allclose(ours, value["mmengine_repeat_factors"], **tol)
        whole = repeat_factors(inputs["images"], num_classes=12, thr=thr, rounding="ceil")
        drawn = np.repeat(np.arange(60), whole.astype(int)).tolist()
        assert drawn == value["filter_empty_gt=True"]["repeat_indices_ceil"]
        assert sorted(epoch_indices(whole, 0, 5)) == drawn, "the stream draws exactly the list, in any epoch"


def test_powers_and_roundings_equal_united_perception():
    inputs, expected, tol = vector("rfs_united_perception")
    counts = ClassStats.from_lists(inputs["images"], 12)
    for key, value in expected.items():
        s = settings(key)
        kw = {"thr": float(s["t"]), "variant": "sqrt" if float(s["pn"]) == 0.5 else "linear"}
        of_class = class_factors(counts, **kw)
        for c, factor in value["rc"].items():
            np.testing.assert_allclose(of_class[int(c)], factor, **tol)
        if s["mode"] in ROUNDINGS:
            assert repeat_factors(inputs["images"], 12, rounding=s["mode"], **kw).tolist() == value["ri"]
        else:  # their `round` is Python's; nobody configures it
            assert np.round(repeat_factors(inputs["images"], 12, **kw)).tolist() == value["ri"]


def test_irfs_equals_both_implementations():
    inputs, expected, tol = vector("irfs")
    counts = ClassStats.from_lists(inputs["images"], 12)
    seen = set()
    for key, value in expected.items():
        s = settings(key)
        kw = {"method": "irfs", "thr": float(s["t"]), "variant": s["mean"].removesuffix("_only")}
        seen.add(kw["variant"])
        np.testing.assert_allclose(repeat_factors(inputs["images"], 12, **kw), value["repeat_factors"], **tol)
        of_class = class_factors(counts, **kw)
        for c, factor in value["category_repeat"].items():
            np.testing.assert_allclose(of_class[int(c)], factor, **tol)
    assert seen == set(SAMPLERS["irfs"])


def test_eirfs_equals_the_authors():
    inputs, expected, tol = vector("eirfs")
    counts = ClassStats.from_lists(inputs["images"], 12)
    for key, value in expected.items():
        if "alpha" not in key:
            continue
        s = settings(key)
        kw = {"method": "eirfs", "thr": float(s["t"]), "alpha": float(s["alpha"])}
        ours = repeat_factors(inputs["images"], 12, **kw)
        np.testing.assert_allclose(class_factors(counts, **kw), value["class_weights"], **tol)
        np.testing.assert_allclose(ours, value["image_weights"], **tol)
        np.testing.assert_allclose(ours / ours.sum(), value["probabilities"], **tol)


def test_class_aware_draws_by_mmdets_law():
    """Their epochs are samples of our distribution: every image's count within 4 standard deviations."""
    inputs, expected, _ = vector("class_aware_sampler_mmdet")
    factors = repeat_factors(inputs["images"], 12, method="class_aware")
    labelled = np.array([len(row) > 0 for row in inputs["images"]])
    law = np.where(labelled, factors, 0) / factors[labelled].sum()
    epochs = [epoch for value in expected.values() for epoch in value["epochs"]]
    drawn = np.bincount(np.concatenate(epochs), minlength=60)
    assert not drawn[~labelled].any()
    sigma = np.sqrt(drawn.sum() * law * (1 - law))
    assert (np.abs(drawn - drawn.sum() * law) <= 4 * sigma + 1e-9).all()
    uniform = labelled / labelled.sum()
    off = np.abs(drawn - drawn.sum() * uniform) / np.sqrt(drawn.sum() * np.where(labelled, uniform, 1))
    assert off.max() > 4, "the check cannot tell class-aware from uniform drawing"
    for c in expected["num_sample_class=1"]["valid_cat_inds"]:
        images = inputs["cat2imgs"][str(c)]
        share = sum(1 / len(inputs["cat2imgs"][str(k)]) for i in images for k in set(inputs["images"][i]))
        assert factors[images].sum() / factors[labelled].sum() == pytest.approx(share / 11)


def lvis_v1_counts(inputs):
    return SimpleNamespace(
        image_counts=np.array(inputs["image_count"]),
        instance_counts=np.array(inputs["instance_count"]),
        num_images=100170,
    )


def test_class_factors_on_lvis_v1():
    inputs, expected, tol = vector("lvis_v1_real_counts")
    counts = lvis_v1_counts(inputs)
    np.testing.assert_allclose(class_factors(counts), expected["rfs_category_repeat_t0_001"], **tol)
    np.testing.assert_allclose(class_factors(counts, "irfs"), expected["own_irfs_category_repeat_t0_001"], **tol)


def test_only_the_bounded_eirfs_can_be_used_on_lvis_v1():
    """The authors' weights, at their own alpha and t, reach a million there; the bounded ones stay below e^alpha."""
    inputs, _, _ = vector("lvis_v1_real_counts")
    counts = lvis_v1_counts(inputs)
    letters = np.array(list(inputs["frequency"]))
    original = class_factors(counts, "eirfs", 1e-4, alpha=2.0)
    assert original.max() > 1e6
    assert original[letters == "r"].mean() > 1e5
    for alpha in (0.5, 1.0, 2.0, 4.0):
        bounded = class_factors(counts, "eirfs", 1e-3, variant="bounded", alpha=alpha)
        assert 1 <= bounded.min() <= bounded.max() < np.exp(alpha)
        order = np.argsort(counts.image_counts * counts.instance_counts, kind="stable")
        assert (np.diff(bounded[order]) <= 1e-12).all(), "the rarer the class, the larger the factor"
        assert bounded[letters == "r"].mean() > bounded[letters == "c"].mean() > bounded[letters == "f"].mean()


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
