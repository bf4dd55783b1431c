"""Pictures at the end of a training, registered with Ultralytics so that its loggers take them along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolo_lt.evaluate import evaluate
from yolo_lt.report import charts
from yolo_lt.report.drawing import Chart, save_png
from yolo_lt.ultra.history import run_history

if TYPE_CHECKING:
    from yolo_lt.balance.plan import Plan
    from yolo_lt.ultra.validator import LTDetectionValidator


def draw_run(folder: Path, validator: LTDetectionValidator, plan: Plan, on_plot: Callable[[Path], None]) -> None:
    """Draw AP by bin over epochs, realised exposure, and what the last validation (of best.pt) found.

    Args:
        folder: The run's folder.
        validator: The training's, with its last detections.
        plan: Whose counts the classes have.
        on_plot: Takes every picture.
    """
    history = {"training": run_history(folder)}
    found: list[Chart | None] = [charts.training_by_bin(history), charts.exposure_by_bin(history)]
    if getattr(validator, "found", None):
        report = _report(validator, plan)
        found += [charts.ap_by_images(report), charts.pr_by_bin(report), charts.calibration_by_bin(report)]
    for chart in found:
        if chart is not None:
            on_plot(save_png(folder, chart))


def _report(validator: LTDetectionValidator, plan: Plan) -> dict[str, Any]:
    """The last validation as a report, by the training's protocol."""
    settings = validator.of_epochs
    assert settings is not None  # a training's validator has them
    truth, dets = validator.evaluation_input(settings.names, index=settings.index)
    report = evaluate(
        *(truth, dets, settings.protocol, settings.bins),
        max_det=settings.max_det,
        bootstrap=0,
        context={"train_images": plan.stats.image_counts, "train_instances": plan.stats.instance_counts},
        hierarchy=settings.hierarchy,
        explain=False,
    )
    return report.to_json()
