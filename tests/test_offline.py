"""No network: nothing here opens a connection, neither to install, nor to download, nor to report."""

import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from ultralytics.utils import USER_CONFIG_DIR

GUARD = """
import socket
tried = []
def refuse(*args, **kw):
    tried.append(args)
    raise OSError("no network in this test")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from yolo_lt.cli import main
"""


@pytest.mark.slow
def test_stats_train_val_predict_and_export_open_no_connection(toy, tmp_path):
    # Ultralytics itself fetches the font of its plots into its configuration folder when it is not there (README)
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    shutil.copyfile(font, USER_CONFIG_DIR / "Arial.ttf")
    place = f"'data={toy}', 'project={tmp_path}', 'device=cpu'"
    code = f"""{GUARD}
assert main(["stats", "data={toy}", "project={tmp_path}", "name=s"]) == 0
assert main(["train", {place}, "model=yolov8n.yaml", "imgsz=64", "epochs=1", "plots=false", "name=t"]) == 0
assert main(["val", {place}, "model={tmp_path}/t/weights/last.pt", "imgsz=64", "plots=false", "name=v"]) == 0
source = "source={toy.parent}/images/val"
assert main(["predict", {place}, source, "model={tmp_path}/t/weights/last.pt", "imgsz=64", "name=p"]) == 0
assert main(["export", "model={tmp_path}/t/weights/last.pt", "imgsz=64"]) == 0
from ultralytics.utils.events import events
assert not events.enabled
assert not tried, tried
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
