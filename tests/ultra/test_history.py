"""What a report tells of the training: read from the files of the run, and never more than they hold."""

import pytest
import yaml

from yolo_lt.balance import exposure
from yolo_lt.ultra.history import run_history, training_of

HEADER = "epoch,time,lt/AP(all),lt/AP50(all),lt/AP(tail),lt/AP50(tail),val/box_loss,val/cls_loss"


@pytest.fixture
def run(tmp_path):
    """A run of three epochs, the first without a validation."""
    (tmp_path / "weights").mkdir()
    rows = ["1,9,0,0,0,0,0,0", "2,19,0.1,0.2,0.01,0.02,1.5,2", "3,29,0.3,0.4,0.03,0.04,1.4,1.9"]
    (tmp_path / "results.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (tmp_path / "args.yaml").write_text(yaml.safe_dump({"seed": 7, "epochs": 300}))
    keys = {"keys": {"recipe": "rfs"}, "bins": {}, "names": [], "image_counts": [], "instance_counts": []}
    (tmp_path / "lt.yaml").write_text(yaml.safe_dump(keys))
    for epoch in (1, 2):
        rows = [(epoch, 0, "cup", "head", 100.5, 101, 150), (epoch, 1, "mug", "tail", 10.25, 9, 12)]
        exposure.append(tmp_path / "exposure.csv", rows)
    return tmp_path


def test_recipe_seed_and_epochs_that_were_trained(run):
    found = run_history(run)
    assert (found["recipe"], found["seed"], found["epochs"]) == ("rfs", 7, 3)


def test_ap_by_bin_of_the_epochs_that_were_validated(run):
    assert run_history(run)["by_epoch"] == {
        "epoch": [2, 3],
        "AP": {"all": [0.1, 0.3], "tail": [0.01, 0.03]},
        "AP50": {"all": [0.2, 0.4], "tail": [0.02, 0.04]},
    }


def test_exposure_is_summed_over_epochs(run):
    assert run_history(run)["exposure"] == {
        "head": {"asked": 201.0, "tiles": 202.0, "boxes": 300.0, "pasted": 0.0},
        "tail": {"asked": 20.5, "tiles": 18.0, "boxes": 24.0, "pasted": 0.0},
    }


def test_a_training_without_columns_by_bin_has_no_curves(run):
    (run / "results.csv").write_text("epoch,time,metrics/mAP50(B)\n1,9,0.5\n")
    found = run_history(run)
    assert found["by_epoch"] is None
    assert found["epochs"] == 1


def test_a_training_that_never_validated_has_no_curves(run):
    (run / "results.csv").write_text(f"{HEADER}\n1,9,0,0,0,0,0,0\n")
    assert run_history(run)["by_epoch"] is None


def test_spaces_of_older_releases_in_the_header(run):
    (run / "results.csv").write_text("  epoch,  lt/AP(all),  lt/AP50(all)\n  1,  0.5,  0.6\n")
    assert run_history(run)["by_epoch"] == {"epoch": [1], "AP": {"all": [0.5]}, "AP50": {"all": [0.6]}}


def test_a_line_that_a_killed_process_left_is_dropped(run):
    with (run / "results.csv").open("a") as f:
        f.write("4,39,0.5,0.")
    found = run_history(run)
    assert (found["epochs"], found["by_epoch"]["epoch"]) == (3, [2, 3])


@pytest.mark.parametrize("damage", ["", "\x00", "a: [b", "- 1\n- 2"])
def test_damaged_arguments_cost_no_report(run, damage):
    (run / "args.yaml").write_text(damage)
    found = run_history(run)
    assert found["seed"] is None
    assert found["by_epoch"] is not None


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"epoch\n"])
def test_damaged_results_cost_no_report(run, content):
    (run / "results.csv").write_bytes(content)
    found = run_history(run)
    assert (found["epochs"], found["by_epoch"]) == (None, None)
    assert found["exposure"] is not None


def test_a_checkpoint_in_its_run(run):
    assert training_of(run / "weights" / "best.pt") == run_history(run)


def test_a_checkpoint_elsewhere_has_no_training(run):
    assert training_of(run / "best.pt") is None
    assert training_of(run / "gone" / "weights" / "best.pt") is None


def test_an_empty_folder_tells_nothing(tmp_path):
    (tmp_path / "weights").mkdir()
    assert training_of(tmp_path / "weights" / "best.pt") is None
