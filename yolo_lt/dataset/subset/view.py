"""A new data set made of images of another one: chosen or split anew, shown by links, nothing copied unasked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolo_lt.dataset.convert.layout import data_yaml, write_list
from yolo_lt.dataset.convert.links import places, show_folder
from yolo_lt.dataset.federated import FederatedIndex

# of the old data YAML: where its images are, what runs, and what counted the old images
NOT_KEPT = (
    *("path", "yaml_file", "train", "val", "test", "minival", "download", "nc", "channels", "federated"),
    *("known_classes", "frequency", "image_counts", "instance_counts"),
)


@dataclass(frozen=True)
class Side:
    """One split of the new set.

    Attributes:
        images: Paths of its images.
        labels: Paths of their label files.
        index: What was looked for in them, in this order, or None.
    """

    images: Sequence[str]
    labels: Sequence[str]
    index: FederatedIndex | None = None


def write_view(out: Path, title: str, data: Mapping[str, Any], sides: Mapping[str, Side], link: str) -> Path:
    """Write the new data set into an empty folder; `data.yaml` comes last.

    Args:
        out: The folder.
        title: The first line of the data YAML.
        data: The parsed data YAML of the old set; its splits that `sides` does not name stay where they are.
        sides: The new splits.
        link: symlink, hardlink or copy.

    Returns:
        The data YAML.
    """
    entries = {key: value for key, value in data.items() if key not in NOT_KEPT}
    told: dict[str, dict[str, Any]] = {}
    for name, side in sides.items():
        told[name] = {"federated": side.index is not None}
        _write_side(out, name, side, link)
    rest = {name: data[name] for name in ("train", "val", "test", "minival") if data.get(name) and name not in sides}
    text = data_yaml(title, {**rest, **entries}, told)
    path = out / "data.yaml"
    write_list(path, text.splitlines())
    return path


def _write_side(out: Path, name: str, side: Side, link: str) -> None:
    images = [os.path.abspath(image) for image in side.images]
    root = os.path.dirname(os.path.commonpath([os.path.dirname(image) for image in images])) if images else ""
    at = places([os.path.relpath(image, root).replace(os.sep, "/") for image in images])
    of_place: dict[str, list[int]] = {place: [] for place in at.folders}
    for i, image in enumerate(at.image):
        of_place[image.partition("/")[0]].append(i)
    for place, members in of_place.items():
        for kind, files in (("images", side.images), ("labels", side.labels)):
            present = [os.path.basename(files[i]) for i in members if os.path.exists(files[i])]
            show_folder(Path(files[members[0]]).absolute().parent, out / kind / name / place, link, present)
    write_list(out / f"{name}.txt", [f"./images/{name}/{image}" for image in at.image])
    if side.index is not None:
        replace(side.index, images=at.image).save(out / "federated" / f"{name}.npz")
