"""One process of several: feeds its part of the rows of a golden file to a loss and prints losses and accumulators.

python one_rank.py NAME RANK WORLD FILE, with FILE the meeting point of the processes.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from yolo_lt.balance import build_loss


def main(name: str, rank: int, world: int, file: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    content = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    loss_fn = build_loss(name, **({"efl_scale": 4.0} if name == "eqfl" else {}))
    out = []
    for step in content["inputs"]["steps"]:
        rows = len(step["logits"]) // world
        part = slice(rank * rows, (rank + 1) * rows)
        z = torch.tensor(step["logits"], dtype=torch.float64)[None, part, :12].requires_grad_()
        y = torch.zeros_like(z, requires_grad=False)
        labels = [c if name == "eqlv2" else c - 1 for c in step.get("labels", step.get("target"))][part]
        for row, c in enumerate(labels):
            if 0 <= c < 12:
                y[0, row, c] = step["scores"][part][row] if "scores" in step else 1.0
        normalizer = max(sum(c > 0 for c in step.get("target", [])), 1) / world
        valid = torch.tensor(labels)[None, :, None] >= (0 if name == "eqlv2" else -1)  # EQFL: rows that are ignored
        value = loss_fn(z, y, {"normalizer": normalizer, "valid": valid})
        value.backward()
        state = loss_fn.state_dict()
        out.append({"loss": value.item(), **{k: state[k].tolist() for k in ("positive", "negative")}})
    print(json.dumps(out))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
