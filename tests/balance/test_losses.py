from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from yolo_lt.balance import SparseTargets, build_loss, class_weights
from yolo_lt.balance.losses import LOSS_KEYS, LOSSES, GradientGuided, weighted_bce
from yolo_lt.balance.losses.class_balanced import FORMS
from yolo_lt.balance.losses.eqlv2 import VARIANTS
from yolo_lt.balance.losses.guided import ratio_columns
from yolo_lt.errors import UsageError

COUNTS = {"image_counts": [60, 9, 1, 0], "instance_counts": [90, 9, 1, 0], "num_images": 100}
OPTIONS = [
    ("bce", {}),
    ("eql", {"eql_lambda": 0.1}),
    *(("cb", {"cb_form": form, "focal_gamma": gamma}) for form in FORMS for gamma in (0.0, 0.5, 2.0)),
    ("inverse", {"cb_form": "positives", "inverse_power": 0.5, "weight_norm": "boxes", "weight_cap": 3.0}),
    *(("eqlv2", {"loss_variant": variant}) for variant in VARIANTS),
    ("efl", {}),
    ("eqfl", {"efl_scale": 4.0}),
]
GUIDED = [(name, kw) for name, kw in OPTIONS if isinstance(build_loss(name, **COUNTS, **kw), GradientGuided)]


def batch(seed=0, b=2, a=40, c=4, dtype=torch.float64):
    """Logits and TAL-like soft targets: about a fifth of the anchors hold one class."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(b, a, c, generator=g, dtype=dtype) * 3
    foreground = torch.rand(b, a, generator=g) < 0.2
    labels = torch.randint(0, max(1, c - 1), (b, a), generator=g)
    values = torch.rand(b, a, generator=g, dtype=dtype).clamp_min(1e-3)
    return z.requires_grad_(), SparseTargets(labels, foreground, values, c)


def built(name, kw):
    """The loss; a guided one with ratios that differ by class."""
    loss = build_loss(name, **COUNTS, **kw)
    if isinstance(loss, GradientGuided):
        sums = [torch.tensor(v, dtype=torch.float64) for v in ([9.0, 2.0, 0.5, 0.0], [10.0, 4.0, 8.0, 1.0])]
        loss.load_state_dict({"positive": sums[0], "negative": sums[1], "skipped": 0})
    return loss


def elementwise(loss, name, kw, z, y):
    """The definition, written densely and differentiated by autograd: the loss of every entry."""
    positive, foreground = y > 0, (y > 0).any(-1, keepdim=True)
    w, gamma = torch.ones_like(y), torch.zeros(y.shape[-1], dtype=y.dtype)
    if name in ("cb", "inverse"):
        cw, gamma = loss.weights, gamma + kw.get("focal_gamma", 0.0)
        row = torch.where(positive, cw, 0.0).sum(-1, keepdim=True)
        forms = {
            "positives": torch.where(positive, cw, w),
            "column": cw.expand_as(y),
            "row": torch.where(row > 0, row, torch.ones_like(row)).expand_as(y),
        }
        w = forms[kw["cb_form"]]
    if name == "eql":
        rare = torch.tensor(COUNTS["image_counts"]) / COUNTS["num_images"] < kw["eql_lambda"]
        w = 1 - (foreground & rare & ~positive).to(y.dtype)
    if name == "eqlv2":
        f = torch.sigmoid(12 * (loss.ratio(y.shape[-1], y) - 0.8))
        w = torch.where(positive, 1 + 4 * (1 - f), f)
    if name in ("efl", "eqfl"):
        gamma = 2 + loss.scale * (1 - loss.ratio(y.shape[-1], y))
        alpha = torch.where(positive, 0.25, 0.75) if name == "efl" else 1.0
        w = alpha * (gamma / 2).expand_as(y)
    distance = (y - z.sigmoid()).abs()
    focus = torch.where(gamma > 0, distance ** gamma.clamp_min(1e-300), torch.ones_like(y))
    return w * focus * bce(z, y, reduction="none")


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_value_and_gradient_equal_the_elementwise_definition(name, kw):
    z, targets = batch()
    loss = built(name, kw)
    expected = elementwise(loss, name, kw, z, targets.dense()).sum()
    ours = loss(z, targets)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(3 * ours, z), torch.autograd.grad(3 * expected, z), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_the_gradient_passes_autograds_own_check(name, kw):
    """Which asks for it several times: the buffer that is given away must be made anew."""
    z, targets = batch(a=12)
    loss = built(name, kw)
    frozen = {} if name in ("bce", "eql", "cb", "inverse") else loss.state_dict()

    def fixed(x):
        loss.load_state_dict(frozen)
        return loss(x, targets)

    assert torch.autograd.gradcheck(fixed, z, atol=1e-6)


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_dense_and_sparse_targets_agree(name, kw):
    z, targets = batch()
    assert built(name, kw)(z, targets).item() == built(name, kw)(z, targets.dense()).item()


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
@pytest.mark.parametrize("kind", ["nothing", "half", "by image and class", "weights"])
def test_masked_entries_have_no_gradient_and_no_value(name, kw, kind):
    z, targets = batch()
    y, g = targets.dense(), torch.Generator().manual_seed(1)
    valid = {
        "nothing": torch.zeros(y.shape, dtype=torch.bool),
        "half": torch.rand(y.shape, generator=g) < 0.5,
        "by image and class": torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]], dtype=torch.bool)[:, None],
        "weights": torch.rand(1, 1, y.shape[-1], generator=g, dtype=torch.float64),
    }[kind]
    loss = built(name, kw)
    expected = (elementwise(loss, name, kw, z, y) * valid).sum()
    ours = loss(z, targets, {"valid": valid})
    torch.testing.assert_close(ours, expected)
    (grad,) = torch.autograd.grad(ours, z)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, z)[0])
    assert (grad[~valid.expand(y.shape).bool()] == 0).all()


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_a_batch_without_objects(name, kw):
    z, targets = batch()
    targets.foreground[:] = False
    loss = built(name, kw)
    expected = elementwise(loss, name, kw, z, targets.dense()).sum()
    torch.testing.assert_close(loss(z, targets), expected)


def test_logits_in_another_order_of_memory():
    z, targets = batch()
    ours = torch.autograd.grad(build_loss("eqfl")(z, targets), z)[0]
    turned = z.detach().permute(0, 2, 1).contiguous().permute(0, 2, 1).requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(build_loss("eqfl")(turned, targets), turned)[0], ours)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 9), st.integers(0, 99), st.sampled_from([1, 7, 64, 2**18]))
def test_chunks_change_nothing(b, a, c, seed, chunk):
    """Any number of images, anchors and classes, cut anywhere."""
    z, targets = batch(seed, b, a, c)
    loss = build_loss("eqfl")
    loss.load_state_dict({"positive": torch.rand(c).double(), "negative": torch.ones(c).double(), "skipped": 0})
    kw = {"efl_scale": 8.0}
    expected = elementwise(loss, "eqfl", kw, z, targets.dense()).sum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(weighted_bce.CHUNK, "cpu", chunk)
        ours = loss(z, targets, {"normalizer": 2.0})
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(torch.autograd.grad(ours, z), torch.autograd.grad(expected, z))


@pytest.mark.parametrize(("name", "kw"), GUIDED)
def test_gradient_sums_equal_autograd(name, kw):
    """Over positive entries and over negative ones; efl and eqfl take the normalised loss."""
    z, targets = batch(a=400)
    loss, y = built(name, kw), targets.dense()
    (grad,) = torch.autograd.grad(elementwise(loss, name, kw, z, y).sum(), z)
    before = loss.state_dict()
    loss(z, targets, {"normalizer": 2.5})
    after, scale = loss.state_dict(), 1 if name == "eqlv2" else 2.5
    for key, mask in (("positive", y > 0), ("negative", y == 0)):
        torch.testing.assert_close(
            after[key] - before[key], (grad.abs() * mask).sum((0, 1)) / scale, rtol=1e-7, atol=1e-7
        )
        assert (after[key] != before[key]).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_half_precision_is_summed_in_float32(name, kw, dtype):
    z, targets = batch(a=3000)
    z = z.detach().to(dtype).requires_grad_()
    ours = built(name, kw)(z, targets)
    assert ours.dtype == torch.float32
    exact = built(name, kw)(z.detach().double(), targets)
    assert ours.item() == pytest.approx(exact.item(), rel=1e-5)
    assert torch.autograd.grad(ours, z)[0].dtype == dtype


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_extreme_logits_stay_finite_and_broken_ones_do_not(name, kw):
    z = torch.tensor([[[1e4, -1e4, 0.0, 80.0]], [[-1e4, 1e4, -80.0, 0.0]]], requires_grad=True)
    y = torch.tensor([[[0.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0, 0.0]]])
    loss = built(name, kw)(z, y)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()
    assert built(name, kw)(torch.full_like(z, torch.nan), y).isnan()


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_a_single_class(name, kw):
    z, targets = batch(c=1)
    loss = build_loss(name, image_counts=[5], instance_counts=[9], num_images=20, **kw)
    expected = elementwise(loss, name, kw, z, targets.dense()).sum() if name != "eql" else bce(z, targets.dense()).sum()
    if name == "eql":  # one class of frequency 0.25: not rare
        expected = bce(z, targets.dense(), reduction="sum")
    torch.testing.assert_close(loss(z, targets), expected)


def test_positive_weights_move_the_optimum_and_column_weights_do_not():
    """One class, a quarter of its entries positive: the optimal odds are 1/3, times w with weighted positives."""
    y = torch.tensor([1.0, 0, 0, 0]).view(1, 4, 1)
    for form, odds in (("positives", 5 / 3), ("column", 1 / 3)):
        loss = build_loss("cb", instance_counts=[1], cb_form=form)
        loss.weights = torch.tensor([5.0], dtype=torch.float64)
        z = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([z], max_iter=200)

        def closure(loss=loss, z=z, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(z.expand(1, 4, 1), y)
            value.backward()
            return value

        optimizer.step(closure)
        assert z.exp().item() == pytest.approx(odds, rel=1e-3)


def test_guided_losses_start_as_their_authors_say():
    z, targets = batch()
    y = targets.dense()
    torch.testing.assert_close(build_loss("eqlv2")(z, targets), bce(z, y, reduction="sum"))
    focal = (y - z.sigmoid()).abs() ** 2 * bce(z, y, reduction="none")
    torch.testing.assert_close(build_loss("eqfl")(z, targets), focal.sum())
    torch.testing.assert_close(build_loss("efl")(z, targets), (focal * torch.where(y > 0, 0.25, 0.75)).sum())


@pytest.mark.parametrize(("name", "kw"), GUIDED)
def test_only_training_batches_that_are_finite_are_learnt_from(name, kw):
    z, targets = batch()
    loss = build_loss(name, **COUNTS, **kw)
    with torch.no_grad():
        loss(z, targets)
    loss(z.detach(), targets)
    assert loss.state_dict() == {}
    loss(z, targets)
    before = loss.state_dict()
    assert before["positive"].dtype == before["negative"].dtype == torch.float64
    assert loss(torch.full_like(z, torch.nan), targets).isnan()
    broken = torch.full_like(z, torch.nan).requires_grad_()
    assert loss(broken, targets).isnan()
    after = loss.state_dict()
    assert after.pop("skipped") == before.pop("skipped") + 1
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kw"), GUIDED)
def test_state_goes_from_loss_to_loss(name, kw):
    z, targets = batch()
    first, second = (build_loss(name, **COUNTS, **kw) for _ in range(2))
    for _ in range(3):
        first(z, targets)
    second.load_state_dict(first.state_dict())
    assert second(z, targets).item() == first(z, targets).item()
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)
    second.load_state_dict({})
    assert second(z, targets).item() == build_loss(name, **COUNTS, **kw)(z, targets).item()
    with pytest.raises(ValueError, match="keeps positive, negative, skipped"):
        second.load_state_dict({"positive": torch.zeros(4)})


@pytest.mark.parametrize(("name", "kw"), GUIDED)
def test_a_class_that_never_occurs_keeps_its_ratio_and_its_negatives(name, kw):
    """Its positive gradients stay 0: taken for the rarest of all, it would be suppressed no more."""
    z, targets = batch()
    told, untold = build_loss(name, **COUNTS, **kw), build_loss(name, **kw)
    for loss in (told, untold):
        for _ in range(3):
            loss(z, targets)
    of_absent = [loss.ratio(4, z.detach())[3].item() for loss in (told, untold)]
    assert of_absent == [told.start, pytest.approx(0, abs=1e-4)]
    easy = torch.full_like(z.detach(), -4.0)
    grads = [loss.gradient(easy, targets)[..., 3].abs().sum().item() for loss in (told, untold, build_loss("bce"))]
    assert grads[0] > grads[1]
    if name == "eqlv2":
        assert grads[0] == pytest.approx(grads[2], rel=0.2 if kw["loss_variant"] == "relative" else 1e-6)


def test_a_background_that_lowers_every_ratio_alike_leaves_the_relative_one():
    g, like = torch.tensor([9.0, 3.0, 1.0]).double(), torch.empty(0, dtype=torch.float64)
    ratios = {}
    for variant in VARIANTS:
        for flood in (1.0, 1e4):
            loss = build_loss("eqlv2", loss_variant=variant)
            loss.load_state_dict({"positive": g, "negative": flood * torch.ones(3).double(), "skipped": 0})
            ratios[variant, flood] = loss.ratio(3, like).tolist()
    for flood in (1.0, 1e4):
        assert ratios["relative", flood] == pytest.approx([3, 1, 1 / 3])
    assert max(ratios["original", 1e4]) < 1e-3, "its weights of all negatives are those of no ratio at all"


def test_the_ratios_of_the_bins_are_columns():
    loss = built("eqfl", {})
    bins = {"head": [0], "medium": [1], "tail": [2, 3]}
    assert ratio_columns(loss, "one2many", bins) == pytest.approx(
        {"lt/grad_ratio(head)": 0.9, "lt/grad_ratio(medium)": 0.5, "lt/grad_ratio(tail)": (0.0625 + 1) / 2}
    )
    assert list(ratio_columns(loss, "one2one", {"head": [0], "tail": []})) == ["lt/grad_ratio_one2one(head)"]
    assert ratio_columns(build_loss("bce"), "one2many", bins) == {}


def test_sparse_targets_answer_like_dense_ones():
    _, targets = batch()
    dense, mask = targets.dense(), targets.foreground
    torch.testing.assert_close(targets.sum(), dense.sum())
    torch.testing.assert_close(targets[mask].sum(-1, keepdim=True), dense[mask].sum(-1, keepdim=True))
    assert targets.to(torch.float32).dense().dtype == torch.float32
    torch.testing.assert_close(targets.to(torch.float32).dense(), dense.float())
    assert targets.to("cpu").labels.device.type == "cpu"


def test_refusals():
    for call, message in (
        (partial(build_loss, "focal"), r"bce \| inverse \| cb \| eql \| eqlv2 \| efl \| eqfl"),
        (partial(build_loss, "cb"), "instance_counts"),
        (partial(build_loss, "inverse"), "instance_counts"),
        (partial(build_loss, "eql", image_counts=[1]), "num_images"),
        (partial(build_loss, "cb", **COUNTS, cb_form="diagonal"), "positives"),
        (partial(build_loss, "cb", **COUNTS, focal_gamma=-1), "focal_gamma=-1"),
        (partial(build_loss, "cb", **COUNTS, focal_gamma=np.nan), "focal_gamma=nan"),
        (partial(build_loss, "cb", **COUNTS, weight_cap=0.5), "weight_cap=0.5"),
        (partial(build_loss, "inverse", **COUNTS, inverse_power=2), "inverse_power=2"),
        (partial(build_loss, "eqlv2", loss_variant="dense"), "original"),
        (partial(build_loss, "eqfl", focal_gamma=0), "divide by it"),
        (partial(build_loss, "efl", efl_scale=-1), "efl_scale=-1"),
        (partial(build_loss, "bce", gamma=1), "cls_loss=bce"),
    ):
        with pytest.raises(UsageError, match=message):
            call()


@pytest.mark.parametrize("name", LOSSES)
def test_a_stateless_loss_keeps_no_state_and_none_is_a_module(name):
    loss = build_loss(name, **COUNTS)
    assert not isinstance(loss, torch.nn.Module)
    assert loss.state_dict() == {}
    loss.load_state_dict({})
    with pytest.raises(ValueError, match="keeps"):
        loss.load_state_dict({"pos": np.zeros(3)})


def test_every_loss_takes_its_keys():
    assert set(LOSS_KEYS) == set(LOSSES)
    values = {
        "cb_form": "row",
        "weight_norm": "boxes",
        "weight_cap": 5.0,
        "loss_variant": "original",
        "margin_reference": "max",
    }
    for name, keys in LOSS_KEYS.items():
        build_loss(name, **COUNTS, **{k: values.get(k, 0.5) for k in keys})


def test_weights_of_the_positives_keep_the_total():
    counts = [1000, 100, 10, 1, 0]
    for method in ("cb", "inverse"):
        for cap in ("none", 10.0, 1.0):
            w = class_weights(counts, method, norm="boxes", cap=cap)
            assert (w * counts).sum() == pytest.approx(sum(counts))
            assert w.max() <= (np.inf if cap == "none" else cap)
            assert w[4] == 1
