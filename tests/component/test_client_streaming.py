"""Many pictures through ClassifyStream: each is answered once, whatever happens to connections and servers."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from serving.client import AsyncClient, Client, ClientError, Prediction, Retry, StreamResult
from serving.client import streaming as many
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.rpc.errors import to_status
from tests.support.commands import ROOT
from tests.support.scripted_server import MODEL, ScriptedServer, abort, answer, refusal, scripted_server

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
QUICK = Retry(initial_s=0.02, max_s=0.1)
PICTURES = [f"picture {number}".encode() for number in range(100)]


@pytest.fixture
def server() -> Iterator[tuple[ScriptedServer, str]]:
    with scripted_server() as server:
        yield server


def ask(address: str, images: Any = PICTURES, *, timeout_s: float = 20, **options: Any) -> list[StreamResult]:
    with Client(address, timeout_s=timeout_s, retry=QUICK) as client:
        return list(client.classify_many(images, **options))


def check_each_once(answers: list[StreamResult], pictures: list[bytes] = PICTURES) -> None:
    assert sorted(each.index for each in answers) == list(range(len(pictures)))
    for each in answers:
        assert isinstance(each.result, Prediction), each
        assert each.result.classes[0][0] == pictures[each.index].decode()
        assert each.model == MODEL


def refused(request: pb.ClassifyStreamRequest, error: Any) -> pb.ClassifyStreamResponse:
    return pb.ClassifyStreamResponse(id=request.id, model=MODEL, result=pb.ImageResult(error=to_status(error)))


def test_every_picture_is_answered_once_under_its_index(server: tuple[ScriptedServer, str]) -> None:
    check_each_once(ask(server[1]))
    assert server[0].streams == 1
    assert ask(server[1], []) == []


def test_answers_that_come_out_of_order_find_their_pictures(server: tuple[ScriptedServer, str]) -> None:
    def backwards(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for five in zip(*[requests] * 5, strict=True):
            yield from map(answer, reversed(five))

    server[0].on_stream = backwards
    answers = ask(server[1], in_flight=5)
    assert [each.index for each in answers[:5]] == [4, 3, 2, 1, 0]
    check_each_once(answers)


def test_streams_that_break_are_made_again_and_what_had_no_answer_is_sent_again(
    server: tuple[ScriptedServer, str],
) -> None:
    script, address = server

    def breaking(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for number, request in enumerate(requests):
            if number == 30 and script.streams < 4:
                abort(context, refusal(UNAVAILABLE, "SERVER_STOPPING", 0.01))
            yield answer(request)

    script.on_stream = breaking
    check_each_once(ask(address))
    assert script.streams >= 4


def test_a_server_that_ends_streams_early_is_asked_again(server: tuple[ScriptedServer, str]) -> None:
    script, address = server

    def ending(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for number, request in enumerate(requests):
            if number == 40 and script.streams < 3:
                return
            yield answer(request)

    script.on_stream = ending
    check_each_once(ask(address))


def test_pictures_that_met_a_full_queue_are_sent_again_after_the_wished_delay(
    server: tuple[ScriptedServer, str],
) -> None:
    seen: dict[str, float] = {}
    delays: list[float] = []

    def full_at_first(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            if request.id in seen or int(request.id) % 10:
                if request.id in seen:
                    delays.append(time.monotonic() - seen[request.id])
                yield answer(request)
            else:
                seen[request.id] = time.monotonic()
                yield refused(request, refusal(EXHAUSTED, "QUEUE_FULL", 0.2))

    server[0].on_stream = full_at_first
    check_each_once(ask(server[1]))
    assert len(delays) == 10
    assert min(delays) >= 0.2


def test_a_picture_s_own_error_is_its_answer(server: tuple[ScriptedServer, str]) -> None:
    def one_bad(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            bad = request.id == "3"
            error = refusal(grpc.StatusCode.INVALID_ARGUMENT, "NOT_AN_IMAGE")
            yield refused(request, error) if bad else answer(request)

    server[0].on_stream = one_bad
    results = {each.index: each.result for each in ask(server[1])}
    assert isinstance(results[3], ClientError)
    assert results[3].reason == "NOT_AN_IMAGE"
    assert all(isinstance(result, Prediction) for index, result in results.items() if index != 3)


def test_a_picture_that_no_server_survives_is_given_up_and_the_others_are_answered(
    server: tuple[ScriptedServer, str],
) -> None:
    def dying(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            if request.id == "50":
                abort(context, refusal(UNAVAILABLE))
            yield answer(request)

    server[0].on_stream = dying
    results = {each.index: each.result for each in ask(server[1], [*PICTURES, *PICTURES, *PICTURES], in_flight=8)}
    assert isinstance(results.pop(50), ClientError)
    assert len(results) == 299
    assert all(isinstance(result, Prediction) for result in results.values())


def test_a_picture_over_the_server_s_message_limit_has_its_own_error() -> None:
    with scripted_server(("grpc.max_receive_message_length", 100_000)) as (_, address):
        pictures = [*PICTURES[:20], b"x" * 200_000, *PICTURES[20:]]
        results = {each.index: each.result for each in ask(address, pictures)}
    large = results.pop(20)
    assert isinstance(large, ClientError)
    assert large.code == EXHAUSTED
    assert len(results) == 100
    assert all(isinstance(result, Prediction) for result in results.values())


def test_what_cannot_be_answered_ends_it_with_the_server_s_error(server: tuple[ScriptedServer, str]) -> None:
    def refusing(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        abort(context, refusal(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"))
        yield

    server[0].on_stream = refusing
    with pytest.raises(ClientError) as caught:
        ask(server[1])
    assert caught.value.reason == "NOT_ALLOWED"
    assert server[0].streams <= 2  # gRPC does not tell the reason while the client writes


def test_a_server_that_is_not_there_is_an_error_soon() -> None:
    begin = time.monotonic()
    with pytest.raises(ClientError, match="no pawserve answers"):
        ask("127.0.0.1:1")
    assert time.monotonic() - begin < 15


def test_a_server_that_falls_silent_is_an_error_after_the_timeout(server: tuple[ScriptedServer, str]) -> None:
    def silent(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        yield answer(next(requests))
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(20)

    server[0].on_stream = silent
    with Client(server[1], timeout_s=0.5, retry=QUICK) as client:
        answers = client.classify_many(PICTURES)
        assert next(answers).index == 0
        with pytest.raises(ClientError, match="no answer came for 0.5 s") as caught:
            next(answers)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_source_that_is_slower_than_the_timeout_is_no_error(server: tuple[ScriptedServer, str]) -> None:
    def slow() -> Iterator[bytes]:
        for picture in PICTURES[:3]:
            time.sleep(0.6)
            yield picture

    check_each_once(ask(server[1], slow(), timeout_s=0.3), PICTURES[:3])


def test_no_more_pictures_are_taken_than_may_be_in_flight(server: tuple[ScriptedServer, str]) -> None:
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for picture in PICTURES:
            taken += 1
            yield picture

    with Client(server[1]) as client:
        answers = client.classify_many(counted(), in_flight=7)
        for got in range(1, 40):
            next(answers)
            time.sleep(0.005)
            assert taken <= got + 2 * 7  # those in flight, and those that were answered and wait for us
        answers.close()  # type: ignore[attr-defined]


def test_pictures_larger_than_the_bound_on_bytes_go_alone(
    server: tuple[ScriptedServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "MAX_BYTES_IN_FLIGHT", 1000)
    pictures = [b"x" * 400, b"y" * 5000, *[b"z" * 300] * 10]
    check_each_once(ask(server[1], pictures), pictures)


def test_what_the_source_raises_comes_out(server: tuple[ScriptedServer, str]) -> None:
    def failing() -> Iterator[bytes]:
        yield b"picture 0"
        raise FileNotFoundError("no such picture")

    with pytest.raises(FileNotFoundError, match="no such picture"):
        ask(server[1], failing())


def test_leaving_early_ends_the_streams(server: tuple[ScriptedServer, str]) -> None:
    ended = threading.Event()

    def watched(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        for request in requests:
            yield answer(request)

    server[0].on_stream = watched
    with Client(server[1]) as client:
        for each in client.classify_many(PICTURES * 100):
            assert each.model
            break
    assert ended.wait(20)


def test_one_iteration_after_another_shares_a_thread_and_says_nothing(server: tuple[ScriptedServer, str]) -> None:
    program = """
import sys, threading
from serving.client import Client
for _ in range(3):
    with Client(sys.argv[1]) as client:
        print(len(list(client.classify_many([b"a", b"b"]))))
print([thread.name for thread in threading.enumerate()].count("client-loop"))
"""
    command = [sys.executable, "-c", program, server[1]]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout.split() == ["2", "2", "2", "1"]
    assert finished.stderr == ""


def test_it_works_inside_a_running_event_loop(server: tuple[ScriptedServer, str]) -> None:
    async def notebook() -> None:
        check_each_once(ask(server[1]))

    asyncio.run(notebook())


def test_several_streams_share_the_work_between_several_servers() -> None:
    with scripted_server() as (first, one), scripted_server() as (second, two):
        check_each_once(ask(f"{one},{two}", streams=2, in_flight=10))
        assert first.streams + second.streams >= 2
        assert first.streams
        assert second.streams


def test_the_asyncio_client_takes_asynchronous_sources(server: tuple[ScriptedServer, str]) -> None:
    async def source() -> AsyncIterator[bytes]:
        for picture in PICTURES:
            await asyncio.sleep(0)
            yield picture

    async def main() -> list[StreamResult]:
        async with AsyncClient(server[1]) as client:
            return [each async for each in client.classify_many(source(), in_flight=3)]

    check_each_once(asyncio.run(main()))


@pytest.mark.parametrize("wrong", [{"in_flight": 0}, {"streams": 0}])
def test_numbers_out_of_range_are_refused(server: tuple[ScriptedServer, str], wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ask(server[1], **wrong)
