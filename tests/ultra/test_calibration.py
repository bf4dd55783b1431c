"""calibrate as a command: what it chooses on which images, what it writes, what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import LONG_TAIL, NAMES, random_network, write_checkpoint, write_yolo_set
from ultralytics.nn.tasks import load_checkpoint, torch_safe_load

from yolo_lt import YOLOLT, api
from yolo_lt.calibrate import CALIBRATORS
from yolo_lt.calibrate.thresholds import read_thresholds
from yolo_lt.errors import LTError, UsageError

pytestmark = pytest.mark.usefixtures("without_pages")

KEYS = {"imgsz": 64, "device": "cpu", "exist_ok": True, "bootstrap": 0}
COUNTS = [33, 12, 3]


def write_lt(run, held, names=NAMES, counts=COUNTS):
    """lt.yaml as a training leaves it."""
    ids = list(range(len(names)))
    bins = {"rule": "auto", "head": ids[:1], "medium": ids[1:2], "tail": ids[2:], "unseen": []}
    content = {
        "keys": {"holdout": 0.5},
        "bins": bins,
        "names": list(names),
        "image_counts": counts,
        "instance_counts": counts,
        "holdout": [f"images/train/{i:04d}.png" for i in held],
    }
    (run / "lt.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def run(toy, tmp_path):
    """A run folder with a checkpoint that finds boxes, and 30 of the 42 training images set apart."""
    return make_run(tmp_path / "run", toy)


def make_run(folder, data, cfg="yolov8n.yaml", classes=3, held=range(42), skip=12):
    (folder / "weights").mkdir(parents=True)
    weights = random_network(cfg, folder / "weights" / "best.pt", active=classes, size=64)
    ckpt = torch.load(weights, weights_only=False)
    net = ckpt["model"]
    last = [level[-1] for attr in ("cv3", "one2one_cv3") for level in getattr(net.model[-1], attr, None) or []]
    for conv in last:  # of the 80 classes of the network the first ones stay
        conv.weight.data, conv.bias.data = conv.weight.data[:classes], conv.bias.data[:classes]
        conv.out_channels = classes
    net.model[-1].nc, net.model[-1].no = classes, classes + net.model[-1].reg_max * 4
    net.names, net.yaml = dict(enumerate(NAMES[:classes])), {**net.yaml, "nc": classes}
    train_args = {"task": net.task, "imgsz": 64, "data": str(data)}
    torch.save({**ckpt, "model": net.half(), "epoch": -1, "train_args": train_args}, weights)
    write_lt(folder, list(held)[: len(list(held)) - skip])
    return weights


def calibrate(weights, data, folder, **keys):
    return api.calibrate(
        model=str(weights), **{**KEYS, "data": str(data), "project": str(folder), "name": "cal", **keys}
    )


def stored(path):
    return torch_safe_load(str(path), safe_only=True)[0]


def shifts(before, after):
    """What the bias of every class gained, by level."""
    found = []
    for p in (before, after):
        head = load_checkpoint(p)[0].model[-1]
        found.append(np.stack([level[-1].bias.detach().numpy() for level in head.cv3]))
    return found[1] - found[0]


@pytest.mark.parametrize("method", [m for m in CALIBRATORS if m != "none"])
def test_every_method_acts_at_a_given_strength_and_is_taken_back_exactly(run, toy, tmp_path, method):
    content = calibrate(run, toy, tmp_path, method=method, strength=1.0, max_drop=1.0, val=False)
    assert (content["written"], content["strength"], content["strength_by"]) == ("calibrated", 1.0, "given")
    target = tmp_path / "cal" / "weights" / "best.pt"
    assert content["weights"] == str(target)
    before, after = (load_checkpoint(p)[0].state_dict() for p in (run, target))
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed
    assert all(k.startswith("model.22.cv3.") and ".2." in k for k in changed)
    with pytest.raises(UsageError, match=f"calibrated already .method={method}"):
        calibrate(target, toy, tmp_path, name="twice")
    undone = calibrate(target, toy, tmp_path, method="none", name="undone")
    first, last = stored(run), stored(undone["weights"])
    assert set(first) == set(last)
    for a, b in zip(first["model"].state_dict().items(), last["model"].state_dict().items(), strict=True):
        assert a[0] == b[0]
        assert a[1].dtype == b[1].dtype
        assert torch.equal(a[1], b[1])


def test_norcal_shifts_by_the_training_images_and_leaves_the_commonest_class(run, toy, tmp_path):
    content = calibrate(run, toy, tmp_path, strength=0.5, max_drop=1.0)
    expected = 0.5 * np.log(33 / np.array(COUNTS)) + content["level"]
    assert shifts(run, content["weights"]) == pytest.approx(np.tile(expected, (3, 1)), abs=1e-5)
    rows = {c["name"]: c for c in content["classes"]}
    assert [rows[n]["shift"] for n in NAMES] == pytest.approx(expected)
    assert [rows[n]["bin"] for n in NAMES] == ["head", "medium", "tail"]


@pytest.mark.pages
def test_the_strength_is_that_of_the_best_point_of_the_curve_and_everything_is_written(run, toy, tmp_path):
    content = calibrate(run, toy, tmp_path, thresholds="f1", bootstrap=20)
    curve = content["holdout"]["curve"]
    assert [p["strength"] for p in curve] == [0.0, *CALIBRATORS["norcal"].grid]
    best = max(curve, key=lambda p: (p["f1"], -p["strength"]))
    assert content["strength"] == best["strength"]
    assert content["strength_by"] == "cross-validation"
    assert content["holdout"]["images"] == 30
    folder = tmp_path / "cal"
    assert json.loads((folder / "calibration.json").read_text())["strength"] == content["strength"]
    names = {p.name for p in folder.iterdir()}
    assert {"calibration.json", "class_calibration.csv", "calibration.png", "thresholds.yaml", "lt.yaml"} <= names
    assert not [p for p in folder.rglob("*") if ".tmp" in p.name]
    assert (folder / "class_calibration.csv").read_text().count("\n") == 4
    thresholds = read_thresholds(folder / "thresholds.yaml", NAMES, 0.25)
    assert [c["threshold_after"] for c in content["classes"]] == pytest.approx(thresholds.tolist(), abs=1e-4)
    val = content["val"]
    assert set(val["AP"]["before"]) == {"300", "100", "30"}
    assert set(val["AP_change"]["300"]) == {"all", "head", "medium", "tail"}
    assert val["operating_point"]["before"]["all"]["n_gt"] == val["operating_point"]["after"]["all"]["n_gt"] > 0
    report = YOLOLT(content["weights"]).val(data=str(toy), imgsz=64, device="cpu", project=str(tmp_path), bootstrap=0)
    assert report.metrics["all"]["AP"] == pytest.approx(val["AP"]["after"]["300"]["all"]["AP"])
    assert report.bins["tail"] == [2], "the bins travel with the checkpoint"


def test_val_predict_and_onnx_take_the_thresholds(run, toy, tmp_path):
    import onnx

    content = calibrate(run, toy, tmp_path, strength=0.5, max_drop=1.0, thresholds=0.5, val=False)
    file = content["thresholds"]["file"]
    thresholds = read_thresholds(file, NAMES, 0.25)
    keys = {"imgsz": 64, "device": "cpu", "project": str(tmp_path), "thresholds": file}
    report = YOLOLT(content["weights"]).val(data=str(toy), bootstrap=0, **keys)
    assert report.operating_point["conf"] is None
    assert list(report.operating_point["thresholds"].values()) == pytest.approx(thresholds.tolist())
    m = report.matches
    shown = (m.score >= thresholds[m.cls]) & ~m.ignore[:, 0]
    assert report.operating_point["all"]["n_det"] == shown.sum()
    image = str(toy.parent / "images" / "val" / "0000.png")
    (result,) = YOLOLT(content["weights"]).predict(image, **keys)
    assert all(c > thresholds[int(k)] for c, k in zip(result.boxes.conf, result.boxes.cls, strict=True))
    path = YOLOLT(content["weights"]).export(imgsz=64, thresholds=file, parity=image)
    meta = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(meta["lt_thresholds"]) == pytest.approx(thresholds.tolist())
    assert json.loads(meta["lt_calibration"]) == {"method": "norcal", "strength": 0.5}


def test_where_ap_falls_the_checkpoint_is_kept_and_said_so(run, toy, tmp_path, caplog, monkeypatch):
    from yolo_lt.ultra import strength

    worse = iter([*[0.5] * 6, 0.3])  # three budgets before, three under the map, and the map that is to be folded
    monkeypatch.setattr(strength, "mean_ap", lambda matches, fold=None: next(worse))
    content = calibrate(run, toy, tmp_path, strength=1.0, val=False)
    assert content["written"] == "original"
    assert "would fall from 0.500 to 0.300" in caplog.text
    assert (tmp_path / "cal" / "weights" / "best.pt").read_bytes() == run.read_bytes()
    assert all(c["shift"] == 0 for c in content["classes"])


def test_without_a_holdout_only_fixed_strengths_run_and_the_log_says_why(run, toy, tmp_path, caplog):
    write_lt(run.parent.parent, [])
    content = calibrate(run, toy, tmp_path, val=False)
    assert (content["strength"], content["strength_by"]) == (CALIBRATORS["norcal"].fixed, "fixed")
    assert content["holdout"] is None
    assert "there is no holdout, so gamma=" in caplog.text
    assert "train with holdout=0.1" in caplog.text
    for method in ("logn", "lws", "temperature", "tau_norm"):
        with pytest.raises(LTError, match=f"method={method} is fitted on images .* train with holdout"):
            calibrate(run, toy, tmp_path, method=method)
    with pytest.raises(LTError, match="thresholds=f1 is fitted on images"):
        calibrate(run, toy, tmp_path, thresholds="f1")
    assert calibrate(run, toy, tmp_path, method="tau_norm", strength=0.5, val=False)["written"] == "calibrated"
    (run.parent.parent / "lt.yaml").unlink()
    content = calibrate(run, toy, tmp_path, method="logit_adjustment", val=False)  # counts from the labels
    share = np.array(COUNTS) / sum(COUNTS)
    odds = np.log(share / (1 - share))
    assert shifts(run, content["weights"])[0] == pytest.approx(odds[0] - odds, abs=1e-4)


def test_only_the_held_out_images_are_looked_at_when_fitting(run, toy, tmp_path, monkeypatch):
    from yolo_lt.ultra.maps import MapDetectionValidator

    seen = []
    original = MapDetectionValidator.preprocess

    def spy(self, batch):
        seen.extend(batch["im_file"])
        return original(self, batch)

    monkeypatch.setattr(MapDetectionValidator, "preprocess", spy)
    calibrate(run, toy, tmp_path, method="lws", thresholds="f1", val=False)
    held = {str(toy.parent / "images" / "train" / f"{i:04d}.png") for i in range(30)}
    assert set(seen) == held


@pytest.mark.parametrize(("cfg", "kind"), [("yolo26n.yaml", "detect"), ("yolo11n-seg.yaml", "segment"),
                                           ("yolo26n-pose.yaml", "pose")])  # fmt: skip
@pytest.mark.slow
def test_both_branches_and_every_task_that_is_evaluated(sets, tmp_path, cfg, kind):
    data = sets(kind)
    folder = tmp_path / "run"
    (folder / "weights").mkdir(parents=True)
    weights = write_checkpoint(folder / "weights" / "best.pt", cfg, NAMES, data)
    write_lt(folder, range(30))
    content = calibrate(weights, data, tmp_path, strength=0.5, max_drop=1.0)
    nets = [load_checkpoint(p)[0].model[-1] for p in (weights, content["weights"])]
    for attr in ("cv3", "one2one_cv3"):
        if getattr(nets[0], attr, None) is not None:
            pairs = zip(*(getattr(n, attr) for n in nets), strict=True)
            gained = [(b[-1].bias - a[-1].bias).detach().numpy() for a, b in pairs]
            wanted = 0.5 * np.log(33 / np.array(COUNTS)) + content["level"]
            assert np.stack(gained) == pytest.approx(np.tile(wanted, (3, 1)), abs=1e-5)
    assert content["val"]["images"] == 8


@pytest.mark.slow
def test_oriented_boxes_take_fixed_strengths_only(sets, tmp_path, caplog):
    folder = tmp_path / "run"
    (folder / "weights").mkdir(parents=True)
    weights = write_checkpoint(folder / "weights" / "best.pt", "yolo26n-obb.yaml", NAMES, sets("obb"))
    write_lt(folder, range(30))
    content = calibrate(weights, sets("obb"), tmp_path)
    assert content["written"] == "calibrated"
    assert "task obb is not evaluated" in caplog.text
    with pytest.raises(UsageError, match="task obb is not evaluated"):
        calibrate(weights, sets("obb"), tmp_path, method="lws")


@pytest.mark.parametrize(
    ("keys", "error", "says"),
    [
        ({"split": "val"}, UsageError, "never on a split that is reported"),
        ({"epochs": 3}, UsageError, "epochs does not act in calibrate"),
        ({"max_det": 30}, UsageError, "max_det does not act in calibrate"),
        ({"method": "norcl"}, UsageError, "did you mean norcal"),
        ({"strength": -1}, UsageError, "expected auto | number > 0"),
        ({"method": "none", "strength": 0.5}, UsageError, "strength does not act with method=none"),
        ({"thresholds": "some/thresholds.yaml"}, UsageError, "calibrate chooses thresholds"),
        ({"thresholds": 1.5}, UsageError, "thresholds=1.5"),
        ({"name": "run"}, UsageError, "would be overwritten"),
    ],
)
def test_what_cannot_act_is_refused_before_anything_is_made(run, toy, tmp_path, keys, error, says):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error) as e:
        calibrate(run, toy, tmp_path, **keys)
    assert type(e.value) is error
    assert says in str(e.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_counts_holdouts_and_classes_are_plain_errors(run, toy, tmp_path):
    folder = run.parent.parent
    write_lt(folder, range(30), counts=[33, 12, 0])
    with pytest.raises(LTError, match="method=norcal goes by training images, and gamma have none"):
        calibrate(run, toy, tmp_path)
    write_lt(folder, range(5))
    with pytest.raises(LTError, match="has 5 images, fewer than 20"):
        calibrate(run, toy, tmp_path)
    other = write_yolo_set(tmp_path / "other", LONG_TAIL, ["beta", "alpha", "gamma"])
    with pytest.raises(LTError, match=r"class 0 is 'alpha' in .* and 'beta' in the data YAML"):
        calibrate(run, other, tmp_path)
    more = write_yolo_set(tmp_path / "more", LONG_TAIL, [*NAMES, "delta"])
    with pytest.raises(LTError, match=r"has 3 classes and the data YAML names 4"):
        calibrate(run, more, tmp_path)
    write_lt(folder, range(30))
    same = toy.parent / "same.yaml"
    same.write_text(toy.read_text().replace("val: images/val", "val: images/train"))
    try:
        with pytest.raises(LTError, match="30 images of the holdout are in the validation split"):
            calibrate(run, same, tmp_path)
    finally:
        same.unlink()
    write_lt(folder, [*range(30), 99])
    with pytest.raises(LTError, match=r"'images/train/0099.png' is not in the training split"):
        calibrate(run, toy, tmp_path)
    with pytest.raises(UsageError, match="calibrate needs a trained checkpoint"):
        calibrate("yolov8n.yaml", toy, tmp_path)


def test_a_single_class_cannot_be_calibrated(tmp_path):
    data = write_yolo_set(tmp_path / "one", [[0]] * 4, ["alpha"])
    weights = write_checkpoint(tmp_path / "one.pt", "yolov8n.yaml", ["alpha"], data)
    with pytest.raises(LTError, match="a single class"):
        calibrate(weights, data, tmp_path)


def test_an_unfinished_training_is_refused(run, toy, tmp_path):
    ckpt = torch.load(run, weights_only=False)
    torch.save({**ckpt, "epoch": 3, "optimizer": {"state": {}}}, run)
    with pytest.raises(LTError, match="of an unfinished training"):
        calibrate(run, toy, tmp_path)


def test_bins_can_be_given(run, toy, tmp_path):
    content = calibrate(run, toy, tmp_path, strength=0.5, max_drop=1.0, val=False, bins=(12, 20))
    assert [c["bin"] for c in content["classes"]] == ["head", "tail", "tail"]


def test_method_none_chooses_thresholds_and_changes_nothing(run, toy, tmp_path):
    content = calibrate(run, toy, tmp_path, method="none", thresholds="f1", val=False)
    assert (tmp_path / "cal" / "weights" / "best.pt").read_bytes() == run.read_bytes()
    assert content["written"] == "original"
    assert (tmp_path / "cal" / "thresholds.yaml").is_file()


def test_the_command_line_does_the_same(run, toy, tmp_path, cli):
    shutil.copytree(run.parent.parent, tmp_path / "copy")
    args = [f"{k}={v}" for k, v in {**KEYS, "data": toy, "project": tmp_path, "name": "cal"}.items()]
    done = cli("calibrate", f"model={run}", *args, "strength=0.3", "max_drop=1")
    assert done.returncode == 0, done.stderr
    assert "method=norcal, gamma=0.3 (given), 30 held-out images: folded into the checkpoint" in done.stdout
    assert (tmp_path / "cal" / "weights" / "best.pt").is_file()
