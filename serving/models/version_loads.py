"""Loading of single versions into the repository while the server serves, and when to try again those that failed."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.bundle.folder import Fingerprint, fingerprint, open_version
from serving.bundle.manifest import Manifest
from serving.bundle.model_version import ModelVersion
from serving.models.loader import ServedModel, ServingOptions, load_model
from serving.models.repository import ModelNotFound, ModelRepository, State
from serving.statistics.store import StatisticsUnavailable

REMOVED = "its folder was removed: it is served from memory until it is unloaded or the server stops"
FIRST_RETRY_S, MAX_RETRY_S = 10.0, 300.0
"""How long after a failure a version is tried again, if its files do not change; the pause doubles each time."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Failure:
    """The last attempt to load a version."""

    found: Fingerprint
    reason: str
    pause_s: float
    retry_at: float


class VersionLoads:
    """Loads versions from the model folder, each when that is due. For the event loop.

    Args:
        repository: where they are served; what it serves already counts as loaded from the folder.
        folder: the model folder.
        options: how versions are loaded.
        register: see `ModelWatcher`.
        clock: returns seconds.
    """

    def __init__(
        self,
        repository: ModelRepository,
        folder: Path,
        options: ServingOptions,
        register: Callable[[Manifest], None],
        clock: Callable[[], float],
    ) -> None:
        self._repository = repository
        self._folder = folder
        self._options = options
        self._register = register
        self._clock = clock
        served = (model.manifest.model_version for model in repository.models)
        self._loaded: dict[ModelVersion, Fingerprint] = {key: fingerprint(folder / str(key)) for key in served}
        self._failures: dict[ModelVersion, _Failure] = {}

    async def update(self, key: ModelVersion, instead_of: Sequence[ModelVersion] = (), *, retry: bool = False) -> bool:
        """Load a version, if that is due, and serve it `instead_of` others; return whether it is served.

        A version that failed to load is due if its files have changed, its pause is over, or with `retry`.
        """
        folder = self._folder / str(key)
        found = await asyncio.to_thread(fingerprint, folder)
        served = self.served(key)
        if not found:
            self.forget_failure(key)
            if served:
                self._repository.mark(key, State.READY, REMOVED)
            return served is not None
        if served and self._loaded.get(key) == found:
            self.forget_failure(key)
            self._repository.mark(key, State.READY, "")
            return True
        failure = self._failures.get(key)
        if failure and failure.found != found:
            failure = None
        if failure and not retry and self._clock() < failure.retry_at:
            return served is not None
        if not served and (retry or not failure):
            self._repository.mark(key, State.LOADING, "")
        previous = served or next((each for each in self._repository.models if each.manifest.name == key.name), None)
        model = None
        try:
            bundle = await asyncio.to_thread(open_version, self._folder, key)
            if not (served and bundle.manifest == served.manifest):
                shadow = self._repository.is_shadow(key)
                model = await asyncio.to_thread(load_model, bundle, self._options, previous=previous, shadow=shadow)
                await asyncio.to_thread(self._register, bundle.manifest)
        except Exception as error:
            if model is not None:
                await asyncio.to_thread(model.close)
            self._fail(key, found, error, failure)
            return served is not None
        self._failures.pop(key, None)
        self._loaded[key] = found
        if model:
            self._repository.add(model, instead_of)
        else:
            self._repository.mark(key, State.READY, "")
        return True

    def served(self, key: ModelVersion) -> ServedModel | None:
        """The model of a version; None if it is not served."""
        try:
            return self._repository.find(key.name, key.version)
        except ModelNotFound:
            return None

    def forget_failure(self, key: ModelVersion) -> None:
        """Forget that a version failed to load."""
        if self._failures.pop(key, None):
            self._repository.forget(key, State.FAILED)

    def forget_failures(self, name: str, present: Collection[int]) -> None:
        """Forget failures of versions of a name that are no longer in the folder."""
        for key in [key for key in self._failures if key.name == name and key.version not in present]:
            self.forget_failure(key)

    def forget_unserved(self) -> None:
        """Forget the files of versions that are no longer served."""
        self._loaded = {key: found for key, found in self._loaded.items() if self.served(key)}

    def _fail(self, key: ModelVersion, found: Fingerprint, error: Exception, last: _Failure | None) -> None:
        """Report that a version failed to load; `last` is the previous failure with the same files."""
        reason = str(error) or type(error).__name__
        pause_s = min(2 * last.pause_s, MAX_RETRY_S) if last else FIRST_RETRY_S
        self._failures[key] = _Failure(found, reason, pause_s, self._clock() + pause_s)
        if last is None or reason != last.reason:
            if not isinstance(error, ValueError | StatisticsUnavailable):
                logger.error("unexpected error while %s was loaded", key.resource, exc_info=error)
            logger.error("%s failed to load: %s", key.resource, reason)
        self._repository.mark(key, State.FAILED, reason)
