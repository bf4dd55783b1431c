"""The loss acts: on every model that Ultralytics brings the classification gradients change and nothing else does.

A network runs once; the criterion then works on its predictions as leaves, so that every loss meets every head.
"""

import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import ultralytics
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel, guess_model_task
from ultralytics.utils import YAML

from yolo_lt.balance import SparseTargets, build_loss
from yolo_lt.balance.losses import LOSSES, GradientGuided, Loss, RowWeights
from yolo_lt.balance.losses.weighted_bce import Terms
from yolo_lt.errors import UsageError
from yolo_lt.ultra.args import TASKS, UNSUPPORTED_HEADS, check_conflicts, check_model
from yolo_lt.ultra.criterion import GAINS, ClassificationLoss, WeightedBoxLoss, branches, install

FOLDER = Path(ultralytics.__file__).parent / "cfg" / "models"
FAMILIES = ("v5", "v8", "v9", "v10", "11", "12", "26")
KINDS = {"detect": DetectionModel, "segment": SegmentationModel, "pose": PoseModel, "obb": OBBModel}
COUNTS = {"image_counts": [5000, 400, 3], "instance_counts": [9000, 500, 3], "num_images": 5000}
HEAD, TAIL = 0, 2
IMAGES = {  # the classes of the boxes in each image of a batch
    "boxes": ((0, 1, 2, 2), (2, 1, 0)),
    "no tail": ((0, 1, 0), (1, 0)),
    "an image without": ((0, 1, 2), ()),
    "no boxes": ((), ()),
    "crowd": ((0, 1, 2) * 20, (2, 0, 1) * 15),
}


@cache
def models():
    """Every model YAML of these families that yolo_lt trains, at its smallest scale: {name: task}."""
    found = {}
    for path in (p for family in FAMILIES for p in sorted((FOLDER / family).glob("*.yaml"))):
        cfg = YAML.load(path)
        task, head, scale = guess_model_task(cfg), cfg["head"][-1][2], next(iter(cfg.get("scales", {})), "")
        if task in TASKS and not any(name in head for name in UNSUPPORTED_HEADS):
            found[re.sub(r"^(yolov?\d+)(?=[-.])", rf"\g<1>{scale}", path.name)] = task
    return found


def build(name, nc=3):
    """The model in training with BatchNorm frozen, so that two passes see one network."""
    torch.manual_seed(0)
    model = KINDS[models()[name]](name, nc=nc, verbose=False)
    check_model(models()[name], model)
    model.args = get_cfg()
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


@cache
def predicted(name, nc=3, size=64):
    """The model, of which only the head is kept, and its predictions for two images.

    An untrained network gives every anchor nearly the same tiny score, so they are moved to p from 0.01 to 0.7.
    """
    model, g = build(name, nc), torch.Generator().manual_seed(3)
    with torch.no_grad():
        preds = model(pictures(size))
    for branch in preds.values() if "one2many" in preds else [preds]:
        scores = branch["scores"]
        branch["scores"] = scores - scores.mean() - 2 + torch.randn(scores.shape, generator=g)
    model.model = model.model[-1:]  # all that a criterion looks at
    return model, preds


def pictures(size=64):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def batch(name, images="boxes", nc=3, size=64):
    """Targets for two images with boxes of these classes, in sizes from a fifth of the image to nearly all of it."""
    g, images = torch.Generator().manual_seed(2), IMAGES[images]
    n = sum(map(len, images))
    boxes = torch.cat([0.3 + 0.4 * torch.rand(n, 2, generator=g), 0.2 + 0.7 * torch.rand(n, 2, generator=g)], 1)
    if models()[name] == "obb":
        boxes = torch.cat([boxes, torch.rand(n, 1, generator=g)], 1)
    return {
        "img": pictures(size),
        "cls": torch.tensor([[min(c, nc - 1)] for image in images for c in image]).view(-1, 1).float(),
        "bboxes": boxes,
        "batch_idx": torch.tensor([i for i, image in enumerate(images) for _ in image]).float(),
        "masks": torch.randint(0, 5, (2, size // 4, size // 4), generator=g).float(),
        "keypoints": torch.cat([torch.rand(n, 17, 2, generator=g), torch.full((n, 17, 1), 2.0)], 2),
        "sem_masks": torch.zeros(2, size // 4, size // 4),
    }


def leaves(preds, path=""):
    """Predictions without the network behind them: the same tree of leaves, and the leaves by name."""
    if isinstance(preds, torch.Tensor):
        leaf = preds.detach().clone().requires_grad_()
        return leaf, {path: leaf}
    tree, named = {}, {}
    for key, value in preds.items() if isinstance(preds, dict) else enumerate(preds):
        tree[key], inner = leaves(value, f"{path}.{key}".strip("."))
        named |= inner
    return (tree if isinstance(preds, dict) else type(preds)(tree.values())), named


def step(criterion, model, preds, data):
    """The loss vector, and its gradient by every prediction and by what the head adds to the loss, by name."""
    tree, named = leaves(preds)
    loss, _ = criterion(tree, data)
    named |= {k: v for k, v in model.named_parameters() if v.requires_grad}
    grads = torch.autograd.grad(loss.sum(), list(named.values()), allow_unused=True)
    return loss.detach(), {k: g for k, g in zip(named, grads, strict=True) if g is not None}


def same(ours, stock):
    """Equal to 1e-6 of the value, or of the largest one where differences of near numbers have lost digits."""
    torch.testing.assert_close(ours, stock, rtol=1e-6, atol=1e-6 * float(stock.abs().max()) if stock.numel() else 0)


def assigned(criterion):
    """What the assigner of every branch answers from now on, as a dict that fills itself."""
    seen = {}

    def keep(branch):
        def hook(module, args, out):
            seen[branch] = tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in out)

        return hook

    for name, branch in branches(criterion).items():
        branch.assigner.register_forward_hook(keep(name))
    return seen


@cache
def stock(name, images, nc=3):
    """Ultralytics' own loss vector, gradients and assignments by branch."""
    model, preds = predicted(name, nc)
    criterion = model.init_criterion()
    seen = assigned(criterion)
    return *step(criterion, model, preds, batch(name, images, nc)), seen


def ours(name, images, make, nc=3, gain=1.0, box_weights=None, absent=None):
    """The same with a loss of ours on every branch, and what was installed."""
    model, preds = predicted(name, nc)
    model.criterion = None
    installed = install(model, make, gain, box_weights)
    for loss in installed.values():
        loss.masked, loss.absent = absent is not None, absent
    seen = assigned(model.criterion)
    return *step(model.criterion, model, preds, batch(name, images, nc)), seen, installed


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tensors are small: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Every loss on every model -------------------------------------------------------------------------------------------


def weighted(before, after, positive, foreground):
    """Positive entries of the tail weigh more than those of the head; negative entries are left alone."""
    gains = [after[..., c][p].abs().sum() / before[..., c][p].abs().sum() for c, p in enumerate(positive.unbind(-1))]
    assert gains[TAIL] > 2, gains
    assert gains[HEAD] < 0.5 * gains[TAIL], gains
    same(after[~positive], before[~positive])


def spared(before, after, positive, foreground):
    """No object is of the tail: on foreground anchors nothing pushes it down, and all else is left alone."""
    assert not positive[..., TAIL].any()
    assert (before[..., TAIL][foreground] > 0).all()
    assert (after[..., TAIL][foreground] == 0).all()
    same(after[..., TAIL][~foreground], before[..., TAIL][~foreground])
    same(after[..., :TAIL], before[..., :TAIL])


def rebalanced(before, after, positive, foreground):
    """Positive entries of the tail grow and its negative ones nearly vanish; the head's change less."""
    grows, shrinks = [
        [after[..., c][e].abs().sum() / before[..., c][e].abs().sum() for c, e in enumerate(entries.unbind(-1))]
        for entries in (positive, ~positive)
    ]
    assert grows[TAIL] > 4, grows
    assert 1 < grows[HEAD] < 2, grows
    assert shrinks[TAIL] < 0.01, shrinks
    assert 0.5 < shrinks[HEAD] < 1, shrinks


def focused(before, after, positive, foreground):
    """Easy negatives of the tail count for less than those of the head."""
    easy = ~positive & (before / before.max() < 0.2)  # a negative's gradient is p over the normalizer
    shrinks = [after[..., c][e].sum() / before[..., c][e].sum() for c, e in enumerate(easy.unbind(-1))]
    assert shrinks[HEAD] < 1, shrinks
    assert shrinks[TAIL] < 0.1 * shrinks[HEAD], shrinks


def seesawed(before, after, positive, foreground):
    """On anchors with a head object the tail is hardly pushed down, on those of the tail the head at least as before.

    Where a class scores higher than the object's own, compensation pushes it more, so only the others are looked at.
    """
    others = foreground[..., None] & ~positive
    for anchors, c in ((positive[..., HEAD], TAIL), (positive[..., TAIL], HEAD)):
        assert anchors.any()
        assert (before[..., c][anchors] > 0).all()
    freed = after[..., TAIL][positive[..., HEAD]] / before[..., TAIL][positive[..., HEAD]]
    pushed = after[..., HEAD][positive[..., TAIL]] / before[..., HEAD][positive[..., TAIL]]
    assert freed.min() < 0.05, freed
    assert (pushed > 0.999).all(), pushed
    assert freed.median() < 0.5 * pushed.median(), (freed, pushed)
    same(after[~others], before[~others])


def lowered(before, after, positive, foreground):
    """The tail's logits are lowered: pulled up harder and pushed down less, while the head's stay."""
    assert (after[..., TAIL] < before[..., TAIL]).all()
    shrinks = after[..., TAIL][~positive[..., TAIL]].sum() / before[..., TAIL][~positive[..., TAIL]].sum()
    assert shrinks < 0.3, shrinks
    torch.testing.assert_close(after[..., HEAD], before[..., HEAD], rtol=0.01, atol=0)  # ecm weighs it by 0.995


def dropped(before, after, positive, foreground):
    """No object is of the tail, and it is not drawn: none of its negatives counts, and all else is left alone."""
    assert not positive[..., TAIL].any()
    assert (before[..., TAIL] > 0).all()
    assert (after[..., TAIL] == 0).all()
    same(after[..., :TAIL], before[..., :TAIL])


WEIGHTS = {"cb_form": "positives", "weight_norm": "boxes", "weight_cap": 10.0}
DIRECTIONS = {  # loss: (its keywords, the batch, what its gradients must show)
    "cb": (WEIGHTS, "boxes", weighted),
    "inverse": (WEIGHTS, "boxes", weighted),
    "eql": ({"eql_lambda": 0.0009}, "no tail", spared),
    "eqlv2": ({"loss_variant": "original"}, "boxes", rebalanced),
    "efl": ({}, "boxes", focused),
    "eqfl": ({}, "boxes", focused),
    "seesaw": ({}, "boxes", seesawed),
    "ecm": ({"ecm_background": 100.0, "ecm_scale": 1.0, "margin_reference": "max"}, "boxes", lowered),
    "loce": ({"loce_momentum": 0.999}, "boxes", lowered),
    "logit_adjusted": ({"margin_reference": "max"}, "boxes", lowered),
    "federated": ({"federated_classes": 2}, "no tail", dropped),
}


def loss_of(name):
    """A loss of three classes; what it has learned so far is that the tail is rare, weak or pushed down."""
    loss = build_loss(name, **COUNTS, **(DIRECTIONS[name][0] if name != "bce" else {}))
    loss.load_state_dict(learned(loss))
    return loss


def learned(loss):
    """The state of a loss of three classes before the batch."""
    positive = torch.tensor([1.0, 1.0, 0.01], dtype=torch.float64)
    if isinstance(loss, GradientGuided):
        return {"positive": positive, "negative": torch.ones_like(positive), "skipped": 0}
    states = {
        "Seesaw": {"counts": torch.tensor([1e7, 1e3, 1.0], dtype=torch.float64)},
        "LOCE": {"mean": torch.tensor([0.99, 0.5, 0.01], dtype=torch.float64)},
        "Federated": {"batches": 7},
    }
    return states.get(type(loss).__name__, {})


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "bce"])
@pytest.mark.parametrize("name", models())
def test_every_loss_moves_the_tail_on_every_model_and_leaves_the_rest(name, loss):
    _, images, check = DIRECTIONS[loss]
    _, before, targets = stock(name, images)
    _, after, _, installed = ours(name, images, lambda: loss_of(loss))
    assert before.keys() == after.keys()
    for key in before.keys() - {k for k in before if k.endswith("scores")}:
        assert before[key].abs().sum() > 0 or not before[key].numel(), key
        same(after[key], before[key])
    assert set(installed) == set(targets) == ({"one2many", "one2one"} if end_to_end(name) else {"one2many"})
    for branch, (_, _, values, foreground, _) in targets.items():
        key = f"{branch}.scores" if end_to_end(name) else "scores"
        check(before[key].transpose(1, 2), after[key].transpose(1, 2), values > 0, foreground)
        assert installed[branch].batches == 1
        check_learned(installed[branch].loss)


def check_learned(loss):
    """Every part of a state has moved for every class that the batch holds, and in the direction it can."""
    before, after = learned(loss), loss.state_dict()
    assert before.keys() == after.keys()
    for part in ("positive", "negative", "counts"):
        assert part not in before or (after[part] > before[part]).all(), "it did not learn from it"
    assert "mean" not in before or (after["mean"] != before["mean"]).all(), "it did not learn from it"
    assert "batches" not in before or after["batches"] == 8


# Weights of the boxes, and the mask of the annotation ----------------------------------------------------------------


BOX_WEIGHTS = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
ROWS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.25]])  # weights of negatives by class


def by_branch(name, grads, part):
    """What the gradients hold of a prediction, by branch, (B, A, .)."""
    names = ("one2many", "one2one") if end_to_end(name) else ("one2many",)
    return {b: grads[f"{b}.{part}" if end_to_end(name) else part].transpose(1, 2) for b in names}


def mask_of(anchors):
    """Every anchor has one of three rows."""
    return RowWeights(ROWS, torch.randint(0, 3, (2, anchors), generator=torch.Generator().manual_seed(4)))


def masked(grads, positive, absent):
    """Gradients of entries as the mask leaves them: those of negatives by its weights."""
    return torch.where(positive, grads, grads * absent.rows[absent.index])


@pytest.mark.parametrize("name", models())
def test_box_weights_weigh_the_boxes_of_every_model_by_class_and_nothing_else(name):
    _, before, targets = stock(name, "boxes")
    _, after, *_ = ours(name, "boxes", Loss, box_weights=BOX_WEIGHTS)
    assert before.keys() == after.keys()
    for key in before.keys() - {k for k in before if k.endswith(("boxes", "angle"))}:
        same(after[key], before[key])
    old, new = (by_branch(name, grads, "boxes") for grads in (before, after))
    for branch, (labels, _, values, foreground, _) in targets.items():
        assert (values > 0).any(1).any(0).all(), "a class without an anchor would not be tested"
        weights = BOX_WEIGHTS[labels.long()].float()[..., None]
        same(new[branch], torch.where(foreground[..., None], weights, 1.0) * old[branch])
        assert (old[branch][~foreground] == 0).all()
    if models()[name] == "obb":  # an angle is of the boxes' loss, and of one of its own, which stays
        assert any((after[k] != before[k]).any() for k in before if k.endswith("angle"))


@pytest.mark.parametrize("name", models())
def test_box_weights_do_nothing_where_there_are_no_boxes(name):
    expected, before, _ = stock(name, "no boxes")
    loss, after, *_ = ours(name, "no boxes", Loss, box_weights=BOX_WEIGHTS)
    same(loss, expected)
    assert before.keys() == after.keys()
    for key, grad in before.items():
        same(after[key], grad)


@pytest.mark.parametrize("images", ["boxes", "no boxes"])
@pytest.mark.parametrize("name", models())
def test_the_mask_weighs_the_negatives_of_every_model_by_anchor_and_nothing_else(name, images):
    _, before, targets = stock(name, images)
    absent = mask_of(by_branch(name, before, "scores")["one2many"].shape[1])
    _, after, _, installed = ours(name, images, Loss, absent=absent)
    assert before.keys() == after.keys()
    for key in before.keys() - {k for k in before if k.endswith("scores")}:
        same(after[key], before[key])
    old, new = (by_branch(name, grads, "scores") for grads in (before, after))
    zero = absent.rows[absent.index] == 0
    for branch, (_, _, values, *_) in targets.items():
        positive = values > 0 if images == "boxes" else torch.zeros_like(zero)
        assert (old[branch][~positive] > 0).all()
        assert (new[branch][zero & ~positive] == 0).all()
        same(new[branch], masked(old[branch], positive, absent))
        assert installed[branch].absent is None


@pytest.mark.parametrize("loss", ["cb", "eqlv2", "seesaw", "loce"])
@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml", "yolo11n-obb.yaml"])
def test_the_mask_is_composed_with_other_losses(name, loss):
    _, before, *_ = ours(name, "boxes", lambda: loss_of(loss))
    absent = mask_of(by_branch(name, before, "scores")["one2many"].shape[1])
    _, after, *_ = ours(name, "boxes", lambda: loss_of(loss), absent=absent)
    for branch, (_, _, values, *_) in stock(name, "boxes")[2].items():
        old, new = (by_branch(name, grads, "scores")[branch] for grads in (before, after))
        same(new, masked(old, values > 0, absent))


def test_a_guided_loss_learns_only_from_the_negatives_that_count():
    loss, targets = ClassificationLoss(loss_of("eqlv2"), "one2many"), targets_of(9)
    loss.masked = True
    loss.absent = RowWeights(torch.tensor([[1.0, 1.0, 0.0]]), torch.zeros(2, 200, dtype=torch.long))
    loss(logits_of(), targets)
    learned = loss.loss.state_dict()["negative"]
    assert learned[TAIL] == 1
    assert (learned[:TAIL] > 1).all()


def test_a_mask_is_used_once_and_only_in_training():
    loss, targets, zero = ClassificationLoss(Loss(), "one2many"), targets_of(9), torch.zeros(2, 200, dtype=torch.long)
    loss.masked, absent = True, RowWeights(torch.zeros(1, 3), zero)
    loss.absent = absent
    with torch.no_grad():
        torch.testing.assert_close(loss(logits_of(), targets), Loss()(logits_of(), targets))
    torch.testing.assert_close(loss(logits_of().detach(), targets), Loss()(logits_of(), targets))
    assert loss.absent is absent
    expected = Loss()(logits_of(), targets, {"valid": targets.dense() > 0})
    torch.testing.assert_close(loss(logits_of(), targets), expected)
    with pytest.raises(RuntimeError, match=r"is for anchors None, the head has \(2, 200\)"):
        loss(logits_of(), targets)


@pytest.mark.parametrize("shape", [(2, 199), (1, 200), (2, 201)])
def test_a_mask_of_other_anchors_stops_the_training(shape):
    loss = ClassificationLoss(Loss(), "one2many")
    loss.masked = True
    loss.absent = RowWeights(torch.ones(1, 3), torch.zeros(shape, dtype=torch.long))
    with pytest.raises(RuntimeError, match=re.escape(f"is for anchors {shape}, the head has (2, 200)")):
        loss(logits_of(), targets_of(9))


@pytest.mark.parametrize("images", ["boxes", "no boxes"])
def test_both_at_once_with_a_loss_act_as_each_alone(images):
    name = "yolo26n.yaml"
    anchors = by_branch(name, stock(name, images)[1], "scores")["one2many"].shape[1]
    both = ours(name, images, lambda: loss_of("cb"), box_weights=BOX_WEIGHTS, absent=mask_of(anchors))[1]
    scores = ours(name, images, lambda: loss_of("cb"), absent=mask_of(anchors))[1]
    boxes = ours(name, images, Loss, box_weights=BOX_WEIGHTS)[1]
    for key, grad in both.items():
        same(grad, (scores if key.endswith("scores") else boxes)[key])


def test_the_stock_box_loss_stays_inside():
    model, _ = predicted("yolo11n-obb.yaml")
    model.criterion = None
    plain = model.init_criterion().bbox_loss
    install(model, Loss, box_weights=BOX_WEIGHTS)
    assert isinstance(model.criterion.bbox_loss, WeightedBoxLoss)
    assert type(model.criterion.bbox_loss.stock) is type(plain)


def end_to_end(name):
    return hasattr(predicted(name)[0].model[-1], "one2one_cv3")


def test_the_models_are_those_of_every_family_and_task():
    assert set(models().values()) == set(TASKS) == set(KINDS)
    assert {"yolov8n-ghost-p2.yaml", "yolov8n-pose-p6.yaml", "yolov9c-seg.yaml", "yolov10b.yaml"} <= set(models())
    assert len(models()) >= 40
    others = {p.parent.name for p in FOLDER.glob("*/*.yaml")} - set(FAMILIES)
    assert others == {"rt-detr", "v3", "v6"}, "Ultralytics has a family that these tests do not know"
    assert all(any(name.startswith(f"yolo{family}") for name in models()) for family in FAMILIES)


THROUGH = ["yolov8n.yaml", "yolov10n.yaml", "yolo11n-obb.yaml", "yolo26n-seg.yaml", "yolo26n-pose.yaml"]


@pytest.mark.parametrize("name", THROUGH)
def test_it_reaches_the_last_convolutions_of_a_network(name):
    model, data = build(name), batch(name)
    cls_before, rest_before = convolutions(model, data)
    install(model, lambda: loss_of("cb"))
    cls_after, rest_after = convolutions(model, data)
    ratio = cls_after / cls_before
    assert ratio[TAIL] > 1.05, ratio
    assert ratio[TAIL] > ratio[HEAD]
    assert rest_before.keys() == rest_after.keys()
    for key, grad in rest_before.items():  # rounding that many convolutions carry on
        torch.testing.assert_close(rest_after[key], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()), msg=key)


def convolutions(model, data):
    """Gradients of the head: norms of the last classification convolutions by class, and all other tensors by name."""
    model.zero_grad()
    loss, _ = model.loss(data)
    loss.sum().backward()
    head = model.model[-1]
    cls = [level[-1].weight.grad for n in ("cv3", "one2one_cv3") for level in getattr(head, n, None) or []]
    rest = {n: p.grad.clone() for n, p in head.named_parameters() if p.grad is not None and "cv3" not in n}
    return torch.stack([g.flatten(1).norm(dim=1) for g in cls]).sum(0), rest


# Plain BCE of ours, and what is replaced -----------------------------------------------------------------------------


@pytest.mark.parametrize("images", ["boxes", "no boxes"])
@pytest.mark.parametrize("name", models())
def test_plain_bce_of_ours_is_the_stock_loss(name, images):
    expected, before, _ = stock(name, images)
    loss, after, *_ = ours(name, images, Loss)
    same(loss, expected)
    assert before.keys() == after.keys()
    for key, grad in before.items():
        same(after[key], grad)


def test_a_criterion_that_exists_is_kept_with_its_schedule():
    model, preds = predicted("yolo26n.yaml")
    kept = model.criterion = model.init_criterion()
    for _ in range(3):
        kept.update()
    before, one2one = vars(kept).copy(), kept.one2one
    assigner = kept.one2one.assigner
    installed = install(model, lambda: loss_of("cb"))
    assert model.criterion is kept
    assert vars(kept) == before
    assert kept.one2one is one2one
    assert kept.o2m < 0.8
    assert {name: branch.bce for name, branch in branches(kept).items()} == installed
    assert (kept.one2one.assigner.topk, kept.one2one.assigner.topk2) == (assigner.topk, assigner.topk2) == (7, 1)
    kept(leaves(preds)[0], batch("yolo26n.yaml"))
    assert all(loss.batches == 1 for loss in installed.values())


@pytest.mark.parametrize("part", ["bce", "assigner", "bbox_loss"])
def test_a_criterion_without_a_part_to_replace_is_refused(part):
    whole, broken = (SimpleNamespace(bce=1, assigner=2, bbox_loss=3) for _ in range(2))
    delattr(broken, part)
    assert branches(whole) == {"one2many": whole}
    with pytest.raises(UsageError, match=rf"cannot act: SimpleNamespace \(one2many\) has no '{part}'"):
        branches(broken)
    with pytest.raises(UsageError, match=rf"\(one2one\) has no '{part}'"):
        branches(SimpleNamespace(one2many=whole, one2one=broken))


def test_a_refused_criterion_is_left_as_it_was():
    model, _ = predicted("yolo26n.yaml")
    model.criterion = model.init_criterion()
    bce, assigner = model.criterion.one2many.bce, model.criterion.one2many.assigner
    del model.criterion.one2one.bce
    with pytest.raises(UsageError):
        install(model, Loss)
    assert (model.criterion.one2many.bce, model.criterion.one2many.assigner) == (bce, assigner)


@pytest.mark.parametrize("loss", LOSSES)
def test_cls_pw_with_a_loss_is_refused(loss):
    lt = {"sampler": "none", "tail_paste": False, "tail_augment": False, "holdout": 0, "cls_loss": loss}
    check_conflicts({"cls_pw": 0.0}, lt, "detect")
    if loss == "bce":
        check_conflicts({"cls_pw": 0.5}, lt, "detect")
        return
    with pytest.raises(UsageError, match=f"cls_pw and cls_loss={loss} would multiply"):
        check_conflicts({"cls_pw": 0.5}, lt, "detect")


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n-obb.yaml", "yolo26n.yaml"])
def test_class_weights_that_got_through_stop_the_training(name):
    """Ultralytics multiplies the elements by them; a sum has none, so they cannot act in silence."""
    model, preds = predicted(name)
    try:
        model.class_weights, model.criterion = torch.tensor([1.0, 2.0, 3.0]), None
        install(model, lambda: loss_of("cb"))
        with pytest.raises(RuntimeError, match="broadcast"):
            model.criterion(leaves(preds)[0], batch(name))
    finally:
        del model.class_weights


def test_nothing_of_ours_enters_the_state_dict():
    model, _ = predicted("yolo26n.yaml")
    model.criterion = None
    before, modules = set(model.state_dict()), set(dict(model.named_modules()))
    install(model, lambda: loss_of("cb"))
    assert set(model.state_dict()) == before
    assert set(dict(model.named_modules())) == modules


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml"])
@pytest.mark.parametrize("loss", LOSSES)
def test_validation_changes_no_state(name, loss):
    model, preds = predicted(name)
    model.criterion = None
    installed = install(model, lambda: loss_of(loss), "auto")
    before = {k: v.state_dict() for k, v in installed.items()}
    with torch.no_grad():
        model.criterion(leaves(preds)[0], batch(name))
    model.criterion(preds, batch(name))  # nor do predictions that nothing is learnt from
    assert {k: repr(v.state_dict()) for k, v in installed.items()} == {k: repr(v) for k, v in before.items()}
    assert all((v.batches, v.gain, v.start) == (0, None, None) for v in installed.values())
    model.criterion(leaves(preds)[0], batch(name))
    assert all(v.batches == 1 and v.gain for v in installed.values())


# The gain ------------------------------------------------------------------------------------------------------------


class Scaled(Loss):
    """BCE times a factor."""

    def __init__(self, factor):
        self.factor = factor

    def terms(self, pos, z, like):
        return Terms(
            positives=like.new_full(pos.y.shape, self.factor), negatives=like.new_full((z.shape[2],), self.factor)
        )


def targets_of(objects, seed=0, anchors=200):
    g = torch.Generator().manual_seed(seed)
    foreground = torch.zeros(2, anchors, dtype=torch.bool)
    foreground[:, :objects] = True
    values = torch.rand(2, anchors, generator=g) * foreground
    return SparseTargets(torch.randint(0, 3, (2, anchors), generator=g), foreground, values, 3)


def logits_of(seed=0, anchors=200):
    return (torch.randn(2, anchors, 3, generator=torch.Generator().manual_seed(seed)) - 3).requires_grad_()


def gradient_norm(loss, logits, targets):
    return torch.autograd.grad(loss(logits, targets), logits)[0].norm()


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml", "yolo26n-seg.yaml", "yolo11n-obb.yaml"])
def test_an_automatic_gain_gives_the_first_batch_the_gradient_norm_of_bce(name):
    _, before, _ = stock(name, "boxes")
    *_, installed = found = ours(name, "boxes", lambda: build_loss("eqfl"), gain="auto")
    for key in [k for k in before if k.endswith("scores")]:
        torch.testing.assert_close(found[1][key].norm(), before[key].norm(), rtol=0.01, atol=0)
    for loss in installed.values():
        assert loss.gain > 1.5, "eqfl is smaller than BCE, so a gain of one would pass as well"
        assert loss.gain == pytest.approx(1 / loss.start)


def test_the_gain_stays_as_it_was_found():
    loss = ClassificationLoss(build_loss("eqfl"), "one2many", "auto")
    loss(logits_of(), targets_of(9))
    gain, start = loss.gain, loss.start
    second = gradient_norm(loss, logits_of(1), targets_of(40))
    assert (loss.gain, loss.start, loss.batches) == (gain, start, 2)
    assert second != pytest.approx(float(gradient_norm(Loss(), logits_of(1), targets_of(40))), rel=0.01)


@pytest.mark.parametrize("total", [0.0, 0.9])
def test_a_first_batch_with_next_to_no_targets_postpones_the_gain(total):
    """Where they sum up to less than 1, Ultralytics does not divide by their sum."""
    loss = ClassificationLoss(build_loss("eqfl"), "one2many", "auto")
    few = targets_of(1 if total else 0)
    few.values *= total / few.values.sum().clamp(min=1e-9)
    torch.testing.assert_close(loss(logits_of(), few), build_loss("eqfl")(logits_of(), few))
    assert (loss.gain, loss.start, loss.batches) == (None, None, 1)
    found = gradient_norm(loss, logits_of(), targets_of(9))
    torch.testing.assert_close(found, gradient_norm(Loss(), logits_of(), targets_of(9)), rtol=0.01, atol=0)


@pytest.mark.parametrize(("factor", "gain"), [(1e-4, GAINS[1]), (1e4, GAINS[0]), (0.5, 2.0), (4.0, 0.25)])
def test_the_gain_has_bounds(factor, gain):
    loss = ClassificationLoss(Scaled(factor), "one2many", "auto")
    value = loss(logits_of(), targets_of(9))
    assert loss.start == pytest.approx(factor, rel=1e-4)
    assert loss.gain == pytest.approx(gain, rel=1e-4)
    torch.testing.assert_close(value, Loss()(logits_of(), targets_of(9)) * factor * gain, rtol=1e-4, atol=0)


def test_a_given_gain_multiplies_and_the_start_is_measured_beside_it():
    loss = ClassificationLoss(Scaled(0.5), "one2many", 3)
    torch.testing.assert_close(loss(logits_of(), targets_of(9)), 1.5 * Loss()(logits_of(), targets_of(9)))
    assert loss.start == pytest.approx(0.5, rel=1e-4)
    assert (loss.gain, loss.found) == (3, False)


@pytest.mark.parametrize("factor", [0.0, float("nan"), float("inf")])
def test_a_gradient_that_is_nothing_or_not_finite_gives_no_gain(factor):
    loss = ClassificationLoss(Scaled(factor), "one2many", "auto")
    loss(logits_of(), targets_of(9))
    assert (loss.gain, loss.start) == (None, None)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("gain", ["auto", 2.0])
def test_the_state_goes_through_a_file_and_back(tmp_path, loss, gain):
    first = ClassificationLoss(loss_of(loss), "one2many", gain)
    for seed in range(3):
        first(logits_of(seed), targets_of(9, seed))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = ClassificationLoss(build_loss(loss, **COUNTS, **DIRECTIONS.get(loss, ({},))[0]), "one2many", gain)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert repr(second.state_dict()) == repr(first.state_dict())
    assert second.has_state == (gain == "auto" or bool(first.loss.state_dict()))
    for seed in (3, 4):
        assert (
            second(logits_of(seed), targets_of(20, seed)).item() == first(logits_of(seed), targets_of(20, seed)).item()
        )
    assert (second.gain, second.start) == (first.gain, first.start)
