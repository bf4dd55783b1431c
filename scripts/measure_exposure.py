"""Which source images reach the network: asked of the sampler, with the sampler alone in Ultralytics, with yolo_lt.

    python scripts/measure_exposure.py replicates=16 draws=2560 stock=8

For every configuration of `ROWS`, a pairwise-covering set of augmentations, caches, workers and set sizes, the loaders
that the trainers' `get_dataloader` builds run over a generated set with repeat factors. Counted by bin are the images
that are loaded, here called tiles: first images, and partners of mosaic, mixup and cutmix. Printed is a Markdown table.

Draws are not independent: the first images of an epoch are stratified, and mosaic takes its partners from recent draws.
So z does not rest on their number. Every configuration is run many times over, each time with a seed, data set and
loader of its own and from the first draw of a run on. These replicates are independent whatever happens inside them,
so the spread of their totals gives the standard error, and z is Student's t with one degree of freedom less than there
are replicates. Replicates are added until four standard errors are within 5 % of the asked share in every bin; to
choose their number by the spread alone does not make large z more frequent.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import get_worker_info
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import init_seeds

from yolo_lt import cli, config
from yolo_lt.balance import repeat_factors
from yolo_lt.balance.exposure import Exposure
from yolo_lt.balance.stream import epoch_length
from yolo_lt.dataset import BIN_NAMES
from yolo_lt.ultra.loader import StreamSampler, with_sampler
from yolo_lt.ultra.trainer import LTDetectionTrainer


class Row(NamedTuple):
    """One configuration."""

    mosaic: float
    mixup: float
    cutmix: float
    cache: str
    workers: int
    images: str

    @property
    def tiles(self) -> float:
        """Source images of a sample on average: mixup and cutmix bring a partner that had its own mosaic."""
        return (1 + 3 * self.mosaic) * (1 + self.mixup + self.cutmix)


LEVELS = Row((0, 0.5, 1), (0, 0.5, 1), (0, 0.5, 1), ("none", "disk", "ram"), (0, 2), ("small", "large"))
ROWS = [
    Row(1, 0, 0, "none", 0, "small"),  # this and the next are Ultralytics' defaults
    Row(1, 0, 0, "none", 2, "large"),
    Row(1, 0.5, 0.5, "disk", 2, "small"),
    Row(1, 1, 1, "ram", 0, "small"),
    Row(0.5, 0, 0.5, "ram", 0, "small"),
    Row(0.5, 0.5, 1, "none", 2, "small"),
    Row(0.5, 1, 0, "disk", 2, "large"),
    Row(0, 0, 1, "disk", 0, "large"),
    Row(0, 0.5, 0, "ram", 0, "small"),
    Row(0, 0.5, 0.5, "ram", 2, "large"),
    Row(0, 1, 0.5, "none", 2, "small"),
]
IMAGES = {"small": (185, 12, 3), "large": (1850, 120, 30)}  # that hold the head, the medium and the tail class
THR = 0.925  # the frequency of the head: medium and tail are repeated 3.9 and 7.9 times
SIZE, BATCH = 32, 16
VISIBLE = (0.05, 0.05, 0.05)  # errors by bin, relative to what was asked, that are four standard errors or more


def main() -> None:
    keys = {"replicates": 16, "draws": 2560, "stock": 8, **cli.parse(sys.argv[1:])}
    LOGGER.setLevel("ERROR")
    start, found = time.time(), []
    bins = [f"{b}, {who}" for b in ("tail", "medium") for who in ("sampler alone", "yolo_lt")]
    print(f"| {' | '.join((*Row._fields, *bins, 'max abs z'))} |\n|{'---|' * (len(Row._fields) + 5)}")
    for at, row in enumerate(ROWS):
        with tempfile.TemporaryDirectory() as folder:
            data, first = write_set(Path(folder) / "set", row.images), 1000 * at
            stock = measure(row, data, False, keys["stock"], keys["draws"], first, most=keys["stock"])
            ours = measure(row, data, True, keys["replicates"], keys["draws"], first)
        found.append(ours)
        ratios = [f"{side.ratio[b]:.2f}" for b in (2, 1) for side in (stock, ours)]
        print(f"| {' | '.join((*map(str, row), *ratios))} | {np.abs(ours.z).max():.1f} |", flush=True)
    print(f"\n{legend(found, keys)} {(time.time() - start) / 60:.0f} minutes.")


def legend(found: list[Shares], keys: dict[str, Any]) -> str:
    """What the table shows and what it rests on."""
    asked = ", ".join(f"{b} {a:.1%}" for b, a in zip(BIN_NAMES, found[0].asked, strict=True))
    worst = np.max([4 * f.error / f.asked for f in found], axis=0)
    errors = ", ".join(f"{b} {e:.1%}" for b, e in zip(BIN_NAMES, worst, strict=True))
    epochs = ", ".join(f"{keys['draws'] / epoch_length(factors(n)):.1f} ({n})" for n in IMAGES)
    runs = ", ".join(str(f.replicates) for f in found)
    tiles = sum(f.tiles for f in found)
    return (
        f"Share of the tiles that come from images of the bin, realised over asked ({asked}); max abs z is that of "
        f"yolo_lt over all three bins. Each row is {runs} runs with a seed of their own ({keys['stock']} for the "
        f"sampler alone) of {keys['draws']} draws, that is epochs: {epochs}; with yolo_lt {tiles:,} tiles in all. Four "
        f"standard errors are at most, relative to asked: {errors}."
    )


def uncovered(rows: list[Row]) -> set[tuple]:
    """Pairs of levels that occur together in no row."""
    fields = list(combinations(range(len(LEVELS)), 2))
    wanted = {(i, a, j, b) for i, j in fields for a in LEVELS[i] for b in LEVELS[j]}
    return wanted - {(i, row[i], j, row[j]) for row in rows for i, j in fields}


def classes(images: str) -> np.ndarray:
    """The class of every image, shape (N,)."""
    return np.repeat(range(3), IMAGES[images])


def factors(images: str) -> np.ndarray:
    """The repeat factor of every image, shape (N,)."""
    return repeat_factors([[c] for c in classes(images)], 3, thr=THR)


def write_set(folder: Path, images: str) -> Path:
    """A set of small pictures with one box each; returns data.yaml."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i, c in enumerate(classes(images)):
        cv2.imwrite(str(folder / "images" / f"{i:04d}.png"), rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
        w, h = rng.uniform(0.2, 0.6, 2)
        x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
        (folder / "labels" / f"{i:04d}.txt").write_text(f"{c} {x:.4f} {y:.4f} {w:.4f} {h:.4f}")
    names = "".join(f"  {c}: {name}\n" for c, name in enumerate(BIN_NAMES))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames:\n{names}")
    return folder / "data.yaml"


def trainer_of(row: Row, data: Path, ours: bool, **keys: Any) -> DetectionTrainer:
    """A trainer that is ready to build its training loader."""
    overrides = {"data": str(data), "model": "yolo26n.yaml", "imgsz": SIZE, "batch": BATCH, "device": "cpu"}
    overrides |= {"project": str(data.parent.parent / "runs"), "plots": False, "augmentations": []}
    overrides |= {k: v for k, v in row._asdict().items() if k != "images"}
    overrides |= {"cache": row.cache if row.cache != "none" else False, **keys}
    if ours:
        lt = config.resolve({"recipe": "rfs", "repeat_thr": THR})
        trainer: DetectionTrainer = LTDetectionTrainer(overrides=overrides, lt=lt)
    else:
        trainer = DetectionTrainer(overrides=overrides)
    trainer.args.workers = row.workers  # on the CPU the constructor sets 0
    trainer.setup_model()  # its stride is needed to build the data set
    return trainer


class Recorder(YOLODataset):
    """Ultralytics' own data set; it counts what it loads in memory shared by the workers, a line each."""

    drawn: torch.Tensor

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Load one source image; every tile comes through here."""
        worker = get_worker_info()
        self.drawn[worker.id if worker else 0, index] += 1
        return super().get_image_and_label(index)


def fresh_loader(trainer: DetectionTrainer, seed: int) -> InfiniteDataLoader:
    """The training loader of a new run; stock Ultralytics' is given the same sampler, and a `Recorder`."""
    init_seeds(seed)
    trainer.args.seed = seed
    loader = trainer.get_dataloader(trainer.data["train"], BATCH, rank=-1)
    if isinstance(trainer, LTDetectionTrainer):
        return loader
    dataset = loader.dataset
    dataset.__class__ = Recorder  # in place, as the transforms hold the data set
    dataset.drawn = torch.zeros(max(loader.num_workers, 1), len(dataset), dtype=torch.int64).share_memory_()
    images = next(k for k, v in IMAGES.items() if sum(v) == len(dataset))
    return with_sampler(loader, StreamSampler(factors(images), seed))


def run(trainer: DetectionTrainer, seed: int, draws: int) -> np.ndarray:
    """How often every image was loaded for the first `draws` samples of a run, in whole batches, shape (N,).

    With workers, the count of stock Ultralytics includes the few batches that they have fetched ahead.
    """
    loader = fresh_loader(trainer, seed)
    batches: Iterator[dict[str, Any]] = islice(chain.from_iterable(repeat(loader)), math.ceil(draws / BATCH))
    if isinstance(trainer, LTDetectionTrainer):
        counted = Exposure(trainer.plan)
        for batch in batches:
            counted.add(batch["lt_tiles"], batch["cls"].numpy())
        drawn = counted.tiles
    else:
        for _ in batches:
            pass
        drawn = loader.dataset.drawn.sum(0).numpy()
    loader.close()
    return drawn


class Shares(NamedTuple):
    """Shares of the tiles by bin, shape (3,), over independent replicates."""

    asked: np.ndarray
    realised: np.ndarray
    error: np.ndarray  # standard error of `realised`
    tiles: int
    replicates: int

    @property
    def z(self) -> np.ndarray:
        """Deviations in standard errors."""
        return (self.realised - self.asked) / self.error

    @property
    def ratio(self) -> np.ndarray:
        """Realised over asked."""
        return self.realised / self.asked

    def see(self, errors: Sequence[float]) -> bool:
        """Whether these errors by bin, relative to what was asked, would be four standard errors or more."""
        return bool((4 * self.error <= errors * self.asked).all())


def measure(
    row: Row,
    data: Path,
    ours: bool,
    replicates: int,
    draws: int,
    first_seed: int = 0,
    most: int = 100,
    visible: Sequence[float] = VISIBLE,
) -> Shares:
    """From `replicates` to `most` runs of `draws` samples each, until errors by bin of `visible` would be seen."""
    trainer, holds = trainer_of(row, data, ours), np.eye(3)[classes(row.images)]
    counts: list[np.ndarray] = []
    for seed in range(first_seed, first_seed + most):
        counts.append(run(trainer, seed, draws) @ holds)
        if len(counts) >= replicates and (found := shares(row, np.array(counts))).see(visible):
            return found
    return shares(row, np.array(counts))


def shares(row: Row, counts: np.ndarray) -> Shares:
    """From the tiles per replicate and bin, shape (R, 3).

    A share is a ratio of totals, as runs differ in their number of tiles; what varies about zero from run to run is the
    excess over the asked share of the run's own tiles.
    """
    asked = factors(row.images) @ np.eye(3)[classes(row.images)] / factors(row.images).sum()
    excess = counts - asked * counts.sum(1, keepdims=True)
    error = excess.std(0, ddof=1) * math.sqrt(len(counts)) / counts.sum()
    return Shares(asked, counts.sum(0) / counts.sum(), error, int(counts.sum()), len(counts))


if __name__ == "__main__":
    main()
