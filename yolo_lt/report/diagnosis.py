"""What was found out about a data set: where to begin, defects, images that are there twice, what surrounds classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_lt.balance.advice import Advice, RecipeCost
from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.dataset.diagnosis.context import Context
from yolo_lt.dataset.diagnosis.defects import KINDS, Defect
from yolo_lt.dataset.diagnosis.label_rows import ALL, IMAGE
from yolo_lt.dataset.diagnosis.leaks import Conflict, Leaks
from yolo_lt.dataset.diagnosis.suspects import Gaps, Suspects
from yolo_lt.report.blocks import Block, Section, Table, show
from yolo_lt.report.contexts import by_bin, every_class, known, narrowest
from yolo_lt.report.names import number_of, printable
from yolo_lt.report.words import percent

EXAMPLES = 20  # lines of label files, and pairs of images, that the page names
FEW = 3  # of them in the terminal
FILES = 5  # of a kind that is missing or too many
CLASSES = 30  # classes of the table of leaks
NO_DEFECT = "The labels show no defect."
SUSPECTED = {
    "invalid": "values that are not finite",
    "flat": "no width or height",
    "beyond": "more than 1 % of the image beyond its edge",
    "tiny": "a side under 2 pixels",
    "repeated": "the same class and box as an earlier one",
    "doubled": "IoU above 0.95 with another of the class",
    "contested": "IoU above 0.95 with one of another class",
}


@dataclass(frozen=True)
class Diagnosis:
    """What was found out; None where nobody looked.

    Attributes:
        plan: Statistics and bins of train.
        context: What surrounds its classes.
        defects: The label files that were read again, and their defects.
        suspects: Boxes in memory that look wrong; None if all of their files were read again.
        gaps: Images and label files that do not belong together.
        images: The images that the places in `gaps` are of.
        leaks: Images that are there twice.
        paths: The images of every split of `leaks`.
        conflicts: Copies whose labels differ; their places are those of all images of `paths`.
        costs: What recipes would cost.
        advice: Which to begin with.
        notes: What else is to be said of images that are there twice.
    """

    plan: Plan
    context: Context | None = None
    defects: Mapping[str, Sequence[Defect]] | None = None
    suspects: Suspects | None = None
    gaps: Gaps | None = None
    images: Sequence[str] = ()
    leaks: Leaks | None = None
    paths: Sequence[Sequence[str]] = ()
    conflicts: Sequence[Conflict] = ()
    costs: Sequence[RecipeCost] = ()
    advice: Advice | None = None
    notes: Sequence[str] = ()


def diagnosis_sections(found: Diagnosis) -> list[Section]:
    """The sections of the page, those that have something to say."""
    parts = [
        Section("advice", "Where to begin", advice_blocks(found)),
        Section("labels", "Defects of the labels", label_blocks(found, EXAMPLES)),
        Section("twins", "Images that are there twice", twin_blocks(found, EXAMPLES)),
        Section("context", "What surrounds the classes", context_blocks(found)),
    ]
    return [part for part in parts if part.filled]


def diagnosis_text(found: Diagnosis, worst: int = 5) -> str:
    """The same for the terminal, short.

    Args:
        found: What was found out.
        worst: How many tail classes are shown with what surrounds them.
    """
    blocks = [*label_blocks(found, FEW), *twin_blocks(found, FEW, classes=0), *context_blocks(found, worst)]
    blocks += advice_blocks(found)
    text = ""
    for block in blocks:  # sentences stand together, tables apart
        if isinstance(block, Table):
            text += f"\n{show(block)}\n\n"
        elif isinstance(block, str):
            text += f"{printable(block)}\n"
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


# Where to begin -------------------------------------------------------------------------------------------------------
def advice_blocks(found: Diagnosis) -> list[Block]:
    """The recommendation with its reasons, and what recipes would cost."""
    blocks: list[Block] = []
    if (advice := found.advice) is not None:
        blocks += [*advice.first, f"To begin with: {_command(advice)}, by rules of thumb:", *advice.reasons]
        if advice.tries:
            blocks.append(f"Worth a run of its own: {_keys(advice.tries, ', or ')}.")
    return blocks + ([costs_table(found.costs)] if found.costs else [])


def _command(advice: Advice) -> str:
    return " ".join(part for part in (f"recipe={advice.recipe}", _keys(advice.keys, " ")) if part)


def _keys(keys: Mapping[str, Any], between: str) -> str:
    return between.join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in keys.items())


def costs_table(costs: Sequence[RecipeCost]) -> Table:
    """One row per recipe; loss weights only where a recipe has some."""
    bins = [b for b in BIN_NAMES if any(b in cost.exposure for cost in costs)]
    weighed = bins if any(cost.weights for cost in costs) else []
    header = ["recipe", "images repeated", "most", "iterations x", *(f"{b} seen x" for b in bins)]
    header += [*(f"{b} weight" for b in weighed), "loss", "stage two"]
    rows = [
        (
            *(cost.recipe, cost.repeated, cost.most, cost.draws, *(known(cost.exposure.get(b)) for b in bins)),
            *(known(cost.weights.get(b)) for b in weighed),
            *(cost.loss, percent(cost.stage_two) if cost.stage_two else "-"),
        )
        for cost in costs
    ]
    return Table(header, rows, "what recipes would change and cost")


# Labels ---------------------------------------------------------------------------------------------------------------
def label_blocks(found: Diagnosis, examples: int) -> list[Block]:
    """Defects by kind, the first of them with file and line, and files that are missing or too many."""
    blocks: list[Block] = []
    if (defects := found.defects) is not None:
        listed = [(path, d) for path, of in defects.items() for d in of]
        blocks += [defect_table(defects), *_named(listed, examples)] if listed else [NO_DEFECT]
    if found.suspects is not None and any(found.suspects.counts.values()):
        rows = [(SUSPECTED[name], count) for name, count in found.suspects.counts.items() if count]
        blocks.append(Table(("boxes with", "boxes"), rows, "boxes in memory that look wrong; they are trained on"))
    return blocks + (_gaps(found.gaps, found.images, examples) if found.gaps is not None else [])


def defect_table(defects: Mapping[str, Sequence[Defect]]) -> Table:
    """Files and lines of every kind, and what Ultralytics does with them."""
    files = Counter((k, fate) for of in defects.values() for k, fate in {(d.kind, d.fate) for d in of})
    lines = Counter((d.kind, d.fate) for of in defects.values() for d in of)
    order = list(KINDS)
    rows = [(KINDS[k], files[k, f], lines[k, f], f) for k, f in sorted(lines, key=lambda x: (order.index(x[0]), x[1]))]
    head = f"defects in {number_of(sum(map(bool, defects.values())), 'label file')} of {len(defects):,} read"
    return Table(("what is wrong", "files", "lines", "Ultralytics"), rows, head)


def _named(listed: Sequence[tuple[str, Defect]], most: int) -> list[Block]:
    """The first defect of every kind, then more, those that cost an image first."""
    seen: Counter[str] = Counter()
    ranked = []
    for path, d in listed:
        ranked.append(((seen[d.kind], d.fate not in (IMAGE, ALL)), path, d))
        seen[d.kind] += 1
    ranked.sort(key=lambda r: r[0])
    shown: list[Block] = [f"{_place(path, d)}: {d.what}; Ultralytics {d.fate}." for _, path, d in ranked[:most]]
    return [*shown, f"And {len(listed) - most:,} more."] if len(listed) > most else shown


def _place(path: str, defect: Defect) -> str:
    return f"{path}, line {defect.line}" if defect.line else path


def _gaps(gaps: Gaps, images: Sequence[str], most: int) -> list[Block]:
    """A sentence for every kind of file that is missing or too many."""
    kinds = (
        ("image without a label file", "images without a label file", [images[i] for i in gaps.missing]),
        ("image with an empty label file", "images with an empty label file", [images[i] for i in gaps.empty]),
        ("label file without an image", "label files without an image", gaps.orphans),
        ("label file of several images", "label files of several images", gaps.shared),
    )
    return [f"{number_of(len(of), *words)}: {_first(of, min(most, FILES))}." for *words, of in kinds if of]


def _first(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# Twins ----------------------------------------------------------------------------------------------------------------
def twin_blocks(found: Diagnosis, examples: int, classes: int = CLASSES) -> list[Block]:
    """Copies within splits and across them, and the classes whose AP that makes too kind."""
    if (leaks := found.leaks) is None:
        return []
    if not leaks.twins.any():
        return ["No image is there twice.", *found.notes]
    concerned = _leaked_classes(found.plan, leaks, classes)
    return [
        _splits(leaks),
        *found.notes,
        *concerned,
        *_twin_names(found, leaks, examples),
        *_conflicts(found, examples),
    ]


def _splits(leaks: Leaks) -> Table:
    header = ("split", "images", "repeat another", *(f"twin in {name}" for name in leaks.splits))
    columns = (leaks.images.tolist(), leaks.copies.tolist(), leaks.twins.tolist())
    rows = [(name, n, k, *twins) for name, n, k, twins in zip(leaks.splits, *columns, strict=True)]
    return Table(header, rows, "images that show what another one shows")


def _leaked_classes(plan: Plan, leaks: Leaks, most: int) -> list[Block]:
    """The classes of which most images have a twin in train."""
    share, labels = leaks.class_share, plan.bins.labels(plan.stats.num_classes)
    places = [(s, c) for s, c in np.argwhere(leaks.class_leaked > 0).tolist()]
    places.sort(key=lambda p: -share[p])
    rows = [
        (plan.stats.names[c], str(labels[c]), leaks.splits[s], *_counts(leaks, s, c), float(share[s, c]))
        for s, c in places[:most]
    ]
    header = ("class", "bin", "split", "images", "twin in train", "share")
    more = f"{len(places) - most:,} more with no larger shares" if len(places) > most else ""
    return [Table(header, rows, "classes whose AP is too kind", more)] if rows else []


def _counts(leaks: Leaks, s: int, c: int) -> tuple[int, int]:
    return int(leaks.class_images[s, c]), int(leaks.class_leaked[s, c])


def _twin_names(found: Diagnosis, leaks: Leaks, most: int) -> list[Block]:
    train = found.paths[leaks.splits.index(leaks.train)] if found.paths else ()
    pairs = [(found.paths[s][i], train[j]) for s, of in enumerate(leaks.pairs) for i, j in of] if train else []
    return [f"{one} shows what {two} shows." for one, two in pairs[:most]]


def _conflicts(found: Diagnosis, most: int) -> list[Block]:
    every = [path for of in found.paths for path in of]
    texts: list[Block] = [
        f"{every[c.second]} is a copy of {every[c.first]}, but {c.what}." for c in found.conflicts[:most] if every
    ]
    more = len(found.conflicts) - len(texts)
    return [*texts, f"Copies with other labels, beside these: {more:,}."] if more else texts


# Contexts -------------------------------------------------------------------------------------------------------------
def context_blocks(found: Diagnosis, worst: int | None = None) -> list[Block]:
    """What surrounds the classes: by bin, then of so many tail classes, or of all."""
    if found.context is None:
        return []
    stats, bins = found.plan.stats, found.plan.bins
    of_classes = (
        every_class(found.context, stats, bins) if worst is None else narrowest(found.context, stats, bins, worst)
    )
    return [block for block in (by_bin(found.context, bins), of_classes) if block is not None]
