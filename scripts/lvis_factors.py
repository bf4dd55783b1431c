"""Class factors of every sampler on LVIS v1's real counts, by LVIS' own bins: the README's figures about E-IRFS.

    python scripts/lvis_factors.py

The counts are those of tests/golden/lvis_v1_real_counts.json: 1203 classes in 100,170 training images.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from yolo_lt.balance.sampling import class_factors

COUNTS = Path(__file__).parents[1] / "tests" / "golden" / "lvis_v1_real_counts.json"
SIDES = (  # sampler, variant, t, further keywords
    ("rfs", "sqrt", 1e-3, {}),
    ("rfs", "linear", 1e-3, {}),
    ("irfs", "geometric", 1e-3, {}),
    ("eirfs", "bounded", 1e-3, {"alpha": 2.0}),
    ("eirfs", "original", 1e-4, {"alpha": 2.0}),
)


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
        means = ", ".join(f"{factors[letters == letter].mean():,.2f}" for letter in "rcf")
        print(f"{method}, {variant}, {thr:g}: {means}; {factors.max():,.2f}")


if __name__ == "__main__":
    main()
