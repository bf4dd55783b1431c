"""Tail paste at the data set that training uses: pixels, labels, limits, law, memory, determinism."""

import copy
import pickle
import random
import time

import cv2
import numpy as np
import pytest
import torch
from conftest import write_yolo_set
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader, build_yolo_dataset, seed_worker

from yolo_lt import config
from yolo_lt.balance.paste import MAX_COVER, MAX_SIDE, covered
from yolo_lt.balance.plan import make_plan
from yolo_lt.errors import LTError
from yolo_lt.ultra.bank import build, choose
from yolo_lt.ultra.changes import bank_text, draw_pasted, make_changes
from yolo_lt.ultra.dataset import BalancedDataset
from yolo_lt.ultra.labels import load_data, stats_of
from yolo_lt.ultra.loader import StreamSampler, with_sampler
from yolo_lt.ultra.paste import TailPaste, blend, mirror

ROWS = [[0]] * 60 + [[0, 1]] * 20 + [[1]] * 10 + [[2]] * 5 + [[3]] * 2 + [[]] * 3
NAMES = ["a", "b", "c", "d"]
TAIL = (2, 3)
PLAIN = {
    **dict.fromkeys(("mosaic", "translate", "scale", "hsv_h", "hsv_s", "hsv_v", "fliplr"), 0.0),
    "augmentations": [],
}


def write_set(root, kind="detect"):
    """Grey images; a box is of one colour, so that what was pasted where can be read from the pixels."""
    return load_data(write_yolo_set(root, ROWS, NAMES, size=96, kind=kind))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return {kind: write_set(tmp_path_factory.mktemp(kind), kind) for kind in ("detect", "segment")}


def balanced(data, kind="detect", share=1.0, seed=0, memory=256.0, **hyp):
    args = get_cfg(overrides={"imgsz": 96, "task": kind, "seed": seed, **PLAIN, **hyp})
    dataset = build_yolo_dataset(args, data["train"], 8, data, stride=32)
    given = {"recipe": "baseline", "tail_paste": share, "paste_memory": memory, "bins": [5, 30]}
    plan = make_plan(stats_of(dataset.labels, data), config.resolve(given))
    return BalancedDataset.adopt(dataset, plan.factors, True, make_changes(dataset, plan, args)), plan, args


def colour(c):
    """What write_yolo_set paints class c with."""
    return np.random.default_rng(c).integers(0, 255, 3)


def seeded(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("kind", ["detect", "segment"])
def test_the_pixels_lie_where_the_label_says(sets, kind):
    dataset, _, _ = balanced(sets[kind], kind)
    dataset.changes[0].look = lambda pixels: pixels  # its light would hide whose colour it is
    seeded(0)
    pasted = 0
    for index in range(60):
        labels = dataset.get_image_and_label(index)
        there = labels["instances"]
        if dataset.pasted:
            c = dataset.pasted.pop()
            pasted += 1
            assert labels["cls"][-1] == c
            assert len(there.bboxes) == len(labels["cls"]) == len(dataset.labels[index]["cls"]) + 1
            there.convert_bbox("xywh")
            x, y, w, h = there.bboxes[-1]
            inside = labels["img"][int(y - h / 4) : int(y + h / 4), int(x - w / 4) : int(x + w / 4)].reshape(-1, 3)
            assert (np.abs(inside.astype(int) - colour(c)).mean(0) < 12).all()
            outside = labels["img"] != dataset.load_image(index)[0]
            ys, xs = np.nonzero(outside.any(-1))
            border = 0.1 * max(w, h) + 4
            assert y - h / 2 - border <= ys.min() <= ys.max() <= y + h / 2 + border
            assert x - w / 2 - border <= xs.min() <= xs.max() <= x + w / 2 + border
            if kind == "segment":
                assert len(there.segments) == len(there.bboxes)
                low, high = there.segments[-1].min(0), there.segments[-1].max(0)
                np.testing.assert_allclose([*low, *high], [x - w / 2, y - h / 2, x + w / 2, y + h / 2], atol=0.5)
    assert pasted > 40


def test_the_image_in_memory_and_the_labels_stay_as_they_are(sets):
    dataset, _, _ = balanced(sets["detect"])
    before = [dataset.load_image(i)[0].copy() for i in range(10)]
    labels = copy.deepcopy(dataset.labels[:10])
    for i in range(10):
        dataset[i]
    for i in range(10):
        assert (dataset.load_image(i)[0] == before[i]).all()
        np.testing.assert_array_equal(dataset.labels[i]["bboxes"], labels[i]["bboxes"])


def test_limits_hold_and_a_class_never_comes_where_it_is(sets):
    dataset, _, _ = balanced(sets["detect"])
    seeded(1)
    for index in list(range(len(ROWS))) * 5:
        labels = dataset.get_image_and_label(index)
        if not dataset.pasted:
            continue
        c = dataset.pasted.pop()
        assert c in TAIL
        assert c not in ROWS[index]
        boxes = labels["instances"].bboxes
        new, old = boxes[-1], boxes[:-1]
        assert (covered(old, new[None]) <= MAX_COVER + 1e-3).all()
        assert (new >= -1e-3).all()
        assert (new <= 96 + 1e-3).all()
        assert (new[2:] - new[:2] <= MAX_SIDE * 96 + 1).all(), "up to whole pixels"


def test_classes_come_by_need_and_in_the_asked_share(sets):
    """Need: c is in 5 images, d in 2, the rarest class outside the tail in 30: 25 to 28."""
    dataset, plan, _ = balanced(sets["detect"], share=0.4)
    assert plan.bins.tail.tolist() == list(TAIL)
    seeded(2)
    hosts, n = [i for i, row in enumerate(ROWS) if not set(row) & set(TAIL)], 4000
    placeless = 0
    for k in range(n):
        before = len(dataset.pasted)
        dataset.get_image_and_label(hosts[k % len(hosts)])
        placeless += len(dataset.pasted) == before
    counts = np.bincount(dataset.pasted, minlength=4)
    drawn = counts.sum()
    assert 0.4 * n - 4 * (n * 0.24) ** 0.5 - 0.1 * n < drawn < 0.4 * n + 4 * (n * 0.24) ** 0.5, "some find no place"
    expected = drawn * np.array([0, 0, 25, 28]) / 53
    assert (np.abs(counts - expected)[2:] < 4 * np.sqrt(expected[2:])).all()


def batches(dataset, workers=0, epochs=1):
    seeded(5)
    loader = build_dataloader(dataset, 8, workers, shuffle=True, device="cpu")
    loader = with_sampler(loader, StreamSampler(dataset.factors, seed=0))
    out = [(b["img"].clone(), b["cls"].clone(), b["lt_pasted"]) for _ in range(epochs) for b in loader]
    loader.close()
    return out


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seed_gives_the_same_pictures(sets, workers):
    first, second = (batches(balanced(sets["detect"], mosaic=1.0)[0], workers) for _ in range(2))
    for (image, cls, pasted), (image2, cls2, pasted2) in zip(first, second, strict=True):
        assert torch.equal(image, image2)
        assert torch.equal(cls, cls2)
        assert pasted == pasted2
    assert sum(len(p) for _, _, rows in first for p in rows) > 200


@pytest.mark.parametrize("kind", ["detect", "segment"])
def test_pasted_boxes_and_masks_go_through_the_whole_pipeline(sets, kind):
    hyp = {"mosaic": 0.5, "mixup": 0.3, "translate": 0.1, "scale": 0.5, "degrees": 10.0, "copy_paste": 0.3}
    dataset, _, _ = balanced(sets[kind], kind, **hyp)
    seeded(3)
    tail = 0
    for index in range(60):
        sample = dataset[index]
        boxes, cls = sample["bboxes"], sample["cls"].reshape(-1)
        assert len(boxes) == len(cls)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        tail += int(((cls == 2) | (cls == 3)).sum())
        if kind == "segment":
            assert sample["masks"].max() <= len(cls)
    assert tail > 60


def test_polygons_are_cut_out_and_boxes_get_a_soft_border(sets):
    for kind in ("detect", "segment"):
        dataset, plan, _ = balanced(sets[kind], kind)
        bank = build(dataset, plan, 256, seed=0)
        assert bank.polygons == (kind == "segment")
        for instance in (i for group in bank.instances.values() for i in group):
            x1, y1, x2, y2 = np.rint(instance.box).astype(int)
            assert instance.opacity[(y1 + y2) // 2, (x1 + x2) // 2] == 1
            assert (instance.polygon is None) == (kind == "detect")
            outside = instance.opacity.copy()
            outside[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = 0
            if kind == "segment":
                assert not outside.any(), "the context is not pasted"
        assert ("polygons" if kind == "segment" else "soft border (no polygons in the labels)") in bank_text(bank, plan)


def test_a_detect_set_with_polygons_is_cut_out_along_them(sets):
    dataset, plan, _ = balanced(sets["segment"], "detect")
    assert build(dataset, plan, 256, seed=0).polygons


def test_memory_is_bounded_and_told(sets):
    dataset, plan, _ = balanced(sets["detect"])
    whole = build(dataset, plan, 256, seed=0)
    assert {c: len(group) for c, group in whole.instances.items()} == {2: 5, 3: 1}, "one d is cut by the border"
    text = bank_text(whole, plan)
    assert "6 instances of 2 tail classes with a soft border (no polygons in the labels)" in text
    assert f"{whole.nbytes / 1e6:.1f} MB" in text
    for memory in (whole.nbytes * share / 1e6 for share in (0.4, 0.6, 0.9)):
        bank = build(dataset, plan, memory, seed=0)
        assert bank.nbytes <= memory * 1e6
        counts = {c: len(group) for c, group in bank.instances.items()}
        assert sum(counts.values()) < 6
        assert counts[3] == 1, "class after class in turn, the neediest first"
    with pytest.raises(LTError, match=r"paste_memory=0\.001: not one instance fits"):
        build(dataset, plan, 0.001, seed=0)


def test_reading_the_bank_leaves_mosaics_buffer_alone(sets):
    dataset, _, _ = balanced(sets["detect"])
    assert dataset.buffer == []
    assert all(im is None for im in dataset.ims)
    assert dataset.augment


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_every_cache_gives_the_same_bank(tmp_path, cache):
    data = write_set(tmp_path)
    plain, cached = (balanced(data, cache=c) for c in (False, cache))
    banks = [build(d, p, 256, seed=0) for d, p, _ in (plain, cached)]
    for c, group in banks[0].instances.items():
        assert all((a.pixels == b.pixels).all() for a, b in zip(group, banks[1].instances[c], strict=True))


LABEL = {"shape": (100, 100), "segments": []}


def label(*boxes):
    return {**LABEL, "cls": np.array([[c] for c, *_ in boxes], np.float32), "bboxes": np.array([b for _, *b in boxes])}


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([label((1, 0.1, 0.5, 0.2, 0.2))], "cut by the image's border"),
        ([label((1, 0.5, 0.5, 0.02, 0.2))], "too small"),
        ([label((1, 0.5, 0.5, 0.9, 0.9))], "too large"),
        ([label((1, 0.5, 0.5, 0.3, 0.3), (0, 0.5, 0.6, 0.4, 0.3))], "covered by another object"),
    ],
)
def test_instances_that_cannot_be_pasted_are_left_out(labels, why):
    good = label((1, 0.5, 0.5, 0.3, 0.3), (0, 0.9, 0.9, 0.1, 0.1))
    assert choose([*labels, good], 100, np.array([0.0, 1.0]), 256, seed=0) == [(1, 0)], why
    with pytest.raises(LTError, match="tail_paste cannot act: every tail instance is cut"):
        choose(labels, 100, np.array([0.0, 1.0]), 256, seed=0)


def test_a_polygon_may_be_cut_from_under_another_box():
    row = label((1, 0.5, 0.5, 0.3, 0.3), (0, 0.5, 0.6, 0.4, 0.3))
    assert choose([{**row, "segments": [np.zeros((4, 2))] * 2}], 100, np.array([0.0, 1.0]), 256, seed=0) == [(0, 0)]


def test_classes_without_a_usable_instance_are_named(tmp_path):
    write_yolo_set(tmp_path, ROWS, NAMES, size=96)
    for i, row in enumerate(ROWS):
        if row == [3]:
            (tmp_path / "labels" / "train" / f"{i:04d}.txt").write_text("3 0.05 0.5 0.1 0.2")
    dataset, plan, _ = balanced(load_data(tmp_path / "data.yaml"))
    bank = build(dataset, plan, 256, seed=0)
    assert bank.missing == [3]
    assert bank.probabilities.tolist() == [0, 0, 1, 0]
    assert "none of d (cut by the image's border" in bank_text(bank, plan)


def test_mirrored_twice_is_the_same(sets):
    dataset, plan, _ = balanced(sets["segment"], "segment")
    instance = build(dataset, plan, 256, seed=0).instances[2][0]
    for axis in (0, 1):
        once = mirror(instance, axis)
        assert (once.pixels == np.flip(instance.pixels, axis)).all()
        assert np.abs(once.box - instance.box).max() > 1e-6 or np.allclose(instance.box[:2], instance.box[2:])
        again = mirror(once, axis)
        np.testing.assert_allclose(again.box, instance.box)
        np.testing.assert_allclose(again.polygon, instance.polygon)


def test_mirroring_follows_ultralytics_keys(sets):
    """A set whose pictures may not be mirrored (fliplr=0) gets no mirrored instance."""
    dataset, plan, _ = balanced(sets["detect"])
    bank = build(dataset, plan, 256, seed=0)
    half = bank.instances[2][0]
    half.pixels[...] = 0
    half.pixels[:, : half.pixels.shape[1] // 2] = 200
    for fliplr, left in ((0.0, 200), (1.0, 0)):
        paste = TailPaste(bank, 1.0, fliplr, 0.0)
        paste.look = lambda pixels: pixels
        varied = paste.vary(half, (96, 96, 3))
        assert varied.pixels[:, 1].mean() == left


def test_the_look_changes_and_is_seeded_apart_in_every_worker(sets):
    """Releases of albumentations before 1.4.21 draw from Python's random numbers, later ones have their own."""
    dataset, _, _ = balanced(sets["detect"])
    look = dataset.changes[0].look
    pixels = np.full((20, 20, 3), 120, np.uint8)
    seeded(1)
    first = [look(pixels) for _ in range(8)]
    assert any((a != pixels).any() for a in first)
    seeded(2)
    assert any((a != b).any() for a, b in zip(first, [look(pixels) for _ in range(8)], strict=True))
    seeded(1)
    assert all((a == b).all() for a, b in zip(first, [look(pixels) for _ in range(8)], strict=True))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels(channels):
    from yolo_lt.ultra.augment import Look

    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, channels), dtype=np.uint8)
    assert Look(channels)(pixels).reshape(16, 16, -1).shape == (16, 16, channels)


def test_pictures_are_drawn_without_disturbing_the_training(sets, tmp_path):
    (plain, _, _), (drawn, _, args) = (balanced(sets["segment"], "segment", mosaic=1.0) for _ in range(2))
    seeded(7)
    undisturbed = [plain[i]["img"] for i in range(8)]
    seeded(7)
    draw_pasted(drawn, args, tmp_path / "tail_paste.jpg")
    assert all(torch.equal(drawn[i]["img"], image) for i, image in enumerate(undisturbed))
    for _ in range(200):  # Ultralytics draws in a thread
        if (tmp_path / "tail_paste.jpg").exists() and cv2.imread(str(tmp_path / "tail_paste.jpg")) is not None:
            break
        time.sleep(0.05)
    picture = cv2.imread(str(tmp_path / "tail_paste.jpg"))
    assert picture.shape[0] >= 2 * 96
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_it_pickles_for_spawned_workers(sets):
    again = pickle.loads(pickle.dumps(balanced(sets["detect"])[0]))
    seeded(0)
    assert sum(len(again[i]["lt_pasted"]) for i in range(10)) > 5


def test_without_share_nothing_is_drawn_from_the_random_numbers(sets):
    dataset, plan, _ = balanced(sets["detect"], share=0.0)
    assert dataset.changes == []
    assert not plan.changes_images


def test_worker_seeds_reach_pythons_random_numbers():
    """Tail paste relies on Ultralytics seeding `random` in every worker."""
    torch.manual_seed(4)
    seed_worker(0)
    first = random.random()
    torch.manual_seed(5)
    seed_worker(0)
    assert random.random() != first


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blending_changes_its_place_alone_and_a_copy(channels):
    image = np.full((20, 20, channels), 100, np.uint8)
    opacity = np.zeros((4, 5), np.float32)
    opacity[1, 1], opacity[2, 2] = 1, 0.5
    out = blend(image, np.full((4, 5, channels), 200, np.uint8), opacity, x=10, y=3)
    assert (image == 100).all()
    assert out[4, 11].tolist() == [200] * channels
    assert out[5, 12].tolist() == [150] * channels
    assert (out == 100).sum() == channels * (400 - 2)
