"""What a gradient-guided loss has learned survives validation, kills and retries, and is the same in all processes."""

import copy
import csv
import io
import json
import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import NAMES, TINY, write_yolo_set
from gloo_trainer import KILL_AT, STOP_AFTER, plain
from test_distributed import SEED, keys_of, launch, run_alone
from ultralytics.engine.trainer import BaseTrainer

from yolo_lt import YOLOLT
from yolo_lt.balance import build_loss
from yolo_lt.balance.losses import GradientGuided, SparseTargets
from yolo_lt.balance.stream import epoch_indices
from yolo_lt.cli import main
from yolo_lt.errors import LTError
from yolo_lt.ultra.criterion import GAINS, ClassificationLoss, branches
from yolo_lt.ultra.loss_state import load_state

FEW = [[0]] * 8 + [[0, 1]] * 3 + [[1]] + [[0, 2]] + [[]] * 3
GUIDED = {"recipe": "rfs", "cls_loss": "eqfl"}
HEADS = {"yolov8n.yaml": ["one2many"], "yolo26n.yaml": ["one2many", "one2one"]}


COUNTS = [60, 9, 0, 2]
LOSSES = ["eqlv2", "efl", "eqfl"]
LEARNING = {"seesaw": {}, "loce": {}, "federated": {"federated_classes": 2}}  # other losses with a state, and keys


def guided(name):
    return build_loss(name, COUNTS, COUNTS, 60)


def learning(name):
    return build_loss(name, COUNTS, COUNTS, 60, **LEARNING[name])


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """16 images, one class each of head, medium and tail in 12, 4 and 1 of them; data.yaml. Read only."""
    return write_yolo_set(tmp_path_factory.mktemp("few"), FEW, NAMES, val=2)


def keys(data, folder, epochs, **more):
    own = {"data": str(data), "epochs": epochs, "save_dir": str(folder), "val": False, "mosaic": 0}
    return {**TINY, **GUIDED, **own, **more}


def state(trainer):
    """The state of every branch's loss now, as a copy."""
    return {name: copy.deepcopy(loss.state_dict()) for name, loss in trainer.losses.items()}


def follow(model):
    """Note (epoch from 0, state) at the events of a training: lists by event, which fill while it runs."""
    seen = {e: [] for e in ("on_train_start", "on_train_epoch_start", "on_train_epoch_end", "on_fit_epoch_end")}
    for event, notes in seen.items():
        model.add_callback(event, lambda t, notes=notes: notes.append((getattr(t, "epoch", None), state(t))))
    return seen


def run_out_of_memory(model, batch):
    """Let the memory seem full once, after the forward pass of a batch, counted from 1 over the whole training."""
    started = []

    def scale(_):
        raise RuntimeError("CUDA out of memory. (a test)")

    def on_batch(trainer):
        started.append(trainer.epoch)
        if len(started) == batch:
            trainer.scaler, started[0:0] = SimpleNamespace(scale=scale, real=trainer.scaler), []
        elif isinstance(trainer.scaler, SimpleNamespace):
            trainer.scaler = trainer.scaler.real

    model.add_callback("on_train_batch_start", on_batch)


def assert_same(a, b):
    """Bit for bit."""
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def assert_differ(a, b):
    with pytest.raises(AssertionError):
        assert_same(a, b)


def saved(folder, epoch):
    """The branches in the file of an epoch, from 0."""
    content = torch.load(folder / "weights" / f"lt_state-{epoch}.pt", weights_only=True)
    assert content["epoch"] == epoch
    return content["branches"]


def files(folder):
    return sorted(p.name for p in (folder / "weights").glob("*lt_state*"))


def accumulated(branch):
    return torch.stack([branch["loss"]["positive"], branch["loss"]["negative"]])


# One process ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    """A training of an end-to-end head with validation after every epoch, and all that was noted of it."""
    folder, model, run = tmp_path_factory.mktemp("whole") / "run", YOLOLT("yolo26n.yaml"), SimpleNamespace()
    run.folder, run.seen, run.observed, run.batches, run.bce, run.ratios = folder, follow(model), 0, 0, [], []
    observe = GradientGuided.observe

    def counting(self, *args):
        run.observed += 1
        observe(self, *args)

    def doubt(trainer):
        """Every score starts at 0.5: with a prior of 0.0003 the ratio would sit at its limit, 1."""
        head = trainer.model.model[-1]
        for level in (*head.cv3, *head.one2one_cv3):
            torch.nn.init.zeros_(level[-1].bias)

    def on_batch(trainer):
        run.batches += 1

    def on_epoch(trainer):
        criterion = trainer.ema.ema.criterion
        run.bce += [] if criterion is None else [type(b.bce) for b in branches(criterion).values()]
        run.bins = trainer.plan.bins
        run.ratios.append({n: b.loss.ratio(3, torch.zeros(())).tolist() for n, b in trainer.losses.items()})
        run.acted = {name: loss.batches for name, loss in trainer.losses.items()}

    model.add_callback("on_train_start", doubt)
    model.add_callback("on_train_batch_end", on_batch)
    model.add_callback("on_fit_epoch_end", on_epoch)
    with mock.patch.object(GradientGuided, "observe", counting):
        model.train(**keys(few, folder, epochs=3, model="yolo26n.yaml", val=True))
    return run


@pytest.mark.slow
def test_every_branch_has_its_own_accumulators_in_double_precision(whole):
    for _, now in whole.seen["on_train_epoch_end"]:
        assert list(now) == HEADS["yolo26n.yaml"]
        for branch in now.values():
            sums = accumulated(branch)
            assert sums.dtype == torch.float64
            assert sums.shape == (2, 3)
            assert (sums > 0).all()
            assert branch["loss"]["skipped"] == 0
        assert (accumulated(now["one2many"]) != accumulated(now["one2one"])).all()
    growth = [accumulated(now["one2many"]) for _, now in whole.seen["on_train_epoch_end"]]
    assert all((after > before).all() for before, after in pairwise(growth))


@pytest.mark.slow
def test_validation_leaves_the_state_as_it_is(whole):
    trained, validated = whole.seen["on_train_epoch_end"], whole.seen["on_fit_epoch_end"]
    assert len(trained) == 3
    assert [epoch for epoch, _ in validated] == [0, 1, 2, 3], "the last is the final validation of best.pt"
    for (_, before), (_, after) in zip([*trained, trained[-1]], validated, strict=True):
        assert_same(after, before)
    assert whole.batches >= 6
    assert whole.acted == dict.fromkeys(HEADS["yolo26n.yaml"], whole.batches)
    assert whole.observed == 2 * whole.batches
    assert set(whole.bce) <= {torch.nn.BCEWithLogitsLoss}, "the EMA validates with Ultralytics' own loss"


@pytest.mark.slow
def test_the_ratio_by_bin_is_in_every_row_of_results_csv(whole):
    with (whole.folder / "results.csv").open() as f:
        header, *rows = list(csv.reader(f))
    assert len(rows) == 3
    assert {len(row) for row in rows} == {len(header)}
    assert len(set(header)) == len(header)
    for epoch, row in enumerate(rows):
        values = dict(zip(header, map(float, row), strict=True))
        assert np.isfinite(list(values.values())).all()
        for branch, suffix in (("one2many", ""), ("one2one", "_one2one")):
            for name in ("head", "medium", "tail"):
                ratio = np.mean([whole.ratios[epoch][branch][c] for c in getattr(whole.bins, name)])
                assert 0 < ratio < 1, "at its limit it would say nothing"
                assert values[f"lt/grad_ratio{suffix}({name})"] == pytest.approx(ratio, rel=1e-5)
    assert sum(name.startswith("lt/grad_ratio") for name in header) == 6


@pytest.mark.slow
def test_the_files_of_the_last_two_epochs_are_kept(whole):
    assert files(whole.folder) == ["lt_state-1.pt", "lt_state-2.pt"]
    for epoch in (1, 2):
        assert_same(saved(whole.folder, epoch), whole.seen["on_train_epoch_end"][epoch][1])


# Killed and resumed --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resumed(few, tmp_path_factory):
    """Trainings killed within epoch 3 of 4 and resumed, by model; in the first resumed epoch memory runs out once."""
    root, runs = tmp_path_factory.mktemp("killed"), {}

    def kill(name):
        one = {"OMP_NUM_THREADS": "1"}  # as both run at once
        return run_alone(keys(few, root / name, epochs=4, model=name), **{KILL_AT: "3:2"}, **one)

    with ThreadPoolExecutor() as pool:
        killed = dict(zip(HEADS, pool.map(kill, HEADS), strict=True))
    for name, (code, output) in killed.items():
        assert code == -signal.SIGKILL, output[-5000:]
        run = runs[name] = SimpleNamespace(folder=root / name, files=files(root / name), saved=saved(root / name, 1))
        told = (run.folder / "losses-rank-1.jsonl").read_text().splitlines()
        run.told = [json.loads(line) for line in told]
        last = run.folder / "weights" / "last.pt"
        model = YOLOLT(last)
        run.seen = follow(model)
        run_out_of_memory(model, batch=2)
        model.train(resume=str(last))
        run.end, run.batch_size = state(model.trainer), model.trainer.batch_size
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_a_resumed_run_starts_from_the_saved_state_bit_for_bit(resumed, name):
    run = resumed[name]
    assert run.files == ["lt_state-0.pt", "lt_state-1.pt"]
    assert list(run.saved) == HEADS[name]
    assert [line["event"] for line in run.told] == ["on_train_start", "on_fit_epoch_end", "on_fit_epoch_end"]
    for branch, before in run.told[-1]["branches"].items():  # what the killed process had in its memory
        assert accumulated(run.saved[branch]).tolist() == [before["positive"], before["negative"]]
        assert (run.saved[branch]["gain"], run.saved[branch]["start"]) == (before["gain"], before["start"])
        assert before["gain"] not in (None, 1)
        assert max(before["positive"]) > 0
        assert min(before["negative"]) > 0
    ((_, start),) = run.seen["on_train_start"]
    assert_same(start, run.saved)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_a_resumed_run_goes_on_from_there(resumed, name):
    run = resumed[name]
    assert files(run.folder) == ["lt_state-2.pt", "lt_state-3.pt"]
    assert_same(saved(run.folder, 3), run.end)
    for branch in HEADS[name]:
        steps = [accumulated(x[branch]) for x in (run.saved, saved(run.folder, 2), run.end)]
        for before, after in pairwise(steps):
            assert (after >= before).all()
            assert (after > before).any()
        for key in ("gain", "start"):
            assert run.end[branch][key] == run.saved[branch][key], "found once, in the first epoch"


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_when_memory_runs_out_the_losses_start_the_epoch_over(resumed, name):
    run = resumed[name]
    assert run.batch_size == TINY["batch"] // 2
    starts = run.seen["on_train_epoch_start"]
    assert [epoch for epoch, _ in starts] == [2, 2, 3], "epoch 3 began twice"
    assert_same(starts[1][1], run.saved)
    assert_same(starts[2][1], run.seen["on_train_epoch_end"][0][1])


@pytest.mark.slow
@pytest.mark.parametrize("loss", LEARNING)
def test_other_losses_with_a_state_are_killed_and_resumed_likewise(few, tmp_path, loss):
    """The head with two branches; in the resumed epoch memory runs out once."""
    name, own, folder = "yolo26n.yaml", {"cls_loss": loss, **LEARNING[loss]}, tmp_path / "run"
    code, output = run_alone(keys(few, folder, epochs=3, model=name, **own), **{KILL_AT: "2:2", "OMP_NUM_THREADS": "1"})
    assert code == -signal.SIGKILL, output[-5000:]
    before, told = saved(folder, 0), (folder / "losses-rank-1.jsonl").read_text().splitlines()
    assert list(before) == HEADS[name]
    for branch, known in json.loads(told[-1])["branches"].items():  # what the killed process had in its memory
        assert plain(before[branch]["loss"]) == known["learned"]
        assert before[branch]["start"] == known["start"]
        assert known["learned"]
    last = folder / "weights" / "last.pt"
    model = YOLOLT(last)
    seen = follow(model)
    run_out_of_memory(model, batch=2)
    model.train(resume=str(last))
    ((_, start),) = seen["on_train_start"]
    assert_same(start, before)
    starts = seen["on_train_epoch_start"]
    assert [epoch for epoch, _ in starts] == [1, 1, 2], "the epoch began twice"
    assert_same(starts[1][1], before)
    assert_same(starts[2][1], seen["on_train_epoch_end"][0][1])
    end = state(model.trainer)
    assert_same(saved(folder, 2), end)
    for branch in HEADS[name]:
        assert_differ(end[branch]["loss"], before[branch]["loss"])
        assert end[branch]["start"] == before[branch]["start"], "found once, in the first epoch"
        if loss == "seesaw":
            assert (end[branch]["loss"]["counts"] >= before[branch]["loss"]["counts"]).all()


# Interrupted between the two files -----------------------------------------------------------------------------------


def interrupt(data, folder, **more):
    """A training that fails in epoch 2 between the losses' file and Ultralytics' checkpoint."""
    save = BaseTrainer.save_model

    def fail(trainer):
        if trainer.epoch == 1:
            raise OSError("no space left (a test)")
        return save(trainer)

    model = YOLOLT("yolov8n.yaml")
    with mock.patch.object(BaseTrainer, "save_model", fail), pytest.raises(OSError, match="a test"):
        model.train(**keys(data, folder, epochs=2, **more))


@pytest.fixture(scope="module")
def snapshot(few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    interrupt(few, folder)
    shutil.copytree(folder, folder.with_name("snapshot"))
    return folder


@pytest.fixture
def interrupted(snapshot):
    """The folder of an interrupted training, as it was left."""
    shutil.rmtree(snapshot)
    shutil.copytree(snapshot.with_name("snapshot"), snapshot)
    return snapshot


@pytest.mark.slow
def test_a_kill_between_the_two_files_leaves_the_checkpoint_its_own_state(interrupted):
    assert files(interrupted) == ["lt_state-0.pt", "lt_state-1.pt"]
    last = interrupted / "weights" / "last.pt"
    model, before = YOLOLT(last), saved(interrupted, 0)
    assert model.ckpt["epoch"] == 0
    assert_differ(before, saved(interrupted, 1))
    seen = follow(model)
    model.train(resume=str(last))
    ((_, start),) = seen["on_train_start"]
    assert_same(start, before)
    assert files(interrupted) == ["lt_state-0.pt", "lt_state-1.pt"]
    assert_same(saved(interrupted, 1), state(model.trainer))


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "message"), [(0, "is missing"), (0.5, "cannot be read")])
def test_without_its_state_a_guided_loss_is_not_resumed(interrupted, kept, message, capfd):
    path, last = (interrupted / "weights" / name for name in ("lt_state-0.pt", "last.pt"))
    whole = path.read_bytes()
    path.unlink()
    if kept:
        path.write_bytes(whole[: int(kept * len(whole))])
    assert main(["train", f"resume={last}"]) == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"yolo-lt: error: {path} {message}"), error


STATE = {"positive": torch.ones(4), "negative": torch.ones(4), "skipped": 0}
BRANCH = {"gain": 1.0, "start": 1.0, "loss": STATE}


def pickled(content):
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"epoch: 0",
        pickled({"epoch": 0, "branches": {"one2many": BRANCH}})[:-100],
        pickled([BRANCH]),
        pickled({"epoch": 0, "branches": {"one2one": BRANCH}}),
        pickled({"epoch": 0, "branches": {"one2many": {"loss": STATE}}}),
        pickled({"epoch": 0, "branches": {"one2many": {**BRANCH, "loss": {"weights": torch.ones(4)}}}}),
        pickled({"epoch": 0, "branches": {"one2many": {**BRANCH, "loss": os.getcwd}}}),
    ],
    ids=["empty", "text", "a pickle's first letter", "cut off", "list", "other head", "no gain", "other loss", "code"],
)
def test_a_file_that_is_no_state_of_this_loss_is_named(content, tmp_path):
    path = tmp_path / "lt_state-0.pt"
    path.write_bytes(content)
    with pytest.raises(LTError, match=f"^{re.escape(str(path))} cannot be read"):
        load_state(tmp_path, 0, {"one2many": ClassificationLoss(guided("eqfl"), "one2many")})


@pytest.mark.slow
def test_a_loss_without_state_is_resumed_without_the_file(few, tmp_path):
    folder = tmp_path / "run"
    interrupt(few, folder, cls_loss="cb", loss_gain=1)
    for path in (folder / "weights").glob("lt_state-*.pt"):
        path.unlink()
    last = folder / "weights" / "last.pt"
    model = YOLOLT(last)
    model.train(resume=str(last))
    (loss,) = model.trainer.losses.values()
    assert loss.batches > 0
    assert loss.start is not None
    assert loss.gain == 1
    assert files(folder) == ["lt_state-1.pt"]


@pytest.mark.parametrize(
    ("name", "gain", "needed"),
    [
        *(("cb", 1.0, False), ("cb", "auto", True), ("eql", 2.0, False), ("eqlv2", 1.0, True), ("eqfl", 0.5, True)),
        *(("ecm", 1.0, False), ("ecm", "auto", True), ("logit_adjusted", 2.0, False)),
        *((name, gain, True) for name in LEARNING for gain in (1.0, "auto")),
    ],
)
def test_what_a_resumed_training_must_have(name, gain, needed):
    loss = build_loss(name, [50, 9, 2], [60, 9, 2], 60)
    assert ClassificationLoss(loss, "one2many", gain).has_state is needed


# Repeated epochs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repeated(few, tmp_path_factory):
    """Three epochs, of which the first is repeated as memory runs out, and the second after a loss that was NaN."""
    folder, model, run = tmp_path_factory.mktemp("repeated") / "run", YOLOLT("yolov8n.yaml"), SimpleNamespace()
    run.folder, run.seen, run.bce, spoiled = folder, follow(model), [], []

    def spoil(trainer):
        if trainer.epoch == 1 and not spoiled:
            spoiled.append(True)
            trainer.loss = trainer.loss * float("nan")

    def on_epoch(trainer):
        run.bce.append(type(trainer.ema.ema.criterion.bce))

    model.add_callback("on_train_epoch_end", spoil)
    model.add_callback("on_fit_epoch_end", on_epoch)
    run_out_of_memory(model, batch=3)
    model.train(**keys(few, folder, epochs=3, val=True))
    assert spoiled
    run.epochs = [epoch for epoch, _ in run.seen["on_train_epoch_start"]]
    return run


@pytest.mark.slow
def test_after_memory_ran_out_in_a_new_training_nothing_has_been_learned(repeated):
    assert repeated.epochs[:3] == [0, 0, 1]
    first, again, _ = (now for _, now in repeated.seen["on_train_epoch_start"][:3])
    assert first == again == {"one2many": {"gain": None, "start": None, "loss": {}}}


@pytest.mark.slow
def test_after_nan_the_losses_are_those_of_the_last_good_epoch(repeated):
    assert repeated.epochs == [0, 0, 1, 1, 2]
    good, bad, again, last = (now for _, now in repeated.seen["on_train_epoch_end"])
    starts = [now for _, now in repeated.seen["on_train_epoch_start"]]
    assert_same(starts[2], good)
    assert_same(starts[3], good)
    assert_differ(bad, good)
    assert_same(starts[4], again)
    assert files(repeated.folder) == ["lt_state-1.pt", "lt_state-2.pt"]
    assert_same(saved(repeated.folder, 1), again)
    assert_same(saved(repeated.folder, 2), last)


@pytest.mark.slow
def test_after_nan_the_ema_still_validates_with_the_stock_loss(repeated):
    assert set(repeated.bce) == {torch.nn.BCEWithLogitsLoss}


# Several processes ---------------------------------------------------------------------------------------------------


HOLDING = 24


def sparse_rows(world):
    """24 images in the order in which `world` ranks draw them, such that many batches of a rank hold nothing.

    In the first batch of the first epoch nobody has an object, in the second rank 0 alone, in the third all others.
    """
    rows, each = [[] for _ in range(HOLDING)], TINY["batch"] // world
    kinds = [[0], [0, 1], [0], [2], [1, 0], [0, 0]]
    for rank in range(world):
        drawn = epoch_indices(np.ones(HOLDING), SEED, 0, rank, world).reshape(-1, each)
        assert len(drawn) == 3
        for n, i in enumerate(drawn[1] if rank == 0 else drawn[2]):
            rows[i] = kinds[(rank * each + n) % len(kinds)]
    return rows


def check_emptiness(folder, world, rows):
    """That so it was: which rank had objects in which batch of the first epoch."""
    held = []
    for rank in range(world):
        seen = json.loads((folder / f"rank{rank}.jsonl").read_text().splitlines()[0])
        drawn = np.reshape(seen["drawn"], (3, -1))
        held.append([any(rows[i] for i in batch) for batch in drawn])
    assert held == [[False, True, False], *[[False, False, True]] * (world - 1)]


def told(folder, world):
    """What every rank told of its losses, one list of (event, branches) per rank."""
    texts = [(folder / f"losses-rank{rank}.jsonl").read_text() for rank in range(world)]
    assert len(list(folder.glob("losses-rank*"))) == world
    return [[(x["event"], x["branches"]) for x in map(json.loads, text.splitlines())] for text in texts]


def check_ranks(ranks, base):
    """All ranks have one state, the sum of what each of them added to `base`."""
    for branch in ranks[0]:
        mine = [rank[branch] for rank in ranks]
        for key in ("positive", "negative", "gain", "start", "batches"):
            assert all(x[key] == mine[0][key] for x in mine), f"{branch}: {key} differs between the ranks"
        assert min(mine[0]["positive"] + mine[0]["negative"]) > 0
        assert mine[0]["start"] > 0
        assert mine[0]["gain"] == pytest.approx(np.clip(1 / mine[0]["start"], *GAINS))
        added = np.array([x["own"] for x in mine])
        assert len(np.unique(added, axis=0)) == len(mine), "the ranks trained on one and the same"
        total = added.sum(0) + (0 if base is None else [base[branch]["positive"], base[branch]["negative"]])
        np.testing.assert_allclose([mine[0]["positive"], mine[0]["negative"]], total, rtol=1e-12)


def keys_of_ranks(data, folder, epochs):
    """Every image is drawn once, so that the data set decides which rank draws what; no mosaic mixes them."""
    return keys_of(data, folder, epochs, mosaic=0, model="yolo26n.yaml", repeat_thr=1e-6, **GUIDED)


@pytest.mark.slow
def test_two_processes_have_one_state_and_resume_with_it(tmp_path):
    folder, rows = tmp_path / "run", sparse_rows(2)
    data = write_yolo_set(tmp_path / "data", rows, NAMES, val=1)
    code, output = launch(2, keys_of_ranks(data, folder, 2), **{STOP_AFTER: "1"})
    assert code != 0
    ranks = told(folder, 2)
    assert [[event for event, _ in rank] for rank in ranks] == [["on_train_start", "on_fit_epoch_end"]] * 2
    check_emptiness(folder, 2, rows)
    check_ranks([rank[1][1] for rank in ranks], base=None)
    stopped = ranks[0][-1][1]
    assert list(stopped) == HEADS["yolo26n.yaml"]

    code, output = launch(2, {"resume": str(folder / "weights" / "last.pt")})
    assert code == 0, output[-5000:]
    ranks = [rank[2:] for rank in told(folder, 2)]
    for rank in ranks:
        (event, start), _ = rank
        assert event == "on_train_start"
        for branch, before in stopped.items():
            for key in ("positive", "negative", "gain", "start"):
                assert start[branch][key] == before[key], f"{branch}: {key} is not that of the stopped run"
    check_ranks([rank[1][1] for rank in ranks], base=stopped)
    for branch, end in saved(folder, 1).items():
        assert accumulated(end)[0].tolist() == ranks[0][1][1][branch]["positive"]


# The loss alone ------------------------------------------------------------------------------------------------------


def batch(dtype=torch.float32, seed=0):
    """Logits (2, 50, 4) that require grad and soft targets, of classes 0, 1 and 3."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.zeros(2, 50, 4)
    for image, anchor, c in ((0, 3, 0), (0, 4, 1), (1, 7, 3), (1, 9, 0)):
        targets[image, anchor, c] = torch.rand((), generator=g) * 0.6 + 0.3
    return torch.randn(2, 50, 4, generator=g).to(dtype).requires_grad_(), targets


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_accumulators_are_double_whatever_the_logits_are(name, dtype):
    loss, logits, targets = guided(name), *batch(dtype)
    loss(logits, targets).backward()
    assert logits.grad.dtype == dtype
    rounded, exact = logits.detach().double().requires_grad_(), guided(name)
    exact(rounded, targets.double())
    for mine, theirs in ((loss.positive, exact.positive), (loss.negative, exact.negative)):
        assert mine.dtype == torch.float64
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=0)
    assert loss.positive[2] == 0
    for _ in range(3):  # 1e9 and a batch: what float32 would drop
        loss.positive = loss.positive + 1e9
        before = loss.positive
        loss(*batch(dtype))
        assert (loss.positive > before)[[0, 1, 3]].all()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_learned_outside_training(name):
    loss, logits, targets = guided(name), *batch()
    with torch.no_grad():
        loss(logits, targets)
    loss(logits.detach(), targets)
    loss.gradient(logits, targets)
    assert loss.positive is None
    loss(logits, targets)
    before = copy.deepcopy(loss.state_dict())
    with torch.no_grad():
        loss(logits, targets)
    loss(logits.detach(), targets)
    loss.gradient(logits, targets)
    assert_same(loss.state_dict(), before)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_with_nan_is_skipped_and_shown(name):
    loss, logits, targets = guided(name), *batch()
    loss(logits, targets)
    before = copy.deepcopy(loss.state_dict())
    spoiled = logits.detach().clone()
    spoiled[1, 7, 3] = spoiled[0, 0, 0] = float("nan")
    for n in (1, 2):
        value = loss(spoiled.requires_grad_(), targets)
        assert value.isnan()
        assert loss.skipped == n
        assert_same(loss.state_dict(), {**before, "skipped": n})
    assert loss(*batch(seed=1)).isfinite()
    assert (loss.positive >= before["positive"]).all()
    assert (loss.negative > before["negative"]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_after_a_first_batch_that_is_not_finite_the_ratio_is_that_of_the_start(name):
    loss, logits, targets = guided(name), *batch()
    loss((logits.detach() * float("nan")).requires_grad_(), targets)
    assert loss.skipped == 1
    assert loss.ratio(4, targets).tolist() == [loss.start] * 4


@pytest.mark.parametrize("name", LOSSES)
def test_the_state_goes_through_a_file_exactly(name, tmp_path):
    loss, again = guided(name), guided(name)
    again.load_state_dict(loss.state_dict())
    assert again.positive is None
    for seed in range(3):
        loss(*batch(seed=seed))
    loss((batch()[0].detach() * float("nan")).requires_grad_(), batch()[1])
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_same(again.state_dict(), loss.state_dict())
    assert again.skipped == 1
    assert_same(again(*batch(seed=4)), loss(*batch(seed=4)))
    assert_same(again.state_dict(), loss.state_dict())
    with pytest.raises(ValueError, match="keeps positive, negative, skipped"):
        again.load_state_dict({"positive": torch.ones(4)})


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_without_instances_keeps_the_ratio_of_the_start(name):
    loss = guided(name)
    for seed in range(3):
        loss(*batch(seed=seed))
    ratio = loss.ratio(4, torch.zeros(()))
    assert ratio[2] == loss.start
    assert (ratio[[0, 1, 3]] != loss.start).all()
    assert loss.negative[2] > 0
    unaware = build_loss(name)
    for seed in range(3):
        unaware(*batch(seed=seed))
    assert unaware.ratio(4, torch.zeros(()))[2] == 0, "without counts it would be taken for suppressed"


# Other losses with a state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNING)
def test_other_losses_learn_nothing_outside_training(name):
    loss, logits, targets = learning(name), *batch()
    for known in (False, True):
        if known:
            loss(logits, targets)
        before = copy.deepcopy(loss.state_dict())
        assert bool(before) == known
        with torch.no_grad():
            loss(logits, targets)
        loss(logits.detach(), targets)
        loss.gradient(logits, targets)
        assert_same(loss.state_dict(), before)


@pytest.mark.parametrize("name", LEARNING)
def test_the_state_of_other_losses_goes_through_a_file_exactly(name, tmp_path):
    loss, again = learning(name), learning(name)
    again.load_state_dict(loss.state_dict())
    assert again.state_dict() == {}
    for seed in range(3):
        loss(*batch(seed=seed))
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_same(again.state_dict(), loss.state_dict())
    for seed in (4, 5):
        assert_same(again(*batch(seed=seed)), loss(*batch(seed=seed)))
    assert_same(again.state_dict(), loss.state_dict())


@pytest.mark.parametrize("name", LEARNING)
def test_a_kept_state_is_not_changed_by_later_batches_and_can_be_gone_back_to(name):
    loss = learning(name)
    kept = [loss.state_dict()]
    values = []
    for seed in range(3):
        values.append(loss(*batch(seed=seed)).item())
        kept.append(loss.state_dict())
    copies = copy.deepcopy(kept)
    for first in (1, 0, 2):
        loss.load_state_dict(kept[first])
        for seed in range(first, 3):
            assert loss(*batch(seed=seed)).item() == values[seed]
        assert_same(loss.state_dict(), copies[3])
    assert_same(kept, copies)


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_other_losses_learn_what_they_would_of_the_same_numbers(name, dtype):
    loss, exact, (logits, targets) = learning(name), learning(name), batch(dtype)
    loss(logits, targets).backward()
    exact(logits.detach().double().requires_grad_(), targets.double())
    assert logits.grad.dtype == dtype
    assert_same(loss.state_dict(), exact.state_dict())


@pytest.mark.parametrize("name", LEARNING)
def test_after_a_batch_with_nan_other_losses_go_on(name):
    loss, logits, targets = learning(name), *batch()
    loss(logits, targets)
    spoiled = logits.detach().clone()
    spoiled[1, 7, 3] = spoiled[0, 0, 0] = float("nan")
    assert loss(spoiled.requires_grad_(), targets).isnan()
    assert all(torch.as_tensor(v).isfinite().all() for v in loss.state_dict().values())
    assert loss(*batch(seed=1)).isfinite()


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("other", [{"positive": torch.ones(4)}, {"mean": torch.ones(4), "counts": torch.ones(4)}])
def test_a_file_of_another_loss_is_named(name, other, tmp_path):
    path = tmp_path / "lt_state-0.pt"
    path.write_bytes(pickled({"epoch": 0, "branches": {"one2many": {**BRANCH, "loss": other}}}))
    with pytest.raises(LTError, match=f"^{re.escape(str(path))} cannot be read"):
        load_state(tmp_path, 0, {"one2many": ClassificationLoss(learning(name), "one2many")})


@pytest.mark.parametrize(("name", "state"), [("seesaw", "counts"), ("loce", "mean")])
def test_a_state_of_other_classes_is_named(name, state, tmp_path):
    path = tmp_path / "lt_state-0.pt"
    path.write_bytes(pickled({"epoch": 0, "branches": {"one2many": {**BRANCH, "loss": {state: torch.ones(5)}}}}))
    with pytest.raises(LTError, match=f"^{re.escape(str(path))} cannot be read.* of 5 classes"):
        load_state(tmp_path, 0, {"one2many": ClassificationLoss(learning(name), "one2many")})


def test_a_resumed_federated_loss_draws_what_it_would_have_drawn():
    counts, foreground = [5] * 40, torch.zeros(1, 10, dtype=torch.bool)
    nothing = SparseTargets(torch.zeros(1, 10, dtype=torch.long), foreground, torch.zeros(1, 10), 40)

    def drawn(loss):
        """The classes whose negatives count in a training batch without objects."""
        logits = torch.zeros(1, 10, 40, requires_grad=True)
        loss(logits, nothing).backward()
        return tuple(logits.grad[0, 0].nonzero().flatten().tolist())

    whole, resumed = (build_loss("federated", counts, counts, 60, federated_classes=10, seed=SEED) for _ in range(2))
    first, state, then = [drawn(whole) for _ in range(3)], whole.state_dict(), [drawn(whole) for _ in range(3)]
    resumed.load_state_dict(state)
    assert [drawn(resumed) for _ in range(3)] == then
    assert {len(d) for d in first + then} == {10}
    assert len(set(first + then)) == 6
