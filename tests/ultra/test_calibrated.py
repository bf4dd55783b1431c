"""A calibrated checkpoint: on every model the logits are those of the map, and nothing else is another number."""

import os
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from test_criterion import KINDS, models
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load

from yolo_lt.calibrate import Affine
from yolo_lt.errors import LTError
from yolo_lt.ultra import calibrated
from yolo_lt.ultra.calibrated import KEY, record_of, write_calibrated, write_original

CLASSES = 4
FACTS = {"method": "norcal", "strength": 0.6}
LAST = re.compile(r"model\.\d+\.(one2one_)?cv3\.\d\.2\.(weight|bias)")
OTHER_SIZES = re.compile(r"v9([smce]\.|e-)|v10[sbmlx]")  # of networks that are there, with the same head


def pictures():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def raw(net, images):
    """The predictions of every branch before they are decoded: (B, ., A) by name."""
    net.eval()
    net.model[-1].training = True
    with torch.inference_mode():
        preds = net(images)
    return preds if "one2many" in preds else {"one2many": preds}


def last_convs(net):
    """The last classification convolutions of every branch, by Ultralytics' own names for them."""
    head = net.model[-1]
    attrs = {"one2many": "cv3", "one2one": "one2one_cv3"}
    return {b: [level[-1] for level in getattr(head, a)] for b, a in attrs.items() if hasattr(head, a)}


def write_source(path, name, **more):
    """A finished checkpoint in float16 with other classifiers on every level, whose logits vary by 2 around -10.

    Normalisation that is stronger than a fresh one, and biased, keeps signals from dying away or growing with depth.
    """
    torch.manual_seed(0)
    task = models()[name]
    net = KINDS[task](name, nc=CLASSES, verbose=False)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 2.2)
            torch.nn.init.normal_(module.bias, std=0.5)

    def spread(conv, args, _):
        conv.weight.normal_()
        conv.weight.mul_(2 / torch.nn.functional.conv2d(args[0], conv.weight).square().mean().sqrt())
        conv.bias.normal_(-10, 1)

    hooks = [conv.register_forward_hook(spread) for convs in last_convs(net).values() for conv in convs]
    raw(net, pictures())
    for hook in hooks:
        hook.remove()
    content = {"epoch": -1, "model": net.half(), "ema": None, "optimizer": None, "train_args": {"task": task}, **more}
    torch.save(content, path)
    return net


def random_maps(seed, keep_bias=False):
    """A map for each branch: scales from a half to two, shifts of either sign."""
    rng = np.random.default_rng(seed)
    branches = ("one2many", "one2one")
    return {b: Affine(2 ** rng.uniform(-1, 1, CLASSES), rng.normal(0, 2, CLASSES), keep_bias) for b in branches}


def tensors(path):
    """Every tensor of a file, as it is stored."""
    ckpt = torch_safe_load(path, safe_only=True)[0]
    return ckpt["model"].state_dict()


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(a, b)


def explicit(z, affine, bias):
    """The map on logits of one level, (B, C, A), written out."""
    scale, shift = (torch.from_numpy(v)[:, None] for v in (affine.scale, affine.shift))
    if affine.keep_bias:
        return scale * (z - bias[:, None]) + bias[:, None] + shift
    return scale * z + shift


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A checkpoint of yolo26n, which has two branches. Read only."""
    path = tmp_path_factory.mktemp("source") / "best.pt"
    write_source(path, "yolo26n.yaml", date="2026-01-01", train_metrics={"fitness": 0.5})
    return path


@pytest.fixture(scope="module")
def written(source):
    """written(keep_bias) -> the maps, and the checkpoint with them folded in. Read only."""

    @cache
    def make(keep_bias):
        maps, path = random_maps(1, keep_bias), source.with_name(f"calibrated-{keep_bias}.pt")
        write_calibrated(source, path, maps, FACTS)
        return maps, path

    return lambda keep_bias=False: make(keep_bias)


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors are small: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("index", "name"), [pytest.param(i, n, id=n) for i, n in enumerate(models()) if not OTHER_SIZES.search(n)]
)
def test_every_model_gives_the_logits_of_the_map_and_keeps_its_boxes(tmp_path, index, name):
    source, target = tmp_path / "best.pt", tmp_path / "out" / "best.pt"
    net, maps = write_source(source, name), random_maps(index, keep_bias=index % 2 == 1)
    write_calibrated(source, target, maps, FACTS)

    before, after = net.state_dict(), tensors(target)
    assert before.keys() == after.keys()
    changed = {k for k in before if not same_bits(before[k], after[k])}
    assert changed == {k for k in before if LAST.fullmatch(k)}
    assert all(before[k].dtype == torch.float16 and after[k].dtype == torch.float32 for k in changed)

    convs = last_convs(net.double())
    assert len(changed) == 2 * sum(map(len, convs.values()))
    old, new = (raw(n, pictures().double()) for n in (net, load_checkpoint(target)[0].double()))
    assert set(old) == set(new) == set(convs)
    for branch, levels in convs.items():
        assert torch.equal(new[branch]["boxes"], old[branch]["boxes"])
        sizes = [(64 // int(s)) ** 2 for s in net.stride]
        parts = zip(*(p[branch]["scores"].split(sizes, 2) for p in (old, new)), levels, strict=True)
        for z, found, conv in parts:
            assert 0.3 < z.std() < 5
            assert float((found - explicit(z, maps[branch], conv.bias)).abs().max()) <= 1e-5


def test_nothing_else_in_the_file_changes_and_the_record_says_what_was_done(source, written):
    maps, target = written()
    old, new = (torch_safe_load(p, safe_only=True)[0] for p in (source, target))
    assert new.keys() - old.keys() == {KEY}
    assert {k: v for k, v in old.items() if k != "model"} == {k: new[k] for k in old.keys() - {"model"}}
    assert (record_of(None), record_of(old)) == (None, None)
    record = record_of(new)
    assert {k: record[k] for k in FACTS} == FACTS
    for branch, affine in maps.items():
        assert record["maps"][branch]["scale"] == affine.scale.tolist()
        assert record["maps"][branch]["shift"] == affine.shift.tolist()
        assert record["maps"][branch]["keep_bias"] is False
    before = old["model"].state_dict()
    assert record["original"].keys() == {k for k in before if LAST.fullmatch(k)}
    assert all(same_bits(v, before[k]) for k, v in record["original"].items())


@pytest.mark.parametrize("keep_bias", [False, True])
def test_taken_back_every_tensor_is_as_it_was_and_the_record_is_gone(tmp_path, source, written, keep_bias):
    write_original(written(keep_bias)[1], tmp_path / "back" / "best.pt")
    first, last = (torch_safe_load(p, safe_only=True)[0] for p in (source, tmp_path / "back" / "best.pt"))
    assert first.keys() == last.keys()
    before, after = first["model"].state_dict(), last["model"].state_dict()
    assert before.keys() == after.keys()
    assert all(same_bits(before[k], after[k]) for k in before)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_what_was_changed_after_the_calibration_is_not_taken_back(tmp_path, written, part):
    ckpt = torch_safe_load(written()[1], safe_only=True)[0]
    value = getattr(ckpt["model"].model[-1].one2one_cv3[2][-1], part).data.view(-1)
    value[0] = torch.nextafter(value[0], torch.tensor(torch.inf))
    torch.save(ckpt, tmp_path / "changed.pt")
    with pytest.raises(LTError, match="changed after the calibration, which cannot be undone"):
        write_original(tmp_path / "changed.pt", tmp_path / "back.pt")
    assert {p.name for p in tmp_path.iterdir()} == {"changed.pt"}


def one_bias_off(weight, bias):
    bias[1] += 1e-3


def one_weight_off(weight, bias):
    weight[0, 0] *= 1.01


def no_number(weight, bias):
    bias[1] = torch.nan


@pytest.mark.parametrize("old", [None, b"the file of yesterday"])
@pytest.mark.parametrize("spoil", [one_bias_off, one_weight_off, no_number])
def test_a_file_that_fails_its_check_is_not_written(tmp_path, source, monkeypatch, spoil, old):
    right, calls = calibrated.folded, []

    def wrong(weight, bias, affine):
        weight, bias = right(weight, bias, affine)
        calls.append(None)
        if len(calls) == 4:  # of six: the first level of the second branch
            spoil(weight, bias)
        return weight, bias

    monkeypatch.setattr(calibrated, "folded", wrong)
    if old:
        (tmp_path / "best.pt").write_bytes(old)
    with pytest.raises(LTError, match="folded and explicit calibration differ"):
        write_calibrated(source, tmp_path / "best.pt", random_maps(1), FACTS)
    assert len(calls) == 6
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([old] if old else [])


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, source, written, monkeypatch):
    maps, new = written()
    (tmp_path / "best.pt").write_bytes(b"the file of yesterday")

    def half(content, path):
        path.write_bytes(b"PK half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    for write in (lambda path: write_calibrated(source, path, maps, FACTS), lambda path: write_original(new, path)):
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path / "best.pt")
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("best.pt", b"the file of yesterday")]


def test_the_file_loads_with_code_execution_off(written):
    """In a process of its own as well: Ultralytics reads the variable when it is imported."""
    path = written()[1]
    assert record_of(torch_safe_load(path, safe_only=True)[0])["method"] == "norcal"
    code = f"""
import sys; sys.modules["yolo_lt"] = None
from ultralytics.nn import tasks
assert tasks.SAFE_LOAD
net, ckpt = tasks.load_checkpoint({str(path)!r})
assert ckpt["lt_calibration"]["strength"] == 0.6
assert type(net).__module__ == "ultralytics.nn.tasks"
"""
    env = {**os.environ, "ULTRALYTICS_SAFE_LOAD": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
