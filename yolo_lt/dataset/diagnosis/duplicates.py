"""Images that are there twice: of the same bytes, nearly the same by a hash of the picture, or by the user's word."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise
from pathlib import Path

import cv2
import numpy as np

from yolo_lt.errors import LTError, UsageError

NEAR = 6  # of 64 bits: other sizes and compressions of a picture differ by less, other pictures hardly ever
SIDE, LOW = 32, 8  # of the small picture, and of its coarse frequencies
FLAT = 2.0  # grey levels of deviation below which a picture has nothing to be told by
QUARTER, EIGHTH = 100_000, 1_000_000  # bytes from which a JPEG is decoded at a part of its size
ENDS = 4096  # bytes at both ends that are compared before whole files are
BLOCK = 32  # images per task of a thread
FARTHEST = 16  # bits: at 20 and more, most pictures are near some other
MOST_PAIRS = 20_000_000
JPEG = b"\xff\xd8\xff"


def exact_duplicates(paths: Sequence[str]) -> list[list[int]]:
    """Groups of images of the same bytes, as places in the list; two links to one file are the same.

    Files are told apart by size, then by their ends, and only then read as a whole. What is empty or cannot be read is
    in no group.
    """
    links = _grouped(paths, range(len(paths)), _file)  # what links to one file is read once
    groups = [[same[0] for same in links]]
    keys: tuple[Callable[[str], Hashable], ...] = (_size, _ends, _digest)
    for key in keys:
        groups = [same for group in groups for same in _grouped(paths, group, key) if len(same) > 1]
    of = {same[0]: same for same in links}
    copies = [sorted(i for first in group for i in of.pop(first)) for group in groups]
    return sorted([*copies, *(same for same in of.values() if len(same) > 1)])


def _grouped(paths: Sequence[str], places: Iterable[int], key: Callable[[str], Hashable]) -> list[list[int]]:
    """The places by a key; those that have none, as they cannot be read or are empty, are left out."""
    found: dict[Hashable, list[int]] = {}
    for place in places:
        try:
            found.setdefault(key(paths[place]), []).append(place)
        except OSError:
            continue
    return [group for value, group in found.items() if value]


def _file(path: str) -> tuple[int, ...]:
    """The file that a path leads to; nothing where it is empty or a folder."""
    found = os.stat(path)
    return (found.st_dev, found.st_ino) if found.st_size and stat.S_ISREG(found.st_mode) else ()


def _size(path: str) -> int:
    return os.stat(path).st_size


def _ends(path: str) -> bytes:
    with open(path, "rb") as f:
        head = f.read(ENDS)
        f.seek(max(os.fstat(f.fileno()).st_size - ENDS, 0))
        return head + f.read(ENDS)


def _digest(path: str) -> bytes:
    with open(path, "rb") as f:
        digest = hashlib.blake2b()
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.digest()


def image_hashes(paths: Sequence[str], workers: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A perceptual hash of every image: which of the coarse frequencies are above their median (pHash).

    Nearly all copies at another size, JPEG quality, contrast or blur are within `NEAR` bits, and so are most of which
    2 % were cut off at each side; of those without 5 % at each side one in twenty is. Frames of one camera before one
    background are near although they show different objects. Other photographs hardly ever are: 200 pairs among the
    5 billion of 100,000 parts of photographs.

    Args:
        paths: Of the images.
        workers: Threads that read and decode.

    Returns:
        Hashes, shape (N,), uint64; which images have something to be told by (others are flat or unreadable), shape
        (N,), bool; and which could be read, shape (N,), bool.

    Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    blocks = [paths[i : i + BLOCK] for i in range(0, len(paths), BLOCK)]  # a task per image would weigh 1 kB
    with ThreadPoolExecutor(workers) as pool:
        found = [x for block in pool.map(lambda block: [_hash(path) for path in block], blocks) for x in block]
    hashes = np.array([h or 0 for h, _ in found], np.uint64)
    return hashes, np.array([h is not None for h, _ in found], bool), np.array([read for _, read in found], bool)


def _hash(path: str) -> tuple[int | None, bool]:
    """Hash of an image, None if it is flat or cannot be read; and whether it can be."""
    grey = _grey(path)
    if grey is None:
        return None, False
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < FLAT:
        return None, True
    low = cv2.dct(small)[:LOW, :LOW].ravel()
    return int(np.packbits(low > np.median(low[1:])).view(np.uint64)[0]), True


def _grey(path: str) -> np.ndarray | None:
    """An image in grey, large JPEGs at a part of their size; None if it cannot be read."""
    try:
        content = np.fromfile(path, np.uint8)  # cv2.imread cannot open every name on every system
        if len(content) < QUARTER or content[:3].tobytes() != JPEG:  # of other formats cv2 skips pixels
            return cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
        part = cv2.IMREAD_REDUCED_GRAYSCALE_4 if len(content) < EIGHTH else cv2.IMREAD_REDUCED_GRAYSCALE_8
        grey = cv2.imdecode(content, part)
        return grey if grey is None or min(grey.shape) >= SIDE else cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error):  # cv2 raises it for an empty file and for too many pixels
        return None


def near_pairs(hashes: np.ndarray, valid: np.ndarray, distance: int = NEAR) -> np.ndarray:
    """All pairs of hashes that differ in at most so many bits; equal ones are chained, not paired each with each.

    The bits are in `distance` + 2 parts; two hashes within the distance agree in at least two of them, so only those
    that do are compared (multi-index hashing; Norouzi et al., CVPR 2012).

    Args:
        hashes: Shape (N,), uint64.
        valid: Which take part, shape (N,), bool.
        distance: Bits, from 0 to 16.

    Returns:
        Places, shape (P, 2), int64, the smaller first, sorted. Of equal hashes only neighbours are paired, and only the
        first is paired with others: what is connected is as if all were.

    Raises:
        UsageError: Another distance.
        LTError: More than `MOST_PAIRS`.
    """
    if not 0 <= distance <= FARTHEST:
        raise UsageError(f"distance={distance}: expected from 0 to {FARTHEST} of 64 bits")
    places = np.flatnonzero(valid)
    order = places[np.argsort(hashes[places], kind="stable")]
    equal = hashes[order[1:]] == hashes[order[:-1]]
    found = [np.stack([order[:-1][equal], order[1:][equal]], 1)]
    first = order[np.flatnonzero(np.append(True, ~equal)[: len(order)])]
    left = MOST_PAIRS
    for pairs in _differing(hashes[first], first, distance) if distance else ():
        found.append(pairs)
        left -= len(pairs)
        if left < 0:
            raise LTError(
                f"more than {MOST_PAIRS} pairs of images are nearly the same, as in long videos of still scenes; "
                "look for copies byte by byte alone, and name the videos as groups"
            )
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int64)


def _differing(hashes: np.ndarray, places: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Pairs within the distance among hashes that all differ, each once, in portions."""
    borders = np.linspace(0, 64, distance + 3).astype(int).tolist()
    parts = [np.uint64((1 << b) - (1 << a)) for a, b in pairwise(borders)]
    for one, two in combinations(range(len(parts)), 2):
        others = [parts[k] for k in range(two) if k != one]
        for at, other in _agreeing(hashes, parts[one] | parts[two]):
            bits = hashes[at] ^ hashes[other]
            close = _bit_counts(bits) <= distance
            for part in others:  # a pair that agrees in an earlier part, too, has been found
                close &= (bits & part) != 0
            if close.any():
                yield np.stack([places[at[close]], places[other[close]]], 1)


def _agreeing(hashes: np.ndarray, mask: np.uint64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of hashes that agree in the bits of the mask."""
    key = hashes & mask
    order = np.argsort(key, kind="stable")
    key = key[order]
    end = np.searchsorted(key, key, side="right")
    at, step = np.arange(len(key)), 1
    while len(at := at[at + step < end[at]]):
        yield order[at], order[at + step]
        step += 1


_COUNTS = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)


def _bit_counts(numbers: np.ndarray) -> np.ndarray:
    """Bits that are set; numpy 1 has no function for it."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(numbers)
    return _COUNTS[numbers.view(np.uint16).reshape(-1, 4)].sum(1)


def connected(pairs: np.ndarray, size: int) -> np.ndarray:
    """What hangs together by pairs, directly or through others: group of every place, shape (size,), int64.

    Single linkage: a chain of pairs makes one group, so the frames of a slow video end in one although the first and
    the last differ, and one false pair joins two groups. Groups are numbered in the order of their first members.

    Raises:
        LTError: A pair names a place outside 0..size-1.
    """
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < size):
        raise LTError(f"a pair of twins names image {pairs[(pairs < 0) | (pairs >= size)][0]} of {size} images")
    group = np.arange(size)
    while len(pairs := pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]):
        ends = group[pairs]
        np.minimum.at(group, ends.max(1), ends.min(1))
        while (group != (above := group[group])).any():
            group = above
    return np.unique(group, return_inverse=True)[1].astype(np.int64).reshape(-1)


def groups_from_names(names: Sequence[str], pattern: str) -> np.ndarray:
    """Group of every image, shape (N,), int64: by what the pattern's brackets find in its path; else it is alone.

    Raises:
        UsageError: It is no regular expression with one pair of brackets, or it fits no image.
    """
    try:
        found = re.compile(pattern)
    except re.error as e:
        raise UsageError(f"groups={pattern} is neither a CSV file nor a regular expression: {e}") from None
    if found.groups != 1:
        raise UsageError(f"groups={pattern} has {found.groups} pairs of brackets; one must hold what names the group")
    matches = [found.search(_slashed(name)) for name in names]
    if names and not any(matches):
        raise UsageError(f"groups={pattern} fits none of the {len(names)} images, such as {names[0]}")
    return _numbered([("alone", i) if m is None or m[1] is None else ("group", m[1]) for i, m in enumerate(matches)])


def groups_from_file(path: Path, names: Sequence[str]) -> np.ndarray:
    """Group of every image, shape (N,), int64, from a CSV file with the columns image and group.

    An image is named by the end of its path, the longest of several; one that the file does not name is alone.

    Raises:
        LTError: The file is missing or malformed, has two groups for one image, or names an image that is not there or
            several at once.
    """
    given = _read_groups(path)
    ends = [_end(_slashed(name), given) for name in names]
    named: dict[str, list[int]] = {}
    for i, end in enumerate(ends):
        named.setdefault(end, []).append(i)
    for end, (_, line) in given.items():
        if end not in named:
            raise LTError(f"groups={path}, line {line}: the image '{end}' is not in the data set")
        if len(named[end]) > 1:
            both = " and ".join(names[i] for i in named[end][:2])
            raise LTError(f"groups={path}, line {line}: '{end}' is the end of {both}; name more of the path")
    return _numbered([("group", given[end][0]) if end else ("alone", i) for i, end in enumerate(ends)])


def _read_groups(path: Path) -> dict[str, tuple[str, int]]:
    """Group and line of every image that a CSV file names."""
    given: dict[str, tuple[str, int]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            reader = csv.reader(f)
            rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise LTError(f"groups={path} cannot be read: {e}") from None
    head = rows[0][1] if rows else []
    if [field.lower() for field in head] != ["image", "group"]:
        raise LTError(f"groups={path}, line 1: expected 'image,group', found '{','.join(head)}'")
    for line, row in rows[1:]:
        if len(row) != 2 or not all(row):
            raise LTError(f"groups={path}, line {line}: expected an image and a group, found '{','.join(row)}'")
        image = _slashed(row[0]).removeprefix("./")
        group, before = given.setdefault(image, (row[1], line))
        if group != row[1]:
            raise LTError(f"groups={path}, line {line}: '{image}' is in '{row[1]}', but in '{group}' on line {before}")
    return given


def _end(name: str, given: dict[str, tuple[str, int]]) -> str:
    """The longest end of a path that is given, or none."""
    parts = name.split("/")
    ends = ("/".join(parts[k:]) for k in range(len(parts)))
    return next((end for end in ends if end in given), "")


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _numbered(keys: Sequence[Hashable]) -> np.ndarray:
    """Keys as numbers, in the order of their first places."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
