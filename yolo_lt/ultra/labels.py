"""ClassStats from Ultralytics' own label cache, and the checks that must come before any training or validation."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, get_split_fraction, img2label_paths

from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import LTError, UsageError

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CORRUPT = re.compile(r"^(?:\w+: )?(?P<image>.+?): ignoring corrupt image/label: ")  # a cache may keep a "train: "


def uncoloured(message: str) -> str:
    """An upstream message without terminal colours."""
    return _ANSI.sub("", message)


def below(path: str, data: dict[str, Any]) -> str:
    """A path as seen from the data set's folder, where it lies in it."""
    root = str(data["path"]).rstrip(os.sep) + os.sep
    return path[len(root) :] if path.startswith(root) else path


def plain(error: BaseException | str) -> str:
    """An upstream message as one plain line: no emoji, no colours, no second paragraph."""
    text = re.sub(r"[^\x00-\x7F]", "", _ANSI.sub("", str(error))).strip()
    return re.sub(r"\s+", " ", text.split("\n\n")[0].split("\nNote")[0]).strip(" .")


def load_data(data: Any, split: str = "", allow_download: bool = False) -> dict[str, Any]:
    """Ultralytics' parsed data YAML, with every path resolved.

    Raises:
        UsageError: `data` is missing or a list.
        LTError: The file or its images are missing, the YAML is malformed, or `nc` and `names` differ.
    """
    if not data:
        raise UsageError("data=... is missing: name the data YAML, for example data=my.yaml")
    if isinstance(data, (list, tuple)):
        raise UsageError("a list of data sets is not supported: give one data YAML")
    text = str(data)
    if not allow_download and ("://" in text or Path(text).suffix in {".zip", ".tar", ".gz", ".tgz", ".ndjson"}):
        raise LTError(f"data={text} would be downloaded or unpacked; add allow_download=true if you trust its source")
    if not allow_download and Path(text).suffix in {".yaml", ".yml"} and not _find(text):
        raise LTError(f"data={text}: no such file")
    try:
        parsed = check_det_dataset(text, autodownload=allow_download, split=split)
    except Exception as e:
        raise LTError(f"data={text}: {plain(e)}{_download_hint(text, e)}") from None
    for path in _paths(parsed.get(split or "train")):
        if not path.exists():
            raise LTError(f"data={text}, key '{split or 'train'}': {path} does not exist")
    return parsed


def _find(name: str) -> Path | None:
    """The file that Ultralytics would take for `name`: a path, or one of the YAMLs that it ships."""
    import ultralytics

    shipped = Path(ultralytics.__file__).parent / "cfg" / "datasets" / Path(name).name
    return next((p for p in (Path(name), shipped) if p.is_file()), None)


def _download_hint(name: str, error: Exception) -> str:
    file = _find(name)
    wants = isinstance(error, FileNotFoundError) and file and re.search(r"^download:", file.read_text(), re.M)
    return "; its `download:` entry is code, add allow_download=true to run it" if wants else ""


def _paths(value: Any) -> list[Path]:
    return [Path(p) for p in (value if isinstance(value, list) else [value]) if p]


class LabelScan(YOLODataset):
    """Ultralytics' label reading alone: same files, same cache, no transforms; keeps what the scan complained of."""

    scan_messages: tuple[str, ...] = ()
    new_cache: Path | None = None

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> tuple[dict, bool]:
        existed = cache_path.exists()
        try:
            cache, loaded = super()._load_or_scan_cache(cache_path, cache_hash)
        except FileNotFoundError:  # another process of this run replaced a stale cache at the same moment
            cache, loaded = super()._load_or_scan_cache(cache_path, cache_hash)
        self.scan_messages, self.new_cache = tuple(cache["msgs"]), None if existed else cache_path
        return cache, loaded

    def build_transforms(self, hyp: Any = None) -> None:
        """No transforms: nothing is drawn from this data set."""

    @property
    def corrupt(self) -> list[str]:
        """What was dropped and why, one plain line each."""
        return [plain(m) for m in self.scan_messages if "ignoring corrupt image/label" in m]

    def verify_labels(self, labels: list[dict], cache_path: Path) -> None:
        """Ultralytics' check of the label form; it fails after the cache is written."""
        try:
            super().verify_labels(labels, cache_path)
        except ValueError:
            self.forget()
            raise

    def forget(self) -> None:
        """Remove the label cache if this scan wrote it: an error leaves nothing behind."""
        if self.new_cache:
            self.new_cache.unlink(missing_ok=True)


def scan(
    data: dict[str, Any], split: str, task: str = "detect", args: dict[str, Any] | None = None, empty: bool = False
) -> LabelScan:
    """Read the labels of one split through Ultralytics' cache.

    Args:
        data: Parsed data YAML, from `load_data`.
        split: train, val or test.
        task: Ultralytics' task, which decides how a label line is read.
        args: Ultralytics' keys; `fraction`, `classes` and `single_cls` select labels as they do in training.
        empty: Whether a split without any label is accepted.

    Raises:
        LTError: No images or labels, or a class id outside the data YAML's classes (Ultralytics would drop the whole
            image with a warning).
    """
    args, name = args or {}, data.get("yaml_file", "data YAML")
    if not data.get(split):
        raise LTError(f"{name}: key '{split}' is missing")
    single = bool(args.get("single_cls"))
    try:
        fraction = get_split_fraction(args.get("fraction", 1.0), "train" if split == "train" else split)
        dataset = LabelScan(
            img_path=data[split],
            data=data,
            task=task,
            augment=False,
            single_cls=single,
            classes=args.get("classes"),
            fraction=fraction,
        )
    except Exception as e:
        raise LTError(f"{name}, key '{split}': {plain(e)}") from None
    try:
        _check_classes(dataset, len(data["names"]), single)
        if not empty and not any(len(label["cls"]) for label in dataset.labels):
            raise LTError(f"{name}, key '{split}': {len(dataset.labels)} images and not one label in {data[split]}")
    except LTError:
        dataset.forget()
        raise
    return dataset


def _check_classes(dataset: LabelScan, num_classes: int, single_cls: bool) -> None:
    """Find the first class id out of range among the images that the scan dropped."""
    for message in dataset.scan_messages:
        if m := _CORRUPT.match(_ANSI.sub("", message)):
            _check_label_file(Path(img2label_paths([m["image"]])[0]), num_classes, single_cls)


def _check_label_file(path: Path, num_classes: int, single_cls: bool) -> None:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        word = (line.split() or ["0"])[0]
        try:
            value = float(word)
        except ValueError:
            continue  # not a number: Ultralytics reports the file, and it is no class id out of range
        if value < 0 or value % 1 or (value >= num_classes and not single_cls):
            raise LTError(
                f"{path}, line {number}: class id {word}, but the data YAML names {num_classes} classes "
                f"(0-{num_classes - 1}); correct the label or the YAML's names"
            )


def class_names(data: dict[str, Any]) -> list[str]:
    """Class names of a parsed data YAML in the order of their ids."""
    return [data["names"][i] for i in range(len(data["names"]))]


def with_hierarchy(lt: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The keys with `hierarchy=auto` resolved: the file that the data YAML names, None without one."""
    named = lt["hierarchy"]
    if named == "auto" and data.get("hierarchy") and lt["protocol"] == "openimages":
        named = str(Path(data["path"]) / str(data["hierarchy"]))
    return {**lt, "hierarchy": None if named in ("auto", "none") else named}


def stats_of(labels: list[dict[str, Any]], data: dict[str, Any]) -> ClassStats:
    """ClassStats of Ultralytics' in-memory labels (`dataset.labels`).

    Args:
        labels: One dict per image with `cls` of shape (n, 1).
        data: The parsed data YAML: `names`, and `frequency` with a letter r, c or f per class if it has one.
    """
    names = class_names(data)
    blobs, dtypes = [], set()
    for label in labels:  # one pass, as memory is the limit; np.concatenate takes three times as long to join the rows
        ids = label["cls"]
        blobs.append(ids.tobytes())
        dtypes.add(ids.dtype)
    if len(dtypes) != 1:  # no labels, or not as Ultralytics makes them
        return ClassStats.from_lists([x["cls"] for x in labels], len(names), names, data.get("frequency"))
    dtype = dtypes.pop()
    lengths = np.fromiter(map(len, blobs), np.int64, len(blobs)) // dtype.itemsize
    flat = np.frombuffer(b"".join(blobs), dtype)
    return ClassStats.from_flat(flat, lengths, len(names), names, data.get("frequency"))


def class_stats(data_yaml: str | Path, split: str = "train", allow_download: bool = False) -> ClassStats:
    """Class occurrences of one split of a YOLO data set.

    Raises:
        LTError: A missing or malformed YAML, no labels, or a class id out of range.
    """
    data = load_data(data_yaml, split, allow_download)
    return stats_of(scan(data, split).labels, data)
