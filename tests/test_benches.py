"""The benches of the losses run, and find what the tests say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_losses.py"


@pytest.mark.slow
def test_losses_equal_their_definitions_and_are_timed():
    words = [
        "only=criterion,memory,equality,step",
        "pairs=1",
        "warmup=1",
        "nc=20",
        "imgsz=64",
        "models=yolov8n",
        "losses=cb,eqfl,loce,bce masked",
    ]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| cb", "| eqfl", "| loce", "| bce masked"))]
    assert len(rows) == 16, done.stdout
    differences = [float(x) for row in rows for x in re.findall(r"\d\.?\d*e-\d+", row)]
    assert differences, done.stdout
    assert max(differences) < 1e-4
