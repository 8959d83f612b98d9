"""How a server ends while something is in progress that does not end, or when it cannot serve any more."""

import os
import signal
import sqlite3
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from serving.client import Client, ClientError
from serving.engine.base import DeviceLost
from serving.engine.onnx import OnnxEngine
from tests.support.bundles import write_bundle
from tests.support.commands import WarmProcess, main_of
from tests.support.images import RED
from tests.support.servers import stoppable_server


def write_endless_version(models: Path, version: int) -> Path:
    """A version whose manifest is a pipe: whoever reads it waits for ever, as on a network disk that is gone."""
    folder = models / "colours" / f".{version}"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "model.json")
    return folder.rename(models / "colours" / str(version))


@pytest.mark.parametrize(("grace_s", "signals"), [(0.1, 1), (10_000, 2)])
def test_a_stop_ends_while_a_model_is_loaded(tmp_path: Path, grace_s: float, signals: int) -> None:
    write_bundle(tmp_path / "models")
    options = ("--poll-seconds", 0, "--grace", grace_s)
    with stoppable_server(tmp_path / "models", tmp_path / "state", *options) as (server, address):
        with Client(address) as client:
            client.classify([RED])
        manifest = write_endless_version(tmp_path / "models", 2) / "model.json"
        server.send_signal(signal.SIGHUP)
        with manifest.open("w"):  # opens when the server reads it
            for _ in range(signals):
                server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        assert "such as the load of a model" in server.stderr
    with (
        stoppable_server(tmp_path / "models", tmp_path / "state", "--model", "colours/1") as (_, address),
        Client(address) as client,
    ):
        (statistics,) = client.statistics()
    assert statistics.predictions == 1


def test_a_stop_ends_during_the_start(tmp_path: Path) -> None:
    manifest = write_endless_version(tmp_path / "models", 1) / "model.json"
    server = WarmProcess(
        main_of, "serving", "serve", "--models", tmp_path / "models", "--state", tmp_path, "--grace", 10_000
    )
    try:
        with manifest.open("w"):  # opens when the server reads it
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
    finally:
        server.close()


def test_a_stop_ends_while_the_statistics_cannot_be_written_and_says_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    options = ("--grace", 0.1, "--statistics", tmp_path / "statistics.sqlite")
    with (
        stoppable_server(tmp_path / "models", tmp_path / "state", *options) as (server, address),
        Client(address) as client,
        sqlite3.connect(tmp_path / "statistics.sqlite") as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        client.classify([RED])
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 1


def serve_on_a_lost_gpu(*arguments: object) -> int:
    """The command `serve` with an engine whose device is lost with the first image."""
    compute = OnnxEngine.run

    def run(self: OnnxEngine, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if images_NHWC.max() == 127:  # of the first run, before the server is ready
            return compute(self, images_NHWC)
        raise DeviceLost("the GPU fails all further calls of this process (cudaErrorIllegalAddress)")

    OnnxEngine.run = run  # type: ignore[method-assign]
    return main_of("serving", "serve", *arguments)


def test_a_lost_gpu_fails_the_request_and_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    folders = ("--models", tmp_path / "models", "--state", tmp_path / "state")
    server = WarmProcess(serve_on_a_lost_gpu, *folders, "--listen", "127.0.0.1:0")
    try:
        address = server.printed(r"ready on (127\.0\.0\.1:\d+)")[1]
        with Client(address) as client, grpc.insecure_channel(address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            (result,) = client.classify([RED]).results
            assert isinstance(result, ClientError)
            assert result.reason == "ENGINE_FAILED"
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.wait() == 1
        assert "fails all further calls of this process (cudaErrorIllegalAddress)" in server.stderr.splitlines()[-1]
    finally:
        server.close()
