"""A detection trainer that several CPU processes can run together; every rank writes down what it saw.

Stock Ultralytics trains in several processes, and with loader workers, on GPUs only. Each patch here stands in for one
thing that it cannot do on a CPU, acts in a launched process alone, and leaves what yolo_lt does untouched.
"""

import hashlib
import json
import os
import signal
from datetime import timedelta
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from ultralytics.utils import RANK, WORLD_SIZE

from yolo_lt import api
from yolo_lt.balance.losses import GradientGuided
from yolo_lt.ultra.trainer import TRAINERS, LTDetectionTrainer

STOP_AFTER = "GLOO_STOP_AFTER"  # environment: the epoch, from 1, after which every rank dies
KILL_AT = "GLOO_KILL_AT"  # environment: EPOCH:BATCH, from 1, before which a single process is killed
WORKERS = "GLOO_WORKERS"  # environment: loader workers
reduce = dist.reduce


class CPUDistributed(nn.parallel.DistributedDataParallel):
    """Ultralytics passes device_ids=[None] on a CPU, which torch refuses for modules that lie there."""

    def __init__(self, module, device_ids=None, **kw):
        super().__init__(module, **kw)


def averaging_reduce(tensor, dst, op=dist.ReduceOp.SUM):
    """The validator reduces its losses with ReduceOp.AVG, which gloo lacks: add up, then divide."""
    average = op == dist.ReduceOp.AVG
    reduce(tensor, dst=dst, op=dist.ReduceOp.SUM if average else op)
    if average:
        tensor /= dist.get_world_size()


def note_own(loss):
    """Keep in `loss.own` what this rank's batches add to G+ and G-, before all ranks are summed up."""
    loss.own, counted = [], loss.counted

    def noted(sums, ctx):
        batch = counted(sums, ctx)
        loss.own.append(torch.stack(batch).double())
        return batch

    loss.counted = noted


def plain(state):
    """The state of a loss, as JSON."""
    return {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in state.items()}


def tell(branch):
    """What a loss has learned, and of a gradient-guided one what came of this rank, as JSON."""
    learned = plain(branch.loss.state_dict())
    if isinstance(branch.loss, GradientGuided):
        own = torch.stack(branch.loss.own).sum(0).tolist() if branch.loss.own else None
        learned |= {"positive": None, "negative": None, **learned, "own": own}
    return {"learned": learned, **learned, "batches": branch.batches, "gain": branch.gain, "start": branch.start}


class GlooTrainer(LTDetectionTrainer):
    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.args.workers = int(os.environ.get(WORKERS, 0))  # Ultralytics sets it to 0 on a CPU

    def _do_train(self):
        self.world_size = WORLD_SIZE  # Ultralytics counts GPUs, so on a CPU it would not set up any process group
        super()._do_train()

    def _setup_ddp(self):
        """Stock chooses a GPU for the rank; here the ranks only meet, and one that waits in vain fails soon."""
        dist.init_process_group("gloo", timeout=timedelta(seconds=120))

    def _setup_train(self):
        with mock.patch.object(nn.parallel, "DistributedDataParallel", CPUDistributed):
            super()._setup_train()
        self.learning = {name: b for name, b in self.losses.items() if b.loss.keeps_state}
        for branch in self.learning.values():
            if isinstance(branch.loss, GradientGuided):
                note_own(branch.loss)

    def validate(self):
        with mock.patch.object(dist, "reduce", averaging_reduce):
            return super().validate()

    def final_eval(self):
        """Stock validates best.pt on a GPU; here every rank leaves a digest of its weights, our keys, and its mask.

        Running averages of BatchNorm are left out, as Ultralytics lets every rank keep its own.
        """
        weights = b"".join(p.detach().numpy().tobytes() for p in self.model.parameters())
        mask = None if self.mask is None else {"text": self.mask.text(), "place": self.mask.place}
        end = {"weights": hashlib.sha256(weights).hexdigest(), "lt": self.args.lt, "mask": mask}
        (self.save_dir / f"rank{RANK}.json").write_text(json.dumps(end))

    def preprocess_batch(self, batch):
        """Note what the loader delivered; the drawn image by its file, which our data set does not write."""
        files = self.train_loader.dataset.im_files
        self.seen["drawn"] += [files.index(f) for f in batch["im_file"]]
        self.seen["tiles"] += batch["lt_tiles"]
        self.seen["classes"] += batch["cls"].flatten().int().tolist()
        return super().preprocess_batch(batch)

    def run_callbacks(self, event):
        super().run_callbacks(event)
        if event == "on_train_batch_start":
            self.batches += 1
            if f"{self.epoch + 1}:{self.batches}" == os.environ.get(KILL_AT):
                os.kill(os.getpid(), signal.SIGKILL)
        if event == "on_train_epoch_start":
            self.batches = 0
            self.seen = {"epoch": self.epoch, "drawn": [], "tiles": [], "classes": []}
        if event == "on_train_epoch_end":
            with (self.save_dir / f"rank{RANK}.jsonl").open("a") as f:
                f.write(json.dumps(self.seen) + "\n")
        if event in ("on_train_start", "on_fit_epoch_end") and self.learning:
            with (self.save_dir / f"losses-rank{RANK}.jsonl").open("a") as f:
                told = {name: tell(branch) for name, branch in self.learning.items()}
                f.write(json.dumps({"event": event, "branches": told}) + "\n")
        if event == "on_fit_epoch_end" and self.epoch + 1 == int(os.environ.get(STOP_AFTER, 0)):
            dist.barrier()  # rank 0 has saved its checkpoint once all are here; the first death ends the others
            os._exit(1)


def train(**keys):
    """What the script of a user does who starts the processes himself, with this trainer."""
    TRAINERS["detect"] = GlooTrainer
    api.train(**keys)
