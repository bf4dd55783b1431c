"""The benches of the losses, of the evaluation and of the page run, and find what the tests say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


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
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench_losses.py"), *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| cb", "| eqfl", "| loce", "| bce masked"))]
    assert len(rows) == 16, done.stdout
    differences = [float(x) for row in rows for x in re.findall(r"\d\.?\d*e-\d+", row)]
    assert differences, done.stdout
    assert max(differences) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "against"), [("lvis", "lvis"), ("coco", "pycocotools")])
def test_the_evaluation_is_timed_against_the_official_packages(name, against):
    words = [f"set={name}", "images=40", "pairs=1", f"against={against}", "bootstrap=5"]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench_eval.py"), *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ratio = re.search(rf"{against} / ours, CPU time: ([\d.]+) \[", done.stdout)
    assert ratio, done.stdout
    assert float(ratio[1]) > 1
    assert "5 bootstrap replicates / evaluation" in done.stdout


@pytest.mark.slow
def test_the_page_is_weighed_and_timed():
    if not shutil.which("chromium"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium: the page is not opened")
    words = ["classes=40", "images=30", "runs=1"]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench_report.py"), *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0.05 < float(re.search(r"has ([\d.]+) MB", done.stdout)[1]) < 1, done.stdout
    times = [float(t) for t in re.findall(r"in ([\d.]+) \[", done.stdout)]
    assert len(times) == 4, done.stdout
    assert times[0] < times[1], "without the PNG it is quicker"


@pytest.mark.slow
def test_converting_is_weighed_against_ultralytics(tmp_path):
    words = ["scale=0.002", "pairs=1", "images=60", f"folder={tmp_path}"]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench_convert.py"), *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for segments in ("true", "false"):
        assert re.search(rf"segments={segments}: CPU time, convert_coco / ours [\d.]+ \[", done.stdout), done.stdout
    assert done.stdout.count("federated index: ") == 2
    assert re.search(r"openimages: \d+ s of CPU time, [\d.]+ GB", done.stdout), done.stdout
    assert done.stdout.count("stats of 60 images, segments=") == done.stdout.count("stats / building the cache ") == 2
