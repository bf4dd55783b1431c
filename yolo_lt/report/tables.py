"""Terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolo_lt.balance import exposure
from yolo_lt.balance.plan import CSV_HEADER, Plan
from yolo_lt.dataset.stats import imbalance

MAX_CLASS_ROWS = 60  # beyond that the terminal shows the two ends; class_stats.csv has them all


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


def with_interval(value: float | None, interval: Sequence[float] | None, sign: str = "") -> str:
    """`0.123 [0.100, 0.150]`; with sign="+" signed, for differences; None is shown as '-'."""
    if value is None:
        return "-"
    return f"{value:{sign}.3f}" + (f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]" if interval else "")
