import numpy as np
import pytest

from yolo_lt import config
from yolo_lt.balance import exposure
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.dataset.federated import EVERYTHING, FederatedIndex, Lists
from yolo_lt.errors import LTError, UsageError
from yolo_lt.files import rewind_csv

STATS = ClassStats.from_lists([[0]] * 64 + [[0, 1]] * 8 + [[2]] * 2 + [[]] * 6, 4, ["a", "b", "c", "d"])


def plan(**keys):
    return make_plan(STATS, config.resolve(keys))


def test_auto_is_resolved_and_explained():
    p = plan(recipe="rfs")
    assert p.keys["repeat_thr"] == pytest.approx(72 / 80)
    assert any("rarest head class (a) is in 72 of 80" in note for note in p.notes)
    assert p.factors.max() == pytest.approx(np.sqrt(0.9 / (2 / 80)))


def test_expected_exposure_is_what_the_stream_draws():
    from yolo_lt.balance.stream import epoch_indices

    p = plan(recipe="rfs", epoch_length="fixed")
    drawn = np.bincount(np.concatenate([epoch_indices(p.factors, 0, e, fixed=True) for e in range(300)]), minlength=80)
    share = STATS.images_with(drawn.astype(float)) / drawn.sum()
    asked = p.exposure * STATS.image_counts / STATS.num_images
    np.testing.assert_allclose(share[:3], asked[:3], rtol=0.01)
    assert np.isnan(p.exposure[3])


def test_linear_factors_draw_every_class_outside_the_head_as_often_as_the_rarest_of_it():
    lists = [[0]] * 64 + [[1]] * 8 + [[2]] * 2
    keys = {"recipe": "rfs", "sampler_variant": "linear", "epoch_length": "fixed", "bins": (3, 9)}
    p = make_plan(ClassStats.from_lists(lists, 3), config.resolve(keys))
    drawn = p.exposure * p.stats.image_counts
    np.testing.assert_allclose(drawn, drawn[0])
    assert p.fixed
    assert p.stats.num_images == pytest.approx(drawn.sum())


def test_baseline_changes_nothing():
    p = plan(recipe="baseline")
    assert not p.samples
    assert not p.reweighs
    assert (p.factors == 1).all()
    assert (p.weights == 1).all()


@pytest.mark.parametrize("sampler", ["irfs", "eirfs", "class_aware", "inverse"])
def test_every_sampler_reaches_the_plan(sampler):
    p = plan(sampler=sampler)
    assert p.samples
    assert p.factors[72] == p.factors.max() > 1.5
    assert p.exposure[2] > 1.5 > p.exposure[0]
    shown = {row[2]: row[5] for row in p.rows() if isinstance(row[2], str)}
    assert shown["tail"] > shown["head"]
    images = np.array([2 in row for row in STATS])
    assert p.class_factors[2] == pytest.approx(p.factors[images].max())


def test_auto_variant_is_bounded_for_eirfs_and_the_original_elsewhere():
    assert [plan(sampler=s).keys["sampler_variant"] for s in ("rfs", "irfs", "eirfs", "inverse")] == [
        *("sqrt", "geometric", "bounded", "")
    ]


def test_cap_rounding_and_alpha_act():
    assert plan(sampler="rfs", repeat_cap=2.0).factors.max() == 2
    assert set(plan(sampler="rfs", rounding="ceil").factors) == {1, 3, 6}
    assert plan(sampler="eirfs", eirfs_alpha=1.0).factors.max() < np.e < plan(sampler="eirfs").factors.max()
    assert plan(sampler="rfs", sampler_variant="linear").factors.max() == pytest.approx(0.9 / (2 / 80))


def test_an_epoch_that_would_explode_is_refused():
    with pytest.raises(UsageError, match=r"an epoch would have .* draws for 80 images; use epoch_length=fixed"):
        plan(epoch_length="grow", sampler="eirfs", sampler_variant="original", repeat_thr=0.9, eirfs_alpha=3.0)


@pytest.mark.parametrize("key", ["tail_paste", "tail_augment"])
def test_what_acts_on_the_tail_needs_one(key, tmp_path):
    (tmp_path / "bins.yaml").write_text("head: [0, 1, 2]\nmedium: []\ntail: []\n")
    with pytest.raises(LTError, match=f"{key} cannot act: no training image holds a tail class"):
        plan(bins=str(tmp_path / "bins.yaml"), **{key: True})


def test_tail_paste_is_a_share_and_true_is_a_default():
    assert [plan(recipe="baseline", tail_paste=v).paste_share for v in (False, True, 0.2, 1.0)] == [0, 0.3, 0.2, 1]
    assert not plan(recipe="baseline").changes_images
    for key in ("tail_paste", "tail_augment"):
        assert plan(recipe="baseline", **{key: True}).changes_images


def test_a_threshold_that_cannot_act_is_said():
    p = plan(recipe="rfs", repeat_thr=1e-6)
    assert any(note.startswith("WARNING: no image is repeated") and "0.025" in note for note in p.notes)


def test_the_threshold_that_would_act_is_in_the_samplers_own_frequency():
    """Class c is in 2 of 80 images and has 2 of 82 boxes."""
    (note,) = (n for n in plan(sampler="irfs", repeat_thr=1e-6).notes if "WARNING" in n)
    assert f"must exceed {(2 / 80 * 2 / 82) ** 0.5:.4g} to act" in note


def test_rows_have_a_column_each():
    from yolo_lt.balance.plan import CSV_HEADER

    assert {len(row) for row in plan(recipe="cb").rows()} == {len(CSV_HEADER)}
    assert [row[0] for row in plan().bin_rows()] == ["head", "medium", "tail"]


def test_exposure_counts_tiles_and_boxes(tmp_path):
    p = plan(recipe="rfs")
    counts = exposure.Exposure(p)
    counts.add([(0, 64, 64, 72), (79, 1, 2, 3)], np.array([0, 1, 1]))
    rows = {row[2]: row for row in counts.rows(1)}
    assert (rows["a"][5], rows["b"][5], rows["c"][5]) == (6, 2, 1)
    assert (rows["a"][6], rows["b"][6], rows["c"][6]) == (1, 2, 0)
    asked = STATS.images_with(p.factors) / p.factors.sum() * 8
    assert rows["c"][4] == pytest.approx(asked[2])


def test_exposure_file_survives_a_kill_in_the_middle_of_a_line(tmp_path):
    counts, path = exposure.Exposure(plan(recipe="rfs")), tmp_path / "exposure.csv"
    for epoch in (1, 2):
        exposure.append(path, counts.rows(epoch))
    with path.open("a") as f:
        f.write("3,0,a,hea")
    assert len(exposure.read(path)) == 8
    rewind_csv(path, epochs=1)
    assert {row["epoch"] for row in exposure.read(path)} == {"1"}
    assert path.read_text().splitlines()[0] == ",".join(exposure.HEADER)


@pytest.mark.parametrize("name", ["cb", "inverse"])
def test_weights_reach_the_plan_and_do_not_starve_the_head(name):
    p = plan(cls_loss=name)
    assert p.reweighs
    counts = STATS.instance_counts
    assert (p.weights * counts).sum() == pytest.approx(counts.sum()), "the positives keep their total weight"
    assert p.weights[0] < 1 < p.weights[2] <= 10
    assert p.weights[3] == 1
    assert plan(cls_loss=name, weight_cap=1.5).weights.max() == 1.5
    of_classes = plan(cls_loss=name, weight_norm="classes", weight_cap="none").weights
    assert of_classes[:3].sum() == pytest.approx(3)
    assert any("weights from" in note for note in p.notes)


def test_powers_and_betas_reach_the_plan():
    soft, hard = (plan(cls_loss="inverse", inverse_power=power).weights for power in (0.5, 1.0))
    assert hard[2] > soft[2] > 1
    assert np.ptp(plan(cls_loss="cb", cb_beta=0).weights) == 0
    assert any("weighs all classes alike" in note for note in plan(cls_loss="cb", cb_beta=0).notes)


def test_focal_losses_find_their_gain_and_others_have_none():
    keys = {name: plan(cls_loss=name).keys for name in ("bce", "cb", "eql", "eqlv2", "efl", "eqfl")}
    assert {k: v["focal_gamma"] for k, v in keys.items()} == {
        **dict.fromkeys(("bce", "cb", "eql", "eqlv2"), 0.0),
        **dict.fromkeys(("efl", "eqfl"), 2.0),
    }
    assert {k for k, v in keys.items() if v["loss_gain"] == "auto"} == {"efl", "eqfl"}
    assert plan(cls_loss="cb", focal_gamma=2.0).keys["loss_gain"] == "auto"
    assert plan(cls_loss="eqfl", loss_gain=3.0).keys["loss_gain"] == 3.0


def test_losses_that_cannot_act():
    one = ClassStats.from_lists([[0]] * 9, 1, ["a"])
    for name in ("cb", "inverse", "eql", "seesaw", "ecm", "loce", "logit_adjusted", "federated"):
        with pytest.raises(UsageError, match=f"cls_loss={name} cannot act on a single class"):
            make_plan(one, config.resolve({"cls_loss": name}))
    for name in ("eqlv2", "efl", "eqfl"):
        assert make_plan(one, config.resolve({"cls_loss": name})).reweighs
    assert any("no class is rare" in note for note in plan(cls_loss="eql", eql_lambda=1e-9).notes)
    assert not any("no class is rare" in note for note in plan(cls_loss="eql").notes)
    two = ClassStats.from_lists([[0]] * 9 + [[1]] * 4, 2, ["a", "b"])
    notes = make_plan(two, config.resolve({"cls_loss": "eql", "eql_lambda": 0.01})).notes
    assert any("eql_lambda=0.01 must exceed 0.3077 to act" in note for note in notes)


def test_the_federated_loss_says_when_it_leaves_no_class_out():
    assert any("every batch takes all 3 classes" in note for note in plan(cls_loss="federated").notes)
    assert not any("every batch" in note for note in plan(cls_loss="federated", federated_classes=2).notes)


@pytest.mark.parametrize("method", ["cb", "inverse"])
def test_box_weights_are_those_of_the_loss_of_that_name(method):
    boxes, loss = plan(recipe="baseline", box_weight=method), plan(recipe="baseline", cls_loss=method)
    np.testing.assert_array_equal(boxes.box_weights, loss.weights)
    assert boxes.reweighs
    assert not boxes.adapts_data
    assert loss.box_weights is None
    assert boxes.weights.tolist() == [1, 1, 1, 1]
    assert any(note.startswith("box weights from 0.") for note in boxes.notes)
    one = ClassStats.from_lists([[0]] * 9, 1, ["a"])
    with pytest.raises(UsageError, match=f"box_weight={method} cannot act on a single class"):
        make_plan(one, config.resolve({"box_weight": method}))


def test_box_weights_that_are_all_alike_are_said():
    even = ClassStats.from_lists([[0], [1]] * 4, 2, ["a", "b"])
    notes = make_plan(even, config.resolve({"box_weight": "cb"})).notes
    assert "WARNING: box_weight=cb weighs all classes alike" in notes


def index_of(*rows):
    lists = Lists.of([[0]])
    return FederatedIndex(STATS.names, tuple(f"{i}.jpg" for i in range(len(rows))), np.array(rows), lists, lists, lists)


def test_a_federated_index_acts_where_it_masks_something():
    p = make_plan(STATS, config.resolve({"recipe": "baseline"}), federated=index_of(0, EVERYTHING))
    assert p.federated is not None
    assert p.reweighs
    assert p.adapts_data
    assert not p.changes_images
    assert p.keys["unknown_negatives"] == "strict"
    all_known = FederatedIndex(STATS.names, ("0.jpg",), np.array([0]), *(Lists.of([c]) for c in (range(4), [], [])))
    for index in (index_of(EVERYTHING, EVERYTHING), all_known):
        whole = make_plan(STATS, config.resolve({"recipe": "baseline"}), federated=index)
        assert whole.federated is None
        assert not whole.reweighs
        assert any("nothing to mask" in note for note in whole.notes)


def test_unknown_negatives_without_federated_labels_are_refused():
    with pytest.raises(UsageError, match="unknown_negatives cannot act: neither federated="):
        plan(unknown_negatives=0.5)
    kept = make_plan(STATS, config.resolve({"unknown_negatives": 0.5}), federated=index_of(0))
    assert kept.keys["unknown_negatives"] == 0.5
