"""What the losses cost against Ultralytics' own criterion, and that they are what their definitions say.

    python scripts/bench_losses.py only=criterion,memory,equality,step pairs=15 warmup=20

`nc`, `imgsz`, `models`, `losses` and `only` take lists; `pairs=1 warmup=1 nc=20 imgsz=64` only shows that it runs.
Losses get the keywords of training, eql a threshold below which two thirds of the classes are. Times are CPU time,
ratios medians over interleaved pairs, whose order alternates, with their 2.5 and 97.5 % quantiles. Every batch has 12
boxes an image, their classes from a long tail. Those called masked have federated labels: every image is a mosaic of
four sources, in each of which 20 classes were looked for, one of them not exhaustively; making the mask is part of the
time. Where other programs run as well, set OMP_WAIT_POLICY=passive: threads
that wait for each other by spinning count as CPU time, of ours most, as it works in many small parts.

`criterion`: assigner, classification and box loss, forward and backward, on fixed predictions of an untrained model.
Losses that keep a state have had `warmup` batches before, and go on learning.

`memory`: the most resident memory that one such call adds to its inputs, each in a fresh process. Linux only. The
inputs are leaves, for which autograd copies the gradient of the scores; stock's peak comes before that, ours is it.

`equality`: a loss on the assigner's sparse targets against its definition over all entries, on spread logits, its state
that of after the warm-up: relative difference of the value, and largest difference over the largest gradient. The last
column gives the same float32 inputs to a reference in float64, so it holds what rounding z - log sigmoid(z) costs, in
stock as well.

`step`: forward of the model, criterion, backward and a step of SGD, at the first `nc` and `imgsz`.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER

from yolo_lt import cli, config
from yolo_lt.balance.losses import Loss, RowWeights, SparseTargets
from yolo_lt.balance.losses.class_balanced import ClassBalanced
from yolo_lt.balance.losses.efl import EFL, EQFL
from yolo_lt.balance.losses.eql import EQL
from yolo_lt.balance.losses.eqlv2 import VARIANTS, EQLv2
from yolo_lt.balance.losses.federated import Federated
from yolo_lt.balance.losses.loce import LOCE, START
from yolo_lt.balance.losses.margins import ECM, LogitAdjusted
from yolo_lt.balance.losses.seesaw import LEAST, Seesaw
from yolo_lt.balance.plan import make_plan
from yolo_lt.dataset import ClassStats
from yolo_lt.dataset.federated import FederatedIndex, Lists
from yolo_lt.ultra.criterion import ClassificationLoss, branches, install_planned
from yolo_lt.ultra.masks import AnnotationMask
from yolo_lt.ultra.sources import STEP

OPTIONS: dict[str, dict[str, Any]] = {  # yolo-lt keys
    "bce": {"cls_loss": "bce"},
    "cb": {"cls_loss": "cb", "cb_form": "positives"},
    "inverse": {"cls_loss": "inverse", "cb_form": "positives"},
    "eql": {"cls_loss": "eql"},
    **{f"eqlv2 {variant}": {"cls_loss": "eqlv2", "loss_variant": variant} for variant in VARIANTS},
    "efl": {"cls_loss": "efl"},
    "eqfl": {"cls_loss": "eqfl"},
    **{name: {"cls_loss": name} for name in ("seesaw", "ecm", "loce", "logit_adjusted", "federated")},
    "box_weight": {"box_weight": "cb"},
    **{f"{name} masked": {"cls_loss": name, "unknown_negatives": 0.2} for name in ("bce", "cb", "eqlv2")},
}
DEFAULTS: dict[str, Any] = {"only": "criterion,memory,equality,step", "pairs": 15, "warmup": 20, "batch": 8}
DEFAULTS |= {"models": "yolov8n,yolo26n", "nc": "80,1203", "imgsz": "320,640", "step_model": "yolo11n"}
DEFAULTS |= {"losses": ",".join(OPTIONS)}
KINDS = {  # dtype of the loss, and of its definition
    "float64": (torch.float64, torch.float64),
    "float32": (torch.float32, torch.float32),
    "float32 against float64": (torch.float32, torch.float64),
}
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # glibc gives back what is freed
IMAGES, BOXES = 10_000, 12  # of the statistics; an image
LOOKED_AT = 20  # classes in a source with federated labels
MB, PAGE = 1e6, 4096
LOGGER.setLevel("ERROR")


def main() -> None:
    keys = {**DEFAULTS, **cli.parse(sys.argv[1:])}
    for key in ("only", "models", "losses", "nc", "imgsz"):
        values = keys[key] if isinstance(keys[key], (list, tuple)) else str(keys[key]).split(",")
        keys[key] = [int(v) if key in ("nc", "imgsz") else str(v).strip() for v in values]
    big = torch.rand(4_000_000)  # until a large power has run in every thread, kernels like log1p, of which BCE is
    big.pow(big)  # made, can take up to five times as long, in stock and in ours: the vector unit's state
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {keys['batch']}, {keys['pairs']} pairs")
    for part in keys["only"]:
        {"criterion": criterion, "memory": memory, "equality": equality, "step": step}[part](keys)


def row(first: str, *cells: str) -> None:
    print(f"| {first} | {' | '.join(cells)} |", flush=True)


def table(title: str, *columns: str) -> None:
    print(f"\n{title}\n")
    row("loss", *columns)
    row("---", *["---:"] * len(columns))


# What is measured ----------------------------------------------------------------------------------------------------
class Case:
    """An untrained model, class statistics, and the boxes of a batch."""

    def __init__(self, name: str, nc: int, images: int) -> None:
        torch.manual_seed(0)
        self.model = DetectionModel(f"{name}.yaml", nc=nc, verbose=False).train()
        self.model.args = get_cfg()
        rng, law = np.random.default_rng(0), np.arange(1, nc + 1) ** -1.2
        flat = rng.choice(nc, IMAGES * BOXES, p=law / law.sum()).astype(np.float32)
        self.stats = ClassStats.from_flat(flat, np.full(IMAGES, BOXES), nc)
        self.images, n = images, images * BOXES
        boxes = np.c_[rng.uniform(0.2, 0.8, (n, 2)), rng.uniform(0.05, 0.35, (n, 2))].astype(np.float32)
        self.batch = {"cls": torch.from_numpy(flat[:n, None]), "bboxes": torch.from_numpy(boxes)}
        self.batch["batch_idx"] = torch.arange(n) // BOXES
        self.losses: dict[str, ClassificationLoss] = {}
        self.mask: AnnotationMask | None = None

    def predictions(self, imgsz: int) -> Any:
        """What the model says of noise."""
        with torch.no_grad():
            return self.model(torch.rand(self.images, 3, imgsz, imgsz))

    def install(self, name: str) -> Loss:
        """Puts a loss on a new `model.criterion` as training does; returns that of the first branch."""
        lt = {"recipe": "baseline", **OPTIONS[name]}
        if name == "eql":
            lt["eql_lambda"] = float(np.quantile(self.stats.image_counts / self.stats.num_images, 2 / 3))
        index = self.federated() if name.endswith("masked") else None
        plan = make_plan(self.stats, config.resolve(lt), federated=index)
        self.model.criterion = None
        self.losses = install_planned(self.model, plan)
        self.mask = None if index is None else AnnotationMask(index, plan, 0, -1)
        return next(iter(self.losses.values())).loss

    def federated(self) -> FederatedIndex:
        """Four sources an image; nearly every one is labelled for other classes, as in LVIS."""
        rng, sources = np.random.default_rng(1), 4 * self.images
        known = [rng.choice(self.stats.num_classes, min(LOOKED_AT, self.stats.num_classes)) for _ in range(sources)]
        negative, partly = Lists.of([k[:-1] for k in known]), Lists.of([k[-1:] for k in known])
        names = tuple(f"{i}.jpg" for i in range(sources))
        return FederatedIndex(self.stats.names, names, np.arange(sources), partly, negative, partly)

    def prepare(self, predictions: Any) -> None:
        """Give the losses the mask of a batch of which these are the predictions, if they have one."""
        if self.mask is None:
            return
        finest, strides = predictions.get("one2many", predictions)["feats"][0], self.model.stride.tolist()
        images, imgsz = len(finest), int(finest.shape[2] * strides[0])
        half = imgsz // STEP // 2
        codes = [np.kron(np.array([[0, 1], [2, 3]], np.uint8), np.ones((half, half), np.uint8))] * images
        palettes = [np.repeat(np.arange(4 * i, 4 * i + 4)[:, None], 2, 1) for i in range(images)]
        absent = self.mask(codes, palettes, self.batch["cls"], (imgsz, imgsz), strides, torch.device("cpu"))
        for loss in self.losses.values():
            loss.absent = absent


def leaves(predictions: Any) -> Any:
    """A copy that takes gradients."""
    if isinstance(predictions, dict):
        return {k: leaves(v) for k, v in predictions.items()}
    if isinstance(predictions, (list, tuple)):
        return [leaves(v) for v in predictions]
    return predictions.clone().requires_grad_()


def call(criterion: Any, predictions: Any, case: Case, batch: dict[str, Tensor]) -> float:
    """CPU seconds of forward and backward, and of the mask where `case` has installed one in this criterion."""
    inputs = leaves(predictions)
    start = time.process_time()
    if case.mask is not None and criterion is case.model.criterion:
        case.prepare(predictions)
    criterion(inputs, batch)[0].sum().backward()
    return time.process_time() - start


def warmup(loss: Loss, keys: dict[str, Any]) -> int:
    """Batches before the first that counts: that which is compared with BCE and one more, or those a state needs."""
    return max(2, keys["warmup"]) if loss.keeps_state else 2


def interleave(stock: Callable[[], float], ours: Callable[[], float], loss: Loss, keys: dict[str, Any]) -> Any:
    """Median ratio of ours to stock with its quantiles, as text, and the median of stock in milliseconds."""
    for side in (stock, stock, *[ours] * warmup(loss, keys)):
        side()
    seconds = np.empty((keys["pairs"], 2))
    for i, pair in enumerate(seconds):
        for k in (0, 1) if i % 2 else (1, 0):
            pair[k] = (stock, ours)[k]()
    ratios = seconds[:, 1] / seconds[:, 0]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return f"{np.median(ratios):.2f} [{low:.2f}, {high:.2f}]", float(np.median(seconds[:, 0])) * 1e3


# Time and memory of the criterion ------------------------------------------------------------------------------------
def criterion(keys: dict[str, Any]) -> None:
    sizes = list(itertools.product(keys["nc"], keys["imgsz"]))
    for name in keys["models"]:
        cases = [(case := Case(name, nc, keys["batch"]), case.predictions(imgsz)) for nc, imgsz in sizes]
        title = f"Criterion of {name}, forward and backward: CPU time, ours / stock"
        table(title, *[f"nc {nc}, imgsz {imgsz}" for nc, imgsz in sizes])
        stock = []
        for loss in keys["losses"]:
            cells = [time_criterion(*case, loss, keys) for case in cases]
            row(loss, *[text for text, _ in cells])
            stock.append([ms for _, ms in cells])
        row("stock, ms", *[f"{ms:.0f}" for ms in np.median(stock, 0)])


def time_criterion(case: Case, predictions: Any, name: str, keys: dict[str, Any]) -> tuple[str, float]:
    loss, stock = case.install(name), case.model.init_criterion()
    sides = [lambda c=c: call(c, predictions, case, case.batch) for c in (stock, case.model.criterion)]
    return interleave(sides[0], sides[1], loss, keys)


def memory(keys: dict[str, Any]) -> None:
    if not Path("/proc/self/clear_refs").exists():
        print("\nPeak memory is not measured: it is read from /proc, which Linux alone has")
        return
    os.environ.update(ALLOCATOR)  # of the processes that start from here on
    sizes = list(itertools.product(keys["nc"], keys["imgsz"]))
    for name in keys["models"]:
        title = f"Criterion of {name}, forward and backward: peak memory, ours / stock (Linux)"
        table(title, *[f"nc {nc}, imgsz {imgsz}" for nc, imgsz in sizes])
        stock, highest = np.array([fresh(peak, name, *size, None, keys) for size in sizes]), 0.0
        row("stock, MB", *[f"{b / MB:.1f}" for b in stock])
        for loss in keys["losses"]:
            ratios = np.array([fresh(peak, name, *size, loss, keys) for size in sizes]) / stock
            row(loss, *[against_stock(r) for r in ratios])
            highest = max(highest, ratios.max())
        print(f"\nThe highest: {against_stock(highest)}")


def against_stock(ratio: float) -> str:
    return f"{ratio:.2f} ({abs(1 - ratio):.0%} {'below' if ratio <= 1 else 'ABOVE'})"


def fresh(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a call in a new process, whose memory nothing else has grown."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak(name: str, nc: int, imgsz: int, loss: str | None, keys: dict[str, Any]) -> int:
    """The most bytes that a call adds to this process."""
    case, small = Case(name, nc, keys["batch"]), Case(name, nc, 2)
    if loss:
        case.install(loss)
    criterion = case.model.criterion if loss else case.model.init_criterion()
    for _ in range(2):  # what libraries keep, and the comparison with BCE
        call(criterion, small.predictions(64), case, small.batch)
    inputs = leaves(case.predictions(imgsz))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the most that was in memory, starts anew
    before = status("VmRSS")
    if loss:
        case.prepare(inputs)
    criterion(inputs, case.batch)[0].sum().backward()
    return max(PAGE, status("VmHWM") - before)


def status(field: str) -> int:
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])


# Equality with the definition ----------------------------------------------------------------------------------------
def equality(keys: dict[str, Any]) -> None:
    imgsz = keys["imgsz"][0]
    cases = [(case := Case(keys["models"][0], nc, keys["batch"]), case.predictions(imgsz)) for nc in keys["nc"]]
    title = f"Value and gradient, differences from the definition, imgsz {imgsz}"
    table(title, *[f"nc {nc}, {kind}" for nc in keys["nc"] for kind in KINDS])
    for name in keys["losses"]:
        row(name, *[f"{value:.0e}, {grad:.0e}" for case in cases for value, grad in compare(*case, name, keys)])


def compare(case: Case, predictions: Any, name: str, keys: dict[str, Any]) -> list[tuple[float, float]]:
    """Differences of value and gradient for each of KINDS."""
    loss = case.install(name)
    for _ in range(warmup(loss, keys)):
        call(case.model.criterion, predictions, case, case.batch)
    case.prepare(predictions)
    absent = next(iter(case.losses.values())).absent
    z, targets = seen(case, predictions)
    z = z.double() + 3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [differences(loss, z.to(ours), targets.to(ours), absent, reference) for ours, reference in KINDS.values()]


def seen(case: Case, predictions: Any) -> tuple[Tensor, SparseTargets]:
    """Logits and targets with which the criterion's first branch calls its loss."""
    branch, calls = next(iter(branches(case.model.criterion).values())), []

    def record(z: Tensor, targets: SparseTargets) -> Tensor:
        calls.append((z.detach(), targets))
        return z.sum()

    branch.bce = record
    call(case.model.criterion, predictions, case, case.batch)
    return calls[0]


def differences(
    loss: Loss, z: Tensor, targets: SparseTargets, absent: RowWeights | None, dtype: torch.dtype
) -> tuple[float, float]:
    """Of value and gradient from the definition in `dtype`; both are asked for in ways that teach the loss nothing."""
    expected, gradients = 0.0, []
    appeared = targets.labels[targets.foreground & (targets.values > 0)].unique().numpy()
    for i in range(len(z)):  # an image at a time: the definition needs many tensors of this size
        one = z[i : i + 1].to(dtype).requires_grad_()
        of = {k: getattr(targets, k)[i : i + 1] for k in ("labels", "foreground", "values")}
        y, kept = replace(targets, **of).to(dtype).dense(), 1.0 if absent is None else absent.rows[absent.index[i]]
        value = definition(loss, one, y, of["foreground"][..., None], of["labels"], appeared, kept)
        gradients += torch.autograd.grad(value, one)
        expected += value.item()
    ctx = {} if absent is None else {"absent": absent}
    value, ours, gradient = loss(z, targets, ctx), loss.gradient(z, targets, ctx), torch.cat(gradients)
    return abs(value.item() / expected - 1), float((ours - gradient).abs().max() / gradient.abs().max())


def definition(
    loss: Loss, z: Tensor, y: Tensor, foreground: Tensor, labels: Tensor, appeared: np.ndarray, kept: Tensor | float
) -> Tensor:
    """The loss as a sum over all entries of (B, A, C), `kept` the weight of the negative ones."""
    positive, weight = y > 0, torch.ones_like(y)
    x = shifted(loss, z, positive, labels)
    if isinstance(loss, EQFL):
        gamma = loss.gamma + loss.scale * (1 - loss.ratio(z.shape[2], z))
        weight = gamma / loss.gamma * (y - z.sigmoid()).abs() ** gamma
        if isinstance(loss, EFL):
            weight = torch.where(positive, 0.25, 0.75) * weight
    elif isinstance(loss, EQLv2):
        f = torch.sigmoid(loss.gamma * (loss.ratio(z.shape[2], z) - loss.mu))
        weight = torch.where(positive, 1 + loss.alpha * (1 - f), f)
    elif isinstance(loss, ClassBalanced):
        weight = torch.where(positive, loss.weights.to(z), weight)
    elif isinstance(loss, EQL):
        rare = torch.isin(torch.arange(z.shape[2]), loss.rare)
        weight = weight.masked_fill(foreground & rare & ~positive, 0)
    elif isinstance(loss, Federated):
        weight = weight * (positive | torch.from_numpy(loss.chosen(appeared) | (loss.weights == 0)))
    elif isinstance(loss, ECM):
        weight = weight * loss.weight.to(z)
    weight = torch.where(positive, weight, weight * kept)
    return (weight * binary_cross_entropy_with_logits(x, y, reduction="none")).sum()


def shifted(loss: Loss, z: Tensor, positive: Tensor, labels: Tensor) -> Tensor:
    """The logits that the loss sees."""
    if isinstance(loss, (ECM, LogitAdjusted)):
        return getattr(loss, "scale", 1) * z + loss.shift.to(z)
    if isinstance(loss, LOCE):
        log = loss.mean.clamp_min(START).log()
        return z + (log - log[loss.occurs].max()).where(loss.occurs, torch.zeros_like(log)).to(z)
    if isinstance(loss, Seesaw):
        counts, s = loss.counts.clamp_min(1).to(z), z.detach().sigmoid()
        own = s.gather(2, labels[..., None]).clamp_min(LEAST)
        m = (counts / counts[labels][..., None]).clamp_max(1) ** loss.p
        factor = m * (s / own).clamp_min(1) ** loss.q
        return z + torch.where(positive.any(2, keepdim=True) & ~positive, factor, torch.ones_like(factor)).log()
    return z


# A training step -----------------------------------------------------------------------------------------------------
def step(keys: dict[str, Any]) -> None:
    name, nc, imgsz = keys["step_model"], keys["nc"][0], keys["imgsz"][0]
    table(f"Training step of {name}, nc {nc}, imgsz {imgsz}: CPU time", "ours / stock", "stock, ms")
    for loss in keys["losses"]:
        stock, ours = Case(name, nc, keys["batch"]), Case(name, nc, keys["batch"])
        installed = ours.install(loss)
        text, ms = interleave(training(stock, imgsz), training(ours, imgsz), installed, keys)
        row(loss, text, f"{ms:.0f}")


def training(case: Case, imgsz: int) -> Callable[[], float]:
    """A step, always on the same batch, as a function that returns its CPU seconds."""
    predictions = case.predictions(imgsz)
    batch = {**case.batch, "img": torch.rand(case.images, 3, imgsz, imgsz)}
    optimizer = torch.optim.SGD(case.model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)

    def run() -> float:
        start = time.process_time()
        case.prepare(predictions)
        case.model(batch)[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    return run


if __name__ == "__main__":
    main()
