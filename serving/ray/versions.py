"""Model versions that replicas load because clients name them, a few at a time.

Ray tracks which replica holds which version (model multiplexing) and forwards calls with the metadata
`multiplexed_model_id` to a replica that holds it. The value is a resource name, models/NAME/versions/VERSION.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from ray import serve

from serving.bundle.folder import list_versions
from serving.bundle.manifest import BundleError
from serving.bundle.model_version import ModelVersion, parse_resource, parse_short_name
from serving.models.repository import ModelNotFound, ModelRepository, State
from serving.models.watcher import ModelWatcher
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.rpc.handlers import Behaviour, wrap_handler

logger = logging.getLogger(__name__)


class Lease:
    """A version that is served because a client named it, until Ray deletes this object."""

    def __init__(self, release: Callable[[], Awaitable[None]]) -> None:
        self._release: Callable[[], Awaitable[None]] | None = release
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        """Release the version. Ray calls this in a thread to load another version; Python may call it again."""
        release, self._release = self._release, None
        if release is not None:
            with suppress(RuntimeError):  # the loop, and so the replica, has ended
                self._loop.call_soon_threadsafe(lambda: self._loop.create_task(release()))  # type: ignore[arg-type]


class VersionsOnDemand:
    """Loads the versions that clients name.

    Args:
        repository: the models that are served.
        watcher: loads and releases versions.
        folder: the model repository's folder.
        wanted: the values of `--model`; a name with a version allows no other versions.
        most: most versions to load.
    """

    def __init__(
        self, repository: ModelRepository, watcher: ModelWatcher, folder: Path, wanted: tuple[str, ...], most: int
    ):
        self._repository = repository
        self._watcher = watcher
        self._folder = folder
        named = [parse_short_name(each) for each in wanted]
        self._names = {name for name, version in named if version is None} if named else None  # None: all
        self._leased: set[ModelVersion] = set()

        async def take(resource: str) -> Lease:  # a function, since Ray stores its state in an attribute of it
            return await self._take(resource)

        self._lease = serve.multiplexed(take, max_num_models_per_replica=most)

    async def load(self, resource: str) -> None:
        """Load a version if the folder has it and it did not fail before. The call itself reports unknown ones."""
        try:
            name, number = parse_resource(resource)
        except ValueError:  # the call itself reports it
            return
        if not number or (self._names is not None and name not in self._names):
            return
        version = ModelVersion(name, number)
        if version not in self._leased:
            states = {status.version: status.state for status in self._repository.statuses}
            if states.get(version) in (State.READY, State.FAILED):
                return
            if number not in await asyncio.to_thread(list_versions, self._folder / name):
                return
        with suppress(ModelNotFound, BundleError):  # its folder is gone, or it is invalid, which the log reports
            await self._lease(resource)

    async def _take(self, resource: str) -> Lease:
        name, number = parse_resource(resource)
        assert number is not None
        version = ModelVersion(name, number)
        await self._watcher.load(str(version))
        self._leased.add(version)
        logger.info("loaded %s, which a client named", resource)
        return Lease(partial(self._give_back, version))

    async def _give_back(self, version: ModelVersion) -> None:
        self._leased.discard(version)
        await self._watcher.release(version)


class LoadNamedVersions(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Loads the version that a request names before its method runs. Must be the last interceptor."""

    def __init__(self, versions: VersionsOnDemand) -> None:
        self._versions = versions

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler, which loads the version first."""
        handler = await continuation(details)
        wrap = self._load_before_each if handler.request_streaming else self._load_before
        return wrap_handler(handler, wrap, handler.request_deserializer)

    def _load_before(self, behaviour: Behaviour) -> Behaviour:
        async def call(request: Any, context: Any) -> Any:
            await self._load_named(request)
            return await behaviour(request, context)

        return call

    def _load_before_each(self, behaviour: Behaviour) -> Behaviour:
        return lambda requests, context: behaviour(requests, _ReadContext(context, self._load_named))

    async def _load_named(self, request: Any) -> None:
        if isinstance(request, pb.ClassifyRequest | pb.ClassifyStreamRequest):
            request.model = request.model or serve.get_multiplexed_model_id()
            if request.model:
                await self._versions.load(request.model)


class _ReadContext:
    """The context of a stream, which passes each request to a function when it is read."""

    def __init__(self, context: Any, on_read: Callable[[Any], Awaitable[None]]) -> None:
        self._context = context
        self._on_read = on_read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        """The next request; EOF after the last one."""
        request = await self._context.read()
        await self._on_read(request)
        return request
