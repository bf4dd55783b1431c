"""Draw a long-tailed set of 1203 classes, as many as LVIS has: paper shapes by outline, colour and mark.

    python scripts/many_classes.py OUT [images of the commonest class, default 1000]

A class is one of 8 outlines, 19 colours and 8 marks; class r (from 1) is in 1000 r^-0.8 training images, so the rarest
is in 3, and six objects lie on an image. Validation images hold a fifth as many, and every class at least twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import yaml

from yolo_lt.dataset.demo import OUTLINES, SHIFT, _draw, _fixed, _ground, _place

NUM_CLASSES, PER_IMAGE, SIZE = 1203, 6, 160
COLOURS = 19
MARKS = ("plain", "hollow", "white dot", "black dot", "white bar", "black bar", "white cross", "black cross")


def main() -> None:
    folder = Path(sys.argv[1])
    most = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    counts = np.maximum(most * np.arange(1, NUM_CLASSES + 1) ** -0.8, 1).astype(int)
    rng = np.random.default_rng(0)
    kinds = rng.permutation(len(OUTLINES) * COLOURS * len(MARKS))[:NUM_CLASSES]  # no attribute is rare as such
    for part, (split, numbers) in enumerate({"train": counts, "val": np.maximum(counts // 5, 2)}.items()):
        draw(folder, split, deal(numbers, np.random.default_rng(part)), kinds)
    names = {c: f"{c:04d} {name_of(kind)}" for c, kind in enumerate(kinds)}
    content = {"train": "images/train", "val": "images/val", "names": names}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def deal(counts: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Classes of every image: each as often as `counts` says, in random company."""
    ids = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return np.array_split(ids, len(ids) // PER_IMAGE)


def parts(kind: int) -> tuple[str, int, str]:
    outline, rest = divmod(int(kind), COLOURS * len(MARKS))
    return list(OUTLINES)[outline], rest // len(MARKS), MARKS[rest % len(MARKS)]


def name_of(kind: int) -> str:
    outline, colour, mark = parts(kind)
    return f"{outline}, colour {colour}, {mark}"


def draw(folder: Path, split: str, images: list[np.ndarray], kinds: np.ndarray) -> None:
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    for i, ids in enumerate(images):
        rng = np.random.default_rng([len(images), i])
        picture, taken, lines = _ground(SIZE, rng), np.zeros((SIZE, SIZE), np.uint8), []
        for c in ids:
            outline, colour, mark = parts(kinds[c])
            points = _place(OUTLINES[outline], taken, rng)
            _draw(picture, points, 0.5 if mark == "hollow" else 0.0, paper(colour), 1.0)
            draw_mark(picture, points.mean(0), np.ptp(points, 0).min() / 2, mark)
            (x1, y1), (x2, y2) = points.min(0) / SIZE, points.max(0) / SIZE
            lines.append(f"{c} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n")
        picture = picture.clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / split / f"{i:05d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        (folder / "labels" / split / f"{i:05d}.txt").write_text("".join(lines), encoding="utf-8")


def paper(colour: int) -> np.ndarray:
    """Twelve bright colours, and seven that are pale, BGR."""
    hue, saturation = (colour * 15, 235) if colour < 12 else ((colour - 12) * 25, 90)
    return cv2.cvtColor(np.array([[[hue, saturation, 235]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def draw_mark(picture: np.ndarray, centre: np.ndarray, radius: float, mark: str) -> None:
    tone, _, shape = mark.partition(" ")
    value = {"white": (250.0,) * 3, "black": (15.0,) * 3}.get(tone)
    if value is None:
        return
    reach, width = 0.55 * radius, max(int(0.25 * radius), 1)
    ends = {"dot": [], "bar": [(1, 0)], "cross": [(1, 0), (0, 1)]}[shape]
    if shape == "dot":
        at = tuple(int(v) for v in _fixed(centre))
        cv2.circle(picture, at, int(0.4 * radius * 2**SHIFT), value, -1, cv2.LINE_AA, SHIFT)
    for direction in ends:
        a, b = (tuple(int(v) for v in _fixed(centre + s * reach * np.array(direction))) for s in (-1, 1))
        cv2.line(picture, a, b, value, width, cv2.LINE_AA, SHIFT)


if __name__ == "__main__":
    main()
