"""The grpc.health.v1 service. Differs from the one in grpcio-health-checking where that fails its watchers.

There, the end of one Watch makes the other watchers of the same service deaf; and watchers keep a server that is asked
to stop from stopping, until its grace period is over. Here all are told, and at the stop their streams end.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers for the server as a whole ("") and its services, which are all well or all not, and for each model."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._models: dict[str, bool] = {}  # whether each name that was ever served is served now
        self._status: int = HealthCheckResponse.NOT_SERVING
        self._stopping = False
        self._changed = asyncio.Event()

    def set_serving(self) -> None:
        """From now on, all services are well."""
        self._set(HealthCheckResponse.SERVING)

    def set_models(self, served: Iterable[str]) -> None:
        """From now on, these models are well, and others that were before are not."""
        self._models = {**dict.fromkeys(self._models, False), **dict.fromkeys(served, True)}
        self._tell()

    def stop(self) -> None:
        """From now on, no service is; watchers are told, and then their streams end."""
        self._stopping = True
        self._set(HealthCheckResponse.NOT_SERVING)

    def _set(self, status: int) -> None:
        self._status = status
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _status_of(self, service: str) -> int | None:
        """None for a service that is none of ours."""
        if service in self._services or self._models.get(service):
            return self._status
        not_serving: int = HealthCheckResponse.NOT_SERVING
        return not_serving if service in self._models else None

    async def Check(self, request: HealthCheckRequest, context: grpc.aio.ServicerContext) -> HealthCheckResponse:
        """The status now; NOT_FOUND for a service that is none of ours."""
        status = self._status_of(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:100]!r}")
        return HealthCheckResponse(status=status)

    async def Watch(
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[HealthCheckResponse]:
        """The status now, and each time that it changes."""
        told = None
        while True:
            changed = self._changed
            status = self._status_of(request.service)
            status = HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
            if status != told:
                yield HealthCheckResponse(status=status)
                told = status
            if self._stopping:
                return
            await changed.wait()
