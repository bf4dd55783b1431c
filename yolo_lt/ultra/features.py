"""Stage two on cached features: the frozen part runs once, later epochs run the classification branch alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from ultralytics import __version__
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils.torch_utils import autocast, unwrap_model

from yolo_lt.ultra.feature_store import Chunk, FeatureStore
from yolo_lt.ultra.head import class_branches
from yolo_lt.ultra.loader import with_sampler
from yolo_lt.ultra.sources import anchor_codes

AUGMENTATION = (  # Ultralytics' keys that change what the network sees; a cache without views sets them to 0
    *("mosaic", "mixup", "cutmix", "copy_paste", "close_mosaic", "multi_scale", "bgr"),
    *("degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "hsv_h", "hsv_s", "hsv_v"),
)
TRUTH = ("cls", "bboxes", "batch_idx", "masks", "sem_masks", "keypoints")  # what Ultralytics' criteria read of a batch
DROPPED = ("scores", "feats")  # of the predictions: what learns, and what the cached inputs stand for


# Once: compute --------------------------------------------------------------------------------------------------------
def compute(model: nn.Module, loader: Any, part: str, views: int, device: Any, amp: Any) -> Iterator[Chunk]:
    """Run the frozen part over every image, in the order of the data set, view after view.

    Args:
        model: The detection model.
        loader: The training loader, for its data set, batch size and workers.
        part: What learns: "branch" or "last".
        views: 0: every image once, without augmentation (which the caller has switched off); else this many times.
        device: Where the model is.
        amp: Ultralytics' autocast setting.

    Yields:
        Arrays of a batch, float32, each (B, ...), and the truth of its samples.
    """
    order = list(range(len(loader.dataset))) * max(views, 1)
    plain = with_sampler(loader, order, collate_fn=list, generator=torch.Generator())  # leave the run's order alone
    try:
        for samples in plain:
            images = torch.stack([s["img"] for s in samples]).to(device).float() / 255
            with torch.no_grad(), autocast(amp, device=device.type):
                arrays = frozen_outputs(model, images, part)
            truths = [_truth(s, images.shape[2:], model.stride.tolist()) for s in samples]
            yield {k: channels_last(v).float().cpu().numpy() for k, v in arrays.items()}, truths
    finally:
        plain.close()


def channels_last(x: Tensor) -> Tensor:
    """(B, C, ...) to (B, ..., C): how convolutions run fastest on a CPU, and how Ultralytics' criteria read it."""
    return x.movedim(1, -1).contiguous()


def channels_first(x: Tensor) -> Tensor:
    """(B, ..., C) seen as (B, C, ...); nothing is copied."""
    return x.movedim(-1, 1)


def _truth(sample: dict[str, Any], size: tuple[int, int], strides: list[float]) -> dict[str, np.ndarray]:
    found = {k: sample[k].numpy() for k in TRUTH if k in sample}
    if "lt_codes" in sample:  # the mask of sources, at the anchors alone
        codes = anchor_codes(sample["lt_codes"][None], size, strides)[0]
        found |= {"lt_codes": codes, "lt_rows": sample["lt_rows"]}
    return {**found, "lt_tiles": np.asarray(sample.get("lt_tiles", ()), np.int64)}


def frozen_outputs(model: nn.Module, images: Tensor, part: str) -> dict[str, Tensor]:
    """Inputs of what learns, and every prediction that does not depend on it, by name, each (B, ...).

    Names: `input.LEVEL` (the whole branch learns; both branches of an end-to-end head read the same), or
    `BRANCH.input.LEVEL` (the last convolution learns), and `BRANCH.PREDICTION`.
    """
    taken: dict[str, Tensor] = {}
    with _capture(model, part, taken), _frozen_training_mode(model):
        preds = model(images)
    for branch, values in (preds if "one2many" in preds else {"one2many": preds}).items():
        for name, value in values.items():
            if name not in DROPPED:
                taken[f"{branch}.{name}"] = value[0] if isinstance(value, tuple) else value
    return taken


@contextmanager
def _capture(model: nn.Module, part: str, taken: dict[str, Tensor]) -> Iterator[None]:
    """Keep what enters the modules that learn."""

    def keep(name: str) -> Any:
        def hook(_: nn.Module, args: tuple) -> None:
            inputs = {f"{name}.{i}": x for i, x in enumerate(args[0])} if isinstance(args[0], list) else {name: args[0]}
            taken.update(inputs)

        return hook

    if part == "branch":
        hooks = [model.model[-1].register_forward_pre_hook(keep("input"))]
    else:
        hooks = [
            seq[-1].register_forward_pre_hook(keep(f"{branch}.input.{i}"))
            for branch, levels in class_branches(model).items()
            for i, seq in enumerate(levels)
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _frozen_training_mode(model: nn.Module) -> Iterator[None]:
    """Training outputs, but no BatchNorm may see these images twice; the caller's modes come back."""
    modes = {m: m.training for m in model.modules()}
    for m in modes:
        m.training = not isinstance(m, nn.modules.batchnorm._BatchNorm)
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


# Every epoch: read ----------------------------------------------------------------------------------------------------
class CachedDataset(Dataset):
    """The samples of a store under the indices of the images; with several views, one at random at each draw."""

    def __init__(self, store: FeatureStore, source: YOLODataset, imgsz: int) -> None:
        self.store, self.imgsz, self.images = store, imgsz, len(source)
        self.labels = source.labels  # Ultralytics plots and counts them

    def __len__(self) -> int:
        """Number of images."""
        return self.images

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The truth of one image, and where its features are."""
        views = self.store.size // self.images
        at = index + self.images * (random.randrange(views) if views > 1 else 0)
        truth = self.store.truth_of(at)
        tiles = tuple(truth.pop("lt_tiles").tolist())
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in truth.items()}
        return {**tensors, "lt_at": at, **({"lt_tiles": tiles} if tiles else {})}

    def collate_fn(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Ultralytics' batch, with the features in one read per array, and an image of no pixels in its place."""
        batch = YOLODataset.collate_fn(samples)
        features = self.store.gather(list(batch.pop("lt_at")))
        batch["lt_features"] = {k: torch.from_numpy(v) for k, v in features.items()}
        batch["img"] = torch.zeros(len(samples), 0, self.imgsz, self.imgsz)
        return batch


class CachedLoss:
    """Stands where a training model looks up its `loss`: what learns, on cached inputs, then Ultralytics' criterion.

    It is set on the training model alone, never on the averaged copy that is validated and saved.
    """

    def __init__(self, model: nn.Module, part: str) -> None:
        self.model, self.part = model, part
        for branch in class_branches(model).values():
            branch.to(memory_format=torch.channels_last)

    def __call__(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Ultralytics' loss vector and items of a batch of `CachedDataset`."""
        if getattr(self.model, "criterion", None) is None:
            self.model.criterion = self.model.init_criterion()
        return self.model.criterion(self.predictions(batch["lt_features"]), batch)

    def predictions(self, stored: dict[str, Tensor]) -> dict[str, Any]:
        """The head's training output, rebuilt from cached arrays."""
        device = next(self.model.parameters()).device
        values = {k: channels_first(v.to(device, non_blocking=True).float()) for k, v in stored.items()}
        branches = class_branches(self.model)
        out = {branch: self._branch(branch, levels, values) for branch, levels in branches.items()}
        return out if len(out) > 1 else out["one2many"]

    def _branch(self, branch: str, levels: nn.ModuleList, values: dict[str, Tensor]) -> dict[str, Any]:
        own = {k.split(".", 1)[1]: v for k, v in values.items() if k.startswith(f"{branch}.") and ".input." not in k}
        prefix = "input" if self.part == "branch" else f"{branch}.input"
        inputs = [values[f"{prefix}.{i}"] for i in range(len(levels))]
        learning = [seq if self.part == "branch" else seq[-1] for seq in levels]
        scores = [layers(x) for layers, x in zip(learning, inputs, strict=True)]
        by_anchor = torch.cat([s.movedim(1, -1).flatten(1, 2) for s in scores], 1)  # (B, A, C), as it lies in memory
        return {**own, "scores": by_anchor.transpose(1, 2), "feats": inputs}


# Whether it is the same -----------------------------------------------------------------------------------------------
def facts(trainer: Any, dataset: YOLODataset) -> dict[str, Any]:
    """Everything that cached features depend on: weights, images, labels, sizes and, with views, what augments them."""
    keys, args, federated = trainer.args.lt, vars(trainer.args), trainer.plan.federated
    with_views = {
        "augmentation": {k: args[k] for k in AUGMENTATION},
        "factors": hashlib.sha256(trainer.plan.factors.tobytes()).hexdigest(),
        "seed": args["seed"],
    }
    return {
        "ultralytics": __version__,
        "frozen": trainer.frozen_before,
        "model": type(unwrap_model(trainer.model)).__name__,
        "part": keys["head_part"],
        "data": _data_digest(dataset),
        "imgsz": args["imgsz"],
        "masks": (args["overlap_mask"], args["mask_ratio"]),
        "amp": str(trainer.amp),
        "tiles": trainer.plan.adapts_data,
        **({} if federated is None else {"federated": hashlib.sha256(federated.row.tobytes()).hexdigest()}),
        "views": keys["cache_views"],
        **(with_views if keys["cache_views"] else {}),
    }


def _data_digest(dataset: YOLODataset) -> str:
    """SHA-256 over name, size and time of every image file, and over its labels."""
    sha = hashlib.sha256()
    for file, label in zip(dataset.im_files, dataset.labels, strict=True):
        stat = Path(file).stat()
        sha.update(f"{file} {stat.st_size} {stat.st_mtime_ns} ".encode())
        for values in (label["cls"], label["bboxes"], *label["segments"], label["keypoints"]):
            sha.update(np.asarray(0.0 if values is None else values, np.float32).tobytes())
    return sha.hexdigest()
