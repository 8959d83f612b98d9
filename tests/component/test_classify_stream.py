"""ClassifyStream on a real server: responses by id, errors of single images, flow control, shutdown."""

import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from serving.client import Client
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.rpc.streaming import MAX_IN_FLIGHT
from tests.support.bundles import write_bundle
from tests.support.images import encoded
from tests.support.servers import running_server, stoppable_server
from tests.support.waiting import LIMIT_S, eventually

IMAGES = {
    name: encoded(Image.new("RGB", (60, 50), colour), "JPEG")
    for name, colour in {"red": "red", "green": "#00ff00", "blue": "blue"}.items()
}
RED = IMAGES["red"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream") / "models"
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    with running_server(models, models.parent / "state", "--instances", 2) as address:
        yield address


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[pb_grpc.ClassifierStub]:
    with grpc.insecure_channel(address) as channel:
        yield pb_grpc.ClassifierStub(channel)


def request(id_: str, content: bytes = RED, label: str = "", **fields: object) -> pb.ClassifyStreamRequest:
    return pb.ClassifyStreamRequest(id=id_, image=pb.ImageInput(content=content, label=label), **fields)


def reason(status: object) -> tuple[int, str, str]:
    """Code, reason and field of a google.rpc.Status."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:  # type: ignore[attr-defined]
        for message in (info, bad):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    field = bad.field_violations[0].field if bad.field_violations else ""
    return status.code, info.reason, field  # type: ignore[attr-defined]


class Conversation:
    """A stream whose requests are written one by one."""

    def __init__(self, stub: pb_grpc.ClassifierStub) -> None:
        self._requests: SimpleQueue[pb.ClassifyStreamRequest | None] = SimpleQueue()
        self.call = stub.ClassifyStream(iter(self._requests.get, None), timeout=LIMIT_S)

    def ask(self, request: pb.ClassifyStreamRequest) -> pb.ClassifyStreamResponse:
        self._requests.put(request)
        return next(self.call)

    def end(self) -> None:
        self._requests.put(None)


def test_each_image_has_one_response_with_its_id_and_the_stream_ends_after_the_last(
    stub: pb_grpc.ClassifierStub,
) -> None:
    asked = {f"{name} {i}": content for i in range(100) for name, content in IMAGES.items()}
    call = stub.ClassifyStream((request(id_, content, top_k=1) for id_, content in asked.items()), timeout=LIMIT_S)
    answers = list(call)
    assert call.code() == grpc.StatusCode.OK
    assert sorted(answer.id for answer in answers) == sorted(asked)
    assert {answer.model for answer in answers} == {"models/colours/versions/1"}
    for answer in answers:
        assert [entry.label for entry in answer.result.prediction.classes] == [answer.id.split()[0]]
    assert len({answer.result.prediction.token for answer in answers}) == len(asked)


def test_a_slow_image_does_not_delay_those_behind_it(stub: pb_grpc.ClassifierStub) -> None:
    large = encoded(Image.linear_gradient("L").resize((7000, 7000)).convert("RGB"), "PNG")  # few bytes, long to decode
    requests = [*(request(f"small {i}") for i in range(4)), request("large", large)]
    requests += [request(f"small {i}") for i in range(4, 8)]
    answers = [answer.id for answer in stub.ClassifyStream(iter(requests), timeout=LIMIT_S)]
    assert sorted(answers) == sorted(asked.id for asked in requests)
    assert answers[-1] == "large"


def test_an_invalid_request_has_its_error_and_the_stream_goes_on(stub: pb_grpc.ClassifierStub) -> None:
    invalid, not_found = grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.NOT_FOUND.value[0]
    bad = {
        "not an image": (request("a", b"I am a cat"), (invalid, "NOT_AN_IMAGE", "image.content")),
        "no image": (pb.ClassifyStreamRequest(id="b"), (invalid, "NOT_AN_IMAGE", "image.content")),
        "an id of 129 bytes": (request("é" * 64 + "x"), (invalid, "ID_TOO_LONG", "id")),
        "no view": (request("d", views=0), (invalid, "VIEWS_OUT_OF_RANGE", "views")),
        "a million views": (request("e", views=1_000_000, adaptive=True), (invalid, "VIEWS_OUT_OF_RANGE", "views")),
        "no class": (request("f", top_k=0), (invalid, "TOP_K_OUT_OF_RANGE", "top_k")),
        "a strange name": (request("g", model="../etc"), (invalid, "MODEL_NAME_INVALID", "model")),
        "an unknown model": (request("h", model="models/cars"), (not_found, "MODEL_NOT_FOUND", "model")),
        "an unknown label": (request("i", label="purple"), (invalid, "LABEL_UNKNOWN", "image.label")),
    }
    stream = Conversation(stub)
    for what, (asked, expected) in bad.items():
        answer = stream.ask(asked)
        assert answer.id == asked.id, what
        assert reason(answer.result.error) == expected, what
    assert stream.ask(request("é" * 64)).result.prediction.classes[0].label == "red"
    assert stream.ask(request("")).id == ""
    stream.end()
    assert list(stream.call) == []
    assert stream.call.code() == grpc.StatusCode.OK


def test_labels_of_images_are_recorded(models: Path, tmp_path: Path) -> None:
    with running_server(models, tmp_path / "state") as address, grpc.insecure_channel(address) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        requests = [request(name, content, label="red") for name, content in IMAGES.items()]
        answers = list(stub.ClassifyStream(iter(requests), timeout=LIMIT_S))
        assert all(answer.result.HasField("prediction") for answer in answers)
        with Client(address, timeout_s=LIMIT_S) as client:
            (statistics,) = client.statistics()
    assert [list(row.predicted) for row in statistics.confusion_matrix] == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert statistics.predictions == 3


def test_the_server_stops_reading_from_a_client_that_does_not_read_and_loses_nothing(
    stub: pb_grpc.ClassifierStub,
) -> None:
    total, sent = 1000, 0

    def requests() -> Iterator[pb.ClassifyStreamRequest]:
        nonlocal sent
        for sent in range(1, total + 1):
            yield request(f"{sent:0100000}")  # too long an id: the response is as large as the request

    call = stub.ClassifyStream(requests(), timeout=LIMIT_S)
    assert eventually(lambda: sent > MAX_IN_FLIGHT)  # so many fit before a response is read
    numbers = []
    for answer in call:
        numbers.append(int(answer.id[-9:]))
        assert sent < len(numbers) + 600  # the server holds 128; flow control bounds what is on the way
    assert sorted(numbers) == list(range(1, total + 1))


def test_a_full_queue_slows_streams_down_and_rejects_none_of_their_images(models: Path, tmp_path: Path) -> None:
    with (
        running_server(models, tmp_path / "state", "--max-queue-views", 6) as address,
        grpc.insecure_channel(address) as channel,
    ):
        stub = pb_grpc.ClassifierStub(channel)
        streams: list[list[pb.ClassifyStreamResponse]] = [[], [], []]

        def classify(answers: list[pb.ClassifyStreamResponse], views: int) -> None:
            requests = (request(str(i), views=views, adaptive=views == 2) for i in range(150))
            answers += stub.ClassifyStream(requests, timeout=LIMIT_S)

        threads = [threading.Thread(target=classify, args=(answers, i + 1)) for i, answers in enumerate(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for answers in streams:
            assert len(answers) == 150
            assert all(answer.result.HasField("prediction") for answer in answers)
        # more views than the queue can ever hold
        (never,) = stub.ClassifyStream(iter([request("never", views=7)]), timeout=LIMIT_S)
        assert reason(never.result.error)[1] == "VIEWS_OUT_OF_RANGE"


def test_cancelled_streams_leave_nothing_in_the_queue(models: Path, tmp_path: Path) -> None:
    with stoppable_server(models, tmp_path / "state") as (server, address):
        with grpc.insecure_channel(address) as channel:
            cancel_streams(address, pb_grpc.ClassifierStub(channel))
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "Traceback" not in server.stderr


def cancel_streams(address: str, stub: pb_grpc.ClassifierStub) -> None:
    for turn in range(20):
        conversation = Conversation(stub)
        for i in range(30):
            conversation._requests.put(request(str(i), views=16))
        if turn % 2:
            next(conversation.call)
        conversation.call.cancel()
        conversation.end()
    with grpc.insecure_channel(address) as channel:  # a client whose connection breaks
        conversation = Conversation(pb_grpc.ClassifierStub(channel))
        conversation.ask(request("first"))
        conversation._requests.put(request("second", views=16))
    conversation.end()
    # a queue that leaked 16 views of each of 600 images would have no room for these
    answers = list(stub.ClassifyStream((request(str(i), views=16) for i in range(200)), timeout=LIMIT_S))
    assert all(answer.result.HasField("prediction") for answer in answers)

    def all_fit() -> bool:  # 1,024 views fit only if none is counted any more
        images = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)] * 64, views=16)
        return all(result.HasField("prediction") for result in stub.Classify(images, timeout=LIMIT_S).results)

    assert eventually(all_fit)


def test_a_shutdown_answers_the_requests_that_were_read_and_ends_the_streams(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=20)
    with (
        stoppable_server(tmp_path / "models", tmp_path / "state", "--instances", 1, "--grace", 86_400) as (
            server,
            address,
        ),
        grpc.insecure_channel(address) as channel,
    ):
        stub = pb_grpc.ClassifierStub(channel)
        idle, busy = Conversation(stub), Conversation(stub)
        idle.ask(request("before"))
        busy.ask(request("before"))
        for i in range(5):
            busy._requests.put(request(str(i)))
        assert next(busy.call).id  # the others have been read too, or need to be sent again
        server.send_signal(signal.SIGTERM)
        answered = 1
        with suppress(grpc.RpcError):
            for answer in busy.call:
                assert answer.result.HasField("prediction")
                answered += 1
        assert 1 <= answered <= 5
        with suppress(grpc.RpcError):
            next(idle.call)
        for call in (busy.call, idle.call):
            assert call.code() == grpc.StatusCode.UNAVAILABLE
            assert reason(rpc_status.from_call(call))[1] == "SERVER_STOPPING"
        assert server.wait() == 0  # it does not wait for the streams until the end of the grace period
        assert "Traceback" not in server.stderr
        idle.end()
        busy.end()
