import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml

from yolo_lt.dataset import demo, frequency_bins
from yolo_lt.errors import LTError

SMALL = demo.DemoSpec(most=50, least=1, val=15, size=64)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(folder, split):
    """Rows (class, x, y, w, h) of every label file of a split."""
    texts = [p.read_text().splitlines() for p in sorted((folder / "labels" / split).glob("*.txt"))]
    return [np.array([line.split() for line in text], float).reshape(-1, 5) for text in texts]


def image_counts(folder, split):
    found = np.concatenate([np.unique(r[:, 0]).astype(int) for r in rows(folder, split)])
    return np.bincount(found, minlength=len(demo.CLASSES))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return demo.generate(tmp_path_factory.mktemp("demo") / "small", seed=3, spec=SMALL).parent


def test_same_seed_same_bytes(small, tmp_path):
    again = demo.generate(tmp_path / "deep" / "again", seed=3, spec=SMALL).parent
    assert files(again) == files(small)


def test_other_seed_other_set(small, tmp_path):
    other = files(demo.generate(tmp_path / "other", seed=4, spec=SMALL).parent)
    assert {k for k in other if k.startswith("images/train")} == {
        k for k in files(small) if k.startswith("images/train")
    }
    assert other["images/train/0000.jpg"] != files(small)["images/train/0000.jpg"]


def test_default_is_long_tailed_with_classes_in_every_bin():
    counts = demo.DemoSpec().train_counts()
    assert len(counts) >= 12
    assert max(counts) >= 50 * min(counts)
    assert counts == sorted(counts, reverse=True)
    bins = frequency_bins(counts)
    assert min(len(bins.head), len(bins.medium), len(bins.tail)) >= 3


def test_the_hollow_twins_of_common_classes_are_rare():
    bins, shapes = frequency_bins(demo.DemoSpec().train_counts()), list(demo.CLASSES.values())
    hollow = [c for c, (_, hole) in enumerate(shapes) if hole > 0]
    assert set(hollow) <= set(bins.tail.tolist())
    twins = {shapes[c][0] for c in hollow}
    assert twins <= {shapes[c][0] for c in (*bins.head, *bins.medium) if shapes[c][1] == 0}
    assert {len(bins.head), len(bins.medium), len(bins.tail)} <= {3, 4, 5}


def test_images_per_class_are_as_planned(small):
    assert image_counts(small, "train").tolist() == SMALL.train_counts()
    assert image_counts(small, "val").tolist() == [15] * len(demo.CLASSES)


def test_yolo_layout(small):
    data = yaml.safe_load((small / "data.yaml").read_text())
    assert list(data["names"].values()) == list(demo.CLASSES)
    for split in ("train", "val"):
        images = sorted(p.stem for p in (small / data[split]).glob("*.jpg"))
        assert images == sorted(p.stem for p in (small / "labels" / split).glob("*.txt"))
        assert images
    assert any(not len(r) for r in rows(small, "train"))  # background images belong to a detection set
    assert cv2.imread(str(small / "images/train/0000.jpg")).shape == (64, 64, 3)


def test_boxes_are_inside_the_image_and_apart(small):
    for r in [*rows(small, "train"), *rows(small, "val")]:
        low, high = r[:, 1:3] - r[:, 3:] / 2, r[:, 1:3] + r[:, 3:] / 2
        assert (low >= 0).all()
        assert (high <= 1).all()
        assert (r[:, 3:] > 0.05).all()
        for i in range(len(r)):
            overlap = np.clip(np.minimum(high[i], high) - np.maximum(low[i], low), 0, None).prod(1)
            assert (np.delete(overlap, i) < 0.05 * r[i, 3:].prod()).all()


@pytest.mark.parametrize("name", list(demo.CLASSES))
def test_boxes_are_tight(name):
    """The paper of every class, drawn white on black, touches all four sides of its box."""
    outline, hole = demo.CLASSES[name]
    picture, taken = np.zeros((192, 192, 3), np.uint8), np.zeros((192, 192), np.uint8)
    points = demo._place(demo.OUTLINES[outline], taken, np.random.default_rng(0))
    demo._draw(picture, points, hole, np.full(3, 255, np.float32), 1.0)
    y, x = np.nonzero(picture[..., 0] > 100)
    drawn = np.array([[x.min(), y.min()], [x.max(), y.max()]])
    assert np.abs(drawn - [points.min(0), points.max(0)]).max() <= 1.5
    cx, cy = np.round(points.mean(0)).astype(int)
    assert name == "moon" or (picture[cy, cx, 0] == 0) == (hole > 0)


def test_a_finished_set_is_reused(small):
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    (small / "labels" / "train.cache").write_bytes(b"left by Ultralytics")
    assert demo.generate(small, seed=3, spec=SMALL) == small / "data.yaml"
    (small / "labels" / "train.cache").unlink()
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*") if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }


def test_an_empty_folder_is_used(tmp_path):
    assert demo.generate(tmp_path, spec=SMALL) == tmp_path / "data.yaml"
    assert (tmp_path / "data.yaml").is_file()


@pytest.mark.parametrize("change", [{"seed": 4}, {"spec": demo.DemoSpec(most=51, least=1, val=15, size=64)}])
def test_another_demo_set_is_refused(small, change):
    with pytest.raises(LTError, match="another seed, size or version"):
        demo.generate(small, **{"seed": 3, "spec": SMALL, **change})


def test_another_generator_version_is_refused(small, monkeypatch):
    monkeypatch.setattr(demo, "VERSION", demo.VERSION + 1)
    with pytest.raises(LTError, match="version"):
        demo.generate(small, seed=3, spec=SMALL)


def test_a_changed_set_is_refused(small):
    label = small / "labels" / "val" / "0000.txt"
    kept = label.read_bytes()
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(LTError, match="changed after it was drawn"):
        demo.generate(small, seed=3, spec=SMALL)
    label.write_bytes(kept)


@pytest.mark.parametrize("manifest", [None, "no json", "[]", json.dumps({"seed": 0})])
def test_foreign_files_are_refused_and_kept(tmp_path, manifest):
    (tmp_path / "holiday.jpg").write_bytes(b"dear to someone")
    if manifest is not None:
        (tmp_path / "demo.json").write_text(manifest)
    before = files(tmp_path)
    with pytest.raises(LTError, match="remove it or choose another folder"):
        demo.generate(tmp_path, spec=SMALL)
    assert files(tmp_path) == before


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LTError, match="choose another folder"):
            demo.generate(folder, spec=SMALL)
    assert files(tmp_path) == {"file": b"x"}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch, error):
    draw, calls = demo._scene, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 20:
            raise error
        return draw(*args)

    monkeypatch.setattr(demo, "_scene", failing)
    with pytest.raises(LTError if isinstance(error, OSError) else KeyboardInterrupt):
        demo.generate(tmp_path / "set", spec=SMALL)
    assert len(calls) == 20
    assert not list(tmp_path.iterdir())


def test_needs_no_network_library():
    code = "import sys, yolo_lt.dataset.demo; print({'torch', 'ultralytics'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
