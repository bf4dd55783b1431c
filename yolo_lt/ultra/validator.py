"""Ultralytics' validators, whose detections also go to our evaluation by frequency bin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import RANK, ops
from ultralytics.utils.nms import non_max_suppression

from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.evaluate.arrays import Detections, GroundTruth
from yolo_lt.ultra.epochs import EpochMetrics
from yolo_lt.ultra.lost import LostCounts
from yolo_lt.ultra.truth import ground_truth

NO_TIME_LIMIT = 1e6  # seconds per image; Ultralytics' limit gives the images after it zero boxes
NO_MAX_DET = 30_000  # candidates that Ultralytics' NMS looks at


class LTDetectionValidator(DetectionValidator):
    """Collects every detection in original pixels, so that one pass gives Ultralytics' metrics and ours.

    Attributes:
        found: Detections of every image path, an array (n, 6) of x, y, width, height, score and class; of turned boxes
            (n, 7), with the angle.
        sizes: Original height and width of every image path.
        lost: What NMS and max_det took away, if it is counted.
        counts_lost: Whether to count it; end-to-end heads and turned boxes have no such count.
        of_epochs: What a training adds to its metrics.
    """

    found: dict[str, np.ndarray]
    sizes: dict[str, tuple[int, int]]
    lost: LostCounts | None = None
    counts_lost = False
    of_epochs: EpochMetrics | None = None

    @property
    def head_measured(self) -> str:
        """The branch whose detections these are."""
        return "one2one" if self.end2end else "one2many"

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start an empty collection."""
        super().init_metrics(model)
        self.found, self.sizes = {}, {}
        counted = self.counts_lost and not self.end2end and self.args.task != "obb" and not self.args.single_cls
        self.lost = LostCounts(self.nc) if counted else None

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Remember the objects, which NMS does not see."""
        self.batch = super().preprocess(batch)
        return self.batch

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """Ultralytics' NMS settings without its time limit, which drops whole images silently."""
        if self.lost is None:
            return _as_dicts(self._nms(preds, self.args.max_det))
        raw = preds[0] if isinstance(preds, (list, tuple)) else preds
        kept = self._nms(preds, NO_MAX_DET)
        self.lost.add(self.batch, raw, kept, self.args.conf, self.args.max_det)
        return _as_dicts([rows[: self.args.max_det] for rows in kept])

    def _nms(self, preds: Any, max_det: int) -> list[torch.Tensor]:
        return non_max_suppression(
            preds,
            self.args.conf,
            self.args.iou,
            nc=0 if self.args.task == "detect" else self.nc,
            multi_label=True,
            agnostic=self.args.single_cls or self.args.agnostic_nms,
            max_det=max_det,
            max_time_img=NO_TIME_LIMIT,
            end2end=self.end2end,
            rotated=self.args.task == "obb",
        )

    def update_metrics(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        """Keep the batch's boxes in original pixels, then Ultralytics' own metrics."""
        for i, rows in enumerate(self.rows(preds, batch)):
            file = batch["im_file"][i]
            self.found[file], self.sizes[file] = rows, batch["ori_shape"][i]
        super().update_metrics(preds, batch)

    def rows(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> Iterator[np.ndarray]:
        """The detections of each image of a batch, in original pixels, as in `found`."""
        for i, pred in enumerate(preds):
            box = ops.scale_boxes(
                batch["img"].shape[2:], pred["bboxes"].clone(), batch["ori_shape"][i], batch["ratio_pad"][i]
            )
            yield self._row(ops.xyxy2ltwh(box), pred)

    def _row(self, box: torch.Tensor, pred: dict[str, torch.Tensor], *more: torch.Tensor) -> np.ndarray:
        """x, y, width, height, score, class and what more there is, as columns, float64."""
        cls = pred["cls"] * 0 if self.args.single_cls else pred["cls"]
        return torch.cat([box, pred["conf"][:, None], cls[:, None], *more], 1).double().cpu().numpy()

    def gather_stats(self) -> None:
        """Collect what the other processes found, too."""
        super().gather_stats()
        if RANK == -1:
            return
        everyone: list[Any] | None = [None] * dist.get_world_size() if RANK == 0 else None
        dist.gather_object((self.found, self.sizes), everyone, dst=0)
        for found, sizes in everyone or ():
            self.found.update(found)
            self.sizes.update(sizes)

    def get_stats(self) -> dict[str, Any]:
        """Ultralytics' metrics, and in a training ours by bin."""
        stats = super().get_stats()
        return stats if self.of_epochs is None else self.of_epochs.added_to(stats, self)

    def evaluation_input(
        self,
        names: list[str],
        found: dict[str, np.ndarray] | None = None,
        index: FederatedIndex | None = None,
    ) -> tuple[GroundTruth, Detections]:
        """Ground truth of the validated split, from its labels, and the detections; category = class index.

        Images are identified by their path below the split's common folder, so that runs on one data set can be paired
        wherever it lies.

        Args:
            names: Class names.
            found: Detections of every image path; None: those that were collected.
            index: What was looked for in the images of the split, in the order of its labels.
        """
        labels = {label["im_file"]: label for label in self.dataloader.dataset.labels}
        files = self.image_files()
        place, turned = {f: i for i, f in enumerate(files)}, self.args.task == "obb"
        if index is not None:
            index = index.align([os.path.abspath(f).replace(os.sep, "/") for f in files])[0]
        per_image = self.found if found is None else found
        rows = np.concatenate([np.c_[np.full(len(x), place[f]), x] for f, x in per_image.items()])
        image, cls = rows[:, 0].astype(np.int64), rows[:, 6].astype(np.int64)
        of_files = ([labels[f] for f in files], [self.sizes[f] for f in files])
        truth = ground_truth(*of_files, np.array(self.image_ids(files)), names, turned, index)
        return truth, Detections(image, cls, rows[:, 1:5], rows[:, 5], rows[:, 7] if turned else None)

    def image_files(self) -> list[str]:
        """The image paths of the split in the order of their identities, which is that of the evaluation's images."""
        files = list(dict.fromkeys(label["im_file"] for label in self.dataloader.dataset.labels))
        return [file for _, file in sorted(zip(self.image_ids(files), files, strict=True))]

    def image_ids(self, files: Iterable[str]) -> list[str]:
        """The identity of every image of the split: its path below their common folder."""
        root = os.path.commonpath([os.path.dirname(label["im_file"]) for label in self.dataloader.dataset.labels])
        return [Path(f).relative_to(root).as_posix() for f in files]


class LTSegmentationValidator(SegmentationValidator, LTDetectionValidator):
    """Instance segmentation: boxes are ours, masks stay Ultralytics' own columns."""


class LTPoseValidator(PoseValidator, LTDetectionValidator):
    """Pose: boxes are ours, keypoints stay Ultralytics' own columns."""


class LTOBBValidator(OBBValidator, LTDetectionValidator):
    """Oriented boxes, of which Ultralytics' own columns use a Gaussian's overlap and ours the polygons'."""

    def rows(self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> Iterator[np.ndarray]:
        """The detections of each image of a batch, in original pixels, as in `found`."""
        for i, pred in enumerate(preds):
            shapes = batch["img"].shape[2:], batch["ori_shape"][i], batch["ratio_pad"][i]
            box = ops.scale_boxes(shapes[0], pred["bboxes"].clone(), shapes[1], shapes[2], xywh=True)
            corner = torch.cat([box[:, :2] - box[:, 2:4] / 2, box[:, 2:4]], 1)
            yield self._row(corner, pred, box[:, 4:5])


def _as_dicts(outputs: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    return [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in outputs]


VALIDATORS = {
    "detect": LTDetectionValidator,
    "segment": LTSegmentationValidator,
    "pose": LTPoseValidator,
    "obb": LTOBBValidator,
}
