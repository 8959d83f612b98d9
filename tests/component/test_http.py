"""The plain HTTP API: images, labels, models and statistics, with the errors of gRPC."""

import base64
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse
from PIL import Image

from serving.client import Client
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from tests.support.bundles import write_bundle
from tests.support.commands import run
from tests.support.http import Answer, ask, connect, multipart
from tests.support.images import RED, encoded
from tests.support.servers import HttpServerProcess, http_server
from tests.support.waiting import LIMIT_S

BLUE = encoded(Image.new("RGB", (80, 60), "blue"), "PNG")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServerProcess]:
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder / "models")
    with http_server(folder, "--max-message-mib", "2") as server:
        yield server


def classify(server: HttpServerProcess, query: str = "", body: bytes = RED, **headers: str) -> Answer:
    return ask(
        server.url, f"/v1/classify{query}", body, {name.replace("_", "-"): each for name, each in headers.items()}
    )


@pytest.mark.parametrize(
    "content_type", ["", "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_an_image_as_the_body_is_classified_whatever_the_client_calls_it(
    server: HttpServerProcess, content_type: str
) -> None:
    answer = classify(server, content_type=content_type) if content_type else classify(server)
    assert answer.status == 200, answer
    message = Parse(answer.content, pb.ClassifyResponse())
    assert message.model == "models/colours/versions/1"
    (result,) = message.results
    assert result.prediction.classes[0].label == "red"
    assert result.prediction.views == 1
    assert result.prediction.token


def test_the_json_is_protobufs_with_the_fields_that_have_no_value(server: HttpServerProcess) -> None:
    (result,) = classify(server).json()["results"]
    assert [each["label"] for each in result["prediction"]["classes"]][0] == "red"
    models = ask(server.url, "/v1/models").json()["models"]
    assert models[0]["maxViews"] == 16
    assert models[0]["stateReason"] == ""


def test_several_files_have_a_result_each_in_their_order(server: HttpServerProcess) -> None:
    body, headers = multipart(RED, b"I am a cat", BLUE)
    first, second, third = ask(server.url, "/v1/classify?top_k=1&views=3", body, headers).json()["results"]
    assert first["prediction"]["classes"][0]["label"] == "red"
    assert len(first["prediction"]["classes"]) == 1
    assert second["error"]["details"][0]["reason"] == "NOT_AN_IMAGE"
    assert third["prediction"]["classes"][0]["label"] == "blue"
    assert third["prediction"]["views"] == 3


def test_a_request_in_json_may_hold_labels(server: HttpServerProcess) -> None:
    image = {"content": base64.b64encode(BLUE).decode(), "label": "blue"}
    body = json.dumps({"images": [image], "topK": 2, "adaptive": True}).encode()
    (result,) = ask(server.url, "/v1/classify", body, JSON).json()["results"]
    assert len(result["prediction"]["classes"]) == 2
    with Client(server.address) as client:
        assert client.statistics()


def test_labels_and_statistics_are_those_of_grpc(server: HttpServerProcess) -> None:
    token = classify(server).json()["results"][0]["prediction"]["token"]
    labels = {"labels": [{"token": token, "label": "green"}, {"token": "AAAA", "label": "red"}]}
    recorded, rejected = ask(server.url, "/v1/labels", json.dumps(labels).encode(), JSON).json()["results"]
    assert recorded["recorded"] == {"model": "models/colours/versions/1", "predicted": "red", "label": "green"}
    assert rejected["error"]["details"][0]["reason"] == "TOKEN_INVALID"
    (over_http,) = ask(server.url, "/v1/statistics?model=models/colours/versions/1").json()["models"]
    with Client(server.address) as client:
        (over_grpc,) = client.statistics()
    assert int(over_http["labels"]) == over_grpc.labels
    counts = [[int(count) for count in row["predicted"]] for row in over_http["confusionMatrix"]]
    assert counts == [[*row.predicted] for row in over_grpc.confusion_matrix]


def test_a_window_without_predictions_is_empty(server: HttpServerProcess) -> None:
    classify(server)
    window = "start_time=2001-01-01T00:00:00Z&end_time=2001-01-02T00:00:00%2B01:00"
    assert ask(server.url, f"/v1/statistics?{window}").json() == {"models": []}


def test_statistics_are_sent_as_events_when_they_change(server: HttpServerProcess) -> None:
    connection = connect(server.url)
    connection.request("GET", "/v1/statistics/watch?min_interval=0.1s")
    response = connection.getresponse()
    assert response.getheader("content-type", "").startswith("text/event-stream")

    def next_predictions() -> int:
        assert response.readline() == b"event: statistics\n"
        data = json.loads(response.readline().removeprefix(b"data: "))
        assert response.readline() == b"\n"
        return sum(int(model["predictions"]) for model in data["models"])

    before = next_predictions()
    classify(server)
    while next_predictions() <= before:
        pass
    connection.close()


def test_the_manifest_of_a_version_is_its_model_json(server: HttpServerProcess) -> None:
    manifest = ask(server.url, "/v1/models/colours/versions/1/manifest").json()
    assert manifest["classes"] == ["blue", "green", "red"]
    assert ask(server.url, "/v1/models/colours/versions/9/manifest").reason == "MODEL_NOT_FOUND"


def test_the_report_of_a_bundle_is_shown_and_nothing_in_it_runs(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "models")
    with http_server(tmp_path) as server:
        path = "/v1/models/colours/versions/1"
        assert "link" not in ask(server.url, f"{path}/manifest").headers
        assert ask(server.url, f"{path}/report").reason == "REPORT_NOT_FOUND"
        (folder / "report.html").write_text("<h1>Report</h1>")
        assert ask(server.url, f"{path}/manifest").headers["link"] == f'<{path}/report>; rel="describedby"'
        answer = ask(server.url, f"{path}/report")
    assert (answer.status, answer.content) == (200, b"<h1>Report</h1>")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_may_be_compressed_and_long_responses_are(server: HttpServerProcess, encoding: str) -> None:
    packed = gzip.compress(RED) if encoding == "gzip" else zlib.compress(RED)
    assert classify(server, body=packed, content_encoding=encoding).status == 200
    answer = ask(server.url, "/openapi.json", headers={"accept-encoding": f"{encoding}, br"})
    assert answer.headers["content-encoding"] == encoding
    content = gzip.decompress(answer.content) if encoding == "gzip" else zlib.decompress(answer.content)
    assert json.loads(content)["openapi"].startswith("3.1")
    assert "content-encoding" not in ask(server.url, "/openapi.json").headers


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("?views=1000", 400, "VIEWS_OUT_OF_RANGE"),
        ("?views=two", 400, "PARAMETER_INVALID"),
        ("?top_k=0", 400, "TOP_K_OUT_OF_RANGE"),
        ("?adaptive=perhaps", 400, "PARAMETER_INVALID"),
        ("?color=red", 400, "PARAMETER_INVALID"),
        ("?views=1&views=2", 400, "PARAMETER_INVALID"),
        ("?timeout=soon", 400, "PARAMETER_INVALID"),
        ("?model=cats", 400, "MODEL_NAME_INVALID"),
        ("?model=models/cats", 404, "MODEL_NOT_FOUND"),
    ],
)
def test_a_wrong_parameter_is_named(server: HttpServerProcess, query: str, status: int, reason: str) -> None:
    answer = classify(server, query)
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"I am a cat", {}, 400, "NOT_AN_IMAGE"),
        (b"", {}, 400, "NOT_AN_IMAGE"),
        (RED[:300], {}, 400, "TRUNCATED"),
        (b"%PDF-1.4", {"content-type": "application/pdf"}, 415, "CONTENT_TYPE_UNSUPPORTED"),
        (RED, {"content-encoding": "br"}, 415, "CONTENT_ENCODING_UNSUPPORTED"),
        (RED, {"content-encoding": "gzip"}, 400, "MESSAGE_INVALID"),
        (gzip.compress(RED)[:-9], {"content-encoding": "gzip"}, 400, "MESSAGE_INVALID"),
        (gzip.compress(bytes(3 * 2**20)), {"content-encoding": "gzip"}, 413, "BODY_TOO_LARGE"),
        (bytes(3 * 2**20), {}, 413, "BODY_TOO_LARGE"),
        (b"{", JSON, 400, "MESSAGE_INVALID"),
        (b"[1]", JSON, 400, "MESSAGE_INVALID"),
        (b'{"pictures": []}', JSON, 400, "MESSAGE_INVALID"),
        (b'{"images": [{"content": "A"}]}', JSON, 400, "MESSAGE_INVALID"),
        (b'{"images": []}', JSON, 400, "COUNT_OUT_OF_RANGE"),
        (b"[" * 100_000, JSON, 400, "MESSAGE_INVALID"),
        (b"[" + b"0," * 60_000 + b"0]", JSON, 400, "MESSAGE_INVALID"),
        (b"--x\r\n\r\n--x--", {"content-type": "multipart/form-data"}, 400, "MESSAGE_INVALID"),
        (b"--x\r\n\r\nA", {"content-type": "multipart/form-data; boundary=x"}, 400, "COUNT_OUT_OF_RANGE"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_used_is_rejected_with_the_reason(
    server: HttpServerProcess, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = ask(server.url, "/v1/classify", body, headers)
    assert (answer.status, answer.reason) == (status, reason), answer
    assert classify(server).status == 200


def test_a_request_takes_64_files(server: HttpServerProcess) -> None:
    body, headers = multipart(*[RED] * 64)
    assert len(ask(server.url, "/v1/classify", body, headers).json()["results"]) == 64
    body, headers = multipart(*[RED] * 65)
    assert ask(server.url, "/v1/classify", body, headers).reason == "COUNT_OUT_OF_RANGE"


def test_paths_and_methods_that_do_not_exist_are_problems_too(server: HttpServerProcess) -> None:
    assert ask(server.url, "/v1/classifi", RED).reason == "PATH_UNKNOWN"
    assert ask(server.url, "/v2/classifi").json()["error"]
    wrong = ask(server.url, "/v1/classify")
    assert (wrong.status, wrong.reason, wrong.headers["allow"]) == (405, "METHOD_NOT_ALLOWED", "POST")


def test_the_request_id_is_returned(server: HttpServerProcess) -> None:
    assert classify(server, x_request_id="mine-7").headers["x-request-id"] == "mine-7"
    unknown = ask(server.url, "/v1/classifi", RED, {"x-request-id": "mine-8"})
    for failed in (classify(server, "?views=0", x_request_id="mine-8"), unknown):
        assert failed.headers["x-request-id"] == failed.json()["request_id"] == "mine-8"
    assert classify(server).headers["x-request-id"]


def test_a_connection_is_used_again_and_requests_on_it_are_answered_in_order(server: HttpServerProcess) -> None:
    connection = connect(server.url)
    for _ in range(3):
        connection.request("POST", "/v1/classify", RED)
        assert json.loads(connection.getresponse().read())["results"]
    head = f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(RED)}\r\n\r\n".encode() + RED
    assert connection.sock is not None
    connection.sock.settimeout(LIMIT_S)
    connection.sock.sendall(2 * head + b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    content = b"".join(iter(lambda: connection.sock.recv(65536), b""))  # type: ignore[union-attr]
    assert content.count(b"HTTP/1.1 200") == 3
    assert content.endswith(b'{"live": true}')
    connection.close()


def test_the_default_port_may_be_taken_and_a_port_that_was_asked_for_may_not(
    server: HttpServerProcess, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "models")
    options = ("--models", tmp_path / "models", "--state", tmp_path / "state", "--listen", "127.0.0.1:0")
    taken = server.url.removeprefix("http://")
    finished = run("serving", "serve", *options, "--http", taken)
    assert finished.returncode == 1
    assert f"cannot listen on {taken}" in finished.stderr
    assert "--http" in finished.stderr
