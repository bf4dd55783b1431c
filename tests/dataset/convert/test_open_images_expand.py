"""What Open Images' hierarchy adds: compared with a slow expansion, label by label, and on cases told in words."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.convert.open_images import expand, read_classes
from yolo_lt.dataset.convert.open_images import hierarchy as open_images_hierarchy
from yolo_lt.dataset.convert.open_images.pairs import pairs_of
from yolo_lt.dataset.convert.outlines import Outlines
from yolo_lt.dataset.convert.source import Categories, Split
from yolo_lt.dataset.rows import Boxes, Lists
from yolo_lt.errors import LTError
from yolo_lt.evaluate.hierarchy import read_hierarchy

# animal above pet and cat, pet above cat and dog, as labels may have several parents; a bus is none of them
CLASSES = ("animal", "bus", "cat", "dog", "pet")
ANIMAL, BUS, CAT, DOG, PET = range(5)
PARENTS = {"animal": set(), "pet": {"animal"}, "cat": {"pet", "animal"}, "dog": {"pet", "animal", "unlisted"}}
CATEGORIES = Categories(CLASSES, (1, 2, 3, 4, 5), labels=CLASSES)
BOX = {x: (x / 10, 0.5, 0.125, 0.25) for x in range(10)}


def boxes_of(images):
    """Boxes from a list of (class, place) per image."""
    flat = [row for image in images for row in image]
    return Boxes(
        np.cumsum([0, *map(len, images)]),
        np.array([c for c, _ in flat], np.int32),
        np.array([BOX[x] for _, x in flat], np.float32).reshape(-1, 4),
    )


def split_of(objects, groups=None, positive=None, negative=None, partial=None, **more):
    images = tuple(f"{i}.jpg" for i in range(len(objects)))
    lists = (rows and Lists.of(rows) for rows in (positive, negative, partial))
    return Split(CATEGORIES, images, boxes_of(objects), boxes_of(groups or [[]] * len(objects)), *lists, **more)


def rows(lists):
    return [lists[i].tolist() for i in range(len(lists))]


def as_told(boxes):
    """(class, place) per image."""
    found = [boxes.of(i) for i in range(len(boxes.offsets) - 1)]
    return [[(c, round(x[0] * 10)) for c, x in zip(cls.tolist(), box.tolist(), strict=True)] for cls, box in found]


def test_a_box_counts_for_every_ancestor_and_copies_stand_behind_it():
    split = split_of([[(CAT, 1), (BUS, 2)], [], [(PET, 3)]], [[], [(DOG, 4)], []])
    expanded = expand(split, PARENTS)
    assert as_told(expanded.objects) == [[(CAT, 1), (ANIMAL, 1), (PET, 1), (BUS, 2)], [], [(PET, 3), (ANIMAL, 3)]]
    assert as_told(expanded.groups) == [[], [(DOG, 4), (ANIMAL, 4), (PET, 4)], []]
    assert (expanded.positive, expanded.negative, expanded.not_exhaustive) == (None, None, None)
    assert as_told(split.objects) == [[(CAT, 1), (BUS, 2)], [], [(PET, 3)]], "the given split stays as it is"


def test_what_the_image_has_already_is_not_added_but_its_own_equal_boxes_stay():
    split = split_of([[(CAT, 1), (ANIMAL, 1), (DOG, 1), (CAT, 1), (CAT, 2)], [(ANIMAL, 2)]], [[(CAT, 1)], []])
    expanded = expand(split, PARENTS)
    assert as_told(expanded.objects) == [
        [(CAT, 1), (PET, 1), (ANIMAL, 1), (DOG, 1), (CAT, 1), (CAT, 2), (ANIMAL, 2), (PET, 2)],
        [(ANIMAL, 2)],
    ]
    assert as_told(expanded.groups) == [[(CAT, 1), (ANIMAL, 1), (PET, 1)], []], "a group is compared with groups"


def test_equal_boxes_of_two_images_are_two_boxes():
    expanded = expand(split_of([[(ANIMAL, 1), (ANIMAL, 1)], [(CAT, 1), (CAT, 1)]]), PARENTS)
    assert as_told(expanded.objects) == [[(ANIMAL, 1)] * 2, [(CAT, 1), (ANIMAL, 1), (PET, 1), (CAT, 1)]]


def test_pairs_of_many_images_and_classes_need_large_numbers():
    last = pairs_of(np.array([9_000_000, 0], np.int32), np.array([599, 1], np.uint16), 9_000_001, 600)
    assert last.tolist() == [1, 9_000_000 * 600 + 599]
    assert pairs_of(np.array([1]), np.array([1]), 2, 600).dtype == np.int32, "half the memory where it is enough"


def test_positives_hold_above_negatives_below_and_positive_wins():
    split = split_of(
        [[], [(CAT, 1)], [], []],
        positive=[[CAT], [CAT], [], [BUS]],
        negative=[[DOG], [PET], [ANIMAL], []],
        partial=[[CAT], [], [], [BUS]],
        repairs=Counter({"a": 1}),
    )
    expanded = expand(split, PARENTS)
    assert rows(expanded.positive) == [[ANIMAL, CAT, PET], [ANIMAL, CAT, PET], [], [BUS]]
    assert rows(expanded.negative) == [[DOG], [DOG], [ANIMAL, CAT, DOG, PET], []]
    assert expanded.repairs == {
        "a": 1,
        "classes of an image became both present and absent by the hierarchy, and count as present": 2,
    }


@pytest.mark.parametrize(
    ("objects", "groups", "positive", "partial", "wanted"),
    [
        ([(CAT, 1)], [], [CAT, PET, ANIMAL], [PET, ANIMAL], []),  # verified above, boxed below
        ([(CAT, 1)], [], [CAT, DOG, ANIMAL], [DOG, ANIMAL], [ANIMAL, DOG, PET]),  # an unboxed dog is an unboxed pet
        ([(CAT, 1)], [(CAT, 2)], [CAT], [CAT], [ANIMAL, CAT, PET]),
        ([], [(DOG, 2)], [DOG], [DOG], [ANIMAL, DOG, PET]),
        ([(ANIMAL, 1)], [], [ANIMAL, CAT], [CAT], [ANIMAL, CAT, PET]),
        ([(CAT, 1)], [], [CAT], [CAT], [ANIMAL, CAT, PET]),  # said by the source, though it is boxed
        ([(CAT, 1), (BUS, 2)], [], [CAT, BUS], [], []),
    ],
)
def test_what_is_not_exhaustive_afterwards(objects, groups, positive, partial, wanted):
    split = split_of([objects], [groups], [positive], [[]], [partial])
    assert rows(expand(split, PARENTS).not_exhaustive) == [wanted]


def test_crowds_of_a_set_in_which_every_class_was_looked_for_stay_partial():
    expanded = expand(split_of([[(CAT, 1)], []], [[(DOG, 2)], []], partial=[[DOG], []]), PARENTS)
    assert rows(expanded.not_exhaustive) == [[ANIMAL, DOG, PET], []]
    assert (expanded.positive, expanded.negative) == (None, None)


def test_outlines_follow_their_boxes():
    split = split_of([[(BUS, 1), (CAT, 2)]])
    outlines = Outlines(["bus", "cat"], split.objects.box, np.ones((2, 2)), list, None, Counter())
    expanded = expand(split_of([[(BUS, 1), (CAT, 2)]], outline=outlines), PARENTS)
    assert expanded.outline.raw == ["bus", "cat", "cat", "cat"]


def test_a_hierarchy_of_other_labels_is_an_error():
    with pytest.raises(LTError, match=r"None of the 5 categories .animal, bus, cat, ....* is in the label hierarchy"):
        expand(split_of([[]]), {"/m/01yrx": set()})


def test_the_real_hierarchy_makes_a_cat_a_carnivore_a_mammal_and_an_animal(shared):
    classes = read_classes(shared / "annotations" / "openimages_class_descriptions_boxable.csv")
    parents = read_hierarchy(shared / "annotations" / "openimages_bbox_labels_600_hierarchy.json")
    cat = boxes_of([[(classes.names.index("Cat"), 1)]])
    expanded = expand(Split(classes, ("a.jpg",), cat, Boxes.none(1)), parents)
    assert {classes.names[c] for c in expanded.objects.cls} == {"Cat", "Carnivore", "Mammal", "Animal"}


def slowly(objects, positive, negative, partial, groups):
    """What `expand` finds, image by image."""
    above = {
        c: [CLASSES.index(p) for p in sorted(PARENTS.get(name, ())) if p in CLASSES] for c, name in enumerate(CLASSES)
    }

    def copied(boxes):
        out = []
        for c, x in boxes:
            out.append((c, x))
            out += [(a, x) for a in sorted(above[c]) if (a, x) not in boxes and (a, x) not in out]
        return out

    def up(classes):
        return set(classes) | {a for c in classes for a in above[c]}

    single, group = copied(objects), copied(groups)
    yes = up(positive) | {c for c, _ in single + group}
    no = {c for c in range(5) for n in negative if c == n or n in above[c]} - yes
    boxed = {c for c, _ in single}
    some = {c for c, _ in group} | (yes - boxed) | (set(partial) & {c for c, _ in objects})
    return single, sorted(yes), sorted(no), sorted(up(some)), group


a_class = st.integers(0, 4)
some_boxes = st.lists(st.tuples(a_class, st.integers(0, 3)), max_size=6)
some_classes = st.lists(a_class, max_size=3)
an_image = st.tuples(some_boxes, some_classes, some_classes, some_classes, some_boxes)


@settings(max_examples=200, deadline=None)
@given(st.lists(an_image, min_size=1, max_size=5), st.integers(1, 8))
def test_any_split_is_expanded_as_a_slow_expansion_does(images, piece):
    objects, positive, negative, partial, groups = (list(column) for column in zip(*images, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_images_hierarchy, "PIECE", piece)
        found = expand(split_of(objects, groups, positive, negative, partial), PARENTS)
    wanted = [list(column) for column in zip(*(slowly(*image) for image in images), strict=True)]
    lists = [rows(x) for x in (found.positive, found.negative, found.not_exhaustive)]
    assert [as_told(found.objects), *lists, as_told(found.groups)] == wanted
    assert (found.objects.box.dtype, found.objects.cls.dtype) == (np.float32, np.int32)
