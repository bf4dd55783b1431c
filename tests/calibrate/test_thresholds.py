import numpy as np
import pytest

from yolo_lt.calibrate.thresholds import read_thresholds
from yolo_lt.errors import LTError

NAMES = ("cat", "dog", "3")


@pytest.fixture
def write(tmp_path):
    def _write(text):
        path = tmp_path / "thresholds.yaml"
        path.write_text(text)
        return path

    return _write


def test_classes_by_name_and_the_rest_by_default(write):
    found = read_thresholds(write("dog: 0.1\n3: 1\n"), NAMES, 0.25)
    np.testing.assert_array_equal(found, [0.25, 0.1, 1.0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dig: 0.1", "no class 'dig'; did you mean 'dog'"),
        ("dog: 1.5", "class 'dog': 1.5 is no confidence"),
        ("dog: -0.1", "class 'dog': -0.1 is no confidence"),
        ("dog: true", "class 'dog': True is no confidence"),
        ("dog: .nan", "class 'dog': nan is no confidence"),
        ("dog: high", "class 'dog': high is no confidence"),
        ("- 0.1", "expected lines of 'class name: confidence'"),
        ("", "expected lines of 'class name: confidence'"),
        ("dog: [", "cannot be read as YAML"),
    ],
)
def test_what_is_wrong_and_where(write, text, says):
    with pytest.raises(LTError, match="thresholds="):
        read_thresholds(write(text), NAMES, 0.25)
    with pytest.raises(LTError) as e:
        read_thresholds(write(text), NAMES, 0.25)
    assert says in str(e.value)
    assert "\n" not in str(e.value)


def test_missing_file(tmp_path):
    with pytest.raises(LTError, match="no such file"):
        read_thresholds(tmp_path / "none.yaml", NAMES, 0.25)
