"""`yolo-lt compare A B` and `yolo-lt val baseline=`: two networks on the same images."""

import json
import re

import pytest
from test_epochs import trained

from yolo_lt import YOLOLT, api
from yolo_lt.cli import main
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate.runs import compare_runs, read_run

pytestmark = pytest.mark.usefixtures("without_pages")

BOX, AWAY = [10, 10, 20, 20], [200, 200, 20, 20]
LETTERS = {1: "f", 2: "c", 3: "r"}
RIGHT = {"a": (4, 4, 4), "b": (8, 4, 0), "a1": (5, 3, 4), "b1": (8, 5, 1)}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Four folders of val under `runs`, in each of which so many images of a class have a right detection."""
    monkeypatch.chdir(tmp_path)
    gt = {
        "images": [{"id": i} for i in range(8)],
        "categories": [{"id": c, "name": f"name{c}", "frequency": f} for c, f in LETTERS.items()],
        "annotations": [{"image_id": i, "category_id": c, "bbox": BOX} for i in range(8) for c in LETTERS],
    }
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    for name, right in RIGHT.items():
        write_dets(tmp_path / f"{name}.json", right)
        assert val(name) == 0
    return tmp_path


def write_dets(path, right):
    dets = [
        {"image_id": i, "category_id": c, "bbox": BOX if i < right[c - 1] else AWAY, "score": 1 - i / 20}
        for i in range(8)
        for c in LETTERS
    ]
    path.write_text(json.dumps(dets))


def val(name, *words, gt="gt.json"):
    words = ["bootstrap=0", "exist_ok=true", f"name={name}", f"gt={gt}", "project=runs", *words]
    return main(["val", f"detections={name}.json", *words])


def comparison(name="compare"):
    with open(f"out/{name}/comparison.json", encoding="utf-8") as f:
        return json.load(f)


def test_the_difference_is_the_second_minus_the_first(runs, caplog):
    assert main(["compare", "runs/a", "runs/b", "project=out"]) == 0
    content = comparison()
    assert (content["runs"], content["baseline"]) == (["runs/b"], ["runs/a"])
    rows = content["difference"]
    assert [rows[b]["AP"][0] for b in ("head", "medium", "tail")] == pytest.approx([50 / 101, 0, -51 / 101])
    assert [rows[b]["is"]["AP"] for b in ("head", "medium", "tail")] == ["better", "no difference shown", "worse"]
    assert content == {**compare_runs([read_run("runs/b")], [read_run("runs/a")], 1000), "others": []}
    text = caplog.text.replace("  ", " ")
    assert "runs/b - runs/a" in text
    assert "AP is" in text
    assert "protocol coco, 100 detections per image and class, bins: the data set's frequency field; 95 %" in text
    assert "report.html, report.md and comparison.json are in out/compare" in text


def test_every_further_side_is_compared_with_the_first(runs, caplog):
    assert main(["compare", "runs/a", "runs/b", "runs/b1", "project=out", "bootstrap=20"]) == 0
    content = comparison()
    (other,) = content.pop("others")
    assert content == compare_runs([read_run("runs/b")], [read_run("runs/a")], 20)
    assert other == compare_runs([read_run("runs/b1")], [read_run("runs/a")], 20)
    assert "runs/b - runs/a" in caplog.text
    assert "runs/b1 - runs/a" in caplog.text


@pytest.mark.pages
def test_the_page_of_a_comparison_shows_every_run_and_repeats_the_call(runs):
    words = ["compare", "runs/a", "runs/b", "runs/b1", "bootstrap=20", "project=out"]
    assert main(words) == 0
    page = (runs / "out" / "compare" / "report.html").read_text(encoding="utf-8")
    assert "<title>b and b1 against a</title>" in page
    assert f"<code>yolo-lt {' '.join(words)}</code>" in page
    assert page.count("<h3>b1</h3>") >= 3
    pictures = {p.name for p in (runs / "out" / "compare").glob("*.png")}
    assert {"difference_by_bin_1.png", "difference_by_bin_2.png", "errors_by_bin_3.png"} <= pictures
    text = (runs / "out" / "compare" / "report.md").read_text(encoding="utf-8")
    assert pictures == set(re.findall(r"\(<?([\w.]+png)>?\)", text))


def test_a_report_of_an_older_version_is_told_what_to_do(runs, capfd):
    path = runs / "runs" / "b" / "report.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "box_quality"}))
    assert main(["compare", "runs/a", "runs/b", "project=out"]) == 1
    says = capfd.readouterr().err
    assert "report.json cannot be read as a report ('box_quality'); run `yolo-lt val` again" in says
    assert not (runs / "out").exists()


def test_several_seeds_are_paired_in_their_order(runs, caplog):
    assert main(["compare", "runs/a,runs/a1", "runs/b,runs/b1", "project=out", "bootstrap=30", "seed=5"]) == 0
    ours, baseline = ([read_run(f"runs/{n}") for n in names] for names in (("b", "b1"), ("a", "a1")))
    assert comparison() == {**compare_runs(ours, baseline, 30, 5), "others": []}
    assert comparison()["bootstrap"] == {"replicates": 30, "seed": 5, "level": 0.95}
    assert comparison() != {**compare_runs(ours, baseline, 30, 0), "others": []}
    assert "runs/b, runs/b1 - runs/a, runs/a1 (2 pairs: images and pairs are resampled)" in caplog.text


@pytest.mark.parametrize("words", [["bootstrap=0"], ["--bootstrap", "0"], ["--bootstrap=0"]])
def test_without_intervals(runs, words, caplog):
    assert main(["compare", *words, "runs/a", "runs/b", "project=out", "name=mine"]) == 0
    head = comparison("mine")["difference"]["head"]
    assert len(head["AP"]) == 1
    assert head["is"]["AP"] is None
    assert "; no intervals" in caplog.text


def test_in_python_it_is_the_same_call(runs):
    said = api.compare("runs/a", "runs/b", bootstrap=10, project="out", name="x", exist_ok=True)
    assert json.loads(json.dumps(said)) == comparison("x")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "compare takes two or more sides: yolo-lt compare runs/a runs/b"),
        (["runs/a"], 2, "compare takes two or more sides"),
        (["runs/a,runs/a1", "runs/b,runs/b1", "runs/a1"], 2, "by seed: 2 on one side and 1 on the other"),
        (["runs/a,runs/a1", "runs/b"], 2, "compare pairs runs by seed: 2 on one side and 1 on the other"),
        ([",", ","], 2, "compare pairs runs by seed: 0 on one side and 0 on the other"),
        (["runs/a", "runs/b", "imgsz=64"], 2, "imgsz does not act in compare"),
        (["runs/a", "runs/b", "bins=1,2"], 2, "bins does not act in 'compare'"),
        (["runs/a", "runs/none"], 1, "runs/none: no such folder"),
        (["runs/a", "gt.json"], 1, "gt.json: no such folder"),
    ],
)
def test_what_is_no_comparison_is_refused(runs, words, code, says, capfd):
    assert main(["compare", *words, "project=out"]) == code
    assert says in capfd.readouterr().err
    assert not (runs / "out").exists()


OTHER = {
    "protocol": (["protocol=openimages"], "runs/b and runs/a differ in protocol (openimages and coco)"),
    "max_det": (["max_det=9"], "runs/b and runs/a differ in max_det (9 and 100)"),
    "bins": (["bins=bins.yaml"], "runs/b and runs/a differ in bins"),
    "ground truth": ([], "runs/b and runs/a differ in ground truth, so they cannot be paired"),
}


@pytest.mark.parametrize("what", OTHER)
def test_runs_of_another_measurement_are_refused_by_both_names(runs, what, capfd):
    (runs / "bins.yaml").write_text("head: [1, 2]\ntail: [3]\n")
    gt = json.loads((runs / "gt.json").read_text())
    for image in gt["images"]:
        image |= {"pos_category_ids": [], "neg_category_ids": []} if what == "protocol" else {}
    gt["annotations"] = gt["annotations"][1:] if what == "ground truth" else gt["annotations"]
    (runs / "gt2.json").write_text(json.dumps(gt))
    if what == "protocol":  # image-level labels are part of the ground truth
        assert val("a", gt="gt2.json") == 0
    assert val("b", *OTHER[what][0], gt="gt2.json" if what in ("protocol", "ground truth") else "gt.json") == 0
    capfd.readouterr()
    assert main(["compare", "runs/a", "runs/b", "project=out"]) == 1
    assert OTHER[what][1] in capfd.readouterr().err


@pytest.mark.parametrize("file", ["report.json", "matches.npz"])
def test_a_damaged_file_is_named_in_one_line(runs, file, capfd):
    path = runs / "runs" / "b" / file
    path.write_bytes(path.read_bytes()[:100])
    assert main(["compare", "runs/a", "runs/b"]) == 1
    error = capfd.readouterr().err
    assert f"runs/b/{file}" in error
    assert error.count("\n") == 1


# val baseline= -------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    data = {"imgsz": 64, "plots": False, "device": "cpu", "bootstrap": 30, "project": str(tmp_path)}
    return {**data, "data": str(trained()[1])}


@pytest.mark.slow
def test_a_checkpoint_as_baseline_is_validated_alike_and_written_too(checkpoint, tmp_path, keys, caplog):
    """Then the folder that it left says the same."""
    weights, other = trained()[0], checkpoint("yolov8n.yaml")
    report = YOLOLT(weights).val(**keys, baseline=str(other), name="ours", max_det=50, conf=0.01, bins=[6, 12])
    theirs = json.loads((tmp_path / "ours-baseline" / "report.json").read_text())
    ours = json.loads((tmp_path / "ours" / "report.json").read_text())
    for key in ("max_det", "conf", "imgsz", "bins", "gt_sha256", "data", "split"):
        assert theirs[key] == ours[key], key
    assert (theirs["model"], ours["model"], theirs["baseline"]) == (str(other), str(weights), None)
    assert ours["baseline"]["weights_sha256"] == theirs["weights_sha256"] != ours["weights_sha256"]
    for name, row in ours["baseline"]["difference"].items():
        assert row["AP"][0] == pytest.approx(ours["metrics"][name]["AP"] - theirs["metrics"][name]["AP"])
        assert row["AP"][1] <= row["AP"][0] <= row["AP"][2]
    assert ours["baseline"]["difference"]["tail"]["is"]["AP"] == "better"
    assert f"this - {other}, 95 % intervals of paired image resamples" in caplog.text
    folder = str(tmp_path / "ours-baseline")
    again = YOLOLT(weights).val(**keys, baseline=folder, name="again", max_det=50, conf=0.01, bins=[6, 12])
    assert again.baseline == {**report.baseline, "name": folder}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "ours", "ours-baseline"]


@pytest.mark.slow
def test_a_baseline_that_cannot_be_paired_or_is_not_there_is_refused(checkpoint, tmp_path, keys):
    weights = trained()[0]
    YOLOLT(weights).val(**keys, name="seven", max_det=7)
    with pytest.raises(LTError, match=r"differ in max_det \(100 and 7\)"):
        YOLOLT(weights).val(**keys, baseline=str(tmp_path / "seven"))
    with pytest.raises(LTError, match=r"baseline=.*none\.pt: no such file, and no folder of an earlier val eit"):
        YOLOLT(weights).val(**keys, baseline=str(tmp_path / "none.pt"))
    with pytest.raises(LTError, match="has 4 classes and"):
        YOLOLT(weights).val(**keys, baseline=str(checkpoint("yolov8n.yaml", 4)))
    with pytest.raises(UsageError, match="baseline=3"):
        YOLOLT(weights).val(**keys, baseline=3)
