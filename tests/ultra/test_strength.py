"""The search for a strength: what a map is learnt from, what it is judged on, and by what."""

import numpy as np
import pytest

from yolo_lt.calibrate import CALIBRATORS
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.evaluate.matching import match
from yolo_lt.evaluate.operating import best_common_f1
from yolo_lt.ultra import strength
from yolo_lt.ultra.strength import assign_folds, best, gather_evidence, level_of, logits_of, make_map, mean_ap, search

COUNTS = np.array([1000, 100, 10])
IMAGES, FOLDS = 60, 5


def evidence(seed=0):
    """Three classes on 60 images; the rarer the class, the lower its scores, right or wrong."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(IMAGES), 3)
    cls = np.tile(np.arange(3), IMAGES)
    box = np.tile([[0.0, 0, 20, 20], [40, 0, 20, 20], [80, 0, 20, 20]], (IMAGES, 1))
    truth = GroundTruth(
        image_ids=np.arange(IMAGES),
        category_ids=np.arange(3),
        names=("a", "b", "c"),
        image=image,
        cls=cls,
        box=box,
        area=np.full(len(image), 400.0),
        crowd=np.zeros(len(image), bool),
    )
    right = rng.random(len(image)) < 0.5
    found = np.where(right[:, None], box, box + np.array([0, 500, 0, 0]))
    z = 2.0 * right - 1.5 * cls + rng.normal(0, 0.4, len(image))
    dets = Detections(image, cls, found, 1 / (1 + np.exp(-z)))
    fold = assign_folds(IMAGES, seed)
    moments = np.tile([[100.0] * 3, [-500.0, -600, -700], [3000.0, 4000, 5600]], (FOLDS, 1, 1))
    return gather_evidence(truth, dets, fold, {str(i): int(f) for i, f in enumerate(fold)}, moments)


def under(e):
    """detect() of a network whose boxes stay: every image under the map of its fold."""

    def detect(maps):
        out = []
        for of_folds in maps:
            m = [of_folds[f] for f in e.fold[e.found.image]]
            z = logits_of(e.found.score)
            moved = np.array([a.scale[c] * x + a.shift[c] for a, c, x in zip(m, e.found.cls, z, strict=True)])
            out.append(Detections(e.found.image, e.found.cls, e.found.box, 1 / (1 + np.exp(-moved))))
        return out

    return detect


def run(method, judge="f1", strengths=None, e=None):
    e = e or evidence()
    grid = list(CALIBRATORS[method].grid) if strengths is None else strengths
    return search(method, grid, COUNTS, np.eye(3), e, under(e), judge)


def test_folds_are_of_equal_size_and_a_function_of_the_seed():
    fold = assign_folds(63, 1)
    assert np.bincount(fold).tolist() == [13, 13, 13, 12, 12]
    assert (fold == assign_folds(63, 1)).all()
    assert (fold != assign_folds(63, 2)).any()


def test_the_shift_that_undoes_a_head_bias_has_the_best_f1():
    """Scores fall by 1.5 a class, and the counts by a factor of 10: gamma = 1.5 / log 10 = 0.65."""
    points = run("norcal", strengths=[0.2, 0.4, 0.6, 0.8, 1.2])
    assert [p.strength for p in points] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.2]
    assert best(points).strength in (0.6, 0.8)
    assert best(points).f1 > points[0].f1 + 0.05
    assert {p.ap[300] for p in points} == {points[0].ap[300]}, "boxes and their order within a class did not move"


@pytest.mark.parametrize("judge", ["f1", "ap", "log_loss"])
def test_worth_is_what_is_asked_for(judge):
    for p in run("norcal", judge):
        wanted = {"f1": p.f1, "ap": np.mean(list(p.ap.values())), "log_loss": -p.log_loss}[judge]
        assert p.worth == pytest.approx(wanted)


def test_of_equal_points_the_least_strength_is_taken():
    points = run("norcal", "ap")
    assert len({p.worth for p in points}) == 1
    assert best(points).strength == 0


@pytest.mark.parametrize("method", ["lws", "temperature"])
def test_a_fold_is_judged_under_a_map_that_was_not_learnt_from_it(method, monkeypatch):
    e, seen = evidence(), []
    original = strength.logit_affine

    def spy(name, **kw):
        seen.append(len(kw["logits"]))
        return original(name, **kw)

    monkeypatch.setattr(strength, "logit_affine", spy)
    given = []
    search(method, [1.0], COUNTS, None, e, lambda maps: given.extend(maps[0]) or under(e)(maps), "f1")
    per_image = len(e.matches.score) // IMAGES
    assert seen == [(IMAGES - 12) * per_image] * FOLDS
    kept = np.setdiff1d(np.arange(FOLDS), 2)
    alone = make_map(method, 1.0, COUNTS, None, e, kept)
    assert (given[2].scale == alone.scale).all()
    assert (given[2].scale != given[3].scale).any()


def test_a_fitted_map_makes_confidences_truer_on_images_that_it_has_not_seen():
    off = evidence()
    points = run("temperature", "log_loss", e=off)
    assert best(points).strength > 0
    assert best(points).log_loss < points[0].log_loss - 0.02


def test_logn_learns_from_the_kept_folds_alone():
    e = evidence()
    e.moments[2, 1, 0] = -540.0  # fold 2 has another mean of class 0
    without = make_map("logn", 1.0, COUNTS, None, e, np.array([0, 1, 3, 4]))
    everything = make_map("logn", 1.0, COUNTS, None, e, None)
    mean, std = np.array([-5.0, -6, -7]), np.sqrt([30 - 25, 40 - 36, 56 - 49])
    scale, shift = 1 / std, -(mean - mean.min()) / std
    assert without.scale == pytest.approx(scale / scale[0])
    assert without.shift == pytest.approx((shift - shift[0]) / scale[0])
    assert (everything.scale != without.scale).any()


@pytest.mark.parametrize("method", [m for m, c in CALIBRATORS.items() if c.relative])
def test_the_commonest_class_keeps_its_scores(method):
    found = make_map(method, 0.7, COUNTS, np.diag([3.0, 2, 1]), evidence(), None)
    assert (found.scale[0], found.shift[0]) == pytest.approx((1, 0))
    assert found.scale[1:] != pytest.approx([1, 1]) or found.shift[1:] != pytest.approx([0, 0])


def test_lws_weighs_images_class_aware_and_so_lifts_the_rare():
    """Class 1 is right on few images, and wrong on the many that hold class 0 alone."""
    e = evidence()
    rare = e.truth.cls == 2
    kept = ~rare | (e.truth.image % 6 == 0)
    fields = {n: getattr(e.truth, n)[kept] for n in ("image", "cls", "box", "area", "crowd")}
    truth = GroundTruth(e.truth.image_ids, e.truth.category_ids, e.truth.names, **fields)
    few = gather_evidence(truth, e.found, e.fold, e.folds, e.moments)
    aware = make_map("lws", 1.0, COUNTS, None, few, None)
    m = few.matches
    from yolo_lt.calibrate.fit import learn

    plain = learn(logits_of(m.score), m.cls.astype(int), m.tp[:, 0], 3)
    z = -3.0
    assert aware.scale[2] * z + aware.shift[2] > plain[0][2] * z + plain[1][2] + 0.1


def test_matches_of_the_evidence_have_no_cap():
    e = evidence()
    assert e.matches.max_det == 0
    assert len(e.matches.score) == len(match(e.truth, e.found, 0).score)


def test_ap_by_fold_is_the_mean_over_the_folds_of_a_class():
    e = evidence()
    from yolo_lt.evaluate.metrics import class_metrics

    by_hand = []
    for f in range(FOLDS):
        inside = np.flatnonzero(e.fold == f)
        place = np.full(IMAGES, -1)
        place[inside] = np.arange(len(inside))
        t, d = (np.isin(x.image, inside) for x in (e.truth, e.found))
        rows = {n: getattr(e.truth, n)[t] for n in ("cls", "box", "area", "crowd")}
        truth = GroundTruth(inside, e.truth.category_ids, e.truth.names, place[e.truth.image[t]], **rows)
        dets = Detections(place[e.found.image[d]], e.found.cls[d], e.found.box[d], e.found.score[d])
        by_hand.append(class_metrics(match(truth, dets, 0))[:, 0])
    assert mean_ap(e.matches, e.fold) == pytest.approx(np.mean(by_hand))
    assert mean_ap(e.matches) != pytest.approx(mean_ap(e.matches, e.fold))


def test_maps_of_folds_that_differ_cost_no_ap_by_themselves():
    """Every fold keeps its own order; pooled, their scores would be mixed up."""
    e = evidence()
    assert {round(p.ap[300], 12) for p in run("temperature", e=e)} == {round(mean_ap(e.matches, e.fold), 12)}


def test_the_level_keeps_the_best_common_confidence_where_it_was():
    e = evidence()
    points = run("norcal", strengths=[0.6], e=e)
    level = level_of("norcal", points, 0.6)
    assert level < -0.5, "a lifted tail must be shown from a higher confidence"
    lifted = make_map("norcal", 0.6, COUNTS, None, e, None).lifted(level)
    (dets,) = under(e)([[lifted] * FOLDS])
    f1, conf = best_common_f1(match(e.truth, dets, 0))
    assert f1 == pytest.approx(points[1].f1)
    assert conf == pytest.approx(points[0].conf)
    assert level_of("temperature", points, 0.6) == 0
    assert level_of("norcal", [], 0.6) == 0
