"""Ultralytics' validators, whose detections also go to our evaluation by frequency bin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import ops
from ultralytics.utils.nms import non_max_suppression

from yolo_lt.evaluate.matching import Detections, GroundTruth

NO_TIME_LIMIT = 1e6  # seconds per image; Ultralytics' limit gives the images after it zero boxes


class LTDetectionValidator(DetectionValidator):
    """Collects every detection in original pixels, so that one pass gives Ultralytics' metrics and ours.

    Attributes:
        found: Detections of every image path, an array (n, 6) of x, y, width, height, score and class.
        sizes: Original height and width of every image path.
    """

    found: dict[str, np.ndarray]
    sizes: dict[str, tuple[int, int]]

    def init_metrics(self, model: torch.nn.Module) -> None:
        """Start an empty collection."""
        super().init_metrics(model)
        self.found, self.sizes = {}, {}

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """Ultralytics' NMS settings without its time limit, which drops whole images silently."""
        outputs = non_max_suppression(
            preds,
            self.args.conf,
            self.args.iou,
            nc=0 if self.args.task == "detect" else self.nc,
            multi_label=True,
            agnostic=self.args.single_cls or self.args.agnostic_nms,
            max_det=self.args.max_det,
            max_time_img=NO_TIME_LIMIT,
            end2end=self.end2end,
        )
        return [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in outputs]

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
            cls = pred["cls"] * 0 if self.args.single_cls else pred["cls"]
            yield torch.cat([ops.xyxy2ltwh(box), pred["conf"][:, None], cls[:, None]], 1).double().cpu().numpy()

    def evaluation_input(
        self, names: list[str], found: dict[str, np.ndarray] | None = None
    ) -> tuple[GroundTruth, Detections]:
        """Ground truth of the validated split, from its labels, and the detections; category = class index.

        Images are identified by their path below the split's common folder, so that runs on one data set can be paired
        wherever it lies.

        Args:
            names: Class names.
            found: Detections of every image path; None: those that were collected.
        """
        labels = {label["im_file"]: label for label in self.dataloader.dataset.labels}
        ids, files = zip(*sorted(zip(self.image_ids(labels), labels, strict=True)), strict=True)
        index = {f: i for i, f in enumerate(files)}
        per_image = self.found if found is None else found
        rows = np.concatenate([np.c_[np.full(len(x), index[f]), x] for f, x in per_image.items()])
        image, cls = rows[:, 0].astype(np.int64), rows[:, 6].astype(np.int64)
        truth = _truth([labels[f] for f in files], [self.sizes[f] for f in files], np.array(ids), names)
        return truth, Detections(image, cls, rows[:, 1:5], rows[:, 5])

    def image_ids(self, files: Iterable[str]) -> list[str]:
        """The identity of every image of the split: its path below their common folder."""
        root = os.path.commonpath([os.path.dirname(label["im_file"]) for label in self.dataloader.dataset.labels])
        return [Path(f).relative_to(root).as_posix() for f in files]


def _truth(
    labels: list[dict[str, Any]], sizes: list[tuple[int, int]], ids: np.ndarray, names: list[str]
) -> GroundTruth:
    """Ultralytics' normalised labels as boxes in original pixels."""
    boxes, image, cls = [np.zeros((0, 4))], [], []
    for i, (label, (height, width)) in enumerate(zip(labels, sizes, strict=True)):
        xywh = label["bboxes"].astype(np.float64) * [width, height, width, height]
        boxes.append(np.c_[xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, 2:]])
        image.append(np.full(len(xywh), i))
        cls.append(label["cls"].reshape(-1).astype(np.int64))
    box = np.concatenate(boxes)
    return GroundTruth(
        image_ids=ids,
        category_ids=np.arange(len(names)),
        names=tuple(names),
        image=np.concatenate(image),
        cls=np.concatenate(cls),
        box=box,
        area=box[:, 2] * box[:, 3],
        crowd=np.zeros(len(box), bool),
    )


class LTSegmentationValidator(SegmentationValidator, LTDetectionValidator):
    """Instance segmentation: boxes are ours, masks stay Ultralytics' own columns."""


class LTPoseValidator(PoseValidator, LTDetectionValidator):
    """Pose: boxes are ours, keypoints stay Ultralytics' own columns."""


VALIDATORS = {"detect": LTDetectionValidator, "segment": LTSegmentationValidator, "pose": LTPoseValidator}
