"""A server of a test file's own, and its client: fixtures that several suites import."""

from collections.abc import Iterator

import pytest

from serving.client import Client
from tests.support.bundles import write_bundle
from tests.support.commands import serving


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the test file's own, whose model tells colours apart."""
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder / "models")
    with serving(folder / "models", folder / "state") as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """A client of that server."""
    with Client(address) as client:
        yield client
