"""Stage two on the model, without training: what learns, the new start, the digest; every family of Ultralytics."""

import copy
import re
from pathlib import Path

import pytest
import torch
import ultralytics
from torch import nn
from ultralytics import YOLO
from ultralytics.utils.torch_utils import ModelEMA

from yolo_lt.errors import UsageError
from yolo_lt.ultra.head import (
    average_learning_only,
    class_branches,
    digest,
    frozen_layers,
    is_frozen,
    parameter_counts,
    reinitialise,
)

SMALLEST = [
    *("yolov5n.yaml", "yolov5n-p6.yaml"),
    *("yolov8n.yaml", "yolov8n-p2.yaml", "yolov8n-p6.yaml", "yolov8n-ghost.yaml", "yolov8n-seg.yaml"),
    *("yolov8n-seg-p6.yaml", "yolov8n-pose.yaml", "yolov8n-pose-p6.yaml", "yolov8n-obb.yaml"),
    *("yolov8n-ghost-p2.yaml", "yolov8n-ghost-p6.yaml"),
    *("yolov9t.yaml", "yolov10n.yaml"),
    *("yolo11n.yaml", "yolo11n-seg.yaml", "yolo11n-pose.yaml", "yolo11n-obb.yaml"),
    *("yolo12n.yaml", "yolo12n-seg.yaml", "yolo12n-pose.yaml", "yolo12n-obb.yaml"),
    *("yolo26n.yaml", "yolo26n-p2.yaml", "yolo26n-p6.yaml", "yolo26n-seg.yaml", "yolo26n-pose.yaml"),
    "yolo26n-obb.yaml",
]
LARGE = {"yolov9t": ("yolov9s", "yolov9m", "yolov9c", "yolov9e"), "yolov10n": tuple(f"yolov10{s}" for s in "sbmlx")}


def in_class_branch(model, name):
    """Other modules have a cv3 as well, so the head's number counts."""
    return name.startswith((f"model.{model.model[-1].i}.cv3.", f"model.{model.model[-1].i}.one2one_cv3."))


def test_every_family_that_ultralytics_ships_is_in_the_list():
    models = Path(ultralytics.__file__).parent / "cfg" / "models"
    shipped = {
        f.stem for family in ("v5", "v8", "v9", "v10", "11", "12", "26") for f in (models / family).glob("*.yaml")
    }
    other = re.compile("cls|world|yoloe|rtdetr|sem|depth")
    listed = {re.sub(r"^(yolov?(?:5|8|11|12|26))n", r"\1", Path(name).stem) for name in SMALLEST}
    listed |= {large for names in LARGE.values() for large in names} | {"yolov9c-seg", "yolov9e-seg"}
    assert {name for name in shipped if not other.search(name)} == listed


@pytest.fixture
def fresh():
    """fresh("yolo26n.yaml") -> a network whose head has moved from its first values; end-to-end branches differ."""

    def make(cfg):
        torch.manual_seed(0)
        model = YOLO(cfg).model
        with torch.no_grad():
            for p in model.model[-1].parameters():
                p.add_(0.01 * torch.randn_like(p))
        return model

    return make


def freeze_as_ultralytics(model, layers):
    """`BaseTrainer._setup_train`: by substring of the name, and everything else is forced to learn (see the canary)."""
    names = [f"model.{x}." for x in layers] + [".dfl"]
    for k, p in model.named_parameters():
        p.requires_grad = not any(x in k for x in names)


@pytest.mark.parametrize(
    "cfg", [pytest.param(c, marks=pytest.mark.slow) if re.search(r"-p\d|ghost", c) else c for c in SMALLEST]
)
def test_exactly_the_class_branch_learns_and_starts_anew(fresh, cfg):
    model = fresh(cfg)
    levels = len(model.model[-1].stride)
    branches = class_branches(model)
    assert set(branches) == ({"one2many", "one2one"} if re.search(r"v10|26", cfg) else {"one2many"})
    assert all(len(b) == levels for b in branches.values())

    last_convs = {
        f"model.{model.model[-1].i}.{attr}.{level}.{len(seq) - 1}.{p}"
        for attr in ("cv3", "one2one_cv3")
        if hasattr(model.model[-1], attr)
        for level, seq in enumerate(getattr(model.model[-1], attr))
        for p in ("weight", "bias")
    }
    for part, wanted in (
        ("branch", {k for k, _ in model.named_parameters() if in_class_branch(model, k)}),
        ("last", last_convs),
    ):
        layers = frozen_layers(model, part)
        freeze_as_ultralytics(model, layers)
        assert {k for k, p in model.named_parameters() if p.requires_grad} == wanted
        assert {k for k, _ in model.named_parameters() if not is_frozen(k, layers)} == wanted
        counts = parameter_counts(model)
        assert counts[0] == sum(p.numel() for k, p in model.named_parameters() if k in wanted)
        assert sum(counts) == sum(p.numel() for p in model.parameters())

    before = {k: v.clone() for k, v in model.state_dict().items()}
    reinitialise(model)
    after = model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == last_convs, "all levels and branches, and nothing but the last class convolutions"
    head = f"model.{model.model[-1].i}."
    fresh_head = copy.deepcopy(model.model[-1])
    fresh_head.bias_init()
    prior = {head + k: v for k, v in fresh_head.state_dict().items()}
    for k in last_convs:
        if k.endswith("bias"):
            assert torch.equal(after[k], prior[k]), "Ultralytics' own prior"
    boxes = [k for k in before if re.search(r"\.(one2one_)?cv2\.\d+\.2\.bias$", k)]
    assert len(boxes) == levels * len(branches)
    assert not any(torch.equal(after[k], prior[k]) for k in boxes), "bias_init itself resets the boxes"


def test_a_new_start_draws_the_weights_of_a_fresh_convolution(fresh):
    """PyTorch's own law, uniform within 1 / sqrt(fan in), and different on every level."""
    model = fresh("yolov8n.yaml")
    reinitialise(model)
    for seq in class_branches(model)["one2many"]:
        bound = 1 / seq[-1].in_channels ** 0.5
        assert seq[-1].weight.abs().max() <= bound
        assert float(seq[-1].weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    first, second, _ = (seq[-1].weight for seq in class_branches(model)["one2many"])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("part", ["branch", "last"])
@pytest.mark.parametrize("cfg", ["yolov8n.yaml", "yolo26n-seg.yaml"])
def test_the_digest_sees_every_frozen_tensor_and_no_other(fresh, cfg, part):
    """A sample of tensors of each kind, as every digest reads the whole network."""
    model = fresh(cfg)
    layers = frozen_layers(model, part)
    before = digest(model, layers)
    assert before == digest(model, layers) == digest(copy.deepcopy(model).half(), layers)
    names = list(model.state_dict())
    kinds = ("conv.weight", "bn.weight", "bias", "running_mean", "running_var", "num_batches_tracked", ".dfl")
    sample = {next((k for k in reversed(names) if kind in k and is_frozen(k, layers)), None) for kind in kinds}
    sample |= {next(k for k in names if kind in k and not is_frozen(k, layers)) for kind in ("weight", "bias")}
    sample |= {k for k in names if in_class_branch(model, k) and "running_mean" in k}
    for k in sample - {None}:
        value = model.state_dict()[k]
        kept = value.clone()
        value.view(-1)[0] += 1
        assert (digest(model, layers) != before) == is_frozen(k, layers), k
        value.copy_(kept)
    assert digest(model, layers) == before


def test_layer_2_is_not_layer_22():
    assert is_frozen("model.2.cv1.conv.weight", [2])
    assert not is_frozen("model.22.cv1.conv.weight", [2])
    assert is_frozen("model.22.cv2.0.bias", ["22.cv2"])
    assert not is_frozen("model.22.cv21.0.bias", ["22.cv2"])
    assert is_frozen("model.22.dfl.conv.weight", [])


def test_the_average_moves_what_learns_and_leaves_the_rest_bit_equal(fresh):
    model = fresh("yolo26n.yaml")
    layers = frozen_layers(model)
    ema = ModelEMA(model)
    average_learning_only(ema, model, layers)
    before = {k: v.clone() for k, v in ema.ema.state_dict().items()}
    with torch.no_grad():
        for v in model.state_dict().values():
            v.add_(1)
    ema.update(model)
    for k, v in ema.ema.state_dict().items():
        moved = v.is_floating_point() and not is_frozen(k, layers)
        assert torch.equal(v, before[k]) != moved, k


def test_a_head_without_class_branch_and_a_fused_one_are_refused(fresh):
    model = fresh("yolov10n.yaml")
    model.model[-1].end2end = True  # its other branch is kept
    model.fuse()
    with pytest.raises(UsageError, match="v10Detect head without cv3 cannot be re-trained"):
        class_branches(model)
    model.model[-1] = nn.Identity()
    with pytest.raises(UsageError, match="Identity head without cv3"):
        class_branches(model)
