"""Fixtures of unit tests."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serving.batching.admission import Admission
from serving.batching.batcher import DynamicBatcher
from serving.batching.workers import WorkerOptions
from tests.support.batching import GatedEngine
from tests.support.fake_gpu import FakeGpu
from tests.support.fake_tensorrt import install


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A host with a GPU that is not there."""
    gpu = FakeGpu()
    install(gpu, monkeypatch)
    return gpu


@pytest.fixture
def batchers() -> Iterator[Callable[..., DynamicBatcher]]:
    made: list[DynamicBatcher] = []

    def make(*engines: GatedEngine, workers: int = 2, max_rows: int = 100, **more: Any) -> DynamicBatcher:
        made.append(DynamicBatcher(engines, Admission(max_rows), WorkerOptions(count=workers, **more)))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker-")]
