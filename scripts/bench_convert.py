"""What converting costs, on generated files of the real size and shape.

    python scripts/bench_convert.py                       # everything at full size: about an hour, 40 GB of files
    python scripts/bench_convert.py only=lvis scale=0.1 pairs=15
    python scripts/bench_convert.py only=openimages

lvis: `yolo-lt convert lvis` against Ultralytics' convert_coco on one file, whole processes in turn, with outlines and
with boxes alone: CPU time and peak memory (the largest resident set). index: size of the federated index, and how long
it takes to load. openimages: CPU time and peak memory of `yolo-lt convert openimages`. stats: CPU time of `yolo-lt
stats` when the label cache exists, over the time that building the cache takes.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import generated_sets
import numpy as np

from yolo_lt import cli

THEIRS = (
    "import sys; from ultralytics.data.converter import convert_coco; "
    "convert_coco(sys.argv[1], sys.argv[2], use_segments=sys.argv[3] == 'true', cls91to80=False, lvis=True)"
)
LVIS, OPEN_IMAGES = (100_170, 1_270_141), (1_743_042, 14_610_229)  # images, boxes


def main() -> None:
    keys = {"only": "all", "scale": 1.0, "pairs": 3, "folder": None, "images": 10_000, **cli.parse(sys.argv[1:])}
    folder = Path(keys["folder"] or tempfile.mkdtemp(prefix="bench-convert-"))
    parts = {"lvis": lvis, "openimages": open_images, "stats": stats}
    for name, part in parts.items():
        if keys["only"] in ("all", name):
            part(folder, keys)
    if not keys["folder"]:
        shutil.rmtree(folder)


def measured(command: Sequence[str]) -> tuple[float, float]:
    """CPU seconds and peak resident set in GB of a process."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(log.read().decode()[-2000:])
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def convert(*words: str) -> tuple[float, float]:
    return measured([sys.executable, "-m", "yolo_lt.cli", "convert", *words])


def lvis(folder: Path, keys: dict) -> None:
    images, boxes = (int(n * keys["scale"]) for n in LVIS)
    source = folder / f"lvis-{images}"
    path = source / "lvis_v1_train.json"
    if not path.exists():
        generated_sets.lvis(source, images, boxes)
    print(f"lvis: {images} images, {boxes} boxes, {path.stat().st_size / 1e9:.2f} GB; {keys['pairs']} pairs")
    for segments in ("true", "false"):
        pairs = []
        for _ in range(keys["pairs"]):
            for made in (folder / "ours", folder / "theirs"):
                shutil.rmtree(made, ignore_errors=True)
            theirs = measured([sys.executable, "-c", THEIRS, str(source), str(folder / "theirs"), segments])
            ours = convert("lvis", f"annotations=train:{path}", f"out={folder / 'ours'}", f"segments={segments}")
            pairs.append((*theirs, *ours))
            print("  ", *(f"{x:.2f}" for x in pairs[-1]), flush=True)
        cpu, memory = [t / o for t, _, o, _ in pairs], [o / t for _, t, _, o in pairs]
        print(
            f"segments={segments}: CPU time, convert_coco / ours {spread(cpu)}; "
            f"peak memory, ours / convert_coco {spread(memory)}"
        )
        print(f"   ours {statistics.median(p[2] for p in pairs):.1f} s and {max(p[3] for p in pairs):.2f} GB")
    index(folder / "ours" / "federated" / "train.npz")


def index(path: Path) -> None:
    from yolo_lt.dataset.federated import load

    times = []
    for _ in range(5):
        start = time.perf_counter()
        load(path)
        times.append(time.perf_counter() - start)
    print(f"federated index: {path.stat().st_size / 1e6:.1f} MB, loaded in {spread(times)} s")


def open_images(folder: Path, keys: dict) -> None:
    images, boxes = (int(n * keys["scale"]) for n in OPEN_IMAGES)
    source = folder / f"openimages-{images}"
    if not source.exists():
        path = generated_sets.open_images(source, images, boxes)
        print(f"openimages: {images} images, {boxes} boxes, {path.stat().st_size / 1e9:.2f} GB")
    shutil.rmtree(folder / "ours", ignore_errors=True)
    seconds, memory = convert("openimages", f"annotations={source}", f"out={folder / 'ours'}")
    print(f"openimages: {seconds:.0f} s of CPU time, {memory:.2f} GB")
    index(folder / "ours" / "federated" / "train.npz")


def stats(folder: Path, keys: dict) -> None:
    for segments in ("true", "false"):
        stats_of(folder, keys, segments)


def stats_of(folder: Path, keys: dict, segments: str) -> None:
    """In one process, so that neither side has the start of Python and torch."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    from yolo_lt import api

    source = folder / f"stats-{keys['images']}"
    if not source.exists():
        generated_sets.lvis(source, keys["images"], int(12.7 * keys["images"]))
        pictures(source / "train2017", keys["images"])
    made = source / f"segments-{segments}"
    words = [f"annotations=train:{source / 'lvis_v1_train.json'}", f"images={source}", f"out={made}"]
    convert("lvis", *words, f"segments={segments}")
    api.stats(made / "data.yaml", project=folder)  # the first call loads what is loaded once
    pairs = []
    for _ in range(keys["pairs"]):
        for cache in made.rglob("*.cache"):
            cache.unlink()
        first, again = (_timed(lambda: api.stats(made / "data.yaml", project=folder)) for _ in range(2))
        pairs.append((first - again, again))
    cache_time, time_of_stats = (spread(times) for times in zip(*pairs, strict=True))
    print(
        f"stats of {keys['images']} images, segments={segments}: building the cache {cache_time} s, "
        f"stats {time_of_stats} s"
    )
    print(f"   stats / building the cache {spread([again / cache for cache, again in pairs])}")


def _timed(call: object) -> float:
    start = time.process_time()
    call()  # type: ignore[operator]
    return time.process_time() - start


def pictures(folder: Path, images: int) -> None:
    """JPEG files of LVIS' size, no two alike: one picture, with a comment in each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8), (0, 0), 2)
    content = cv2.imencode(".jpg", picture)[1].tobytes()
    for i in range(images):
        comment = f"{i:08d}".encode() * int(rng.integers(1, 1000))  # photographs hardly ever have the same size
        head = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"{i + 1:012d}.jpg").write_bytes(content[:2] + head + content[2:])


def spread(values: Sequence[float]) -> str:
    """Median, and the smallest and the largest."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
