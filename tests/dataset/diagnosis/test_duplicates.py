"""Images that are there twice: of the same bytes, near by a hash, or together by the user's word."""

import os
from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_lt.dataset.diagnosis.duplicates import (
    NEAR,
    QUARTER,
    connected,
    exact_duplicates,
    groups_from_file,
    groups_from_names,
    image_hashes,
    near_pairs,
)
from yolo_lt.errors import LTError, UsageError


def picture(seed, size=(120, 160)):
    """A picture of smooth patches, as photographs have."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


def written(folder, **pictures):
    """Pictures as files, in the order given; bytes as they are."""
    paths = []
    for name, content in pictures.items():
        path = folder / f"{name}.png"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_bytes(cv2.imencode(".png", content)[1].tobytes())
        paths.append(str(path))
    return paths


# Bytes ----------------------------------------------------------------------------------------------------------------
def test_files_of_the_same_bytes_are_found_and_no_others(tmp_path):
    long = bytes(range(256)) * 100
    middle = long[:12_000] + b"x" + long[12_001:]  # the same size and ends
    paths = written(tmp_path, a=long, b=b"short", c=long, d=middle, e=b"short", f=b"shorT", g=b"", h=b"")
    assert exact_duplicates(paths) == [[0, 2], [1, 4]]


def test_two_links_to_one_file_are_the_same_and_what_is_missing_is_nothing(tmp_path):
    (a,) = written(tmp_path, a=picture(0))
    os.symlink(a, tmp_path / "link.png")
    os.link(a, tmp_path / "hard.png")
    paths = [a, str(tmp_path / "link.png"), str(tmp_path / "gone.png"), str(tmp_path / "hard.png"), str(tmp_path)]
    assert exact_duplicates(paths) == [[0, 1, 3]]
    assert exact_duplicates([]) == []


# Hashes ---------------------------------------------------------------------------------------------------------------
CHANGES = {
    "half the size": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "jpeg": lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR),
    "blurred": lambda p: cv2.GaussianBlur(p, (5, 5), 0),
    "darker": lambda p: (p * 0.8).astype(np.uint8),
    "grey": lambda p: cv2.cvtColor(p, cv2.COLOR_BGR2GRAY),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_near_and_another_picture_is_not(change, tmp_path):
    originals = {f"o{i}": picture(i) for i in range(20)}
    copies = {f"c{i}": CHANGES[change](p) for i, p in enumerate(originals.values())}
    hashes, valid, readable = image_hashes(written(tmp_path, **originals, **copies))
    assert valid.all()
    assert readable.all()
    assert near_pairs(hashes, valid).tolist() == [[i, i + 20] for i in range(20)]


def test_flat_and_unreadable_images_are_like_no_other(tmp_path):
    white, grey = np.full((50, 50, 3), 255, np.uint8), np.full((40, 60, 3), 90, np.uint8)
    paths = written(tmp_path, white=white, grey=grey, again=white, bad=b"no image", empty=b"", real=picture(1))
    hashes, valid, readable = image_hashes([*paths, str(tmp_path / "gone.png")])
    assert valid.tolist() == [False] * 5 + [True, False]
    assert readable.tolist() == [True, True, True, False, False, True, False]
    assert len(near_pairs(hashes, valid)) == 0


@pytest.mark.parametrize("eighth", [1_000_000, 200_000])
def test_large_jpegs_that_are_decoded_small_are_near_the_whole(eighth, tmp_path, monkeypatch):
    """Fine noise makes the files large; held upright by EXIF or not, they are the picture that is seen."""
    monkeypatch.setattr("yolo_lt.dataset.diagnosis.duplicates.EIGHTH", eighth)
    size = (900, 1200)
    whole = picture(3, size).astype(np.int16) + np.random.default_rng(0).integers(-40, 40, (*size, 1))
    whole = np.clip(whole, 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    assert QUARTER < 200_000 < len(jpeg) < 1_000_000
    turn = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = cv2.rotate(whole, cv2.ROTATE_90_CLOCKWISE)
    small = cv2.resize(turned, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)
    paths = written(tmp_path, whole=whole, jpeg=jpeg, exif=jpeg[:2] + turn + jpeg[2:], turned=small)
    hashes, valid, _ = image_hashes(paths)
    assert valid.all()
    assert near_pairs(hashes, valid, 4).tolist() == [[0, 1], [2, 3]]


def test_a_thin_jpeg_is_decoded_whole_if_little_would_be_left_of_it(tmp_path):
    strip = cv2.resize(picture(4), (9000, 70), interpolation=cv2.INTER_AREA)
    strip = np.clip(strip + np.random.default_rng(0).integers(-20, 20, strip.shape), 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    assert len(jpeg) > QUARTER
    hashes, valid, readable = image_hashes(written(tmp_path, png=strip, jpeg=jpeg))
    assert readable.all()
    assert valid.all()
    assert len(near_pairs(hashes, valid)) == 1


def test_one_worker_finds_the_same_as_several(tmp_path):
    paths = written(tmp_path, **{f"p{i}": picture(i) for i in range(5)}, bad=b"x") * 60
    for one, many in zip(image_hashes(paths, workers=1), image_hashes(paths, workers=3), strict=True):
        np.testing.assert_array_equal(one, many)
        assert len(one) == 360
    assert [len(x) for x in image_hashes([])] == [0, 0, 0]


def test_names_in_any_script_and_tiny_images(tmp_path):
    paths = written(tmp_path, **{"ünïcode 人 'x'": picture(1), "a,b": picture(1), "dot": picture(2)[:1, :1]})
    hashes, valid, readable = image_hashes(paths)
    assert readable.all()
    assert hashes[0] == hashes[1]
    assert valid.tolist() == [True, True, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255)), max_size=25), st.integers(0, 9), st.data())
def test_every_pair_within_the_distance_is_found(parts, distance, data):
    hashes = np.array([high << 60 | low << 20 | low for high, low in parts], np.uint64)
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts))), bool)
    found = near_pairs(hashes, valid, distance)
    wanted = [
        (i, j)
        for i, j in combinations(range(len(parts)), 2)
        if valid[i] and valid[j] and bin(int(hashes[i]) ^ int(hashes[j])).count("1") <= distance
    ]
    assert set(map(tuple, found.tolist())) <= set(wanted)
    assert connected(found, len(parts)).tolist() == connected(np.array(wanted).reshape(-1, 2), len(parts)).tolist()
    different = [(i, j) for i, j in wanted if hashes[i] != hashes[j]]
    once = {(int(hashes[i]), int(hashes[j])) for i, j in map(sorted, different)}
    seen = {(int(hashes[i]), int(hashes[j])) for i, j in found.tolist()}
    assert {frozenset(p) for p in once} <= {frozenset(p) for p in seen}


def test_thousands_of_equal_hashes_are_chained():
    pairs = near_pairs(np.zeros(5000, np.uint64), np.ones(5000, bool))
    assert len(pairs) == 4999
    assert connected(pairs, 5000).max() == 0


@pytest.mark.realdata
def test_photographs_of_food_that_are_there_twice(shared):
    """Seen as pictures: nine pairs, each the same photograph; an apple and an ice cream are 8 bits apart."""
    paths = sorted(map(str, (shared / "data" / "food61" / "images").glob("*/*")))
    hashes, valid, readable = image_hashes(paths)
    assert readable.all()
    assert len(near_pairs(hashes, valid, NEAR)) == 9
    assert len(near_pairs(hashes, valid, 8)) == 10


def test_every_pair_of_a_crowd_that_differs_is_found_once():
    rng = np.random.default_rng(0)
    bits = np.uint64(1) << rng.integers(0, 64, (400, 3), dtype=np.uint64)
    hashes = np.unique(bits[:, 0] | bits[:, 1] | bits[:, 2])
    for distance in (1, 2, 4, 6):
        pairs = near_pairs(hashes, np.ones(len(hashes), bool), distance)
        apart = np.array([[bin(int(a ^ b)).count("1") for b in hashes] for a in hashes])
        assert pairs.tolist() == np.argwhere(np.triu(apart <= distance, 1)).tolist()


def test_without_numpys_own_function_bits_are_counted_all_the_same(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**64, 500, dtype=np.uint64)
    hashes[100:200] = hashes[:100] ^ np.uint64(0b111 << 40)
    pairs = near_pairs(hashes, np.ones(500, bool), 3)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert near_pairs(hashes, np.ones(500, bool), 3).tolist() == pairs.tolist() == [[i, i + 100] for i in range(100)]


def test_a_hundred_thousand_hashes_are_no_matter():
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[99_000:] = hashes[:1000] ^ np.uint64((1 << 63) | (1 << 31) | 0b1111)
    pairs = near_pairs(hashes, np.ones(len(hashes), bool), 6)
    assert {(i, i + 99_000) for i in range(1000)} <= set(map(tuple, pairs.tolist()))
    assert len(pairs) < 1010


def test_too_many_pairs_are_refused_before_memory_ends(monkeypatch):
    monkeypatch.setattr("yolo_lt.dataset.diagnosis.duplicates.MOST_PAIRS", 100)
    with pytest.raises(LTError, match="more than 100 pairs of images are nearly the same"):
        near_pairs(np.arange(64, dtype=np.uint64), np.ones(64, bool), 6)


@pytest.mark.parametrize("distance", [-1, 17])
def test_a_distance_that_makes_no_sense_is_refused(distance):
    with pytest.raises(UsageError, match=f"distance={distance}"):
        near_pairs(np.zeros(2, np.uint64), np.ones(2, bool), distance)


# Groups ---------------------------------------------------------------------------------------------------------------
def test_groups_are_numbered_by_their_first_members():
    assert connected(np.array([[4, 1], [2, 4]]), 6).tolist() == [0, 1, 1, 2, 1, 3]
    assert connected(np.zeros((0, 2), np.int64), 3).tolist() == [0, 1, 2]
    assert connected(np.zeros((0, 2), np.int64), 0).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_what_is_connected_is_what_can_be_reached(pairs):
    reached = np.eye(30, dtype=bool)
    for a, b in pairs:
        reached[a, b] = reached[b, a] = True
    for _ in range(5):
        reached = (reached.astype(int) @ reached.astype(int)) > 0
    group = connected(np.array(pairs, np.int64).reshape(-1, 2), 30)
    assert ((group[:, None] == group[None]) == reached).all()
    assert [g for i, g in enumerate(group.tolist()) if g not in group[:i]] == list(range(group.max() + 1))


def test_a_long_chain_in_any_order_is_one_group():
    places = np.random.default_rng(0).permutation(50_000)
    assert connected(np.stack([places[:-1], places[1:]], 1), 50_000).max() == 0


@pytest.mark.parametrize("pair", [(0, 3), (-1, 0)])
def test_pairs_of_images_that_are_not_there_are_refused(pair):
    with pytest.raises(LTError, match=r"names image (3|-1) of 3 images"):
        connected(np.array([(0, 1), pair]), 3)


def test_groups_by_a_pattern():
    names = ["v/clip1_0.jpg", "v/clip2_0.jpg", "v/clip1_1.jpg", "v/still.jpg", "v/other.jpg"]
    assert groups_from_names(names, r"clip(\d+)_").tolist() == [0, 1, 0, 2, 3]
    assert groups_from_names(["a\\1.jpg", "a/2.jpg", "b/1.jpg"], r"^(.*)/").tolist() == [0, 0, 1]
    assert groups_from_names(["x1.jpg", "x.jpg", "x.png"], r"x(\d)?").tolist() == [0, 1, 2], "found, but nothing in it"
    assert groups_from_names([], r"(x)").tolist() == []


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("clip(", "neither a CSV file nor"),
        ("clip", "has 0 pairs"),
        ("(a)(b)", "has 2 pairs"),
        ("(zzz)", "fits none of"),
    ],
)
def test_a_pattern_that_cannot_group_is_refused(pattern, message):
    with pytest.raises(UsageError, match=message):
        groups_from_names(["clip1.jpg"], pattern)


def test_groups_from_a_file(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text('image,group\n"a, b.jpg",x\ntrain/c.jpg,x\nval\\c.jpg,y\n', encoding="utf-8-sig")
    names = ["/d/train/a, b.jpg", "/d/train/c.jpg", "/d/val/c.jpg", "/d/val/e.jpg"]
    assert groups_from_file(path, names).tolist() == [0, 0, 1, 2]
    path.write_text("Image, Group\n./c.jpg,5\n\nval/c.jpg ,6\nval/c.jpg,6\n")
    assert groups_from_file(path, names).tolist() == [0, 1, 2, 3], "the longest end counts"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg,1\n", "line 1: expected 'image,group', found 'a.jpg,1'"),
        ("", "line 1: expected"),
        ("image;group\na.jpg;1\n", "line 1: expected 'image,group', found 'image;group'"),
        ("image,group\na.jpg,1\nb.jpg\n", "line 3: expected an image and a group, found 'b.jpg'"),
        ("image,group\na.jpg,1\n\nb.jpg,\n", "line 4: expected an image and a group, found 'b.jpg,'"),
        ("image,group\na.jpg,1,2\n", "line 2: expected an image and a group, found 'a.jpg,1,2'"),
        ("image,group\na.jpg,1\nzzz.jpg,1\n", "line 3: the image 'zzz.jpg' is not in the data set"),
        ("image,group\na.jpg,1\nb.jpg,1\na.jpg,2\n", "line 4: 'a.jpg' is in '2', but in '1' on line 2"),
        ("image,group\na.jpg,1\ntrain/a.jpg,1\n", "line 2: the image 'a.jpg' is not in the data set"),
        ("image,group\nc.jpg,1\n", "line 2: 'c.jpg' is the end of train/c.jpg and val/c.jpg; name more"),
        (b"image,group\n\xff.jpg,1\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_file_of_groups_that_is_wrong_is_named_with_its_line(content, message, tmp_path):
    path = tmp_path / "groups.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LTError, match=message) as error:
        groups_from_file(path, ["train/a.jpg", "b.jpg", "train/c.jpg", "val/c.jpg"])
    assert "groups.csv" in str(error.value)
