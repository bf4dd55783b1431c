"""A foreign data set to Ultralytics' layout, once and whole.

Everything is built in a folder beside the result and moved there when it is complete. Started again after an
interruption, the same conversion goes on where it stopped; started again when it is done, it writes nothing anew.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_lt import __version__
from yolo_lt.dataset.bins import BIN_NAMES, frequency_bins
from yolo_lt.dataset.convert.layout import class_entries, data_yaml, write_labels, write_split
from yolo_lt.dataset.convert.links import places
from yolo_lt.dataset.convert.source import Categories, Split, image_counts, keep_classes
from yolo_lt.errors import LTError, UsageError
from yolo_lt.files import copy_file, write_text

SCHEMA = 1
LAYOUT = 1  # raised when the same source would give other files
RECORD, PROGRESS = "conversion.json", "progress.json"
Done = dict[str, Any]  # of a split: how many `images` are written, and what was `mended` up to there


@dataclass(frozen=True)
class Job:
    """What to convert.

    Attributes:
        format: lvis, coco or openimages.
        sources: The files of every split, train first if there is one.
        read: Reads a split by its name.
        out: The new folder.
        options: The keys that decide what is written.
        keep: Classes to keep, by name, category id or bin; empty: all.
        hierarchy: A class hierarchy that the data YAML shall name, or None.
    """

    format: str
    sources: Mapping[str, Sequence[Path]]
    read: Callable[[str], Split]
    out: Path
    options: Mapping[str, Any]
    keep: Sequence[str | int] = ()
    hierarchy: Path | None = None


def run_job(job: Job, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Convert, unless it is done already.

    Returns:
        The record: the content of conversion.json.

    Raises:
        LTError: The folder holds something else, a source is bad, or the disk is full.
    """
    identity = _identity(job)
    out = job.out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        record = _finished(job.out, identity)
        say(f"{job.out} holds this conversion already")
        return record
    staging = out.parent / f".{out.name}.partial"
    try:
        done = _resume(staging, identity)
        if done:
            written = ", ".join(f"{told['images']} images of {split}" for split, told in done.items())
            say(f"going on where an earlier run stopped: {written}")
        record = _build(job, staging, identity, done, say)
        if out.exists():
            out.rmdir()  # empty, as was seen above
        os.replace(staging, out)
    except LTError:
        _clear(staging)  # a source that is mended is another one: nothing can be resumed
        raise
    except OSError as e:
        raise LTError(f"{staging}: {e.strerror or e}; what is written so far stays, start again to go on") from None
    return record


def _identity(job: Job) -> dict[str, Any]:
    """What makes two conversions the same."""
    sources = {s: [{"file": _name(p), "sha256": _sha256(p)} for p in files] for s, files in job.sources.items()}
    options = {**job.options, "keep": list(job.keep), "layout": LAYOUT}
    return json.loads(json.dumps({"format": job.format, "sources": sources, "options": options}))


def _name(path: Path) -> str:
    """A file's name as text: on some systems a name need not be any."""
    return os.fsencode(path.name).decode(errors="replace")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as f:
            digest = hashlib.sha256()
            while block := f.read(1 << 22):
                digest.update(block)
    except OSError as e:
        raise LTError(f"{path} cannot be read: {e.strerror}") from None
    return digest.hexdigest()


def _finished(out: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The record of a folder that holds this conversion."""
    record = _json(out / RECORD)
    if record.get("job") == identity:
        return record
    what = "another conversion" if "job" in record else "something that no conversion wrote"
    raise LTError(f"{out} holds {what}, which is never overwritten: give another out=, or remove it")


def _json(path: Path) -> dict[str, Any]:
    """A file's content, empty where it is missing or no record of ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _resume(staging: Path, identity: dict[str, Any]) -> dict[str, Done]:
    """What an earlier run has written of each split; what another conversion left goes."""
    progress = _json(staging / PROGRESS)
    if progress.get("job") != identity:
        _clear(staging)
        return {}
    for folder in (staging, staging / "federated"):  # a killed process leaves what it had not renamed
        for path in folder.glob(".*.tmp*"):
            path.unlink()
    return dict(progress["done"])


def _clear(staging: Path) -> None:
    """Remove what a conversion left, and nothing else."""
    if not staging.exists():
        return
    ours = staging.is_dir() and any((staging / name).is_file() for name in (PROGRESS, RECORD))
    if not ours and (not staging.is_dir() or any(not path.name.startswith(".") for path in staging.iterdir())):
        raise LTError(f"{staging} is where this would be built, and no conversion wrote it: move it away")
    shutil.rmtree(staging)


def _build(
    job: Job, staging: Path, identity: dict[str, Any], done: dict[str, Done], say: Callable[[str], None]
) -> dict[str, Any]:
    """Write everything into the folder beside the result; the record comes last."""
    reader = _Reader(job)
    entries: dict[str, Any] = {}
    splits: dict[str, Any] = {}
    for name in job.sources:
        split = reader.split(name)
        say(f"{name}: {len(split.images)} images, {len(split.objects)} objects, {len(split.groups)} group boxes")
        splits[name] = _write(split, name, staging, identity, done)
        entries = entries or class_entries(split, counted=name == "train")
    if job.hierarchy is not None:
        copy_file(job.hierarchy, staging / job.hierarchy.name)
        entries["hierarchy"] = job.hierarchy.name
    record = {"schema": SCHEMA, "versions": {"yolo_lt": __version__}, "job": identity}
    record |= {"classes": len(entries["names"]), "splits": splits}
    title = (
        f"Written by yolo-lt convert {job.format} from {', '.join(_name(p) for f in job.sources.values() for p in f)}"
    )
    write_text(staging / "data.yaml", data_yaml(title, entries, splits))
    write_text(staging / RECORD, json.dumps(record, indent=1, ensure_ascii=False))
    (staging / PROGRESS).unlink(missing_ok=True)
    return record


def _write(split: Split, name: str, staging: Path, identity: dict[str, Any], done: dict[str, Done]) -> dict[str, Any]:
    """Write a split from where an earlier run stopped; what the record says of it."""

    def note(images: int) -> None:
        done[name] = {"images": images, "mended": dict(split.repairs)}
        write_text(staging / PROGRESS, json.dumps({"job": identity, "done": done}))

    at, start = places(split.images), 0
    if name in done:
        start = done[name]["images"]
        split.repairs.clear()  # it has what reading mended again, but not what was mended by writing
        split.repairs.update(done[name]["mended"])
    note(start)  # before anything else: by this file the folder is known for ours
    write_labels(split, at, staging / "labels" / name, start, note)
    return write_split(staging, name, split, at)


class _Reader:
    """Reads the splits of a job one after the other; all of them have the classes of the first."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.categories: Categories | None = None
        self.kept: list[int] = []

    def split(self, name: str) -> Split:
        """The split with the classes to keep."""
        split = self.job.read(name)
        if self.categories is None:
            self.categories = split.categories
            self.kept = kept_classes(split, self.job.keep)
        if (split.categories.names, split.categories.ids) != (self.categories.names, self.categories.ids):
            first = next(iter(self.job.sources.values()))[0]
            raise LTError(f"{self.job.sources[name][0]} has other categories than {first}; convert them apart")
        return keep_classes(split, self.kept) if self.job.keep else split


def kept_classes(split: Split, keep: Sequence[str | int]) -> list[int]:
    """Classes by name, category id or bin, in their order.

    Args:
        split: The split that has the counts for the bins.
        keep: What to keep; a class's own name comes before a bin's.

    Raises:
        UsageError: It names nothing.
    """
    found: set[int] = set()
    by_name = {name: {c} for c, name in enumerate(split.categories.names)}
    by_name |= {str(i): {c} for c, i in enumerate(split.categories.ids) if str(i) not in by_name}
    for word in keep:
        if str(word) in by_name:
            found |= by_name[str(word)]
        elif word in BIN_NAMES:
            counts = image_counts(split.objects, len(split.categories.names))
            found |= set(getattr(frequency_bins(counts, "auto", split.categories.frequency), str(word)).tolist())
        else:
            close = difflib.get_close_matches(str(word), [*by_name, *BIN_NAMES], n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise UsageError(f"keep={word} is no class name, category id or bin (head, medium, tail){hint}")
    if keep and not found:
        raise UsageError(f"keep={','.join(map(str, keep))} keeps no class at all")
    return sorted(found)
