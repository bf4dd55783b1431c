"""A small long-tailed detection set, drawn from a seed: paper shapes on textured ground, common and rare.

Most rare classes are hollow twins of the commonest: on a long tail a detector has less trouble finding an object
than naming it, because it has seen the frequent look-alike so much more often.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import yaml

from yolo_lt.errors import LTError

VERSION = 1  # raise it with every change of what is drawn: an older set in the folder is then not reused
MANIFEST = "demo.json"
MARGIN = 10  # pixels around a shape that its shadow reaches
SHIFT = 4  # cv2 draws in fixed point: 4 bits below the pixel keep edges and boxes exact

# class name -> (outline, part of the outline that is cut out), commonest first
CLASSES: dict[str, tuple[str, float]] = {
    "disc": ("disc", 0.0),
    "square": ("square", 0.0),
    "triangle": ("triangle", 0.0),
    "star": ("star", 0.0),
    "cross": ("cross", 0.0),
    "heart": ("heart", 0.0),
    "moon": ("moon", 0.0),
    "bar": ("bar", 0.0),
    "ring": ("disc", 0.55),
    "frame": ("square", 0.55),
    "hollow triangle": ("triangle", 0.5),
    "hollow star": ("star", 0.55),
}

# Ultralytics train keys, the same for both runs: from scratch, on two CPU cores, in under two minutes each
TRAIN: dict[str, object] = {
    "model": "yolov8n.yaml",
    "imgsz": 96,
    "batch": 16,
    "nbs": 16,  # the default 64 would accumulate four batches per step: too few steps for so short a run
    "epochs": 5,
    "optimizer": "AdamW",
    "lr0": 0.004,
    "lrf": 0.05,
    "warmup_epochs": 1,
    "warmup_bias_lr": 0.0,  # what optimizer=auto sets for AdamW
    "mosaic": 0.0,
    "scale": 0.2,
    "translate": 0.05,
    "workers": 0,
}


@dataclass(frozen=True)
class DemoSpec:
    """What is drawn.

    Attributes:
        most: Training images that hold the commonest class.
        least: Training images that hold the rarest class.
        bend: 1 lets counts decay exponentially between the two; more bends the curve, so that more classes are rare.
        val: Validation images of every class.
        size: Side of the square images in pixels.
    """

    most: int = 1300
    least: int = 6
    bend: float = 1.3
    val: int = 30
    size: int = 160

    def train_counts(self) -> list[int]:
        """Training images of every class, commonest first."""
        decay = np.linspace(1, 0, len(CLASSES)) ** self.bend
        return [round(x) for x in self.least * (self.most / self.least) ** decay]


def generate(folder: Path, seed: int = 0, spec: DemoSpec | None = None) -> Path:
    """Draw the set into a folder, or find it there already.

    Args:
        folder: Where images/, labels/ and data.yaml go; created, with its parents.
        seed: Same seed, same set.
        spec: Sizes, by default those the demo is tuned for.

    Returns:
        The path of data.yaml.

    Raises:
        LTError: Something else is in the folder, or it cannot be written.
    """
    folder, spec = Path(folder), spec or DemoSpec()
    wanted = {"generator": VERSION, "seed": seed, **asdict(spec)}
    try:
        if not _vacant(folder):
            _check_same(folder, wanted)
            return folder / "data.yaml"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as tmp:
            _build(Path(tmp) / "set", seed, spec, wanted)
            if folder.exists():  # empty, see above; Windows does not rename onto it
                folder.rmdir()
            os.rename(Path(tmp) / "set", folder)
    except OSError as e:
        raise LTError(f"{folder}: the demo set cannot be written here ({e}); choose another folder") from None
    return folder / "data.yaml"


def _vacant(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _check_same(folder: Path, wanted: dict[str, int]) -> None:
    """Accept only the set that would be drawn, untouched since."""
    advice = "remove it or choose another folder"
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise LTError(f"{folder} is in the way: it holds no demo set; {advice}") from None
    if not isinstance(found, dict) or {k: v for k, v in found.items() if k != "sha256"} != wanted:
        raise LTError(f"{folder} holds a demo set with another seed, size or version; {advice}")
    if found.get("sha256") != _digest(folder):
        raise LTError(f"{folder} holds a demo set that was changed after it was drawn; {advice}")


def _digest(folder: Path) -> str:
    """One hash over names and contents; caches that Ultralytics leaves beside the labels do not count."""
    files = [*folder.glob("images/*/*.jpg"), *folder.glob("labels/*/*.txt"), *folder.glob("data.yaml")]
    sha = hashlib.sha256()
    for file in sorted(files):
        sha.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return sha.hexdigest()


def _build(folder: Path, seed: int, spec: DemoSpec, manifest: dict[str, int]) -> None:
    counts = {"train": spec.train_counts(), "val": [spec.val] * len(CLASSES)}
    for part, (split, numbers) in enumerate(counts.items()):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for i, ids in enumerate(_plan(numbers, np.random.default_rng([seed, part]))):
            # a generator per image: no image depends on how many random numbers another one took
            picture, labels = _scene(ids, spec.size, np.random.default_rng([seed, part, i]))
            jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            (folder / "images" / split / f"{i:04d}.jpg").write_bytes(jpeg.tobytes())
            (folder / "labels" / split / f"{i:04d}.txt").write_text(labels, encoding="utf-8")
    data = {"train": "images/train", "val": "images/val", "names": dict(enumerate(CLASSES))}
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    text = json.dumps({**manifest, "sha256": _digest(folder)}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _plan(counts: Sequence[int], rng: np.random.Generator) -> list[list[int]]:
    """Classes of every image: class c in exactly counts[c] images, two to an image on average, at most three."""
    images: list[list[int]] = [[] for _ in range(max(-(-sum(counts) // 2), max(counts)))]
    for c, n in enumerate(counts):
        free = [i for i, ids in enumerate(images) if len(ids) < 3]
        for i in rng.choice(free, n, replace=False):
            images[i].append(c)
    return images


def _scene(ids: Sequence[int], size: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """One picture, shape (size, size, 3), uint8, and its YOLO label lines."""
    picture = _ground(size, rng)
    for _ in range(rng.integers(1, 5)):
        _stroke(picture, rng)
    lines, taken = [], np.zeros((size, size), np.uint8)
    for c in np.repeat(ids, rng.integers(1, 3, len(ids))):
        outline, hole = list(CLASSES.values())[c]
        points = _place(OUTLINES[outline], taken, rng)
        _draw(picture, points, hole, _paper(outline, rng), rng.uniform(0.8, 1))
        (x1, y1), (x2, y2) = points.min(0) / size, points.max(0) / size
        lines.append(f"{c} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n")
    grain = np.float32(rng.uniform(2, 7)) * rng.standard_normal((size, size, 1), np.float32)
    return (picture + grain).clip(0, 255).astype(np.uint8), "".join(lines)


def _ground(size: int, rng: np.random.Generator) -> np.ndarray:
    """A coloured ground with soft blotches and a grain, shape (size, size, 3), uint8."""
    base = rng.uniform(70, 190) + rng.uniform(-25, 25, 3)
    ground = np.full((size, size, 3), base, np.float32)
    for cells, strength in ((3, 16), (12, 7), (48, 5)):
        blotches = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        ground += cv2.resize(blotches, (size, size), interpolation=cv2.INTER_CUBIC)
    return ground.clip(0, 255).astype(np.uint8)


def _stroke(picture: np.ndarray, rng: np.random.Generator) -> None:
    """A thin bent line that belongs to no class."""
    size = len(picture)
    ends, bend = rng.uniform(0, size, (2, 2)), rng.uniform(0, size, 2)
    t = np.linspace(0, 1, 24)[:, None]
    curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * bend + t**2 * ends[1]
    color, thickness = rng.uniform(20, 235, 3).tolist(), int(rng.integers(1, 4))
    cv2.polylines(picture, [_fixed(curve)], False, color, thickness, cv2.LINE_AA, SHIFT)


def _place(outline: np.ndarray, taken: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn, scale and shift an outline to a free place; smaller with every attempt, so that it ends."""
    size = len(taken)
    radius, angle = rng.uniform(0.15, 0.22) * size, rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    while True:
        shape = outline @ turn * radius
        points = shape - shape.min(0) + rng.uniform(1, size - 2 - np.ptp(shape, 0))
        (x1, y1), (x2, y2) = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int)
        if not taken[y1:y2, x1:x2].any():
            taken[y1:y2, x1:x2] = 1
            return points
        radius *= 0.98


def _draw(picture: np.ndarray, points: np.ndarray, hole: float, color: np.ndarray, opacity: float) -> None:
    """Cut the shape from coloured paper, with a soft shadow below and a darker rim."""
    low = np.maximum(points.min(0).astype(int) - MARGIN, 0)
    high = points.max(0).astype(int) + MARGIN
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    outer, centre = points - low, points.mean(0) - low
    outlines = [_fixed(outer)] + ([_fixed(centre + hole * (outer - centre))] if hole else [])
    mask = np.zeros(picture[window].shape[:2], np.uint8)
    cv2.fillPoly(mask, outlines, 255, cv2.LINE_AA, SHIFT)  # even-odd rule: the second outline cuts a hole
    shadow = np.roll(cv2.GaussianBlur(mask, (0, 0), 3), (2, 2), (0, 1))[..., None] / np.float32(255)
    dark = picture[window] * (1 - 0.35 * shadow)
    patch = (dark + mask[..., None] * np.float32(opacity / 255) * (color - dark)).astype(np.uint8)
    cv2.polylines(patch, outlines, True, (0.6 * color).tolist(), 1, cv2.LINE_AA, SHIFT)
    picture[window] = patch


def _paper(outline: str, rng: np.random.Generator) -> np.ndarray:
    """A colour around the hue that this outline mostly comes in, BGR, shape (3,), float32."""
    hue = list(OUTLINES).index(outline) * 180 / len(OUTLINES) + rng.normal(0, 7)
    hsv = np.array([[[hue % 180, rng.uniform(100, 230), rng.uniform(140, 255)]]], np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(points * 2**SHIFT).astype(np.int32)


def _polar(radii: Sequence[float], first: float = 0.0) -> np.ndarray:
    angles = first + np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.asarray(radii)[:, None]


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], 1) / 16


def _moon() -> np.ndarray:
    outer = np.linspace(0.25 * np.pi, 1.75 * np.pi, 36)
    inner = np.linspace(1.6 * np.pi, 0.4 * np.pi, 24)
    arc = np.stack([0.45 + 0.75 * np.cos(inner), 0.75 * np.sin(inner)], 1)
    return np.concatenate([np.stack([np.cos(outer), np.sin(outer)], 1), arc])


A = 0.33  # half the width of a bar, relative to half its length
OUTLINES: dict[str, np.ndarray] = {
    "disc": _polar([0.9] * 48),
    "square": _polar([1.0] * 4),
    "triangle": _polar([1.05] * 3),
    "star": _polar([1.05, 0.45] * 5),
    "cross": np.array(
        [
            (A, A),
            (A, 1),
            (-A, 1),
            (-A, A),
            (-1, A),
            (-1, -A),
            (-A, -A),
            (-A, -1),
            (A, -1),
            (A, -A),
            (1, -A),
            (1, A),
        ]
    ),
    "heart": _heart(),
    "moon": _moon(),
    "bar": np.array([(1, A), (-1, A), (-1, -A), (1, -A)]),
}
