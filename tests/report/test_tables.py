import numpy as np
import pytest

from yolo_lt import config
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import BIN_NAMES, ClassStats
from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.compare import paired_difference
from yolo_lt.report.blocks import aligned
from yolo_lt.report.results import comparison_text, per_class, report_text
from yolo_lt.report.tables import acted_text, plan_text, stats_text


def plan(num_classes=12, **keys):
    lists = [[c] for c in range(num_classes) for _ in range(2 ** (num_classes - c) if num_classes < 20 else 1 + c % 7)]
    return make_plan(ClassStats.from_lists(lists, num_classes), config.resolve(keys))


def report(right=True, bins=True):
    gt = {
        "images": [{"id": i} for i in range(6)],
        "categories": [{"id": c, "name": f"c{c}"} for c in range(3)],
        "annotations": [{"image_id": i, "category_id": i % 2, "bbox": [0, 0, 9, 9]} for i in range(6)],
    }
    box = [0, 0, 9, 9] if right else [50, 50, 9, 9]
    dets = [{"image_id": i, "category_id": i % 2, "bbox": box, "score": 0.5} for i in range(6)]
    return evaluate(gt, dets, bins={"head": [0], "medium": [1], "tail": [2]} if bins else None, bootstrap=20)


def test_columns_are_aligned_and_nothing_is_a_dash():
    lines = aligned(("name", "n"), [("a", 1), ("longer", None), ("b", 0.5)]).splitlines()
    assert lines == ["name        n", "a           1", "longer      -", "b       0.500"]


def test_a_bin_without_ground_truth_shows_a_dash_and_never_0():
    by_bin, operating, *_ = report_text(report().to_json()).split("\n\n")
    lines = {line.split()[0]: line for line in by_bin.splitlines()}
    assert lines["head"].split()[1:3] == ["1/1", "3"]
    assert lines["head"].split()[3] == "1.000"
    assert lines["tail"].split()[1:] == ["0/1", "0", "-", "-", "-", "-"]
    tail = next(line.split() for line in operating.splitlines() if line.startswith("tail"))
    assert tail[2:5] == ["-", "-", "-"]


def test_without_bins_only_all_is_shown():
    text = report_text(report(bins=False).to_json())
    assert "all" in text
    assert not any(line.startswith(BIN_NAMES) for line in text.splitlines())


def test_per_class_rows_leave_what_is_unknown_empty():
    header, rows = per_class(report().to_json())
    assert len(rows) == 3
    assert dict(zip(header, rows[2], strict=True))["AP"] is None


def test_comparison_names_the_sides_and_says_what_the_interval_says():
    good, bad = report(), report(right=False)
    sets = [np.arange(3), np.array([0]), np.array([1]), np.array([2])]
    difference = paired_difference([good.matches], [bad.matches], sets)
    text = comparison_text([bad.to_json(), good.to_json()], ["stock", "balanced"], *difference)
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("AP50 ")}
    assert rows["head"].endswith("better")
    assert "+1.000 [+1.000, +1.000]" in rows["head"]
    assert "balanced - stock" in text
    assert "20 image resamples" in text


@pytest.mark.parametrize("recipe", ["baseline", "rfs", "cb", "eql"])
def test_a_plan_says_what_acts(recipe):
    text = plan_text(plan(recipe=recipe))
    assert f"recipe={recipe}:" in text
    said = {"baseline": "nothing is changed", "rfs": "sampler=rfs", "cb": "cls_loss=cb", "eql": "cls_loss=eql"}
    assert said[recipe] in text
    assert ("auto chose" in text) == (recipe in {"rfs", "eql"})


def test_a_thousand_classes_fit_a_terminal():
    text = stats_text(plan(1203))
    assert "1143 more in class_stats.csv" in text
    assert len(text.splitlines()) < 90


def test_nothing_acted_in_a_baseline(tmp_path):
    assert "nothing" in acted_text(tmp_path / "exposure.csv", {})
