"""Fixtures of unit tests."""

import pytest

from tests.support.fake_gpu import FakeGpu, install


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A host with a GPU that is not there."""
    gpu = FakeGpu()
    install(gpu, monkeypatch)
    return gpu
