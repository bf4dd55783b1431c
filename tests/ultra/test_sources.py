"""The codes say of which source image every pixel is, through all of Ultralytics' augmentations, and change nothing.

Every image of the data set is filled with a colour of its own, so that a pixel itself tells what the codes must say.
"""

import pickle
import random
from itertools import combinations
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader, build_yolo_dataset
from ultralytics.utils.tal import make_anchors

from yolo_lt.ultra.dataset import BalancedDataset
from yolo_lt.ultra.labels import load_data
from yolo_lt.ultra.loader import with_sampler
from yolo_lt.ultra.sources import NOTHING, AsWithoutMask, Overlay, Palette, anchor_codes, batch_rows

SIZE, PADDING = 64, (114, 114, 114)
IMAGES = 24
ROWS = np.array([i % 7 - 1 for i in range(IMAGES)])  # some in which every class was looked for, and all rows shared
GEOMETRY = {"degrees": 30.0, "translate": 0.2, "scale": 0.5, "shear": 10.0}
SETTINGS = {
    "plain": {},
    "mosaic": {"mosaic": 1.0},
    "mosaic in half": {"mosaic": 0.5, "translate": 0.1, "scale": 0.5},
    "geometry": GEOMETRY,
    "mosaic and geometry": {"mosaic": 1.0, **GEOMETRY},
    "perspective": {"mosaic": 1.0, "perspective": 0.001, **GEOMETRY},
    "flips": {"mosaic": 1.0, "flipud": 0.5, "fliplr": 0.5},
    "mixup": {"mixup": 1.0},
    "mosaic and mixup": {"mosaic": 1.0, "mixup": 0.5, "fliplr": 0.5},
    "mixup and geometry": {"mosaic": 0.5, "mixup": 0.5, **GEOMETRY},
    "cutmix": {"cutmix": 1.0},
    "mosaic and cutmix": {"mosaic": 1.0, "cutmix": 1.0, **GEOMETRY},
    "mixup and cutmix": {"mosaic": 0.5, "mixup": 1.0, "cutmix": 1.0, "fliplr": 0.5},
    "copy-paste": {"copy_paste": 1.0, "copy_paste_mode": "flip", "mosaic": 1.0},
    "copy-paste of others": {"copy_paste": 1.0, "copy_paste_mode": "mixup", "mosaic": 0.5, "scale": 0.5},
    "all": {**GEOMETRY, "mosaic": 0.7, "mixup": 0.5, "cutmix": 0.5, "copy_paste": 0.5, "copy_paste_mode": "mixup"},
}
SETTINGS["all"] |= {"flipud": 0.5, "fliplr": 0.5, "perspective": 0.0005}


def colours():
    """A colour per image; no blend of two in equal parts is like another one, nor like an image or the padding."""
    found = [tuple(c) for c in np.random.default_rng(1).integers(0, 256, (IMAGES, 3)).tolist()]
    every = [*found, PADDING]
    blends = [tuple((a + b) // 2 for a, b in zip(*pair, strict=True)) for pair in combinations(every, 2)]
    assert len({*every, *blends}) == len(every) + len(blends)
    return found


def write_coloured(root):
    """Images in one colour each, of varied shapes, with up to two small polygons; data.yaml."""
    rng, shapes = np.random.default_rng(0), [(64, 64), (64, 40), (30, 64), (96, 128), (64, 64)]
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
    for i, colour in enumerate(colours()):
        image, lines = np.full((*shapes[i % 5], 3), colour[::-1], np.uint8), []
        for c in range(i % 3):
            w, h = rng.uniform(0.15, 0.35, 2)
            x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
            lines.append(f"{c} " + " ".join(f"{v:.5f}" for v in (x, y, x + w, y, x + w, y + h, x, y + h)))
        for split in ("train", "val") if i < 2 else ("train",):
            cv2.imwrite(str(root / "images" / split / f"{i:02d}.png"), image)
            (root / "labels" / split / f"{i:02d}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b, c]\n")
    return root / "data.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(write_coloured(tmp_path_factory.mktemp("coloured")))


def stock(data, **hyp):
    off = {"mosaic": 0.0, "translate": 0.0, "scale": 0.0, "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    keys = get_cfg(overrides={"imgsz": SIZE, "task": "segment", "augmentations": [], **off, **hyp})
    return build_yolo_dataset(keys, data["train"], 8, data, rect=False, stride=32)


def coded(data, partners=False, rows=ROWS, **hyp):
    return BalancedDataset.adopt(stock(data, **hyp), np.ones(IMAGES), partners, rows=rows)


def seed(value):
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


@pytest.fixture
def even(monkeypatch):
    """Mixup blends in equal parts, so that a blend tells which two images it is of."""
    monkeypatch.setattr(np.random, "beta", lambda a, b: 0.5 if a == b == 32.0 else np.random.uniform(0.2, 0.8))


def meanings(blends=False):
    """What a colour says: the rows that must be seen there; with those of blends in equal parts."""
    every = [((), PADDING), *(((int(row),), c) for row, c in zip(ROWS, colours(), strict=True))]
    found = {c: set(rows) for rows, c in every}
    for (one, a), (other, b) in combinations(every, 2) if blends else ():
        found[tuple((x + y) // 2 for x, y in zip(a, b, strict=True))] = {*one, *other}
    return found


def rows_of(sample, code):
    return set() if code == NOTHING else set(sample["lt_rows"][code].tolist())


def check_codes(sample, told, chance=0.0):
    """The codes of a sample against its pixels; gives the rows seen, and the share of pixels that are no one's.

    `chance`: share of pixels of two images' blend that may be their border, interpolated at its half.
    """
    pixels, codes = sample["img"].numpy().transpose(1, 2, 0)[::2, ::2], sample["lt_codes"]
    assert (codes.shape, codes.dtype) == (pixels.shape[:2], np.uint8)
    both = np.concatenate([pixels, codes[..., None]], 2).reshape(-1, 4)
    seen, borders, halves = [], 0, 0
    for (*colour, code), times in zip(*np.unique(both, axis=0, return_counts=True), strict=True):
        wanted = told.get(tuple(map(int, colour)))
        borders += 0 if wanted is not None else times  # interpolated between two
        if wanted is not None and chance and rows_of(sample, code) != wanted and tuple(colour) not in colours():
            halves += times
        elif wanted is not None:
            assert rows_of(sample, code) == wanted, f"{times} pixels of {colour} have code {code}"
            seen.append(frozenset(wanted))
    assert halves <= chance * codes.size
    return seen, borders / codes.size


@pytest.mark.parametrize("partners", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_codes_are_those_of_the_pixels(data, name, partners, even):
    dataset, told = coded(data, partners, **SETTINGS[name]), meanings("mixup" in SETTINGS[name])
    seen, borders = [], []
    chance = 0.02 if name in ("mixup and geometry", "all") else 0.0
    seed(1)
    for index in range(IMAGES):
        sample = dataset[index]
        rows, share = check_codes(sample, told, chance)
        seen += rows
        borders.append(share)
        assert {row for s in rows for row in s} <= set(ROWS[list(sample["lt_tiles"])])
    blends = sum(len(s) == 2 for s in seen)
    assert blends > 10 if "mixup" in SETTINGS[name] else not blends
    assert len(set(seen)) > 5
    assert frozenset() in seen, "padding would not be tested"
    assert np.mean(borders) < 0.12, "too much is interpolated for a test"


@pytest.mark.parametrize("name", SETTINGS)
def test_images_and_labels_are_bit_for_bit_those_of_stock(data, name):
    """Cutmix would paste more with a mask, so this is no matter of course."""
    drawn = []
    for dataset in (coded(data, **SETTINGS[name]), stock(data, **SETTINGS[name])):
        seed(2)
        drawn.append([dataset[i] for i in [*range(IMAGES), *range(IMAGES)]])
    for ours, theirs in zip(*drawn, strict=True):
        assert set(ours) - set(theirs) == {"lt_tiles", "lt_pasted", "lt_codes", "lt_rows"}
        for key in ("img", "bboxes", "cls", "masks"):
            assert torch.equal(ours[key], theirs[key]), key
    if name == "cutmix":
        assert len({len(s["lt_tiles"]) for s in drawn[0]}) == 1
        whole = sum(len(np.unique(s["lt_codes"])) <= 2 for s in drawn[0])
        assert 10 < whole < 40, "some are cut and some are not, as nothing with an object was found"


def test_after_mosaic_closes_the_codes_go_on(data):
    """Ultralytics then builds its transforms anew, without the mixes."""
    dataset = coded(data, mosaic=1.0, mixup=1.0, cutmix=1.0, degrees=20.0)
    assert len(dataset[0]["lt_tiles"]) > 4
    dataset.close_mosaic(get_cfg(overrides={"augmentations": [], "degrees": 20.0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0}))
    for index in range(IMAGES):
        sample = dataset[index]
        check_codes(sample, meanings())
        assert sample["lt_rows"].tolist() == [[ROWS[index]] * 2]


def test_images_of_one_row_have_one_code(data):
    dataset = coded(data, rows=np.full(IMAGES, 5), mosaic=1.0, mixup=1.0, cutmix=1.0)
    for index in range(IMAGES):
        sample = dataset[index]
        assert sample["lt_rows"].tolist() == [[5, 5]]
        assert set(np.unique(sample["lt_codes"])) <= {0, NOTHING}


def test_without_rows_there_is_no_mask(data):
    sample = coded(data, rows=None, mosaic=1.0, cutmix=1.0)[0]
    assert not {"lt_codes", "lt_rows", "semantic_mask"} & set(sample)


def spatial():
    import albumentations as A

    return [A.Affine(translate_percent=(0.2, 0.4), p=1.0, border_mode=cv2.BORDER_CONSTANT, fill=114)]


def test_geometry_of_the_users_own_augmentations_moves_the_codes_and_pads_them(data):
    """Ultralytics gives albumentations the mask; what is not of the image is padding, whatever fills the image."""
    dataset = coded(data, augmentations=spatial())
    for index in range(IMAGES):
        check_codes(dataset[index], meanings())


def test_the_users_own_augmentations_are_bit_for_bit_those_of_stock(data):
    """With a mask Ultralytics would keep geometry that loses all boxes."""
    drawn = []
    for dataset in (coded(data, augmentations=spatial()), stock(data, augmentations=spatial())):
        seed(2)
        drawn.append([dataset[i] for i in range(IMAGES)])
    for ours, theirs in zip(*drawn, strict=True):
        for key in ("img", "bboxes", "cls", "masks"):
            assert torch.equal(ours[key], theirs[key]), key


# Loaders -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_deliver_the_codes_of_their_samples(data, workers):
    dataset = coded(data, mosaic=1.0, cutmix=0.5, scale=0.5)
    loader = with_sampler(build_dataloader(dataset, 8, workers, shuffle=True, device="cpu"), list(range(IMAGES)))
    count = 0
    for batch in loader:
        for i in range(len(batch["img"])):
            sample = {"img": batch["img"][i], "lt_codes": batch["lt_codes"][i], "lt_rows": batch["lt_rows"][i]}
            check_codes(sample, meanings())
            count += 1
    loader.close()
    assert count == IMAGES


def test_it_pickles_for_spawned_workers(data, even):
    again = pickle.loads(pickle.dumps(coded(data, mosaic=1.0, mixup=1.0, cutmix=1.0)))
    seen = [s for index in range(6) for s in check_codes(again[index], meanings(True))[0]]
    assert any(len(s) == 2 for s in seen)
    mixes = {type(vars(t).get("apply_semantic", vars(t).get("get_params"))) for t in again.transforms.transforms}
    assert {Overlay, AsWithoutMask} <= mixes
    overlay = next(t.apply_semantic for t in again.transforms.transforms if "apply_semantic" in vars(t))
    assert overlay.dataset is again, "the blends would be noted in another's palette"


# Anchors -------------------------------------------------------------------------------------------------------------

STRIDES = [(8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64)]


def centres(size, strides):
    """Anchor centres in pixels as Ultralytics' criterion has them, x and y."""
    feats = [torch.zeros(1, 1, size[0] // s, size[1] // s) for s in strides]
    points, stride = make_anchors(feats, strides, 0.5)
    return (points * stride).numpy()


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("size", [(64, 64), (64, 192), (320, 128)])
def test_anchors_have_the_code_of_the_pixel_at_their_centre(strides, size):
    full = np.random.default_rng(0).integers(0, 256, (2, *size), dtype=np.uint8)
    codes = anchor_codes(full[:, ::2, ::2], size, strides)
    x, y = centres(size, strides).astype(int).T
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, full[:, y, x])


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize(("size", "scaled"), [((64, 64), (128, 128)), ((128, 128), (64, 64)), ((192, 320), (128, 256))])
def test_in_images_of_another_scale_anchors_have_the_code_of_what_they_show(strides, size, scaled):
    """As multi_scale stretches them; a pixel's colour is its code, so the nearest pixel of the scaled image tells."""
    full = np.random.default_rng(0).integers(0, 256, (2, size[0] // 2, size[1] // 2), dtype=np.uint8)
    codes = anchor_codes(full, scaled, strides)
    shown = F.interpolate(torch.from_numpy(full)[:, None].float(), size=scaled, mode="nearest")[:, 0].numpy()
    x, y = centres(scaled, strides).astype(int).T
    np.testing.assert_array_equal(codes, shown[:, y, x])


def test_a_stride_may_be_a_float():
    full = np.random.default_rng(0).integers(0, 256, (1, 32, 48), dtype=np.uint8)
    floats = anchor_codes(full, (64, 96), [8.0, 16.0, 32.0])
    np.testing.assert_array_equal(floats, anchor_codes(full, (64, 96), (8, 16, 32)))


# What codes stand for ------------------------------------------------------------------------------------------------


def test_a_palette_gives_a_set_of_rows_one_code():
    palette = Palette()
    assert palette.array().shape == (0, 2)
    assert [palette.code(rows) for rows in ([3], [-1], [3, 3], [5, 3], [3, 5], [-1, 3])] == [0, 1, 0, 2, 2, 3]
    assert palette.array().tolist() == [[3, 3], [-1, -1], [3, 5], [-1, 3]]
    assert palette.array().dtype == np.int64


def test_a_palette_never_gives_the_code_of_padding():
    palette = Palette()
    assert [palette.code([row]) for row in range(NOTHING)] == list(range(NOTHING))
    with pytest.raises(ValueError, match="256 in a sample are more than expected"):
        palette.code([NOTHING])
    with pytest.raises(ValueError, match="3 sources at one pixel"):
        Palette().code([1, 2, 3])


def test_blended_with_padding_a_source_stands_alone():
    dataset = SimpleNamespace(palette=Palette())
    for rows in ([4], [9]):
        dataset.palette.code(rows)
    one, other = (np.array([m], np.uint8) for m in ([0, 0, 0, NOTHING, NOTHING, 1], [0, 1, NOTHING, 1, NOTHING, 0]))
    labels = Overlay(dataset)({"semantic_mask": one, "mix_labels": [{"semantic_mask": other}]})
    assert labels["semantic_mask"].tolist() == [[0, 2, 0, 1, NOTHING, 2]]
    assert labels["semantic_mask"].dtype == np.uint8
    assert dataset.palette.array().tolist() == [[4, 4], [9, 9], [4, 9]]


def test_a_batch_shares_the_sets_of_its_images_and_padding_has_none():
    palettes = [np.array([[4, 4], [2, 4]]), np.array([[-1, -1], [4, 4], [2, 4]]), np.zeros((0, 2), np.int64)]
    codes = np.array([[0, 1, NOTHING], [0, 1, 2], [NOTHING] * 3], np.uint8)
    sets, index = batch_rows(palettes, codes)
    assert sets[0] == ()
    assert [[sets[i] for i in row] for row in index] == [[(4,), (2, 4), ()], [(-1,), (4,), (2, 4)], [()] * 3]
    assert len(sets) == len(set(sets)) == 4
    assert index.dtype == np.int64


def test_a_batch_of_no_images_has_only_padding():
    sets, index = batch_rows([], np.zeros((0, 84), np.uint8))
    assert sets == [()]
    assert index.shape == (0, 84)


def test_a_palette_of_255_sets_does_not_reach_the_padding():
    palette = np.repeat(np.arange(NOTHING)[:, None], 2, 1)
    sets, index = batch_rows([palette], np.arange(256, dtype=np.uint8)[None])
    assert [sets[i] for i in index[0]] == [*((row,) for row in range(NOTHING)), ()]
