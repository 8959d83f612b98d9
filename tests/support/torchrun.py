"""Runs Python under torchrun, as docs/distributed-training.md describes."""

import os
import subprocess
import sys

from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def agent_command(*arguments: object, endpoint: str = "127.0.0.1:0", nodes: str = "1", a_node: int = 2) -> list[str]:
    """torchrun on one node, with `a_node` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes, "--nproc-per-node", str(a_node)]
    return [*command, "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, *map(str, arguments)]


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run two processes on this machine until they have ended."""
    return subprocess.run(
        agent_command(*arguments), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT_S
    )
