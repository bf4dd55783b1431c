"""What a validation found, and how two of them differ: tables, made of report.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yolo_lt.evaluate.binned import ROWS
from yolo_lt.evaluate.compare import verdict
from yolo_lt.evaluate.deployed import RATES
from yolo_lt.evaluate.metrics import METRICS
from yolo_lt.report.blocks import ClassTable, Table, cell_text, show, with_interval

PER_CLASS = ("id", "name", "bin", "train_images", "train_instances", "n_gt", "AP", "AP50", "AP75")
WORST = 5  # pairs of classes that the terminal shows; report.json has more


def report_text(report: dict[str, Any]) -> str:
    """Every table of a report for the terminal, without that by class."""
    tables = (summary(report), operating(report), shares(report), confusion(report), weakest(report), lost(report))
    parts = [show(table) for table in tables if table is not None]
    difference = baseline(report)
    parts += [official_text(report), "" if difference is None else show(difference)]
    return "\n\n".join(part for part in parts if part)


def known(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The `metrics` of all and of the bins that there are."""
    return {name: m for name, m in report["metrics"].items() if m is not None}


def summary(report: dict[str, Any]) -> Table:
    """AP by bin, with 95 % intervals and the protocol that the numbers mean nothing without."""
    rows = []
    for name, m in known(report).items():
        values = [with_interval(m[k], (m["ci95"] or {}).get(k)) for k in METRICS]
        rows.append((name, f"{m['n_evaluated']}/{m['n_classes']}", m["n_gt"], *values))
    head = f"{protocol_text(report)}, bins: {report['bins']['rule']}"
    return Table(("bin", "classes", "boxes", *METRICS), rows, head, _sizes_text(report))


def protocol_text(report: dict[str, Any]) -> str:
    """What the numbers mean nothing without: protocol, cap, split and, where it is not all one, the head."""
    head = report["head_measured"]
    measured = f", head {head}" if head else ""
    return f"protocol {report['protocol']}, {report['cap']}, split {report['split'] or '-'}{measured}"


def _sizes_text(report: dict[str, Any]) -> str:
    """AP of small, medium and large boxes by bin, as a line below the table; nothing where the protocol has none."""
    areas = report["areas"]
    if not areas:
        return ""
    of_bin = {name: " / ".join(cell_text(areas[size][name]["AP"]) for size in areas) for name in known(report)}
    return f"AP of {' / '.join(areas)} boxes: {', '.join(f'{name} {text}' for name, text in of_bin.items())}"


def shares(report: dict[str, Any]) -> Table | None:
    """AP50 that each kind of error costs, by bin."""
    found = (report["errors"] or {}).get("shares") or {}
    measured = {name: s for name, s in found.items() if s is not None and s["AP50"] is not None}
    if not measured:
        return None
    kinds = list(next(iter(measured.values()))["loss"])
    rows = [(name, s["AP50"], *(s["loss"][k] for k in kinds), *_counts(s, kinds)) for name, s in measured.items()]
    header = ("bin", "AP50", *kinds, "wrong detections", "missed boxes")
    return Table(header, rows, "AP50 that is lost to each kind of error (TIDE)")


def _counts(share: dict[str, Any], kinds: Sequence[str]) -> tuple[int, int]:
    wrong = sum(share["counts"][k] for k in kinds if k != "missed")
    return wrong, share["counts"]["missed"]


def confusion(report: dict[str, Any]) -> Table | None:
    """What objects are taken for, bin by bin, and the pairs of classes that are most often confused."""
    if not report["errors"]:
        return None
    by_bin = report["errors"]["confusion"]["rows"]
    bins = [b for b, r in by_bin.items() if r["n_gt"] or any(x["as"][b] for x in by_bin.values())]
    rows = [
        (name, r["n_gt"], r["found"], *(r["as"][b] for b in bins), r["missed"])
        for name, r in by_bin.items()
        if r["n_gt"]
    ]
    if not rows:
        return None
    header = ("objects of", "boxes", "found", *(f"as {b}" for b in bins), "missed")
    pairs = [f"{true} as {other} ({n} of {of})" for true, other, n, of in worst_pairs(report)[:WORST]]
    note = f"most often confused: {', '.join(pairs)}" if pairs else ""
    return Table(header, rows, f"what objects are taken for, at {confidence_text(report)}", note, shaded=True)


def worst_pairs(report: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """Class, what it is taken for, how often, and of how many boxes; the most first."""
    names = {c["id"]: c["name"] for c in report["per_class"]}
    pairs = report["errors"]["confusion"]["worst_pairs"]
    return [(names[p["true"]], names[p["taken_for"]], p["count"], p["n_gt"]) for p in pairs]


def weakest(report: dict[str, Any]) -> Table | None:
    """What became of the objects of the classes that the page shows in pictures, worst class first."""
    classes, found = {c["id"]: c for c in report["per_class"]}, report.get("examples") or []
    rows = [
        (c["name"], c["bin"], c["AP50"], c["train_images"], e["n_gt"], e["found"], e["confused"], e["missed"])
        for e in found
        for c in [classes[e["id"]]]
    ]
    header = ("class", "bin", "AP50", "training images", "boxes", "found", "as another", "missed")
    return Table(header, rows, f"the weakest classes, at {confidence_text(report)}") if rows else None


def lost(report: dict[str, Any]) -> Table | None:
    """Objects that the network saw, and NMS or max_det took away."""
    found = (report["errors"] or {}).get("lost")
    if not found:
        return None
    kinds = ("n_gt", "never_seen", "lost_to_nms", "lost_to_max_det")
    rows = [(name, *(r[k] for k in kinds)) for name, r in found.items() if isinstance(r, dict)]
    header = ("bin", "boxes", "never seen", "lost to NMS", "lost to max_det")
    head = f"objects without a detection of their class at IoU 0.5, from confidence {found['conf']:g}"
    return Table(header, rows, f"{head}; max_det {found['max_det']}")


def official_text(report: dict[str, Any]) -> str:
    """What the protocol's own package says."""
    official = report["official"]
    if not official:
        return ""
    values = ", ".join(f"{m} {'-' if official[m] is None else format(official[m], '.6f')}" for m in METRICS)
    return (
        f"{official['package']} {official['version']}: {values}; the largest difference of its precision and recall "
        f"arrays to ours is {official['largest_difference']:.1e}"
    )


def baseline(report: dict[str, Any]) -> Table | None:
    """The difference to `baseline=`."""
    other = report["baseline"]
    if not other:
        return None
    resampled = "95 % intervals of paired image resamples" if other["replicates"] else "no intervals"
    return differences(other["difference"])._replace(head=f"this - {other['name']}, {resampled}")


def differences(difference: dict[str, Any], metric: str = "AP") -> Table:
    """Paired differences by bin, and what the interval of one metric says."""
    rows = [
        (name, *(with_interval(r[m][0], r[m][1:], "+") if r[m] else "-" for m in METRICS), r["is"][metric])
        for name, r in difference.items()
        if r is not None
    ]
    return Table(("bin", *METRICS, f"{metric} is"), rows)


def comparison(found: dict[str, Any]) -> Table:
    """The verb compare: what was paired, and the difference by bin."""
    sides = (found["runs"], found["baseline"])
    pairs = "" if len(sides[0]) == 1 else f" ({len(sides[0])} pairs: images and pairs are resampled)"
    head = f"{', '.join(sides[0])} - {', '.join(sides[1])}{pairs}"
    replicates = found["bootstrap"]["replicates"]
    note = f"protocol {found['protocol']}, {found['cap']}, bins: {found['bins']}"
    resampled = f"95 % intervals from {replicates} resamples" if replicates else "no intervals"
    return differences(found["difference"])._replace(head=head, note=f"{note}; {resampled}")


def operating(report: dict[str, Any]) -> Table:
    """What is seen at the deployed confidence, and how far confidences are from precision."""
    point, error, quality = report["operating_point"], report["calibration"], report["box_quality"]
    rows = [
        (
            *(name, point[name]["n_det"]),
            *(with_interval(point[name][k], (point[name]["ci95"] or {}).get(k)) for k in RATES),
            *(error[name]["ECE"], quality[name]["mean_iou"]),
        )
        for name in known(report)
    ]
    head = f"at {confidence_text(report)}, IoU 0.5; ECE: expected calibration error from confidence {error['floor']:g}"
    return Table(("bin", "shown", *RATES, "ECE", "IoU"), rows, f"{head}; IoU: mean of right detections")


def confidence_text(report: dict[str, Any]) -> str:
    """From which confidence a detection is shown."""
    conf = report["operating_point"]["conf"]
    return "the thresholds of each class" if conf is None else f"confidence {conf:g}"


def per_class(report: dict[str, Any]) -> ClassTable:
    """One row per class; None where the split has no ground truth."""
    return ClassTable(
        [name.replace("_", " ") for name in PER_CLASS], [tuple(c[k] for k in PER_CLASS) for c in report["per_class"]]
    )


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
    for i, name in enumerate(ROWS):
        sides = [r["metrics"][name] for r in reports]
        if any(m is None for m in sides):
            continue
        values = [with_interval(m[metric], (m["ci95"] or {}).get(metric)) for m in sides]
        low, high = (float(bound[i, column]) for bound in interval)
        delta = with_interval(float(difference[i, column]), (low, high), "+")
        rows.append((f"{metric} {name}", *values, delta, verdict(low, high)))
    header = ("", *names, f"{names[1]} - {names[0]}", f"{names[1]} is")
    first = reports[0]
    note = f"protocol {first['protocol']}, {first['cap']}, split {first['split']}"
    note += f"; 95 % intervals from {first['bootstrap']['replicates']} image resamples"
    return show(Table(header, rows, note=note))
