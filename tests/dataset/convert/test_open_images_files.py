"""Which of Open Images' official files is what, and its class descriptions."""

import pytest

from yolo_lt.dataset.convert.open_images import FOLDERS, class_file, find_files, hierarchy_file, read_classes
from yolo_lt.errors import LTError


def folder_of(tmp_path, *names):
    for name in names:
        (tmp_path / name).write_text("")
    return tmp_path


def write(path, *lines, end="\n"):
    path.write_bytes((end.join(lines) + end).encode())
    return path


def found(folder):
    return {
        split: (boxes.relative_to(folder).name, [path.name for path in labels])
        for split, (boxes, labels) in find_files(folder).items()
    }


# official names -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "files",
    [
        {  # V4 and V5
            "train": ("train-annotations-bbox.csv", ["train-annotations-human-imagelabels-boxable.csv"]),
            "val": ("validation-annotations-bbox.csv", ["validation-annotations-human-imagelabels-boxable.csv"]),
            "test": ("test-annotations-bbox.csv", ["test-annotations-human-imagelabels-boxable.csv"]),
        },
        {  # V6, and V5 where V6 has none
            "train": ("oidv6-train-annotations-bbox.csv", ["oidv6-train-annotations-human-imagelabels.csv"]),
            "val": ("validation-annotations-bbox.csv", ["validation-annotations-human-imagelabels.csv"]),
        },
        {  # V7, with labels of V5
            "train": (
                "oidv6-train-annotations-bbox.csv",
                [
                    "oidv7-train-annotations-human-imagelabels.csv",
                    "train-annotations-human-imagelabels-boxable.csv",
                ],
            ),
            "val": ("validation-annotations-bbox.csv", ["oidv7-val-annotations-human-imagelabels.csv"]),
            "test": ("test-annotations-bbox.csv", ["oidv7-test-annotations-human-imagelabels.csv"]),
        },
        {  # Challenge 2019
            "train": (
                "challenge-2019-train-detection-bbox.csv",
                ["challenge-2019-train-detection-human-imagelabels.csv"],
            ),
            "val": (
                "challenge-2019-validation-detection-bbox.csv",
                ["challenge-2019-validation-detection-human-imagelabels.csv"],
            ),
        },
        {  # Challenge 2018
            "train": (
                "challenge-2018-train-annotations-bbox.csv",
                ["challenge-2018-train-annotations-human-imagelabels.csv"],
            ),
        },
        {"test": ("test-annotations-bbox.csv", [])},
    ],
)
def test_the_files_of_every_version_are_found_among_others(tmp_path, files):
    names = [name for boxes, labels in files.values() for name in (boxes, *labels)]
    others = (
        "train-annotations-machine-imagelabels.csv",
        "train-annotations-object-segmentation.csv",
        "train-annotations-bbox_expanded.csv",
        "challenge-2019-train-segmentation-bbox.csv",
        "oidv6-train-annotations-vrd.csv",
        "train-images-boxable-with-rotation.csv",
        "my-train-annotations-bbox.csv",
    )
    folder = folder_of(tmp_path, *names, *others)
    (folder / "validation-annotations-bbox.csv.d").mkdir()
    assert found(folder) == files
    assert list(find_files(folder)) == [split for split in FOLDERS if split in files]


def test_two_files_of_one_role_are_an_error_that_names_both(tmp_path):
    folder = folder_of(tmp_path, "train-annotations-bbox.csv", "oidv6-train-annotations-bbox.csv")
    with pytest.raises(LTError) as error:
        find_files(folder)
    assert str(error.value) == (
        f"{folder}: several files of boxes of train: oidv6-train-annotations-bbox.csv, train-annotations-bbox.csv; "
        "keep one of them in the folder"
    )


def test_validation_and_val_are_one_split(tmp_path):
    labels = ("oidv7-val-annotations-human-imagelabels.csv", "validation-annotations-human-imagelabels.csv")
    folder = folder_of(tmp_path, "validation-annotations-bbox.csv", *labels)
    with pytest.raises(LTError, match=f"several files of image labels of val: {labels[0]}, {labels[1]}; keep one"):
        find_files(folder)


def test_a_missing_box_file_is_named_with_what_was_found(tmp_path):
    with pytest.raises(LTError, match=r"no such folder$"):
        find_files(tmp_path / "none")
    with pytest.raises(LTError, match=r"expected train-annotations-bbox.csv, or its name in .*; found: no files$"):
        find_files(tmp_path)
    folder_of(tmp_path, "notes.txt", "train-annotations-bbox.txt")
    with pytest.raises(LTError, match=r"no boxes; .*; found: notes.txt, train-annotations-bbox.txt$"):
        find_files(tmp_path)
    folder_of(tmp_path, "train-annotations-bbox.csv", "validation-annotations-human-imagelabels-boxable.csv")
    with pytest.raises(
        LTError, match=r"imagelabels-boxable.csv has no boxes beside it; expected validation-annotations"
    ):
        find_files(tmp_path)
    folder_of(tmp_path, "validation-annotations-bbox.csv.gz")
    with pytest.raises(LTError, match=r"has no boxes beside it; unpack validation-annotations-bbox.csv.gz$"):
        find_files(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "class-descriptions-boxable.csv",
        "oidv6-class-descriptions-boxable.csv",
        "oidv7-class-descriptions-boxable.csv",
        "challenge-2018-class-descriptions-500.csv",
        "challenge-2019-classes-description-500.csv",
    ],
)
def test_the_class_file_is_found(tmp_path, name):
    folder = folder_of(
        tmp_path, name, "oidv7-class-descriptions.csv", "challenge-2019-classes-description-segmentable.csv"
    )
    assert class_file(folder) == folder / name


def test_the_class_file_must_be_one_and_that_of_all_classes_is_none(tmp_path):
    folder = folder_of(tmp_path, "oidv7-class-descriptions.csv")
    with pytest.raises(
        LTError, match=r"no class descriptions; expected class-descriptions-boxable.csv, .*; found: oidv7"
    ):
        class_file(folder)
    folder_of(tmp_path, "class-descriptions-boxable.csv", "challenge-2019-classes-description-500.csv")
    with pytest.raises(
        LTError, match=r"several files of class descriptions: challenge-2019.*, class-descriptions-boxable"
    ):
        class_file(folder)


@pytest.mark.parametrize(
    "name",
    ["bbox_labels_600_hierarchy.json", "bbox_labels_500_hierarchy.json", "challenge-2019-label500-hierarchy.json"],
)
def test_the_hierarchy_is_found_if_there_is_one(tmp_path, name):
    assert hierarchy_file(tmp_path) is None
    folder = folder_of(tmp_path, name, "challenge-2019-label300-segmentable-hierarchy.json")
    assert hierarchy_file(folder) == folder / name
    folder_of(tmp_path, "bbox_labels_600_hierarchy.json", "bbox_labels_500_hierarchy.json")
    with pytest.raises(LTError, match=r"several files of label hierarchy: "):
        hierarchy_file(folder)


# class descriptions ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("header", [[], ["LabelName,DisplayName"], ["id,name"], ["\ufeffLabelName,DisplayName"]])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_classes_are_read_with_and_without_a_header(tmp_path, header, end):
    lines = ["/m/011k07,Tortoise", '/m/03p1r4,"Cup, paper"', "/m/0h8l4fh,Light bulb"]
    classes = read_classes(write(tmp_path / "classes.csv", *header, *lines, end=end))
    assert classes.names == ("Tortoise", "Cup, paper", "Light bulb")
    assert classes.labels == ("/m/011k07", "/m/03p1r4", "/m/0h8l4fh")
    assert classes.ids == (1, 2, 3)


def test_a_third_column_is_an_id_and_equal_names_get_their_labels(tmp_path):
    path = write(tmp_path / "classes.csv", "/m/04rmv,Mouse,326", "/m/01yrx,Cat,259", "/m/020lf,Mouse,450", "/m/x,,7")
    assert read_classes(path).names == ("Mouse (/m/04rmv)", "Cat", "Mouse (/m/020lf)", "/m/x")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["/m/a,Ant", "/m/b,Bee", "/m/a,Cat"], "line 3: the label /m/a is listed twice, as 'Ant' and 'Cat'"),
        (["/m/a,Ant", "b,Bee"], "line 2: expected a label and a name, such as /m/01yrx,Cat, found 'b,Bee'"),
        (
            ["/m/a,Cup, paper"],
            "line 1: expected a label and a name, such as /m/01yrx,Cat, found '/m/a,Cup,paper'; quote",
        ),
        (["/m/a"], "line 1: expected a label and a name, such as /m/01yrx,Cat, found '/m/a'"),
        (["/m/a,Ant (/m/c)", "/m/b,Ant", "/m/c,Ant"], "two classes are called 'Ant (/m/c)'; rename one"),
        (["LabelName,DisplayName"], "no classes; expected lines such as"),
        ([""], "is empty"),
        (["/m/a,Fianc\udce9"], "line 1: not UTF-8 text"),
        (["PK\x03\x04"], "is packed (zip); unpack it"),
    ],
)
def test_what_is_no_class_file_is_named(tmp_path, lines, why):
    path = tmp_path / "classes.csv"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    with pytest.raises(LTError) as error:
        read_classes(path)
    assert why in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_missing_class_file_is_named(tmp_path):
    with pytest.raises(LTError, match=r"none\.csv: no such file"):
        read_classes(tmp_path / "none.csv")
    with pytest.raises(LTError, match=r"cannot be read: "):
        read_classes(tmp_path)
