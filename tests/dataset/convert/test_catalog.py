"""Which files a conversion reads: official ones by their name, others by what they say of their split."""

import json
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from yolo_lt.dataset.convert.catalog import FORMATS, checklist, datasets, find_sources
from yolo_lt.dataset.convert.source import SPLITS
from yolo_lt.errors import LTError, UsageError

CFG = Path(__file__).parents[3] / "cfg" / "datasets"
KEYS = {"format", "homepage", "splits", "files", "images", "expected"}


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def found(name, annotations):
    """The files of every split in their order, as paths below a folder."""
    return {split: [p.as_posix() for p in paths] for split, paths in find_sources(name, str(annotations)).files.items()}


# cfg/datasets ---------------------------------------------------------------------------------------------------------


def test_every_file_of_cfg_is_packaged_and_read():
    names = {path.stem for path in CFG.glob("*.yaml")}
    assert names == set(datasets()) == {"lvis", "lvis-minival", "coco-lt", "open-images-v7"}
    packaged = {f.name for f in files("yolo_lt.cfg.datasets").iterdir() if f.name.endswith(".yaml")}
    assert packaged == {f"{name}.yaml" for name in names}
    text = (CFG.parents[1] / "pyproject.toml").read_text()
    assert '"yolo_lt.cfg.datasets" = ["*.yaml"]' in text


@pytest.mark.parametrize("name", sorted(path.stem for path in CFG.glob("*.yaml")))
def test_a_file_of_cfg_is_well_formed(name):
    told = yaml.safe_load((CFG / f"{name}.yaml").read_text())
    assert KEYS <= set(told) <= KEYS | {"also", "long_tail"}
    assert told["format"] in FORMATS
    assert set(told.get("also", {})) <= set(told["files"])
    assert set(told["splits"]) <= set(SPLITS.values())
    assert next(iter(told["splits"])) == "train"
    assert all(split[0] in told["files"] for split in told["splits"].values()), "the first name has an address"
    for url in (told["homepage"], *told["files"].values(), *told["images"].values()):
        assert urlsplit(url).scheme in ("http", "https")
        assert urlsplit(url).netloc
    for file, url in told["files"].items():
        archive = urlsplit(url).path.rpartition("/")[2]
        assert archive == file or archive.endswith((".zip", "_inserted_image_name.json")), file
    assert set(told["expected"]) <= {"classes", *told["splits"]}
    assert told["expected"]["classes"] > 0
    for split in told["splits"]:
        counts = told["expected"].get(split, {})
        assert set(counts) <= {"images", "objects", "groups"}
        assert all(isinstance(count, int) and count > 0 for count in counts.values())


def test_the_long_tail_of_coco_fits_its_classes():
    told = datasets()["coco-lt"]
    assert len(told["long_tail"]) == told["expected"]["classes"] == 80
    assert all(1 <= images <= instances for images, instances in told["long_tail"].values())


@pytest.mark.realdata
def test_the_long_tail_of_coco_is_the_published_one(shared):
    published = json.loads((shared / "annotations" / "coco_lt_detection_simcal.json").read_text())
    counts = {c["name"]: [c["image_count"], c["instance_count"]] for c in published["categories"]}
    assert datasets()["coco-lt"]["long_tail"] == counts
    assert list(datasets()["coco-lt"]["long_tail"]) == list(counts)
    assert f"which has {published['images']} images" in (CFG / "coco-lt.yaml").read_text()


@pytest.mark.realdata
def test_the_classes_of_the_official_sets_are_as_many_as_their_lists(shared):
    lvis = (shared / "annotations" / "lvis_v1_categories.csv").read_text().splitlines()
    expected = datasets()["lvis"]["expected"]
    assert (expected["classes"], expected["train"]["objects"]) == (
        len(lvis) - 1,
        sum(int(x.split(",")[5]) for x in lvis[1:]),
    )
    open_images = (shared / "annotations" / "openimages_class_descriptions_boxable.csv").read_text().splitlines()
    labels = [line for line in open_images if line.startswith("/")]
    assert datasets()["open-images-v7"]["expected"]["classes"] == len(labels)


# Official files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "annotations/"])
def test_official_files_are_found_in_a_folder_and_below_it(place, tmp_path):
    touch(tmp_path, f"{place}lvis_v1_train.json", f"{place}lvis_v1_val.json", "other_train.json")
    sources = find_sources("lvis", str(tmp_path))
    assert sources.format == "lvis"
    assert sources.files == {split: [tmp_path / f"{place}lvis_v1_{split}.json"] for split in ("train", "val")}
    assert list(sources.files) == ["train", "val"]
    assert sources.expected == datasets()["lvis"]["expected"]


def test_one_of_several_official_names_will_do(tmp_path):
    touch(tmp_path, "lvis_v1_train.json", "lvis_v1_minival_inserted_image_name.json")
    sources = find_sources("lvis-minival", str(tmp_path))
    assert sources.files["val"] == [tmp_path / "lvis_v1_minival_inserted_image_name.json"]
    assert sources.format == "lvis"


def test_coco_is_found_by_the_name_of_its_files(tmp_path):
    names = [f"{kind}_{split}2017.json" for kind in ("instances", "captions", "stuff") for split in ("train", "val")]
    touch(tmp_path, *(f"annotations/{name}" for name in names))
    expected = {split: [tmp_path / f"annotations/instances_{split}2017.json"] for split in ("train", "val")}
    for name in ("coco", "coco-lt"):
        sources = find_sources(name, str(tmp_path))
        assert (sources.format, sources.files) == ("coco", expected)
    assert find_sources("coco", str(tmp_path)).expected is None
    assert sources.expected["train"] == {"images": 118287}


@pytest.mark.parametrize("name", [name for name, told in datasets().items() if told["format"] != "openimages"])
def test_a_missing_official_file_is_named_with_where_it_comes_from(name, tmp_path):
    told = datasets()[name]
    for split, names in told["splits"].items():
        folder = touch(tmp_path / split, *(n[0] for s, n in told["splits"].items() if s != split), "x.json")
        with pytest.raises(LTError) as caught:
            find_sources(name, str(folder))
        text = str(caught.value)
        assert text.startswith(f"annotations={folder}: {' or '.join(names)} is missing; it comes from http")
        assert told["files"][names[0]] in text
        assert "To convert other files, name them: annotations=train:FILE,val:FILE" in text


def test_an_archive_that_lies_there_is_to_be_unpacked(tmp_path):
    touch(tmp_path, "lvis_v1_train.json.zip", "lvis_v1_val.json")
    with pytest.raises(
        LTError, match=r"lvis_v1_train\.json is missing; unpack .*lvis_v1_train\.json\.zip\. To convert"
    ):
        find_sources("lvis", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lvis-minival", "lvis_v1_minival_inserted_image_name.json"),
        ("open-images-v7", "class-descriptions-boxable.csv"),
    ],
)
def test_the_checklist_takes_other_names_of_a_file(name, file, tmp_path):
    (tmp_path / file).touch()
    assert [path for _, path, _ in checklist(name, tmp_path) if path] == [tmp_path / file]


def test_the_checklist_has_every_official_file(tmp_path):
    touch(tmp_path, "annotations/lvis_v1_val.json")
    rows = checklist("lvis", tmp_path)
    assert [(file, path) for file, path, _ in rows] == [
        ("lvis_v1_train.json", None),
        ("lvis_v1_val.json", tmp_path / "annotations" / "lvis_v1_val.json"),
    ]
    assert all(url == datasets()["lvis"]["files"][file] for file, _, url in rows)


# Files by their split -------------------------------------------------------------------------------------------------


def test_a_folder_for_each_split(tmp_path):
    """As Roboflow exports."""
    touch(tmp_path, *(f"{split}/_annotations.coco.json" for split in ("test", "train", "valid")))
    assert list(found("coco", tmp_path).items()) == [
        (split, [f"{tmp_path}/{folder}/_annotations.coco.json"])
        for split, folder in (("train", "train"), ("val", "valid"), ("test", "test"))
    ]


NAMES = {
    "instances_train2017.json": "train",
    "lvis_v1_val.json": "val",
    "lvis_v1_minival.json": "minival",
    "lvis_v0.5_train.json": "train",
    "TRAIN.json": "train",
    "instancesTrain.json": "train",
    "my-validation-set.json": "val",
    "valid.json": "val",
    "training.json": "train",
    "image_info_test-dev2017.json": "test",
    "val/a.json": "val",
    "train/val.json": "val",
    "contest/a.json": "",
    "my_test_run/a.json": "",
    "train2017/a.json": "train",
    "constraints.json": "",
    "latest.json": "",
    "evaluation.json": "",
    "train_val.json": "",
    "a.json": "",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_its_split(name, tmp_path):
    path = touch(tmp_path / "set", name) / name
    if NAMES[name]:
        assert found("coco", path) == {NAMES[name]: [str(path)]}
        return
    with pytest.raises(LTError, match=r"its name says no split; write train:.* or val:"):
        find_sources("coco", str(path))


def test_splits_may_be_told(tmp_path):
    touch(tmp_path, "a.json", "b.json", "train.json")
    words = f"val:{tmp_path}/b.json, training:{tmp_path}/a.json"
    assert list(found("lvis", words).items()) == [
        ("train", [f"{tmp_path}/a.json"]),
        ("val", [f"{tmp_path}/b.json"]),
    ]
    assert found("coco", f"test:{tmp_path}/train.json,") == {"test": [f"{tmp_path}/train.json"]}


def test_a_file_may_have_a_comma_in_its_name(tmp_path):
    touch(tmp_path, "a, b/train.json")
    assert found("coco", tmp_path / "a, b" / "train.json") == {"train": [f"{tmp_path}/a, b/train.json"]}


def test_other_files_than_the_official_ones_are_not_held_against_the_published_counts(tmp_path):
    touch(tmp_path, "a.json", "lvis_v1_val.json")
    sources = find_sources("lvis", f"train:{tmp_path}/a.json,{tmp_path}/lvis_v1_val.json")
    assert sources.expected == {"classes": 1203, "val": {"images": 19809}}
    assert find_sources("lvis", f"train:{tmp_path}/a.json").expected is None


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "list", "told"])
def test_two_files_of_one_split_are_refused(form, tmp_path):
    touch(tmp_path, "a_train.json", "b_train.json")
    paths = [f"{tmp_path}/a_train.json", f"{tmp_path}/b_train.json"]
    given = {"folder": str(tmp_path), "list": ",".join(paths), "told": f"val:{paths[0]},validation:{paths[1]}"}[form]
    with pytest.raises(LTError, match=r"a_train\.json and .*b_train\.json are both of split (train|val)"):
        find_sources("coco", given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{}/none", "annotations={}/none: no such file or folder"),
        ("train:{}/none.json", "annotations={}/none.json: no such file or folder"),
        ("train:{}", "annotations={}: is a folder, where a file is needed"),
        ("dev:{}/a.json", "annotations=dev:{}/a.json: no such file or folder"),
        (" , ", "annotations= , : no such file or folder"),
        ("{}/empty", "annotations={}/empty: no COCO file whose name says train, val or test"),
    ],
)
def test_what_is_not_there_is_named(given, message, tmp_path):
    touch(tmp_path, "a.json", "empty/a.txt", "empty/a.json")
    with pytest.raises(LTError) as caught:
        find_sources("coco", given.format(tmp_path))
    assert str(caught.value).startswith(message.format(tmp_path))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lvs", "did you mean 'lvis'?"),
        ("cocolt", "did you mean 'coco-lt'?"),
        ("open-images", "did you mean 'openimages'?"),
        ("open-images-v6", "did you mean 'open-images-v7'?"),
        ("voc", "give one of lvis, coco, openimages, coco-lt, lvis-minival, open-images-v7"),
    ],
)
def test_a_mistyped_data_set_is_told(name, hint, tmp_path):
    with pytest.raises(UsageError) as caught:
        find_sources(name, str(tmp_path))
    assert str(caught.value) == f"convert {name}: no such format or data set; {hint}"


@pytest.mark.parametrize("name", ["openimages", "open-images-v7"])
def test_open_images_needs_its_folder(name, tmp_path):
    with pytest.raises(LTError, match="no such folder; give the one that holds Open Images' CSV files"):
        find_sources(name, str(tmp_path / "train.csv"))
