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
    """Answers for the server as a whole ("") and for each of its services, which are all well or all not."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._status = HealthCheckResponse.NOT_SERVING
        self._stopping = False
        self._changed = asyncio.Event()

    def set_serving(self) -> None:
        """From now on, all services are well."""
        self._set(HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """From now on, no service is; watchers are told, and then their streams end."""
        self._stopping = True
        self._set(HealthCheckResponse.NOT_SERVING)

    def _set(self, status: int) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: HealthCheckRequest, context: grpc.aio.ServicerContext) -> HealthCheckResponse:
        """The status now; NOT_FOUND for a service that is none of ours."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:100]!r}")
        return HealthCheckResponse(status=self._status)

    async def Watch(
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[HealthCheckResponse]:
        """The status now, and each time that it changes."""
        while True:
            changed = self._changed
            known = request.service in self._services
            yield HealthCheckResponse(status=self._status if known else HealthCheckResponse.SERVICE_UNKNOWN)
            if self._stopping:
                return
            await changed.wait()
