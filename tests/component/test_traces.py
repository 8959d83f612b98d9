"""Traces of calls to a real server, by OpenTelemetry's conventions."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from serving.client import Client, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from tests.support.bundles import write_bundle
from tests.support.commands import run_cold
from tests.support.http import ask
from tests.support.images import RED
from tests.support.servers import http_server, observed_server
from tests.support.statistics import stub_of
from tests.support.waiting import LIMIT_S

CLASSIFY = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)], views=3)
METHOD = "pawserve.v1.Classifier/Classify"
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """An OTLP collector that keeps the spans it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self._lock = Lock()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._lock:
            for group in request.resource_spans:
                self.resources.append({pair.key: pair.value.string_value for pair in group.resource.attributes})
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def attributes(span: Span) -> dict[str, Any]:
    return {
        pair.key: pair.value.int_value if pair.value.HasField("int_value") else pair.value.string_value
        for pair in span.attributes
    }


def test_spans_are_children_of_the_client_s_span(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    write_bundle(tmp_path / "models")
    serving = observed_server(tmp_path, "--otlp-endpoint", endpoint, "--max-batch-size", 2)
    with serving as server, stub_of(server.address) as stub:
        parent = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")
        stub.Classify(CLASSIFY, metadata=[parent, ("x-request-id", "web-19")], timeout=LIMIT_S)
        with pytest.raises(grpc.RpcError):
            stub.Classify(pb.ClassifyRequest(images=CLASSIFY.images, views=99), timeout=LIMIT_S)
    good, rejected = kept.named(METHOD)
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert good.kind == Span.SPAN_KIND_SERVER
    assert attributes(good)["pawserve.request_id"] == "web-19"
    assert attributes(good)["pawserve.rows"] == 3
    convention = {"rpc.system": "grpc", "rpc.service": "pawserve.v1.Classifier", "rpc.method": "Classify"}
    for span, status in ((good, grpc.StatusCode.OK), (rejected, grpc.StatusCode.INVALID_ARGUMENT)):
        assert attributes(span).items() >= (convention | {"rpc.grpc.status_code": status.value[0]}).items()
    assert not rejected.parent_span_id
    assert rejected.trace_id != good.trace_id
    (prepare,) = kept.named("prepare")
    engine = kept.named("engine")
    assert sum(attributes(span)["pawserve.rows"] for span in engine) == 3
    assert attributes(engine[0])["pawserve.model"] == "models/colours/versions/1"
    for span in (prepare, *engine):
        assert (span.trace_id, span.parent_span_id) == (good.trace_id, good.span_id)
        assert good.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= good.end_time_unix_nano
    assert prepare.end_time_unix_nano <= min(span.start_time_unix_nano for span in engine)
    assert kept.resources[0]["service.name"] == "pawserve"


def test_spans_of_http_follow_the_conventions_and_hold_no_query_or_credential(
    tmp_path: Path, collector: tuple[Collector, str]
) -> None:
    kept, endpoint = collector
    write_bundle(tmp_path / "models")
    headers = {
        "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01",
        "user-agent": "tests/1",
        "authorization": "Bearer hidden-1",
    }
    with http_server(tmp_path, "--otlp-endpoint", endpoint) as server:
        port = int(server.url.rpartition(":")[2])
        ask(server.url, "/v1/classify?views=3&reference=hidden-2", RED, headers)
        ask(server.url, "/v2/models/colours?key=hidden-3")
        rejected = ask(server.url, "/v1/classify?views=99", RED)
    assert rejected.status == 400
    good, bad = kept.named("POST /v1/classify")
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert good.kind == Span.SPAN_KIND_SERVER
    assert {key: value for key, value in attributes(good).items() if not key.startswith("pawserve.")} == {
        "http.request.method": "POST",
        "http.route": "/v1/classify",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/v1/classify",
        "server.address": "127.0.0.1",
        "server.port": port,
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "tests/1",
    }
    assert (attributes(good)["pawserve.code"], attributes(good)["pawserve.rows"]) == ("OK", 3)
    assert (attributes(bad)["http.response.status_code"], attributes(bad)["pawserve.code"]) == (400, "INVALID_ARGUMENT")
    (metadata,) = kept.named("GET /v2/models/{name}")
    assert attributes(metadata)["url.path"] == "/v2/models/colours"
    assert {span.status.code for span in (good, bad, metadata)} == {Status.STATUS_CODE_UNSET}  # no server errors
    assert "hidden" not in str(kept.spans)


def test_a_server_error_over_http_is_an_error_of_its_span(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    write_bundle(tmp_path / "models")
    with http_server(tmp_path, "--otlp-endpoint", endpoint) as server:
        classified = ask(server.url, "/v1/classify", RED).json()
        for file in (tmp_path / "state").glob("statistics.sqlite*"):
            file.unlink()
        (tmp_path / "state" / "statistics.sqlite").mkdir()
        token = classified["results"][0]["prediction"]["token"]
        body = json.dumps({"labels": [{"token": token, "label": "red"}]}).encode()
        assert ask(server.url, "/v1/labels", body).status == 503
    (span,) = kept.named("POST /v1/labels")
    assert span.status.code == Status.STATUS_CODE_ERROR
    found = attributes(span)
    assert (found["http.response.status_code"], found["error.type"], found["pawserve.code"]) == (
        503,
        "503",
        "UNAVAILABLE",
    )


def test_a_client_s_decision_not_to_sample_is_kept(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    write_bundle(tmp_path / "models")
    with observed_server(tmp_path, "--otlp-endpoint", endpoint) as server, stub_of(server.address) as stub:
        stub.Classify(CLASSIFY, metadata=[("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00")], timeout=LIMIT_S)
    assert not kept.spans


def test_an_unavailable_collector_affects_neither_calls_nor_the_shutdown(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with (
        observed_server(tmp_path, "--otlp-endpoint", "http://127.0.0.1:1") as server,
        Client(server.address, timeout_s=LIMIT_S) as client,
    ):
        assert isinstance(client.classify([RED]).results[0], Prediction)


def test_traces_without_their_libraries_prevent_the_start_with_what_to_install(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    blocked = tmp_path / "blocked" / "opentelemetry"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ModuleNotFoundError('no', name='opentelemetry')")
    arguments = ["--models", tmp_path / "models", "--state", tmp_path / "state", "--listen", "127.0.0.1:0"]
    finished = run_cold(
        "serving", "serve", *arguments, "--otlp-endpoint", "http://127.0.0.1:1", PYTHONPATH=str(blocked.parent)
    )
    assert finished.returncode == 1
    assert "pip install 'pawserve[otel]'" in finished.stderr
    assert "Traceback" not in finished.stderr
