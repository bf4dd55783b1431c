"""What a plan would do and what acted, as tables and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolo_lt.balance import exposure
from yolo_lt.balance.plan import CSV_HEADER, Plan
from yolo_lt.dataset.stats import imbalance
from yolo_lt.report.blocks import ClassTable, Table, aligned, show

MAX_CLASS_ROWS = 60  # beyond that the terminal shows the two ends; class_stats.csv has them all


def plan_text(plan: Plan, branches: Sequence[str] = ("one2many",)) -> str:
    """What will act, on what, and by how much per bin."""
    return "\n".join([recipe_text(plan, branches), *plan.notes, show(by_bin(plan))])


def recipe_text(plan: Plan, branches: Sequence[str] = ("one2many",)) -> str:
    """What the recipe changes, as a line."""
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
    return f"recipe={keys['recipe']}: " + ("; ".join(acts) or "nothing is changed, training is stock Ultralytics")


def by_bin(plan: Plan) -> Table:
    """Counts and what is changed, by bin."""
    header = ("bin", "classes", "images", "instances", "repeat", "exposure x", "loss weight")
    return Table(header, plan.bin_rows(), f"bins: {plan.bins.rule}")


def size_text(plan: Plan) -> str:
    """How large the data set is."""
    s = plan.stats
    empty = int((s.image_counts == 0).sum())
    return f"{s.num_images} images, {len(s.classes)} instances, {s.num_classes} classes ({empty} without an image)"


def imbalances(plan: Plan) -> Table:
    """How far the counts of classes are from equal."""
    s = plan.stats
    rows = [
        (what, *imbalance(counts).values())
        for what, counts in (("images", s.image_counts), ("instances", s.instance_counts))
    ]
    return Table(("imbalance", "max/min", "gini", "entropy", "effective classes"), rows)


def classes(plan: Plan) -> ClassTable:
    """One row per class, the most images first."""
    return ClassTable([name.replace("_", " ") for name in CSV_HEADER], sorted(plan.rows(), key=lambda r: -r[3]))


def stats_text(plan: Plan) -> str:
    """The data set's classes, imbalance, and what the recipe would do."""
    rows = list(classes(plan).rows)
    if len(rows) > MAX_CLASS_ROWS:
        half = MAX_CLASS_ROWS // 2
        gap = ("", f"... {len(rows) - 2 * half} more in class_stats.csv ...", *[""] * (len(CSV_HEADER) - 2))
        rows = [*rows[:half], gap, *rows[-half:]]
    return "\n\n".join([size_text(plan), aligned(CSV_HEADER, rows), show(imbalances(plan)), plan_text(plan)])


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
    return aligned(header[:shown], [t[:shown] for t in totals])


def epoch_text(rows: Sequence[tuple], header: Sequence[str]) -> str:
    """One line of realised exposure for the log of an epoch, from its rows in exposure.csv."""
    totals = exposure.bin_totals(dict(zip(header, row, strict=True)) for row in rows)
    parts = [f"{n} {t / a:.3f} of the asked tiles, {int(b)} boxes" for n, a, t, b, _ in totals]
    if exposure.PASTED in header:
        parts.append(f"{int(sum(t[-1] for t in totals))} instances pasted")
    return "exposure: " + "; ".join(parts)
