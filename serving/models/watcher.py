"""A folder models/NAME/VERSION in; new versions of it verified, loaded and swapped in while the server serves, out.

A version that cannot be used is refused, with the reason, and the old one goes on; it is tried again when its files
change, which a copy in progress does until it is whole. Versions whose folder is gone are replaced by the newest that
is there; if none is, what was loaded goes on, so that a file system that went away takes nothing with it.
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

GONE = "its folder is gone: it is served from memory until it is unloaded, or the server stops"

logger = logging.getLogger(__name__)


class ModelWatcher:
    """Keeps a repository as its folder is. All methods are for the event loop."""

    def __init__(
        self,
        repository: ModelRepository,
        folder: Path,
        wanted: Sequence[str],
        options: ServingOptions,
        register: Callable[[Manifest], None],
        keep: int = 1,
    ) -> None:
        """Take note of what the repository serves already.

        Args:
            wanted: "NAME" for its newest versions, or "NAME/VERSION"; empty for the newest versions of every name.
            register: makes the statistics know a version's classes before it serves; called in a thread. Raises
                ValueError if they do not fit what is known, StatisticsUnavailable if that cannot be written.
            keep: how many versions of a name are served, where none is named.
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
        self._asked = asyncio.Event()
        self._waiting = RateLimitedLogger(logger, logging.ERROR)  # for the statistics

    def ask(self) -> None:
        """Have `watch` look now."""
        self._asked.set()

    async def watch(self, poll_s: float) -> None:
        """Look at the folder again and again, and whenever asked to; until cancelled.

        Args:
            poll_s: seconds between two looks; 0 for only when asked.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), poll_s or None)
            self._asked.clear()
            try:
                await self.scan()
            except OSError as error:
                logger.warning("%s cannot be read (%s): what is loaded is served on", self._folder, error.strerror)
            except Exception:
                logger.exception("the model folder could not be looked at")

    async def scan(self) -> None:
        """Look at the folder once, and take into service what is new.

        Raises:
            OSError: if the folder cannot be read.
        """
        async with self._busy:
            names = set(await asyncio.to_thread(list_names, self._folder)) if self._all else set()
            for key in sorted(self._pinned):
                if key.name not in self._unloaded:
                    await self._take(key)
            for name in sorted((names | self._floating) - self._unloaded):
                await self._renew(name)

    async def load(self, name: str) -> None:
        """Serve "NAME" in its newest version, or "NAME/VERSION", if it is not served yet; its folder is then watched.

        Raises:
            ModelNotFound: if the folder has no such model.
            BundleError: if that version is refused.
            ValueError: if `name` is neither.
        """
        name, number = parse_short_name(name)
        async with self._busy:
            versions = await asyncio.to_thread(list_versions, self._folder / name)
            if not versions or (number and number not in versions):
                raise ModelNotFound(f"{self._folder} holds no {f'version {number}' if number else 'version'} of {name}")
            key = ModelVersion(name, number or versions[-1])
            if self._served(key) is None:
                self._seen.pop(key, None)  # what was refused is tried again
            self._unloaded.discard(name)
            if number:
                self._pinned.add(key)
                await self._take(key)
            else:
                self._floating.add(name)
                await self._renew(name)
            for status in self._repository.statuses:
                if status.version == key and status.state is State.FAILED:
                    raise BundleError(status.reason)

    async def release(self, version: ModelVersion) -> None:
        """Serve a version that `load` named no longer, unless it is among the newest that are served."""
        async with self._busy:
            self._pinned.discard(version)
            await self._renew(version.name)

    async def unload(self, name: str) -> None:
        """Serve "NAME" no longer, in no version, until `load` is called; callers that it has are answered.

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
        """Serve the newest versions of one name that can be used."""
        versions = await asyncio.to_thread(list_versions, self._folder / name)
        for key in [key for key in self._seen if key.name == name and key.version not in versions]:
            self._repository.forget(key, State.FAILED)
        good: list[ModelVersion] = []
        # an older version takes the place of one that is gone, never that of one that is bad
        candidates = versions if self._floats(name) else versions[-self._keep :]
        for number in reversed(candidates):
            if len(good) == self._keep:
                break
            others = [key for key in self._floats(name) if key not in good]
            others.sort(key=lambda key: key.version not in versions)  # those that are gone make room first
            key = ModelVersion(name, number)
            if await self._take(key, instead_of=others[self._keep - 1 - len(good) :]):
                good.append(key)
        surplus = [key for key in self._floats(name) if key not in good]
        if good:
            self._repository.retire(surplus, f"replaced by version {good[0].version}")
        for key in surplus:
            if good:
                self._seen.pop(key, None)
            else:
                self._repository.mark(key, State.READY, GONE)

    def _floats(self, name: str) -> list[ModelVersion]:
        """The versions of a name that are served because they were the newest, the newest first."""
        keys = [key for key in map(_key, self._repository.models) if key.name == name and key not in self._pinned]
        return keys[::-1]

    async def _take(self, key: ModelVersion, instead_of: Sequence[ModelVersion] = ()) -> bool:
        """Whether a version is served: already, or from now on, `instead_of` others."""
        folder = self._folder / str(key)
        found = await asyncio.to_thread(fingerprint, folder)
        served = self._served(key)
        if not found:
            if served:
                self._repository.mark(key, State.READY, GONE)
            return served is not None
        if self._seen.get(key) == found:
            return served is not None
        self._seen[key] = found
        alike = served or next(
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
            quiet = not self._repository.models
            model = await asyncio.to_thread(load_model, bundle, self._options, alike=alike, quiet=quiet)
            await asyncio.to_thread(self._register, bundle.manifest)
        except Exception as error:
            if model is not None:
                await asyncio.to_thread(model.close)
            if isinstance(error, StatisticsUnavailable):
                del self._seen[key]  # not the version's fault: tried again at the next look
                self._waiting.log(f"{key.resource} is refused for now: {error}")
            else:
                if not isinstance(error, ValueError):
                    logger.exception("%s could not be loaded", folder)
                logger.error("%s is refused: %s", key.resource, error)
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
