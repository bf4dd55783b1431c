"""Our checkpoints are ordinary Ultralytics checkpoints: everything below runs where yolo_lt cannot be imported."""

import os
import subprocess
import sys

import pytest

from yolo_lt import YOLOLT

WITHOUT_YOLO_LT = "import sys; sys.modules['yolo_lt'] = None\nfrom ultralytics import YOLO\n"


def run_without_yolo_lt(code, cwd, **env):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_YOLO_LT + code],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_best_pt_loads_trains_validates_predicts_and_exports_in_stock_ultralytics(toy, tiny, tmp_path):
    YOLOLT("yolo26n.yaml").train(**tiny, recipe="eql", data=str(toy), epochs=2, project=str(tmp_path), name="run")
    image = toy.parent / "images" / "val" / "0000.png"
    code = f"""
model = YOLO("run/weights/best.pt")
assert type(model.model).__module__.startswith("ultralytics.")
model.val(data={str(toy)!r}, imgsz=64, plots=False, device="cpu", project=".", name="v")
assert len(YOLO("run/weights/best.pt").predict({str(image)!r}, imgsz=64, device="cpu")) == 1
path = YOLO("run/weights/best.pt").export(format="onnx", imgsz=64)
assert len(YOLO(path, task="detect").predict({str(image)!r}, imgsz=64, device="cpu")) == 1
keys = dict(data={str(toy)!r}, imgsz=64, batch=8, epochs=1, plots=False, device="cpu", project=".", name="again")
YOLO("run/weights/best.pt").train(**keys)
print("ALL FIVE WORKED")
"""
    status, output = run_without_yolo_lt(code, tmp_path, ULTRALYTICS_SAFE_LOAD="true")
    assert status == 0, output
    assert "ALL FIVE WORKED" in output


@pytest.mark.slow
def test_stock_resume_of_our_unfinished_run_stops_with_ultralytics_own_error(toy, tiny, tmp_path):
    """Documented in the README: the way out is `yolo-lt train resume=`."""

    class Stop(Exception):
        pass

    def stop(trainer):
        raise Stop

    model = YOLOLT("yolov8n.yaml")
    model.add_callback("on_model_save", stop)
    with pytest.raises(Stop):
        model.train(**tiny, data=str(toy), epochs=3, project=str(tmp_path), name="run")
    status, output = run_without_yolo_lt('YOLO("run/weights/last.pt").train(resume=True)', tmp_path)
    assert status != 0
    assert "'lt' is not a valid YOLO argument" in output
