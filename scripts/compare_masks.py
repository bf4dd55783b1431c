"""What the annotation mask is worth: hide the boxes of every second class in half of the images, and train on the rest.

    python scripts/compare_masks.py data=DATA.yaml model=WEIGHTS.pt seeds=0,1,2 out=runs/masks imgsz=160 epochs=30 ...

So look sets that were merged of one labelled for all classes and one labelled for some. `arms` takes a list: `full`
sees all labels, the others the remaining ones: `stock` takes what is not labelled for background, `masked`, `softened`
and `sampled` know from `known_classes` which classes were looked for. All but `full`, whose files lie in another order,
see the same images in the same order. Every other key goes to `yolo-lt train`; finished runs are kept and unfinished
ones resumed. The validation labels are whole.
"""

from __future__ import annotations

import os
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from compare_recipes import print_difference, print_table, run

from yolo_lt import cli
from yolo_lt.dataset import BIN_NAMES, frequency_bins
from yolo_lt.dataset.holdout import stratified_holdout
from yolo_lt.evaluate import Matches
from yolo_lt.evaluate.bootstrap import image_weights
from yolo_lt.evaluate.compare import seeds_interval
from yolo_lt.evaluate.operating import DEPLOYED, rates, shown_per_image
from yolo_lt.files import write_text
from yolo_lt.report.blocks import with_interval
from yolo_lt.ultra import labels

ARMS = {
    "full": "baseline",
    "stock": "baseline",
    "masked": "baseline+federated=auto+unknown_negatives=strict",
    "softened": "baseline+federated=auto+unknown_negatives=0.2",
    "sampled": "baseline+federated=auto+unknown_negatives=sampled+federated_classes=20",
}


def main() -> None:
    keys = cli.parse(sys.argv[1:])
    out = Path(keys.pop("out", "runs/masks")).resolve()
    arms = str(keys.pop("arms", "stock,masked,softened")).split(",")
    seeds = keys.pop("seeds", (0, 1, 2))
    seeds = list(seeds) if isinstance(seeds, (tuple, list)) else [seeds]
    data, sets = hidden(str(keys["data"]), out / "data")
    matches: dict[str, list[Matches]] = {}
    for seed in seeds:
        for arm in arms:
            own = keys if arm == "full" else {**keys, "data": data}
            matches.setdefault(arm, []).append(run(out / arm, ARMS[arm], seed, own))
    print(f"\n{len(seeds)} seeds, {keys.get('epochs')} epochs of equal length, last.pt, split val, protocol coco")
    print("(100 detections per image and class); 95 % intervals resample images and seeds\n")
    print_table(matches, sets)
    print_operating_point(matches, sets)
    for base, other in combinations(arms, 2):
        print_difference(other, base, matches, sets)


def print_operating_point(matches: dict[str, list[Matches]], sets: dict[str, np.ndarray]) -> None:
    """Recall and precision over all boxes of a set of classes at a deployed confidence; the difference of recall."""
    first = next(iter(matches))
    images = len(matches[first][0].image_ids)
    weights = [np.ones(images), *image_weights(images, 1000, 0)]
    print(f"\n| arm | classes | recall at confidence {DEPLOYED}, IoU 0.5 | precision | recall - that of {first} |")
    print("|---" * 5 + "|")
    for name, ids in sets.items():
        base = [operating_point(m, ids, weights) for m in matches[first]]
        for arm, runs in matches.items():
            points = [operating_point(m, ids, weights) for m in runs]
            cells = [f"{np.mean(v):.3f} ({', '.join(f'{x:.3f}' for x in v)})" for v in np.array(points)[:, :, 0].T]
            gain = np.stack([ours[0] - theirs[0] for ours, theirs in zip(points, base, strict=True)])
            low, high = seeds_interval(gain[:, 1:])
            cells.append(with_interval(gain[:, 0].mean(), (low, high), "+") if arm != first else "")
            print(f"| {arm} | {name} | {' | '.join(cells)} |")


def operating_point(matches: Matches, ids: np.ndarray, weights: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision over all boxes of these classes, for every weighting of the images."""
    precision, recall, _ = rates(shown_per_image(matches, ids, DEPLOYED) @ np.array(weights).T)
    return recall, np.nan_to_num(precision)


def hidden(data_yaml: str, folder: Path) -> tuple[str, dict[str, np.ndarray]]:
    """The data set in which every second class by frequency is hidden in half of the images; its YAML, and the sets."""
    data = labels.load_data(data_yaml)
    scan = labels.scan(data, "train")
    stats = labels.stats_of(scan.labels, data)
    order = np.argsort(-stats.image_counts, kind="stable")
    hide = np.sort(order[1::2])
    partial = stratified_holdout(stats, 0.5, seed=0)
    bins = frequency_bins(stats.image_counts)
    shown = np.setdiff1d(np.arange(stats.num_classes), hide)
    sets: dict[str, np.ndarray] = {"all": np.arange(stats.num_classes), "hidden": hide, "not hidden": shown}
    sets |= {f"hidden, {name}": np.intersect1d(hide, getattr(bins, name)) for name in BIN_NAMES}
    boxes = 0
    for image, label, part in zip(scan.im_files, scan.labels, partial, strict=True):
        source = "partial" if part else "whole"
        keep = ~np.isin(label["cls"][:, 0], hide) if part else np.ones(len(label["cls"]), bool)
        boxes += int((~keep).sum())
        rows = np.column_stack([label["cls"], label["bboxes"]])[keep]
        text = "".join(f"{int(c)} " + " ".join(f"{v:.6f}" for v in box) + "\n" for c, *box in rows.tolist())
        write_text(folder / source / "labels" / f"{Path(image).stem}.txt", text)
        link = folder / source / "images" / Path(image).name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.symlink(Path(image).resolve(), link)
    print(f"hidden: {boxes} boxes of {len(hide)} classes, in {partial.sum()} of {len(partial)} images")
    known: dict[str, Any] = {"whole/images": "all", "partial/images": [stats.names[c] for c in shown]}
    content = {
        "path": str(folder),
        "train": list(known),
        "val": str(Path(data["val"]).resolve()),
        "names": dict(enumerate(stats.names)),
        "known_classes": known,
    }
    write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False))
    return str(folder / "data.yaml"), sets


if __name__ == "__main__":
    main()
