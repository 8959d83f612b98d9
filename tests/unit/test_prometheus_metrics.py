"""Metrics of model versions that come and go: counters of served versions never fall, other series are removed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client.openmetrics.exposition import generate_latest

from serving.bundle.folder import open_version
from serving.bundle.model_version import ModelVersion
from serving.models.loader import ServedModel, load_model
from serving.models.repository import ModelRepository
from serving.observability.collectors import open_versions
from serving.observability.metrics import Metrics
from serving.observability.observers import VersionObserver
from serving.statistics.store import Label
from serving.tokens.tokens import PredictionRecord
from tests.support.bundles import OPTIONS, write_bundle
from tests.support.images import encoded
from tests.support.waiting import eventually

RED = encoded(Image.new("RGB", (80, 60), "red"), "PNG")


class Serving:
    """A model folder, a repository and their metrics."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self.metrics = Metrics()
        self.repository = ModelRepository()
        self.metrics.versions.served = lambda: open_versions(self.repository)

    def load(self, version: int) -> ServedModel:
        if not (self._models / "colours" / str(version)).exists():
            write_bundle(self._models, version=version)
        options = OPTIONS.__class__(
            **{**vars(OPTIONS), "make_observer": lambda manifest: VersionObserver(manifest, self.metrics, None)}
        )
        return load_model(open_version(self._models, ModelVersion("colours", version)), options)

    def serve(self, version: int) -> None:
        """Replace the served versions by this one, and classify an image with it."""
        retired = [model.manifest.model_version for model in self.repository.models]
        self.repository.add(self.load(version), [key for key in retired if key.version != version])
        asyncio.run(self.repository.find("colours", version).classifier.classify([RED, b"no image"]))

    def label(self, version: int) -> None:
        record = PredictionRecord(
            id=bytes(16), model="colours", version=version, predicted=2, probability=0.9, time_ms=0
        )
        self.metrics.labels_recorded([Label(record, 2)])

    def text(self) -> str:
        return str(generate_latest(self.metrics.registry).decode())

    def value(self, version: int) -> float | None:
        """The number of computed rows."""
        labels = {"model": "colours", "version": str(version)}
        return self.metrics.registry.get_sample_value("pawserve_rows_total", labels)

    def computed(self, version: int, rows: int) -> bool:
        """Whether so many rows are counted, which happens just after the response."""
        return eventually(lambda: self.value(version) == rows)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    server = Serving(tmp_path)
    yield server
    server.repository.close()


def keep(server: Serving, seconds: float) -> None:
    server.metrics.versions.kept_s = seconds


def only_ready(server: Serving) -> bool:
    return len(server.repository.statuses) == len(server.repository.models)


def test_metrics_of_a_model_that_is_replaced_repeatedly_do_not_grow(server: Serving) -> None:
    keep(server, 0)
    sizes = []
    for version in range(10, 16):
        server.serve(version)
        server.label(version)
        assert eventually(lambda: only_ready(server))
        sizes.append(len(server.text().splitlines()))
        assert server.computed(version, 1)
    assert len(set(sizes)) == 1
    assert 'version="15"' in server.text()
    assert 'version="14"' not in server.text()


def test_series_outlive_their_version_so_that_scrapers_see_its_last_counts(server: Serving) -> None:
    keep(server, 300)
    server.serve(1)
    server.serve(2)
    assert eventually(lambda: only_ready(server))
    assert server.computed(1, 1)
    assert server.computed(2, 1)
    server.serve(1)  # it returns before its series are removed, so they continue
    assert eventually(lambda: only_ready(server))
    assert server.computed(1, 2)
    keep(server, 0)
    server.text()
    assert (server.value(1), server.value(2)) == (2, None)
    server.serve(2)
    assert server.computed(2, 1)


def test_the_series_of_a_late_label_is_kept_for_as_long(server: Serving) -> None:
    keep(server, 300)
    server.serve(2)
    server.label(1)
    assert 'pawserve_labels_recorded_total{model="colours",right="true",version="1"} 1.0' in server.text()
    keep(server, 0)
    assert 'version="1"' not in server.text()
    assert server.computed(2, 1)


def test_a_version_that_takes_long_to_load_is_counted_once_it_serves(server: Serving) -> None:
    server.serve(1)
    model = server.load(2)
    server.text()
    server.repository.add(model, [("colours", 1)])
    asyncio.run(model.classifier.classify([RED]))
    keep(server, 0)
    server.text()
    assert server.computed(2, 1)
