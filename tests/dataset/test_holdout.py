import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.holdout import stratified_holdout
from yolo_lt.dataset.stats import ClassStats


def counts(stats, mask):
    return stats.images_with(mask.astype(float)).astype(int)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_every_class_gives_its_rounded_share(share):
    sizes = [100, 40, 25, 10, 5, 4, 2, 1]
    stats = ClassStats.from_lists([[c] for c, n in enumerate(sizes) for _ in range(n)] + [[]] * 20, len(sizes))
    apart = stratified_holdout(stats, share)
    wanted = [min(int(share * n + 0.5), n - 1) for n in sizes]
    assert counts(stats, apart).tolist() == wanted
    assert apart.sum() == sum(wanted) + 20 * share


def test_multi_label_images_serve_several_classes_without_overdraft():
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 41) ** 1.2
    rows = [rng.choice(40, size=rng.integers(1, 8), p=weights / weights.sum()) for _ in range(3000)]
    stats = ClassStats.from_lists(rows, 40)
    taken = counts(stats, stratified_holdout(stats, 0.1))
    wanted = np.floor(0.1 * stats.image_counts + 0.5)
    assert (taken <= wanted).all()
    assert taken.sum() > 0.85 * wanted.sum(), "the share is reached but for the images of which one class is full"
    assert (taken[stats.image_counts >= 50] > 0).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), max_size=4), max_size=40),
    st.floats(0, 0.9),
    st.integers(0, 5),
)
def test_never_more_than_the_share_and_always_the_same(rows, share, seed):
    stats = ClassStats.from_lists(rows, 7)
    apart = stratified_holdout(stats, share, seed)
    assert apart.shape == (len(rows),)
    assert (counts(stats, apart) <= np.floor(share * stats.image_counts + 0.5)).all()
    np.testing.assert_array_equal(apart, stratified_holdout(stats, share, seed))


def test_the_seed_decides_which_images():
    stats = ClassStats.from_lists([[0]] * 100, 1)
    assert (stratified_holdout(stats, 0.3, 0) != stratified_holdout(stats, 0.3, 1)).any()
    assert not stratified_holdout(stats, 0.0).any()
