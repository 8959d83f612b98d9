"""Folders of pictures that tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

# As `python -m training` does: otherwise a busy machine makes every step of torch ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests.support.measured import measured, pytest_terminal_summary  # noqa: F401 - pytest finds them here
from tests.support.postgresql import Postgresql, running_postgresql
from training.samples.sample import write_sample


@pytest.fixture(scope="session")
def photos() -> Path:
    """The real photos, train/{cats,dogs} and valid/{cats,dogs}."""
    folder = os.environ.get("PAWSERVE_PHOTOS")
    if not folder:
        pytest.skip("needs real photos: set PAWSERVE_PHOTOS to a folder with train/CLASS/* and valid/CLASS/*")
    return Path(folder)


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 drawn cats and dogs, train and valid. Tests that change them copy them first."""
    folder = tmp_path_factory.mktemp("drawn") / "drawings"
    write_sample(folder, per_class=16, valid_per_class=8, seed=0)
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations that tests of `fit` share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A PostgreSQL that tests share; each makes a database of its own. Who stops it starts it again."""
    with running_postgresql() as server:
        yield server
