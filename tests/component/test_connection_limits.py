"""Connections of a server: their maximum age, their number, and the limits of images sent over them."""

import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from serving.client import Client, ClientError
from tests.support.images import RED, encoded
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S, eventually


def test_images_beyond_the_limits_fail_and_the_others_do_not(models: Path, tmp_path: Path) -> None:
    limits = ("--max-pixels", 10_000, "--max-image-mib", 1, "--max-message-mib", 3)
    heavy = encoded(Image.effect_noise((900, 900), 90).convert("RGB"), "PNG")
    wide = encoded(Image.new("RGB", (101, 100), "red"), "PNG")
    fits = encoded(Image.new("RGB", (100, 100), "red"), "PNG")
    with running_server(models, tmp_path / "state", *limits) as address, Client(address, timeout_s=LIMIT_S) as client:
        results = client.classify([wide, fits]).results
        assert [getattr(result, "reason", "") for result in results] == ["TOO_LARGE", ""]
        assert "10,000" in results[0].message
        assert len(heavy) > 2**20
        (result,) = client.classify([heavy]).results
        assert "1,048,576" in result.message
        with pytest.raises(ClientError) as caught:
            client.classify([heavy] * 4)
        assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_connections_are_renewed_after_their_maximum_age_and_no_call_is_lost(models: Path, tmp_path: Path) -> None:
    """gRPC's client makes a new connection when the server has closed the old one."""
    age = ("--max-connection-age", 1, "--max-connection-age-grace", 5)
    with running_server(models, tmp_path / "state", *age) as address, grpc.insecure_channel(address) as channel:
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        with Client(address, timeout_s=LIMIT_S) as client:

            def reconnected() -> bool:
                client.classify([RED])
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
                ready = grpc.ChannelConnectivity.READY
                return ready in states and grpc.ChannelConnectivity.IDLE in states[states.index(ready) :]

            assert eventually(reconnected)


def test_connections_beyond_the_limit_are_closed_and_the_others_go_on(models: Path, tmp_path: Path) -> None:
    with (
        running_server(models, tmp_path / "state", "--max-connections", 2) as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        client.health()
        host, port = address.split(":")
        crowd = [socket.create_connection((host, int(port)), timeout=LIMIT_S) for _ in range(5)]
        ends = [connection.recv(1) for connection in crowd[1:]]  # the first is one of the two
        assert ends == [b""] * 4
        assert client.health() == "SERVING"
        for connection in crowd:
            connection.close()
