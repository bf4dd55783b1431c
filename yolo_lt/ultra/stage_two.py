"""Ultralytics' trainers for stage two: the classification branch alone learns, everything else stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from yolo_lt.balance.strategy import hard
from yolo_lt.errors import LTError
from yolo_lt.ultra import features, head, mining
from yolo_lt.ultra.dataset import BalancedDataset
from yolo_lt.ultra.feature_store import Damaged, FeatureStore, key_of, open_store, write_store
from yolo_lt.ultra.features import CachedDataset, CachedLoss
from yolo_lt.ultra.holdout import validation_set
from yolo_lt.ultra.loader import with_sampler
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.runfiles import find_lt
from yolo_lt.ultra.scaling import Scaling
from yolo_lt.ultra.trainer import (
    LTDetectionTrainer,
    LTMixin,
    LTOBBTrainer,
    LTPoseTrainer,
    LTSegmentationTrainer,
)


class HeadMixin(LTMixin):
    """What stage two adds to every task's trainer; `args.lt["head_of"]` is the checkpoint of stage one."""

    frozen: list[int | str]
    frozen_before: str
    factors: np.ndarray  # the sampler's, before images are mined
    cached: CachedDataset | None = None
    scaling: Scaling | None = None  # of strategy=scale

    # What it sees ----------------------------------------------------------------------------------------------------
    def _recorded_holdout(self) -> list[str] | None:
        """What this run, or else stage one, set apart."""
        lt = find_lt(Path(self.args.lt["head_of"]))
        return super()._recorded_holdout() or (lt["holdout"] if lt else None)

    def _compared_on(self) -> str:
        return "train" if self.held else super()._compared_on()

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """As in stage one; but epochs are compared on the holdout, if there is one."""
        if mode == "val" and self.held:
            return validation_set(self.args, self.data["train"], batch, self.data, self.stride, self.held)
        return super().build_dataset(img_path, mode, batch)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """As in stage one; with feature_cache=true what the frozen part gives stands for the images."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "val" or not self.args.lt["feature_cache"]:
            return loader
        self.cached = CachedDataset(self._feature_store(loader), loader.dataset, self.args.imgsz)
        return with_sampler(loader, dataset=self.cached, collate_fn=self.cached.collate_fn)

    def _feature_store(self, loader: Any) -> FeatureStore:
        """The store of these very features: opened, or made if there is none or it is damaged."""
        keys, facts = self.args.lt, features.facts(self, loader.dataset)
        key = key_of(facts)
        place = Path(keys["head_of"]).parent / "features" if keys["cache_dir"] == "auto" else Path(keys["cache_dir"])
        folder = place.absolute() / key[:16]
        try:
            store = open_store(folder, key)
            LOGGER.info(f"{PREFIX}feature cache: {folder} is whole and of these images and weights")
            return store
        except Damaged as e:
            LOGGER.warning(f"{PREFIX}feature cache: {folder} is damaged ({e}) and made again")
        except FileNotFoundError:
            pass
        views, model = keys["cache_views"], unwrap_model(self.model)
        chunks = features.compute(model, loader, keys["head_part"], views, self.device, self.amp)
        size = len(loader.dataset) * max(views, 1)
        write_store(folder, key, chunks, size, keys["cache_limit"], lambda text: LOGGER.info(PREFIX + text))
        return open_store(folder, key)

    def plot_training_samples(self, batch: dict[str, Any], ni: int) -> None:
        """Cached features cannot be drawn."""
        if self.cached is None:
            super().plot_training_samples(batch, ni)

    def run_callbacks(self, event: str) -> None:
        """Mine before an epoch starts; at the end compare the frozen tensors with those at the start."""
        super().run_callbacks(event)
        if event == "on_train_epoch_start" and self.args.lt["strategy"] == "hard":
            self._focus_on_hard_images()
        if event == "on_train_end" and RANK in {-1, 0}:
            self._compare_frozen()

    def _focus_on_hard_images(self) -> None:
        """Mine every so many epochs; a run resumed in between goes on with what was mined."""
        path, cases = self.save_dir / "mined.csv", None
        due = self.epoch % self.args.lt["mine_every"] == 0
        if not due and self.epoch == self.start_epoch:
            cases = mining.read_mined(path, self.trained)
        if due or (cases is None and self.epoch == self.start_epoch):
            false, missed = mining.mine(self, self.ema.ema)
            mining.write_mined(path, self.epoch + 1, self.trained, false, missed)
            cases = false + missed
            LOGGER.info(
                f"{PREFIX}strategy=hard: {false.sum()} false positives at conf {mining.CONF} and {missed.sum()} missed "
                f"tail objects, in {(cases > 0).sum()} of {len(cases)} images (mined.csv)"
            )
        if cases is not None:
            self._draw_by(hard(self.factors, cases, self.args.lt["replay"]))

    def _draw_by(self, factors: np.ndarray) -> None:
        """Other factors from this epoch on."""
        self.plan = replace(self.plan, factors=factors)
        if self.counted is not None:
            self.counted.plan = self.plan
        self.train_loader.sampler.factors = factors
        if isinstance(self.train_loader.dataset, BalancedDataset):
            self.train_loader.dataset.set_factors(factors)
        self._restart_stream(self.epoch)

    # What learns -----------------------------------------------------------------------------------------------------
    def set_model_attributes(self) -> None:
        """Freeze by name, as Ultralytics lets nothing else stay frozen; give the classifier its new start."""
        super().set_model_attributes()
        model, keys = unwrap_model(self.model), self.args.lt
        self.frozen = self.args.freeze = head.frozen_layers(model, keys["head_part"])
        self.frozen_before = head.digest(model, self.frozen)
        if keys["reinit"] and not self.resume:
            head.reinitialise(model)

    def build_optimizer(self, model: Any, *args: Any, **kw: Any) -> Any:
        """Ultralytics' optimizer without the frozen parameters, which it would walk through at every step."""
        optimizer = super().build_optimizer(model, *args, **kw)
        if self.args.lt["strategy"] == "scale":
            stage_one = Path(self.args.lt["head_of"])
            if not stage_one.is_file():
                raise LTError(f"strategy=scale goes on from {stage_one}, which is not there any more")
            self.scaling = Scaling(unwrap_model(model), load_checkpoint(stage_one)[0])
            return self.scaling.drive(optimizer)
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        return optimizer

    def optimizer_step(self) -> None:
        """Ultralytics' step; with strategy=scale of scale and shift."""
        if self.scaling is not None:
            self.scaling.gather()
        super().optimizer_step()

    def _setup_train(self) -> None:
        """Stage one's set-up; then say what learns."""
        super()._setup_train()
        self.factors = self.plan.factors
        model = unwrap_model(self.model)
        if self.cached is not None:  # an attribute on this one object; the averaged copy that is saved has none
            model.loss = CachedLoss(model, self.args.lt["head_part"])  # moves weights in memory: before they are paired
        head.average_learning_only(self.ema, model, self.frozen)
        if RANK in {-1, 0}:
            trainable, frozen = head.parameter_counts(model)
            what = f"{trainable:,} parameters learn"
            if self.scaling is not None:
                what = f"scale and shift of {len(self.scaling.shift)} classes learn, in {trainable:,} parameters"
            LOGGER.info(f"{PREFIX}{what}, {frozen:,} are frozen")
            LOGGER.info(f"{PREFIX}frozen tensors at the start: sha256 {self.frozen_before}")
            if self.held:
                LOGGER.info(f"{PREFIX}best.pt is chosen on the {len(self.held)} held-out images, not on val")

    def _load_checkpoint_state(self, ckpt: dict[str, Any]) -> None:
        """Ultralytics makes a new average when it resumes or recovers."""
        super()._load_checkpoint_state(ckpt)
        if self.scaling is not None:
            self.scaling.read()
        self.ema.ema.__dict__.pop("loss", None)
        head.average_learning_only(self.ema, self.model, self.frozen)

    # Records ---------------------------------------------------------------------------------------------------------
    def _compare_frozen(self) -> None:
        for path in (self.last, self.best):
            if path.exists():
                after = head.digest(load_checkpoint(path)[0], self.frozen)
                if after != self.frozen_before:
                    raise LTError(f"{path}: frozen tensors changed, {self.frozen_before} before and {after} after")
                LOGGER.info(
                    f"{PREFIX}frozen tensors of {path.name}: sha256 {after}, before {self.frozen_before}: equal"
                )


class HeadDetectionTrainer(HeadMixin, LTDetectionTrainer):
    """Detection."""


class HeadSegmentationTrainer(HeadMixin, LTSegmentationTrainer):
    """Instance segmentation."""


class HeadPoseTrainer(HeadMixin, LTPoseTrainer):
    """Pose."""


class HeadOBBTrainer(HeadMixin, LTOBBTrainer):
    """Oriented boxes."""


HEAD_TRAINERS = {
    "detect": HeadDetectionTrainer,
    "segment": HeadSegmentationTrainer,
    "pose": HeadPoseTrainer,
    "obb": HeadOBBTrainer,
}
