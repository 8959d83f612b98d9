"""Processes that have trained together end with exit code 0: none is aborted by a thread that outlives Python."""

from pathlib import Path

import pytest

from tests.support.torchrun import torchrun

TRAIN = """
from dataclasses import replace
import torch
from torch import nn
from training.hardware import Hardware
from training.networks.layer_groups import head_group
from training.distributed import joined_processes
from training.fitting.trainer import Trainer

cpu = Hardware(torch.device("cpu"), None, 0)
with joined_processes(cpu.device) as processes:
    network = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    *body, head = [head_group(part) for part in network]
    for trained in (False, True):  # as from stage to stage: other parameters learn
        groups = [*(replace(group, trained=trained) for group in body), head]
        trainer = Trainer(network, groups, momentum=0.9, weight_decay=0.0, freeze_bn=False, hardware=cpu,
                          processes=processes)
        trainer.train()
        for _ in range(10):
            trainer.step(torch.randn(4, 8), torch.tensor([0, 1, 1, 0]), rows=8, rates=[0.1] * len(trainer.trained))
"""


@pytest.mark.parametrize("attempt", range(30))
def test_two_processes_end_with_exit_code_0(attempt: int, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    finished = torchrun(tmp_path / "train.py")
    assert finished.returncode == 0, finished.stderr
