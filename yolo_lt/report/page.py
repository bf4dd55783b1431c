"""The page of a validation: which blocks stand in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yolo_lt.report import charts, results, words
from yolo_lt.report.blocks import Block, Facts, Gallery, Picture, Section, Table, cell_text
from yolo_lt.report.drawing import Chart

PAIRS = 10  # of classes that the page shows; report.json has more
LEGEND = "Solid, white: the object. Dashed, yellow: what the network shows for it."


class Page(NamedTuple):
    """A title and what stands below it."""

    title: str
    sections: Sequence[Section]

    @property
    def charts(self) -> list[Chart]:
        """Every chart, in order."""
        lists = [blocks for s in self.sections for blocks in (s.blocks, *(b for _, b in s.columns))]
        return [block for blocks in lists for block in blocks if isinstance(block, Chart)]


def validation_page(report: dict[str, Any], folder: Path) -> Page:
    """The page of one validation.

    Args:
        report: report.json.
        folder: Where its pictures lie.
    """
    first, *others = details(report, folder)
    summary = [*words.tiles(report), *words.lead(report), *first[2], *difference(report), results.summary(report)]
    summary += [results.baseline(report)]
    parts = [Section(key, title, filled(blocks)) for key, title, blocks in others]
    classes = Section("classes", "Every class", [results.per_class(report)])
    about = Section("about", "How this was measured", [*report["warnings"], facts(report)])
    return Page(words.title(report), [Section("summary", "Summary", filled(summary)), *parts, classes, about])


def difference(report: dict[str, Any]) -> list[Block | None]:
    """The chart of what `baseline=` adds."""
    other = report["baseline"]
    if not other:
        return []
    title = f"{words.model_name(report)} - {words.baseline_name(other['name'])}, paired difference with 95 % interval"
    return [charts.difference_by_bin(other["difference"], title)]


Detail = tuple[str, str, list[Block | None]]


def details(report: dict[str, Any], folder: Path, top: float | None = None) -> list[Detail]:
    """Key, title and blocks of the sections that one run fills; of several runs they stand side by side.

    Args:
        report: report.json.
        folder: Where its pictures lie.
        top: The limit of the axis of losses, if it is to be that of several runs.
    """
    return [
        ("images", "AP against training images", [charts.ap_by_images(report)]),
        ("worst", _weakest(report), galleries(report, folder)),
        ("errors", "Why AP is lost", [charts.errors_by_bin(report, top), charts.pr_by_bin(report), *_why(report)]),
        ("confidence", "What the confidence means", [charts.calibration_by_bin(report), results.operating(report)]),
        ("training", "Training", [charts.training_by_bin(report), charts.exposure_by_bin(report)]),
    ]


def _weakest(report: dict[str, Any]) -> str:
    """What the classes with pictures are: without a tail they are of all."""
    tail = (report["metrics"]["tail"] or {}).get("n_evaluated")
    return "The weakest tail classes" if tail else "The weakest classes"


def _why(report: dict[str, Any]) -> list[Block | None]:
    taken_for = results.confusion(report)
    shown = None if taken_for is None else taken_for._replace(note="")  # the pairs have a table of their own
    return [results.shares(report), shown, results.lost(report), pairs(report)]


def filled(blocks: Sequence[Block | None]) -> list[Block]:
    """The blocks that there are."""
    return [block for block in blocks if block is not None]


def pairs(report: dict[str, Any]) -> Table | None:
    """The pairs of classes that are most often confused."""
    found = results.worst_pairs(report) if report["errors"] else []
    header = ("objects of", "are taken for", "boxes", "of")
    return Table(header, found[:PAIRS], "the pairs that are most often confused") if found else None


def galleries(report: dict[str, Any], folder: Path) -> list[Block | None]:
    """Pictures of objects of the weakest tail classes, worst class first."""
    classes = {c["id"]: c for c in report["per_class"]}
    shown = [_gallery(example, classes, folder) for example in report.get("examples") or []]
    return [LEGEND, *shown] if any(gallery.pictures for gallery in shown) else [*shown]


def _gallery(example: dict[str, Any], classes: dict[int, dict[str, Any]], folder: Path) -> Gallery:
    c = classes[example["id"]]
    trained = "" if c["train_images"] is None else f", {c['train_images']} training images"
    found = f"{example['found']} of {example['n_gt']} objects found"
    text = f"AP50 {cell_text(c['AP50'])}{trained}; {found}, {example['confused']} taken for another class"
    shown = [
        Picture(folder / object_["file"], _caption(object_, classes), object_["outcome"])
        for object_ in example["shown"]
        if object_.get("file") and (folder / object_["file"]).is_file()
    ]
    return Gallery(c["name"], c["bin"], f"{text}, {example['missed']} missed", shown)


def _caption(shown: dict[str, Any], classes: dict[int, dict[str, Any]]) -> str:
    if shown["outcome"] == "missed":
        return "missed: no box of any class is shown for it"
    at = f"confidence {shown['score']:.2f}, IoU {shown['iou']:.2f}"
    if shown["outcome"] == "found":
        return f"found: {at}"
    return f"taken for {classes[shown['taken_for']]['name']}: {at}"


def facts(report: dict[str, Any]) -> Facts:
    """What a reader needs to judge the numbers and to get them again."""
    training, boot, other = report.get("training") or {}, report["bootstrap"], report["baseline"] or {}
    resampled = f"{boot['replicates']} image resamples, seed {boot['seed']}" if boot["replicates"] else "none"
    bins = ", ".join(f"{name} {len(ids)}" for name, ids in report["bins"].items() if name != "rule" and ids)
    rows = {
        "model": _with_digest(report["model"], "sha256", report["weights_sha256"]),
        "training": _training_text(training),
        "baseline": _with_digest(other.get("name"), "sha256", other.get("weights_sha256")),
        "data": _with_digest(report["data"], "ground truth sha256", report["gt_sha256"]),
        "split": report["split"],
        "task": f"{report['task']}, IoU of {report['iou_type']}es",
        "protocol": f"{report['protocol']}, {report['cap']}",
        "IoU": f"{report['iou_thresholds'][0]:g} to {report['iou_thresholds'][-1]:g}",
        "bins": f"{report['bins']['rule']}: {bins} classes" if bins else None,
        "95 % intervals": resampled,
        "image size": report["imgsz"],
        "NMS": None if report["conf"] is None else f"confidence {report['conf']:g}, IoU {report['nms_iou']:g}",
        "head measured": report["head_measured"],
        "official evaluation": results.official_text(report) or None,
        "versions": ", ".join(f"{name} {version}" for name, version in (report["versions"] or {}).items()),
    }
    return Facts([(name, str(value)) for name, value in rows.items() if value], report.get("command") or "")


def _with_digest(path: str | None, what: str, digest: str | None) -> str | None:
    return path if not path or not digest else f"{path} ({what} {digest[:12]})"


def _training_text(training: dict[str, Any]) -> str | None:
    if not training:
        return None
    known = {key: training.get(key) for key in ("recipe", "seed", "epochs")}
    return ", ".join(f"{key} {value}" for key, value in known.items() if value is not None) or None
