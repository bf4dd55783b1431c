"""The long scripts from the official files to the exported network, on small generated ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(*words):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "reproduce.py"), *words], capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "protocol", "steps"), [("lvis", "lvis", ["prepare", "train,finish"]), ("coco-lt", "coco", [])]
)
def test_a_tiny_run_goes_through_all_steps(name, protocol, steps, tmp_path):
    for words in [[f"steps={step}"] for step in steps] or [[]]:
        done = run(name, "--tiny", f"out={tmp_path}", *words)
        assert done.returncode == 0, done.stderr[-3000:]
    for recipe in ("rfs", "finetune-head"):
        report = json.loads((tmp_path / f"{recipe}-val" / "report.json").read_text())
        assert report["protocol"] == protocol
        assert report["metrics"]["all"]["n_evaluated"] > 0
    assert "largest difference" in done.stdout
    for file in (
        "finetune-head/weights/last.onnx",
        "calibrated/weights/last.pt",
        "stats/report.html",
        "compare/comparison.json",
    ):
        assert (tmp_path / file).stat().st_size > 1000
    if name == "coco-lt":
        assert (tmp_path / "coco-lt" / "make_lt.csv").exists()


def test_another_data_set_is_refused():
    done = run("voc")
    assert done.returncode == 1
    assert "usage: python scripts/reproduce.py lvis|coco-lt" in done.stderr
