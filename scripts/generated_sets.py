"""Annotation files of any size in the official forms, drawn at random: for benches, and for trying the long scripts.

    python scripts/generated_sets.py lvis out=DIR images=100170 boxes=1270141      # about 1 GB: LVIS v1 train's scale
    python scripts/generated_sets.py openimages out=DIR images=1743042 boxes=14610229

Counts of classes follow a power law, one class has a single box; a tenth of LVIS' objects has several parts. With
draw=true the images are drawn as well, with a coloured rectangle for every box, so that a network can learn from them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from yolo_lt import cli

POINTS = (45, 25, 4, 200)  # of an outline: mean, deviation, least, most; gives the length of LVIS' own
SIZES = ((640, 480), (480, 640), (500, 375), (427, 640))
encode = msgspec.json.encode


def main() -> None:
    words: list[str] = []
    keys = {"out": "generated", **cli.parse(sys.argv[1:], words)}
    make = {"lvis": lvis, "coco": coco, "openimages": open_images}[words[0]]
    make(Path(keys.pop("out")), **keys)


def counts(classes: int, boxes: int, rng: np.random.Generator, exponent: float = 1.2) -> np.ndarray:
    """The class of every box, shape (boxes,): a power law, no class empty."""
    share = 1 / np.arange(1, classes + 1) ** exponent
    cls = rng.choice(classes, boxes, p=share / share.sum())
    cls[rng.permutation(boxes)[: min(classes, boxes)]] = np.arange(min(classes, boxes))
    return cls


def lvis(
    out: Path, images: int = 200, boxes: int = 2000, classes: int = 1203, split: str = "train", seed: int = 0,
    draw: bool = False, name: str = "lvis_v1_{}.json", federated: bool = True, exponent: float = 1.2,
) -> Path:  # fmt: skip
    """A file in LVIS' form, and with `draw` its images in the folder SPLIT2017 beside it."""
    rng = np.random.default_rng(seed)
    cls, image = counts(classes, boxes, rng, exponent), np.sort(rng.integers(0, images, boxes))
    size = np.array(SIZES)[rng.integers(0, len(SIZES), images)]
    path = out / name.format(split)
    out.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(rng)
    drawn: dict[int, list[tuple[int, list[float]]]] = {}
    with path.open("wb") as f:
        f.write(b'{"images":' + encode([_image(i, size[i], split, classes, rng, federated) for i in range(images)]))
        f.write(b',"annotations":[')
        for m in range(boxes):
            row = _annotation(m, image[m], cls[m], size[image[m]], shapes, rng)
            f.write((b"," if m else b"") + encode(row))
            if draw:
                drawn.setdefault(int(image[m]), []).append((int(cls[m]), row["bbox"]))
        f.write(b'],"categories":' + encode(_categories(cls, image, classes, federated)) + b"}")
    if draw:
        _draw(out / f"{split}2017", size, drawn, lambda i: f"{i + 1:012d}.jpg", rng)
    return path


def coco(out: Path, classes: int = 80, split: str = "train", **kw: Any) -> Path:
    """A file in COCO's form: every class was looked for everywhere, one in a hundred boxes is a crowd."""
    return lvis(out, classes=classes, split=split, name="instances_{}2017.json", federated=False, **kw)


def _image(i: int, size: np.ndarray, split: str, classes: int, rng: np.random.Generator, federated: bool) -> dict:
    row = {
        "id": i + 1,
        "width": int(size[0]),
        "height": int(size[1]),
        "coco_url": f"http://images.cocodataset.org/{split}2017/{i + 1:012d}.jpg",
        "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
        "date_captured": "2013-11-16 14:55:26",
    }
    if not federated:
        return {**row, "file_name": f"{i + 1:012d}.jpg"}
    lists = rng.choice(classes, min(8, classes), replace=False) + 1
    return {**row, "neg_category_ids": lists[:7].tolist(), "not_exhaustive_category_ids": lists[7:].tolist()}


def _categories(cls: np.ndarray, image: np.ndarray, classes: int, federated: bool) -> list[dict]:
    images = np.bincount(np.unique(np.c_[cls, image], axis=0)[:, 0], minlength=classes).tolist()
    rows = [{"id": c + 1, "name": f"class_{c}"} for c in range(classes)]
    if not federated:
        return rows
    letter = ["r" if n <= 10 else "c" if n <= 100 else "f" for n in images]
    more = zip(images, np.bincount(cls, minlength=classes).tolist(), letter, strict=True)
    return [
        {**row, "image_count": n, "instance_count": k, "frequency": x}
        for row, (n, k, x) in zip(rows, more, strict=True)
    ]


def _shapes(rng: np.random.Generator, many: int = 512) -> list[np.ndarray]:
    """Star-shaped outlines within the unit square."""
    shapes = []
    for k in np.clip(rng.normal(*POINTS[:2], many), *POINTS[2:]).astype(int):
        angle, radius = np.sort(rng.random(k)) * 2 * np.pi, 0.3 + 0.2 * rng.random(k)
        points = np.c_[np.cos(angle), np.sin(angle)] * radius[:, None]
        shapes.append((points - points.min(0)) / np.ptp(points, axis=0))
    return shapes


def _annotation(
    m: int, image: int, cls: int, size: np.ndarray, shapes: list[np.ndarray], rng: np.random.Generator
) -> dict:
    wide, high = rng.uniform(8, 0.6 * size)
    x, y = rng.uniform(0, size - [wide, high])
    parts = int(rng.integers(2, 5)) if rng.random() < 0.1 else 1
    outline = []
    for part in range(parts):
        points = shapes[(m + part) % len(shapes)]
        points = points if parts == 1 else points[:: max(len(points) // 12, 1)]
        outline.append(np.round(points * [wide / parts, high] + [x + part * wide / parts, y], 2))
    corner, end = np.concatenate(outline).min(0), np.concatenate(outline).max(0)
    box = np.round([*corner, *(end - corner)], 2).tolist()
    flat = [part.ravel().tolist() for part in outline]
    return {"id": m + 1, "image_id": int(image) + 1, "category_id": int(cls) + 1, "segmentation": flat, "bbox": box,
            "area": round(box[2] * box[3] * 0.6, 2)}  # fmt: skip


def _draw(folder: Path, size: np.ndarray, drawn: dict, name: Any, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, (wide, high) in enumerate(size.tolist()):
        picture = np.full((high, wide, 3), 110, np.uint8) + rng.integers(0, 20, (high, wide, 1), dtype=np.uint8)
        for cls, (x, y, w, h) in drawn.get(i, []):
            colour = np.random.default_rng(cls).integers(0, 255, 3).tolist()
            cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), colour, -1)
        cv2.imwrite(str(folder / name(i)), picture)


def open_images(
    out: Path,
    images: int = 200,
    boxes: int = 2000,
    classes: int = 601,
    labels: int = 0,
    split: str = "train",
    seed: int = 0,
) -> Path:
    """Box CSV, image-level label CSV and class descriptions in Open Images' form."""
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    mids = [f"/m/{c:05x}" for c in range(classes)]
    (out / "oidv7-class-descriptions-boxable.csv").write_text(
        "LabelName,DisplayName\n" + "".join(f"{mid},Class {c}\n" for c, mid in enumerate(mids))
    )
    path = out / f"{'oidv6-' if split == 'train' else ''}{split}-annotations-bbox.csv"
    with path.open("w") as f:
        f.write("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,")
        f.write("IsInside\n")
        f.writelines(_box_rows(images, boxes, mids, rng))
    with (out / f"{split}-annotations-human-imagelabels-boxable.csv").open("w") as f:
        f.write("ImageID,Source,LabelName,Confidence\n")
        f.writelines(_label_rows(images, labels or boxes // 2, mids, rng))
    return path


def _box_rows(
    images: int, boxes: int, mids: list[str], rng: np.random.Generator, block: int = 1 << 18
) -> Iterator[str]:
    image = np.sort(rng.integers(0, images, boxes))
    cls = counts(len(mids), boxes, rng)
    for start in range(0, boxes, block):
        at = slice(start, start + block)
        n = len(image[at])
        low, size = rng.random((n, 2)) * 0.7, 0.01 + rng.random((n, 2)) * 0.29
        group = (rng.random(n) < 0.05).astype(int).tolist()
        rows = zip(image[at].tolist(), cls[at].tolist(), low.tolist(), (low + size).tolist(), group, strict=True)
        for i, c, (x, y), (right, low_y), g in rows:
            yield f"{i:016x},xclick,{mids[c]},1,{x:.6f},{right:.6f},{y:.6f},{low_y:.6f},0,0,{g},0,0\n"


def _label_rows(images: int, labels: int, mids: list[str], rng: np.random.Generator) -> Iterator[str]:
    rows = zip(
        np.sort(rng.integers(0, images, labels)).tolist(),
        rng.integers(0, len(mids), labels).tolist(),
        rng.integers(0, 2, labels).tolist(),
        strict=True,
    )
    for i, c, known in rows:
        yield f"{i:016x},verification,{mids[c]},{known}\n"


if __name__ == "__main__":
    main()
