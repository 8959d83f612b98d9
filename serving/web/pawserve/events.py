"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
import json
from asyncio import FIRST_COMPLETED, Queue, Task
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress

from google.protobuf.message import Message
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api.errors import ApiError, Code, to_api_error
from serving.web.messages import to_json
from serving.web.problems import to_problem

HEARTBEAT_S = 15.0
"""Time without an event after which a comment is sent, so that proxies keep the connection open."""
HEARTBEAT = Message()
Write = Callable[[Message], Awaitable[object]]


class EventStream(Response):
    """The messages that a call writes, as events of one name; `open` makes one.

    While the client does not read, the call waits.
    """

    media_type = "text/event-stream"

    def __init__(self, name: str, first: Message, more: "Queue[Message]", call: Task[None]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._name = name
        self._first = first
        self._more = more
        self._call = call
        self.failure: ApiError | None = None
        """Why the stream ended early, once it has."""

    @classmethod
    async def open(cls, name: str, call: Callable[[Write], Coroutine[None, None, None]]) -> "EventStream":
        """Start a call and wait for its first message.

        Raises:
            ApiError: if the server stops before that, and whatever the call raises.
        """
        messages: Queue[Message] = Queue(1)
        task = asyncio.create_task(call(messages.put))
        first = asyncio.create_task(messages.get())
        try:
            await asyncio.wait((task, first), return_when=FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            first.cancel()  # no effect if it is done
        if first.done() and not first.cancelled():
            return cls(name, first.result(), messages, task)
        await task
        raise ApiError(Code.UNAVAILABLE, "SERVER_STOPPING", "the server is shutting down", retry_after_s=1.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the call ends, or the client leaves and this is cancelled."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(send, _event(self._name, to_json(self._first)))
            while (message := await self._next()) is not None:
                await self._send(send, b":\n\n" if message is HEARTBEAT else _event(self._name, to_json(message)))
            if self.failure:
                problem = json.dumps(to_problem(self.failure), ensure_ascii=False).encode()
                await self._send(send, _event("error", problem))
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._call.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._call

    async def _next(self) -> Message | None:
        """The next message; HEARTBEAT if there is none for a while, None after the last one."""
        if self._more.empty() and not self._call.done():
            getting = asyncio.create_task(self._more.get())
            await asyncio.wait((getting, self._call), timeout=HEARTBEAT_S, return_when=FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            getting.cancel()
            if not self._call.done():
                return HEARTBEAT
        if not self._more.empty():
            return self._more.get_nowait()
        if isinstance(error := self._call.exception(), Exception):
            self.failure = to_api_error(error)
        return None

    @staticmethod
    async def _send(send: Send, content: bytes) -> None:
        await send({"type": "http.response.body", "body": content, "more_body": True})


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
