"""One process of several: feeds its part of the rows of a golden file to a loss and prints losses and states.

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
    file_of = {"loce": "loce_ebl"}
    content = json.loads((Path(__file__).parent / f"{file_of.get(name, name)}.json").read_text())
    loss_fn = build_loss(name, **({"efl_scale": 4.0} if name == "eqfl" else {}))
    out = []
    for step in content["inputs"]["steps"]:
        rows = len(step["logits"]) // world
        part = slice(rank * rows, (rank + 1) * rows)
        z = torch.tensor(step["logits"], dtype=torch.float64)[None, part, :12].requires_grad_()
        y = torch.zeros_like(z, requires_grad=False)
        labels = (step["labels"] if "labels" in step else [c - 1 for c in step["target"]])[part]
        for row, c in enumerate(labels):
            if 0 <= c < 12:
                y[0, row, c] = step["scores"][part][row] if "scores" in step else 1.0
        normalizer = max(sum(c > 0 for c in step.get("target", [])), 1) / world
        valid = torch.tensor(labels)[None, :, None] >= (0 if "labels" in step else -1)  # EQFL: rows that are ignored
        value = loss_fn(z, y, {"normalizer": normalizer, "valid": valid})
        value.backward()
        state = {k: v.tolist() for k, v in loss_fn.state_dict().items() if torch.is_tensor(v)}
        out.append({"loss": value.item(), **state})
    print(json.dumps(out))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
