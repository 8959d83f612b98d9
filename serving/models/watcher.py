"""Replacement of model versions while the server serves, as the model folder changes.

The repository serves what a server that is started on the same folder would serve. Where that one would not start, a
name that the folder holds stays in service:

- A new version is verified and loaded, and then replaces the old one. One that fails to load is reported with the
  reason, and the old one stays. It is tried again when its files change, as they do until a copy is complete, and after
  pauses that grow, since the reason may be outside its files.
- The version that was promoted is loaded, if it is not among the newest, and then becomes primary in one step. A choice
  that cannot be followed is reported, and the primary version stays.
- A shadow version of the repository is loaded when its folder is there, and retired when it is not. It is never among
  the newest versions of its name, and one that fails to load is reported and changes nothing else.
- If the folder of a served version is removed, the newest version of the same name that is there replaces it. A name
  without versions is no longer served. If the folder holds no version of any name, all stay in service, so that a file
  system that fails takes no model away.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from serving.bundle.folder import describe_unserved, list_names, list_versions, without_shadow
from serving.bundle.manifest import BundleError, Manifest
from serving.bundle.model_version import ModelVersion, parse_short_name, resource_name
from serving.models.loader import ServedModel, ServingOptions
from serving.models.primaries import Primaries
from serving.models.repository import ModelNotFound, ModelRepository, State
from serving.models.version_loads import REMOVED, VersionLoads
from serving.system.logs import RateLimitedLogger

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with the versions that the repository serves.

        Args:
            wanted: "NAME" for its newest versions, or "NAME/VERSION"; empty for the newest versions of every name.
            register: registers the classes of a version in the statistics before it is served; called in a thread.
                Raises ValueError if they differ from those that are registered, StatisticsUnavailable if they cannot
                be written.
            keep: number of newest versions of a name to serve if no version is named.
            clock: returns seconds.
        """
        self._repository = repository
        self._folder = folder
        self._all = not wanted
        self._pinned = {ModelVersion(name, number) for name, number in map(parse_short_name, wanted) if number}
        self._floating = {name for name, number in map(parse_short_name, wanted) if not number}
        self._unloaded: set[str] = set()
        self._keep = keep
        self._versions = VersionLoads(repository, folder, options, register, clock)
        self._primaries = Primaries(repository, folder, self._versions)
        self._shadows = {name: shadow.version for name, shadow in repository.shadows.items()}
        self._unserved: set[str] = set()
        """Problems of the folder's entries that were reported last."""
        self._busy = asyncio.Lock()
        self._requested = asyncio.Event()
        self._log = RateLimitedLogger(logger, logging.WARNING)

    def request_scan(self) -> None:
        """Make `watch` scan the folder now, and try versions again that failed to load."""
        self._requested.set()

    async def watch(self, poll_s: float) -> None:
        """Scan the folder periodically, and when `request_scan` is called, until the task is cancelled.

        Args:
            poll_s: seconds between two scans; 0 for scans on request only.
        """
        await self._report_unserved()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._requested.wait(), poll_s or None)
            retry = self._requested.is_set()
            self._requested.clear()
            try:
                await self.scan(retry=retry)
            except OSError as error:
                self._log_unreadable(self._folder, error)
            except Exception as error:
                self._log.log(f"{self._folder} could not be scanned: {error!r}")
                logger.debug("the scan failed", exc_info=True)

    async def scan(self, *, retry: bool = False) -> None:
        """Scan the folder once, and load what is new.

        Args:
            retry: try versions again that failed to load, without a pause.

        Raises:
            OSError: if the folder cannot be read.
        """
        async with self._busy:
            names = set(self._floating)
            listed: set[str] = set()
            if self._all:
                listed = set(await asyncio.to_thread(list_names, self._folder))
                names |= listed
                names |= {status.version.name for status in self._repository.statuses}
            for key in sorted(self._pinned):
                if key.name not in self._unloaded:
                    await self._versions.update(key, retry=retry)
            for name in sorted({key.name for key in self._pinned} - names - self._unloaded):
                with contextlib.suppress(OSError):  # is reported when its versions are loaded
                    versions = await asyncio.to_thread(list_versions, self._folder / name)
                    await self._primaries.follow(name, versions, load=False)
            renewed = sorted(names - self._unloaded)
            empty = [name for name in renewed if not await self._renew(name, retry=retry)]
            if self._all and (len(empty) < len(renewed) or await self._holds_any(listed & self._unloaded)):
                for name in empty:
                    self._repository.set_primary(name, None)
                    self._repository.retire(self._newest_served(name), "its folder was removed")
            await self._update_shadows(self._shadows, retry=retry)
            await self._report_unserved()
            self._versions.forget_unserved()

    async def load_shadows(self) -> None:
        """Load the shadow versions that are in the folder; report those that are not, or fail to load."""
        async with self._busy:
            await self._update_shadows(self._shadows)

    async def load(self, name: str) -> None:
        """Serve "NAME" in its newest version, or "NAME/VERSION", if it is not served yet; its folder is then watched.

        If the task is cancelled, the version is loaded nevertheless.

        Raises:
            ModelNotFound: if the folder has no such model.
            BundleError: if that version fails to load.
            ValueError: if `name` is neither.
        """
        await asyncio.shield(asyncio.create_task(self._load(*parse_short_name(name))))

    async def _load(self, name: str, number: int | None) -> None:
        async with self._busy:
            versions = await asyncio.to_thread(list_versions, self._folder / name)
            if not versions or (number and number not in versions):
                raise ModelNotFound(f"{self._folder} holds no {f'version {number}' if number else 'version'} of {name}")
            key = ModelVersion(name, number or (without_shadow(versions, self._shadows.get(name)) or versions)[-1])
            self._unloaded.discard(name)
            if number:
                if not self._repository.is_shadow(key):
                    self._pinned.add(key)
                await self._versions.update(key, retry=True)
            else:
                self._floating.add(name)
                await self._renew(name, retry=True)
                await self._update_shadows([name])
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
            self._repository.retire(keys, "unloaded")
            logger.info("%s was unloaded", resource_name(name))

    async def _update_shadows(self, names: Iterable[str], *, retry: bool = False) -> None:
        """Serve the shadow versions of these names that are in the folder, and retire those that are not."""
        for key in sorted(self._shadows[name] for name in names if name in self._shadows):
            if key.name in self._unloaded or self._repository.is_primary(key):
                continue
            try:
                versions = await asyncio.to_thread(list_versions, self._folder / key.name)
            except OSError as error:
                self._log_unreadable(self._folder / key.name, error)
                continue
            if key.version in versions:
                await self._versions.update(key, retry=retry)
            elif self._versions.served(key):
                self._versions.forget_failure(key)
                self._repository.retire([key], "its folder was removed")
            else:
                self._report_missing(key, versions)

    def _report_missing(self, key: ModelVersion, versions: Sequence[int]) -> None:
        """Report a shadow version that is not in the folder, once."""
        held = f"only {', '.join(map(str, versions))}" if versions else "and none of another number"
        reason = f"{self._folder / key.name} holds no version {key.version}, {held}: it is loaded once it is there"
        status = next((each for each in self._repository.statuses if each.version == key), None)
        if status is None or (status.state is State.FAILED and status.reason != reason):
            logger.error("the shadow version %s is missing: %s", key.resource, reason)
            self._repository.mark(key, State.FAILED, reason)

    async def _renew(self, name: str, *, retry: bool = False) -> bool:
        """Serve the newest versions of one name that load; return whether there are versions, or may be."""
        try:
            versions = await asyncio.to_thread(list_versions, self._folder / name)
        except OSError as error:
            self._log_unreadable(self._folder / name, error)
            return True
        self._versions.forget_failures(name, versions)
        await self._primaries.follow(name, versions, load=True, retry=retry)
        versions = without_shadow(versions, self._shadows.get(name))
        good: list[ModelVersion] = []
        # an older version replaces one that was removed, never one that failed to load
        candidates = versions if self._newest_served(name) else versions[-self._keep :]
        for number in reversed(candidates):
            if len(good) == self._keep:
                break
            others = [key for key in self._newest_served(name) if key not in good]
            others.sort(key=lambda key: key.version not in versions)  # removed ones are replaced first
            key = ModelVersion(name, number)
            if await self._versions.update(key, instead_of=others[self._keep - 1 - len(good) :], retry=retry):
                good.append(key)
        surplus = [key for key in self._newest_served(name) if key not in good]
        if good:
            self._repository.retire(surplus, f"replaced by version {good[0].version}")
        else:
            for key in surplus:
                self._repository.mark(key, State.READY, REMOVED)
        return bool(versions)

    async def _holds_any(self, names: Iterable[str]) -> bool:
        """Whether the folder holds a version of one of these names."""
        return any([await asyncio.to_thread(list_versions, self._folder / name) for name in names])

    def _newest_served(self, name: str) -> list[ModelVersion]:
        """The versions of a name that are served because they are the newest, the newest first."""
        keys = [key for key in map(_key, self._repository.models) if key.name == name and key not in self._pinned]
        primary = self._repository.primary(name)
        return [key for key in reversed(keys) if key.version != primary and not self._repository.is_shadow(key)]

    async def _report_unserved(self) -> None:
        """Log entries of the folder that are never served, each once."""
        names = None if self._all else self._floating
        with contextlib.suppress(OSError):
            unserved = set(await asyncio.to_thread(describe_unserved, self._folder, names))
            for each in sorted(unserved - self._unserved):
                logger.warning("%s", each)
            self._unserved = unserved

    def _log_unreadable(self, path: Path, error: OSError) -> None:
        self._log.log(f"{path} cannot be read ({error.strerror}): the loaded models stay in service")


def _key(model: ServedModel) -> ModelVersion:
    return model.manifest.model_version
