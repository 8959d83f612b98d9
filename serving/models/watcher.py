"""Replacement of model versions while the server serves, as the model folder changes.

A new version is verified and loaded, and then replaces the old one. A version that fails to load is reported with the
reason, and the old one stays; it is tried again when its files change, as they do until a copy is complete. If the
folder of a served version is removed, the newest version of the same name that is there replaces it; if there is none,
it stays in service, so that a file system that fails takes no model away.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.bundle.folder import Fingerprint, fingerprint, list_names, list_versions, open_version
from serving.bundle.manifest import BundleError, Manifest
from serving.bundle.model_version import ModelVersion, parse_short_name, resource_name
from serving.models.loader import ServedModel, ServingOptions, load_model
from serving.models.repository import ModelNotFound, ModelRepository, State
from serving.statistics.store import StatisticsUnavailable
from serving.system.logs import RateLimitedLogger

REMOVED = "its folder was removed: it is served from memory until it is unloaded or the server stops"

logger = logging.getLogger(__name__)


class ModelWatcher:
    """Keeps a repository in step with the model folder. All methods are for the event loop."""

    def __init__(
        self,
        repository: ModelRepository,
        folder: Path,
        wanted: Sequence[str],
        options: ServingOptions,
        register: Callable[[Manifest], None],
        keep: int = 1,
    ) -> None:
        """Begin with the versions that the repository serves.

        Args:
            wanted: "NAME" for its newest versions, or "NAME/VERSION"; empty for the newest versions of every name.
            register: registers the classes of a version in the statistics before it is served; called in a thread.
                Raises ValueError if they differ from those that are registered, StatisticsUnavailable if they cannot
                be written.
            keep: number of newest versions of a name to serve if no version is named.
        """
        self._repository = repository
        self._folder = folder
        self._all = not wanted
        self._pinned = {ModelVersion(name, number) for name, number in map(parse_short_name, wanted) if number}
        self._floating = {name for name, number in map(parse_short_name, wanted) if not number}
        self._unloaded: set[str] = set()
        self._options = options
        self._register = register
        self._keep = keep
        self._seen: dict[ModelVersion, Fingerprint] = {
            key: fingerprint(folder / str(key)) for key in map(_key, repository.models)
        }
        self._busy = asyncio.Lock()
        self._requested = asyncio.Event()
        self._statistics_log = RateLimitedLogger(logger, logging.ERROR)

    def request_scan(self) -> None:
        """Make `watch` scan the folder now."""
        self._requested.set()

    async def watch(self, poll_s: float) -> None:
        """Scan the folder periodically, and when `request_scan` is called, until the task is cancelled.

        Args:
            poll_s: seconds between two scans; 0 for scans on request only.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._requested.wait(), poll_s or None)
            self._requested.clear()
            try:
                await self.scan()
            except OSError as error:
                logger.warning(
                    "%s cannot be read (%s): the loaded models stay in service", self._folder, error.strerror
                )
            except Exception:
                logger.exception("the model folder could not be scanned")

    async def scan(self) -> None:
        """Scan the folder once, and load what is new.

        Raises:
            OSError: if the folder cannot be read.
        """
        async with self._busy:
            names = set(await asyncio.to_thread(list_names, self._folder)) if self._all else set()
            for key in sorted(self._pinned):
                if key.name not in self._unloaded:
                    await self._update(key)
            for name in sorted((names | self._floating) - self._unloaded):
                await self._renew(name)

    async def load(self, name: str) -> None:
        """Serve "NAME" in its newest version, or "NAME/VERSION", if it is not served yet; its folder is then watched.

        Raises:
            ModelNotFound: if the folder has no such model.
            BundleError: if that version fails to load.
            ValueError: if `name` is neither.
        """
        name, number = parse_short_name(name)
        async with self._busy:
            versions = await asyncio.to_thread(list_versions, self._folder / name)
            if not versions or (number and number not in versions):
                raise ModelNotFound(f"{self._folder} holds no {f'version {number}' if number else 'version'} of {name}")
            key = ModelVersion(name, number or versions[-1])
            if self._served(key) is None:
                self._seen.pop(key, None)  # a version that failed to load is tried again
            self._unloaded.discard(name)
            if number:
                self._pinned.add(key)
                await self._update(key)
            else:
                self._floating.add(name)
                await self._renew(name)
            for status in self._repository.statuses:
                if status.version == key and status.state is State.FAILED:
                    raise BundleError(status.reason)

    async def release(self, version: ModelVersion) -> None:
        """Stop serving a version that `load` named, unless it is among the newest that are served."""
        async with self._busy:
            self._pinned.discard(version)
            await self._renew(version.name)

    async def unload(self, name: str) -> None:
        """Stop serving all versions of "NAME" until `load` is called; calls that use them are finished first.

        Raises:
            ModelNotFound: if it is not served.
        """
        async with self._busy:
            self._repository.find(name, None)
            keys = [key for key in map(_key, self._repository.models) if key.name == name]
            self._unloaded.add(name)
            for key in keys:
                self._seen.pop(key, None)
            self._repository.retire(keys, "unloaded")
            logger.info("%s was unloaded", resource_name(name))

    async def _renew(self, name: str) -> None:
        """Serve the newest versions of one name that load."""
        versions = await asyncio.to_thread(list_versions, self._folder / name)
        for key in [key for key in self._seen if key.name == name and key.version not in versions]:
            self._repository.forget(key, State.FAILED)
        good: list[ModelVersion] = []
        # an older version replaces one that was removed, never one that failed to load
        candidates = versions if self._newest_served(name) else versions[-self._keep :]
        for number in reversed(candidates):
            if len(good) == self._keep:
                break
            others = [key for key in self._newest_served(name) if key not in good]
            others.sort(key=lambda key: key.version not in versions)  # removed ones are replaced first
            key = ModelVersion(name, number)
            if await self._update(key, instead_of=others[self._keep - 1 - len(good) :]):
                good.append(key)
        surplus = [key for key in self._newest_served(name) if key not in good]
        if good:
            self._repository.retire(surplus, f"replaced by version {good[0].version}")
        for key in surplus:
            if good:
                self._seen.pop(key, None)
            else:
                self._repository.mark(key, State.READY, REMOVED)

    def _newest_served(self, name: str) -> list[ModelVersion]:
        """The versions of a name that are served because they are the newest, the newest first."""
        keys = [key for key in map(_key, self._repository.models) if key.name == name and key not in self._pinned]
        return keys[::-1]

    async def _update(self, key: ModelVersion, instead_of: Sequence[ModelVersion] = ()) -> bool:
        """Load a version, if its files have changed, and serve it `instead_of` others; return whether it is served."""
        folder = self._folder / str(key)
        found = await asyncio.to_thread(fingerprint, folder)
        served = self._served(key)
        if not found:
            if served:
                self._repository.mark(key, State.READY, REMOVED)
            return served is not None
        if self._seen.get(key) == found:
            return served is not None
        self._seen[key] = found
        previous = served or next(
            iter(model for model in self._repository.models if model.manifest.name == key.name), None
        )
        model = None
        try:
            bundle = await asyncio.to_thread(open_version, self._folder, key)
            if served and bundle.manifest == served.manifest:
                self._repository.mark(key, State.READY, "")
                return True
            if not served:
                self._repository.mark(key, State.LOADING, "")
            model = await asyncio.to_thread(load_model, bundle, self._options, previous=previous)
            await asyncio.to_thread(self._register, bundle.manifest)
        except Exception as error:
            if model is not None:
                await asyncio.to_thread(model.close)
            if isinstance(error, StatisticsUnavailable):
                del self._seen[key]  # the version may be good: it is tried again by the next scan
                self._statistics_log.log(f"{key.resource} is not served yet: {error}")
            else:
                if not isinstance(error, ValueError):
                    logger.exception("unexpected error while %s was loaded", folder)
                logger.error("%s failed to load: %s", key.resource, error)
            self._repository.mark(key, State.FAILED, str(error))
            return served is not None
        self._repository.add(model, instead_of)
        return True

    def _served(self, key: ModelVersion) -> ServedModel | None:
        try:
            return self._repository.find(key.name, key.version)
        except ModelNotFound:
            return None


def _key(model: ServedModel) -> ModelVersion:
    return model.manifest.model_version
