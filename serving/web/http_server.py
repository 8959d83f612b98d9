"""The HTTP server: listens on one port and drains, in the event loop of the gRPC server."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from email.utils import formatdate
from functools import partial

from starlette.types import ASGIApp
from uvicorn.config import Config

from serving.security.settings import TlsFiles
from serving.system.network import UNIX, format_address, free_unix_path, parse_address, resolve
from serving.web.protocol import Connection, ConnectionsState
from serving.web.settings import HttpLimits

BACKLOG = 1024


class HttpServer:
    """Serves an application: `listen`, then `drain`."""

    def __init__(self, app: ASGIApp, limits: HttpLimits) -> None:
        self._limits = limits
        self._state = ConnectionsState()
        self._config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_keep_alive=limits.idle_s,
        )
        self._config.load()
        self._servers: list[asyncio.Server] = []
        self._checking: asyncio.Task[None] | None = None

    async def listen(self, address: str, tls: TlsFiles | None, *, reuse_port: bool = False) -> str:
        """Listen on all addresses of HOST:PORT, or on unix:PATH.

        Args:
            reuse_port: whether other processes may listen on the same port.

        Returns:
            The URL, with the port that was taken; or unix:PATH.

        Raises:
            ValueError: if the certificate cannot be used.
            OSError: if one of the addresses cannot be used; `filename` is that address.
        """
        context = None
        if tls is not None:
            from serving.web.tls import server_context  # loads `cryptography`

            context = server_context(tls)
        bound: list[socket.socket] = []
        try:
            if address.startswith(UNIX):
                free_unix_path(address.removeprefix(UNIX))
                bound.append(_bind(socket.AF_UNIX, address.removeprefix(UNIX), address))
                url = address
            else:
                host, port = parse_address(address)
                for each in resolve(host):
                    family = socket.AF_INET6 if ":" in each else socket.AF_INET
                    bound.append(_bind(family, (each, port), format_address(each, port), reuse_port=reuse_port))
                    port = bound[-1].getsockname()[1]
                url = f"{'http' if context is None else 'https'}://{format_address(host, port)}"
        except OSError:
            for each_socket in bound:
                each_socket.close()
            raise
        self._tick()
        for each_socket in bound:
            self._servers.append(await self._serve(each_socket, context))
        self._checking = asyncio.create_task(self._check())
        return url

    async def drain(self, grace_s: float, cut_short: asyncio.Event) -> None:
        """Answer the requests in flight and stop.

        Args:
            grace_s: seconds after which requests in flight are cancelled.
            cut_short: cancels them at once.
        """
        for server in self._servers:
            server.close()
        self._state.draining = True
        deadline = asyncio.get_running_loop().time() + grace_s
        for connection in [*self._state.open]:
            if not connection.is_idle():
                connection.shutdown()  # its response says that the connection closes
        await _wait(cut_short, min(self._limits.drain_idle_s, grace_s), lambda: not self._state.open)
        for connection in [*self._state.open]:
            connection.shutdown()
        left_s = max(0.0, deadline - asyncio.get_running_loop().time())
        await _wait(cut_short, left_s, lambda: not self._state.open)
        for connection in [*self._state.open]:
            connection.transport.abort()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=1.0)
        if self._checking is not None:
            self._checking.cancel()

    async def _serve(self, bound: socket.socket, context: ssl.SSLContext | None) -> asyncio.Server:
        make = partial(Connection, self._limits, self._config, self._state)
        loop = asyncio.get_running_loop()
        handshake_s = None if context is None else self._limits.head_s
        create = loop.create_unix_server if bound.family == socket.AF_UNIX else loop.create_server
        return await create(make, sock=bound, ssl=context, ssl_handshake_timeout=handshake_s, backlog=BACKLOG)

    async def _check(self) -> None:
        """Check the times of all connections, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limits.check_s)
            self._tick()
            now = loop.time()
            for connection in [*self._state.open]:
                connection.check(now)

    def _tick(self) -> None:
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]


async def _wait(cut_short: asyncio.Event, seconds: float, done: Callable[[], bool]) -> None:
    """Wait until something is done, so many seconds have passed, or `cut_short` is set."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not done() and not cut_short.is_set() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.01)


def _bind(family: socket.AddressFamily, address: object, shown: str, *, reuse_port: bool = False) -> socket.socket:
    """A socket that is bound to an address; raises OSError with the address as it is shown."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if family != socket.AF_UNIX:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not to wait for connections that are closing
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)  # type: ignore[arg-type]
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        number = error.errno or errno.EADDRINUSE
        raise OSError(number, os.strerror(number), shown) from error
    return bound
