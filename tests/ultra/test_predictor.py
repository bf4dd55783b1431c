"""`yolo-lt predict`: thresholds per class against stock predict, for every task and kind of head."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.nn.tasks import yaml_model_load

from yolo_lt import YOLOLT, api
from yolo_lt.cli import main
from yolo_lt.errors import LTError, UsageError
from yolo_lt.ultra.predictor import LTDetectionPredictor, drop_below

NAMES = ["alpha", "beta <b>&\"'</b>", "gamma: yes", "delta"]
C = len(NAMES)
LATER = pytest.mark.slow  # the same code as its neighbours': not in the fast set
HEADS = [
    ("yolov8n.yaml", None),
    pytest.param("yolo11n.yaml", None, marks=LATER),
    pytest.param("yolov10n.yaml", False, marks=LATER),
    pytest.param("yolo26n.yaml", None, marks=LATER),
    ("yolo26n.yaml", False),
    ("yolov8n-seg.yaml", None),
    pytest.param("yolo26n-seg.yaml", False, marks=LATER),
    pytest.param("yolo11n-pose.yaml", None, marks=LATER),
    pytest.param("yolo26n-pose.yaml", False, marks=LATER),
    ("yolov8n-obb.yaml", None),
    pytest.param("yolo26n-obb.yaml", False, marks=LATER),
]
KEYS = {"imgsz": 64, "verbose": False, "device": "cpu"}


def lively(name, folder):
    """An untrained checkpoint whose classes all occur: normalised features, and a classifier that varies on them."""
    path = folder / name
    content = yaml_model_load(name)
    path.write_text(yaml.safe_dump({**content, "nc": C, "yaml_file": None}))
    torch.manual_seed(0)
    net = YOLO(str(path)).model
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.rand(8, 3, 96, 96))
        for branch in ("cv3", "one2one_cv3"):
            for level in getattr(net.model[-1], branch, None) or []:
                level[-1].weight.copy_(torch.randn(level[-1].weight.shape) * 0.15)
                level[-1].bias.copy_(torch.linspace(-1.5, -1.0, C))
    net.names = dict(enumerate(NAMES))
    torch.save({"model": net.eval(), "epoch": -1, "optimizer": None}, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Checkpoints by model YAML, each made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = lively(name, tmp_path_factory.mktemp("weights"))
        return made[name]

    return get


@pytest.fixture(scope="module")
def pair(weights):
    """Ours and stock on the same checkpoint and head, each set up once."""
    made = {}

    def get(name, nms):
        if (name, nms) not in made:
            made[name, nms] = YOLOLT(weights(name)), YOLO(weights(name))
        return made[name, nms]

    return get


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of three images of different sizes."""
    folder = tmp_path_factory.mktemp("images")
    for i, shape in enumerate([(80, 64, 3), (64, 64, 3), (64, 100, 3)]):
        noise = np.random.default_rng(i).integers(0, 255, shape, dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), noise)
    return folder


@pytest.fixture
def thresholds(tmp_path):
    """Write thresholds.yaml: thresholds(alpha=0.1) or thresholds([0.1, 0.2, 0.3, 0.4])."""

    def write(values=None, **by_name):
        path = tmp_path / "thresholds.yaml"
        given = by_name if values is None else dict(zip(NAMES, map(float, values), strict=True))
        path.write_text(yaml.safe_dump(given))
        return path

    return write


def rows(result):
    """Everything that a result holds per box, as one array: box, confidence, class, mask, keypoints."""
    parts = [(result.boxes if result.obb is None else result.obb).data]
    for more in (result.masks, result.keypoints):
        if more is not None:
            parts.append(more.data.reshape(len(more.data), -1).float())
    return torch.cat(parts, 1).numpy() if len(parts[0]) else np.zeros((0, 6))


def classes(result):
    return (result.boxes if result.obb is None else result.obb).cls.numpy().astype(int)


def scores(result):
    return (result.boxes if result.obb is None else result.obb).conf.numpy()


def equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(rows(a), rows(b))


def equal_where_above(ours, theirs, values):
    """Ours are theirs whose score is above their class's value, some but not all."""
    left = []
    for a, b in zip(ours, theirs, strict=True):
        keep = scores(b) > values[classes(b)].astype(np.float32)
        np.testing.assert_array_equal(rows(a), rows(b)[keep])
        left += keep.tolist()
    assert 0 < sum(left) < len(left), "a filter that keeps all or nothing shows nothing"


@pytest.mark.parametrize(("name", "nms"), HEADS)
def test_equal_thresholds_and_none_are_stock(pair, images, thresholds, name, nms):
    model, stock = pair(name, nms)
    stock = stock.predict(images, **KEYS, nms=nms, conf=0.3)
    assert sum(map(len, stock)) > 10, "too few boxes show nothing"
    equal(model.predict(images, **KEYS, nms=nms, conf=0.3), stock)
    equal(model.predict(images, **KEYS, nms=nms, thresholds=thresholds([0.3] * C)), stock)
    equal(model.predict(images, **KEYS, nms=nms, conf=0.3, thresholds=thresholds(delta=0.3)), stock)


@pytest.mark.parametrize(("name", "nms"), HEADS)
def test_thresholds_are_stock_at_the_lowest_filtered_by_class(pair, images, thresholds, name, nms):
    values = np.array([0.7, 0.15, 0.6, 0.4])
    keys = {**KEYS, "nms": nms, "max_det": 1000}
    model, stock = pair(name, nms)
    ours = model.predict(images, **keys, thresholds=thresholds(values))
    equal_where_above(ours, stock.predict(images, **keys, conf=0.15), values)
    assert len({c for r in ours for c in classes(r)}) > 1


@pytest.mark.parametrize(("name", "nms"), HEADS)
def test_a_threshold_moves_the_boxes_of_its_class_alone(pair, images, thresholds, name, nms):
    model, _ = pair(name, nms)

    def predict(**by_name):
        path = thresholds(**by_name) if by_name else "none"
        return model.predict(images, **KEYS, nms=nms, conf=0.35, max_det=1000, thresholds=path)

    base = predict()
    moved = 0
    for c in (0, 3):
        lower, higher = predict(**{NAMES[c]: 0.1}), predict(**{NAMES[c]: 0.8})
        for b, low, high in zip(base, lower, higher, strict=True):
            for other in (low, high):
                np.testing.assert_array_equal(rows(b)[classes(b) != c], rows(other)[classes(other) != c])
            own, added, left = (rows(r)[classes(r) == c] for r in (b, low, high))
            np.testing.assert_array_equal(own, added[: len(own)])
            np.testing.assert_array_equal(left, own[: len(left)])
            moved += (len(added) > len(own)) + (len(left) < len(own))
    assert moved > 3


def test_filter_acts_before_an_end_to_end_head_cuts_to_max_det(weights, images, thresholds):
    """525 anchors, of which the head would pass on the 300 best: by then the boxes of the rare class are gone."""
    path = weights("yolo26n.yaml")
    keys = {**KEYS, "imgsz": 160, "nms": False, "rect": False}
    everything = YOLO(path).predict(images, **keys, conf=0.0, max_det=525)[0]
    rank = np.flatnonzero(classes(everything) == 0)
    assert rank[-1] > 300
    ours = YOLOLT(path).predict(images, **keys, thresholds=thresholds([0.0, 1.0, 1.0, 1.0]))[0]
    assert set(classes(ours)) == {0}
    np.testing.assert_array_equal(rows(ours), rows(everything)[rank])


def postprocess(columns, values, **args):
    """What the predictor makes of raw columns (x, y, w, h, score of every class)."""
    predictor = LTDetectionPredictor(overrides={"imgsz": 64, "conf": float(min(values)), "task": "detect", **args})
    predictor.model = SimpleNamespace(names={0: "a", 1: "b"}, end2end=False)
    predictor.batch = (["x.jpg"], None, None)
    predictor.set_prompts({"thresholds": np.array(values)})
    pred = torch.tensor(columns, dtype=torch.float32).T[None]
    before = pred.clone()
    (result,) = predictor.postprocess(pred, torch.zeros(1, 3, 64, 64), [np.zeros((64, 64, 3), np.uint8)])
    assert torch.equal(pred, before), "trackers keep the raw tensor"
    return [(int(c), round(float(s), 3)) for c, s in zip(result.boxes.cls, result.boxes.conf, strict=True)]


def test_a_box_under_its_threshold_suppresses_no_other_class():
    columns = [[30, 30, 20, 20, 0.6, 0.0], [31, 30, 20, 20, 0.0, 0.4]]
    assert postprocess(columns, [0.7, 0.3], agnostic_nms=True) == [(1, 0.4)]
    assert postprocess(columns, [0.5, 0.3], agnostic_nms=True) == [(0, 0.6)]


def test_a_box_under_its_threshold_takes_no_place_of_max_det():
    columns = [[10, 10, 8, 8, 0.6, 0.0], [30, 30, 8, 8, 0.5, 0.0], [50, 50, 8, 8, 0.0, 0.2]]
    assert postprocess(columns, [0.7, 0.1], max_det=1) == [(1, 0.2)]


def test_a_threshold_never_gives_a_box_another_class():
    assert postprocess([[30, 30, 20, 20, 0.6, 0.4]], [0.7, 0.3]) == []
    assert postprocess([[30, 30, 20, 20, 0.6, 0.4]], [0.5, 0.3]) == [(0, 0.6)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2))
def test_drop_below_equals_a_loop(seed, nc, anchors, extra):
    rng = np.random.default_rng(seed)
    levels = np.array([0.0, 0.1, 0.25, 0.25000003, 0.5, 1.0], np.float32)  # ties and thresholds met exactly
    limits = rng.choice(levels, nc)
    pred = rng.random((2, 4 + nc + extra, anchors), np.float32)
    pred[:, 4 : 4 + nc] = rng.choice(levels, (2, nc, anchors))
    final = rng.random((2, anchors, 6 + extra), np.float32)
    final[..., 4], final[..., 5] = rng.choice(levels, (2, anchors)), rng.integers(0, nc, (2, anchors))
    expected, expected_final = pred.copy(), final.copy()
    for image, anchor in np.ndindex(2, anchors):
        column, row = expected[image, :, anchor], expected_final[image, anchor]
        best = column[4 : 4 + nc].argmax()
        if column[4 + best] <= limits[best]:
            column[4 : 4 + nc] = 0
        if row[4] <= limits[int(row[5])]:
            row[4] = 0
    pred, final, limits = map(torch.from_numpy, (pred, final, limits))
    assert np.array_equal(drop_below(pred, limits, nc, rows=False), expected)
    assert np.array_equal(drop_below(final, limits, nc, rows=True), expected_final)


def test_no_call_uses_the_thresholds_of_another(weights, images, thresholds):
    path = weights("yolov8n.yaml")
    stock = YOLO(path).predict(images, **KEYS)
    model = YOLOLT(path)
    first = model.predict(images, **KEYS, thresholds=thresholds([1.0, 1.0, 0.1, 1.0]))
    predictor = model.predictor
    assert {c for r in first for c in classes(r)} == {2}
    equal(model.predict(images, **KEYS), stock)
    second = model.predict(images, **KEYS, thresholds=thresholds([0.1, 1.0, 1.0, 1.0]))
    assert {c for r in second for c in classes(r)} == {0}
    assert model.predictor is predictor, "the model must not be set up anew for every image"
    equal(model(images, **KEYS), stock)
    equal(model.predict(images, **KEYS, predictor=DetectionPredictor), stock)
    equal(model.predict(images, **KEYS, thresholds=thresholds([0.1, 1.0, 1.0, 1.0])), second)


def test_thresholds_compose_with_classes_stream_arrays_and_augment(weights, images, thresholds):
    model, path = YOLOLT(weights("yolo11n.yaml")), thresholds([0.2, 0.6, 0.2, 0.3])
    whole = model.predict(images, **KEYS, thresholds=path)
    some = model.predict(images, **KEYS, thresholds=path, classes=[0, 1])
    for a, b in zip(some, whole, strict=True):
        np.testing.assert_array_equal(rows(a), rows(b)[classes(b) < 2])
    equal(list(model(images, stream=True, **KEYS, thresholds=path)), whole)
    arrays = [cv2.imread(str(p)) for p in sorted(images.iterdir())]
    equal([model.predict(a, **KEYS, thresholds=path)[0] for a in arrays], whole)
    limits = np.array([0.2, 0.6, 0.2, 0.3], np.float32)
    augmented = model.predict(images, **KEYS, thresholds=path, augment=True)
    assert all((scores(r) > limits[classes(r)]).all() for r in augmented)
    assert model.embed(arrays[0], imgsz=64, verbose=False)[0].ndim == 1


@pytest.mark.parametrize("tracker", [pytest.param("bytetrack.yaml", marks=LATER), "tracktrack.yaml"])
def test_track_takes_thresholds(weights, images, thresholds, tracker):
    pytest.importorskip("lap", reason="Ultralytics' trackers need lap")
    path, frame = weights("yolov8n.yaml"), cv2.imread(str(images / "0.png"))
    ours, stock, keys = YOLOLT(path), YOLO(path), {**KEYS, "persist": True, "tracker": tracker}
    for _ in range(3):
        (a,) = ours.track(frame, **keys, thresholds=thresholds([1.0, 1.0, 1.0, 0.1]))
        (b,) = stock.track(frame, **keys, classes=[3])
        np.testing.assert_array_equal(rows(a), rows(b))
    assert a.boxes.is_track
    assert len(set(classes(ours.track(frame, **KEYS, tracker="bytetrack.yaml")[0]))) > 1


@pytest.mark.parametrize(
    "name",
    ["yolov8n.yaml", *(pytest.param(f"{n}.yaml", marks=LATER) for n in ("yolov8n-seg", "yolo11n-pose", "yolov8n-obb"))],
)
def test_files_hold_what_is_above_its_threshold(weights, images, thresholds, tmp_path, name, capsys):
    path = thresholds([0.3, 1.0, 0.2, 0.3])
    keys = {**KEYS, "source": images, "project": str(tmp_path)}
    words = [f"{k}={v}" for k, v in {**keys, "model": weights(name), "thresholds": path, "name": "ours"}.items()]
    assert main(["predict", *words]) == 0, capsys.readouterr().err
    stock = YOLO(weights(name)).predict(**keys, name="stock", save=True, conf=0.2)
    entries = json.loads((tmp_path / "ours" / "predictions.json").read_text())
    limits = np.array([0.3, 1.0, 0.2, 0.3], np.float32)
    assert [e["path"] for e in entries] == [str(images / f"{i}.png") for i in range(3)]
    assert [e["shape"] for e in entries] == [[80, 64], [64, 64], [64, 100]]
    for entry, result in zip(entries, stock, strict=True):
        kept = result[torch.from_numpy(scores(result) > limits[classes(result)])]
        assert entry["results"] == json.loads(json.dumps(kept.summary()))
        assert {r["name"] for r in entry["results"]} <= {NAMES[0], NAMES[2], NAMES[3]}
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == ["0.jpg", "1.jpg", "2.jpg", "predictions.json"]


def test_a_class_below_its_threshold_is_not_drawn(weights, images, thresholds, tmp_path):
    keys = {**KEYS, "source": images, "project": str(tmp_path), "save": True}
    YOLO(weights("yolov8n.yaml")).predict(**keys, name="stock", classes=[0, 2, 3])
    YOLOLT(weights("yolov8n.yaml")).predict(**keys, name="ours", thresholds=thresholds(**{NAMES[1]: 1.0}))
    for i in range(3):
        assert (tmp_path / "ours" / f"{i}.jpg").read_bytes() == (tmp_path / "stock" / f"{i}.jpg").read_bytes()


def test_files_are_written_only_when_asked_in_python_and_by_default_in_the_verb(weights, images, tmp_path):
    model, keys = YOLOLT(weights("yolov8n.yaml")), {**KEYS, "source": images, "project": str(tmp_path)}
    model.predict(**keys, name="nothing")
    assert not (tmp_path / "nothing").exists()
    model.predict(**keys, name="json", save_json=True)
    assert [p.name for p in (tmp_path / "json").iterdir()] == ["predictions.json"]
    folder = api.predict(weights("yolov8n.yaml"), **keys, name="verb", save_json=False)
    assert (folder, len(list(folder.iterdir()))) == (tmp_path / "verb", 3)


def test_a_cfg_file_gives_source_and_thresholds(weights, images, thresholds, tmp_path):
    model, path = YOLOLT(weights("yolov8n.yaml")), thresholds([1.0, 1.0, 0.1, 1.0])
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump({"source": str(images), "thresholds": str(path), "imgsz": 64}))
    equal(model.predict(cfg=tmp_path / "cfg.yaml"), model.predict(images, **KEYS, thresholds=path))


def test_an_abandoned_stream_leaves_no_partial_json(weights, images, tmp_path):
    keys = {**KEYS, "project": str(tmp_path), "name": "run", "save_json": True, "exist_ok": True}
    model = YOLOLT(weights("yolov8n.yaml"))
    stream = model.predict(images, stream=True, **keys)
    next(stream)
    stream.close()
    assert not (tmp_path / "run").exists()
    for _ in model.predict(images, stream=True, **keys):
        pass
    assert len(json.loads((tmp_path / "run" / "predictions.json").read_text())) == 3


def test_json_holds_any_name_and_path(weights, images, tmp_path):
    model = YOLOLT(weights("yolov8n.yaml"))
    model.model.names = {0: "größe", 1: 'q"\\', 2: "line\nbreak", 3: "\U0001f41f"}
    odd = tmp_path / "bild '\"ü<i>.png"
    odd.write_bytes((images / "0.png").read_bytes())
    model.predict(odd, **KEYS, save_json=True, conf=0.1, project=str(tmp_path), name="run")
    (entry,) = json.loads((tmp_path / "run" / "predictions.json").read_text())
    assert entry["path"] == str(odd)
    assert {r["name"] for r in entry["results"]} == set(model.names.values())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["model={m}", "source={s}", "thresholds=gone.yaml"], 1, "thresholds=gone.yaml: no such file"),
        (["model={m}", "source={s}", "thresholds=bad.yaml"], 1, "no class 'alhpa'; did you mean 'alpha'?"),
        (["model={m}", "source={s}", "thresholds=high.yaml"], 1, "class 'alpha': 1.5 is no confidence"),
        (["model={m}", "source={s}", "thresholds=0.5"], 2, "thresholds=0.5 is chosen by calibrate"),
        (["model={m}", "source={s}", "treshold=a.yaml"], 2, "did you mean 'thresholds'"),
        (["model={m}", "source={s}", "conf=2"], 2, "conf=2"),
        (["model={m}", "source={s}", "recipe=rfs"], 2, "recipe does not act in 'predict'"),
        (
            ["model={m}", "source={s}", "thresholds=good.yaml", "embed=[1]"],
            2,
            "thresholds cannot act together with embed",
        ),
        (["model={m}", "source=gone.jpg"], 1, "source=gone.jpg: gone.jpg does not exist"),
        (["model={m}", "source=empty"], 1, "No images or videos found in empty"),
        (["model=gone.pt", "source={s}"], 1, "gone.pt: no such file"),
        (["model={obb}"], 2, "source=... is missing"),
    ],
)
def test_bad_usage_is_one_line_and_leaves_nothing(weights, images, tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name, text in {"bad": "alhpa: 0.1", "high": "alpha: 1.5", "good": "alpha: 0.5"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    before = sorted(tmp_path.rglob("*"))
    places = {"m": weights("yolov8n.yaml"), "obb": weights("yolov8n-obb.yaml"), "s": images}
    argv = [w.format(**places) for w in words]
    assert main(["predict", *argv, f"project={tmp_path}", "imgsz=64", "verbose=false"]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("yolo-lt: error: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_predictor_of_ones_own_takes_no_thresholds(weights, images, thresholds):
    with pytest.raises(UsageError, match="thresholds cannot act together with predictor"):
        YOLOLT(weights("yolov8n.yaml")).predict(images, predictor=DetectionPredictor, thresholds=thresholds(delta=0.1))


def test_without_a_source_the_images_of_ultralytics_package_are_taken(weights, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    paths = [r.path for r in YOLOLT(weights("yolov8n.yaml")).predict(**KEYS)]
    assert [p.rsplit("/", 1)[1] for p in paths] == ["bus.jpg", "zidane.jpg"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keys"), [("yolov8n.yaml", {}), ("yolov8n-seg.yaml", {}), ("yolo26n.yaml", {"nms": False})]
)
def test_exported_files_predict_with_thresholds_but_do_not_train(weights, images, thresholds, name, keys):
    values = np.array([0.7, 0.15, 0.6, 0.4])
    task = "segment" if "seg" in name else "detect"
    file = YOLO(weights(name)).export(format="onnx", imgsz=64, **keys, verbose=False)
    stock = YOLO(file, task=task).predict(images, **KEYS, conf=0.15)
    model = YOLOLT(file, task=task)
    equal_where_above(model.predict(images, **KEYS, thresholds=thresholds(values)), stock, values)
    for verb in (model.train, model.val):
        with pytest.raises(UsageError, match="is an exported file, which can only predict"):
            verb(data="data.yaml")


@pytest.mark.slow
def test_exported_files_with_nms_inside_say_that_they_filter_first(weights, images, thresholds, caplog):
    values = np.array([0.7, 0.15, 0.6, 0.99])
    file = YOLO(weights("yolo11n.yaml")).export(format="onnx", imgsz=64, nms=True, conf=0.2, verbose=False)
    model = YOLOLT(file, task="detect")
    ours = model.predict(images, **KEYS, thresholds=thresholds(values))
    stock = model.predict(images, **KEYS, conf=0.0)
    equal_where_above(ours, [r[scores(r) > 0] for r in stock], values)
    assert min(min(scores(r)) for r in ours) > 0.2
    assert caplog.text.count("has NMS inside") == 1


def test_a_missing_thresholds_file_raises_in_python_before_anything_runs(weights):
    with pytest.raises(LTError, match="no such file"):
        YOLOLT(weights("yolov8n.yaml")).predict("gone.jpg", stream=True, thresholds="gone.yaml")
