"""strategy=scale: the logits of each class learn one scale and one shift, and nothing else learns."""

import copy
import re
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import LONG_TAIL, NAMES, write_yolo_set
from test_stage_two import RUN, finetune, losses, moved
from torch.func import functional_call
from torch.nn.functional import softplus
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import load_checkpoint

from yolo_lt import YOLOLT, config
from yolo_lt.balance.plan import make_plan
from yolo_lt.errors import UsageError
from yolo_lt.ultra.features import AUGMENTATION
from yolo_lt.ultra.labels import class_stats
from yolo_lt.ultra.scaling import Scaling

# Fast enough for numbers that float16 tells apart: a bias of -10 is rounded to a 1/128
FAST = {"strategy": "scale", "batch": 4, "nbs": 4, "lr0": 0.05, "warmup_epochs": 0, "val": False}
LAST = re.compile(r"model\.\d+\.(one2one_)?cv3\.\d\.2\.(weight|bias)")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """few("pose") -> data.yaml of 14 images of the toy set with the labels of a task. Read only."""

    @cache
    def make(kind):
        return write_yolo_set(tmp_path_factory.mktemp(kind), LONG_TAIL[::3], NAMES, val=4, kind=kind)

    return make


def classifiers(path):
    """Weights (C, F) and biases (C,) of all last classification convolutions of a checkpoint, by name."""
    state = load_checkpoint(path)[0].state_dict()
    return {k: v.double().flatten(1) if v.ndim > 1 else v.double() for k, v in state.items() if LAST.fullmatch(k)}


def scale_and_shift(before, after):
    """The scale and shift (C,) that all classifiers have in common, within float16."""
    old, new = classifiers(before), classifiers(after)
    assert old.keys() == new.keys()
    weights = [k for k in old if k.endswith("weight")]
    joined_old, joined_new = (torch.cat([x[k] for k in weights], 1) for x in (old, new))
    scale = (joined_new * joined_old).sum(1) / joined_old.square().sum(1)
    wanted = scale[:, None] * joined_old
    assert ((joined_new - wanted).abs() <= 1e-3 * wanted.abs() + 1e-6).all()
    shifts = torch.stack([new[k] - scale * old[k] for k in old if k.endswith("bias")])
    assert (shifts - shifts.mean(0)).abs().max() <= 0.01
    return scale, shifts.mean(0)


class Net(torch.nn.Module):
    """A real end-to-end head on two levels, in training mode; its branches differ."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = torch.nn.ModuleList([Detect(nc=4, end2end=True, ch=(8, 16))])
        for p in self.parameters():
            torch.nn.init.normal_(p, std=0.5)

    def forward(self, seed):
        """A loss that depends on every logit and weighs the branches differently."""
        g = torch.Generator().manual_seed(seed)
        images = [torch.randn(2, c, n, n, generator=g, dtype=torch.float64) for c, n in ((8, 4), (16, 2))]
        preds = self.model[0](images)
        return softplus(preds["one2many"]["scores"]).mean() + 3 * preds["one2one"]["scores"].square().mean()

    def last(self):
        return {k: v for k, v in self.named_parameters() if re.search(r"cv3\.\d\.2\.", k)}


@pytest.fixture
def net():
    return Net().double()


def scaled(net, log_scale, shift):
    """What the last convolutions are under a scale and shift, by name, written out."""
    factors = log_scale.exp()
    return {
        k: v * factors[:, None, None, None] if k.endswith("weight") else v * factors + shift
        for k, v in net.last().items()
    }


def test_gathered_gradients_are_those_of_scale_and_shift(net):
    original = copy.deepcopy(net)
    scaling = Scaling(net, original)
    torch.nn.init.normal_(scaling.log_scale, std=0.5)
    torch.nn.init.normal_(scaling.shift)
    scaling.write()
    for seed in (1, 2):  # gradients of two batches are added up before a step
        net(seed).backward()
    scaling.gather()
    assert all(p.grad is None for p in net.last().values())

    log_scale, shift = (v.detach().double().requires_grad_() for v in (scaling.log_scale, scaling.shift))
    params = scaled(original, log_scale, shift)
    assert len(params) == 8
    loss = sum(functional_call(original, params, (seed,)) for seed in (1, 2))
    wanted = torch.autograd.grad(loss, (log_scale, shift))
    for ours, theirs in zip((scaling.log_scale.grad, scaling.shift.grad), wanted, strict=True):
        assert theirs.abs().min() > 1e-3
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


def test_scale_and_shift_are_written_and_read_back(net):
    with torch.no_grad():
        for k, v in net.last().items():
            v[3] = 0 if k.endswith("weight") else v[3]
    original = copy.deepcopy(net)
    scaling = Scaling(net, original)
    assert [*scaling.log_scale.tolist(), *scaling.shift.tolist()] == pytest.approx([0.0] * 8, abs=1e-6)
    log_scale, shift = torch.tensor([0.7, -1.1, 0.0, 0.0]), torch.tensor([-2.0, 0.5, 3.0, 1.0])
    scaling.log_scale.data, scaling.shift.data = log_scale.clone(), shift.clone()
    scaling.write()
    wanted = scaled(original, log_scale.double(), shift.double())
    for k, v in net.last().items():
        torch.testing.assert_close(v, wanted[k], rtol=1e-6, atol=1e-6)
    same = [k for k, v in net.state_dict().items() if k not in wanted and torch.equal(v, original.state_dict()[k])]
    assert len(same) == len(net.state_dict()) - 8

    for stored, off in ((net, 1e-6), (copy.deepcopy(net).half().double(), 4e-3)):  # as it is, and as a file keeps it
        again = Scaling(stored, original)
        torch.testing.assert_close(again.log_scale.detach(), log_scale, rtol=0, atol=off)
        torch.testing.assert_close(again.shift.detach(), shift, rtol=0, atol=off)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "MuSGD"])
def test_an_optimizer_of_ultralytics_moves_the_two_and_the_convolutions_follow(net, name):
    original = copy.deepcopy(net)
    trainer = SimpleNamespace(args=SimpleNamespace(), data={"nc": 4})
    optimizer = BaseTrainer.build_optimizer(trainer, net, name, lr=0.1, momentum=0.9, decay=0.5)
    scaling = Scaling(net, original)
    assert scaling.drive(optimizer) is optimizer
    ours = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    assert [id(p) for p, _ in ours] == [id(scaling.log_scale), id(scaling.shift)]
    assert all(group["weight_decay"] == 0 for _, group in ours)
    net(1).backward()
    scaling.gather()
    signs = [p.grad.sign() for p, _ in ours]
    optimizer.step()
    for p, sign in zip((scaling.log_scale, scaling.shift), signs, strict=True):
        assert torch.equal(p.detach().sign(), -sign)
    wanted = scaled(original, scaling.log_scale.double(), scaling.shift.double())
    for k, v in original.named_parameters():
        torch.testing.assert_close(net.get_parameter(k), wanted.get(k, v), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bins", ["auto", (0, 1)])
def test_it_draws_the_images_that_the_sampler_draws(toy, bins):
    """Also under bins in which no class is of the tail."""
    stats = class_stats(toy)
    keys = [{**config.resolve({"strategy": s, "bins": bins}), "head_of": "best.pt"} for s in ("all", "scale")]
    everything, scale = (make_plan(stats, k) for k in keys)
    assert np.array_equal(scale.factors, everything.factors)
    assert scale.notes == everything.notes
    assert not make_plan(stats, {**keys[1], "sampler": "none"}).adapts_data


def assert_near(ours, theirs):
    """Scales and shifts are equal within float16."""
    for a, b, off in zip(ours, theirs, (3e-3, 1e-2), strict=True):
        assert float((a.detach() - b).abs().max()) <= off


# Training ------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(
    ("cfg", "kind"),
    [
        ("yolov8n.yaml", "detect"),
        ("yolo26n.yaml", "detect"),
        ("yolo11n-seg.yaml", "segment"),
        ("yolo26n-pose.yaml", "pose"),
        ("yolo11n-obb.yaml", "obb"),
    ],
)
def test_one_scale_and_shift_of_each_class_learn_for_all_levels_and_branches(
    checkpoint, few, tmp_path, caplog, cfg, kind
):
    weights = checkpoint(cfg)
    folder = finetune(weights, few(kind), tmp_path, **FAST)
    for name in ("last.pt", "best.pt"):
        changed = moved(weights, folder / "weights" / name)
        assert len(changed) == (12 if "26" in cfg else 6)
        assert all(LAST.fullmatch(k) for k in changed)
        scale, shift = scale_and_shift(weights, folder / "weights" / name)
        assert (scale - 1).abs().max() > 0.05
        assert shift.abs().max() > 0.05
    assert "scale and shift of 3 classes learn, in " in caplog.text
    assert caplog.text.count(": equal") == 2


@pytest.mark.slow
def test_cached_features_give_the_same_losses_scale_and_shift_as_images(checkpoint, few, tmp_path):
    weights, keys = checkpoint("yolo26n.yaml"), {**FAST, "epochs": 2}
    plain = finetune(weights, few("detect"), tmp_path, **keys, **dict.fromkeys(AUGMENTATION, 0), name="plain")
    cached = finetune(
        weights, few("detect"), tmp_path, **keys, feature_cache=True, cache_dir=str(tmp_path / "f"), name="cached"
    )
    for a, b in zip(losses(plain), losses(cached), strict=True):
        assert a == pytest.approx(b, rel=5e-3)  # features are kept in float16
    with_images, with_cache = (scale_and_shift(weights, f / "weights" / "last.pt") for f in (plain, cached))
    assert (with_images[0] - 1).abs().max() > 0.1
    assert_near(with_cache, with_images)


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_with_its_scale_and_shift(checkpoint, few, tmp_path):
    weights = checkpoint("yolov8n.yaml")
    keys = {**FAST, **dict.fromkeys(AUGMENTATION, 0), "epochs": 3, "lrf": 1.0}
    whole = finetune(weights, few("detect"), tmp_path, **keys, name="whole") / "weights" / "last.pt"

    class CutOff(Exception):
        pass

    def cut_off(trainer):
        if trainer.epoch == 1:
            raise CutOff

    def look(trainer):
        seen["start"] = (trainer.scaling.log_scale.exp(), trainer.scaling.shift.clone())
        seen["steps"] = int(trainer.optimizer.state[trainer.scaling.log_scale]["step"]) / len(trainer.train_loader)

    seen, model = {}, YOLOLT(weights)
    model.add_callback("on_model_save", cut_off)
    with pytest.raises(CutOff):
        model.finetune_head(**{**RUN, **keys}, data=str(few("detect")), project=str(tmp_path), name="cut")
    last = tmp_path / "cut" / "weights" / "last.pt"
    at_the_cut = scale_and_shift(weights, last)
    model = YOLOLT(last)
    model.add_callback("on_train_start", look)
    model.finetune_head(resume=True)
    assert len(losses(tmp_path / "cut")) == 3
    assert_near(seen["start"], at_the_cut)
    assert seen["steps"] == 2, "the optimizer remembers those of two epochs"
    assert_near(scale_and_shift(weights, last), scale_and_shift(weights, whole))
    assert (scale_and_shift(weights, last)[0] - at_the_cut[0]).abs().max() > 0.05, "there was something left to learn"


@pytest.mark.slow
def test_an_epoch_repeated_after_nan_starts_from_the_scale_and_shift_of_the_checkpoint(checkpoint, few, tmp_path):
    weights, seen = checkpoint("yolov8n.yaml"), []
    last = tmp_path / "finetune-head" / "weights" / "last.pt"

    def spoil(trainer):
        if trainer.epoch == 1 and not seen:
            seen.append(trainer.scaling.log_scale.exp().tolist())
            trainer.loss = trainer.loss * float("nan")

    def look(trainer):
        if len(seen) == 1:
            seen.append(trainer.scaling.log_scale.exp().tolist())
            assert_near((trainer.scaling.log_scale.exp(), trainer.scaling.shift), scale_and_shift(weights, last))

    model = YOLOLT(weights)
    model.add_callback("on_train_epoch_end", spoil)
    model.add_callback("on_train_epoch_start", look)
    model.finetune_head(**{**RUN, **FAST}, data=str(few("detect")), project=str(tmp_path), epochs=2)
    spoiled, repeated = seen
    assert repeated != pytest.approx(spoiled, abs=0.02), "the spoiled epoch had moved them"
    scale_and_shift(weights, last)


def test_nothing_else_can_learn_beside_it(checkpoint, few, tmp_path):
    for key, value in (("head_part", "branch"), ("head_part", "last"), ("reinit", True), ("replay", 0.2)):
        with pytest.raises(UsageError, match=f"{key} acts only with strategy=all|{key} acts only with strategy=tail"):
            finetune(checkpoint("yolov8n.yaml"), few("detect"), tmp_path, strategy="scale", **{key: value})
    with pytest.raises(UsageError, match="head_part acts only with strategy=all"):
        YOLOLT("yolov8n.yaml").train(data=str(few("detect")), recipe="decoupled", strategy="scale", head_part="last")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_is_stage_two_of_the_decoupled_recipe(few, tmp_path, tiny):
    keys = {**tiny, "data": str(few("detect")), "project": str(tmp_path), "name": "run", "val": False}
    YOLOLT("yolov8n.yaml").train(**keys, recipe="decoupled", strategy="scale", epochs=2, head_epochs=1)
    first, second = (tmp_path / "run" / part / "weights" / "last.pt" for part in ("", "head"))
    changed = moved(first, second)
    assert changed
    assert all(LAST.fullmatch(k) for k in changed)
    scale_and_shift(first, second)
