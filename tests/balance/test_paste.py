import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_lt.balance import paste
from yolo_lt.dataset import ClassStats, frequency_bins

STATS = ClassStats.from_lists([[0]] * 60 + [[1]] * 20 + [[2]] * 6 + [[3]] * 2 + [[3, 4]], 6)
BINS = frequency_bins(STATS.image_counts, (6, 20))


def test_need_is_what_a_tail_class_lacks_to_the_rarest_class_outside_the_tail():
    """Classes 2, 3 and 4 are in 6, 3 and 1 images, class 1 in 20; class 5 occurs nowhere."""
    np.testing.assert_allclose(paste.class_need(STATS, BINS), np.array([0, 0, 14, 17, 19, 0]) / 50)


def test_need_where_every_class_is_tail_or_none_is():
    everything = frequency_bins(STATS.image_counts, (100, 200))
    need = paste.class_need(STATS, everything)
    assert need[:5].min() > 0
    assert need.sum() == pytest.approx(1)
    assert need.argmax() == 4
    assert paste.class_need(STATS, frequency_bins(STATS.image_counts, (0, 1))).sum() == 0


def test_classes_are_drawn_by_need_and_never_where_they_are():
    random.seed(0)
    need, n = paste.class_need(STATS, BINS), 20_000
    drawn = np.bincount([paste.draw_class(need, np.array([0, 3])) for _ in range(n)], minlength=6)
    expected = need.copy()
    expected[3] = 0
    expected /= expected.sum()
    z = (drawn - n * expected) / np.sqrt(np.maximum(n * expected * (1 - expected), 1e-9))
    assert np.abs(z).max() < 4
    assert paste.draw_class(need, np.array([2, 3, 4])) is None
    assert paste.draw_class(need, np.zeros((0, 1), int)) in (2, 3, 4)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(16, 300), st.integers(16, 300))
def test_scales_keep_the_limits(height, width, image_height, image_width):
    scale = paste.draw_scale((height, width), (image_height, image_width))
    if scale is not None:
        assert paste.SCALE[0] <= scale * (1 + 1e-9)
        assert scale <= paste.SCALE[1] * (1 + 1e-9)
        assert min(height, width) * scale >= paste.MIN_SIDE * (1 - 1e-9)
        assert height * scale <= paste.MAX_SIDE * image_height * (1 + 1e-9)
        assert width * scale <= paste.MAX_SIDE * image_width * (1 + 1e-9)
    else:
        low = max(paste.SCALE[0], paste.MIN_SIDE / min(height, width))
        room = min(paste.MAX_SIDE * image_height / height, paste.MAX_SIDE * image_width / width)
        assert low > min(paste.SCALE[1], room)


def test_scales_are_spread_over_their_range():
    random.seed(0)
    logs = np.log([paste.draw_scale((40, 40), (640, 640)) for _ in range(2000)])
    low, high = np.log(paste.SCALE)
    assert abs(logs.mean() - (low + high) / 2) < 4 * logs.std() / 2000**0.5
    assert logs.std() == pytest.approx((high - low) / 12**0.5, rel=0.05)


@given(st.integers(0, 10_000), st.integers(0, 6))
def test_places_are_inside_and_cover_little(seed, others):
    random.seed(seed)
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (others, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (others, 2))], axis=1)
    box = np.array([3.0, 2.0, 21.0, 26.0])
    place = paste.draw_place((28, 24), box, boxes, (100, 90))
    if place is not None:
        x, y = place
        assert 0 <= x <= 90 - 24
        assert 0 <= y <= 100 - 28
        assert (paste.covered(boxes, box[None] + np.array([x, y, x, y])) <= paste.MAX_COVER).all()


def test_no_place_where_everything_would_be_hidden_or_nothing_fits():
    full = np.array([[x, y, x + 10, y + 10] for x in range(0, 90, 10) for y in range(0, 90, 10)], float)
    assert paste.draw_place((50, 50), np.array([0.0, 0, 50, 50]), full, (90, 90)) is None
    assert paste.draw_place((91, 10), np.array([0.0, 0, 10, 91]), full[:0], (90, 90)) is None


def test_covered_share():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [20, 20, 30, 30]], float)
    by = np.array([[0.0, 0, 10, 5], [0.0, 0, 100, 100], [8.0, 0, 12, 20]])
    np.testing.assert_allclose(paste.covered(boxes, by), [[0.5, 0, 0], [1, 1, 1], [0.2, 0.4, 0]])
    assert paste.covered(boxes[:0], by).shape == (3, 0)


def test_a_soft_border_is_opaque_in_the_box_and_fades_outside():
    opacity = paste.soft_border((20, 30), np.array([6.0, 4.0, 24.0, 16.0]))
    assert opacity.dtype == np.float32
    assert (opacity[4:16, 6:24] == 1).all()
    assert (np.diff(opacity[10, :7]) > 0).all()
    assert (np.diff(opacity[10, 23:]) < 0).all()
    assert opacity[0, 0] < 0.05


def test_a_box_at_the_cut_outs_edge_has_no_border_there():
    assert (paste.soft_border((8, 8), np.array([0.0, 0, 8, 8])) == 1).all()
