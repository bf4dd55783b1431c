"""What sampling costs at the scales of LVIS and Open Images: labels to factors, an epoch's index stream, the loader.

    python scripts/bench_sampling.py parts=lvis,openimages,stream,loader pairs=15

Every part runs in a fresh process, on generated data; `scale=0.1` shrinks LVIS and Open Images. Ratios are medians over
interleaved pairs with their 2.5 and 97.5 % quantiles, of CPU time unless wall time is named.

`lvis`: from Ultralytics' labels in memory to image repeat factors, against a loop over the images in plain Python that
works as detectron2's RepeatFactorTrainingSampler does: a set of classes per image, made once to count and once more for
the maximum. "From ClassStats" leaves out reading the labels and finding the distinct classes per image, which is what
ClassStats is; the reference stays the whole loop.

`openimages`: the same way in time and memory, at a quarter, half and all of the images.

`stream`: five epochs of the index stream, drawn in batches as a loader does.

`loader`: epochs of equal length over JPEG images with mosaic and two workers, ours against stock. CPU time is that of
the process and its workers over all batches of an epoch; wall time is that of the epoch, which starts with the batches
that the workers prefetched. So few images with so strong repeats are the hard case: many are drawn again while they are
in memory, or soon after.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import psutil
from torch.utils.data import BatchSampler
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER

from yolo_lt import cli, config
from yolo_lt.balance import repeat_factors
from yolo_lt.balance.exposure import Exposure
from yolo_lt.dataset import ClassStats
from yolo_lt.dataset.federated import FederatedIndex, Lists
from yolo_lt.ultra.labels import stats_of
from yolo_lt.ultra.loader import StreamSampler
from yolo_lt.ultra.trainer import LTDetectionTrainer

DEFAULTS = {"parts": "lvis,openimages,stream,loader", "pairs": 15, "scale": 1.0}
DEFAULTS |= {"images": 512, "imgsz": 320, "batch": 16}  # of the loader
LVIS = {"images": 100_170, "boxes": 1_270_141, "classes": 1203}  # v1 train
OPEN_IMAGES = {"images": 1_743_042, "boxes": 14_610_229, "classes": 601}  # V4 to V7 train
THR = 1e-3
MB = 1e6
OURS = {  # a further side is one line: its name and its yolo-lt keys
    "RFS and counting": {"recipe": "rfs", "federated": False},
    "tail paste": {"recipe": "rfs", "federated": False, "tail_paste": True},
    "federated labels": {"recipe": "rfs", "federated": True},
}


def main() -> None:
    keys = {**DEFAULTS, **cli.parse(sys.argv[1:])}
    parts = keys["parts"] if isinstance(keys["parts"], (list, tuple)) else str(keys["parts"]).split(",")
    calls = {"lvis": lvis, "openimages": open_images, "stream": stream, "loader": loader}
    for part in parts:
        calls[part.strip()](keys)


def fresh(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a call in a new process, whose memory nothing else has grown."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def ratio(values: np.ndarray) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{np.median(values):6.2f} [{low:.2f}, {high:.2f}]"


def cpu(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returns."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


# Generated data ------------------------------------------------------------------------------------------------------
def generate(size: dict[str, int], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Class ids of all boxes, image after image, shape (M,), float32, and the boxes per image, shape (N,).

    Class frequencies follow a power law; as in LVIS, an image holds 3.6 classes on average and most of them repeatedly.
    """
    images, boxes, classes = int(size["images"] * scale), int(size["boxes"] * scale), size["classes"]
    rng = np.random.default_rng(0)
    law = np.arange(1, classes + 1) ** -1.2
    pairs = int(4.2 * images)  # some name a class that the image has already
    image, cls = rng.integers(0, images, pairs), rng.choice(classes, pairs, p=law / law.sum())
    of = np.r_[np.arange(pairs), rng.integers(0, pairs, boxes - pairs)]
    order = np.argsort(image[of] + rng.random(boxes))  # image after image, the classes of an image in any order
    return cls[of][order].astype(np.float32), np.bincount(image[of], minlength=images)


def in_memory(flat: np.ndarray, lengths: np.ndarray) -> list[dict[str, Any]]:
    """Labels as Ultralytics holds them after reading its cache."""
    labels, start = [], 0
    for i, n in enumerate(lengths.tolist()):
        label = {"im_file": f"images/{i:012d}.jpg", "shape": (480, 640), "cls": flat[start : start + n, None].copy()}
        label |= {"bboxes": np.full((n, 4), 0.5, np.float32), "segments": [], "keypoints": None}
        labels.append({**label, "normalized": True, "bbox_format": "xywh"})
        start += n
    return labels


def data_of(classes: int) -> dict[str, Any]:
    return {"names": {c: f"class {c}" for c in range(classes)}}


# LVIS scale ----------------------------------------------------------------------------------------------------------
def lvis(keys: dict[str, Any]) -> None:
    seconds, stats = fresh(against_reference, keys["scale"], keys["pairs"])
    distinct = len(stats.incidences[0]) / stats.num_images
    sizes = f"{stats.num_images} images, {len(stats.classes)} boxes, {stats.num_classes} classes"
    print(f"LVIS scale: {sizes} ({distinct:.1f} an image), {keys['pairs']} pairs")
    for name, values in seconds.items():
        faster = "" if name == "reference" else f"   reference / this {ratio(seconds['reference'] / values)}"
        print(f"  {name:24} {np.median(values) * 1e3:7.1f} ms{faster}", flush=True)


def against_reference(scale: float, pairs: int) -> tuple[dict[str, np.ndarray], ClassStats]:
    """CPU seconds of the reference and of ours, pair by pair; the first round warms up."""
    labels, data = in_memory(*generate(LVIS, scale)), data_of(LVIS["classes"])
    rounds = [one_round(labels, data) for _ in range(pairs + 1)][1:]
    return {name: np.array([r[name] for r in rounds]) for name in rounds[0]}, stats_of(labels, data)


def one_round(labels: list[dict[str, Any]], data: dict[str, Any]) -> dict[str, float]:
    theirs, expected = cpu(lambda: reference(labels))
    ours, factors = cpu(lambda: repeat_factors(stats_of(labels, data), method="rfs", thr=THR))
    stats = stats_of(labels, data)  # anew, so that nothing it computed on demand is left from the last round
    rest, again = cpu(lambda: repeat_factors(stats, method="rfs", thr=THR))
    np.testing.assert_allclose(factors, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-9)
    return {"reference": theirs, "from labels to factors": ours, "from ClassStats": rest}


def reference(labels: list[dict[str, Any]]) -> list[float]:
    """Image repeat factors by a loop: r_i = max over the classes c of image i of max(1, sqrt(t / f_c))."""
    counts: dict[float, int] = defaultdict(int)
    for x in labels:
        for c in set(x["cls"].reshape(-1).tolist()):
            counts[c] += 1
    factor = {c: max(1.0, math.sqrt(THR / (n / len(labels)))) for c, n in counts.items()}
    return [max((factor[c] for c in set(x["cls"].reshape(-1).tolist())), default=1.0) for x in labels]


# Open Images scale ---------------------------------------------------------------------------------------------------
def open_images(keys: dict[str, Any]) -> None:
    sizes = f"{OPEN_IMAGES['images'] * keys['scale']:.0f} images, {OPEN_IMAGES['boxes'] * keys['scale']:.0f} boxes"
    print(f"Open Images scale: {sizes}, from labels to factors")
    for part in (0.25, 0.5, 1.0):
        images, seconds, held, added = fresh(time_and_memory, *fresh(generate, OPEN_IMAGES, keys["scale"] * part))
        each = f"{seconds / images * 1e6:.2f} us an image"
        print(f"  {images:8} images: {seconds:5.2f} s, {each}; {added:4.0f} MB added to {held:5.0f} MB", flush=True)


def time_and_memory(flat: np.ndarray, lengths: np.ndarray) -> tuple[int, float, float, float]:
    """Images, CPU seconds (median of three), memory before, and the most that was added."""
    labels, data = in_memory(flat, lengths), data_of(OPEN_IMAGES["classes"])
    gc.collect()
    before = start_peak()
    first, _ = cpu(lambda: repeat_factors(stats_of(labels, data), method="rfs", thr=THR))
    added = peak() - before
    more = [cpu(lambda: repeat_factors(stats_of(labels, data), method="rfs", thr=THR))[0] for _ in range(2)]
    return len(labels), float(np.median([first, *more])), before / MB, added / MB


def resident() -> int:
    """Bytes of this process in memory."""
    return psutil.Process().memory_info().rss


def start_peak() -> int:
    """Bytes in memory now; from here on `peak` counts anew (where it cannot, it is too high, never too low)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return resident()


def peak() -> int:
    """The most bytes that this process had in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the starting process had before it became this one
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# An epoch's stream ---------------------------------------------------------------------------------------------------
def stream(keys: dict[str, Any]) -> None:
    factors = fresh(some_factors, keys["scale"])
    draws, rows = fresh(epochs_of_a_stream, factors, keys["batch"])
    print(f"Stream: {len(factors)} images, {draws} draws an epoch, in batches of {keys['batch']}")
    for epoch, (seconds, left, most) in enumerate(rows):
        memory = f"memory over the start {left:5.1f} MB, at most {most:5.1f} MB"
        print(f"  epoch {epoch}: {seconds:.2f} s CPU, {memory}", flush=True)


def some_factors(scale: float) -> np.ndarray:
    stats = ClassStats.from_flat(*generate(OPEN_IMAGES, scale), OPEN_IMAGES["classes"])
    return repeat_factors(stats, method="rfs", thr=THR)


def epochs_of_a_stream(factors: np.ndarray, batch: int) -> tuple[int, list[tuple[float, float, float]]]:
    """Draws per epoch; CPU seconds, and MB over the start after and at most so far, of five epochs."""
    sampler, rows = StreamSampler(factors, seed=0), []
    before = start_peak()
    for _ in range(5):
        seconds, draws = cpu(lambda: sum(len(b) for b in BatchSampler(sampler, batch, drop_last=False)))
        assert draws == len(sampler)
        rows.append((seconds, (resident() - before) / MB, (peak() - before) / MB))
    return draws, rows


# The loader ----------------------------------------------------------------------------------------------------------
def loader(keys: dict[str, Any]) -> None:
    wall, work = fresh(epochs_of_loaders, keys)
    sizes = f"{keys['images']} images 640 wide, imgsz {keys['imgsz']}, mosaic, 2 workers, batch {keys['batch']}"
    print(
        f"Loader: {sizes}, {keys['pairs']} pairs; stock loads {keys['images'] / np.median(wall['stock']):.0f} images/s"
    )
    for name in OURS:
        print(f"  {name}: throughput / stock, CPU time   {ratio(work['stock'] / work[name])}")
        print(f"  {name}: throughput / stock, wall time  {ratio(wall['stock'] / wall[name])}", flush=True)


def epochs_of_loaders(keys: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Wall and CPU seconds of every side's epochs, in turn; a first round starts the workers and fills their memory."""
    LOGGER.setLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        shared = {"data": str(pictures(Path(folder), keys["images"])), "project": folder, "imgsz": keys["imgsz"]}
        shared |= {"batch": keys["batch"], "workers": 2, "device": "cpu", "mosaic": 1.0, "model": "yolo26n.yaml"}
        sides = {name: side(shared, lt) for name, lt in {"stock": {"recipe": "baseline"}, **OURS}.items()}
        rounds = [{name: timed(call) for name, call in sides.items()} for _ in range(keys["pairs"] + 1)][1:]
    return tuple({name: np.array([r[name][i] for r in rounds]) for name in sides} for i in range(2))


def pictures(folder: Path, images: int, classes: int = 31) -> Path:
    """Noise 640 wide with one to five boxes an image, as JPEG; class frequencies follow a power law."""
    rng, law = np.random.default_rng(0), np.arange(1, classes + 1) ** -1.2
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for i in range(images):
        small = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i:04d}.jpg"), cv2.resize(small, (640, 480)))
        lines = []
        for c in rng.choice(classes, rng.integers(1, 6), p=law / law.sum()):
            w, h = rng.uniform(0.1, 0.5, 2)
            x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
            lines.append(f"{c} {x:.4f} {y:.4f} {w:.4f} {h:.4f}")
        (folder / "labels" / f"{i:04d}.txt").write_text("\n".join(lines))
    names = "".join(f"  {c}: class {c}\n" for c in range(classes))
    known = Lists.of([range(classes)] * images)  # the mask is made and carried whatever the lists say
    files = tuple(f"{i:04d}.jpg" for i in range(images))
    all_names = tuple(f"class {c}" for c in range(classes))
    FederatedIndex(all_names, files, np.arange(images), known, known, known).save(folder / "federated.npz")
    head = "train: images\nval: images\nfederated: federated.npz\n"
    (folder / "data.yaml").write_text(f"{head}names:\n{names}")
    return folder / "data.yaml"


def side(shared: dict[str, Any], lt: dict[str, Any]) -> Callable[[], None]:
    """An epoch of the loader that training with these yolo-lt keys has, as a function."""
    stock = lt["recipe"] == "baseline"
    resolved = config.resolve({**lt, "epoch_length": "fixed"})
    trainer = DetectionTrainer(overrides=shared) if stock else LTDetectionTrainer(overrides=shared, lt=resolved)
    trainer.model = SimpleNamespace(stride=np.array([32]))  # all that loading asks of it
    batches = trainer.get_dataloader(trainer.data["train"], shared["batch"], rank=-1, mode="train")
    counted = None if stock else Exposure(trainer.plan)

    def epoch() -> None:
        for batch in batches:
            if counted:  # as the trainer does
                counted.add(batch["lt_tiles"], batch["cls"].cpu().numpy(), batch["lt_pasted"])

    return epoch


def timed(epoch: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and its workers, who prefetch as many batches as they find."""
    before, start, own = workers_at_rest(), time.perf_counter(), time.process_time()
    epoch()
    wall, own = time.perf_counter() - start, time.process_time() - own
    return wall, own + workers_at_rest() - before


def workers_at_rest() -> float:
    """CPU seconds of all workers up to now, once they have prefetched what they may."""
    before = -1.0
    while (now := sum(sum(p.cpu_times()[:2]) for p in psutil.Process().children(recursive=True))) != before:
        before = now
        time.sleep(0.3)
    return now


if __name__ == "__main__":
    main()
