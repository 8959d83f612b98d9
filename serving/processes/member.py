"""The server in one of several processes, in its calls from and to the supervisor."""

import asyncio
import logging
import socket
from collections.abc import Collection, Sequence
from typing import Any

from serving.bundle.manifest import BundleError
from serving.bundle.model_version import ModelVersion
from serving.models.control import ModelControl, NamesListener
from serving.models.repository import ModelNotFound, ModelRepository, State, VersionStatus
from serving.models.watcher import ModelWatcher
from serving.process import Stages, run
from serving.processes.channel import Channel, ChannelClosed, RemoteError
from serving.processes.statuses import to_rows
from serving.server import Server
from serving.settings import Settings

logger = logging.getLogger(__name__)

LOAD, UNLOAD = "load", "unload"
_ERRORS: dict[str, type[Exception]] = {"ModelNotFound": ModelNotFound, "BundleError": BundleError}


class Member(Stages):
    """The server in this process, as one of several.

    Args:
        end: the socket to the supervisor.
    """

    def __init__(self, end: socket.socket) -> None:
        self._server: Server
        self._control: SharedModels
        self._channel = Channel(
            end,
            {
                "metrics": self._metrics,
                "models": self._models,
                "change": self._change,
                "served": self._served,
                "labelled": self._labelled,
            },
        )

    def run(self, settings: Settings) -> None:
        """Serve until SIGTERM. Raises as `serving.process.run`."""
        run(settings, self)

    def make_server(self, settings: Settings) -> Server:
        """A server whose clients see the models of all processes."""
        self._reading = asyncio.get_running_loop().create_task(self._channel.run())
        self._server = Server(settings, self._make_control)
        return self._server

    async def loaded(self, server: Server) -> None:
        """Wait until all processes have loaded the models; then make the changes that clients have asked for before."""
        server.feedback.shadows.on_unknown = self._tell_labelled
        for change in await self._tell("loaded"):
            try:
                await self._change(change)
            except (ModelNotFound, BundleError) as error:
                logger.warning("%s %s, which a client asked for before: %s", *change, error)

    async def serving(self, server: Server) -> None:
        """Tell the supervisor that this process listens."""
        await self._tell("serving", server.describe())

    async def failed(self, reason: str) -> None:
        """Tell the supervisor why this process ends."""
        await self._tell("failed", reason)

    def _tell_labelled(self, ids: Sequence[bytes]) -> None:
        """Tell the other processes which predictions were labelled: one of them may have the shadow's result."""
        self._channel.notify("labelled", [id_.hex() for id_ in ids])

    async def _labelled(self, ids: list[str]) -> None:
        self._server.feedback.shadows.recorded_elsewhere(map(bytes.fromhex, ids))

    async def _tell(self, verb: str, argument: Any = None) -> Any:
        try:
            return await self._channel.call(verb, argument)
        except ChannelClosed:  # the supervisor has ended, so a signal is about to stop this process
            await asyncio.Event().wait()

    def _make_control(self, repository: ModelRepository, watcher: ModelWatcher) -> ModelControl:
        self._control = SharedModels(repository, watcher, self._channel)
        return self._control

    async def _metrics(self, _: Any) -> Any:
        from serving.processes.metrics import to_families  # loads `prometheus_client`

        return await asyncio.to_thread(to_families, self._server.observability.registry)

    async def _models(self, _: Any) -> Any:
        return to_rows(self._server.repository.statuses)

    async def _change(self, change: list[str]) -> None:
        verb, name = change
        watcher = self._server.watcher
        await (watcher.load if verb == LOAD else watcher.unload)(name)

    async def _served(self, names: list[str]) -> None:
        self._control.report(names)


class SharedModels(ModelControl):
    """The models of all processes."""

    def __init__(self, repository: ModelRepository, watcher: ModelWatcher, channel: Channel) -> None:
        super().__init__(repository, watcher)
        self._channel = channel
        self.report: NamesListener = lambda names: None
        """Reports the names that all processes serve."""

    async def statuses(self) -> list[VersionStatus]:
        """All known versions of all processes; those that this process serves have their model."""
        try:
            rows = await self._channel.call("models")
        except ChannelClosed:  # this process is about to stop
            return await super().statuses()
        own = {status.version: status.model for status in self.repository.statuses}
        keys = [ModelVersion(name, version) for name, version, *_ in rows]
        return [
            VersionStatus(key, State(state), reason, own.get(key))
            for key, (_, _, state, reason) in zip(keys, rows, strict=True)
        ]

    async def load(self, name: str) -> None:
        """Load a model in all processes."""
        await super().load(name)
        await self._change_others(LOAD, name)

    async def unload(self, name: str) -> None:
        """Unload a model in all processes."""
        await super().unload(name)
        await self._change_others(UNLOAD, name)

    async def _change_others(self, verb: str, name: str) -> None:
        try:
            await self._channel.call("change", [verb, name])
        except RemoteError as error:
            raise _ERRORS.get(error.kind, RuntimeError)(f"another process failed: {error}") from error

    def publish(self, names: Collection[str], listener: NamesListener) -> None:
        """Tell the supervisor, which answers with the names that all processes serve."""
        self.report = listener
        self._channel.notify("names", sorted(names))
