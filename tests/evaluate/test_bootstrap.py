import copy
from dataclasses import replace

import numpy as np
import pytest
from coco_oracle import cases, coco_arrays, dataset, matches_of, random_case, results
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.evaluate.bootstrap import bootstrap_intervals, image_weights, percentile_interval, replicate_means
from yolo_lt.evaluate.metrics import class_metrics, precision_recall, prepare, weighted_curves, weighted_metrics

BOX = (10, 10, 20, 20)


def repeated(gt, dets, weights):
    """The data set with every image written down weights[i] times, copies next to each other."""
    gt, image_ids = copy.deepcopy(gt), sorted(i["id"] for i in gt["images"])
    copies = {i: [i * 100 + k for k in range(w)] for i, w in zip(image_ids, weights, strict=True)}
    anns = [{**a, "image_id": j} for a in gt["annotations"] for j in copies[a["image_id"]]]
    gt["annotations"] = [{**a, "id": n} for n, a in enumerate(anns, 1)]
    gt["images"] = [{"id": j} for ids in copies.values() for j in ids]
    return gt, [{**d, "image_id": j} for d in dets for j in copies[d["image_id"]]]


def repeated_matches(m, weights):
    """The same for matches: every detection and ground-truth count written down weights[image] times."""
    w, first = np.asarray(weights), np.cumsum(weights) - weights

    def spread(image):
        times = w[image]
        rank = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        return times, np.repeat(first[image], times) + rank

    times, image = spread(m.image)
    gt_times, gt_image = spread(m.gt_image)
    dets = {k: np.repeat(getattr(m, k), times, axis=0) for k in ("cls", "score", "tp", "ignore", "iou")}
    truth = {k: np.repeat(getattr(m, k), gt_times) for k in ("gt_class", "gt_count")}
    return replace(m, image=image, gt_image=gt_image, image_ids=np.arange(w.sum()), **dets, **truth)


def arrays(m, weights):
    precision, recall, truths = weighted_curves(prepare(m), np.asarray(weights))
    precision[truths == 0], recall[truths == 0] = -1, -1
    return precision.transpose(1, 2, 0), recall.T


def test_weights_of_one_are_the_plain_metric_and_pycocotools():
    gt, dets = random_case(1, images=30, per_image=20, classes=4)
    m = matches_of(gt, dets)
    plain, ones = precision_recall(m), arrays(m, np.ones(30))
    for a, b, c in zip(plain, ones, coco_arrays(gt, dets, 100), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    everything = replicate_means(m, [np.arange(4)], [np.ones(30, int)])[0, 0]
    np.testing.assert_array_equal(everything, class_metrics(m).sum(axis=0) / 4)


@pytest.mark.parametrize("seed", range(6))
def test_whole_weights_are_images_written_down_again_and_matched_again(seed):
    """Scores differ within an image and tie across images: there, copies of an image stand side by side."""
    gt, dets = random_case(seed, images=12, per_image=15, classes=3)
    for n, d in enumerate(dets):
        d["score"] = ((n * 7) % 15) / 15
    weights = np.random.default_rng(seed).integers(0, 4, 12)
    again = precision_recall(matches_of(*repeated(gt, dets, weights)))
    for weighted, literal in zip(arrays(matches_of(gt, dets), weights), again, strict=True):
        np.testing.assert_array_equal(weighted, literal)


@settings(max_examples=150, deadline=None)
@given(case=cases(), weights=st.tuples(*[st.integers(0, 3)] * 3))
def test_whole_weights_are_copies_side_by_side_whatever_ties(case, weights):
    m = matches_of(*case)
    again = precision_recall(repeated_matches(m, np.array(weights)))
    for weighted, literal in zip(arrays(m, weights), again, strict=True):
        np.testing.assert_array_equal(weighted, literal)


@settings(max_examples=100, deadline=None)
@given(case=cases(), gone=st.integers(1, 3))
def test_an_image_of_weight_zero_leaves_no_trace(case, gone):
    gt, dets = case
    left = {**gt, "images": [i for i in gt["images"] if i["id"] != gone]}
    left["annotations"] = [a for a in gt["annotations"] if a["image_id"] != gone]
    without = precision_recall(matches_of(left, [d for d in dets if d["image_id"] != gone]))
    for weighted, dropped in zip(arrays(matches_of(gt, dets), [i != gone for i in (1, 2, 3)]), without, strict=True):
        np.testing.assert_array_equal(weighted, dropped)


def test_a_class_without_ground_truth_in_a_replicate_is_not_in_its_mean():
    gt = dataset([(1, 1, BOX), (1, 1, (50, 50, 9, 9)), (2, 2, BOX)], images=(1, 2), categories=(1, 2))
    m = matches_of(gt, results((1, 1, BOX, 0.9), (1, 1, (50, 50, 9, 9), 0.8), (1, 2, BOX, 0.7)))
    sets = [np.array([0, 1]), np.array([1])]
    means = replicate_means(m, sets, [np.array([1, 1]), np.array([2, 0]), np.array([0, 2])])
    np.testing.assert_array_equal(means[:, 0, 0], [0.5, 1.0, 0.0])
    np.testing.assert_array_equal(means[:, 1, 0], [0.0, np.nan, 0.0])


def test_weights_are_draws_with_replacement_that_the_seed_decides():
    a, b = list(image_weights(50, 40, seed=3)), list(image_weights(50, 40, seed=3))
    np.testing.assert_array_equal(a, b)
    assert {int(w.sum()) for w in a} == {50}
    assert not np.array_equal(a, list(image_weights(50, 40, seed=4)))
    assert abs(np.mean(np.array(a) == 0) - np.exp(-1)) < 0.05


def test_intervals_are_deterministic_and_hold_the_estimate():
    m = matches_of(*random_case(2, images=60, per_image=10, classes=4))
    sets = [np.arange(4), np.array([2])]
    first = bootstrap_intervals(m, sets, 200, seed=0)
    np.testing.assert_array_equal(first, bootstrap_intervals(m, sets, 200, seed=0))
    assert not np.array_equal(first, bootstrap_intervals(m, sets, 200, seed=1))
    estimate = replicate_means(m, sets, [np.ones(60, int)])[0]
    assert (first[0] < estimate).all()
    assert (estimate < first[1]).all()


def test_paired_replicates_of_a_run_and_itself_with_fewer_detections_show_no_noise():
    gt, dets = random_case(4, images=60, per_image=10, classes=2)
    dets = [{**d, "score": d["score"] + 0.1} for d in dets]
    both = [matches_of(gt, x) for x in (dets, [d for d in dets if d["image_id"] > 3])]
    runs = [replicate_means(m, [np.arange(2)], image_weights(60, 100, 0))[:, 0, 3] for m in both]
    assert (runs[0] - runs[1] >= 0).all()  # recall can only be higher with more detections, in every replicate
    assert np.std(runs[0] - runs[1]) < np.std(runs[0])


def test_percentile_interval_leaves_out_replicates_without_a_value():
    values = np.r_[np.arange(1001) / 1000, [np.nan] * 99]
    np.testing.assert_allclose(percentile_interval(values), [0.025, 0.975])
    assert np.isnan(percentile_interval(np.full((5, 2), np.nan))).all()


def sampled_matches(rng, images):
    """Images of a simple world: two boxes of each class, found with a chance that the image decides."""
    template = matches_of(dataset([], range(images), (1, 2)), [])
    image, cls = np.tile(np.repeat(np.arange(images), 4), 2), np.repeat([0, 1], images * 4)
    ease = rng.uniform(0, 1, images)[image]
    real = np.tile([True, True, False, False], 2 * images)
    right = real & (rng.random(len(image)) < ease)
    score = rng.random(len(image)) + right * rng.random(len(image))
    order = np.lexsort((-score, cls))
    tp = np.repeat(right[order, None], 10, axis=1)
    truth = {"gt_image": np.tile(np.arange(images), 2), "gt_class": np.repeat([0, 1], images)}
    dets = {"image": image[order], "cls": cls[order], "score": score[order], "tp": tp, "ignore": np.zeros_like(tp)}
    return replace(template, **dets, **truth, gt_count=np.full(2 * images, 2), iou=np.zeros(len(image)))


def test_intervals_cover_the_value_of_the_world_about_as_often_as_they_say():
    rng, sets = np.random.default_rng(0), [np.arange(2)]
    world = replicate_means(sampled_matches(rng, 40_000), sets, [np.ones(40_000, int)])[0, 0, 0]
    inside, widths = [], []
    for _ in range(100):
        low, high = bootstrap_intervals(sampled_matches(rng, 100), sets, 150, seed=0)[:, 0, 0]
        inside.append(low <= world <= high)
        widths.append(high - low)
    assert 0.87 <= np.mean(inside) < 1
    low, high = bootstrap_intervals(sampled_matches(rng, 1600), sets, 150, seed=0)[:, 0, 0]
    assert 0.15 < (high - low) / np.mean(widths) < 0.4  # sixteen times the images, a quarter of the width


def test_weights_need_not_be_a_resample():
    m = matches_of(*random_case(6, images=10, per_image=10, classes=2))
    twice = weighted_metrics(prepare(m), np.full(10, 2))
    assert np.isfinite(twice).all()
    np.testing.assert_allclose(twice[:, 3], class_metrics(m)[:, 3], atol=1e-12)
