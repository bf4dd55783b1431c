"""One pass under many maps finds what as many calibrated checkpoints find, each in a pass of its own."""

from functools import cache

import numpy as np
import pytest
import torch
from conftest import random_network
from scipy.optimize import linear_sum_assignment
from test_criterion import FOLDER
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import YAML

from yolo_lt.calibrate import Affine
from yolo_lt.ultra.calibrated import write_calibrated
from yolo_lt.ultra.head import class_branches
from yolo_lt.ultra.maps import MAP_VALIDATORS, mean_and_std
from yolo_lt.ultra.validator import VALIDATORS

CLASSES, LIFTED = 5, 4
ANCHORS = 12**2 + 6**2 + 3**2  # of an image of 64 pixels, which Ultralytics pads to 96
CASES = {  # a model, and whether boxes come through NMS or from an end-to-end head
    "v8": ("v8/yolov8n.yaml", {}),
    "26": ("26/yolo26n.yaml", {}),
    "26 end to end": ("26/yolo26n.yaml", {"nms": False}),
    "segment": ("11/yolo11n-seg.yaml", {}),
    "pose end to end": ("26/yolo26n-pose.yaml", {"nms": False}),
}


def task_of(case):
    return "segment" if "seg" in CASES[case][0] else "pose" if "pose" in CASES[case][0] else "detect"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """network(case) -> a checkpoint of five classes that finds many boxes. Read only.

    The last class is behind all others everywhere. The branches differ: what the one knows of a class, the other knows
    of the next one.
    """
    folder = tmp_path_factory.mktemp("networks")

    @cache
    def make(model):
        shipped = FOLDER / model.replace("n.", ".").replace("n-", "-")
        content = {**YAML.load(shipped), "nc": CLASSES}
        if "kpt_shape" in content:
            content["kpt_shape"] = [2, 3]
        YAML.save(folder / shipped.name, content)
        name = model.split("/")[1]
        path = random_network(str(folder / name), folder / f"{name}.pt", active=CLASSES, size=96)
        net, ckpt = load_checkpoint(path)
        for branch, levels in class_branches(net).items():
            for conv in (level[-1] for level in levels):
                conv.weight.data[LIFTED], conv.bias.data[LIFTED] = conv.weight[LIFTED] / 4, conv.bias[LIFTED] / 4 - 9.5
                order = [1, 2, 3, 0, LIFTED] if branch == "one2one" else range(CLASSES)
                conv.weight.data, conv.bias.data = conv.weight.data[order], conv.bias.data[order]
        torch.save({**ckpt, "model": net.half()}, path)
        return path

    return lambda case: make(CASES[case][0])


def random_map(seed, keep_bias=False):
    """Scales and shifts that change the order of detections and lift the last class to where the others are."""
    rng = np.random.default_rng(seed)
    scale, shift = 2 ** rng.uniform(-0.7, 0.7, CLASSES), rng.normal(0, 1, CLASSES)
    shift[LIFTED] += 10 if keep_bias else 10 * scale[LIFTED]
    return Affine(scale, shift, keep_bias)


def look(weights, case, data, folder, maps=None, fold_of=None, **keys):
    """A validator after its pass over val: ours under maps, or without `maps` the plain one."""
    args = {"task": task_of(case), "data": str(data), "mode": "val", "plots": False, "verbose": False}
    args |= {"imgsz": 96, "batch": 3, "device": "cpu", **CASES[case][1], **keys}
    validator = (VALIDATORS if maps is None else MAP_VALIDATORS)[task_of(case)](save_dir=folder, args=args)
    if maps is not None:
        validator.maps, validator.fold_of = maps, fold_of or {}
    validator(model=load_checkpoint(weights)[0])
    return validator


def assert_same_sets(ours, theirs):
    """Each image's detections are the same: one to one in class, score and box."""
    assert ours.keys() == theirs.keys()
    for file, found in ours.items():
        assert len(found) == len(theirs[file]), file
        apart = (np.abs(found[:, None] - theirs[file]) / [*[1e-3] * 4, 1e-5, 1e-9]).max(2)  # pixels, score, class
        assert apart[linear_sum_assignment(apart > 1)].max() <= 1, file


def assert_identical(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[f], theirs[f]) for f in ours)


def in_fold_one(validator):
    """Every third image of the split."""
    return sorted(validator.dataloader.dataset.im_files)[::3]


@pytest.mark.parametrize("case", CASES)
def test_each_map_finds_what_the_checkpoint_with_that_map_finds(network, sets, tmp_path, case):
    weights, data = network(case), sets(task_of(case))
    maps = [random_map(1), random_map(2, keep_bias=True)]
    ours = look(weights, case, data, tmp_path / "ours", [[m] for m in maps])
    assert len(ours.mapped) == 2
    for i, affine in enumerate(maps):
        target = tmp_path / f"{i}.pt"
        write_calibrated(weights, target, {"one2many": affine, "one2one": affine}, {"method": "lws", "strength": 1.0})
        theirs = look(target, case, data, tmp_path / str(i))
        assert_same_sets(ours.mapped[i], theirs.found)
        assert all(len(x) > 100 for x in theirs.found.values())
        assert any(LIFTED in x[:, 5] for x in theirs.found.values())
    as_it_is = look(weights, case, data, tmp_path / "plain")
    assert_identical(ours.found, as_it_is.found)
    assert not any(LIFTED in x[:, 5] for x in as_it_is.found.values())
    assert not ours.moments.any()


@pytest.mark.parametrize("case", ["v8", "26 end to end"])
def test_maps_of_a_fold_reach_the_images_of_that_fold_alone(network, toy, tmp_path, case):
    one, two = random_map(3), random_map(4)
    alone = look(network(case), case, toy, tmp_path / "alone", [[one], [two]])
    files = sorted(alone.dataloader.dataset.im_files)
    fold_of = {f: int(f in in_fold_one(alone)) for f in files[:-1]}  # an image that is not listed is in fold 0
    assert files[-1] not in in_fold_one(alone)
    both = look(network(case), case, toy, tmp_path / "both", [[one, two], [two, one], [one, one]], fold_of)
    first, second = alone.mapped
    for f in files:
        assert not np.array_equal(first[f], second[f])
        in_one = fold_of.get(f, 0)
        for found, wanted in zip(both.mapped, [(first, second), (second, first), (first, first)], strict=True):
            np.testing.assert_allclose(found[f], wanted[in_one][f], atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_without_maps_nothing_is_different_and_the_logits_are_summed_up_by_fold(network, sets, tmp_path, case):
    weights, data = network(case), sets(task_of(case))
    plain = look(weights, case, data, tmp_path / "plain")
    fold_of = dict.fromkeys(in_fold_one(plain), 1)
    ours = look(weights, case, data, tmp_path / "ours", [], fold_of)
    assert_identical(ours.found, plain.found)
    assert ours.metrics.results_dict == plain.metrics.results_dict
    assert ours.mapped == []

    net = load_checkpoint(weights)[0]
    net.end2end = CASES[case][1].get("nms") is False
    net.fuse(verbose=False)
    logits = ([], [])
    for batch in ours.dataloader:
        with torch.inference_mode():
            preds = net(batch["img"].float() / 255)[1]
        for file, z in zip(batch["im_file"], (preds.get("one2one") or preds)["scores"].double().numpy(), strict=True):
            best = np.argsort(-z.max(0), kind="stable")[:100]
            assert z.shape == (CLASSES, ANCHORS)
            logits[fold_of.get(file, 0)].append(z[:, best])
    assert [len(of_fold) for of_fold in logits] == [5, 3]
    for of_fold, moments in zip(logits, ours.moments, strict=True):
        z = np.concatenate(of_fold, 1)
        mean, std = mean_and_std(moments)
        np.testing.assert_allclose(mean, z.mean(1), atol=1e-4)
        np.testing.assert_allclose(std, z.std(1), rtol=1e-4)
    mean, _ = mean_and_std(ours.moments.sum(0))
    np.testing.assert_allclose(mean, np.concatenate([*logits[0], *logits[1]], 1).mean(1), atol=1e-4)


@pytest.mark.parametrize("max_det", [20, 300])
@pytest.mark.parametrize("case", ["v8", "26 end to end", "segment"])
def test_the_best_boxes_are_chosen_after_the_map(network, sets, tmp_path, case, max_det):
    """A class that is in no image's list, as others are before it, fills the lists under a map that lifts it."""
    lift = Affine(np.array([0.1, 0.1, 0.1, 0.1, 1]), np.array([-12.0, -12, -12, -12, 8]))
    before, after = (
        look(network(case), case, sets(task_of(case)), tmp_path / name, maps, max_det=max_det)
        for name, maps in (("before", None), ("after", [[lift]]))
    )
    for file, found in before.found.items():
        lifted = after.mapped[0][file]
        assert len(found) == (min(max_det, ANCHORS) if "end" in case else max_det)
        assert LIFTED not in found[:, 5]
        assert (lifted[:20, 5] == LIFTED).all()
        assert (lifted[:, 5] == LIFTED).sum() > (60 if max_det == 300 else 19)
