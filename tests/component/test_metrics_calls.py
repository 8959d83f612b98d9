"""Metrics of rejected calls, of streams and of versions, and what is loaded without metrics."""

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from serving.client import AsyncClient, Client
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.images import RED
from tests.support.servers import observed_server
from tests.support.waiting import LIMIT_S, eventually

MODEL = {"model": "colours", "version": "1"}
CLASSIFY = {"method": "pawserve.v1.Classifier/Classify"}


def test_a_call_whose_request_grpc_rejects_is_counted_and_logged(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    limits = ("--max-message-mib", 1, "--max-image-mib", 1, "--access-log")
    with observed_server(tmp_path, *limits) as server:
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/pawserve.v1.Classifier/Classify")(bytes(2**20 + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert eventually(lambda: server.metric("pawserve_requests_total", **CLASSIFY, code="CANCELLED") == 1)
        assert server.metric("pawserve_requests_in_flight", **CLASSIFY) == 0
        assert eventually(lambda: "Classify CANCELLED" in server.process.stderr)
        assert "ended before its request was read: it is larger than --max-message-mib" in server.process.stderr


def test_a_request_of_a_stream_that_grpc_rejects_is_counted_and_logged(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    stream = {"method": "pawserve.v1.Classifier/ClassifyStream"}
    with observed_server(tmp_path, "--max-message-mib", 1, "--max-image-mib", 1) as server:
        with grpc.insecure_channel(server.address) as channel:
            requests = (
                pb.ClassifyStreamRequest(id=str(len(image)), image=pb.ImageInput(content=image))
                for image in (RED, RED, bytes(2**20))
            )
            with pytest.raises(grpc.RpcError) as caught:
                list(pb_grpc.ClassifierStub(channel).ClassifyStream(requests))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert eventually(lambda: server.metric("pawserve_requests_total", **stream, code="CANCELLED") == 1)
        assert eventually(
            lambda: "after its first 2 requests: the next one is larger than --max-message-mib" in server.process.stderr
        )


def test_streams_whose_results_were_all_read_are_counted_as_ok(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    stream = {"method": "pawserve.v1.Classifier/ClassifyStream"}

    async def classify(address: str) -> None:
        async with AsyncClient(address, timeout_s=LIMIT_S) as client:
            for count in range(1, 31):
                assert len([result async for result in client.classify_many([RED] * count)]) == count

    with observed_server(tmp_path) as server:
        asyncio.run(classify(server.address))
        with Client(server.address, timeout_s=LIMIT_S) as client:
            for _ in range(10):
                assert len(list(client.classify_many([RED] * 5))) == 5
        assert eventually(lambda: server.metric("pawserve_requests_in_flight", **stream) == 0)
        assert server.metric("pawserve_requests_total", **stream, code="OK") == 40
        assert not server.metric("pawserve_requests_total", **stream, code="CANCELLED")


def test_loaded_and_failed_versions_are_reported(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with observed_server(tmp_path, "--poll-seconds", 0.1) as server:
        assert server.metric("pawserve_model_state", **MODEL, state="ready") == 1
        assert server.metric("pawserve_model_loads_total", model="colours") == 1
        write_bundle(tmp_path / "models", version=2, content=b"no model")
        refused = {"model": "colours", "version": "2", "state": "refused"}
        assert eventually(lambda: server.metric("pawserve_model_state", **refused) == 1)
        refusals = server.metric("pawserve_model_refusals_total", model="colours")
        assert refusals is not None
        assert refusals >= 1
        write_bundle(tmp_path / "models", version=3)
        assert eventually(lambda: server.metric("pawserve_model_loads_total", model="colours") == 2)
        with Client(server.address, timeout_s=LIMIT_S) as client:
            client.classify([RED])
        assert eventually(lambda: server.metric("pawserve_rows_total", model="colours", version="3") == 1)


def test_libraries_of_disabled_observability_are_not_loaded() -> None:
    program = (
        "import sys, serving.server; from serving.observability.observers import Observability;"
        "from serving.observability.settings import ObservabilitySettings;"
        "Observability(ObservabilitySettings());"
        "print([name for name in sys.modules if name.split('.')[0] in ('prometheus_client', 'opentelemetry')])"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
