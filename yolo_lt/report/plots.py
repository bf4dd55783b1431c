"""Pictures, drawn with matplotlib and without a display."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from yolo_lt.balance.plan import Plan
from yolo_lt.dataset.bins import BIN_NAMES
from yolo_lt.files import replacing

# Okabe and Ito's colours, told apart with every common colour vision; the markers say the same without colour
STYLE = {"head": ("#0072B2", "o"), "medium": ("#E69F00", "s"), "tail": ("#D55E00", "^")}


def rank_plot(path: Path, plan: Plan) -> Path:
    """Images and expected draws per class against the class' rank, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = plan.stats.image_counts
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    rank = np.empty(len(counts), int)
    rank[order] = np.arange(1, len(order) + 1)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for name in BIN_NAMES:
            ids = getattr(plan.bins, name)
            colour, marker = STYLE[name]
            axes.plot(rank[ids], counts[ids], marker, color=colour, label=f"{name} ({len(ids)} classes)")
        if plan.samples:
            drawn = counts[order] * plan.exposure[order]
            axes.plot(
                rank[order],
                drawn,
                "-",
                color="#555555",
                lw=1,
                label="after the sampler, same number of draws",
            )
        axes.set(xscale="log", yscale="log", xlabel="class rank", ylabel="training images")
        axes.set_title(f"{plan.stats.num_images} images, bins {plan.bins.rule}", fontsize=10, loc="left")
        axes.grid(True, which="major", alpha=0.3)
        axes.legend(frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)
    return path
