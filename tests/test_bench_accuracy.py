"""The accuracy matrix: which runs there are, how they are scheduled, and what their records are made into."""

import json
import re
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import LONG_TAIL, NAMES, write_yolo_set

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import accuracy_choice as choice  # noqa: E402
import accuracy_limits as limits  # noqa: E402
import accuracy_pictures as pictures  # noqa: E402
import accuracy_records as records  # noqa: E402
import accuracy_run  # noqa: E402
import accuracy_tables as tables  # noqa: E402
import bench_accuracy as bench  # noqa: E402
from accuracy_run import METRICS, acted, replicates, text_of, without_data  # noqa: E402

from yolo_lt import config  # noqa: E402
from yolo_lt.evaluate import evaluate  # noqa: E402
from yolo_lt.evaluate.bootstrap import replicate_means  # noqa: E402
from yolo_lt.evaluate.compare import paired_difference  # noqa: E402

MATRIX = yaml.safe_load((SCRIPTS / "accuracy.yaml").read_text())
FOUND = records.read(SCRIPTS / "results")
README = (SCRIPTS.parent / "README.md").read_text(encoding="utf-8")


# The matrix -----------------------------------------------------------------------------------------------------------
def test_every_run_names_rows_and_sets_that_exist():
    for name, row, _ in bench.runs_of(MATRIX, None, None, None):
        assert name in MATRIX["sets"]
        assert row in MATRIX["rows"]


@pytest.mark.parametrize("row", MATRIX["rows"])
def test_a_row_has_one_verb_and_as_many_epochs_as_stock(row, tmp_path):
    assert sum(v in MATRIX["rows"][row] for v in bench.VERBS) == 1
    if MATRIX["rows"][row].get("part"):
        return  # of other rows
    for name, on in MATRIX["sets"].items():
        steps = bench.steps_of(MATRIX, name, row, tmp_path)
        assert sum(s["keys"].get("epochs", 0) for s in steps) == on["epochs"], name


def test_finetune_head_has_its_own_schedule(tmp_path):
    for row, spec in MATRIX["rows"].items():
        if "finetune" in spec:
            keys = bench.steps_of(MATRIX, "food61", row, tmp_path)[-1]["keys"]
            assert not set(MATRIX["protocol"]["training"]) & set(keys)


def test_one_run_is_chosen_by_set_row_and_seed():
    name, row, seed = next(iter(bench.runs_of(MATRIX, None, None, None)))
    assert list(bench.runs_of(MATRIX, [name], [row], [str(seed)])) == [(name, row, seed)]
    assert not list(bench.runs_of(MATRIX, [name], ["no such row"], None))


# Scheduling -----------------------------------------------------------------------------------------------------------
def job(out, row, *steps):
    made = [{"folder": s, "verb": "train", "seed": 0, "keys": {"epochs": 3}} for s in steps]
    return {"about": {"set": "s", "row": row, "seed": 0}, "steps": made, "out": str(out)}


def test_runs_that_share_a_step_wait_for_each_other_and_others_do_not(tmp_path, monkeypatch):
    """The second of two rows on one stage one must find it done, not train it as well."""
    log = []

    class Process:
        returncode = 0

        def __init__(self, job):
            self.job, self.ends = job, time.monotonic() + 0.05
            log.append(("start", job["about"]["row"]))

        def poll(self):
            if time.monotonic() < self.ends:
                return None
            for step in self.job["steps"]:
                (tmp_path / step["folder"]).mkdir(exist_ok=True)
                (tmp_path / step["folder"] / "step.json").write_text(json.dumps(step))
            return 0

    monkeypatch.setattr(bench, "start", lambda job, out: Process(job))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    jobs = [job(tmp_path, "a", "one", "a"), job(tmp_path, "b", "one", "b"), job(tmp_path, "c", "c")]
    ended = []
    for finished, code in bench.done(jobs, tmp_path, 2):
        ended.append(finished["about"]["row"])
        log.append(("end", ended[-1]))
        assert code == 0
    assert sorted(ended) == ["a", "b", "c"]
    assert log[:2] == [("start", "a"), ("start", "c")]
    assert log.index(("start", "b")) > log.index(("end", "a"))


def test_a_step_counts_as_done_only_with_its_keys_and_behind_what_is_done(tmp_path, monkeypatch):
    """A folder may be left from another matrix in which a row of the same name had other keys."""
    did = []
    monkeypatch.setattr(accuracy_run, "once", lambda step, *_: did.append(step["folder"]) or step)
    monkeypatch.setattr(accuracy_run, "YOLOLT", lambda weights: SimpleNamespace(val=lambda **_: 1 / 0))

    def done(*steps):
        did.clear()
        with pytest.raises(ZeroDivisionError):  # validation comes after the steps
            accuracy_run.run([{**s, "weights": "start.pt"} for s in steps], tmp_path)
        return list(did)

    keys = {"data": "here.yaml", "imgsz": 64, "epochs": 2}
    first, second = ({"folder": f, "verb": "train", "seed": 0, "keys": keys} for f in ("one", "two"))
    for step in (first, second):
        (tmp_path / step["folder"]).mkdir()
        kept = {**step, "keys": without_data(keys)}
        (tmp_path / step["folder"] / "step.json").write_text(json.dumps(kept))
    assert done(first, second) == []
    assert done({**first, "keys": {**keys, "data": "there.yaml"}}, second) == []
    assert done(first, {**second, "seed": 1}) == ["two"]
    assert done({**first, "keys": {**keys, "epochs": 3}}, second) == ["one", "two"]
    assert done({**first, "verb": "stock"}, second) == ["one", "two"]


def test_a_run_with_a_record_is_not_done_again(tmp_path, monkeypatch):
    runs = list(bench.runs_of(MATRIX, None, None, None))[:3]
    jobs = [bench.job_of(MATRIX, *run, tmp_path, tmp_path, tmp_path) for run in runs]
    for one in jobs[:-1]:
        Path(one["result"]).parent.mkdir(parents=True, exist_ok=True)
        Path(one["result"]).write_text("{}")
    asked = []
    monkeypatch.setattr(bench, "prepare", lambda *a: None)
    monkeypatch.setattr(bench, "done", lambda todo, out, limit: asked.extend(todo) or iter(()))
    monkeypatch.setattr(bench, "runs_of", lambda matrix, **wanted: runs)
    bench.work(MATRIX, {"out": str(tmp_path), "root": str(tmp_path)}, tmp_path)
    assert asked == jobs[-1:]


# Records and tables ---------------------------------------------------------------------------------------------------
def record(seed, quality, images=40):
    """A record of a made-up validation: three classes, one per bin, with a box each per image."""
    rng = np.random.default_rng((seed, int(quality * 100)))
    box, far = [10, 10, 50, 50], [200, 200, 5, 5]
    gt = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": c} for c in range(3)],
        "annotations": [{"image_id": i, "category_id": c, "bbox": box} for i in range(images) for c in range(3)],
    }
    dets = [
        {"image_id": i, "category_id": c, "bbox": box if rng.random() < quality else far, "score": rng.random()}
        for i in range(images)
        for c in range(3)
    ]
    report = evaluate(gt, dets, bootstrap=0)
    bins = {"head": [0], "medium": [1], "tail": [2]}
    made = {"replicates": replicates(report.matches, bins), "metrics": metrics(report.matches)}
    about = {"gt_sha256": report.gt_sha256, "iterations": 7, "start_sha256": "0", "cpu_seconds": 10 * (seed + 1.0)}
    return {**about, **made, "seed": seed, "bins": bins}, report.matches


SETS = [np.arange(3), np.array([0]), np.array([1]), np.array([2])]


def metrics(matches):
    whole = replicate_means(matches, SETS, [np.ones(len(matches.image_ids), np.int32)])[0]
    return {n: dict(zip(METRICS, row.tolist(), strict=True)) for n, row in zip(tables.BINS, whole, strict=True)}


@pytest.fixture(scope="module")
def sides():
    ours = {seed: record(seed, 0.8) for seed in (0, 1, 2)}
    base = {seed: record(seed, 0.4) for seed in (0, 1, 2)}
    return [{s: r for s, (r, _) in side.items()} for side in (ours, base)] + [
        [m for _, m in side.values()] for side in (ours, base)
    ]


def test_differences_and_intervals_are_those_of_compare(sides):
    ours, base, our_matches, base_matches = sides
    wanted, (low, high) = paired_difference(our_matches, base_matches, SETS)
    for i, name in enumerate(tables.BINS):
        for metric in ("AP", "AP50"):
            found = records.difference(ours, base, name, metric)
            j = METRICS.index(metric)
            np.testing.assert_allclose(found, (wanted[i, j], low[i, j], high[i, j]), atol=1.1e-4)


def test_a_ratio_is_of_means_and_its_interval_holds_it(sides):
    ours, base = sides[:2]
    found = records.ratio(ours, base, "tail", "AP50")
    means = [np.mean([r["metrics"]["tail"]["AP50"] for r in side.values()]) for side in (ours, base)]
    assert found.mean == pytest.approx(means[0] / means[1])
    assert 1 < found.low < found.mean < found.high
    same = records.ratio(base, base, "tail", "AP50")
    assert same == (1, 1, 1)


def test_records_of_other_images_or_iterations_are_not_paired(sides):
    ours, base = sides[:2]
    for key, value in (("gt_sha256", "other"), ("iterations", 8), ("start_sha256", "1")):
        with pytest.raises(ValueError, match="cannot be paired"):
            records.difference({0: {**ours[0], key: value}}, base, "all", "AP")
    with pytest.raises(ValueError, match="cannot be paired"):
        records.difference({5: ours[0]}, base, "all", "AP")


def test_exposure_is_added_up_by_bin_where_it_was_counted(tmp_path):
    assert acted(tmp_path) == {}, "a loss alone changes no draws"
    rows = ["0,0,a,head,2.5,2,4", "0,1,b,tail,1,3,3", "1,0,a,head,2.5,3,5", "1,1,b,tail,1,1,1"]
    (tmp_path / "exposure.csv").write_text("\n".join(["epoch,class_id,name,bin,asked,tiles,boxes", *rows]))
    found = acted(tmp_path)["exposure"]
    assert found["head"] == {"asked": 5, "tiles": 5, "boxes": 9}
    assert found["tail"] == {"asked": 2, "tiles": 4, "boxes": 4}
    assert found["medium"] == {"asked": 0, "tiles": 0, "boxes": 0}


def test_a_record_is_read_as_it_was_written():
    made = record(0, 0.5)[0] | {"per_class": [{"id": 0, "name": "a"}, {"id": 1, "name": "ü"}]}
    assert json.loads(text_of(made)) == made
    made["replicates"]["tail"]["AP"][3] = None
    assert json.loads(text_of(made)) == made
    assert len(text_of(made).splitlines()) < 30


@pytest.mark.parametrize(
    ("ours", "base", "seeds", "said"),
    [
        (0.8, 0.4, 3, "met"),
        (0.5, 0.5, 3, "misses ratio"),
        (0.2, 0.6, 3, "misses ratio, head, AP"),
        (0.8, 0.4, 1, "not judged"),
    ],
)
def test_the_goal_is_judged_from_three_seeds_on(ours, base, seeds, said):
    sides = [{s: record(s, q)[0] for s in range(seeds)} for q in (ours, base)]
    assert tables.compared(*sides)[-1] == said


def test_a_picture_that_the_tables_no_longer_show_goes(tmp_path):
    for name in ("old-against-stock.png", "kept.png"):
        (tmp_path / name).write_bytes(b"")
    tables.write(tmp_path, MATRIX)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["RESULTS.md", "kept.png"]


RULE = {"sets": ["one", "two"], "seeds": [0, 1], "drop": 0.02}


def side(**bins):
    """Both seeds of a row: AP50 by bin, one class each, and a class without an object."""
    classes = [{"bin": b, "AP50": v} for b, v in bins.items()] + [{"bin": "tail", "AP50": None}]
    return {seed: {"per_class": classes} for seed in (0, 1)}


def test_the_rule_takes_the_row_that_helps_rare_classes_most_of_those_that_spare_the_head():
    stock, costly = side(head=0.6, medium=0.4, tail=0.2), side(head=0.5, medium=0.8, tail=0.7)
    fair, lazy = side(head=0.59, medium=0.4, tail=0.4), side(head=0.6, medium=0.4, tail=0.3)
    rows = {"stock": stock, "stock-better": fair, "lazy": lazy, "costly": costly, "fair": fair}
    found = {"one": {**rows, "once": {0: fair[0]}}, "two": {**rows, "once": fair}}
    ranked = choice.candidates(found, RULE)
    assert [c.row for c in ranked] == ["costly", "fair", "lazy"], "a row without all seeds has no place"
    assert ranked[1].rare == pytest.approx(4 / 3)
    assert (ranked[1].head, ranked[1].all) == pytest.approx((-0.01, 0.19 / 3))
    assert choice.chosen(ranked, 0.02) == "fair"
    assert choice.chosen(ranked, 0.2) == "costly"
    assert choice.chosen(ranked[:1], 0.02) is None
    assert choice.candidates({"one": rows, "two": {"fair": fair}}, RULE) == []
    (other,) = [c for c in choice.screened(found, RULE["sets"], [0], {"lazy": "fair"}) if c.row == "lazy"]
    assert (other.base, other.head) == ("fair", pytest.approx(0.01))
    assert choice.apart({"one": {"stock": {0: fair[0], 1: lazy[1]}}}, RULE) == pytest.approx(0.09 / 3)


def test_what_limits_a_row_is_shown_by_kind_of_error_and_by_training_images():
    shares = {"tail": {"AP50": 0.3, "loss": dict(zip(limits.KINDS, np.arange(6) / 10, strict=True))}}
    counts = {1: 0.1, 3: 0.2, 4: 0.4, 127: 0.5, 500: 0.9, 0: 0.7}
    classes = [{"train_images": n, "AP50": v} for n, v in counts.items()] + [{"train_images": 5, "AP50": None}]
    rows = {"rfs": {0: {"errors": {"shares": shares}, "per_class": classes}}}
    assert limits.error_rows(rows, ["tail"]) == [["rfs", "tail", "0.300", *(f"{i / 10:.3f}" for i in range(6))]]
    head, lines = limits.image_rows(rows)
    assert head == ["1-3 (2)", "4-7 (1)", "64-127 (1)", "128+ (1)", "rank correlation"]
    assert lines == [["rfs", "0.150", "0.400", "0.500", "0.900", "+1.00"]]


def test_the_frontier_shows_the_rows_that_have_stocks_seeds_on_val(sides, tmp_path):
    better, stock = sides[:2]
    rows = {"stock": stock, "rfs": better, "cb": {0: better[0]}}
    found, matrix = {"a": rows, "a-choice": rows}, {"sets": {"a": {}, "a-choice": {"split": 0.2}}}
    drawn = tables.frontier(found, matrix)
    assert {name: list(points) for name, points in drawn.items()} == {"a": ["rfs"]}
    head, tail = drawn["a"]["rfs"]
    assert head.mean > 0.2
    assert tail.low > 1.5
    (text,) = tables.frontier_text(drawn)
    assert f"rfs head {head.mean:+.3f}, tail times {tail.mean:.2f}" in text
    pictures.draw_frontier(tmp_path / "a.png", drawn, tables.GOAL)
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert tables.frontier_text({}) == []


# What is committed ----------------------------------------------------------------------------------------------------
def test_the_recommended_recipe_is_what_the_rule_takes():
    rule = MATRIX["choice"]
    best = choice.chosen(choice.candidates(FOUND, rule), rule["drop"])
    wanted = config.resolve({**MATRIX["rows"][best]["train"], "epoch_length": "fixed"})
    assert config.resolve({"recipe": "recommended"}) == {**wanted, "recipe": "recommended"}
    assert config.resolve({}) == config.resolve({"recipe": "recommended"})


@pytest.mark.parametrize("name", [n for n in config.keys()["recipe"].choices if n != "baseline"])
def test_every_recipe_says_what_it_did(name):
    rule = MATRIX["choice"]
    rows = {c.row: c for c in choice.screened(FOUND, rule["sets"], rule["seeds"][:1], {})}
    rows["recommended"] = next(c for c in choice.candidates(FOUND, rule) if c.allowed(rule["drop"]))
    text = (SCRIPTS.parent / "cfg" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line.strip("# ") for line in text.splitlines() if line.startswith("#"))
    found = rows[name]
    said = f"medium and tail AP50 {found.rare:.2f} times stock's, head {found.head:+.3f}, all {found.all:+.3f}"
    assert said in comment
    table = README.partition("### Recipes")[2].partition("### Keys")[0]
    (row,) = re.findall(rf"^\| `{name}`.* \| (.*) \| (.*) \| (.*) \|$", table, re.MULTILINE)
    assert row == (f"{found.rare:.2f}", f"{found.head:+.3f}", f"{found.all:+.3f}")


def test_what_the_readme_says_of_mosaic_is_in_the_screen():
    rule = MATRIX["choice"]
    rows = {c.row: c for c in choice.screened(FOUND, rule["sets"], rule["seeds"][:1], choice.bases(MATRIX))}
    ours, uniform = rows["rfs-mosaic"], rows["rfs-mosaic-uniform"]
    paragraph = README.partition("**Balanced mosaic")[2].partition("\n- ")[0]
    assert re.findall(r"[+-]?\d\.\d+", paragraph) == [f"{ours.rare:.2f}", f"{ours.head:+.3f}", f"{uniform.rare:.2f}"]


def test_what_the_readme_says_of_the_seed_is_in_the_records():
    tails = [r["metrics"]["tail"]["AP50"] for r in FOUND["fod31lt"]["stock"].values()]
    assert f"moves stock's tail AP50 there between {min(tails):.3f} and {max(tails):.3f}" in " ".join(README.split())


def test_the_tables_of_the_guide_are_lines_of_the_results():
    lines = (SCRIPTS.parent / "docs" / "when-to-use-what.md").read_text(encoding="utf-8").splitlines()
    rows = {line for line in lines if line.startswith("|")}
    assert len(rows) > 20
    assert rows <= set((SCRIPTS / "results" / "RESULTS.md").read_text(encoding="utf-8").splitlines())


def test_every_record_is_of_the_matrix_and_has_its_keys(tmp_path):
    for name, row, found in tables.each(FOUND):
        wanted = bench.steps_of(MATRIX, name, row, tmp_path)
        assert [s["keys"] for s in found["steps"]] == [without_data(s["keys"]) for s in wanted], (name, row)


def test_the_tables_are_made_of_the_records():
    made = tables.text(tables.known(SCRIPTS / "results", MATRIX), MATRIX)
    assert (SCRIPTS / "results" / "RESULTS.md").read_text() == made


def test_the_rows_in_the_readme_are_those_of_the_records():
    lines = re.findall(r"^\| (?:fod31lt|food61)[\w-]*, .*$", README, re.MULTILINE)
    shown = [line.strip("| ").split(" | ") for line in lines]
    assert shown
    for (name, row), *cells in ((cells[0].split(", "), *cells[1:]) for cells in shown):
        row, _, base = row.partition(" against ")
        ours = FOUND[name][row]
        by_bin = [tables.shown(records.value(list(ours.values()), b, "AP50")) for b in tables.BINS]
        assert cells == (tables.compared(ours, FOUND[name][base])[:4] if base else by_bin), (name, row)
    assert any(" against " in cells[0] for cells in shown)


# A matrix of its own, from the data to the tables --------------------------------------------------------------------
TINY = """
protocol:
  model: weights/start.pt
  imgsz: 64
  keys: {batch: 8, workers: 0, val: false, plots: false}
  training: {optimizer: AdamW, lr0: 0.001}
sets:
  toy: {data: data/toy, epochs: 2}
rows:
  stock: {stock: {}}
  rfs: {train: {recipe: rfs}}
  stage-one: {train: {recipe: rfs}, share: 0.5}
  decoupled: {of: stage-one, finetune: {strategy: tail}, share: 0.5}
  norcal: {of: stock, calibrate: {method: norcal}}
runs:
  - {sets: [toy], rows: [stock, decoupled, norcal], seeds: [0]}
"""


@pytest.mark.slow
def test_a_matrix_runs_and_a_run_repeats_to_the_last_digit(tmp_path, checkpoint, monkeypatch, capsys):
    write_yolo_set(tmp_path / "data" / "toy", LONG_TAIL, NAMES, val=len(LONG_TAIL))
    (tmp_path / "weights").mkdir()
    shutil.copy(checkpoint("yolov8n.yaml"), tmp_path / "weights" / "start.pt")
    (tmp_path / "matrix.yaml").write_text(TINY)
    words = [f"{k}={tmp_path / v}" for k, v in {"matrix": "matrix.yaml", "results": "results", "out": "out"}.items()]

    def call(*more):
        monkeypatch.setattr(sys, "argv", ["bench_accuracy.py", f"root={tmp_path}", *words, *more])
        bench.main()
        return capsys.readouterr().out

    assert "failed" not in call()
    found = {row: runs[0] for row, runs in records.read(tmp_path / "results")["toy"].items()}
    assert {row: r["iterations"] for row, r in found.items()} == {"stock": 12, "decoupled": 12, "norcal": 12}
    assert [s["iterations"] for s in found["decoupled"]["steps"]] == [6, 6]
    assert len({r["weights_sha256"] for r in found.values()}) == 3
    assert "augmentations" not in found["stock"]["steps"][0]["command"]
    assert "| decoupled | 1 |" in (tmp_path / "results" / "RESULTS.md").read_text()
    assert "0 runs to do" in call()
    assert "equal to the last digit" in call("rows=stock", "again=true")
