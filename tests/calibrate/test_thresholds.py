import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yolo_lt.calibrate.thresholds import LEAST_BOXES, choose_thresholds, read_thresholds, write_thresholds
from yolo_lt.errors import LTError, UsageError

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


@pytest.mark.parametrize("rule", ["f1", 0.5, 1])
def test_a_rule_is_no_file(rule):
    with pytest.raises(UsageError, match=f"thresholds={rule} is chosen by calibrate") as e:
        read_thresholds(rule, NAMES, 0.25)
    assert e.value.exit_code == 2


AWKWARD = (
    *("1", "1.5", "0x10", "1e3", "true", "null", "no", "~", "", " ", "-", "?", "2024-01-01", "12:30:45"),
    *("it's", 'a "dog"', "cat: big", "a # b", "- x", "[1, 2]", "{a: b}", "&a", "*a", "!!int", "<<", "=", "@", "%", "|"),
    *("Äpfel", "猫", "🐕", "a\nb", "a\tb", "a\\b", "x" * 200, "a, b/c (d)"),
)


def test_what_is_written_is_read(tmp_path):
    thresholds = np.linspace(0, 1, len(AWKWARD)).round(4)
    path = write_thresholds(tmp_path / "thresholds.yaml", AWKWARD, thresholds)
    np.testing.assert_array_equal(read_thresholds(path, AWKWARD, -1), thresholds)
    np.testing.assert_array_equal(read_thresholds(str(path), AWKWARD[::-1], -1), thresholds[::-1])
    assert [p.name for p in tmp_path.iterdir()] == ["thresholds.yaml"]


NAME = st.text(st.characters(codec="utf-8", exclude_characters="\x85"), max_size=12)  # PyYAML reads U+0085 as a blank


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(NAME, st.floats(0, 1), min_size=1, max_size=8))
def test_whatever_the_names_what_is_written_is_read_with_four_digits(tmp_path, content):
    values = np.array(list(content.values()))
    path = write_thresholds(tmp_path / "thresholds.yaml", list(content), values)
    np.testing.assert_allclose(read_thresholds(path, list(content), -1), values, atol=0.5001e-4)


def test_the_file_is_one_line_per_class_in_the_order_of_the_classes(tmp_path):
    path = write_thresholds(tmp_path / "thresholds.yaml", ["Äpfel", "zebra", "ant"], np.array([0.12345, 1, 0.3]))
    assert path.read_text(encoding="utf-8") == "Äpfel: 0.12345\nzebra: 1.0\nant: 0.3\n"
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == ["Äpfel", "zebra", "ant"]


def choose(found, boxes, rule):
    """Thresholds from tuples (class, score, right)."""
    classes, scores, right = (np.array([d[i] for d in found]) for i in range(3))
    return choose_thresholds(scores.astype(float), classes.astype(int), right.astype(bool), np.array(boxes), rule)


def shown(found, of, threshold, strictly=False):
    """Right, and all, detections of some classes that a threshold shows."""
    kept = [d[2] for d in found if d[0] in of and (d[1] > threshold if strictly else d[1] >= threshold)]
    return sum(kept), len(kept)


def groups_of(boxes):
    """Classes that share a threshold: a common one with itself, the rare ones with each other."""
    rare = [c for c, n in enumerate(boxes) if n < LEAST_BOXES]
    return [[c] for c, n in enumerate(boxes) if n >= LEAST_BOXES] + ([rare] if rare else [])


@st.composite
def detections_and_boxes(draw):
    """Scores on a coarse grid, so that many are equal; never more right ones than objects."""
    one = st.tuples(st.integers(0, 3), st.integers(1, 19).map(lambda n: n / 20), st.booleans())
    found = draw(st.lists(one, max_size=40))
    least = [sum(d[0] == c and d[2] for d in found) for c in range(4)]
    return found, [n + draw(st.integers(0, 25)) for n in least]


@settings(max_examples=200, deadline=None)
@given(detections_and_boxes())
def test_no_other_cut_has_a_better_f1(case):
    found, boxes = case
    thresholds = choose(found, boxes, "f1")
    for classes in groups_of(boxes):
        size = sum(boxes[c] for c in classes)

        def f1(threshold, strictly=False, classes=classes, size=size):
            hits, count = shown(found, classes, threshold, strictly)
            return 2 * hits / (count + size) if count else 0

        at = thresholds[classes]
        assert (at == at[0]).all()
        best = max((f1(d[1]) for d in found if d[0] in classes), default=0)
        assert f1(at[0]) == f1(at[0], strictly=True) == best
        assert best or at[0] == 1


@settings(max_examples=200, deadline=None)
@given(detections_and_boxes(), st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.55, 0.6, 0.7, 0.9, 0.99]))
def test_the_lowest_cut_with_the_precision_is_taken(case, least):
    found, boxes = case
    thresholds = choose(found, boxes, least)
    for classes in groups_of(boxes):
        at = thresholds[classes]
        assert (at == at[0]).all()
        cuts = [d[1] for d in found if d[0] in classes]
        good = [t for t in cuts if shown(found, classes, t)[0] / shown(found, classes, t)[1] >= least]
        if good:
            assert shown(found, classes, at[0]) == shown(found, classes, at[0], strictly=True)
            assert shown(found, classes, at[0]) == shown(found, classes, min(good))
        else:
            assert at[0] == 1


ONE = [(0, 0.9, 1), (0, 0.8, 1), (0, 0.6, 0), (0, 0.4, 1), (0, 0.3, 0), (0, 0.2, 0)]


def test_a_threshold_lies_halfway_to_the_next_score_below():
    assert choose(ONE, [10], "f1") == pytest.approx([0.35])  # 3 of 4 shown: 6 / 14; 2 of 2: 4 / 12
    assert choose([(0, 0.9, 1), *[(0, 0.5, 0)] * 21, *[(0, 0.2, 1)] * 2], [10], "f1") == pytest.approx(
        [0.7]
    )  # 2/11, 6/34
    assert choose(ONE, [10], 0.9) == pytest.approx([0.7])
    assert choose(ONE, [10], 0.75) == pytest.approx([0.35])
    assert choose(ONE, [10], 0.5) == pytest.approx([0.1])  # all six, and nothing below them but 0


@pytest.mark.parametrize(
    ("right", "count", "least"), [(55, 100, 0.55), (7, 100, 0.07), (14, 25, 0.56), (2, 3, 2 / 3), (9, 10, 0.9)]
)
def test_exactly_the_precision_that_is_asked_for_is_enough(right, count, least):
    found = [(0, 0.5, k < right) for k in range(count)]
    assert choose(found, [200], least).tolist() == [0.25]
    assert choose(found, [200], least + 1e-9).tolist() == [1]


def test_equal_scores_are_shown_together_or_not_at_all():
    tied = [(0, 0.9, 1), (0, 0.5, 1), (0, 0.5, 0), (0, 0.5, 0), (0, 0.2, 0)]
    for found in (tied, tied[::-1]):
        assert choose(found, [10], 0.9) == pytest.approx([0.7])  # the right one at 0.5 would need two wrong ones
        assert choose(found, [10], 0.5) == pytest.approx([0.35])


def test_rare_classes_share_the_threshold_that_is_best_for_all_of_them():
    common, few, fewer = LEAST_BOXES, LEAST_BOXES - 1, 1
    found = [(1, 0.9, 1), (1, 0.7, 0), (1, 0.5, 0), (2, 0.6, 1), (2, 0.55, 1), (0, 0.3, 1), (0, 0.1, 0)]
    # shown from 0.9, 0.7, 0.6, 0.55, 0.5: F1 over 11 objects 2/11, 2/12, 4/13, 6/14, 6/15
    thresholds = choose(found, [common, few, fewer, 0, 1], "f1")
    assert thresholds == pytest.approx([0.2, 0.525, 0.525, 0.525, 0.525])
    alone = choose(found, [common, common, fewer, 0, 1], "f1")
    assert alone == pytest.approx([0.2, 0.8, 0.275, 0.275, 0.275])


@pytest.mark.parametrize("rule", ["f1", 0.3])
def test_a_class_that_is_never_found_is_never_shown(rule):
    found = [(0, 0.9, 0), (0, 0.8, 0), (2, 0.5, 1)]
    assert choose(found, [20, 20, 20, 0], rule).tolist() == [1, 1, 0.25, 1]


def test_a_precision_that_is_not_reached_shows_nothing():
    found = [(0, 0.9, 0), (0, 0.8, 1), (1, 0.9, 0), (1, 0.3, 1)]
    assert choose(found, [20, 5], 0.6).tolist() == [1, 1]
    assert choose(found, [20, 5], 0.5).tolist() == [0.4, 0.15]


@pytest.mark.parametrize("rule", ["f1", 0.3])
def test_without_any_detection_nothing_is_shown(rule):
    none = np.zeros(0)
    thresholds = choose_thresholds(none, none.astype(int), none.astype(bool), np.array([20, 3]), rule)
    assert thresholds.tolist() == [1, 1]


@pytest.mark.parametrize("rule", [0, 1, -0.1, 1.5, float("nan"), "0", "1.2"])
def test_a_precision_is_a_number_between_0_and_1(rule):
    with pytest.raises(UsageError, match="thresholds="):
        choose(ONE, [10], rule)
