"""What a validation found, and how two of them differ, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.evaluate.compare import verdict
from yolo_lt.evaluate.deployed import RATES
from yolo_lt.evaluate.metrics import METRICS
from yolo_lt.report.tables import table, with_interval

PER_CLASS = ("id", "name", "bin", "train_images", "train_instances", "n_gt", "AP", "AP50", "AP75")
WORST = 5  # pairs of classes that the terminal shows; report.json has more


def report_text(report: dict[str, Any]) -> str:
    """The table by bin, with 95 % intervals and the protocol that the numbers mean nothing without."""
    rows = []
    for name, m in report["metrics"].items():
        if m is not None:
            values = [with_interval(m[k], (m["ci95"] or {}).get(k)) for k in METRICS]
            rows.append((name, f"{m['n_evaluated']}/{m['n_classes']}", m["n_gt"], *values))
    by_bin = (
        f"{protocol_text(report)}, bins: {report['bins']['rule']}\n{table(('bin', 'classes', 'boxes', *METRICS), rows)}"
    )
    by_bin += sizes_text(report)
    parts = [by_bin, operating_text(report), errors_text(report), official_text(report), baseline_text(report)]
    return "\n\n".join(part for part in parts if part)


def protocol_text(report: dict[str, Any]) -> str:
    """What the numbers mean nothing without: protocol, cap, split and, where it is not all one, the head."""
    head = report["head_measured"]
    measured = f", head {head}" if head else ""
    return f"protocol {report['protocol']}, {report['cap']}, split {report['split'] or '-'}{measured}"


def sizes_text(report: dict[str, Any]) -> str:
    """AP of small, medium and large boxes by bin, as a line below the table; nothing where the protocol has none."""
    areas = report["areas"]
    if not areas:
        return ""
    known = [name for name, m in report["metrics"].items() if m is not None]
    of_bin = {name: " / ".join(_short(areas[size][name]["AP"]) for size in areas) for name in known}
    return f"\nAP of {' / '.join(areas)} boxes: {', '.join(f'{name} {text}' for name, text in of_bin.items())}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def errors_text(report: dict[str, Any]) -> str:
    """Why AP50 is lost, by bin, and what objects are taken for."""
    errors = report["errors"]
    if not errors:
        return ""
    return "\n\n".join(t for t in (_shares_text(errors), _confusion_text(report), _lost_text(errors)) if t)


def _shares_text(errors: dict[str, Any]) -> str:
    shares = errors["shares"]
    if shares is None:
        return ""
    known = {name: s for name, s in shares.items() if s is not None and s["AP50"] is not None}
    if not known:
        return ""
    kinds = list(next(iter(known.values()))["loss"])
    rows = [(name, s["AP50"], *(s["loss"][k] for k in kinds), *_kind_counts(s, kinds)) for name, s in known.items()]
    header = ("bin", "AP50", *kinds, "wrong detections", "missed boxes")
    return f"AP50 that is lost to each kind of error (TIDE)\n{table(header, rows)}"


def _kind_counts(share: dict[str, Any], kinds: Sequence[str]) -> tuple[int, int]:
    wrong = sum(share["counts"][k] for k in kinds if k != "missed")
    return wrong, share["counts"]["missed"]


def _confusion_text(report: dict[str, Any]) -> str:
    confusion = report["errors"]["confusion"]
    bins = [b for b, r in confusion["rows"].items() if r["n_gt"] or any(x["as"][b] for x in confusion["rows"].values())]
    rows = [
        (name, r["n_gt"], r["found"], *(r["as"][b] for b in bins), r["missed"])
        for name, r in confusion["rows"].items()
        if r["n_gt"]
    ]
    header = ("objects of", "boxes", "found", *(f"as {b}" for b in bins), "missed")
    text = f"what objects are taken for, at {_at(report)}\n{table(header, rows)}"
    names = {c["id"]: c["name"] for c in report["per_class"]}
    pairs = [
        f"{names[p['true']]} as {names[p['taken_for']]} ({p['count']} of {p['n_gt']})"
        for p in confusion["worst_pairs"][:WORST]
    ]
    return f"{text}\nmost often confused: {', '.join(pairs)}" if pairs else text


def _lost_text(errors: dict[str, Any]) -> str:
    lost = errors["lost"]
    if not lost:
        return ""
    rows = [
        (name, r["n_gt"], r["never_seen"], r["lost_to_nms"], r["lost_to_max_det"])
        for name, r in lost.items()
        if isinstance(r, dict)
    ]
    header = ("bin", "boxes", "never seen", "lost to NMS", "lost to max_det")
    head = f"objects without a detection of their class at IoU 0.5, from confidence {lost['conf']:g}"
    return f"{head}; max_det {lost['max_det']}\n{table(header, rows)}"


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


def baseline_text(report: dict[str, Any]) -> str:
    """The difference to `baseline=`."""
    baseline = report["baseline"]
    if not baseline:
        return ""
    resampled = "95 % intervals of paired image resamples" if baseline["replicates"] else "no intervals"
    head = f"this - {baseline['name']}, {resampled}"
    return f"{head}\n{difference_text(baseline['difference'])}"


def difference_text(difference: dict[str, Any], metric: str = "AP") -> str:
    """Paired differences by bin, and what the interval of one metric says."""
    rows = [
        (name, *(with_interval(r[m][0], r[m][1:], "+") if r[m] else "-" for m in METRICS), r["is"][metric])
        for name, r in difference.items()
        if r is not None
    ]
    return table(("bin", *METRICS, f"{metric} is"), rows)


def compare_text(comparison: dict[str, Any]) -> str:
    """The verb compare: what was paired, and the difference by bin."""
    sides = (comparison["runs"], comparison["baseline"])
    pairs = "" if len(sides[0]) == 1 else f" ({len(sides[0])} pairs: images and pairs are resampled)"
    head = f"{', '.join(sides[0])} - {', '.join(sides[1])}{pairs}"
    replicates = comparison["bootstrap"]["replicates"]
    note = f"protocol {comparison['protocol']}, {comparison['cap']}, bins: {comparison['bins']}"
    resampled = f"95 % intervals from {replicates} resamples" if replicates else "no intervals"
    return f"{head}\n{difference_text(comparison['difference'])}\n{note}; {resampled}"


def operating_text(report: dict[str, Any]) -> str:
    """What is seen at the deployed confidence, and how far confidences are from precision."""
    point, error, quality = report["operating_point"], report["calibration"], report["box_quality"]
    rows = [
        (
            *(name, point[name]["n_det"]),
            *(with_interval(point[name][k], (point[name]["ci95"] or {}).get(k)) for k in RATES),
            *(error[name]["ECE"], quality[name]["mean_iou"]),
        )
        for name, m in report["metrics"].items()
        if m is not None
    ]
    head = f"at {_at(report)}, IoU 0.5; ECE: expected calibration error from confidence {error['floor']:g}"
    return f"{head}; IoU: mean of right detections\n{table(('bin', 'shown', *RATES, 'ECE', 'IoU'), rows)}"


def _at(report: dict[str, Any]) -> str:
    conf = report["operating_point"]["conf"]
    return "the thresholds of each class" if conf is None else f"confidence {conf:g}"


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
    note = f"protocol {first['protocol']}, {first['cap']}, split {first['split']}"
    return f"{table(header, rows)}\n{note}; 95 % intervals from {first['bootstrap']['replicates']} image resamples"
