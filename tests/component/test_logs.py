"""Logs of calls to a real server, and what must never be logged."""

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.client import Client
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from tests.support.bundles import write_bundle
from tests.support.images import RED
from tests.support.servers import ObservedServer, observed_server
from tests.support.statistics import stub_of
from tests.support.waiting import LIMIT_S, eventually

CLASSIFY = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)], views=3)
METHOD = "pawserve.v1.Classifier/Classify"


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
            rejected = trailing(caught.value)
            assert "grpc-status-details-bin" in rejected
            secret = ("authorization", "Bearer not-to-be-logged")
            label = pb.LabelInput(token=token, label="red")
            stub.RecordLabels(pb.RecordLabelsRequest(labels=[label]), metadata=[secret], timeout=LIMIT_S)
        assert eventually(lambda: len(lines(server)) >= 3)
        first, second, third = (line for line in lines(server) if line["logger"] == "pawserve.access")
        text = server.process.stderr
    assert (first["request_id"], first["method"]) == ("web-17", METHOD)
    assert (first["code"], first["images"], first["rows"]) == ("OK", 1, 3)
    assert first["duration_s"] > 0
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert (second["code"], second["request_id"]) == ("INVALID_ARGUMENT", rejected["x-request-id"])
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

        def codes() -> set[str]:
            return {line["code"] for line in lines(server) if "code" in line}

        def in_flight() -> float | None:
            return server.metric("pawserve_requests_in_flight", method=METHOD)

        def expires() -> bool:
            """Whether a call that expires reached the server before, as it does unless the machine is busy."""
            with pytest.raises(grpc.RpcError):
                stub.Classify(many, timeout=0.5)
            return eventually(lambda: not in_flight()) and bool(codes())

        assert eventually(expires)
        call = stub.Classify.future(many)
        assert eventually(in_flight)
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
