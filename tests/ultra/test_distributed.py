"""In several processes every rank draws its own part of the stream, and the exposure counts what all of them saw."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import LONG_TAIL, NAMES, TINY
from gloo_trainer import KILL_AT, STOP_AFTER, WORKERS, GlooTrainer
from test_epochs import trained
from test_federated_labels import write_sources
from ultralytics.utils import USER_CONFIG_DIR, YAML

from yolo_lt import api, config
from yolo_lt.balance import exposure
from yolo_lt.balance.plan import make_plan
from yolo_lt.balance.stream import epoch_indices, epoch_length
from yolo_lt.dataset.stats import ClassStats
from yolo_lt.errors import UsageError
from yolo_lt.ultra import args

SEED = 3  # not Ultralytics' default, so that a rank to which it does not travel draws other images
SCRIPT = "import json, sys, gloo_trainer; gloo_trainer.train(**json.loads(sys.argv[1]))"


def keys_of(data, folder, epochs, **more):
    """A short training that closes mosaic before its last epoch.

    Only rank 0 counts up the name of a new run folder, so that all ranks are told the folder.
    """
    own = {"data": str(data), "epochs": epochs, "seed": SEED, "save_dir": str(folder), "val": False}
    return {**TINY, "model": "yolov8n.yaml", "mosaic": 1.0, "close_mosaic": 1, **own, **more}


def environment(more):
    """With this folder on the path, from which the processes import the trainer."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, **more}


def launch(world, keys, **env):
    """Train in `world` processes, started as torchrun starts a user's own; gives the exit code and the output."""
    command = [sys.executable, str(Path(__file__).with_name("launch_ranks.py")), str(world), json.dumps(keys)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment(env), **streams) as process:
        try:
            output, _ = process.communicate(timeout=300)
        finally:
            process.terminate()  # if it hangs: on this signal the launcher ends its processes, which a kill would not
    return process.returncode, output


def run_alone(keys, **env):
    """The same in a single process, which Ultralytics gives the rank -1."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(keys)]
    done = subprocess.run(command, env=environment(env), capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def plan_of(**ours):
    return make_plan(ClassStats.from_lists(LONG_TAIL, len(NAMES), NAMES), config.resolve({"recipe": "rfs", **ours}))


def read_ranks(folder, world):
    """What every rank saw, one list of epochs per rank."""
    assert len(list(folder.glob("rank*.jsonl"))) == world
    return [[json.loads(x) for x in (folder / f"rank{r}.jsonl").read_text().splitlines()] for r in range(world)]


def read_ends(folder, world):
    return [json.loads((folder / f"rank{r}.json").read_text()) for r in range(world)]


def stream(plan, epoch, rank, world):
    return epoch_indices(plan.factors, SEED, epoch, rank, world, plan.keys["epoch_length"] == "fixed").tolist()


def check_stream(ranks, plan, epochs):
    """Every rank drew exactly its part of the stream in every epoch, and together they drew the whole epoch."""
    world = len(ranks)
    length = epoch_length(plan.factors, world, plan.keys["epoch_length"] == "fixed")
    expected = plan.factors * length / plan.factors.sum()
    for rank, seen in enumerate(ranks):
        assert [e["epoch"] for e in seen] == list(range(epochs))
        for e in seen:
            assert e["drawn"] == stream(plan, e["epoch"], rank, world), f"epoch {e['epoch']}, rank {rank}"
            assert [t[0] for t in e["tiles"]] == e["drawn"]
    for parts in zip(*ranks, strict=True):
        assert [len(e["drawn"]) for e in parts] == [length // world] * world
        drawn = np.bincount([i for e in parts for i in e["drawn"]], minlength=len(expected))
        assert (np.abs(drawn - expected) < 1).all()  # stochastic rounding over all ranks: down or up, nothing else


def check_exposure(path, ranks, plan, epochs):
    """The file has every epoch once, with the sum over all ranks; without mosaic that is what the stream says."""
    table, count = exposure.read(path), plan.stats.num_classes
    assert [int(r["epoch"]) for r in table] == [e for e in range(1, epochs + 1) for _ in range(count)]
    for epoch, parts in enumerate(zip(*ranks, strict=True)):
        rows, world = table[count * epoch : count * (epoch + 1)], len(parts)
        carried = [t for e in parts for t in e["tiles"]]
        closed = epoch == epochs - 1
        assert {len(t) for t in carried} == ({1} if closed else {4})
        boxes = np.bincount([c for e in parts for c in e["classes"]], minlength=count)
        tiles = classes_in(plan, [i for t in carried for i in t])
        assert [int(r["tiles"]) for r in rows] == tiles, f"epoch {epoch}"
        assert [int(r["boxes"]) for r in rows] == boxes.tolist(), f"epoch {epoch}"
        if closed:
            assert tiles == classes_in(plan, [i for r in range(world) for i in stream(plan, epoch, r, world)])


def classes_in(plan, images):
    """How many of the images hold each class."""
    drawn = np.bincount(images, minlength=plan.stats.num_images).astype(float)
    return plan.stats.images_with(drawn).astype(int).tolist()


def check_run(folder, world, plan, epochs):
    ranks = read_ranks(folder, world)
    check_stream(ranks, plan, epochs)
    check_exposure(folder / "exposure.csv", ranks, plan, epochs)
    ends = read_ends(folder, world)
    assert len({e["weights"] for e in ends}) == 1, "the ranks ended with different weights"


@pytest.mark.slow
def test_every_rank_of_four_draws_its_part_and_all_are_counted(toy, tmp_path):
    """Two are in the tests below."""
    folder = tmp_path / "run"
    code, output = launch(4, keys_of(toy, folder, epochs=2, recipe="rfs"))
    assert code == 0, output[-5000:]
    check_run(folder, 4, plan_of(), epochs=2)


@pytest.mark.slow
def test_ranks_that_learn_with_masks_of_their_own_stay_one(tmp_path):
    """Every rank masks its own images and draws for its own batches; what the losses learn is of all of them."""
    folder = tmp_path / "run"
    data = write_sources(tmp_path / "set", {"one": ["alpha", "beta"], "two": ["alpha", "gamma"]})
    own = {"recipe": "rfs", "cls_loss": "seesaw", "unknown_negatives": "sampled", "federated_classes": 2}
    code, output = launch(2, keys_of(data, folder, epochs=2, **{**own, "model": "yolo26n.yaml"}))
    assert code == 0, output[-5000:]
    ends = read_ends(folder, 2)
    assert len({e["weights"] for e in ends}) == 1, "the ranks ended with different weights"
    assert [e["mask"]["place"] for e in ends] == [[SEED, 0], [SEED, 1]]
    assert len({e["mask"]["text"] for e in ends}) == 2, "the ranks masked one and the same"
    texts = [(folder / f"losses-rank{r}.jsonl").read_text().splitlines() for r in range(2)]
    states = [[{b: x["learned"] for b, x in json.loads(t)["branches"].items()} for t in text] for text in texts]
    assert states[0] == states[1]
    assert len(states[0]) == 3
    assert states[0][0] != states[0][1] != states[0][2], "nothing was learned"
    assert "42 of 42 images were looked through for some classes" in output


@pytest.mark.slow
def test_the_same_through_the_file_that_ultralytics_writes_for_its_processes(toy, tmp_path):
    folder, lt = tmp_path / "run", config.resolve({"recipe": "rfs", "epoch_length": "fixed"})
    trainer = GlooTrainer(overrides=keys_of(toy, folder, epochs=3), lt=lt)
    trainer.model = trainer.get_model(cfg="yolov8n.yaml", verbose=False)  # as YOLO.train does for a checkpoint
    trainer.ddp, trainer.world_size = True, 2  # what two GPUs would have set
    trainer.train()  # writes the file, starts torch.distributed.run on it and removes it
    assert not list((USER_CONFIG_DIR / "DDP").iterdir())
    assert YAML.load(folder / "args.yaml")["lt"] == lt  # written anew by rank 0: the launcher empties the folder
    assert [e["lt"] for e in read_ends(folder, 2)] == [lt, lt]
    check_run(folder, 2, plan_of(epoch_length="fixed"), epochs=3)


@pytest.mark.slow
def test_two_processes_that_died_and_were_resumed_go_on_with_their_streams(toy, tmp_path):
    folder, plan = tmp_path / "run", plan_of()
    code, output = launch(2, keys_of(toy, folder, epochs=4, recipe="rfs"), **{STOP_AFTER: "2"})
    assert code != 0
    assert [len(seen) for seen in read_ranks(folder, 2)] == [2, 2], output[-5000:]
    assert not list(folder.glob("rank*.json"))

    code, output = launch(2, {"resume": str(folder / "weights" / "last.pt")})
    assert code == 0, output[-5000:]
    check_run(folder, 2, plan, epochs=4)


@pytest.mark.slow
def test_metrics_by_bin_are_of_what_all_ranks_found(tmp_path):
    """Without the images of the other rank half of the objects would count as missed."""
    (weights, data), folder = trained(), tmp_path / "run"
    gentle = {"model": str(weights), "lr0": 1e-4, "warmup_epochs": 0, "mosaic": 0.0, "close_mosaic": 0}
    code, output = launch(2, keys_of(data, folder, epochs=1, recipe="rfs", **gentle))
    assert code == 0, output[-5000:]
    assert output.count("AP / AP50: all") == 1, "rank 0 alone evaluates"
    with (folder / "results.csv").open() as f:
        (row,) = csv.DictReader(f)
    keys = {"data": str(data), "imgsz": 64, "plots": False, "device": "cpu", "project": str(tmp_path)}
    report = api.val(str(folder / "weights" / "last.pt"), **keys, bootstrap=0)
    for name, m in report.metrics.items():
        assert float(row[f"lt/AR({name})"]) == pytest.approx(m["AR"], abs=0.05), name
        assert m["AR"] > 0.5, "too few are found to tell"


@pytest.mark.slow
def test_killed_in_the_middle_of_epochs_and_resumed_it_draws_what_an_uninterrupted_run_would(toy, tmp_path):
    """Once before and once after mosaic closed, with workers that had drawn ahead; by SIGKILL, twice in one run."""
    folder, plan, env = tmp_path / "run", plan_of(), {WORKERS: "2"}
    keys = keys_of(toy, folder, epochs=5, recipe="rfs", close_mosaic=2)
    for kill in ("2:4", "4:2"):
        code, output = run_alone(keys, **{KILL_AT: kill}, **env)
        assert code == -signal.SIGKILL, output[-5000:]
        keys = {"resume": str(folder / "weights" / "last.pt")}
    code, output = run_alone(keys, **env)
    assert code == 0, output[-5000:]
    assert "Using 2 dataloader workers" in output
    seen = [json.loads(line) for line in (folder / "rank-1.jsonl").read_text().splitlines()]
    check_stream([seen], plan, epochs=5)
    assert [len(e["tiles"][0]) for e in seen] == [4, 4, 4, 1, 1]
    table = exposure.read(folder / "exposure.csv")
    assert [int(r["epoch"]) for r in table] == [e for e in range(1, 6) for _ in NAMES]
    tiles = [c for e in seen for c in classes_in(plan, [i for t in e["tiles"] for i in t])]
    assert [int(r["tiles"]) for r in table] == tiles


def test_two_stages_in_processes_that_the_user_started_are_refused(toy, tmp_path, monkeypatch):
    """Ultralytics sets its processes up once per training, and a second set-up in the same ones never returns."""
    monkeypatch.setattr(args, "RANK", 0)
    with pytest.raises(UsageError, match="recipe=decoupled cannot run in processes that you start yourself"):
        api.train(**keys_of(toy, tmp_path / "run", epochs=3, recipe="decoupled"))
    assert not (tmp_path / "run").exists()


def pretended(plan, rank, world, late=0):
    """Two epochs, the second without mosaic, as a rank would write them that took itself for `rank` of `world`."""
    drawn = [stream(plan, epoch + late, rank, world) for epoch in range(2)]
    tiles = [[[i] * (1 if epoch else 4) for i in images] for epoch, images in enumerate(drawn)]
    return [{"epoch": e, "drawn": drawn[e], "tiles": tiles[e], "classes": [0, 2]} for e in range(2)]


WRONG = {
    "every rank takes itself for the only one": lambda plan, world: [pretended(plan, 0, 1) for _ in range(world)],
    "all take the part of rank 0": lambda plan, world: [pretended(plan, 0, world) for _ in range(world)],
    "the ranks are exchanged": lambda plan, world: [pretended(plan, r, world) for r in reversed(range(world))],
    "an epoch late": lambda plan, world: [pretended(plan, r, world, late=1) for r in range(world)],
    "an epoch twice": lambda plan, world: [pretended(plan, r, world)[:1] * 2 for r in range(world)],
}


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("what", ["right", *WRONG])
def test_the_check_of_the_stream_sees_what_can_go_wrong(what, world):
    plan = plan_of()
    assert epoch_length(plan.factors) % world, "padding to a multiple of the processes would not be tested"
    if what == "right":
        check_stream([pretended(plan, r, world) for r in range(world)], plan, epochs=2)
        return
    with pytest.raises(AssertionError):
        check_stream(WRONG[what](plan, world), plan, epochs=2)


@pytest.mark.parametrize(("counted", "times"), [("all", 1), ("rank 0", 1), ("all", 2)])
def test_the_check_of_the_exposure_sees_what_can_go_wrong(tmp_path, counted, times):
    plan, path = plan_of(), tmp_path / "exposure.csv"
    ranks = [pretended(plan, r, 2) for r in range(2)]
    for parts in zip(*(ranks if counted == "all" else ranks[:1]), strict=True):
        counts = exposure.Exposure(plan)
        for e in parts:
            counts.add(e["tiles"], np.array(e["classes"]))
        for _ in range(times):
            exposure.append(path, counts.rows(parts[0]["epoch"] + 1))
    if (counted, times) == ("all", 1):
        check_exposure(path, ranks, plan, epochs=2)
    else:
        with pytest.raises(AssertionError):
            check_exposure(path, ranks, plan, epochs=2)
