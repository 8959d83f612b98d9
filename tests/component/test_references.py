"""References: the client's own name of an image goes into its token, over every protocol, and into no log."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from serving.client import Client, ClientError, NamedImage, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.tokens.keyring import Keyring
from serving.tokens.tokens import PredictionRecord
from tests.support.bundles import write_bundle
from tests.support.http import ask, multipart
from tests.support.images import RED
from tests.support.servers import HttpServerProcess, http_server, observed_server
from tests.support.waiting import LIMIT_S

NAME = "dogs/été 1.jpg"
INVALID = {"257 bytes": "r" * 257, "258 bytes in UTF-8": "é" * 129, "a line break": "a\nb.jpg", "an escape": "\x1b[1m"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder / "models")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[HttpServerProcess]:
    with http_server(folder) as server:
        yield server


@pytest.fixture
def keyring(server: HttpServerProcess, folder: Path) -> Keyring:
    return Keyring(folder / "state" / "token.key")


def signed(keyring: Keyring, result: Prediction | ClientError) -> PredictionRecord:
    assert isinstance(result, Prediction), result
    record = keyring.verify(result.token)
    assert record.id.hex() == result.id
    return record


def test_each_image_of_a_request_has_its_reference_in_its_token(client: Client, keyring: Keyring) -> None:
    references = [NAME, "", "é" * 128]
    response = client.classify([RED] * 3, references=references)
    assert [signed(keyring, result).reference for result in response.results] == references
    labelled = client.classify([RED] * 2, references=[NAME, ""], labels=["", "red"])
    assert [signed(keyring, result).reference for result in labelled.results] == [NAME, ""]


@pytest.mark.parametrize("reference", INVALID.values(), ids=INVALID)
def test_an_invalid_reference_is_an_error_of_its_image(server: HttpServerProcess, reference: str) -> None:
    images = [pb.ImageInput(content=RED, reference=reference), pb.ImageInput(content=RED, reference=NAME)]
    with grpc.insecure_channel(server.address) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        bad, good = stub.Classify(pb.ClassifyRequest(images=images), timeout=LIMIT_S).results
        asked = [pb.ClassifyStreamRequest(id=str(index), image=image) for index, image in enumerate(images)]
        streamed = {each.id: each.result for each in stub.ClassifyStream(iter(asked), timeout=LIMIT_S)}
    for result, field in ((bad, "images[0].reference"), (streamed["0"], "image.reference")):
        assert result.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        text = str(result.error)
        assert "REFERENCE_INVALID" in text
        assert field in text
        assert "rrrr" not in text, "the message repeats the reference"
    assert good.HasField("prediction")
    assert streamed["1"].HasField("prediction")


def test_streams_carry_references(client: Client, keyring: Keyring) -> None:
    images = [NamedImage(RED, f"{number}.jpg") for number in range(20)]
    results = {each.index: each.result for each in client.classify_many([*images, RED])}
    references = [signed(keyring, results[index]).reference for index in range(21)]
    assert references == [*(image.reference for image in images), ""]


def test_http_takes_a_reference_with_each_kind_of_body(server: HttpServerProcess, keyring: Keyring) -> None:
    def references(query: str, body: bytes, headers: dict[str, str]) -> list[str]:
        answer = ask(server.url, f"/v1/classify{query}", body, headers)
        assert answer.status == 200, answer
        predictions = [result["prediction"] for result in answer.json()["results"]]
        records = [keyring.verify(each["token"]) for each in predictions]
        assert [record.id.hex() for record in records] == [each["id"] for each in predictions]
        return [record.reference for record in records]

    form, headers = multipart(RED, RED)
    image = {"content": base64.b64encode(RED).decode(), "reference": NAME}
    document = json.dumps({"images": [image, {"content": image["content"]}]}).encode()
    assert references("?reference=dogs/%C3%A9t%C3%A9%201.jpg", RED, {"content-type": "image/jpeg"}) == [NAME]
    assert references("?filenames=true", form, headers) == ["0", "1"]
    assert references("", form, headers) == ["", ""], "file names that nobody asked to keep"
    assert references("", document, {"content-type": "application/json"}) == [NAME, ""]


def test_http_rejects_references_that_no_image_would_get(server: HttpServerProcess) -> None:
    form, headers = multipart(RED)
    document = json.dumps({"images": [{"content": base64.b64encode(RED).decode()}]}).encode()
    assert ask(server.url, "/v1/classify?reference=a", form, headers).reason == "PARAMETER_INVALID"
    assert ask(server.url, "/v1/classify?filenames=true", RED).reason == "PARAMETER_INVALID"
    json_type = {"content-type": "application/json"}
    assert ask(server.url, "/v1/classify?reference=a", document, json_type).reason == "PARAMETER_INVALID"
    rejected = ask(server.url, f"/v1/classify?reference={'r' * 257}", RED)
    assert (rejected.status, rejected.reason) == (400, "REFERENCE_INVALID")


def test_no_reference_is_logged_or_counted(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    arguments = ("--log-format", "json", "--access-log", "--log-level", "debug")
    with observed_server(tmp_path, *arguments) as server, Client(server.address, timeout_s=LIMIT_S) as client:
        client.classify([RED, b"no image", RED], references=["secret-name", "secret-name", "secret-name\n"])
        list(client.classify_many([NamedImage(RED, "secret-name")]))
        metrics = server.scrape()
        server.process.wait_until(lambda: server.process.stderr.count("pawserve.access") >= 2)
        text = server.process.stderr
    assert "secret-name" not in text
    assert "secret-name" not in metrics
