import subprocess
import sys
import time

import pytest

from yolo_lt import __version__, cli, config
from yolo_lt.errors import UsageError


def test_help_and_import_need_neither_torch_nor_ultralytics():
    code = (
        "import sys, yolo_lt, yolo_lt.cli, yolo_lt.config, yolo_lt.dataset, yolo_lt.evaluate, yolo_lt.balance\n"
        "for verb in (None, *yolo_lt.cli.VERBS): yolo_lt.cli.help_text(verb)\n"
        "heavy = {'torch', 'ultralytics', 'matplotlib', 'pycocotools', 'polars', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_takes_well_under_half_a_second():
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "yolo_lt.cli", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.4, times


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_lists_the_keys_of_the_verb(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    for key in config.keys().values():
        assert (f"  {key.name}=" in out) == (verb in key.verbs or verb == "cfg")


def test_version(capsys):
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["stats", "data"], "no key=value"),
        (["stats", "data=a.yaml", "--data=b.yaml"], "given twice"),
        (["train", "model=yolov8n.yaml", "data=a.yaml", "smapler=rfs"], "did you mean 'sampler'"),
        (["train", "model=yolov8n.yaml", "data=a.yaml", "recipe=rsf"], "did you mean rfs"),
        (["train", "data=a.yaml"], "model=... is missing"),
        (["val"], "model=... is missing"),
        (["stats"], "data=... is missing"),
        (["make-lt"], "data=... is missing"),
        (["split", "epochs=3"], "epochs does not act in split"),
        (["convert"], "convert takes one format"),
        (["convert", "lvis", "coco"], "convert takes one format"),
        (["convert", "lvis"], "annotations=... is missing"),
        (["convert", "livs", "annotations=x"], "did you mean 'lvis'"),
        (["checks", "livs"], "no such data set"),
        (["checks", "annotations=x"], "checks takes nothing"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(argv, message, capsys):
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_debug_shows_the_traceback():
    with pytest.raises(UsageError):
        cli.main(["stats", "debug=true"])


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["data=d.yaml", "lr0=1e-3"], {"data": "d.yaml", "lr0": 1e-3}),
        (["--data", "d.yaml", "--lr0=1e-3"], {"data": "d.yaml", "lr0": 1e-3}),
        (["--allow-download", "data=d.yaml"], {"allow_download": True, "data": "d.yaml"}),
        (["--debug"], {"debug": True}),
        (["name=a=b"], {"name": "a=b"}),
    ],
)
def test_parse(words, args):
    assert cli.parse(words) == args
