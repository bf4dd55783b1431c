"""Ultralytics' trainers with our stream, partners, loss and records. Overrides only; no method is copied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.distributed as dist
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from yolo_lt import config
from yolo_lt.balance import exposure
from yolo_lt.balance.losses.guided import ratio_columns
from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.files import rewind_csv
from yolo_lt.report.tables import acted_text, epoch_text, plan_text, start_text
from yolo_lt.ultra.changes import draw_pasted, make_changes
from yolo_lt.ultra.criterion import ClassificationLoss, install_planned
from yolo_lt.ultra.dataset import BalancedDataset
from yolo_lt.ultra.epochs import EpochMetrics
from yolo_lt.ultra.federated import index_for
from yolo_lt.ultra.holdout import image_names, keep_only, plan_split
from yolo_lt.ultra.labels import with_hierarchy
from yolo_lt.ultra.loader import StreamSampler, rank_and_world, with_sampler
from yolo_lt.ultra.loss_state import drop_old_states, load_state, save_state
from yolo_lt.ultra.masks import AnnotationMask
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.run_plots import draw_run
from yolo_lt.ultra.runfiles import find_lt, write_plan
from yolo_lt.ultra.validator import VALIDATORS

if TYPE_CHECKING:  # the mixin comes before each task's own trainer
    from ultralytics.models.yolo.detect import DetectionTrainer as _Trainer
else:
    _Trainer = object


class LTMixin(_Trainer):
    """What every task's trainer gains. `args.lt` holds all our keys, so args.yaml, resume and DDP children carry them.

    With `sampler=none` and `cls_loss=bce` (recipe=baseline) nothing is installed and training is stock, bit for bit.
    """

    metrics: dict[str, Any]
    last: Path
    best: Path
    plan: Plan
    held: list[str]  # names of the images set apart
    trained: list[str]  # names of the images trained on, in the order of the data set
    counted: exposure.Exposure | None = None
    mask: AnnotationMask | None = None
    losses: dict[str, ClassificationLoss]  # by branch
    loss_states: dict[str, dict[str, Any]]  # theirs after the last good epoch

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict | None = None,
        lt: dict[str, Any] | None = None,
    ) -> None:
        """Take our keys from `lt`, a DDP parent's overrides or, on resume, the checkpoint."""
        base = {
            **(cfg if isinstance(cfg, dict) else vars(cfg)),
            "lt": lt or (overrides or {}).get("lt") or {},
        }
        self.losses, self.loss_states = {}, {}
        super().__init__(base, overrides, _callbacks)

    # What it sees ----------------------------------------------------------------------------------------------------
    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """The stock data set; for training without the holdout, and adopted by ours if the recipe changes images."""
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train":
            recorded = self._recorded_holdout()
            self.plan, apart = plan_split(dataset, self.data, self.args.lt, recorded, self.args.seed)
            names = np.array(image_names(dataset.im_files, self.data))
            self.held, self.trained = names[apart].tolist(), names[~apart].tolist()
            keep_only(dataset, ~apart)
            if self.plan.adapts_data:
                partners = self.plan.changes_images and self.plan.keys["balance_partners"]
                changes = make_changes(dataset, self.plan, self.args)
                rows = None if self.plan.federated is None else self.plan.federated.row
                dataset = BalancedDataset.adopt(dataset, self.plan.factors, partners, changes, rows)
        return dataset

    def _recorded_holdout(self) -> list[str] | None:
        """The images that this run set apart before it was interrupted."""
        lt = find_lt(Path(self.args.resume)) if self.resume else None
        return lt["holdout"] if lt else None

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """The stock loader; for training on changed images, fed by our index stream."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode != "train" or not self.plan.changes_images:
            return loader
        place = (*rank_and_world(rank), self.plan.fixed, self._epoch_now())
        sampler = StreamSampler(self.plan.factors, self.args.seed, *place)
        return with_sampler(loader, sampler)

    def _close_dataloader_mosaic(self) -> None:
        """Close mosaic; the restarted loader must draw this epoch, though its workers may have prefetched it."""
        super()._close_dataloader_mosaic()
        self._restart_stream(self._epoch_now())

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """After a recovery the epoch is repeated, so its stream is too, and what was counted of it is dropped."""
        recovered = super()._handle_nan_recovery(epoch)
        if not recovered:
            self._keep_losses()
        else:
            self._restart_stream(epoch)
            self._rewind_losses()
            self.ema.ema.criterion = None  # the recovery copied the model anew
            if RANK in {-1, 0}:
                rewind_csv(self.save_dir / "exposure.csv", epoch)
        return recovered

    def _epoch_now(self) -> int:
        """The epoch under way; before the first, and when an out-of-memory retry rebuilds the loader, the first."""
        return getattr(self, "epoch", None) or self.start_epoch

    def _restart_stream(self, epoch: int) -> None:
        if isinstance(self.train_loader.sampler, StreamSampler):
            self.train_loader.sampler.epoch = epoch
            self.train_loader.reset()

    # What it learns from ---------------------------------------------------------------------------------------------
    def _setup_train(self) -> None:
        """Ultralytics' set-up, resume included; then our loss, as resume rebuilds the criterion of end-to-end heads."""
        super()._setup_train()
        if isinstance(self.train_loader.sampler, StreamSampler):
            self.train_loader.sampler.epoch = self.start_epoch
            self.counted = exposure.Exposure(self.plan)
        if self.plan.reweighs:
            self._install_losses()
        if RANK in {-1, 0}:  # what a skipped validation writes; always in the order of a real one
            losses = self.label_loss_items(prefix="val")
            keys = [*self.validator.metrics.keys, *self.validator.of_epochs.columns, *losses]
            self.metrics = {**dict.fromkeys(keys, 0), **self.metrics}
        if self.ema:  # the copy would validate with our loss and frozen state; stock BCE stays comparable
            self.ema.ema.criterion = None
        if RANK in {-1, 0}:
            write_plan(self.save_dir, self.plan, self.held)
            for name in ("exposure.csv", "results.csv"):  # a kill between record and checkpoint repeats the epoch
                rewind_csv(self.save_dir / name, self.start_epoch)
            LOGGER.info(f"{PREFIX}{plan_text(self.plan, list(self.losses))}")
            if self.args.plots and self.plan.paste_share:
                draw_pasted(self.train_loader.dataset, self.args, self.save_dir / "tail_paste.jpg", self.on_plot)
            if self.held:
                LOGGER.info(f"{PREFIX}{len(self.held)} training images are set apart (holdout), listed in lt.yaml")

    def _install_losses(self) -> None:
        self.losses = install_planned(unwrap_model(self.model), self.plan, self.args.seed)
        if self.plan.federated is not None:
            self.mask = AnnotationMask(self.plan.federated, self.plan, self.args.seed, RANK)
        if self.start_epoch and any(loss.has_state for loss in self.losses.values()):
            load_state(Path(self.args.resume).parent, self.start_epoch - 1, self.losses)
        self._keep_losses()

    def _build_train_pipeline(self) -> None:
        """Ultralytics' loaders and optimizer; when an epoch starts over with smaller batches, so do the losses."""
        super()._build_train_pipeline()
        self._rewind_losses()

    def _keep_losses(self) -> None:
        self.loss_states = {name: loss.state_dict() for name, loss in self.losses.items()}

    def _rewind_losses(self) -> None:
        for name, loss in self.losses.items():
            loss.load_state_dict(self.loss_states[name])

    # Records ---------------------------------------------------------------------------------------------------------
    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count what reaches the network; then Ultralytics' preprocessing, and the mask for the losses."""
        codes, palettes = batch.pop("lt_codes", None), batch.pop("lt_rows", None)
        tiles, pasted = batch.pop("lt_tiles", None), batch.pop("lt_pasted", ())
        if self.counted is not None and tiles is not None:
            self.counted.add(tiles, batch["cls"].cpu().numpy(), pasted)
        batch = super().preprocess_batch(batch)
        if self.mask is not None:
            strides, size = unwrap_model(self.model).stride.tolist(), batch["img"].shape[2:]
            absent = self.mask(codes, palettes, batch["cls"], size, strides, self.device)
            for loss in self.losses.values():
                loss.absent = absent
        return batch

    def run_callbacks(self, event: str) -> None:
        """Follow the run's events by override, which DDP children keep, unlike added callbacks of older releases."""
        super().run_callbacks(event)
        if event == "on_train_epoch_start" and self.counted is not None:
            self.counted.reset()
        if event == "on_train_epoch_start" and self.mask is not None:
            self.mask.start_epoch(self.epoch)
        if event == "on_train_epoch_end" and self.counted is not None:
            self._record(self.counted)
        if event == "on_train_epoch_end" and self.epoch == self.start_epoch and self.losses and RANK in {-1, 0}:
            LOGGER.info(f"{PREFIX}{start_text(self.losses)}")
        if event == "on_train_end" and RANK in {-1, 0}:
            more = [self.mask.text()] if self.mask is not None else []
            LOGGER.info(f"{PREFIX}{acted_text(self.save_dir / 'exposure.csv', self.losses, more)}")

    def _record(self, counts: exposure.Exposure) -> None:
        """Write the epoch's counts, summed over all processes."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, (counts.tiles, counts.boxes, counts.pasted))
            counts.tiles, counts.boxes, counts.pasted = (sum(x) for x in zip(*gathered, strict=True))
        if RANK in {-1, 0}:
            rows, header = counts.rows(self.epoch + 1), counts.header
            exposure.append(self.save_dir / "exposure.csv", rows, header)
            LOGGER.info(f"{PREFIX}{epoch_text(rows, header)}")

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """A row of results.csv, with the mean ratio of positive to negative gradients by bin where the loss has one."""
        bins = {name: getattr(self.plan.bins, name).tolist() for name in BIN_NAMES}
        ours = [ratio_columns(loss.loss, name, bins) for name, loss in self.losses.items()]
        super().save_metrics({k: v for columns in (metrics, *ours) for k, v in columns.items()})

    def plot_metrics(self) -> None:
        """Ultralytics' curves, and ours by bin."""
        super().plot_metrics()
        draw_run(self.save_dir, self.validator, self.plan, self.on_plot)

    def save_model(self) -> bool:
        """Save last.pt and best.pt under temporary names, so that a killed run never leaves half a checkpoint."""
        last, best = self.last, self.best
        if self.losses:
            save_state(last.parent, self.epoch, self.loss_states)  # kept after the check for NaN, just before
        self.last, self.best = (p.with_name(f".{p.name}.tmp") for p in (last, best))
        try:
            saved = super().save_model()
            for temporary, final in ((self.best, best), (self.last, last)):
                if temporary.exists():
                    os.replace(temporary, final)
        finally:
            for temporary in (self.last, self.best):
                Path(temporary).unlink(missing_ok=True)
            self.last, self.best = last, best
        if self.losses:
            drop_old_states(last.parent, self.epoch)
        return saved

    def get_validator(self) -> Any:
        """Ours of the task, made as Ultralytics makes its own, whose arguments know no `lt`."""
        lt = self.args.lt
        del self.args.lt
        try:
            theirs = super().get_validator()
            kw = {"dataloader": theirs.dataloader, "save_dir": theirs.save_dir, "args": theirs.args}
            validator = VALIDATORS[self.args.task](**kw, _callbacks=self.callbacks)
        finally:
            self.args.lt = lt
        if RANK in {-1, 0}:
            validator.of_epochs = self._epoch_metrics(theirs.dataloader.dataset)
        return validator

    def _compared_on(self) -> str:
        """The split of the images on which epochs are compared."""
        return "val"

    def _epoch_metrics(self, dataset: Any) -> EpochMetrics:
        """What is evaluated by bin after every epoch, on the images of `dataset`."""
        known = {**config.defaults(), **self.args.lt}  # a run of an earlier version, resumed, has fewer keys
        lt = with_hierarchy(known, self.data)
        index = index_for(lt["protocol"], dataset, self.data, lt["federated"], self._compared_on())
        return EpochMetrics.of_training(self.plan, lt, dataset.labels, index)


class LTDetectionTrainer(LTMixin, DetectionTrainer):
    """Detection."""


class LTSegmentationTrainer(LTMixin, SegmentationTrainer):
    """Instance segmentation."""


class LTPoseTrainer(LTMixin, PoseTrainer):
    """Pose."""


class LTOBBTrainer(LTMixin, OBBTrainer):
    """Oriented boxes."""


TRAINERS = {
    "detect": LTDetectionTrainer,
    "segment": LTSegmentationTrainer,
    "pose": LTPoseTrainer,
    "obb": LTOBBTrainer,
}
