"""Terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolo_lt.balance import exposure
from yolo_lt.balance.plan import CSV_HEADER, Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.dataset.stats import imbalance
from yolo_lt.evaluate.compare import verdict
from yolo_lt.evaluate.metrics import METRICS

MAX_CLASS_ROWS = 60  # beyond that the terminal shows the two ends; class_stats.csv has them all
PER_CLASS = ("id", "name", "bin", "train_images", "train_instances", "n_gt", "AP", "AP50", "AP75")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under a header, columns aligned: text left, numbers right; None is shown as '-'."""
    cells = [list(header)] + [[_text(v) for v in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    left = [all(isinstance(row[i], str) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(row, widths, left, strict=True))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def plan_text(plan: Plan, branches: Sequence[str] = ("one2many",)) -> str:
    """What will act, on what, and by how much per bin."""
    keys = plan.keys
    acts = []
    if plan.samples:
        partners = "balanced" if keys["balance_partners"] else "Ultralytics' own"
        usual = keys["sampler_variant"] in ("", "sqrt", "geometric")
        variant = "" if usual else f" ({keys['sampler_variant']})"
        acts.append(f"sampler={keys['sampler']}{variant} with {partners} mosaic, mixup and cutmix partners")
    if plan.paste_share:
        acts.append(f"tail_paste: {plan.paste_share:.0%} of the source images get a tail instance")
    if keys["tail_augment"]:
        policy = "the default policy" if keys["tail_augment"] is True else keys["tail_augment"]
        acts.append(f"tail_augment: {policy} on images with tail classes")
    if plan.reweighs:
        masked = f", unknown negatives {keys['unknown_negatives']}" if plan.federated is not None else ""
        acts.append(f"cls_loss={keys['cls_loss']}{masked} on {' and '.join(branches)}")
    if plan.box_weights is not None:
        acts.append(f"box_weight={keys['box_weight']}")
    head = f"recipe={keys['recipe']}: " + ("; ".join(acts) or "nothing is changed, training is stock Ultralytics")
    header = ("bin", "classes", "images", "instances", "repeat", "exposure x", "loss weight")
    return "\n".join([head, *plan.notes, f"bins: {plan.bins.rule}", table(header, plan.bin_rows())])


def stats_text(plan: Plan) -> str:
    """The data set's classes, imbalance, and what the recipe would do."""
    s = plan.stats
    rows = sorted(plan.rows(), key=lambda r: -r[3])
    if len(rows) > MAX_CLASS_ROWS:
        half = MAX_CLASS_ROWS // 2
        gap = ("", f"... {len(rows) - 2 * half} more in class_stats.csv ...", *[""] * (len(CSV_HEADER) - 2))
        rows = [*rows[:half], gap, *rows[-half:]]
    empty = int((s.image_counts == 0).sum())
    size = f"{s.num_images} images, {len(s.classes)} instances, {s.num_classes} classes ({empty} without an image)"
    measures = [
        (what, *imbalance(counts).values())
        for what, counts in (("images", s.image_counts), ("instances", s.instance_counts))
    ]
    header = ("imbalance", "max/min", "gini", "entropy", "effective classes")
    return "\n\n".join([size, table(CSV_HEADER, rows), table(header, measures), plan_text(plan)])


def start_text(losses: dict[str, Any]) -> str:
    """How strong the losses began: their gradient norm over that of BCE, and the gain that was put on them."""
    parts = []
    for name, loss in losses.items():
        ratio = "no objects yet" if loss.start is None else f"{loss.start:.3g} of BCE's"
        gain = "" if loss.gain in (None, 1) else f", times {loss.gain:.3g} (loss_gain)"
        parts.append(f"{name} {ratio}{gain}")
    return f"gradient norm of the classification loss at the start: {'; '.join(parts)}"


def acted_text(exposure_csv: Path, losses: dict[str, Any], more: Sequence[str] = ()) -> str:
    """What acted in a finished training: the batches that the loss saw, `more`, and realised exposure by bin."""
    parts = [f"cls_loss acted on {loss.batches} batches of {name}" for name, loss in losses.items()]
    for name, loss in losses.items():
        if skipped := int(getattr(loss.loss, "skipped", 0)):
            parts.append(f"{skipped} batches of {name} had gradients that are not finite and left the statistics alone")
    parts += more
    if exposure_csv.exists():
        rows = exposure.read(exposure_csv)
        parts.append("realised exposure, images that hold a class of the bin:\n" + exposure_table(rows))
    return "what acted: " + ("\n".join(parts) or "nothing, as recipe=baseline asks")


def exposure_table(rows: Sequence[dict[str, Any]]) -> str:
    """Tiles asked and drawn, and boxes, by bin; with tail paste the instances pasted."""
    totals = [(n, a, int(t), t / a, int(b), int(p)) for n, a, t, b, p in exposure.bin_totals(rows)]
    header = ("bin", "tiles asked", "tiles drawn", "drawn/asked", "boxes that survived", "pasted")
    shown = len(header) - (not rows or exposure.PASTED not in rows[0])
    return table(header[:shown], [t[:shown] for t in totals])


def epoch_text(rows: Sequence[tuple], header: Sequence[str]) -> str:
    """One line of realised exposure for the log of an epoch, from its rows in exposure.csv."""
    totals = exposure.bin_totals(dict(zip(header, row, strict=True)) for row in rows)
    parts = [f"{n} {t / a:.3f} of the asked tiles, {int(b)} boxes" for n, a, t, b, _ in totals]
    if exposure.PASTED in header:
        parts.append(f"{int(sum(t[-1] for t in totals))} instances pasted")
    return "exposure: " + "; ".join(parts)


def report_text(report: dict[str, Any]) -> str:
    """The table by bin, with 95 % intervals and the protocol that the numbers mean nothing without."""
    rows = []
    for name, m in report["metrics"].items():
        if m is not None:
            values = [with_interval(m[k], (m["ci95"] or {}).get(k)) for k in METRICS]
            rows.append((name, f"{m['n_evaluated']}/{m['n_classes']}", m["n_gt"], *values))
    head = (
        f"protocol {report['protocol']}, {report['max_det']} detections per image and class, split {report['split']}, "
        f"bins: {report['bins']['rule']}"
    )
    return f"{head}\n{table(('bin', 'classes', 'boxes', *METRICS), rows)}\n\n{operating_text(report)}"


def operating_text(report: dict[str, Any]) -> str:
    """What is seen at the deployed confidence, and how far confidences are from precision."""
    point, error = report["operating_point"], report["calibration"]
    at = "the thresholds of each class" if point["conf"] is None else f"confidence {point['conf']:g}"
    rows = [
        (name, point[name]["n_det"], *(point[name][k] for k in ("precision", "recall", "F1")), error[name]["ECE"])
        for name, m in report["metrics"].items()
        if m is not None
    ]
    head = f"at {at}, IoU 0.5; ECE: expected calibration error of detections from confidence {error['floor']:g}"
    return f"{head}\n{table(('bin', 'shown', 'precision', 'recall', 'F1', 'ECE'), rows)}"


def with_interval(value: float | None, interval: Sequence[float] | None, sign: str = "") -> str:
    """`0.123 [0.100, 0.150]`; with sign="+" signed, for differences; None is shown as '-'."""
    if value is None:
        return "-"
    return f"{value:{sign}.3f}" + (f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]" if interval else "")


def per_class_rows(report: dict[str, Any]) -> list[tuple]:
    """per_class.csv: a header and one row per class; an empty cell where the split has no ground truth."""
    return [PER_CLASS, *(tuple(c[k] for k in PER_CLASS) for c in report["per_class"])]


def comparison_text(
    reports: Sequence[dict[str, Any]], names: Sequence[str], difference: Any, interval: Any, metric: str = "AP50"
) -> str:
    """One metric of two runs side by side by bin, with the paired difference second - first and its 95 % interval.

    Args:
        reports: Two reports (schema 1) on one ground truth.
        names: What to call them.
        difference: Shape (4, 4): all, head, medium, tail by AP, AP50, AP75, AR.
        interval: Shape (2, 4, 4), its bounds.
        metric: The metric shown.
    """
    column = METRICS.index(metric)
    rows = []
    for i, name in enumerate(("all", *BIN_NAMES)):
        sides = [r["metrics"][name] for r in reports]
        if any(m is None for m in sides):
            continue
        values = [with_interval(m[metric], (m["ci95"] or {}).get(metric)) for m in sides]
        low, high = (float(bound[i, column]) for bound in interval)
        delta = with_interval(float(difference[i, column]), (low, high), "+")
        rows.append((f"{metric} {name}", *values, delta, verdict(low, high)))
    header = ("", *names, f"{names[1]} - {names[0]}", f"{names[1]} is")
    first = reports[0]
    note = f"protocol {first['protocol']}, {first['max_det']} detections per image and class, split {first['split']}"
    return f"{table(header, rows)}\n{note}; 95 % intervals from {first['bootstrap']['replicates']} image resamples"
