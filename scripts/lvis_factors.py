"""Class factors of samplers and weights of losses on LVIS v1's real counts, by LVIS' own bins: figures of the README.

    python scripts/lvis_factors.py

The counts are those of tests/golden/lvis_v1_real_counts.json: 1203 classes in 100,170 training images.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from yolo_lt.balance.margins import ecm_margins, logit_adjustment, referred
from yolo_lt.balance.sampling import class_factors
from yolo_lt.balance.weights import class_weights

COUNTS = Path(__file__).parents[1] / "tests" / "golden" / "lvis_v1_real_counts.json"
SIDES = (  # sampler, variant, t, further keywords
    ("rfs", "sqrt", 1e-3, {}),
    ("rfs", "linear", 1e-3, {}),
    ("irfs", "geometric", 1e-3, {}),
    ("eirfs", "bounded", 1e-3, {"alpha": 2.0}),
    ("eirfs", "original", 1e-4, {"alpha": 2.0}),
)
WEIGHTS = (("classes", "none"), ("boxes", "none"), ("boxes", 10.0))  # norm, cap: the original, and training's default


def main() -> None:
    given = json.loads(COUNTS.read_text())["inputs"]
    counts = SimpleNamespace(
        image_counts=np.array(given["image_count"]),
        instance_counts=np.array(given["instance_count"]),
        num_images=100_170,
    )
    letters = np.array(list(given["frequency"]))
    print("sampler, variant, t: mean of rare, common, frequent; largest")
    for method, variant, thr, kw in SIDES:
        factors = class_factors(counts, method, thr, variant, **kw)
        print(f"{method}, {variant}, {thr:g}: {means(factors, letters)}; {factors.max():,.2f}")
    print("\nloss, mean 1 over, cap: mean weight of rare, common, frequent; smallest, largest")
    for method in ("cb", "inverse"):
        for norm, cap in WEIGHTS:
            w = class_weights(counts.instance_counts, method, norm=norm, cap=cap)
            print(f"{method}, {norm}, {cap}: {means(w, letters)}; {w.min():.2g}, {w.max():,.2f}")
    positive, negative, w = ecm_margins(counts.image_counts, 100)
    shifts = {"ecm": referred(positive - negative, counts.image_counts > 0, "max")}
    shifts["logit_adjusted"] = logit_adjustment(counts.instance_counts, reference="max")
    print("\nloss, training's default: mean shift of rare, common, frequent; smallest")
    for name, shift in shifts.items():
        print(f"{name}: {means(shift, letters)}; {shift.min():,.2f}")
    print(f"weights of ecm: {w.min():.6f} to {w.max():.6f}")


def means(values: np.ndarray, letters: np.ndarray) -> str:
    """Of rare, common and frequent classes."""
    return ", ".join(f"{values[letters == letter].mean():,.2f}" for letter in "rcf")


if __name__ == "__main__":
    main()
