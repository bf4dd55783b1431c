import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from yolo_lt.balance import SparseTargets, build_loss, class_weights
from yolo_lt.balance.losses import LOSSES
from yolo_lt.errors import UsageError

COUNTS = {"image_counts": [60, 9, 1, 0], "instance_counts": [90, 9, 1, 0], "num_images": 100}
OPTIONS = [("bce", {}), ("eql", {"eql_lambda": 0.1})] + [("cb", {"cb_form": f}) for f in ("positives", "column", "row")]


def batch(seed=0, b=2, a=40, c=4, dtype=torch.float64):
    """Logits and TAL-like soft targets: about a fifth of the anchors hold one class."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(b, a, c, generator=g, dtype=dtype) * 3
    foreground = torch.rand(b, a, generator=g) < 0.2
    labels = torch.randint(0, 3, (b, a), generator=g)
    values = torch.rand(b, a, generator=g, dtype=dtype).clamp_min(1e-3)
    return z.requires_grad_(), SparseTargets(labels, foreground, values, c)


def elementwise_weights(name, kw, y, num_images=100):
    """The definition, written densely: the weight of every entry."""
    w = torch.ones_like(y)
    if name == "cb":
        cw = torch.from_numpy(class_weights(COUNTS["instance_counts"], "cb", 0.999))
        if kw["cb_form"] == "positives":
            w = torch.where(y > 0, cw, w)
        elif kw["cb_form"] == "column":
            w = cw.expand_as(y)
        else:
            row = torch.where(y > 0, cw, torch.zeros_like(y)).sum(-1, keepdim=True)
            w = torch.where(row > 0, row, torch.ones_like(row)).expand_as(y)
    if name == "eql":
        rare = torch.tensor(COUNTS["image_counts"]) / num_images < kw["eql_lambda"]
        foreground = (y > 0).any(-1, keepdim=True)
        w = 1 - (foreground & rare & (y == 0)).to(y.dtype)
    return w


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_value_and_gradient_equal_the_elementwise_definition(name, kw):
    z, targets = batch()
    y = targets.dense()
    expected = (elementwise_weights(name, kw, y) * bce(z, y, reduction="none")).sum()
    ours = build_loss(name, **COUNTS, **kw)(z, targets)
    torch.testing.assert_close(ours, expected)
    for a, b in zip(torch.autograd.grad(ours, z), torch.autograd.grad(expected, z), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_dense_and_sparse_targets_agree(name, kw):
    z, targets = batch()
    loss = build_loss(name, **COUNTS, **kw)
    assert loss(z, targets).item() == loss(z, targets.dense()).item()


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_masked_entries_have_no_gradient_and_no_value(name, kw, rate):
    z, targets = batch()
    y = targets.dense()
    valid = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < rate
    ours = build_loss(name, **COUNTS, **kw)(z, targets, {"valid": valid})
    weights = elementwise_weights(name, kw, y) * valid
    torch.testing.assert_close(ours, (weights * bce(z, y, reduction="none")).sum())
    (grad,) = torch.autograd.grad(ours, z)
    assert (grad[~valid] == 0).all()


@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_a_batch_without_objects(name, kw):
    z, targets = batch()
    targets.foreground[:] = False
    ours = build_loss(name, **COUNTS, **kw)(z, targets)
    weights = elementwise_weights(name, kw, targets.dense())
    torch.testing.assert_close(ours, (weights * bce(z, targets.dense(), reduction="none")).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "kw"), OPTIONS)
def test_half_precision_is_summed_in_float32(name, kw, dtype):
    z, targets = batch(a=3000)
    ours = build_loss(name, **COUNTS, **kw)(z.detach().to(dtype), targets)
    assert ours.dtype == torch.float32
    exact = build_loss(name, **COUNTS, **kw)(z.detach().to(dtype).double(), targets)
    assert ours.item() == pytest.approx(exact.item(), rel=1e-5)


def test_extreme_logits_stay_finite():
    z = torch.tensor([[[1e4, -1e4, 0.0, 80.0]]], requires_grad=True)
    y = torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])
    for name, kw in OPTIONS:
        loss = build_loss(name, **COUNTS, **kw)(z, y)
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


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


def test_refusals():
    with pytest.raises(UsageError, match=r"bce \| cb \| eql"):
        build_loss("focal")
    with pytest.raises(UsageError, match="instance_counts"):
        build_loss("cb")
    with pytest.raises(UsageError, match="num_images"):
        build_loss("eql", image_counts=[1])
    with pytest.raises(UsageError, match="positives"):
        build_loss("cb", **COUNTS, cb_form="diagonal")
    with pytest.raises(UsageError, match="cls_loss=bce"):
        build_loss("bce", gamma=1)


@pytest.mark.parametrize("name", LOSSES)
def test_a_stateless_loss_keeps_no_state(name):
    loss = build_loss(name, **COUNTS)
    assert loss.state_dict() == {}
    loss.load_state_dict({})
    with pytest.raises(ValueError, match="keeps no state"):
        loss.load_state_dict({"pos": np.zeros(3)})
    assert not isinstance(loss, torch.nn.Module)
