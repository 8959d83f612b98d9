"""Calls between the supervisor and one process: lines of JSON over a pair of sockets, in both directions.

A line is `{"id": N, "verb": NAME, "argument": …}`, or the response to it, `{"id": N, "result": …}` or
`{"id": N, "error": [KIND, MESSAGE]}`. The end of a process closes its socket, which ends `run` at the other end.
"""

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

Handler = Callable[[Any], Awaitable[Any]]
MAX_LINE_BYTES = 64 * 2**20
"""Longest line; the longest ones are metrics, of about 100 kB."""

logger = logging.getLogger(__name__)


class ChannelClosed(Exception):
    """The other process has ended."""


class RemoteError(Exception):
    """The other process raised an exception of this class name, with this message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Channel:
    """One end of the pair. All methods are for one event loop.

    Args:
        end: the socket of this end, which `run` closes.
        handlers: answer the calls of the other end, by verb.
    """

    def __init__(self, end: socket.socket, handlers: Mapping[str, Handler]) -> None:
        self._end = end
        self._handlers = handlers
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = itertools.count()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer and call until the other end is closed."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._end, limit=MAX_LINE_BYTES)
        try:
            while line := await reader.readline():
                self._receive(json.loads(line))
        except (ConnectionError, ValueError):  # it ended within a line
            logger.debug("the channel ended", exc_info=True)
        finally:
            writer, self._writer = self._writer, None
            for pending in self._pending.values():
                if not pending.done():
                    pending.set_exception(ChannelClosed())
            for task in self._tasks:
                task.cancel()
            writer.close()

    async def call(self, verb: str, argument: Any = None) -> Any:
        """Call the other end.

        Raises:
            RemoteError: if its handler raised an exception.
            ChannelClosed: if it has ended.
        """
        number = next(self._numbers)
        pending = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"id": number, "verb": verb, "argument": argument})
            return await pending
        finally:
            del self._pending[number]

    def notify(self, verb: str, argument: Any = None) -> None:
        """Call the other end without waiting for the response; nothing happens if it has ended."""
        with suppress(ChannelClosed):
            self._send({"id": next(self._numbers), "verb": verb, "argument": argument})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is None or self._writer.is_closing():
            raise ChannelClosed
        self._writer.write(json.dumps(message).encode() + b"\n")

    def _receive(self, message: dict[str, Any]) -> None:
        if "verb" in message:
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        pending = self._pending.get(message["id"])
        if pending is None or pending.done():  # the caller has stopped waiting, or does not want the result
            return
        if "error" in message:
            pending.set_exception(RemoteError(*message["error"]))
        else:
            pending.set_result(message["result"])

    async def _answer(self, message: dict[str, Any]) -> None:
        try:
            answer = {"result": await self._handlers[message["verb"]](message["argument"])}
        except Exception as error:
            answer = {"error": [type(error).__name__, str(error)]}
        with suppress(ChannelClosed):
            self._send({"id": message["id"], **answer})
