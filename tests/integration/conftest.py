"""What integration tests share: a run, for tests of what comes after training, and a server with its client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import Client
from tests.bundles import write_bundle
from tests.commands import run_here, serving

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
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server of the test file's own, of a model that tells colours apart."""
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder / "models")
    with serving(folder / "models", folder / "state") as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client
