"""The images that wait for shadow versions, and when each is computed.

An image of a version that has a shadow version is kept in memory while that version computes it, and waits here once
it is answered. It is computed while few enough views of requests are in flight that a CPU is free, one engine call at a
time; when a request comes, the engine is paused. If too many bytes wait, further images are dropped.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.bundle.model_version import ModelVersion
from serving.models.classifier import Classification
from serving.models.image_data import ImageData
from serving.models.kept_image import ByteBudget, KeptImage
from serving.models.loader import ServedModel
from serving.models.repository import ModelNotFound, ModelRepository
from serving.shadows.background import BackgroundThread
from serving.statistics.feedback import Feedback
from serving.statistics.store import StatisticsUnavailable
from serving.system.logs import RateLimitedLogger

AFTER_ANSWER_S = 0.002
"""How long after a request was computed its images may be: its response is written first."""
MAX_BUSY_SHARE = 0.75
"""Part of the CPUs that requests may occupy while an image is computed."""
PAUSE, MAX_PAUSE_S = 4.0, 0.5
"""How long after an image the next one waits, as a multiple of the time for which the engine did not get a CPU, and at
most: on a host that other processes keep busy, shadow versions would take CPU time from answers."""
STOP_S = 1.0
"""How long a stop waits for the image that is being computed."""
ON_CPU = "onnxruntime-cpu"

OK, FULL, FAILED, UNLOADED = "ok", "full", "failed", "unloaded"
"""What became of an image: it was computed; too many bytes wait; the shadow version raised an exception or computed
values that are no probabilities; it was unloaded or replaced."""

_logger = RateLimitedLogger(logging.getLogger(__name__), logging.WARNING)


@dataclass(frozen=True, slots=True)
class _Job:
    """An answered image."""

    id: bytes
    """ID of the prediction."""
    kept: KeptImage
    views: int


class ShadowQueue:
    """Computes images with shadow versions. For one event loop.

    Args:
        repository: the versions.
        feedback: gets the results.
        budget: bounds the images that are kept.
        on_image: is called for each chosen image with the shadow version and OK or why it was dropped.
        cpus: that this process may use. On a CPU, images are computed while fewer views of requests are in flight
            than three quarters of them; on a GPU, while fewer are than fit into a batch.
        draw: draws a number in [0, 1) for each request.
    """

    def __init__(
        self,
        repository: ModelRepository,
        feedback: Feedback,
        budget: ByteBudget,
        on_image: Callable[[ModelVersion, str], None],
        *,
        cpus: int = 1,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._repository = repository
        self._feedback = feedback
        self.budget = budget
        self._on_image = on_image
        self._busy_rows = max(1, int(MAX_BUSY_SHARE * cpus))
        self._draw = draw
        self._jobs: deque[_Job] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._begin_at = 0.0  # of the loop's clock
        self._thread = BackgroundThread("shadow") if repository.shadows else None
        self._running: ServedModel | None = None
        """The shadow version that computes an image."""
        self._paused = self._closed = False

    def __len__(self) -> int:
        """Images that wait or are being computed."""
        return len(self._jobs) + (self._running is not None)

    def keep(self, model: ServedModel, images: Sequence[ImageData]) -> list[KeptImage]:
        """A request begins: pause what it would wait for, and choose whether its images are also for a shadow version.

        Returns:
            What keeps each image while `model` classifies it, each to be closed or passed to `put`; empty if they are
            not chosen.
        """
        if not self._repository.shadows:
            return []
        self._pause(len(images))
        if not (found := self._repository.shadow_of(model)):
            return []
        shadow, share = found
        if self._closed or (share < 1 and self._draw() >= share):
            return []
        manifest = shadow.manifest
        keep = model.classifier.keep
        return [keep(image, manifest.model_version, manifest.preprocess, self.budget) for image in images]

    def shadow_version(self, classification: Classification) -> int:
        """The number of the shadow version that will classify an image; 0 for none, since it was not kept."""
        kept = classification.kept
        if kept is None:
            return 0
        if not kept.complete:
            kept.close()
            self._on_image(kept.version, FULL)
            return 0
        return kept.version.version

    def put(self, id_: bytes, classification: Classification) -> None:
        """Add an image that was answered, if it was kept.

        Args:
            id_: of the prediction.
            classification: the answer.
        """
        kept = classification.kept
        if kept and kept.complete:
            self._jobs.append(_Job(id_, kept, classification.views))
            self._wake()

    def ended(self, kept: Sequence[KeptImage], outcomes: Sequence[Classification | Exception]) -> None:
        """A request has ended; release what was kept of its images without a classification.

        Args:
            kept: what `keep` returned.
            outcomes: of each image; empty if the request failed or was cancelled.
        """
        for index, each in enumerate(kept):
            if not (outcomes and isinstance(outcomes[index], Classification)):
                each.close()
        self._wake()

    def _wake(self) -> None:
        """Begin or go on soon, if nothing else is to be done then."""
        waits = self._paused or (self._jobs and not self._running)
        if waits and self._timer is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time() + AFTER_ANSWER_S, self._begin_at), self._step)

    def _pause(self, rows: int) -> None:
        """Pause the engine if with so many more views in flight no CPU is free."""
        model = self._running
        if model and model.shadow_engine and not self._paused and not self._is_idle(model, rows):
            self._paused = True
            model.shadow_engine.pause()

    def _resume(self) -> None:
        if self._paused and self._running and self._running.shadow_engine:
            self._running.shadow_engine.resume()
        self._paused = False

    def close(self) -> None:
        """Drop what waits, and stop the thread; an image that takes longer than STOP_S is left behind."""
        self._closed = True
        with suppress(IndexError):  # the event loop may take some meanwhile
            while True:
                self._jobs.popleft().kept.close()
        self._resume()
        if self._thread:
            self._thread.close(STOP_S)

    def _step(self) -> None:
        """Compute an image if few enough views of requests are in flight; else the end of a request calls again."""
        self._timer = None
        if self._closed or not self._thread:
            return
        if self._running:
            if self._is_idle(self._running):
                self._resume()
            return
        while self._jobs:
            version = self._jobs[0].kept.version
            try:
                model = self._repository.find(version.name, version.version)
            except ModelNotFound as error:
                self._drop(self._jobs.popleft(), error)
                continue
            if self._is_idle(model):
                self._running = model
                self._thread.submit(partial(self._compute, self._jobs.popleft(), model, asyncio.get_running_loop()))
            return

    def _is_idle(self, shadow: ServedModel, more_rows: int = 0) -> bool:
        """Whether few enough views of requests are in flight for an image of a shadow version."""
        busy_rows = self._busy_rows if shadow.runtime == ON_CPU else shadow.layout.max_batch_size
        return more_rows + sum(model.classifier.rows_in_flight for model in self._repository.models) < busy_rows

    def _compute(self, job: _Job, model: ServedModel, loop: asyncio.AbstractEventLoop) -> None:
        """Compute an image, in the background thread."""
        outcome: Classification | Exception
        try:
            with self._repository.use(model):
                outcome = self._classify(job, model)
        except BaseException as error:  # extension modules may raise others than Exception
            outcome = error if isinstance(error, Exception) else RuntimeError(repr(error))
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._finish, job, model, outcome)

    def _classify(self, job: _Job, model: ServedModel) -> Classification | Exception:
        engine = model.shadow_engine
        if engine is None or model.manifest.preprocess != job.kept.preprocess:
            raise ModelNotFound(f"{model.manifest.resource} was replaced")
        views_VHWC = job.kept.make_views(job.views)
        most = engine.max_batch_size
        parts: list[NDArray[np.float32]] = [
            engine.run(views_VHWC[first : first + most]) for first in range(0, len(views_VHWC), most)
        ]
        return model.classifier.average(np.concatenate(parts))

    def _finish(self, job: _Job, model: ServedModel, outcome: Classification | Exception) -> None:
        self._resume()
        self._running = None
        if isinstance(outcome, Exception):
            self._drop(job, outcome)
        else:
            job.kept.close()
            probabilities_K: list[float] = outcome.probabilities_K.tolist()
            predicted = max(range(len(probabilities_K)), key=probabilities_K.__getitem__)
            model.drift.add(predicted, probabilities_K[predicted])
            with suppress(StatisticsUnavailable):  # they are closed: the server stops
                self._feedback.finish_shadow(job.id, model.manifest, predicted, probabilities_K[predicted])
            self._on_image(job.kept.version, OK)
        pause_s = pause_after(model.shadow_engine.denied_s) if model.shadow_engine else 0.0
        self._begin_at = asyncio.get_running_loop().time() + pause_s
        if pause_s:
            self._wake()
        else:
            self._step()

    def _drop(self, job: _Job, error: Exception) -> None:
        """An image was not computed."""
        job.kept.close()
        self._feedback.shadows.drop(job.id)
        version, unloaded = job.kept.version, isinstance(error, ModelNotFound)
        self._on_image(version, UNLOADED if unloaded else FAILED)
        if not unloaded:
            _logger.log(f"the shadow version {version.resource} failed, and nothing else is affected: {error!r}")


def pause_after(denied_s: float) -> float:
    """How long to wait after an image whose engine waited for a CPU for `denied_s`, in seconds.

    A millisecond is not counted: every system has that.
    """
    return min(PAUSE * (denied_s - 0.001), MAX_PAUSE_S) if denied_s > 0.001 else 0.0
