"""`yolo-lt convert lvis|coco`: what Ultralytics and the evaluation read afterwards is what the source says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycocotools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ultralytics.data.converter import merge_multi_segment
from ultralytics.data.utils import IMG_FORMATS, verify_image_label

from yolo_lt import api, config
from yolo_lt.cli import main
from yolo_lt.convert import IMAGE_SUFFIXES, contours, told
from yolo_lt.dataset.convert.coco import read_coco
from yolo_lt.dataset.convert.layout import read_list, write_labels
from yolo_lt.dataset.convert.links import places
from yolo_lt.dataset.convert.outlines import FITS
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate import evaluate
from yolo_lt.evaluate.arrays import Detections
from yolo_lt.evaluate.read import read_ground_truth
from yolo_lt.ultra.federated import index_for, read_index
from yolo_lt.ultra.labels import load_data, scan, stats_of, with_hierarchy
from yolo_lt.ultra.truth import ground_truth

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]
LETTERS = {"r": "tail", "c": "medium", "f": "head"}
SIZES = [(200, 100), (90, 160), (81, 79), (320, 241)]  # width and height


# Sources --------------------------------------------------------------------------------------------------------------


def outline_of(kind, box, size, rng):
    """A `segmentation` in one of its forms."""
    x, y, w, h = box
    square = [x, y, x + w, y, x + w, y + h, x, y + h]
    if kind == "parts":
        return [[x, y, x + w / 3, y, x, y + h], [x + w / 2, y + h, x + w, y + h, x + w, y + h / 2]]
    if kind == "mask":
        mask = np.zeros(size[::-1], np.uint8)
        mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
        packed = pycocotools.encode(np.asfortranarray(mask))["counts"].decode()
        return {"size": [size[1], size[0]], "counts": packed}
    return {"square": [square], "none": [], "misfit": [[x, y, x + w / 2, y, x, y + h / 2]]}[kind]


KINDS = ("square", "parts", "mask", "none", "misfit")


def source(images=24, federated=True, crowds=False, outlines=True, seed=0, folder="train2017"):
    """Annotations with whole boxes, which a mask can hold, in images of several sizes and folders."""
    rng = np.random.default_rng(seed)
    rows, annotations = [], []
    for i in range(images):
        size = SIZES[i % len(SIZES)]
        lists = rng.permutation(len(NAMES)) + 10
        row = {"id": 100 + 7 * i, "width": size[0], "height": size[1], "file_name": f"{folder}/{i:03d}.png"}
        if federated:
            row |= {"neg_category_ids": lists[:2].tolist(), "not_exhaustive_category_ids": lists[4:5].tolist()}
        rows.append(row)
        for _ in range(rng.integers(0, 5)):
            box = np.floor(np.r_[rng.uniform(0, 0.5, 2), rng.uniform(0.1, 0.5, 2)] * np.tile(size, 2)).tolist()
            c = int(lists[2 + rng.integers(0, 4)]) if federated else int(rng.integers(10, 16))
            own = {"image_id": row["id"], "category_id": c, "bbox": box, "area": box[2] * box[3]}
            own["iscrowd"] = int(crowds and rng.random() < 0.2)
            if outlines:
                own["segmentation"] = outline_of(KINDS[len(annotations) % len(KINDS)], box, size, rng)
            annotations.append({"id": len(annotations) + 1, **own})
    categories = [{"id": 10 + c, "name": n, "frequency": "rrccff"[c]} for c, n in enumerate(NAMES)]
    if not federated:
        categories = [{k: v for k, v in row.items() if k != "frequency"} for row in categories]
    return {"images": rows[::-1], "annotations": annotations, "categories": categories[::-1]}


def name_of(row):
    """The path of an image below the folder of all images."""
    return "/".join(row["coco_url"].split("/")[-2:]) if "coco_url" in row else row["file_name"]


def write(folder, content, name="set_val.json", drawn=True):
    """The file, and blank images of its sizes in a folder `pictures`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    for row in content["images"] if drawn else ():
        path = folder / "pictures" / name_of(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((row["height"], row["width"], 3), 128, np.uint8))
    return folder / name


def converted(tmp_path, content, form="lvis", **keys):
    """The data YAML of a conversion, and the source's file."""
    path = write(tmp_path / "source", content)
    keys = {"annotations": path, "images": path.parent / "pictures", "out": tmp_path / "out", **keys}
    return api.convert(form, **{k: str(v) if isinstance(v, Path) else v for k, v in keys.items()}), path


# The round trip -------------------------------------------------------------------------------------------------------


def read_back(data_yaml, protocol, split="val"):
    """The ground truth that a validation makes of the data set, its images' names in the source, and its data YAML."""
    data = load_data(data_yaml, split)
    found = scan(data, split)
    assert not found.scan_messages, "Ultralytics complains of nothing"
    index = index_for(protocol, found, data, "auto", split)
    labels = sorted(found.labels, key=lambda label: label["im_file"])
    if index is not None:
        index = index.align([os.path.abspath(label["im_file"]) for label in labels])[0]
    folders = json.loads((Path(data["path"]) / "conversion.json").read_text())["splits"][split]["folders"]
    names = ["/".join([folders[Path(x["im_file"]).parts[-2]], Path(x["im_file"]).name]) for x in labels]
    ids = np.array([name.removeprefix("/") for name in names])
    classes = [data["names"][c] for c in range(len(data["names"]))]
    sizes = [label["shape"] for label in labels]
    return ground_truth(labels, sizes, ids, classes, index=index), data


def as_detections(truth):
    """Every object, found for certain."""
    single = np.flatnonzero(~truth.crowd)
    return Detections(truth.image[single], truth.cls[single], truth.box[single], np.ones(len(single)))


def as_results(truth, data, images):
    """The same in COCO's form and the source's ids."""
    ids = {name_of(row): row["id"] for row in images}
    return [
        {
            "image_id": ids[str(truth.image_ids[truth.image[i]])],
            "category_id": data["category_ids"][int(truth.cls[i])],
            "bbox": truth.box[i].tolist(),
            "score": 1.0,
        }
        for i in np.flatnonzero(~truth.crowd)
    ]


def bins_of(data):
    """The bins that the data YAML's letters tell."""
    letters = data.get("frequency")
    return letters and {bin_: [c for c, x in enumerate(letters) if x == key] for key, bin_ in LETTERS.items()}


def summary(report):
    return {row: (m["AP"], m["n_evaluated"], m["n_gt"]) for row, m in report.metrics.items() if m}


def check_round_trip(data_yaml, path, images, protocol):
    """Labels found as they are give AP 1, judged by the labels and by the source; as many classes count as there."""
    truth, data = read_back(data_yaml, protocol)
    own = as_detections(read_ground_truth(path))
    expected = summary(evaluate(path, own, protocol, bootstrap=0, explain=False))
    plain = {"protocol": protocol, "bootstrap": 0, "explain": False}
    for report in (
        evaluate(truth, as_detections(truth), bins=bins_of(data), **plain),
        evaluate(path, as_results(truth, data, images), **plain),
    ):
        found = summary(report)
        assert {row: counts[1:] for row, counts in found.items()} == {row: n[1:] for row, n in expected.items()}
        for row, (ap, evaluated, _) in found.items():
            assert ap == (pytest.approx(1, abs=1e-9) if evaluated else None), row
    assert expected["all"][1] > 0
    return truth


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("protocol", ["lvis", "lvis_fixed"])
def test_lvis_comes_back_as_it_was(protocol, segments, tmp_path):
    content = source()
    data_yaml, path = converted(tmp_path, content, segments=segments)
    truth = check_round_trip(data_yaml, path, content["images"], protocol)
    there = read_ground_truth(path)
    place = {row["id"]: row["file_name"] for row in content["images"]}
    order = [truth.image_ids.tolist().index(place[i]) for i in there.image_ids.tolist()]
    for name in ("negative", "partial"):
        keys = getattr(there, name)
        moved = np.array(order)[keys // len(NAMES)] * len(NAMES) + keys % len(NAMES)
        assert getattr(truth, name).tolist() == sorted(moved.tolist()), name
    lengths = {len(line.split()) for f in (tmp_path / "out" / "labels").rglob("*.txt") for line in f.open()}
    assert (lengths == {5}) != segments
    assert 9 in lengths or not segments


@pytest.mark.realdata
@pytest.mark.parametrize("segments", [True, False])
def test_real_lvis_annotations_come_back_as_they_were(segments, shared, tmp_path):
    content = json.loads((shared / "evaldata" / "lvis_val_100.json").read_text())
    data_yaml, path = converted(tmp_path, content, segments=segments)
    check_round_trip(data_yaml, path, content["images"], "lvis")


@pytest.mark.parametrize("segments", [True, False])
def test_coco_comes_back_as_it_was_with_its_crowds(segments, tmp_path):
    content = source(federated=False, crowds=True)
    data_yaml, path = converted(tmp_path, content, "coco", segments=segments)
    truth = check_round_trip(data_yaml, path, content["images"], "coco")
    assert truth.crowd.sum() == sum(a["iscrowd"] for a in content["annotations"]) > 3


def test_without_crowds_coco_needs_no_index(tmp_path):
    content = source(federated=False, outlines=False)
    data_yaml, path = converted(tmp_path, content, "coco")
    check_round_trip(data_yaml, path, content["images"], "coco")
    assert not (tmp_path / "out" / "federated").exists()


def inside_crowds(content, rng):
    """Every object, not quite, and detections in crowds and elsewhere that are none."""
    results = []
    size = {row["id"]: (row["width"], row["height"]) for row in content["images"]}
    for a in content["annotations"]:
        (x, y, w, h), (width, height) = a["bbox"], size[a["image_id"]]
        own = {"image_id": a["image_id"], "category_id": a["category_id"]}
        if a["iscrowd"]:
            boxes = [(x + w * k / 8, y + h / 8, w / 3, h / 3) for k in range(4)]
        else:
            boxes = [(x + w * rng.uniform(0, 0.2), y, w, h), (*rng.uniform(0, 0.5, 2) * (width, height), w, h)]
        results += [{**own, "bbox": [float(v) for v in box], "score": float(rng.random())} for box in boxes]
    return results


def pycocotools_ap(path, results):
    truth = COCO(str(path))
    judged = COCOeval(truth, truth.loadRes(results), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    return judged.stats[:3]


def test_detections_in_crowds_are_ignored_as_pycocotools_ignores_them(tmp_path, capsys):
    content = source(images=60, federated=False, crowds=True, seed=3)
    data_yaml, path = converted(tmp_path, content, "coco")
    results = inside_crowds(content, np.random.default_rng(0))
    truth, data = read_back(data_yaml, "coco")
    place = {row["id"]: row["file_name"] for row in content["images"]}
    row = {name: i for i, name in enumerate(truth.image_ids.tolist())}
    found = Detections(
        image=np.array([row[place[r["image_id"]]] for r in results]),
        cls=np.array([data["category_ids"].index(r["category_id"]) for r in results]),
        box=np.array([r["bbox"] for r in results]),
        score=np.array([r["score"] for r in results]),
    )
    metrics = evaluate(truth, found, "coco", bootstrap=0, explain=False).metrics["all"]
    expected = pycocotools_ap(path, results)
    np.testing.assert_allclose([metrics[k] for k in ("AP", "AP50", "AP75")], expected, atol=1e-6)
    data["federated"] = None
    (tmp_path / "out" / "plain.yaml").write_text(yaml.safe_dump({k: v for k, v in data.items() if k in PLAIN}))
    without, _ = read_back(tmp_path / "out" / "plain.yaml", "coco")
    assert not without.crowd.any()
    worse = evaluate(without, found, "coco", bootstrap=0, explain=False).metrics["all"]["AP"]
    assert worse < metrics["AP"] - 0.02, "what is in crowds must not count as wrong"


PLAIN = ("train", "val", "names")


def test_the_mask_of_a_training_and_the_evaluation_read_one_index(tmp_path):
    path = write(tmp_path / "source", source(), "set_train.json")
    data_yaml = api.convert(
        "lvis", annotations=str(path), images=str(path.parent / "pictures"), out=str(tmp_path / "out")
    )
    data = load_data(data_yaml)
    found = scan(data, "train")
    index, notes = read_index(found.im_files, stats_of(found.labels, data), data, "auto")
    assert not [note for note in notes if "WARNING" in note]
    rows = {Path(row["file_name"]).name: row for row in source()["images"]}
    known = {i: {a["category_id"] for a in source()["annotations"] if a["image_id"] == i} for i in range(1000)}
    for file, r in zip(found.im_files, index.row.tolist(), strict=True):
        row = rows[Path(file).name]
        looked = {10 + c for c in np.flatnonzero(index.verified(r))}
        assert looked == known[row["id"]] | set(row["neg_category_ids"])
        assert {10 + c for c in index.not_exhaustive[r].tolist()} == set(row["not_exhaustive_category_ids"])


def test_of_some_classes_the_images_that_say_something_come_back(tmp_path):
    content = source()
    data_yaml, path = converted(tmp_path, content, keep="tail")
    truth, data = read_back(data_yaml, "lvis")
    assert data["names"] == {0: "ant", 1: "bee"}
    some = {10, 11}
    boxed = {i: {a["category_id"] for a in content["annotations"] if a["image_id"] == i} for i in range(1000)}
    says = [
        row["file_name"]
        for row in content["images"]
        if some & {*boxed[row["id"]], *row["neg_category_ids"], *row["not_exhaustive_category_ids"]}
    ]
    assert sorted(says) == truth.image_ids.tolist()
    assert len(says) < len(content["images"])
    found = summary(evaluate(path, as_results(truth, data, content["images"]), "lvis", bootstrap=0, explain=False))
    assert found["tail"][0] == pytest.approx(1, abs=1e-9)
    own = summary(evaluate(truth, as_detections(truth), "lvis", bins_of(data), bootstrap=0, explain=False))
    assert own["all"][0] == pytest.approx(1, abs=1e-9)
    assert own["tail"][1:] == found["tail"][1:]


# Every label file is one that Ultralytics takes -----------------------------------------------------------------------

WIDE, HIGH = 200, 100
NUMBER = st.one_of(st.floats(-50, 260, width=32), st.integers(-5, 205).map(float))


@st.composite
def annotations(draw):
    """A box, mostly of an area, and an outline in any form, mostly of that box."""
    x, y = draw(NUMBER), draw(NUMBER)
    w, h = draw(st.floats(0.5, 120, width=32)), draw(st.floats(0.5, 120, width=32))
    square = [x, y, x + w, y, x + w, y + h, x, y + h]
    points = draw(st.lists(NUMBER, min_size=0, max_size=9))
    kind = draw(st.sampled_from(["none", "square", "parts", "points", "both", "mask", "odd"]))
    outline = {
        "none": None,
        "square": [square],
        "parts": [[x, y, x + w, y, x, y + h], [x + w, y + h, x, y + h, x + w, y]],
        "points": [points],
        "both": [points, square],
        "mask": {"size": [HIGH, WIDE], "counts": [0, WIDE * HIGH]},
        "odd": draw(st.sampled_from([[], [[]], {}, "x", [[1]], {"size": [HIGH, WIDE], "counts": "a"}, square, [None]])),
    }[kind]
    return {"image_id": 1, "category_id": draw(st.sampled_from([5, 7])), "bbox": [x, y, w, h], "segmentation": outline}


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    path = tmp_path_factory.mktemp("blank") / "images" / "a.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.zeros((HIGH, WIDE, 3), np.uint8))
    return path


@settings(max_examples=150, deadline=None)
@given(st.lists(annotations(), max_size=6), st.booleans())
def test_ultralytics_takes_every_label_file_and_finds_the_boxes(blank, rows, segments):
    """It drops a whole image whose lines are of two kinds, or one of whose coordinates is above 1.01 or below 0."""
    path = blank.parent.parent / "x.json"
    image = {"id": 1, "width": WIDE, "height": HIGH, "file_name": "a.png"}
    categories = [{"id": 5, "name": "five"}, {"id": 7, "name": "seven"}]
    path.write_text(json.dumps({"images": [image], "annotations": rows, "categories": categories}))
    split = read_coco(path, merge_multi_segment, contours) if segments else read_coco(path)
    at = places(split.images)
    write_labels(split, at, blank.parent.parent / "labels", 0, lambda images: None)
    label = blank.parent.parent / "labels" / at.label[0]
    _, found, shape, outlines, _, missing, there, empty, corrupt, message = verify_image_label(
        (str(blank), str(label), "", False, 2, 0, 2, False)
    )
    assert (missing, there, corrupt) == (0, 1, 0), message
    assert shape == (HIGH, WIDE)
    assert empty == (len(split.objects) == 0)
    own = np.unique(np.c_[split.objects.cls, split.objects.box].round(6), axis=0)
    assert len(found) <= len(split.objects)
    assert len(found) >= len(own) or "duplicate" in message
    assert not outlines or len(outlines) == len(found)
    for row in np.c_[split.objects.cls, split.objects.box]:
        same = found[found[:, 0] == row[0], 1:]
        near = np.abs(same - row[1:]).max(1) < 1e-4
        assert near.any() or (split.outline is not None and max(ious(same, row[1:])) > FITS - 1e-3)


def ious(boxes, box):
    low = np.maximum(boxes[:, :2] - boxes[:, 2:] / 2, box[:2] - box[2:] / 2)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] / 2, box[:2] + box[2:] / 2)
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / (boxes[:, 2:].prod(1) + box[2:].prod() - shared)


# Masks ----------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=6), st.integers(1, 4))
def test_contours_have_the_bounds_of_their_mask(bits, scale):
    mask = np.kron(np.array(bits, np.uint8), np.ones((scale, scale), np.uint8))
    found = contours(mask)
    assert (len(found) > 0) == mask.any()
    assert all(len(part) >= 6 and len(part) % 2 == 0 for part in found)
    if mask.any():
        points = np.concatenate([np.reshape(part, (-1, 2)) for part in found])
        low, high = points.min(0), points.max(0)
        expected = pycocotools.toBbox(pycocotools.encode(np.asfortranarray(mask)))
        np.testing.assert_allclose([*low, *(high - low)], expected)


def test_a_contour_follows_its_mask():
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (40, 30), 20, 1, -1)
    (outline,) = contours(mask)
    drawn = np.zeros_like(mask)
    cv2.fillPoly(drawn, [np.round(np.reshape(outline, (-1, 2)) - 0.5).astype(np.int32)], 1)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.95
    assert cv2.contourArea(np.float32(outline).reshape(-1, 2)) == pytest.approx(mask.sum(), rel=0.05)


# The verb -------------------------------------------------------------------------------------------------------------


def entries(folder):
    return {p: (p.lstat().st_mtime_ns, p.lstat().st_ino) for p in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_the_same_command_again_writes_nothing(link, tmp_path, capsys):
    path = write(tmp_path / "source", source())
    words = [f"annotations={path}", f"images={path.parent / 'pictures'}", f"out={tmp_path / 'out'}", f"link={link}"]
    assert main(["convert", "lvis", *words]) == 0
    before = entries(tmp_path)
    assert main(["convert", "lvis", *words]) == 0
    assert entries(tmp_path) == before
    said = capsys.readouterr().out
    assert f"{tmp_path}/out holds this conversion already" in said
    assert f"data={tmp_path}/out/data.yaml" in said
    one = tmp_path / "out" / "images" / "val" / "train2017" / "000.png"
    copied = one.stat().st_ino != (path.parent / "pictures" / "train2017" / "000.png").stat().st_ino
    assert copied == (link == "copy"), "nothing is copied unasked"


def test_missing_images_are_told_and_found_by_a_second_call(tmp_path, capsys):
    content = source()
    data_yaml, path = converted(tmp_path, content)
    pictures, whole = path.parent / "pictures", read_list(tmp_path / "out" / "val.txt")
    keys = {"annotations": str(path), "images": str(pictures)}
    for k in (3, 5):
        (pictures / "train2017" / f"00{k}.png").rename(tmp_path / f"00{k}.png")
    api.convert("lvis", out=str(tmp_path / "other"), **keys)
    assert f"2 images of val are missing: {tmp_path}/other/missing-val.txt" in capsys.readouterr().out
    missing = [f"./images/val/train2017/00{k}.png" for k in (3, 5)]
    assert read_list(tmp_path / "other" / "missing-val.txt") == missing
    assert read_list(tmp_path / "other" / "val.txt") == [x for x in whole if x not in missing]
    assert len(read_back(tmp_path / "other" / "data.yaml", "lvis")[0].image_ids) == len(whole) - 2
    for k in (3, 5):
        (tmp_path / f"00{k}.png").rename(pictures / "train2017" / f"00{k}.png")
    api.convert("lvis", out=str(tmp_path / "other"), **keys)
    assert read_list(tmp_path / "other" / "val.txt") == whole
    assert not (tmp_path / "other" / "missing-val.txt").exists()
    check_round_trip(tmp_path / "other" / "data.yaml", path, content["images"], "lvis")
    assert data_yaml == tmp_path / "out" / "data.yaml"


def test_images_may_come_later(tmp_path, capsys, monkeypatch):
    path = write(tmp_path / "source", source())
    monkeypatch.chdir(tmp_path)
    assert api.convert("lvis", annotations=str(path)) == Path("lvis/data.yaml")
    assert "no images are linked; give images=FOLDER, now or in a second call" in capsys.readouterr().out
    api.convert("lvis", annotations=str(path), images="source/pictures")
    check_round_trip("lvis/data.yaml", path, source()["images"], "lvis")
    (tmp_path / "lvis").rename(tmp_path / "moved")
    check_round_trip(tmp_path / "moved" / "data.yaml", path, source()["images"], "lvis")


HARD = [
    *("train2017/1.png", "val2017/1.png", "val2017/1.jpg", "images/1.png", "a b/it's, #1 50%.png", "кот/日本 ä.png"),
    *("😀/😀.png", "\\windows\\1.png", "/absolute/1.png", "1.png", "x" * 240 + ".png", "deep/images/er/1.png"),
]


def test_names_of_every_kind_come_back(tmp_path):
    content = source(images=len(HARD))
    for row, name in zip(content["images"], HARD, strict=True):
        row["file_name"] = name
    shown = {
        **content,
        "images": [{**r, "file_name": r["file_name"].replace("\\", "/").lstrip("/")} for r in content["images"]],
    }
    path = write(tmp_path / "source", shown)
    path.write_text(json.dumps(content))
    keys = {"annotations": str(path), "images": str(path.parent / "pictures"), "out": str(tmp_path / "o u,t #%")}
    data_yaml = api.convert("lvis", **keys)
    check_round_trip(data_yaml, path, shown["images"], "lvis")
    assert len(read_list(data_yaml.parent / "val.txt")) == len(HARD)


@pytest.mark.parametrize("name", ["../../x.png", "a/../../x.png", "..\\x.png"])
def test_a_name_that_leaves_the_folder_is_refused(name, tmp_path, capfd):
    content = source(images=2)
    content["images"][1]["file_name"] = name
    path = write(tmp_path / "source", content, drawn=False)
    before = entries(tmp_path)
    assert main(["convert", "lvis", f"annotations={path}", f"out={tmp_path / 'out'}"]) == 1
    assert "which is no path of a file" in capfd.readouterr().err
    assert entries(tmp_path).keys() == before.keys(), "nothing is left behind"


def test_images_that_ultralytics_does_not_take_for_some_are_told(tmp_path, capsys):
    content = source(images=4)
    content["images"][0]["file_name"] = "train2017/x.gif"
    path = write(tmp_path / "source", content, drawn=False)
    api.convert("lvis", annotations=str(path), out=str(tmp_path / "out"))
    assert (
        "Ultralytics does not take 1 images of val for images: ./images/val/train2017/x.gif" in capsys.readouterr().out
    )


def test_a_folder_for_each_split_as_roboflow_has_it(tmp_path):
    for seed, (folder, n) in enumerate({"train": 8, "valid": 6, "test": 4}.items()):
        content = source(images=n, federated=False, outlines=False, seed=seed)
        for row in content["images"]:
            row["file_name"] = Path(row["file_name"]).name
            cv2_path = tmp_path / "robo" / folder / row["file_name"]
            cv2_path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(cv2_path), np.zeros((row["height"], row["width"], 3), np.uint8))
        (tmp_path / "robo" / folder / "_annotations.coco.json").write_text(json.dumps(content))
    robo = str(tmp_path / "robo")
    data_yaml = api.convert("coco", annotations=robo, images=robo, out=str(tmp_path / "out"))
    for split, folder, n in (("train", "train", 8), ("val", "valid", 6), ("test", "test", 4)):
        truth, data = read_back(data_yaml, "coco", split)
        assert len(truth.image_ids) == n
        images = json.loads((tmp_path / "robo" / folder / "_annotations.coco.json").read_text())["images"]
        report = evaluate(
            tmp_path / "robo" / folder / "_annotations.coco.json", as_results(truth, data, images), bootstrap=0
        )
        assert report.metrics["all"]["AP"] == pytest.approx(1, abs=1e-9), "images of one split must not be another's"


REFUSED = {
    "no format": ([], UsageError, "convert takes one format"),
    "two formats": (["lvis", "coco"], UsageError, "convert takes one format"),
    "no annotations": (["lvis"], UsageError, r"annotations=\.\.\. is missing"),
    "another format": (["voc"], UsageError, "convert voc: no such format or data set"),
    "a key of a training": (["lvis", {"epochs": 3}], UsageError, "epochs does not act in convert"),
    "a key of ours": (["lvis", {"recipe": "rfs"}], UsageError, "recipe"),
    "expand": (["lvis", {"expand": True}], UsageError, "expand acts only with openimages"),
    "no classes": (["lvis", {"keep": []}], UsageError, r"keep=\[\] keeps no class"),
    "an unknown class": (["lvis", {"keep": "ants"}], UsageError, "keep=ants is no class name.*did you mean 'ant'"),
    "no images": (["lvis", {"images": "nowhere"}], LTError, "images=nowhere: no such folder"),
    "coco as lvis": (["lvis", {"annotations": "coco_val.json"}], LTError, "yolo-lt convert coco reads it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_written(what, tmp_path, monkeypatch):
    (words, error, message) = REFUSED[what]
    monkeypatch.chdir(tmp_path)
    write(tmp_path, source(images=2), "lvis_val.json", drawn=False)
    write(tmp_path, source(images=2, federated=False), "coco_val.json", drawn=False)
    before = set(tmp_path.iterdir())
    names = [word for word in words if isinstance(word, str)]
    keys = {"annotations": "lvis_val.json"} if what != "no annotations" else {}
    for more in words:
        keys |= more if isinstance(more, dict) else {}
    with pytest.raises(error, match=message):
        api.convert(*names, **keys)
    assert set(tmp_path.iterdir()) == before


def test_lists_of_lvis_are_read_of_a_coco_file_too(tmp_path):
    content = source()
    data_yaml, path = converted(tmp_path, content, "coco")
    check_round_trip(data_yaml, path, content["images"], "lvis")


def test_counts_are_held_against_the_published_ones():
    split = {"images": 5, "objects": 7, "mended": {"boxes were cut": 2}}
    record = {"classes": 3, "splits": {"train": split, "val": {**split, "mended": {}}}}
    expected = {"classes": 3, "train": {"images": 5, "objects": 8}}
    assert told(record, None, False) == ["train: 2 boxes were cut"]
    assert told(record, expected, False) == [
        *("train: 2 boxes were cut", "train: 5 images, as published"),
        "WARNING: train has 7 objects, published are 8",
    ]
    assert told(record, expected, True) == ["train: 2 boxes were cut", "train: 5 images, as published"]
    assert told(record, {"classes": 4}, False)[0] == "WARNING: there are 3 classes, published are 4"


# The hierarchy of a data YAML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hierarchy", "protocol", "named", "expected"),
    [
        ("auto", "openimages", "tree.json", "/d/tree.json"),
        ("auto", "openimages", None, None),
        ("auto", "coco", "tree.json", None),
        ("none", "openimages", "tree.json", None),
        ("/other.json", "openimages", "tree.json", "/other.json"),
    ],
)
def test_the_hierarchy_is_that_of_the_data_yaml_unless_another_is_named(hierarchy, protocol, named, expected):
    lt = config.resolve({"hierarchy": hierarchy, "protocol": protocol})
    data = {"path": Path("/d"), **({"hierarchy": named} if named else {})}
    assert with_hierarchy(lt, data) == {**lt, "hierarchy": expected}
    assert lt["hierarchy"] == hierarchy


def test_the_suffixes_of_images_are_ultralytics_own():
    assert set(IMAGE_SUFFIXES) == set(IMG_FORMATS)


def test_converting_boxes_needs_neither_torch_nor_ultralytics(tmp_path):
    path = write(tmp_path / "source", source(images=4), drawn=False)
    code = (
        "import sys; from yolo_lt.cli import main\n"
        "words = [f'annotations={sys.argv[1]}', f'out={sys.argv[2]}', 'segments=false']\n"
        "assert main(['convert', 'lvis', *words]) == 0\n"
        "assert not {'torch', 'ultralytics', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "out")], check=True, capture_output=True)
