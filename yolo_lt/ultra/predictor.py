"""Ultralytics' predictors with a confidence threshold per class, and their results as JSON.

What a threshold means: a box has one class, as in stock predict (the best class of its anchor; with an end-to-end head,
the class of its row), and is kept when its confidence is above that class's threshold. So a threshold decides about the
boxes of its own class alone and never gives a box another class: with class-aware NMS the result is that of
`conf=` the lowest threshold, filtered by class. The filter acts before NMS and before `max_det` and `max_nms` cut by
score, so that a box under its threshold neither suppresses another (`agnostic_nms=true`) nor takes a place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.engine.results import Results
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.models.yolo.obb import OBBPredictor
from ultralytics.models.yolo.pose import PosePredictor
from ultralytics.models.yolo.segment import SegmentationPredictor
from ultralytics.utils import LOGGER

from yolo_lt.errors import LTError
from yolo_lt.files import write_text
from yolo_lt.ultra.labels import plain

ALL_ROWS = 1_000_000  # more than any head has anchors


def drop_below(pred: torch.Tensor, thresholds: torch.Tensor, nc: int, rows: bool) -> torch.Tensor:
    """Set the confidence of every box that is not above the threshold of its own class to zero.

    Args:
        pred: Scores before NMS, shape (B, 4 + nc + extra, A), or final rows, shape (B, k, 6 + extra), of box,
            confidence, class and extra.
        thresholds: Shape (nc,).
        nc: Number of classes.
        rows: Whether `pred` holds final rows.

    Returns:
        A tensor of the same shape; what is kept is unchanged.
    """
    if rows:
        conf = pred[..., 4:5]
        keep = conf > thresholds[pred[..., 5:6].long()]
        return torch.cat([pred[..., :4], conf * keep, pred[..., 5:]], -1)
    scores = pred[:, 4 : 4 + nc]
    best, cls = scores.max(1, keepdim=True)
    return torch.cat([pred[:, :4], scores * (best > thresholds[cls]), pred[:, 4 + nc :]], 1)


class LTDetectionPredictor(DetectionPredictor):
    """Stock prediction, unless thresholds are set; writes predictions.json if `save_json` is.

    `args.conf` must be the lowest threshold, so that NMS sees every candidate.

    Attributes:
        thresholds: Confidence thresholds, shape (C,), or None for `conf` alone.
    """

    thresholds: torch.Tensor | None = None
    warned = False

    def set_prompts(self, prompts: dict[str, np.ndarray | None]) -> None:
        """Take the thresholds of this call.

        Ultralytics keeps the predictor between calls, and this is its way to hand one call's settings over: it is
        called on every predict, so no earlier call's thresholds stay.
        """
        thresholds = prompts["thresholds"]
        self.thresholds = None if thresholds is None else torch.from_numpy(thresholds)
        exported = (getattr(self.model, "metadata", None) or {}).get("args", {})
        if thresholds is not None and exported.get("nms") and not self.warned:
            self.warned = True
            LOGGER.warning(
                "yolo_lt: this exported file has NMS inside and lets no box pass under the conf= of its export "
                "(0.25 unless it was given), whatever the thresholds"
            )

    def setup_source(self, source: Any, stride: int | None = None) -> None:
        """Open the source.

        Raises:
            LTError: It does not exist, or holds no image or video.
        """
        try:
            super().setup_source(source, stride)
        except FileNotFoundError as e:
            named = f"source={source}" if isinstance(source, (str, Path)) else "source"
            raise LTError(f"{named}: {plain(str(e).partition(' Supported formats')[0])}") from None

    def inference(self, im: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Let an end-to-end head give all its rows when thresholds differ: it would cut by score before them."""
        head_cuts = self.model.format == "pt" and self.model.end2end
        if self.thresholds is not None and head_cuts and bool((self.thresholds > self.args.conf).any()):
            self.model.model.set_head_attr(max_det=ALL_ROWS)  # Ultralytics sets its own again at every call
        return super().inference(im, *args, **kwargs)

    def postprocess(self, preds: Any, img: torch.Tensor, orig_imgs: Any, **kwargs: Any) -> list[Results]:
        """Filter by class, then Ultralytics' own NMS."""
        if self.thresholds is not None:
            pred = preds[0] if isinstance(preds, (list, tuple)) else preds
            rows = pred.shape[-1] == 6 or bool(getattr(self.model, "end2end", False))  # as Ultralytics' NMS decides
            nc = pred.shape[1] - 4 if self.args.task == "detect" else len(self.model.names)
            preds = drop_below(pred, self.thresholds.to(pred), nc, rows)
        return super().postprocess(preds, img, orig_imgs, **kwargs)

    def stream_inference(self, *args: Any, **kwargs: Any) -> Iterator[Results]:
        """Ultralytics' results one by one; at the end predictions.json, if every result was taken."""
        entries: list[str] = []
        with closing(super().stream_inference(*args, **kwargs)) as results:
            for result in results:
                if self.args.save_json:
                    entries.append(_entry(result))
                yield result
        if self.args.save_json:
            path = write_text(self.save_dir / "predictions.json", "[\n" + ",\n".join(entries) + "\n]\n")
            LOGGER.info(f"{path.name} is in {path.parent}")


def _entry(result: Results) -> str:
    """One image or frame as a line of JSON: path, [height, width], and Ultralytics' summary, in original pixels."""
    content = {"path": str(result.path), "shape": list(result.orig_shape), "results": result.summary()}
    return json.dumps(content, allow_nan=False)


class LTSegmentationPredictor(SegmentationPredictor, LTDetectionPredictor):
    """Instance segmentation."""


class LTPosePredictor(PosePredictor, LTDetectionPredictor):
    """Pose."""


class LTOBBPredictor(OBBPredictor, LTDetectionPredictor):
    """Oriented boxes."""


PREDICTORS = {
    "detect": LTDetectionPredictor,
    "segment": LTSegmentationPredictor,
    "pose": LTPosePredictor,
    "obb": LTOBBPredictor,
}
