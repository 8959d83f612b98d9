"""`classify_many`: each image has one result, whatever happens to connections and servers."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from serving.api.status import to_status
from serving.client import AsyncClient, Client, ClientError, Prediction, StreamResult
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from tests.support.client_streams import IMAGES, assert_each_once, classify
from tests.support.scripted_server import MODEL, ScriptedServer, abort, answer, rejection, scripted_server
from tests.support.waiting import LIMIT_S

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def server() -> Iterator[tuple[ScriptedServer, str]]:
    with scripted_server() as server:
        yield server


def rejected(request: pb.ClassifyStreamRequest, error: Any) -> pb.ClassifyStreamResponse:
    return pb.ClassifyStreamResponse(id=request.id, model=MODEL, result=pb.ImageResult(error=to_status(error)))


def test_each_image_has_one_result_with_its_index(server: tuple[ScriptedServer, str]) -> None:
    assert_each_once(classify(server[1]))
    assert server[0].streams == 1
    assert classify(server[1], []) == []


def test_results_out_of_order_have_the_indexes_of_their_images(server: tuple[ScriptedServer, str]) -> None:
    def backwards(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for five in zip(*[requests] * 5, strict=True):
            yield from map(answer, reversed(five))

    server[0].on_stream = backwards
    results = classify(server[1], in_flight=5)
    assert [each.index for each in results[:5]] == [4, 3, 2, 1, 0]
    assert_each_once(results)


def test_broken_streams_are_made_again_and_images_without_a_result_are_sent_again(
    server: tuple[ScriptedServer, str],
) -> None:
    script, address = server

    def breaking(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for number, request in enumerate(requests):
            if number == 30 and script.streams < 4:
                abort(context, rejection(UNAVAILABLE, "SERVER_STOPPING", 0.01))
            yield answer(request)

    script.on_stream = breaking
    assert_each_once(classify(address))
    assert script.streams >= 4


def test_images_without_a_result_are_sent_again_when_the_server_ends_the_stream(
    server: tuple[ScriptedServer, str],
) -> None:
    script, address = server

    def ending(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for number, request in enumerate(requests):
            if number == 40 and script.streams < 3:
                return
            yield answer(request)

    script.on_stream = ending
    assert_each_once(classify(address))


def test_images_rejected_by_a_full_queue_are_sent_again_after_the_delay_in_the_error(
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
                yield rejected(request, rejection(EXHAUSTED, "QUEUE_FULL", 0.2))

    server[0].on_stream = full_at_first
    assert_each_once(classify(server[1]))
    assert len(delays) == 10
    assert min(delays) >= 0.2


def test_the_error_of_an_image_is_its_result(server: tuple[ScriptedServer, str]) -> None:
    def one_bad(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            bad = request.id == "3"
            error = rejection(grpc.StatusCode.INVALID_ARGUMENT, "NOT_AN_IMAGE")
            yield rejected(request, error) if bad else answer(request)

    server[0].on_stream = one_bad
    results = {each.index: each.result for each in classify(server[1])}
    assert isinstance(results[3], ClientError)
    assert results[3].reason == "NOT_AN_IMAGE"
    assert all(isinstance(result, Prediction) for index, result in results.items() if index != 3)


def test_an_image_that_breaks_every_stream_fails_and_the_others_have_predictions(
    server: tuple[ScriptedServer, str],
) -> None:
    def dying(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            if request.id == "50":
                abort(context, rejection(UNAVAILABLE))
            yield answer(request)

    server[0].on_stream = dying
    results = {each.index: each.result for each in classify(server[1], [*IMAGES, *IMAGES, *IMAGES], in_flight=8)}
    assert isinstance(results.pop(50), ClientError)
    assert len(results) == 299
    assert all(isinstance(result, Prediction) for result in results.values())


def test_an_image_over_the_message_limit_fails_and_the_others_have_predictions() -> None:
    with scripted_server(("grpc.max_receive_message_length", 100_000)) as (_, address):
        images = [*IMAGES[:20], b"x" * 200_000, *IMAGES[20:]]
        results = {each.index: each.result for each in classify(address, images)}
    large = results.pop(20)
    assert isinstance(large, ClientError)
    assert large.code == EXHAUSTED
    assert len(results) == 100
    assert all(isinstance(result, Prediction) for result in results.values())


def test_a_rejected_stream_raises_the_server_s_error(server: tuple[ScriptedServer, str]) -> None:
    def rejecting(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        abort(context, rejection(grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"))
        yield

    server[0].on_stream = rejecting
    with pytest.raises(ClientError) as caught:
        classify(server[1])
    assert caught.value.reason == "NOT_ALLOWED"
    assert server[0].streams <= 2  # gRPC does not report the reason during a write


def test_an_unreachable_server_is_an_error_once_retries_are_used_up() -> None:
    with pytest.raises(ClientError, match="no pawserve answers"):
        classify("127.0.0.1:1", timeout_s=600)


def silent(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(LIMIT_S)
    yield from ()


def test_a_silent_server_is_an_error_after_the_timeout(server: tuple[ScriptedServer, str]) -> None:
    server[0].on_stream = silent
    with pytest.raises(ClientError, match="no result arrived for 0.5 s") as caught:
        classify(server[1], timeout_s=0.5)
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_source_may_be_slower_than_the_timeout(server: tuple[ScriptedServer, str]) -> None:
    timeout_s = 5  # long enough for one image on a busy machine

    def slow() -> Iterator[bytes]:
        """Yields once the same timeout has passed for another call, which began later."""
        with scripted_server() as (other, address):
            other.on_stream = silent
            with pytest.raises(ClientError, match="no result arrived for 5 s"):
                classify(address, timeout_s=timeout_s)
        yield IMAGES[0]

    assert_each_once(classify(server[1], slow(), timeout_s=timeout_s), IMAGES[:1])


def test_no_more_images_are_taken_than_may_be_in_flight(server: tuple[ScriptedServer, str]) -> None:
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for image in IMAGES:
            taken += 1
            yield image

    with Client(server[1], timeout_s=LIMIT_S) as client:
        results = client.classify_many(counted(), in_flight=7)
        for got in range(1, 40):
            next(results)
            time.sleep(0.005)
            assert taken <= got + 2 * 7  # those in flight, and those of the batch that is being read


def test_an_image_larger_than_the_bound_on_bytes_is_sent_while_no_other_is_in_flight(
    server: tuple[ScriptedServer, str],
) -> None:
    images = [b"x" * 400, b"y" * 5000, *[b"z" * 300] * 10]

    async def main() -> list[StreamResult]:
        options = pb.ClassifyStreamRequest()
        async with AsyncClient(server[1], timeout_s=LIMIT_S) as client:
            batches = client.batches(images, options, in_flight=64, streams=1, max_bytes_in_flight=1000)
            return [result async for batch in batches for result in batch]

    assert_each_once(asyncio.run(main()), images)


def test_streams_are_spread_over_several_servers() -> None:
    with scripted_server() as (first, one), scripted_server() as (second, two):
        assert_each_once(classify(f"{one},{two}", streams=2, in_flight=10))
        assert first.streams + second.streams >= 2
        assert first.streams
        assert second.streams


def test_the_asyncio_client_accepts_asynchronous_sources(server: tuple[ScriptedServer, str]) -> None:
    async def source() -> AsyncIterator[bytes]:
        for image in IMAGES:
            await asyncio.sleep(0)
            yield image

    async def main() -> list[StreamResult]:
        async with AsyncClient(server[1], timeout_s=LIMIT_S) as client:
            return [each async for each in client.classify_many(source(), in_flight=3)]

    assert_each_once(asyncio.run(main()))


@pytest.mark.parametrize("wrong", [{"in_flight": 0}, {"streams": 0}])
def test_numbers_out_of_range_are_rejected(server: tuple[ScriptedServer, str], wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        classify(server[1], **wrong)
