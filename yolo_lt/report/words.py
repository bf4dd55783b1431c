"""What a report says in sentences: for those who read no table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.report.blocks import Tile, cell_text
from yolo_lt.report.names import number_of
from yolo_lt.report.results import confidence_text, known

METRIC = "AP50"  # what the page shows first: the errors and curves below it are of IoU 0.5 as well
NAMED = {"all": "all classes", "head": "the head", "medium": "medium classes", "tail": "the tail"}


def model_name(report: dict[str, Any]) -> str:
    """The checkpoint as one calls it: its run's folder where it lies in one, and its file."""
    path = PurePath(str(report["model"] or "detections"))
    run = path.parents[1].name if path.parent.name == "weights" else ""
    return f"{run}/{path.name}" if run else path.name


def data_name(report: dict[str, Any]) -> str:
    """The data set as one calls it: the name of its file, or of the folder around a data.yaml."""
    path = PurePath(str(report["data"] or "the given ground truth"))
    return path.parent.name if path.name == "data.yaml" and path.parent.name else path.name


def title(report: dict[str, Any]) -> str:
    """Which network, on which images."""
    split = f", split {report['split']}" if report["split"] else ""
    return f"{model_name(report)} on {data_name(report)}{split}"


def lead(report: dict[str, Any]) -> list[str]:
    """The whole report in a few sentences."""
    return [text for text in (_levels(report), _losses(report), _shown(report), *against_baseline(report)) if text]


def _levels(report: dict[str, Any]) -> str:
    measured = {name: m for name, m in known(report).items() if m[METRIC] is not None}
    if not measured:
        where = f" in split {report['split']}" if report["split"] else ""
        return f"No class has boxes{where}, so there is nothing to measure."
    every = report["metrics"]["all"]
    classes = "one class that has" if every["n_evaluated"] == 1 else f"{every['n_evaluated']} classes that have"
    whole = f"{cell_text(every[METRIC])} over the {classes} boxes here"
    bins = [f"{cell_text(measured[b][METRIC])} for {NAMED[b]}" for b in BIN_NAMES if b in measured]
    missing = [NAMED[b] for b, m in known(report).items() if m[METRIC] is None and m["n_classes"]]
    nothing = f" Nothing can be said of {listed(missing)}: no boxes here." if missing else ""
    return f"{METRIC} is {listed(bins)}; {whole}.{nothing}" if bins else f"{METRIC} is {whole}.{nothing}"


def _losses(report: dict[str, Any]) -> str:
    """What costs the rarest bin most."""
    shares = (report["errors"] or {}).get("shares") or {}
    rarest = next((b for b in ("tail", "medium", "head", "all") if (shares.get(b) or {}).get(METRIC) is not None), None)
    if rarest is None:
        return ""
    worst = sorted(shares[rarest]["loss"].items(), key=lambda kind: -kind[1])[:2]
    parts = [f"{KINDS[kind]} ({cell_text(loss)})" for kind, loss in worst if loss >= 0.0005]
    missed = shares[rarest]["counts"]["missed"]  # a class of which nothing was found gains nothing in the shares
    if not parts:
        return f"Objects of {NAMED[rarest]} without any box: {missed}." if missed else ""
    lack = "lacks" if NAMED[rarest].startswith("the ") else "lack"
    return f"Most of the {METRIC} that {NAMED[rarest]} {lack} is lost to {listed(parts)}."


KINDS = {
    "classification": "boxes with the wrong class",
    "localisation": "boxes that fit badly",
    "both": "boxes with the wrong class that fit badly",
    "duplicate": "second boxes on one object",
    "background": "boxes where nothing is",
    "missed": "objects without any box",
}


def _shown(report: dict[str, Any]) -> str:
    """What a user of the network sees of the rarest bin."""
    point = report["operating_point"]
    rarest = next((b for b in ("tail", "medium", "head", "all") if (point[b] or {}).get("recall") is not None), None)
    if rarest is None:
        return ""
    rates, what = point[rarest], NAMED[rarest]
    found = f"At {confidence_text(report)}, {percent(rates['recall'])} of the objects of {what} are found"
    right = rates["precision"]
    return f"{found}." if right is None else f"{found}, and {percent(right)} of what is shown as such is right."


def against_baseline(report: dict[str, Any]) -> list[str]:
    """The paired difference to `baseline=`."""
    other = report["baseline"]
    return [] if not other else [against(other["difference"], baseline_name(other["name"]))]


def baseline_name(path: str) -> str:
    """A run's folder, or a checkpoint, as one calls it; a folder that is called val by that above it as well."""
    last, above = PurePath(path).name, PurePath(path).parent.name
    return f"{above}/{last}" if above and re.fullmatch(r"val[\d-]*", last) else model_name({"model": path})


def against(difference: dict[str, Any], name: str) -> str:
    """Differences by bin, as one sentence."""
    rows = {b: row for b, row in difference.items() if row is not None and row[METRIC]}
    parts = [f"{NAMED[b]} {delta(row)}" for b, row in rows.items()]
    return f"Against {name}, in {METRIC}: {'; '.join(parts)}." if parts else ""


def delta(row: dict[str, Any], than: str = "") -> str:
    """One difference, its interval and what that says."""
    value, *interval = row[METRIC]
    size = f"{abs(value):.3f} {'higher' if value >= 0 else 'lower'}{than and f' than {than}'}"
    if not interval:
        return size
    said = row["is"][METRIC]
    return f"{size} [{interval[0]:+.3f}, {interval[1]:+.3f}], {said}"


def tiles(report: dict[str, Any], than: str = "") -> list[Tile]:
    """One tile for all classes and one for each bin; `than` is what to call the baseline, if not by its path."""
    other = report["baseline"] or {"name": "", "difference": {}}
    than = than or baseline_name(other["name"])
    return [_tile(name, m, other["difference"].get(name), than) for name, m in known(report).items() if m["n_classes"]]


def _tile(name: str, m: dict[str, Any], change: dict[str, Any] | None, than: str) -> Tile:
    bounds = (m["ci95"] or {}).get(METRIC)
    interval = "" if not bounds or m[METRIC] is None else f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"
    classes, boxes = number_of(m["n_classes"], "class", "classes"), number_of(m["n_gt"], "box", "boxes")
    more = [f"AP {cell_text(m['AP'])}", f"{m['n_evaluated']} of {classes}, {boxes}"]
    return Tile(
        name, cell_text(m[METRIC]), interval, [*more, delta(change, than)] if change and change[METRIC] else more
    )


def percent(share: float) -> str:
    """A share, in words."""
    return f"{100 * share:.0f} %"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)
