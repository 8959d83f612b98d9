"""The health service notifies every watcher, and none keeps a server from stopping."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from serving.rpc.health import HealthServicer
from tests.support.waiting import LIMIT_S


async def watching(stub: health_pb2_grpc.HealthStub, service: str = "") -> AsyncIterator[int]:
    async for response in stub.Watch(HealthCheckRequest(service=service), timeout=LIMIT_S):
        yield response.status


async def scenario() -> None:
    health = HealthServicer(["pawserve.v1.Classifier"])
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        leaving, staying = watching(stub), watching(stub)
        other = watching(stub, "pawserve.v1.Classifier")
        assert [await anext(watcher) for watcher in (leaving, staying, other)] == [HealthCheckResponse.NOT_SERVING] * 3
        health.set_serving()
        assert [await anext(watcher) for watcher in (leaving, staying, other)] == [HealthCheckResponse.SERVING] * 3
        assert (await stub.Check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(HealthCheckRequest(service="birds"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert await anext(watching(stub, "birds")) == HealthCheckResponse.SERVICE_UNKNOWN

        await leaving.aclose()
        health.stop()
        stopped = asyncio.create_task(server.stop(grace=100 * LIMIT_S))
        for watcher in (staying, other):
            assert [status async for status in watcher] == [HealthCheckResponse.NOT_SERVING]
        await asyncio.wait_for(stopped, LIMIT_S)


def test_watchers_are_notified_and_their_streams_end_at_the_stop() -> None:
    asyncio.run(scenario())
