"""HTTP/1.1 on one connection: uvicorn's protocol with bounds for slow, silent and half-open clients.

`HttpServer` calls `check` about once a second; nothing here needs a timer of its own.
"""

import asyncio
import json
import socket
from collections import deque
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.api.errors import invalid
from serving.web.endpoints import CERTIFICATE_NAMES, TIMED_OUT
from serving.web.problems import CONTENT_TYPE, to_problem
from serving.web.settings import HttpLimits


class _HeadTooLarge(Exception):
    """The request line or the headers are larger than the limits."""


class ConnectionsState(ServerState):
    """State that the connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        """Whether each connection closes after its next response."""
        self.open: set[Connection] = set()


class Connection(HttpToolsProtocol):
    """One connection.

    A client has `head_s` for the request line and headers of each request, and `body_s` for its body plus a second for
    each `body_bytes_per_s` that has arrived. A response that the client does not read within `unread_s` ends the
    connection. When the client closes it, the request in progress is cancelled.
    """

    def __init__(self, limits: HttpLimits, config: Config, state: ConnectionsState) -> None:
        super().__init__(config, state, {})
        self._state = state
        self._limits = limits
        self._began = self.loop.time()
        self._head_since: float | None = self._began
        self._head_bytes = 0
        self._header_count = 0
        self._body_since = 0.0
        self._body_bytes = 0
        self._lingers_since: float | None = None
        self._unread_since: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._timed_out = False
        self._rejected = False
        self._certificate_names: tuple[str, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many connections."""
        super().connection_made(transport)
        self._state.open.add(self)
        if len(self._state.open) > self._limits.max_connections:
            self._rejected = True
            transport.abort()
            return
        bound = transport.get_extra_info("socket")
        if bound is not None and bound.family != socket.AF_UNIX:
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(self._limits.unread_s * 1000))
        self._certificate_names = certificate_names(transport.get_extra_info("peercert"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the client no longer waits for."""
        super().connection_lost(exc)
        self._state.open.discard(self)
        self._unset_keepalive_if_required()
        self.pipeline = deque()
        if self._task is not None and not self._task.done() and self.cycle and not self.cycle.response_complete:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        if self._rejected or self.parser is None:
            return
        super().data_received(data)
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_head_bytes and not self.transport.is_closing():
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_since = self.loop.time()
        self._head_bytes = self._header_count = 0
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[CERTIFICATE_NAMES] = self._certificate_names
        scope[TIMED_OUT] = self.has_timed_out

    def on_url(self, url: bytes) -> None:
        """The request line, or a part of it."""
        super().on_url(url)
        if len(self.url) > self._limits.max_url_bytes:
            self._head_bytes = self._limits.max_head_bytes + 1
            raise _HeadTooLarge

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._header_count += 1
        if self._header_count > self._limits.max_headers:
            self._head_bytes = self._limits.max_head_bytes + 1
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are complete: start to answer."""
        self._head_since = None
        self._head_bytes = 0
        self._lingers_since = None
        super().on_headers_complete()
        if self._state.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request has arrived."""
        self._lingers_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The response is written; what is left of the request is read and thrown away for a while."""
        if self.cycle.more_body:
            self._lingers_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read its response as fast as it is written."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read some of it."""
        self._unread_since = None
        super().resume_writing()

    def has_timed_out(self) -> bool:
        """Whether the request was cancelled because its body did not arrive in time."""
        return self._timed_out

    def is_idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or (self.cycle.response_complete and not self.pipeline)

    def check(self, now: float) -> None:
        """End what has exceeded its time; `now` is the loop's."""
        limits = self._limits
        bounds = (
            (self._head_since, limits.head_s),
            (self._unread_since, limits.unread_s),
            (self._lingers_since, limits.linger_s),
        )
        if any(since is not None and now - since > most_s for since, most_s in bounds):
            self.transport.abort()
        elif self._reads_body() and now - self._body_since > limits.body_s + self._body_bytes / limits.body_bytes_per_s:
            self._cancel_for_time()

    def _cancel_for_time(self) -> None:
        if self._task is not None and not self._timed_out:
            self._timed_out = True
            self._task.cancel()

    def _reads_body(self) -> bool:
        """Whether the request in progress waits for its body."""
        cycle = self.cycle
        return bool(cycle and cycle.more_body and not cycle.response_complete and not self.pipeline)

    def send_400_response(self, msg: str) -> None:
        """Reject what is not HTTP, or has too large headers."""
        if self._head_bytes > self._limits.max_head_bytes:
            status, message = 431, f"the request line and headers have more than {self._limits.max_head_bytes:,} bytes"
            message += f", or there are more than {self._limits.max_headers} headers"
        else:
            status, message = 400, "the bytes are not a request of HTTP/1.1"
        problem = {**to_problem(invalid("MESSAGE_INVALID", message, "")), "status": status}
        content = json.dumps(problem).encode()
        head = f"HTTP/1.1 {status} \r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {len(content)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + content)
        self.transport.close()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._body_since = self.loop.time()
        self._body_bytes = 0
        self._timed_out = False
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)


def certificate_names(certificate: Any) -> tuple[str, ...]:
    """The common name, then the alternative names, of a client's certificate, as `ssl` describes it."""
    if not certificate:
        return ()
    common = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return (*common[:1], *(value for _, value in certificate.get("subjectAltName", ())))
