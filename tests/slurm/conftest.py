"""The cluster of the Slurm tests. They are skipped where Slurm is missing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.slurm.cluster import Cluster, running_cluster
from tests.support.slurm.tools import find_tools

ASKED = "PAWSERVE_SLURM_CHECK"
"""Set by `make slurm-check`: it trains for minutes, and makes network interfaces."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of two nodes. Tests that lose a node replace it."""
    if not os.environ.get(ASKED):
        pytest.skip("trains on a Slurm cluster: make slurm-check")
    tools = find_tools()
    if isinstance(tools, str):
        pytest.skip(tools)
    folder = Path(tempfile.mkdtemp(prefix="pawserve-slurm."))
    with running_cluster(tools, folder) as cluster:
        yield cluster
    shutil.rmtree(folder)
