"""Train in several processes of this machine: `python launch_ranks.py PROCESSES KEYS`, with the keys as JSON.

What torchrun does, by its own means; but the processes are forks of one that has imported what is slow to import.
"""

import json
import sys

import albumentations  # noqa: F401
import torch._dynamo  # noqa: F401
import torchvision  # noqa: F401
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def train(keys):
    import gloo_trainer  # here: Ultralytics reads its rank when it is imported

    gloo_trainer.train(**keys)


if __name__ == "__main__":
    meet = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    config = LaunchConfig(1, 1, int(sys.argv[1]), **meet, start_method="fork", max_restarts=0)
    elastic_launch(config, train)(json.loads(sys.argv[2]))
