"""`yolo-lt stats`: the whole diagnosis on a set with known faults, in the terminal and on the page."""

import shutil

import cv2
import numpy as np
import pytest
from conftest import LONG_TAIL, NAMES, write_yolo_set

from yolo_lt import api
from yolo_lt.errors import UsageError


@pytest.fixture
def faulty(tmp_path):
    """A set in which validation has an image of train, and labels have one fault of several kinds."""
    own = write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)
    images, labels = own.parent / "images", own.parent / "labels"
    shutil.copyfile(images / "train" / "0007.png", images / "val" / "0001.png")
    (labels / "train" / "0001.txt").write_text("0 0.5 0.5 0.4 0.4\n0 0.5 0.5 0.4 0.4\n")  # a row twice
    (labels / "train" / "0002.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.5 0.5 0.4 0.4\n")  # two classes, one box
    (labels / "train" / "0003.txt").write_text("0 0.5 0.5 3.0 0.4\n")  # dropped by Ultralytics
    (labels / "train" / "0004.txt").unlink()
    (labels / "train" / "0006.txt").write_text("0 0.5 0.5 0.4 0.02\n")  # 1.3 pixels high
    (labels / "train" / "nobody.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    return own


def test_defects_leaks_and_advice_are_told(faulty, caplog, tmp_path):
    api.stats(faulty, project=str(tmp_path / "runs"))
    text = caplog.text
    for sentence in (
        "labels/train/0001.txt, line 2",
        "labels/train/0002.txt, line 2",
        "labels/train/0003.txt, line 1",
        "1 image without a label file: images/train/0004.png",
        "1 label file without an image",
        "images/val/0001.png shows what images/train/0007.png shows",
        "1 of 8 images of val (12.5 %) show what an image of train shows",
        "To begin with: recipe=recommended",
        "what recipes would change and cost",
    ):
        assert sentence in text, sentence
    page = (tmp_path / "runs" / "stats" / "report.html").read_text()
    assert "labels/train/0006.txt, line 1" in page  # the terminal has no room for a fourth
    titles = ("Where to begin", "Defects of the labels", "Images that are there twice", "What surrounds the classes")
    for title in titles:
        assert title in page
    assert "decoupled" in (tmp_path / "runs" / "stats" / "report.md").read_text()


def test_a_sound_set_says_so(tmp_path, caplog):
    own = write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)
    api.stats(own, project=str(tmp_path / "runs"))
    assert "The labels show no defect." in caplog.text
    assert "No image is there twice." in caplog.text


def test_near_duplicates_are_looked_for_when_asked(tmp_path, caplog):
    own = write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)
    images = own.parent / "images"
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (64, 64), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(images / "train" / "0000.png"), picture)
    cv2.imwrite(str(images / "val" / "0000.png"), cv2.GaussianBlur(picture, (3, 3), 0))
    api.stats(own, project=str(tmp_path / "runs"))
    assert "No image is there twice." in caplog.text
    caplog.clear()
    api.stats(own, duplicates="near", project=str(tmp_path / "runs"))
    assert "images/val/0000.png shows what images/train/0000.png shows" in caplog.text


def test_groups_count_as_scenes(tmp_path, caplog):
    own = write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)
    api.stats(own, groups=r"(\d\d)\.png$", project=str(tmp_path / "runs"))
    assert "scenes per image" in caplog.text
    with pytest.raises(UsageError, match="fits none of the"):
        api.stats(own, groups="(zzz)", project=str(tmp_path / "runs"))


def test_a_validation_split_of_the_training_images_is_told(tmp_path, caplog):
    own = write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)
    own.write_text(own.read_text().replace("val: images/val", "val: images/train"))
    api.stats(own, project=str(tmp_path / "runs"))
    assert "val has the very images of train, so its AP says nothing." in caplog.text


def test_a_validation_split_that_is_not_there_costs_nothing(tmp_path, caplog):
    own = write_yolo_set(tmp_path / "set", LONG_TAIL, NAMES)
    shutil.rmtree(own.parent / "labels" / "val")
    api.stats(own, project=str(tmp_path / "runs"))
    assert "The labels show no defect." in caplog.text
