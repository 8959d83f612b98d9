"""Fixtures of unit tests."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.batching.admission import Admission
from serving.batching.batcher import DynamicBatcher
from serving.batching.workers import WorkerOptions
from tests.support.batching import GatedEngine
from tests.support.bundles import write_bundle
from tests.support.fake_tensorrt import fake_gpu, fake_rtx_gpu  # noqa: F401 - pytest finds them here


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with version 1 of cats and of dogs."""
    write_bundle(tmp_path, "cats")
    write_bundle(tmp_path, "dogs")
    return tmp_path


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of TensorRT engines; it is empty."""
    monkeypatch.setenv("PAWSERVE_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture
def batchers() -> Iterator[Callable[..., DynamicBatcher]]:
    made: list[DynamicBatcher] = []

    def make(*engines: GatedEngine, workers: int = 2, max_rows: int = 100, **more: Any) -> DynamicBatcher:
        told = {name: more.pop(name) for name in ("observer", "on_device_lost") if name in more}
        made.append(DynamicBatcher(engines, Admission(max_rows), WorkerOptions(count=workers, **more), **told))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker-")]
