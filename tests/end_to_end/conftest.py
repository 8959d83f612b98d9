"""Fixtures of tests of commands: a training run, and a server with its client."""

from pathlib import Path

import pytest

from tests.support.commands import run_here
from tests.support.servers import address, client, models  # noqa: F401 - pytest finds them here

TINY = ("--arch", "test_resnet", "--weights", "none")
"""A network of timm's with few layers: what is tried on it is how it is exported, not how well it does."""


@pytest.fixture(scope="session")
def fitted(drawings: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny network on drawings. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("runs") / "pets"
    finished = run_here("training", "fit", "--data", drawings, "--run", folder, "--cache", shared_cache, *TINY)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipe files by name."""
    from tests.support.recipes import write_recipes  # imports torch

    return write_recipes(tmp_path_factory.mktemp("recipes"))
