"""`yolo-lt make-lt` and `yolo-lt split`: new data sets out of the images of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ultralytics.data.utils import img2label_paths
from ultralytics.utils import LOGGER

from yolo_lt.dataset.bins import frequency_bins
from yolo_lt.dataset.convert.catalog import datasets
from yolo_lt.dataset.federated import FederatedIndex
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.dataset.subset.longtail import PROFILES, choose, off_target, profile
from yolo_lt.dataset.subset.split import grouped_split, unsplit
from yolo_lt.dataset.subset.view import Side, write_view
from yolo_lt.errors import LTError, UsageError
from yolo_lt.files import check_new, csv_text, new_folder, write_text
from yolo_lt.report import subsets as tables
from yolo_lt.ultra import labels
from yolo_lt.ultra.federated import read_index
from yolo_lt.ultra.preflight import PREFIX
from yolo_lt.ultra.twins import find_twins


def run_make_lt(data: Any, lt: Mapping[str, Any], seed: int = 0) -> Path:
    """Choose training images of a data set such that its classes have a long tail.

    Writes train.txt, data.yaml and make_lt.csv (class_id, name, available, wished and chosen images and instances) into
    a new folder; the other splits stay where they are.

    Args:
        data: The data YAML.
        lt: Every yolo-lt key.
        seed: Decides among subsets that serve alike.

    Returns:
        The new data YAML.

    Raises:
        LTError: Bad data, a profile that does not fit the classes, or a folder that is there already.
    """
    out = _out(lt["out"], data, "lt")
    parsed = labels.load_data(data, allow_download=lt["allow_download"])
    pool = _Pool.read(parsed, ["train"])
    stats = pool.stats
    images, instances = _wished(lt, stats)
    chosen = choose(stats, instances, images, seed=seed, tolerance=lt["count_tolerance"])
    kept = stats.select(chosen)
    missed = off_target(kept.instance_counts, instances, lt["count_tolerance"])
    rows = tables.reached(stats, kept, images, instances, missed)
    with new_folder(out) as folder:
        title = (
            f"Written by yolo-lt make-lt from {Path(str(data)).name}, tail_profile={lt['tail_profile']}, seed={seed}"
        )
        write_view(folder, title, parsed, {"train": pool.side(chosen)}, lt["link"])
        write_text(folder / "make_lt.csv", csv_text([tables.REACHED, *rows]))
    LOGGER.info(tables.reached_text(stats, kept, rows, lt["count_tolerance"], frequency_bins(kept.image_counts)))
    if len(missed) and lt["tail_profile"] in PROFILES:
        LOGGER.info(f"{PREFIX}largest={int(instances.max() * 0.7)} would leave more images to choose from")
    LOGGER.info(f"{PREFIX}data={out / 'data.yaml'}")
    return out / "data.yaml"


def _wished(lt: Mapping[str, Any], stats: ClassStats) -> tuple[np.ndarray | None, np.ndarray]:
    """Wished images per class, if the profile says them, and instances."""
    if lt["tail_profile"] in PROFILES:
        largest = None if lt["largest"] == "auto" else lt["largest"]
        return None, profile(lt["tail_profile"], stats.instance_counts, lt["imbalance"], largest)
    if lt["tail_profile"] == "coco-lt":
        return _by_name(datasets()["coco-lt"]["long_tail"], stats, "tail_profile=coco-lt")
    path = Path(lt["tail_profile"])
    try:
        counts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise LTError(f"tail_profile={path} cannot be read as YAML: {e}") from None
    return _by_name(counts, stats, f"tail_profile={path}")


def _by_name(counts: Any, stats: ClassStats, where: str) -> tuple[np.ndarray | None, np.ndarray]:
    """Counts of a file, `class: instances` or `class: [images, instances]`, in the order of the classes."""
    if not isinstance(counts, dict):
        raise LTError(f"{where}: expected lines of 'class: instances', found {type(counts).__name__}")
    counts = {str(name): value for name, value in counts.items()}
    if lost := [name for name in stats.names if name not in counts]:
        raise LTError(f"{where} has no count for the class '{lost[0]}' of the data set")
    if unknown := [name for name in counts if name not in stats.names]:
        raise LTError(f"{where} has a count for '{unknown[0]}', which is no class of the data set")
    pairs = [value if isinstance(value, list) else [None, value] for value in (counts[n] for n in stats.names)]
    for name, pair in zip(stats.names, pairs, strict=True):
        if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in pair if v is not None):
            raise LTError(f"{where}: '{name}' has {counts[name]!r}; expected instances or [images, instances]")
    images = None if any(pair[0] is None for pair in pairs) else np.array([pair[0] for pair in pairs])
    return images, np.array([pair[1] for pair in pairs])


def run_split(data: Any, lt: Mapping[str, Any], seed: int = 0) -> Path:
    """Split a data set anew, stratified by class; what belongs together stays together.

    Writes the lists, data.yaml and split.csv (image, group, split) into a new folder.

    Args:
        data: The data YAML.
        lt: Every yolo-lt key.
        seed: Decides among splits that serve alike.

    Returns:
        The new data YAML.

    Raises:
        UsageError: Shares that leave nothing for training, or bad `groups`.
        LTError: Bad data, or a folder that is there already.
    """
    shares = [
        1 - lt["val_share"] - lt["test_share"],
        lt["val_share"],
        *([lt["test_share"]] if lt["test_share"] else []),
    ]
    if shares[0] <= 0:
        raise UsageError(f"val_share={lt['val_share']} and test_share={lt['test_share']} leave nothing for train")
    out = _out(lt["out"], data, "split")
    parsed = labels.load_data(data, str(lt["pool"][0]), lt["allow_download"])
    pool = _Pool.read(parsed, lt["pool"])
    files, stats = pool.files, pool.stats
    found = find_twins(files, "near" if lt["duplicates"] == "auto" else lt["duplicates"], lt["groups"])
    groups = found.together
    sides = grouped_split(stats, groups, shares, seed)
    names = ("train", "val", "test")[: len(shares)]
    rows = [(file, int(group), names[side]) for file, group, side in zip(files, groups, sides, strict=True)]
    with new_folder(out) as folder:
        made = {name: pool.side(sides == s) for s, name in enumerate(names)}
        title = f"Written by yolo-lt split from {Path(str(data)).name}, seed={seed}"
        write_view(folder, title, parsed, made, lt["link"])
        write_text(folder / "split.csv", csv_text([("image", "group", "split"), *rows]))
    LOGGER.info(tables.split_text(stats, groups, sides, names, unsplit(stats, groups, sides)))
    for line in found.notes:
        LOGGER.info(f"{PREFIX}{line}")
    LOGGER.info(f"{PREFIX}data={out / 'data.yaml'}")
    return out / "data.yaml"


def _out(named: str, data: Any, suffix: str) -> Path:
    """The new folder: the one that is named, or one after the data set; what is there is told at once."""
    if named != "auto":
        return check_new(Path(named))
    path = Path(str(data))
    return check_new(Path(f"{path.absolute().parent.name if path.stem in ('data', 'dataset') else path.stem}-{suffix}"))


@dataclass(frozen=True)
class _Pool:
    """The images of some splits, none twice: paths, classes, and what was looked for in them, if that is told."""

    files: list[str]
    stats: ClassStats
    index: FederatedIndex | None

    @classmethod
    def read(cls, data: dict[str, Any], splits: Sequence[str]) -> _Pool:
        """Through Ultralytics' label cache."""
        found: dict[str, dict[str, Any]] = {}
        parts, told = list[FederatedIndex](), False
        for split in splits:
            new = {x["im_file"]: x for x in labels.scan(data, split).labels if x["im_file"] not in found}
            index, _ = read_index(list(new), labels.stats_of(list(new.values()), data), data, "auto", split=split)
            told = told or index is not None
            parts.append(index or FederatedIndex.everything(labels.class_names(data), list(new)))
            found |= new
        stats = labels.stats_of(list(found.values()), data)
        return cls(list(found), stats, FederatedIndex.joined(parts) if told else None)

    def side(self, chosen: np.ndarray) -> Side:
        """Some of the images as a split of a new set; `chosen` has shape (N,), bool."""
        images = [self.files[i] for i in np.flatnonzero(chosen)]
        return Side(images, img2label_paths(images), self.index and self.index.select(chosen))
