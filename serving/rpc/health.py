"""The `grpc.health.v1` service.

Differs from the one in grpcio-health-checking where that fails watchers: there, after the end of one Watch the other
watchers of the same service are no longer notified, and watchers keep a stopping server from stopping until its grace
period is over. Here all watchers are notified, and their streams end at the stop.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Health of the server ("") and its services, which all have one status, and of each model.

    Args:
        services: full names of the services.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._models: dict[str, bool] = {}  # every name that was ever served -> whether it is served now
        self._status: int = HealthCheckResponse.NOT_SERVING
        self._stopping = False
        self._changed = asyncio.Event()

    def set_serving(self) -> None:
        """Report all services as serving."""
        self._status = HealthCheckResponse.SERVING
        self._notify()

    def set_models(self, served: Iterable[str]) -> None:
        """Report these models as serving, and those of earlier calls as not serving."""
        self._models = {**dict.fromkeys(self._models, False), **dict.fromkeys(served, True)}
        self._notify()

    def stop(self) -> None:
        """Report everything as not serving, then end the streams of watchers."""
        self._stopping = True
        self._status = HealthCheckResponse.NOT_SERVING
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _status_of(self, service: str) -> int | None:
        """None for an unknown service."""
        if service in self._services or self._models.get(service):
            return self._status
        not_serving: int = HealthCheckResponse.NOT_SERVING
        return not_serving if service in self._models else None

    async def Check(self, request: HealthCheckRequest, context: grpc.aio.ServicerContext) -> HealthCheckResponse | None:
        """The current status; NOT_FOUND for an unknown service."""
        status = self._status_of(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details(f"there is no service {request.service[:100]!r}")
            return None
        return HealthCheckResponse(status=status)

    async def Watch(
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[HealthCheckResponse]:
        """The current status, and each change of it."""
        sent = None
        while True:
            changed = self._changed
            status = self._status_of(request.service)
            status = HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
            if status != sent:
                yield HealthCheckResponse(status=status)
                sent = status
            if self._stopping:
                return
            await changed.wait()
