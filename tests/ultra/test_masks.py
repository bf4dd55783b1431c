"""The annotation mask says, per anchor and class, how much a negative counts; what it draws can be drawn again."""

import numpy as np
import pytest
import torch

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset.federated import EVERYTHING, FederatedIndex, Lists
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.ultra.masks import AnnotationMask
from yolo_lt.ultra.sources import NOTHING

NAMES = ("a", "b", "c", "d")
SIZE, STRIDES = (64, 96), (8, 16, 32)
NONE = torch.zeros(0, 1)


def index_of(classes, positive, negative, not_exhaustive, row):
    lists = {"positive": positive, "negative": negative, "not_exhaustive": not_exhaustive}
    images = tuple(f"{i}.jpg" for i in range(len(row)))
    return FederatedIndex(classes, images, np.array(row), **{k: Lists.of(v) for k, v in lists.items()})


# row 0: a is there, b is not, of d only some are labelled; row 1: nobody looked for anything but c
FEW = index_of(NAMES, [[0, 3], []], [[1], [2]], [[3], []], [0, 1, EVERYTHING])


def mask_with(index=FEW, unknown="strict", lists=((0, 3), (2,), (0, 1, 2, 3)), seed=0, rank=-1, **keys):
    stats = ClassStats.from_lists([list(x) for x in lists], len(index.classes), list(index.classes))
    keys = {"recipe": "baseline", "federated": True, "unknown_negatives": unknown, **keys}
    return AnnotationMask(index, make_plan(stats, config.resolve(keys), federated=index), seed, rank)


def weights(mask, codes, palettes, classes=NONE, size=SIZE):
    """The weights of every entry, shape (B, A, C)."""
    found = mask(codes, palettes, classes, size, STRIDES, torch.device("cpu"))
    assert found.rows.dtype == torch.float32
    return found.rows[found.index]


def centres(size=SIZE):
    """Of all anchors, in pixels, in Ultralytics' order: level by level, row by row."""
    return [(s * (y + 0.5), s * (x + 0.5)) for s in STRIDES for y in range(size[0] // s) for x in range(size[1] // s)]


PALETTE = np.array([[0, 0], [1, 1], [EVERYTHING, EVERYTHING], [0, 1], [EVERYTHING, 1]])
CODES = [0, 1, 2, 3, 4, NOTHING]


def rule(unknown):
    """What the rule says for the codes of `CODES`."""
    u = unknown
    row0, row1 = [1, 1, u, 0], [u, u, 1, u]
    return [row0, row1, [1, 1, 1, 1], [min(a, b) for a, b in zip(row0, row1, strict=True)], row1, [1, 1, 1, 1]]


def quarters(height=32, width=48):
    """Masks of two images, in vertical stripes of all codes and in horizontal ones of some."""
    first = np.repeat(np.array(CODES, np.uint8), width // 6)[None].repeat(height, 0)
    second = np.repeat(np.array([NOTHING, 3, 0, 1], np.uint8), height // 4)[:, None].repeat(width, 1)
    return [first, second]


@pytest.mark.parametrize(("unknown", "number"), [("strict", 0.0), (0.0, 0.0), (0.25, 0.25), (1.0, 1.0), ("auto", 0.0)])
def test_every_anchor_has_the_weights_of_the_source_at_its_centre(unknown, number):
    masks = quarters()
    found = weights(mask_with(unknown=unknown), masks, [PALETTE, PALETTE])
    expected = dict(zip(CODES, rule(number), strict=True))
    for image, full in enumerate(masks):
        wanted = [expected[int(full[int(y / 2), int(x / 2)])] for y, x in centres()]
        assert found[image].tolist() == wanted
        assert len({tuple(w) for w in wanted}) >= (2 if number == 1 else 3)


def test_codes_at_the_anchors_are_taken_as_they_are():
    """As cached features have them; the size says nothing then."""
    at = [np.array([*CODES, 0, 0], np.uint8), np.array([*CODES[::-1], 1, 1], np.uint8)]
    found = weights(mask_with(), at, [PALETTE, PALETTE], size=(1, 1))
    expected = dict(zip(CODES, rule(0.0), strict=True))
    assert found.tolist() == [[expected[int(code)] for code in codes] for codes in at]


def test_every_image_has_its_own_palette():
    at = [np.array([0, 1], np.uint8)] * 2
    found = weights(mask_with(), at, [np.array([[0, 0], [1, 1]]), np.array([[1, 1], [EVERYTHING] * 2])])
    assert found.tolist() == [[rule(0)[0], rule(0)[1]], [rule(0)[1], [1, 1, 1, 1]]]


def test_scaled_images_have_the_weights_of_what_they_show():
    """Multi-scale changes the images after the codes were made."""
    masks, size = quarters(), (128, 192)
    found = weights(mask_with(), masks, [PALETTE, PALETTE], size=size)
    expected = dict(zip(CODES, rule(0.0), strict=True))
    wanted = [expected[int(masks[0][int(y / 4), int(x / 4)])] for y, x in centres(size)]
    assert found[0].tolist() == wanted


def test_it_takes_what_ultralytics_collates():
    """Masks and palettes come as a tuple of arrays from images, as tensors from cached features."""
    at = torch.tensor([CODES, CODES], dtype=torch.uint8)
    found = weights(mask_with(), tuple(at), (torch.from_numpy(PALETTE),) * 2)
    assert found[0].tolist() == rule(0.0)


def test_the_share_that_counted_is_kept_and_told():
    mask = mask_with(unknown=0.5)
    found = [weights(mask, quarters(), [PALETTE, PALETTE]), weights(mask, quarters()[:1], [PALETTE])]
    total = sum(float(w.sum()) for w in found) / len(NAMES)
    assert mask.kept == pytest.approx(total)
    assert mask.anchors == 3 * len(centres())
    share = total / mask.anchors
    assert mask.text() == f"federated: {share:.1%} of the negatives counted, mean over anchors and classes"
    assert 0.4 < share < 0.95


def test_before_the_first_batch_nothing_has_counted():
    assert "federated: 0.0% of the negatives" in mask_with().text()


# Drawn classes -------------------------------------------------------------------------------------------------------

MANY = tuple(f"class {i}" for i in range(60))
NOTHING_KNOWN = index_of(MANY, [[]], [[]], [[]], [0, 0, 0])
LISTS = (tuple(range(50)), tuple(range(10)), tuple(range(5)))  # the last ten classes have no image
ONE = ([np.zeros(1, np.uint8)], [np.array([[0, 0]])])


def sampled(seed=0, rank=-1, number=20):
    return mask_with(NOTHING_KNOWN, "sampled", LISTS, seed, rank, federated_classes=number)


def drawn(mask, classes=(7.0, 59.0, 7.0)):
    """The classes whose negatives count in a batch with these objects."""
    found = weights(mask, *ONE, torch.tensor(classes).view(-1, 1))[0, 0]
    assert set(found.tolist()) <= {0.0, 1.0}
    return set(np.flatnonzero(found.numpy()).tolist())


def test_the_classes_of_the_batch_count_and_others_up_to_a_number():
    mask = sampled()
    for _ in range(20):
        found = drawn(mask)
        assert {7, 59} <= found
        assert len(found) == 20
        assert found - {59} <= set(range(50)), "a class without images is never drawn"
    assert len(drawn(mask, tuple(map(float, range(30))))) == 30, "all of the batch, though they are more"
    assert len(drawn(mask, ())) == 20


def test_common_classes_are_drawn_more_often():
    mask = sampled(number=10)
    times = np.bincount([c for _ in range(300) for c in drawn(mask, ())], minlength=60)
    rate = [times[:5].mean(), times[5:10].mean(), times[10:50].mean(), times[50:].sum()]
    assert rate[0] > 1.1 * rate[1] > 1.1**2 * rate[2] > 0 == rate[3]


def test_known_classes_count_whether_drawn_or_not():
    index = index_of(MANY, [[]], [list(range(30))], [[3]], [0, 0, 0])
    mask = mask_with(index, "sampled", LISTS, federated_classes=5)
    found = drawn(mask)
    assert set(range(30)) - {3} <= found
    assert 3 not in found, "only some of its objects are labelled"
    assert len(found - set(range(30))) <= 5


def test_what_is_drawn_is_a_function_of_seed_process_epoch_and_batch():
    def epochs(seed=0, rank=-1, first=0):
        mask, found = sampled(seed, rank), []
        for epoch in range(first, 3):
            mask.start_epoch(epoch)
            found.append([drawn(mask) for _ in range(4)])
        return found

    whole = epochs()
    assert epochs() == whole
    assert epochs(first=1) == whole[1:], "a resumed epoch draws what it would have drawn"
    assert epochs(rank=0) == whole, "a single process is the first of one"
    different = [tuple(sorted(d)) for e in (*whole, *epochs(seed=1), *epochs(rank=1)) for d in e]
    assert len(set(different)) == len(different) == 36
    mask = sampled()
    mask.start_epoch(1)
    again = [drawn(mask) for _ in range(2)]
    mask.start_epoch(1)
    assert again + [drawn(mask) for _ in range(4)] == [*whole[1][:2], *whole[1]], "an epoch starts over"


def test_nothing_of_the_runs_random_numbers_is_used():
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    drawn(sampled())
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
