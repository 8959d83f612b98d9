"""Logs and traces of calls to a real server, and what must never be logged."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from PIL import Image

from serving.client import Client, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.commands import run_cold
from tests.support.http import ask
from tests.support.images import encoded
from tests.support.servers import ObservedServer, http_server, observed_server
from tests.support.waiting import LIMIT_S, eventually

RED = encoded(Image.new("RGB", (80, 60), "red"), "JPEG")
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


@contextmanager
def stub_of(address: str) -> Iterator[pb_grpc.ClassifierStub]:
    with grpc.insecure_channel(address) as channel:
        yield pb_grpc.ClassifierStub(channel)


def attributes(span: Span) -> dict[str, Any]:
    return {
        pair.key: pair.value.int_value if pair.value.HasField("int_value") else pair.value.string_value
        for pair in span.attributes
    }


def trailing(call: Any) -> dict[str, Any]:
    return dict(call.trailing_metadata())


def lines(server: ObservedServer) -> list[dict[str, Any]]:
    written = server.process.stderr.rpartition("\n")[0]  # the last line may be half written
    return [json.loads(line) for line in written.splitlines()]


def test_each_call_has_an_access_log_line_without_its_contents(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with observed_server(tmp_path, "--log-format", "json", "--access-log") as server:
        with stub_of(server.address) as stub:
            answer, call = stub.Classify.with_call(CLASSIFY, metadata=[("x-request-id", "web-17")], timeout=LIMIT_S)
            assert trailing(call)["x-request-id"] == "web-17"
            token = answer.results[0].prediction.token
            with pytest.raises(grpc.RpcError) as caught:
                stub.Classify(pb.ClassifyRequest(images=CLASSIFY.images, views=99), timeout=LIMIT_S)
            refused = trailing(caught.value)
            assert "grpc-status-details-bin" in refused
            secret = ("authorization", "Bearer not-to-be-logged")
            label = pb.LabelInput(token=token, label="red")
            stub.RecordLabels(pb.RecordLabelsRequest(labels=[label]), metadata=[secret], timeout=LIMIT_S)
        assert eventually(lambda: len(lines(server)) >= 3)
        first, second, third = (line for line in lines(server) if line["logger"] == "pawserve.access")
        text = server.process.stderr
    assert (first["request_id"], first["method"]) == ("web-17", METHOD)
    assert (first["code"], first["images"], first["rows"]) == ("OK", 1, 3)
    assert 0 < first["duration_s"] < 30
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert (second["code"], second["request_id"]) == ("INVALID_ARGUMENT", refused["x-request-id"])
    assert (third["method"], third["labels"]) == ("pawserve.v1.Classifier/RecordLabels", 1)
    assert token not in text
    assert "not-to-be-logged" not in text
    assert base64.b64encode(RED[:30]).decode() not in text


@pytest.mark.parametrize("given", ["x" * 129, "with space", ""])
def test_an_unsuitable_request_id_is_replaced(tmp_path: Path, given: str) -> None:
    write_bundle(tmp_path / "models")
    with observed_server(tmp_path) as server, stub_of(server.address) as stub:
        _, call = stub.Classify.with_call(CLASSIFY, metadata=[("x-request-id", given)], timeout=LIMIT_S)
        _, other = stub.Classify.with_call(CLASSIFY, timeout=LIMIT_S)
        assert trailing(call)["x-request-id"] not in (given, trailing(other)["x-request-id"])


def test_an_error_is_logged_with_its_request_id_even_without_access_log(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with observed_server(tmp_path, "--log-format", "json") as server, stub_of(server.address) as stub:
        answer = stub.Classify(CLASSIFY, timeout=LIMIT_S)
        for file in (tmp_path / "state").glob("statistics.sqlite*"):
            file.unlink()
        (tmp_path / "state" / "statistics.sqlite").mkdir()
        label = pb.LabelInput(token=answer.results[0].prediction.token, label="red")
        with pytest.raises(grpc.RpcError) as caught:
            stub.RecordLabels(
                pb.RecordLabelsRequest(labels=[label]), metadata=[("x-request-id", "job-5")], timeout=LIMIT_S
            )
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert eventually(lambda: any(line.get("request_id") == "job-5" for line in lines(server)))
        assert all(line["logger"] != "pawserve.access" for line in lines(server))


def test_cancelled_and_expired_calls_are_logged_as_such(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=40)
    with (
        observed_server(tmp_path, "--log-format", "json", "--access-log", "--instances", 1) as server,
        stub_of(server.address) as stub,
    ):
        many = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)] * 8, views=16)
        with pytest.raises(grpc.RpcError):
            stub.Classify(many, timeout=0.5)
        call = stub.Classify.future(many)

        def codes() -> set[str]:
            return {line["code"] for line in lines(server) if "code" in line}

        assert eventually(
            lambda: len(codes()) == 1 and server.metric("pawserve_requests_in_flight", method=METHOD) == 1
        )
        call.cancel()
        assert eventually(lambda: "CANCELLED" in codes())
        assert codes() <= {"DEADLINE_EXCEEDED", "CANCELLED"}


def test_text_log_lines_end_with_the_request_id(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with observed_server(tmp_path, "--access-log") as server:
        with stub_of(server.address) as stub:
            stub.Classify(CLASSIFY, metadata=[("x-request-id", "web-18")], timeout=LIMIT_S)
        assert eventually(lambda: "Classify OK" in server.process.stderr)
        (line,) = (line for line in server.process.stderr.splitlines() if "web-18" in line)
        assert line.endswith("[web-18]")


def test_a_log_level_suppresses_lower_levels(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with (
        observed_server(tmp_path, "--log-level", "warning") as server,
        Client(server.address, timeout_s=LIMIT_S) as client,
    ):
        client.classify([RED])
    assert server.process.stderr == ""


def test_spans_are_children_of_the_client_s_span(tmp_path: Path, collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    write_bundle(tmp_path / "models")
    serving = observed_server(tmp_path, "--otlp-endpoint", endpoint, "--max-batch-size", 2)
    with serving as server, stub_of(server.address) as stub:
        parent = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")
        stub.Classify(CLASSIFY, metadata=[parent, ("x-request-id", "web-19")], timeout=LIMIT_S)
        with pytest.raises(grpc.RpcError):
            stub.Classify(pb.ClassifyRequest(images=CLASSIFY.images, views=99), timeout=LIMIT_S)
    good, refused = kept.named(METHOD)
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert good.kind == Span.SPAN_KIND_SERVER
    assert attributes(good)["pawserve.request_id"] == "web-19"
    assert attributes(good)["pawserve.rows"] == 3
    convention = {"rpc.system": "grpc", "rpc.service": "pawserve.v1.Classifier", "rpc.method": "Classify"}
    for span, status in ((good, grpc.StatusCode.OK), (refused, grpc.StatusCode.INVALID_ARGUMENT)):
        assert attributes(span).items() >= (convention | {"rpc.grpc.status_code": status.value[0]}).items()
    assert not refused.parent_span_id
    assert refused.trace_id != good.trace_id
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
        refused = ask(server.url, "/v1/classify?views=99", RED)
    assert refused.status == 400
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
