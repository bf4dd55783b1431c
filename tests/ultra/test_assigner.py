"""Sparse targets decide nothing: on every assigner of Ultralytics losses, gradients and targets are the stock ones."""

import copy
import pickle
import subprocess
import sys

import pytest
import test_criterion
import torch
from test_criterion import IMAGES, assigned, batch, end_to_end, leaves, loss_of, ours, predicted, same, step, stock
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from ultralytics.utils import tal
from ultralytics.utils.tal import TaskAlignedAssigner

from yolo_lt.balance import SparseTargets
from yolo_lt.balance.losses import LOSSES, Loss
from yolo_lt.ultra.assigner import SparseMixin, make_sparse, sparse_class
from yolo_lt.ultra.criterion import branches, install

ONE_OF_EACH = ["yolo26n.yaml", "yolo26n-seg.yaml", "yolo26n-pose.yaml", "yolo26n-obb.yaml"]  # of each assigner
NAMES = ["yolov8n.yaml", "yolov10n.yaml", "yolo11n-seg.yaml", "yolo11n-pose.yaml", "yolo11n-obb.yaml", *ONE_OF_EACH]
one_thread = test_criterion.one_thread


def criterion_of(name, make=Loss):
    """A new criterion with a loss of ours, and the model."""
    model, preds = predicted(name)
    model.criterion = None
    install(model, make)
    return model.criterion, model, preds


# The same decisions --------------------------------------------------------------------------------------------------


def kinds_of(criterion):
    return {type(branch.assigner) for branch in branches(criterion).values()}


def kind_of(name):
    """The assigner class of Ultralytics' criterion."""
    (kind,) = kinds_of(predicted(name)[0].init_criterion())
    return kind


def test_every_assigner_is_among_these_models():
    theirs = {c for c in vars(tal).values() if isinstance(c, type) and issubclass(c, TaskAlignedAssigner)}
    assert {kind_of(name) for name in ONE_OF_EACH} == theirs


@pytest.mark.parametrize("nc", [3, 1])
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("name", NAMES)
def test_losses_gradients_and_targets_are_the_stock_ones(name, images, nc):
    loss, grads, seen = stock(name, images, nc)
    our_loss, our_grads, our_seen, _ = ours(name, images, Loss, nc)
    same(our_loss, loss)
    assert our_grads.keys() == grads.keys()
    for key, grad in grads.items():
        same(our_grads[key], grad)
        if grad.numel():
            assert (our_grads[key] - grad).norm() <= 1e-6 * grad.norm(), key
    assert our_seen.keys() == seen.keys() == ({"one2many", "one2one"} if end_to_end(name) else {"one2many"})
    for branch, (labels, boxes, values, foreground, index) in seen.items():
        our_labels, our_boxes, targets, our_foreground, our_index = our_seen[branch]
        assert isinstance(targets, SparseTargets)
        assert foreground.any() == (images != "no boxes")
        assert torch.equal(targets.dense(), values)
        assert targets.dense().dtype == values.dtype
        assert torch.equal(targets.foreground, foreground)
        assert torch.equal(our_foreground, foreground)
        assert torch.equal(our_index, index)
        assert torch.equal(our_boxes, boxes)
        assert torch.equal(our_labels[foreground].long(), labels[foreground].long())
        assert targets.num_classes == nc == branches(predicted(name, nc)[0].criterion)[branch].assigner.num_classes


def test_a_crowd_has_more_boxes_than_anchors_can_serve():
    """Else the case above would say nothing about boxes that compete."""
    _, _, seen = stock("yolov8n.yaml", "crowd")
    _, _, values, foreground, index = seen["one2many"]
    wanted = 10 * min(map(len, IMAGES["crowd"]))
    assert (foreground.sum(1) < wanted / 2).all()
    assert len(index[0][foreground[0]].unique()) < len(IMAGES["crowd"][0])
    assert values.shape[1] < wanted


def test_an_error_below_leaves_the_number_of_classes(monkeypatch):
    criterion, _, preds = criterion_of("yolov8n.yaml")

    def fail(*args, **kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr(TaskAlignedAssigner, "get_targets", fail)
    with pytest.raises(RuntimeError, match="no"):
        criterion(leaves(preds)[0], batch("yolov8n.yaml"))
    assert criterion.assigner.num_classes == 3


# Out of memory -------------------------------------------------------------------------------------------------------


class Starved:
    """`_forward` of an assigner on a device that has room for one image at a time."""

    def __init__(self, assigner, message="CUDA out of memory. Tried to allocate 2.00 GiB"):
        self.forward, self.message, self.sizes = assigner._forward, message, []

    def __call__(self, pd_scores, *args, **extra):
        self.sizes.append(len(pd_scores))
        if len(pd_scores) > 1:
            raise RuntimeError(self.message)
        return self.forward(pd_scores, *args, **extra)


@pytest.mark.parametrize("images", ["boxes", "an image without", "crowd"])
@pytest.mark.parametrize("name", ["yolov8n.yaml", *ONE_OF_EACH])
def test_image_by_image_after_running_out_of_memory_is_the_same(name, images):
    loss, grads, seen = stock(name, images)
    criterion, model, preds = criterion_of(name)
    starved = {k: Starved(branch.assigner) for k, branch in branches(criterion).items()}
    for key, branch in branches(criterion).items():
        branch.assigner._forward = starved[key]
    again = assigned(criterion)
    our_loss, our_grads = step(criterion, model, preds, batch(name, images))
    assert all(s.sizes == [2, 1, 1] for s in starved.values()), "the retry is not made image by image"
    same(our_loss, loss)
    for key, grad in grads.items():
        same(our_grads[key], grad)
    for key, (_, _, values, foreground, _) in seen.items():
        assert torch.equal(again[key][2].foreground, foreground)
        torch.testing.assert_close(again[key][2].dense(), values, rtol=1e-6, atol=1e-9)


def test_another_error_is_not_taken_for_a_lack_of_memory():
    criterion, _, preds = criterion_of("yolov8n.yaml")
    criterion.assigner._forward = starved = Starved(criterion.assigner, "illegal instruction")
    with pytest.raises(RuntimeError, match="illegal instruction"):
        criterion(leaves(preds)[0], batch("yolov8n.yaml"))
    assert starved.sizes == [2]


# The class that is made at run time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_sparse_class_is_made_once_and_never_nested(name):
    model, _ = predicted(name)
    model.criterion = None
    base = kind_of(name)
    kind = sparse_class(base)
    assert (kind.__name__, kind.__bases__) == (f"Sparse{base.__name__}", (SparseMixin, base))
    for _ in range(3):
        install(model, Loss)
        assert kinds_of(model.criterion) == {kind}
    loss, grads, _ = stock(name, "boxes")
    our_loss, our_grads = step(model.criterion, model, predicted(name)[1], batch(name))
    same(our_loss, loss)
    assert our_grads.keys() == grads.keys()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_sparse_assigner_keeps_the_settings_of_the_given_one(name):
    for branch in branches(predicted(name)[0].init_criterion()).values():
        before = vars(branch.assigner)
        sparse = make_sparse(branch.assigner)
        assert type(branch.assigner) is kind_of(name), "the given one was changed"
        assert vars(sparse).keys() == before.keys()
        assert all(vars(sparse)[k] is before[k] for k in before)
        assert make_sparse(sparse) is sparse
        assert isinstance(sparse, kind_of(name))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_copied_criterion_works_on_its_own(name, loss, way):
    criterion, model, preds = criterion_of(name, lambda: loss_of(loss))
    twin = way(criterion)
    expected, grads = step(criterion, model, preds, batch(name))
    found, our_grads = step(twin, model, preds, batch(name))  # without the copy's own learnt parts
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for key, grad in our_grads.items():
        torch.testing.assert_close(grad, grads[key], rtol=0, atol=0)
    assert any(key.endswith("scores") for key in our_grads)
    for mine, theirs in zip(branches(twin).values(), branches(criterion).values(), strict=True):
        assert mine.assigner is not theirs.assigner
        assert type(mine.assigner) is type(theirs.assigner)
        assert repr(mine.bce.state_dict()) == repr(theirs.bce.state_dict())
        mine.assigner.num_classes = 7
        assert theirs.assigner.num_classes == 3


FRESH = """
import pickle, sys, torch
torch.set_num_threads(1)
assert "yolo_lt" not in sys.modules
for name, criterion, preds, data, expected in pickle.load(open(sys.argv[1], "rb")):
    loss, _ = criterion(preds, data)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-6, atol=0)
    assert type(criterion.one2one.assigner) is type(criterion.one2many.assigner)
    print(name, type(criterion.one2one.assigner).__name__)
"""


def test_a_pickled_criterion_works_in_a_fresh_interpreter(tmp_path):
    cases = []
    for name in ONE_OF_EACH:
        criterion, model, preds = criterion_of(name, lambda: loss_of("eqlv2"))
        tree = leaves(preds)[0]
        content = pickle.dumps((name, criterion, tree, batch(name)))
        expected, _ = step(criterion, model, preds, batch(name))
        cases.append((*pickle.loads(content), expected))
    path = tmp_path / "criteria.pkl"
    path.write_bytes(pickle.dumps(cases))
    run = subprocess.run([sys.executable, "-c", FRESH, path], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if line.startswith("yolo26n")]
    assert lines == [f"{name} {sparse_class(kind_of(name)).__name__}" for name in ONE_OF_EACH]


# What stands for the dense tensor ------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", ["boxes", "an image without", "no boxes"])
def test_sparse_targets_answer_as_the_dense_tensor(images):
    _, _, seen, _ = ours("yolo26n.yaml", images, Loss)
    for labels, _, sparse, foreground, _ in seen.values():
        dense = sparse.dense()
        assert dense.shape == (*labels.shape, 3)
        torch.testing.assert_close(sparse.sum(), dense.sum(), rtol=1e-6, atol=0)
        assert sparse.sum().shape == ()
        for mask in (foreground, foreground.nonzero(as_tuple=True)):
            torch.testing.assert_close(sparse[mask].sum(-1), dense[mask].sum(-1), rtol=0, atol=0)
            weight = dense[mask].sum(-1, keepdim=True)
            torch.testing.assert_close(sparse[mask].sum(-1, keepdim=True), weight, rtol=0, atol=0)
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            cast = sparse.to(dtype)
            assert cast.values.dtype == cast.sum().dtype == cast[foreground].dtype == dtype
            assert torch.equal(cast.dense(), dense.to(dtype))
            assert (cast.labels.dtype, cast.foreground.dtype) == (torch.int64, torch.bool)
            assert sparse.values.dtype == torch.float32, "the original was changed"


class Allocations(TorchDispatchMode):
    """Records the operations whose result is a new tensor of at least `size` elements."""

    def __init__(self, size):
        super().__init__()
        self.size, self.found = size, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.numel() >= self.size and x.untyped_storage()._cdata not in known:
                self.found.append(str(func))
        return out


def allocations(criterion, preds, data):
    """The large allocations of a forward and backward pass by the scores."""
    tree, named = leaves(preds)
    with Allocations(next(v for k, v in named.items() if k.endswith("scores")).numel()) as seen:
        loss, _ = criterion(tree, data)
        torch.autograd.grad(loss.sum(), list(named.values()), allow_unused=True)
    return seen.found


SIZE, NC = 320, 300  # so many entries that the losses take them in parts


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n-obb.yaml"])
def test_nothing_as_large_as_the_logits_is_made_but_their_gradient(name, loss):
    model, preds = predicted(name, NC, SIZE)
    boxes, nothing = (batch(name, images, NC, SIZE) for images in ("boxes", "no boxes"))
    theirs = allocations(model.init_criterion(), preds, boxes)
    model.criterion = None
    install(model, lambda: LOSSES[loss]([50] * NC, [70] * NC, 5000))
    first = allocations(model.criterion, preds, boxes)  # also runs BCE, to compare the norms
    assert len(first) < len(theirs), (first, theirs)
    for data in (boxes, nothing):
        found = allocations(model.criterion, preds, data)
        assert len(found) == 3, found  # Ultralytics' copy of the logits and their sigmoid, and the gradient
