"""Finished validations against each other, from their files; the bootstrap against one by brute force."""

import json

import numpy as np
import pytest
from coco_oracle import coco_arrays, dataset, results

from yolo_lt.errors import LTError
from yolo_lt.evaluate import evaluate, save_matches
from yolo_lt.evaluate.runs import against, compare_runs, read_run

BOX, AWAY = (10, 10, 20, 20), (200, 200, 20, 20)
BINS = {"head": [1, 2], "medium": [3], "tail": [4], "unseen": [5]}
METRICS = ("AP", "AP50", "AP75", "AR")
IMAGES = 12


def truth():
    """Classes 1 to 3 in every image, 4 in three of them, 5 in no bin and nowhere."""
    anns = [(i, c, BOX) for i in range(IMAGES) for c in (1, 2, 3, 4) if c < 4 or i % 4 == 0]
    gt = dataset(anns, range(IMAGES), (1, 2, 3, 4, 5))
    return {**gt, "images": [{"id": i, "neg_category_ids": [], "not_exhaustive_category_ids": []}
                             for i in range(IMAGES)]}  # fmt: skip


def found(seed, share=0.5):
    """A box of every class in every image, some in the right place, some somewhat off; no two scores are equal."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(4 * IMAGES) / (4 * IMAGES) + 0.01
    rows = []
    for n, (i, c) in enumerate((i, c) for i in range(IMAGES) for c in (1, 2, 3, 4)):
        near = (10 + int(rng.integers(0, 5)), 10, 20, 20)
        rows.append((i, c, near if rng.random() < share else AWAY, round(float(scores[n]), 6)))
    return results(*rows)


def write(folder, dets, gt=None, bins=BINS, **keys):
    """What `yolo-lt val` leaves, without the table for people."""
    report = evaluate(gt or truth(), dets, bins=bins, bootstrap=0, **keys)
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report.to_json()))
    save_matches(folder / "matches.npz", report.matches, report.gt_sha256)
    return read_run(folder)


def resampled(dets, replicates, seed=0):
    """AP50 of every bin when images are drawn, each drawn image being written down as often, (replicates, 4)."""
    gt, rng, rows = truth(), np.random.default_rng(seed), []
    for _ in range(replicates):
        drawn = np.sort(rng.integers(0, IMAGES, size=IMAGES))
        anns = [(n, a["category_id"], a["bbox"]) for n, i in enumerate(drawn) for a in gt["annotations"]
                if a["image_id"] == i]  # fmt: skip
        again = [{**d, "image_id": n} for n, i in enumerate(drawn) for d in dets if d["image_id"] == i]
        precision, _ = coco_arrays(dataset(anns, range(IMAGES), (1, 2, 3, 4, 5)), again, 100)
        ap50 = np.where(precision[0] < 0, np.nan, precision[0]).mean(axis=0)
        rows.append([np.nanmean(ap50), *(ap50[np.array(BINS[b]) - 1].mean() for b in ("head", "medium", "tail"))])
    return np.array(rows)


def interval(values):
    return [np.nanquantile(values, q, axis=0) for q in (0.025, 0.975)]


def test_one_pair_has_the_interval_of_a_bootstrap_by_brute_force(tmp_path):
    ours, baseline = found(1), found(2)
    runs = [[write(tmp_path / n, d)] for n, d in (("ours", ours), ("baseline", baseline))]
    content = compare_runs(*runs, replicates=60, seed=3)
    differences = resampled(ours, 60, 3) - resampled(baseline, 60, 3)
    assert np.isnan(differences[:, 3]).any(), "a replicate without a tail must be among them"
    shown = [content["difference"][b]["AP50"] for b in ("all", "head", "medium", "tail")]
    np.testing.assert_allclose([row[1:] for row in shown], np.transpose(interval(differences)), atol=1e-9)
    plain = [evaluate(truth(), d, bins=BINS, bootstrap=0).metrics for d in (ours, baseline)]
    for name, row in content["difference"].items():
        for m in METRICS:
            assert row[m][0] == pytest.approx(plain[0][name][m] - plain[1][name][m], abs=1e-12)


def test_of_several_pairs_images_and_pairs_are_drawn(tmp_path):
    sides = [[found(1), found(2, 0.9), found(3)], [found(4), found(5), found(6, 0.2)]]
    runs = [[write(tmp_path / f"{s}{k}", d) for k, d in enumerate(side)] for s, side in enumerate(sides)]
    content = compare_runs(*runs, replicates=40)
    pairs = np.stack([resampled(a, 40) - resampled(b, 40) for a, b in zip(*sides, strict=True)])
    drawn = np.random.default_rng((0, 1)).integers(0, 3, size=(40, 3))
    means = np.array([pairs[drawn[b], b].mean(axis=0) for b in range(40)])
    shown = np.array([content["difference"][b]["AP50"] for b in ("all", "head", "medium", "tail")])
    np.testing.assert_allclose(shown[:, 1:], np.transpose(interval(means)), atol=1e-9)
    ap50 = [[evaluate(truth(), d, bins=BINS, bootstrap=0).metrics["head"]["AP50"] for d in side] for side in sides]
    assert shown[1, 0] == pytest.approx(np.mean(ap50[0]) - np.mean(ap50[1]), abs=1e-12)
    assert (content["runs"], content["baseline"]) == (
        *([str(tmp_path / f"{s}{k}") for k in range(3)] for s in range(2)),
    )


def test_what_a_comparison_says(tmp_path):
    good = [{**d, "bbox": list(BOX if d["category_id"] == 1 else d["bbox"])} for d in found(1)]
    good = [{**d, "bbox": list(AWAY if d["category_id"] == 3 else d["bbox"])} for d in good]
    a, b = write(tmp_path / "a", found(1)), write(tmp_path / "b", good)
    content = compare_runs([b], [a], replicates=100)
    assert (content["protocol"], content["cap"]) == ("coco", "100 detections per image and class")
    assert (content["bins"], content["bootstrap"]) == ("given", {"replicates": 100, "seed": 0, "level": 0.95})
    said = {name: row["is"]["AP"] for name, row in content["difference"].items()}
    assert said == dict(zip(("all", "head", "medium", "tail"), [said["all"], "better", "worse", "no difference shown"],
                            strict=True))  # fmt: skip
    mirrored = compare_runs([a], [b], replicates=100)["difference"]["head"]
    assert mirrored["is"]["AP"] == "worse"
    assert mirrored["AP"][0] == -content["difference"]["head"]["AP"][0]
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_without_replicates_there_is_no_interval_and_no_verdict(tmp_path):
    runs = [write(tmp_path / n, found(s)) for n, s in (("a", 1), ("b", 2))]
    with_them, without = (compare_runs(runs[:1], runs[1:], replicates=n) for n in (20, 0))
    for name, row in without["difference"].items():
        assert row["is"] == dict.fromkeys(METRICS)
        assert [row[m] for m in METRICS] == [with_them["difference"][name][m][:1] for m in METRICS]


def test_a_bin_without_ground_truth_and_a_metric_that_the_protocol_has_not_say_nothing(tmp_path):
    bins = {"head": [1, 2, 3, 4], "tail": [5]}
    runs = [write(tmp_path / n, found(s), bins=bins, protocol="openimages") for n, s in (("a", 1), ("b", 2))]
    difference = compare_runs(runs[:1], runs[1:], replicates=20)["difference"]
    assert difference["tail"] == {**dict.fromkeys(METRICS), "is": dict.fromkeys(METRICS)}
    assert difference["head"]["AP75"] is None
    assert difference["head"]["AP"] == difference["head"]["AP50"]


def test_without_bins_only_all_is_compared(tmp_path):
    runs = [write(tmp_path / n, found(s), bins=None) for n, s in (("a", 1), ("b", 2))]
    content = compare_runs(runs[:1], runs[1:], replicates=5)
    assert content["bins"] is None
    assert [name for name, row in content["difference"].items() if row is None] == ["head", "medium", "tail"]


def test_pooled_runs_are_pooled(tmp_path):
    runs = [write(tmp_path / n, found(s), protocol="lvis_pool") for n, s in (("a", 1), ("b", 2))]
    assert [r.matches.protocol for r in runs] == ["lvis_pool"] * 2
    pooled, fixed = ([evaluate(truth(), found(s), p, BINS, bootstrap=0).metrics for s in (1, 2)]
                     for p in ("lvis_pool", "lvis_fixed"))  # fmt: skip
    difference = compare_runs(runs[:1], runs[1:], replicates=10)["difference"]
    for name in difference:
        expected, other = (m[0][name]["AP"] - m[1][name]["AP"] for m in (pooled, fixed))
        assert difference[name]["AP"][0] == pytest.approx(expected, abs=1e-12)
        assert (abs(expected - other) > 1e-6) == (len(BINS.get(name, [1, 2])) > 1), (
            "only sets of several classes differ"
        )


def test_the_baseline_of_a_report_goes_by_its_own_bins(tmp_path):
    a, b = write(tmp_path / "a", found(1)), write(tmp_path / "b", found(2), bins={"head": [4], "tail": [1, 2, 3]})
    said = against(a, replace_report(b, model="b.pt", weights_sha256="b1"), 20)
    assert {k: said[k] for k in ("name", "model", "weights_sha256", "replicates", "seed")} == {
        "name": str(tmp_path / "b"),
        "model": "b.pt",
        "weights_sha256": "b1",
        "replicates": 20,
        "seed": 0,
    }
    c = write(tmp_path / "c", found(2))
    assert said["difference"] == compare_runs([a], [c], 20)["difference"]


def replace_report(run, **values):
    return run._replace(report={**run.report, **values})


MOVED = {**truth(), "annotations": truth()["annotations"][1:]}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"gt": MOVED}, "differ in ground truth, so they cannot be paired"),
        ({"protocol": "lvis"}, "differ in protocol (coco and lvis), so they cannot be paired"),
        ({"max_det": 7}, "differ in max_det (100 and 7), so they cannot be paired"),
        ({"bins": {"head": [1], "medium": [2, 3], "tail": [4]}}, "differ in bins and cannot be paired"),
        ({"bins": None}, "differ in bins and cannot be paired"),
    ],
)
def test_runs_that_measure_something_else_are_refused_by_name(tmp_path, other, says):
    a, b, c = write(tmp_path / "a", found(1)), write(tmp_path / "b", found(2)), write(tmp_path / "c", found(3), **other)
    for sides in (([a], [c]), ([a, b], [b, c]), ([a, c], [b, b])):
        with pytest.raises(LTError) as e:
            compare_runs(*sides, 5)
        assert str(e.value).startswith(f"{a.name} and {c.name} {says}")
    if "bins" not in other:
        with pytest.raises(LTError, match="so they cannot be paired"):
            against(a, c, 5)


def test_bins_by_another_rule_with_the_same_classes_are_the_same(tmp_path):
    a, b = write(tmp_path / "a", found(1)), write(tmp_path / "b", found(2))
    other = replace_report(b, bins={**b.report["bins"], "rule": "tail <= 3"})
    assert compare_runs([a], [other], 0)["difference"] == compare_runs([a], [b], 0)["difference"]


DAMAGE = {
    "no folder": (lambda f: f.rename(f.with_name("b")), "a: no such folder; give the folder of a `yolo-lt val`"),
    "no matches": (lambda f: (f / "matches.npz").unlink(), "matches.npz: no such file"),
    "half of the matches": (lambda f: cut(f / "matches.npz"), "matches.npz: no matches file, or cut off"),
    "no report": (lambda f: (f / "report.json").unlink(), "report.json: no such file; run `yolo-lt val` again."),
    "half of the report": (lambda f: cut(f / "report.json"), "report.json cannot be read as a report"),
    "another report": (lambda f: (f / "report.json").write_text('{"bins": 3}'), "report.json cannot be read as"),
    "a list": (lambda f: (f / "report.json").write_text("[]"), "report.json cannot be read as a report"),
    "an empty report": (lambda f: (f / "report.json").write_text("{}"), "report.json cannot be read as a report"),
    "bytes": (lambda f: (f / "report.json").write_bytes(b"\xff\xfe\x00"), "report.json cannot be read as a report"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_files_are_named(tmp_path, what):
    damage, says = DAMAGE[what]
    write(tmp_path / "a", found(1))
    damage(tmp_path / "a")
    with pytest.raises(LTError) as e:
        read_run(tmp_path / "a")
    assert str(e.value).startswith(str(tmp_path))
    assert says in str(e.value)


def test_the_file_keeps_what_a_comparison_needs(tmp_path):
    report = evaluate(truth(), found(1), "openimages", BINS, 9, bootstrap=0)
    run = write(tmp_path / "a", found(1), protocol="openimages", max_det=9)
    assert (run.matches.protocol, run.matches.max_det, run.matches.recall_points) == ("openimages", 9, 0)
    assert run.gt_sha256 == report.gt_sha256 == run.report["gt_sha256"]
    assert run.matches.iou_thresholds.tolist() == [0.5]
