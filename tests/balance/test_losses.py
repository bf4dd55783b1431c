from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from yolo_lt.balance import SparseTargets, build_loss, class_weights
from yolo_lt.balance.losses import LOSS_KEYS, LOSSES, GradientGuided, RowWeights, weighted_bce
from yolo_lt.balance.losses.class_balanced import FORMS
from yolo_lt.balance.losses.eqlv2 import VARIANTS
from yolo_lt.balance.losses.guided import ratio_columns
from yolo_lt.balance.losses.targets import positives
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
    ("seesaw", {}),
    ("seesaw", {"seesaw_p": 0.0, "seesaw_q": 0.5}),
    ("ecm", {}),
    ("ecm", {"ecm_background": 100.0, "ecm_scale": 1.0, "margin_reference": "max"}),
    ("loce", {"loce_momentum": 0.7}),
    ("logit_adjusted", {}),
    ("logit_adjusted", {"logit_tau": 0.5, "margin_reference": "max"}),
    ("federated", {"federated_classes": 2}),
]
GUIDED = [(name, kw) for name, kw in OPTIONS if isinstance(build_loss(name, **COUNTS, **kw), GradientGuided)]
STATEFUL = [(name, kw) for name, kw in OPTIONS if build_loss(name, **COUNTS, **kw).keeps_state]
STATES = {
    "seesaw": {"counts": torch.tensor([50.0, 7.0, 1.0, 0.0], dtype=torch.float64)},
    "loce": {"mean": torch.tensor([0.4, 0.1, 0.02, 0.01], dtype=torch.float64)},
    "federated": {"batches": 3},
}


def batch(seed=0, b=2, a=40, c=4, dtype=torch.float64):
    """Logits and TAL-like soft targets: about a fifth of the anchors hold one class."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(b, a, c, generator=g, dtype=dtype) * 3
    foreground = torch.rand(b, a, generator=g) < 0.2
    labels = torch.randint(0, max(1, c - 1), (b, a), generator=g)
    values = torch.rand(b, a, generator=g, dtype=dtype).clamp_min(1e-3)
    return z.requires_grad_(), SparseTargets(labels, foreground, values, c)


def built(name, kw):
    """The loss, with a state; a guided one with ratios that differ by class."""
    loss = build_loss(name, **COUNTS, **kw)
    if isinstance(loss, GradientGuided):
        sums = [torch.tensor(v, dtype=torch.float64) for v in ([9.0, 2.0, 0.5, 0.0], [10.0, 4.0, 8.0, 1.0])]
        loss.load_state_dict({"positive": sums[0], "negative": sums[1], "skipped": 0})
    elif loss.keeps_state:
        loss.load_state_dict(STATES[name])
    return loss


def elementwise(loss, name, kw, z, y):
    """The definition, written densely and differentiated by autograd: the loss of every entry of a training batch."""
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
    x, images, boxes = z, *(torch.tensor(COUNTS[k][: y.shape[-1]]) for k in ("image_counts", "instance_counts"))
    seen, score = positive.flatten(0, 1).sum(0), z.detach().sigmoid()
    if name == "seesaw":
        p, q = kw.get("seesaw_p", 0.8), kw.get("seesaw_q", 2.0)
        n = (seen if loss.counts is None else loss.counts + seen).clamp_min(1).to(y.dtype)
        own = y.argmax(-1, keepdim=True)
        mitigation = (n / n[own]).clamp_max(1) ** p
        compensation = (score / score.gather(-1, own).clamp_min(0.01)).clamp_min(1) ** q
        x = z + torch.where(foreground & ~positive, (mitigation * compensation).log(), 0.0)
    if name == "loce":
        before, kept = 0.01 if loss.mean is None else loss.mean, kw["loce_momentum"] ** seen.to(y.dtype)
        mean = kept * before + (1 - kept) * (score * positive).flatten(0, 1).sum(0) / seen.clamp_min(1)
        mean = mean.clamp_min(0.01)
        x = z + torch.where(boxes > 0, (mean / mean[boxes > 0].max()).log(), 0.0)
    if name == "ecm":
        rest = (1 + kw.get("ecm_background", 6.3313)) * images.sum().to(y.dtype) - images
        w = torch.where(images > 0, rest / images * (1 + images / rest).log(), 1.0).expand_as(y)
        shift = torch.where(images > 0, (images / rest).log() / 4, 0.0)
        largest = shift[images > 0].max() if "margin_reference" in kw else 0.0
        x = kw.get("ecm_scale", 2.0) * z + torch.where(images > 0, shift - largest, 0.0)
    if name == "logit_adjusted":
        shift = ((boxes / boxes.sum().to(y.dtype)) ** kw.get("logit_tau", 1.0) + 1e-12).log()
        largest = shift[boxes > 0].max() if "margin_reference" in kw else 0.0
        x = z + torch.where(boxes > 0, shift - largest, 0.0)
    if name == "federated":
        chosen, draw = (seen > 0).numpy(), np.where(seen > 0, 0.0, np.sqrt(images))
        room = min(kw["federated_classes"] - chosen.sum(), (draw > 0).sum())
        if room > 0:
            rng = np.random.default_rng((0, 0, loss.batches + 1))  # seed, process, batch
            chosen[rng.choice(len(draw), room, replace=False, p=draw / draw.sum())] = True
        w = (positive | torch.from_numpy(chosen) | (images == 0)).to(y.dtype)
    distance = (y - x.sigmoid()).abs()
    focus = torch.where(gamma > 0, distance ** gamma.clamp_min(1e-300), torch.ones_like(y))
    return w * focus * bce(x, y, reduction="none")


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
    """Which asks for it several times: the buffer that is given away must be made anew. No factor is differentiated."""
    z, targets = batch(a=12)
    loss = built(name, kw)
    terms = loss.terms(positives(targets, None, z.dtype), z.detach(), z.new_empty(0))
    loss.terms = lambda pos, z, like: terms
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), z, atol=1e-6)


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


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(OPTIONS),
    st.integers(1, 3),
    st.integers(1, 30),
    st.integers(0, 99),
    st.sampled_from([1, 7, 64, 2**18]),
    st.booleans(),
)
def test_weights_of_the_absent_are_those_of_the_negative_entries_of_an_anchor(option, b, a, seed, chunk, masked):
    """With or without `valid`, cut anywhere, and again when the gradient is asked for a second time."""
    (name, kw), (z, targets) = option, batch(seed, b, a)
    loss, y, absent, valid = built(name, kw), targets.dense(), *masks(seed, b, a)
    weight = torch.where(y > 0, 1.0, rows_of(absent))
    expected = (elementwise(loss, name, kw, z, y) * (weight * valid if masked else weight)).sum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(weighted_bce.CHUNK, "cpu", chunk)
        ours = loss(z, targets, {"absent": absent, "valid": valid} if masked else {"absent": absent})
        torch.testing.assert_close(ours, expected)
        grad = torch.autograd.grad(expected, z)
        for _ in range(2):
            torch.testing.assert_close(torch.autograd.grad(ours, z, retain_graph=True), grad)


def masks(seed, b, a):
    """Weights of the absent, some of them 0, and valid entries."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.rand(3, 4, generator=g) * (torch.rand(3, 4, generator=g) < 0.6)
    return RowWeights(rows, torch.randint(0, 3, (b, a), generator=g)), torch.rand(b, a, 4, generator=g) < 0.7


def rows_of(absent):
    return absent.rows[absent.index].double()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_the_absent_in_half_precision(dtype):
    z, targets = batch()
    z, (absent, _) = z.detach().to(dtype), masks(0, 2, 40)
    ours = build_loss("bce")(z, targets, {"absent": absent})
    exact = build_loss("bce")(z.double(), targets, {"absent": absent})
    assert ours.item() == pytest.approx(exact.item(), rel=1e-5)
    assert ours.item() < build_loss("bce")(z, targets).item()


@pytest.mark.parametrize(("name", "kw"), GUIDED)
@pytest.mark.parametrize("chunk", [64, 2**18])
def test_gradient_sums_are_of_what_the_masks_leave(name, kw, chunk, monkeypatch):
    monkeypatch.setitem(weighted_bce.CHUNK, "cpu", chunk)
    z, targets = batch(a=100)
    loss, y, absent, valid = built(name, kw), targets.dense(), *masks(1, 2, 100)
    (grad,) = torch.autograd.grad(elementwise(loss, name, kw, z, y).sum(), z)
    before = loss.state_dict()
    loss(z, targets, {"absent": absent, "valid": valid})
    after, left = loss.state_dict(), {"positive": (y > 0) * valid, "negative": (y == 0) * valid * rows_of(absent)}
    for key, weight in left.items():
        torch.testing.assert_close(after[key] - before[key], (grad.abs() * weight).sum((0, 1)), rtol=1e-7, atol=1e-7)
        assert (after[key] != before[key]).any()


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_an_image_in_several_chunks(name, kw, monkeypatch):
    z, targets = batch()
    ours = built(name, kw).gradient(z, targets)
    monkeypatch.setitem(weighted_bce.CHUNK, "cpu", 28)
    torch.testing.assert_close(built(name, kw).gradient(z, targets), ours)


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
    exact = built(name, kw)(z.detach().double().requires_grad_(), targets)
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


@pytest.mark.parametrize(("name", "kw"), STATEFUL)
def test_state_changes_in_training_alone(name, kw):
    z, targets = batch()
    loss = build_loss(name, **COUNTS, **kw)
    for _ in range(2):
        before = loss.state_dict()
        with torch.no_grad():
            loss(z, targets)
        loss(z.detach(), targets)
        loss.gradient(z, targets)
        torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)
        loss(z, targets)
        assert str(loss.state_dict()) != str(before)


def test_scores_that_are_not_finite_leave_the_means():
    z, targets = batch()
    loss = built("loce", {})
    assert loss(torch.full_like(z, torch.nan).requires_grad_(), targets).isnan()
    torch.testing.assert_close(loss.state_dict(), STATES["loce"], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kw"), STATEFUL)
def test_state_goes_from_loss_to_loss(name, kw):
    z, targets = batch()
    first, second = (build_loss(name, **COUNTS, **kw) for _ in range(2))
    for _ in range(3):
        first(z, targets)
    state = first.state_dict()
    second.load_state_dict(state)
    assert second(z, targets).item() == first(z, targets).item()
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)
    second.load_state_dict({})
    assert second(z, targets).item() == build_loss(name, **COUNTS, **kw)(z, targets).item()
    for wrong in ({"positive": torch.zeros(4)}, {**state, "more": 1}):
        with pytest.raises(ValueError, match=f"keeps {', '.join(state)}"):
            second.load_state_dict(wrong)


@pytest.mark.parametrize(("name", "kw"), [x for x in STATEFUL if x[0] != "federated"])
def test_a_state_of_another_number_of_classes(name, kw):
    state = {k: v[:3] if torch.is_tensor(v) else v for k, v in built(name, kw).state_dict().items()}
    with pytest.raises(ValueError, match=r"of \[?3\]? classes"):
        build_loss(name, **COUNTS, **kw).load_state_dict(state)


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


@pytest.mark.parametrize("name", ["logit_adjusted", "ecm"])
@pytest.mark.parametrize("reference", ["max", "none"])
def test_margins_make_the_tail_learn_from_its_objects_and_the_head_from_its_negatives(name, reference):
    """At p = 1/2 the gradients of BCE are 1/2; a class without objects has those."""
    kw = {"ecm_scale": 1.0} if name == "ecm" else {}
    loss = build_loss(name, **COUNTS, margin_reference=reference, **kw)
    grad = loss.gradient(torch.zeros(1, 4, 4, dtype=torch.float64), torch.eye(4)[None])[0]
    positive, negative = -grad.diagonal(), grad[3]
    assert (positive[:3].diff() > 0.05).all()
    assert (negative[:3].diff() < -0.05).all()
    assert positive[3] == 0.5
    assert grad[0, 3] == 0.5
    plain = 0.5 * loss.weight[0].item() if name == "ecm" else 0.5
    assert (negative[0].item() == pytest.approx(plain)) == (reference == "max"), "the head's"


def test_classes_that_score_high_make_loce_lower_the_others():
    loss, y = build_loss("loce", instance_counts=[9, 9, 0]), torch.eye(3, dtype=torch.float64)[None, :2]
    at = torch.zeros(1, 2, 3, dtype=torch.float64)
    plain = build_loss("bce").gradient(at, y)
    torch.testing.assert_close(loss.gradient(at, y), plain)
    z = torch.tensor([[[4.0, -4.0, -4.0], [-4.0, -2.0, -4.0]]], dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        loss(z, y)
    grad = loss.gradient(at, y)
    assert (grad[..., 0] == plain[..., 0]).all(), "of the highest mean score"
    assert (grad[..., 2] == plain[..., 2]).all(), "never occurs"
    assert grad[0, 1, 1] < -0.8
    assert 0 < grad[0, 0, 1] < 0.2


def test_a_class_that_no_batch_has_reached_does_not_look_stronger_than_one_that_scores_low():
    loss = build_loss("loce")
    loss.load_state_dict({"mean": torch.tensor([0.5, 0.002, 0.01], dtype=torch.float64)})
    grad = loss.gradient(torch.zeros(1, 1, 3, dtype=torch.float64), torch.zeros(1, 1, 3, dtype=torch.float64))
    assert grad[0, 0].tolist() == pytest.approx([0.5, 0.02 / 1.02, 0.02 / 1.02])


def test_objects_of_the_head_punish_the_tail_less():
    loss = build_loss("seesaw", seesaw_q=0.0)
    loss.load_state_dict({"counts": torch.tensor([100.0, 10.0, 1.0], dtype=torch.float64)})
    y = torch.cat([torch.eye(3), torch.zeros(1, 3)]).double()[None]
    grad = loss.gradient(torch.zeros_like(y), y)[0]
    factor = 0.1**0.8
    assert grad[0].tolist() == pytest.approx([-0.5, factor / (1 + factor), factor**2 / (1 + factor**2)])
    assert grad[1].tolist() == pytest.approx([0.5, -0.5, factor / (1 + factor)])
    assert grad[2].tolist() == pytest.approx([0.5, 0.5, -0.5])
    assert grad[3].tolist() == [0.5, 0.5, 0.5], "no object"


def test_classes_that_score_above_the_object_are_punished_more():
    loss = build_loss("seesaw", seesaw_p=0.0)
    z, y = torch.tensor([[[0.0, 1.0, -1.0]] * 2], dtype=torch.float64), torch.tensor([[[1.0, 0, 0], [0, 0, 0]]])
    grad, p = loss.gradient(z, y)[0], z[0, 0].sigmoid()
    assert grad[1].tolist() == pytest.approx(p.tolist())
    odds = p[1] / (1 - p[1]) * (p[1] / p[0]) ** 2
    assert grad[0].tolist() == pytest.approx([-0.5, (odds / (1 + odds)).item(), p[2].item()])


def test_only_rows_of_objects_are_shifted_whatever_the_foreground():
    """A foreground anchor whose soft target is 0 holds no class, and one outside of it is background."""
    z, targets = batch()
    bare = tuple(targets.foreground.nonzero()[::2].T)
    loss, plain = build_loss("seesaw"), build_loss("bce")
    targets.values[bare] = 0
    ours, theirs = loss.gradient(z, targets)[bare], plain.gradient(z, targets)[bare]
    assert (ours == theirs).all()
    objects = targets.foreground & (targets.values > 0)
    changed = (loss.gradient(z, targets) != plain.gradient(z, targets)).any(-1)
    assert changed.any()
    assert not (changed & ~objects).any()
    outside = {"foreground": torch.zeros_like(targets.foreground)}
    assert (loss.gradient(z, targets, outside) == plain.gradient(z, targets)).all()


def test_seesaw_counts_objects_of_every_training_batch():
    loss, (z, targets) = build_loss("seesaw"), batch()
    seen = (targets.dense() > 0).sum((0, 1))
    for batches in (1, 2):
        loss(z, targets)
        assert loss.counts.tolist() == (batches * seen).tolist()


def drawn(loss, batches=1, classes=20, appear=(1, 3)):
    """The classes with negative gradients in each of some batches with objects of some classes."""
    z = torch.zeros(2, 6, classes, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(appear).repeat(2, 6 // len(appear))
    foreground = torch.zeros(2, 6, dtype=torch.bool)
    foreground[:, : len(appear)] = True
    targets = SparseTargets(labels, foreground, foreground.double(), classes)
    out = []
    for _ in range(batches):
        (grad,) = torch.autograd.grad(loss(z, targets), z)
        assert (grad[targets.dense() > 0] == -0.5).all()
        assert ((grad == 0) | (grad == 0.5))[targets.dense() == 0].all()
        out.append(tuple(grad[0, -1].nonzero()[:, 0].tolist()))
    return out


def test_federated_takes_negatives_of_the_classes_of_a_batch_and_of_drawn_ones():
    """Another draw for every batch, seed and process, and the same one again after a restart."""
    build = partial(build_loss, "federated", image_counts=range(20), federated_classes=5)
    loss = build()
    before = drawn(loss, 6)
    assert {len(classes) for classes in before} == {6}
    assert all({0, 1, 3} < set(classes) for classes in before), "class 0 has no images: nothing else holds it down"
    assert len(set(before)) > 3
    assert before == drawn(build(), 6)
    assert before != drawn(build(seed=1), 6)
    again = build()
    again.load_state_dict(loss.state_dict())
    after = drawn(loss, 6)
    assert after == drawn(again, 6)
    assert after != before


def test_processes_draw_for_themselves(monkeypatch):
    build = partial(build_loss, "federated", image_counts=range(20), federated_classes=5)
    alone = drawn(build(), 6)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    of_ranks = []
    for rank in range(2):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        of_ranks.append(drawn(build(), 6))
    assert of_ranks[0] == alone
    assert of_ranks[1] != alone


def test_federated_draws_by_frequency_over_the_batches():
    """One place beside the class that is there; within four standard errors."""
    counts, batches = np.array([5, 1, 4, 9, 100, 0]), 4000
    loss = build_loss("federated", image_counts=counts, federated_classes=2)
    draws = np.zeros(6)
    for loss.batches in range(batches):
        draws += loss.chosen(np.array([0]))
    share = np.sqrt([0, 1, 4, 9, 100, 0]) / np.sqrt([1, 4, 9, 100]).sum()
    error = np.sqrt(share * (1 - share) / batches)
    assert draws[0] == batches
    assert (np.abs(draws / batches - share)[1:] <= 4 * error[1:]).all()


def test_more_classes_than_there_are_is_plain_cross_entropy():
    z, targets = batch()
    (grad,) = torch.autograd.grad(build_loss("federated", **COUNTS)(z, targets), z)
    assert (grad == build_loss("bce").gradient(z, targets)).all()


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
        (partial(build_loss, "eqfl", focal_gamma=0), "focal_gamma=0: expected a number above 0"),
        (partial(build_loss, "efl", efl_scale=-1), "efl_scale=-1"),
        (partial(build_loss, "bce", gamma=1), "cls_loss=bce"),
        (partial(build_loss, "eqfl", efl_scale=np.inf), "efl_scale=inf"),
        (partial(build_loss, "federated", **COUNTS, federated_power=np.nan), "federated_power=nan"),
        (partial(build_loss, "federated", **COUNTS, federated_classes=0), "federated_classes=0: .* from 1"),
        (partial(build_loss, "ecm", **COUNTS, ecm_scale=0), "ecm_scale=0: .* above 0"),
        (partial(build_loss, "ecm", **COUNTS, ecm_background=-5), "ecm_background=-5"),
        (partial(build_loss, "logit_adjusted", **COUNTS, logit_tau=-1), "logit_tau=-1"),
        (partial(build_loss, "loce", loce_momentum=1), "loce_momentum=1: expected a number from 0 to below 1"),
        (partial(build_loss, "seesaw", seesaw_p=-1), "seesaw_p=-1"),
        (partial(build_loss, "seesaw", seesaw_q=-0.5), "seesaw_q=-0.5"),
        (partial(build_loss, "seesaw", seesaw_q=np.nan), "seesaw_q=nan"),
        (partial(build_loss, "seesaw", seesaw_p=np.inf), "seesaw_p=inf"),
        (partial(build_loss, "ecm", instance_counts=[1]), "image_counts"),
        (partial(build_loss, "federated", instance_counts=[1]), "image_counts"),
        (partial(build_loss, "logit_adjusted", image_counts=[1]), "instance_counts"),
        (partial(build_loss, "ecm", **COUNTS, margin_reference="mean"), r"margin_reference=mean: expected max \| none"),
        (partial(build_loss, "logit_adjusted", **COUNTS, margin_reference=""), r"max \| none"),
        (partial(build_loss, "ecm", image_counts=[1, -1]), "numbers from 0"),
        (partial(build_loss, "logit_adjusted", instance_counts=[np.nan, 1]), "numbers from 0"),
        (partial(build_loss, "federated", image_counts=[np.inf, 1]), "numbers from 0"),
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
        "federated_classes": 2,
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
