"""The addresses that a server listens on: gRPC, and HTTP beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.api.access import AccessControl
from serving.api.open_inference.inference import InferenceCalls
from serving.api.pawserve.classifier import ClassifierCalls
from serving.observability.observers import CallObserver
from serving.rpc.calls import CallInterceptor
from serving.rpc.classifier_service import ClassifierService
from serving.rpc.grpc_server import GrpcServer
from serving.rpc.health import HealthServicer
from serving.rpc.inference_service import InferenceService
from serving.settings import Settings
from serving.startup import StartupError, listen_errors
from serving.system.network import UNIX, format_address, parse_address
from serving.web.settings import HttpLimits

if TYPE_CHECKING:
    from serving.web.http_server import HttpServer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the listeners pass their calls to."""

    classifier: ClassifierService
    inference: InferenceService
    health: HealthServicer
    interceptor: CallInterceptor
    classifier_calls: ClassifierCalls
    inference_calls: InferenceCalls
    access: AccessControl
    observers: Sequence[CallObserver]
    stopping: Callable[[], bool]
    """Whether the server is about to stop."""


class Listeners:
    """The gRPC server and the HTTP server of one server: `listen`, then `drain`."""

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._services = services
        self._grpc: GrpcServer
        self._http: HttpServer | None = None

    async def listen(self) -> tuple[str, str]:
        """Listen.

        Returns:
            HOST:PORT or unix:PATH of gRPC, and the URL of HTTP; empty without it.

        Raises:
            StartupError: if an address cannot be used; HTTP's only if the settings require it.
            ValueError: if a certificate or an origin is malformed.
        """
        settings, services = self._settings, self._services
        connections = settings.connections.fit_open_files(settings.max_http_connections)
        self._grpc = GrpcServer(
            services.classifier,
            services.inference,
            services.health,
            interceptor=services.interceptor,
            options=connections.grpc_options(reuse_port=settings.reuse_port),
            reflection=settings.reflection,
        )
        with listen_errors(settings.listen, "--listen"):
            port = await self._grpc.listen(settings.listen, settings.security.tls)
        try:
            http_url = await self._listen_http(settings.http.listen) if settings.http.listen is not None else ""
        except BaseException:
            await self._grpc.drain(0, asyncio.Event())
            raise
        if settings.listen.startswith(UNIX):
            return settings.listen, http_url
        return format_address(parse_address(settings.listen)[0], port), http_url

    async def drain(self, grace_s: float, cut_short: asyncio.Event) -> None:
        """Finish the calls in flight and stop listening.

        Args:
            grace_s: seconds after which calls in flight are cancelled.
            cut_short: cancels them at once.
        """
        drains = [self._grpc.drain(grace_s, cut_short)]
        if self._http is not None:
            drains.append(self._http.drain(grace_s, cut_short))
        await asyncio.gather(*drains)

    async def _listen_http(self, listen: str) -> str:
        from serving.web.app import make_app  # loads Starlette
        from serving.web.http_server import HttpServer  # loads uvicorn

        settings, services = self._settings, self._services
        limits = HttpLimits(
            max_connections=settings.max_http_connections,
            unread_s=settings.connections.keepalive_timeout_s,
            max_body_bytes=settings.connections.max_message_bytes,
            max_bodies_bytes=settings.max_bytes_in_flight,
        )
        app = make_app(
            listen,
            settings.http.origins,
            limits,
            access=services.access,
            observers=services.observers,
            classifier=services.classifier_calls,
            inference=services.inference_calls,
            stopping=services.stopping,
        )
        server = HttpServer(app, limits)
        try:
            with listen_errors(listen, "--http"):
                url = await server.listen(listen, settings.security.tls, reuse_port=settings.reuse_port)
        except StartupError as error:
            if settings.http.required:
                raise
            logger.warning("no HTTP: %s, or --http off", error)
            return ""
        self._http = server
        return url
