"""`yolo-lt convert`: a foreign data set to Ultralytics' layout, told in sentences.

Neither torch nor Ultralytics is loaded but to join the parts of an outline: Open Images needs the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolo_lt import config
from yolo_lt.dataset.convert import open_images
from yolo_lt.dataset.convert.catalog import Sources, find_sources
from yolo_lt.dataset.convert.coco import read_coco
from yolo_lt.dataset.convert.job import Job, run_job
from yolo_lt.dataset.convert.layout import look_for_images, read_list
from yolo_lt.dataset.convert.source import Split
from yolo_lt.errors import LTError, UsageError
from yolo_lt.evaluate.hierarchy import read_hierarchy

PREFIX = "yolo-lt: "
IMAGE_SUFFIXES = (  # Ultralytics' IMG_FORMATS (a test compares them)
    *("avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"),
)


def convert(name: str | None = None, *more: str, **kw: Any) -> Path:
    """`yolo-lt convert lvis|coco|openimages annotations=... images=...`.

    Args:
        name: A format, or a data set of cfg/datasets.
        *more: Nothing: one at a time.
        **kw: Keys of the sections "Official files", "Convert" and "New data sets".

    Returns:
        The data YAML.

    Raises:
        UsageError: No format, more than one, or a key that is missing or does not act here.
        LTError: Bad files; see `run_job`.
    """
    if name is None or more:
        raise UsageError("convert takes one format: yolo-lt convert lvis|coco|openimages annotations=FOLDER")
    ours, theirs = config.split(kw, "convert")
    if theirs:
        raise UsageError(f"{next(iter(theirs))} does not act in convert")
    lt = config.resolve(ours)
    sources = _checked(name, lt)
    out = Path(name if lt["out"] == "auto" else lt["out"])
    options = {key: lt[key] for key in ("segments", "expand")}
    hierarchy = None if lt["expand"] else sources.hierarchy
    reader = partial(_read, sources, lt)
    job = Job(sources.format, sources.files, reader, out, options, [] if lt["keep"] == "all" else lt["keep"], hierarchy)
    record = run_job(job, _say)
    for line in [*told(record, sources.expected, bool(job.keep)), *_linked(out, record, lt), *_odd(out, record)]:
        _say(line)
    _say(f"data={out / 'data.yaml'}")
    return out / "data.yaml"


def _say(text: str) -> None:
    print(f"{PREFIX}{text}", flush=True)


def _linked(out: Path, record: Mapping[str, Any], lt: Mapping[str, Any]) -> list[str]:
    """Link the images, and say which are missing."""
    if lt["images"] == "none":
        return ["no images are linked; give images=FOLDER, now or in a second call"]
    missing = look_for_images(out, record, Path(lt["images"]), lt["link"])
    return [f"WARNING: {n} images of {s} are missing: {out / f'missing-{s}.txt'}" for s, n in missing.items() if n]


def _checked(name: str, lt: Mapping[str, Any]) -> Sources:
    """The files to convert; what is wrong shall be said before an hour of writing."""
    if lt["annotations"] == "none":
        raise UsageError("annotations=... is missing: name the folder of the official files, or the files")
    if not lt["keep"]:
        raise UsageError("keep=[] keeps no class: name some, or all")
    sources = find_sources(name, lt["annotations"])
    if lt["expand"] and sources.format != "openimages":
        raise UsageError("expand acts only with openimages: no other format has a hierarchy of classes")
    if lt["images"] != "none" and not Path(lt["images"]).is_dir():
        raise LTError(f"images={lt['images']}: no such folder")
    return sources


def _read(sources: Sources, lt: Mapping[str, Any], split: str) -> Split:
    path, *labels = sources.files[split]
    if sources.format != "openimages":
        read = read_coco(path, _join, contours) if lt["segments"] else read_coco(path)
        if sources.format == "lvis" and read.negative is None:
            raise LTError(f"{path} is no LVIS file: no image has neg_category_ids; yolo-lt convert coco reads it")
        return read
    assert sources.classes is not None
    folder = {"val": "validation"}.get(split, split)
    read = open_images.read_split(path, labels, open_images.read_classes(sources.classes), folder)
    if not lt["expand"]:
        return read
    if sources.hierarchy is None:
        raise UsageError(f"expand=true needs the class hierarchy, bbox_labels_600_hierarchy.json, beside {path}")
    return open_images.expand(read, read_hierarchy(sources.hierarchy))


def _join(parts: list[list[float]]) -> list[np.ndarray]:
    """Ultralytics' way to make one outline of several."""
    from ultralytics.data.converter import merge_multi_segment

    return merge_multi_segment(parts)


def contours(mask: np.ndarray) -> list[list[float]]:
    """The outlines of a mask (height, width), "x y x y ..." each, around its outermost pixels; holes are filled."""
    found = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    return [_around(part.reshape(-1, 2).astype(np.float64)).ravel().tolist() for part in found]


def _around(points: np.ndarray) -> np.ndarray:
    """A contour stretched by the one pixel that it lacks, as OpenCV's goes through the centres of pixels, (k, 2)."""
    low, size = points.min(0), np.ptp(points, 0)
    if len(points) < 3 or not size.all():  # a line of pixels
        right, bottom = low + size + 1
        return np.array([low, (right, low[1]), (right, bottom), (low[0], bottom)])
    return low + (points - low) * (size + 1) / size


def told(record: Mapping[str, Any], expected: Mapping[str, Any] | None, subset: bool) -> list[str]:
    """What was mended, and whether the counts are the published ones, in sentences."""
    lines = []
    if expected and not subset and expected["classes"] != record["classes"]:
        lines.append(f"WARNING: there are {record['classes']} classes, published are {expected['classes']}")
    for name, split in record["splits"].items():
        lines += [f"{name}: {count} {what}" for what, count in split["mended"].items()]
        for what, count in ((expected or {}).get(name) or {}).items():
            if count == split[what]:
                lines.append(f"{name}: {count} {what}, as published")
            elif not subset:
                lines.append(f"WARNING: {name} has {split[what]} {what}, published are {count}")
    return lines


def _odd(out: Path, record: Mapping[str, Any]) -> list[str]:
    """Ultralytics leaves files out of a list, silently, whose suffix it does not know."""
    lines = []
    for split in record["splits"]:
        odd = [x for x in read_list(out / f"{split}.txt") if x.rpartition(".")[2].lower() not in IMAGE_SUFFIXES]
        lines += (
            [f"WARNING: Ultralytics does not take {len(odd)} images of {split} for images: {odd[0]}"] if odd else []
        )
    return lines
