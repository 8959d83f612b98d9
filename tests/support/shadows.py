"""A service with a shadow version, in process and without a transport, and graphs that fail on some images."""

import asyncio
import hashlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from serving.api.classification import ClassificationService
from serving.api.in_flight import BytesInFlight
from serving.api.labels import RecordedLabel, record_labels
from serving.api.predictions import SignedPrediction
from serving.bundle.folder import open_version
from serving.bundle.manifest import INPUT_NAME, OUTPUT_NAME, Artifact
from serving.bundle.model_version import ModelVersion
from serving.bundle.shadow_version import ShadowVersion
from serving.engine.separate import PausableEngine
from serving.models.image_data import ImageData
from serving.models.kept_image import ByteBudget
from serving.models.loader import ServedModel, load_model
from serving.models.repository import ModelRepository
from serving.shadows.queue import ShadowQueue
from serving.statistics.feedback import Feedback
from serving.statistics.shadows.joining import ShadowLabels
from serving.statistics.store import StatisticsStore
from serving.tokens.keyring import Keyring
from tests.support.bundles import COLOURS, OPTIONS, serialized_graph
from tests.support.waiting import LIMIT_S


def failing_graph(crop: int, *, how: str) -> bytes:
    """A network that computes grey images, as when it is loaded, and fails on images with a bright channel.

    Args:
        how: "nan": its probabilities are NaN; "raises": ONNX Runtime raises.
    """
    constants = {
        "grey": np.float32(127),
        "logits": np.zeros((1, len(COLOURS)), np.float32),
        "one": np.ones((1, 1), np.float32),
        "axes": np.array([1, 2, 3]),
        "column": np.array([1]),
    }
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["pixels", "axes"], ["most"], keepdims=0),
        helper.make_node("Sub", ["grey", "most"], ["below_grey"]),  # [N]: 0 for grey images, negative for bright ones
    ]
    if how == "nan":
        nodes += [
            helper.make_node("Sqrt", ["below_grey"], ["zero"]),
            helper.make_node("Unsqueeze", ["zero", "column"], ["zeros"]),
        ]
    else:
        nodes += [
            helper.make_node("Neg", ["below_grey"], ["above_grey"]),
            helper.make_node("Cast", ["above_grey"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["one", "index"], ["ones"], axis=0),  # out of bounds for bright images
            helper.make_node("Sub", ["ones", "one"], ["zeros"]),
        ]
    nodes += [
        helper.make_node("Add", ["zeros", "logits"], ["all_logits"]),
        helper.make_node("Softmax", ["all_logits"], [OUTPUT_NAME], axis=1),
    ]
    return serialized_graph("failing", nodes, constants, crop)


def with_graph(graph: bytes) -> dict[str, Any]:
    """Arguments of `write_bundle` for another graph."""
    artifact = Artifact(
        file="model.fp32.onnx", precision="fp32", sha256=hashlib.sha256(graph).hexdigest(), bytes=len(graph)
    )
    return {"content": graph, "artifacts": (artifact,)}


class GatedShadow:
    """The engine of a shadow version, of which each `release` lets one call compute."""

    denied_s = 0.0

    def __init__(self, engine: PausableEngine) -> None:
        self._engine = engine
        self.orders: list[str] = []
        """Calls of `pause` and `resume`."""
        self._gate = Semaphore(0)
        self._begun: SimpleQueue[None] = SimpleQueue()
        self.max_batch_size = engine.max_batch_size
        self.calls = 0

    def release(self, calls: int = 1) -> None:
        self._gate.release(calls)

    async def begun(self) -> None:
        """Wait until the next call has begun."""
        await asyncio.to_thread(self._begun.get, True, LIMIT_S)

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        self._begun.put(None)
        assert self._gate.acquire(timeout=LIMIT_S)
        return self._engine.run(images_NHWC)

    def pause(self) -> None:
        self.orders.append("pause")

    def resume(self) -> None:
        self.orders.append("resume")

    def close(self) -> None:
        self._engine.close()


class ShadowedService:
    """The use case of classification over models/NAME/1 with the shadow version models/NAME/2."""

    def __init__(self, folder: Path, name: str, *, share: float, budget: int, draw: Callable[[], float]) -> None:
        self.folder = folder
        self.name = name
        self.images: Counter[str] = Counter()
        """Images of the shadow version by result."""
        self.labels: Counter[str] = Counter()
        """Labels by whether the shadow's result was known."""
        self.repository = ModelRepository([ShadowVersion(ModelVersion(name, 2), share)])
        self.store = StatisticsStore(folder / "statistics.sqlite", lock_timeout_s=LIMIT_S)
        for number in (1, 2):
            self.load(number)
        self.shadow_labels = ShadowLabels(self.store, lambda version, result: self.labels.update([result]))
        self.feedback = Feedback(Keyring(folder / "token.key"), self.store, lambda labels: None, self.shadow_labels)
        self.budget = ByteBudget(budget)
        self.queue = ShadowQueue(
            self.repository,
            self.feedback,
            self.budget,
            lambda version, result: self.images.update([result]),
            draw=draw,
        )
        self.service = ClassificationService(
            self.repository, self.feedback, 16, BytesInFlight(2**30), self.queue, default_views=1
        )

    def load(self, number: int) -> None:
        """Load a version of the folder, or load it again."""
        version = ModelVersion(self.name, number)
        options = replace(OPTIONS, max_rows=64)
        model = load_model(open_version(self.folder / "models", version), options, shadow=number == 2)
        self._add(model)

    def gate(self) -> GatedShadow:
        """Load the shadow version again, which now computes when the test says so."""
        model = load_model(open_version(self.folder / "models", ModelVersion(self.name, 2)), OPTIONS, shadow=True)
        assert model.shadow_engine is not None
        engine = GatedShadow(model.shadow_engine)
        self._add(replace(model, shadow_engine=engine))
        return engine

    def _add(self, model: ServedModel) -> None:
        self.store.register_version(model.manifest.model_version, model.manifest.classes)
        self.repository.add(model)

    async def classify(
        self,
        *images: ImageData,
        version: int | None = None,
        views: int = 1,
        adaptive: bool = False,
        labels: Sequence[str] = (),
    ) -> list[SignedPrediction]:
        """Classify images, all of which must succeed; by default with the primary version."""
        model = self.repository.find(self.name, version)
        spec = self.service.check(model, views, None, adaptive)
        results = await self.service.classify(
            spec, images, labels or [""] * len(images), LIMIT_S, references=[""] * len(images)
        )
        assert all(isinstance(result, SignedPrediction) for result in results), results
        return [result for result in results if isinstance(result, SignedPrediction)]

    async def label(self, *labels: tuple[SignedPrediction, str]) -> None:
        """Record labels of predictions, all of which must succeed."""
        results = await record_labels(self.feedback, [(prediction.token, label) for prediction, label in labels])
        assert all(isinstance(result, RecordedLabel) for result in results), results

    async def finished(self, images: int) -> None:
        """Wait until so many images were computed or dropped."""
        while self.images.total() < images:
            await asyncio.sleep(0.001)

    async def joined(self, labels: int) -> None:
        """Wait until so many labels have the result of the shadow version."""
        while self.rows("SELECT count(*) FROM labels WHERE shadow_predicted IS NOT NULL")[0][0] < labels:
            await asyncio.sleep(0.005)

    def rows(self, query: str) -> list[Any]:
        """Read the statistics as another process does."""
        with closing(sqlite3.connect(self.folder / "statistics.sqlite")) as connection:
            return connection.execute(query).fetchall()

    def close(self) -> None:
        self.queue.close()
        self.shadow_labels.close()
        self.store.close()
        self.repository.close()


def with_shadow(
    folder: Path,
    test: Callable[[ShadowedService], Awaitable[None]],
    *,
    name: str = "colours",
    share: float = 1.0,
    budget: int = 2**24,
    draw: Callable[[], float] = lambda: 0.0,
) -> None:
    """Run a test with a service over `folder`/models."""

    async def run() -> None:
        served = ShadowedService(folder, name, share=share, budget=budget, draw=draw)
        try:
            await test(served)
        finally:
            await asyncio.to_thread(served.close)

    asyncio.run(asyncio.wait_for(run(), LIMIT_S))
