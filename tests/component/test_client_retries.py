"""What both clients do when calls fail: what is tried again, when, and what never is."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from serving.client import AsyncClient, Classified, Client, ClientError, Retry
from serving.client.channel import to_target
from serving.client.retries import Attempts
from serving.rpc.api_errors import ApiError, Code
from tests.golden.draw import encoded
from tests.support.bundles import write_bundle
from tests.support.commands import eventually, serving
from tests.support.scripted_server import ScriptedServer, refusal, scripted_server

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
QUICK = Retry(initial_s=0.02)
RED = encoded(Image.new("RGB", (80, 60), "red"), "JPEG")
Classify = Callable[..., Classified]


def classify_sync(address: str, *, timeout_s: float = 10, retry: Retry = QUICK, **options: Any) -> Classified:
    with Client(address, timeout_s=timeout_s, retry=retry) as client:
        return client.classify([b"cat"], **options)


def classify_async(address: str, *, timeout_s: float = 10, retry: Retry = QUICK, **options: Any) -> Classified:
    async def main() -> Classified:
        async with AsyncClient(address, timeout_s=timeout_s, retry=retry) as client:
            return await client.classify([b"cat"], **options)

    return asyncio.run(main())


@pytest.fixture
def server() -> Iterator[tuple[ScriptedServer, str]]:
    with scripted_server() as server:
        yield server


both = pytest.mark.parametrize("classify", [classify_sync, classify_async])


@both
@pytest.mark.parametrize(
    "error",
    [
        refusal(UNAVAILABLE),
        refusal(EXHAUSTED, "QUEUE_FULL", 0.05),
        refusal(EXHAUSTED),
        ApiError(Code.CANCELLED, "", "CANCELLED"),
        ApiError(Code.INTERNAL, "", "Stream removed (RST_STREAM (Received RST_STREAM with error code 0))"),
    ],
    ids=["away", "queue full", "a proxy's limit", "given up by a server that stops", "broken by a proxy"],
)
def test_what_may_pass_is_tried_again(server: tuple[ScriptedServer, str], classify: Classify, error: Exception) -> None:
    script, address = server
    script.fail = [error, error]  # type: ignore[list-item]
    assert classify(address).results[0].classes == (("cat", 1.0),)  # type: ignore[union-attr]
    assert len(script.called_at) == 3


@both
def test_the_server_s_wish_for_a_delay_is_kept(server: tuple[ScriptedServer, str], classify: Classify) -> None:
    script, address = server
    script.fail = [refusal(EXHAUSTED, "QUEUE_FULL", 0.4)]
    classify(address)
    first, second = script.called_at
    assert second - first >= 0.4


@both
@pytest.mark.parametrize(
    "error",
    [
        refusal(grpc.StatusCode.INVALID_ARGUMENT, "VIEWS_OUT_OF_RANGE"),
        refusal(grpc.StatusCode.INTERNAL, "ENGINE_FAILED"),
        refusal(EXHAUSTED, "TOO_MANY"),
    ],
    ids=["invalid", "internal", "exhausted for good"],
)
def test_what_will_not_pass_is_not_tried_again(
    server: tuple[ScriptedServer, str], classify: Classify, error: Any
) -> None:
    script, address = server
    script.fail = [error] * 5
    with pytest.raises(ClientError) as caught:
        classify(address)
    assert (caught.value.code.name, caught.value.reason) == (error.code.name, error.reason)
    assert len(script.called_at) == 1


@both
def test_attempts_are_bounded_and_the_last_error_is_told(
    server: tuple[ScriptedServer, str], classify: Classify
) -> None:
    script, address = server
    script.fail = [refusal(UNAVAILABLE)] * 9
    with pytest.raises(ClientError) as caught:
        classify(address, retry=Retry(attempts=3, initial_s=0.01))
    assert caught.value.code == UNAVAILABLE
    assert len(script.called_at) == 3


@both
def test_no_try_begins_after_the_deadline(server: tuple[ScriptedServer, str], classify: Classify) -> None:
    script, address = server
    script.fail = [refusal(EXHAUSTED, "QUEUE_FULL", 60)] * 9
    begin = time.monotonic()
    with pytest.raises(ClientError) as caught:
        classify(address, timeout_s=20)
    assert caught.value.reason == "QUEUE_FULL"
    assert time.monotonic() - begin < 15  # it does not wait for a deadline that leaves no room for another try


@both
def test_pictures_with_labels_are_not_sent_twice_when_the_connection_broke(
    server: tuple[ScriptedServer, str], classify: Classify
) -> None:
    script, address = server
    script.fail = [refusal(UNAVAILABLE)]
    with pytest.raises(ClientError):
        classify(address, labels=["cat"])
    script.fail = [refusal(EXHAUSTED, "QUEUE_FULL", 0.01)]  # but they are when the server says that nothing was begun
    classify(address, labels=["cat"])
    assert len(script.called_at) == 3


@both
def test_a_server_that_is_not_there_is_an_error_soon(classify: Classify) -> None:
    with pytest.raises(ClientError, match="no pawserve answers at 127.0.0.1:1"):
        classify("127.0.0.1:1")


@both
def test_messages_over_the_server_s_limit_are_not_sent_again(tmp_path: Path, classify: Classify) -> None:
    write_bundle(tmp_path / "models")
    with serving(tmp_path / "models", tmp_path / "state", "--max-message-mib", 1) as address:
        with Client(address) as client, pytest.raises(ClientError, match="larger than max"):
            client.classify([RED + bytes(2**20)])
        begin = time.monotonic()
        with pytest.raises(ClientError, match="larger than max"):
            classify(address, retry=Retry(attempts=3, initial_s=5), model="m" * 2**20)
        assert time.monotonic() - begin < 4


@both
def test_calls_go_round_several_servers_and_on_without_those_that_are_away(classify: Classify) -> None:
    with scripted_server() as (first, one), scripted_server() as (second, two):
        several = f"{one},{two},127.0.0.1:1"
        with Client(several, retry=QUICK) as client:
            client.classify([b"cat"])
            assert eventually(lambda: bool(client.classify([b"cat"]) and first.called_at and second.called_at))
            before = len(first.called_at), len(second.called_at)
            for _ in range(10):
                client.classify([b"cat"])
            assert (len(first.called_at), len(second.called_at)) == (before[0] + 5, before[1] + 5)
        assert classify(several).model


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("pawserve:50051", "pawserve:50051"),
        ("127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("[::1]:1, [::1]:2", "ipv6:[::1]:1,[::1]:2"),
        ("dns:///pawserve:50051", "dns:///pawserve:50051"),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
    ],
)
def test_addresses_are_named_as_grpc_names_them(address: str, target: str) -> None:
    assert to_target(address) == target


@pytest.mark.parametrize("addresses", ["127.0.0.1:1,[::1]:2", "a:1,b:2", "127.0.0.1,127.0.0.2", "127.0.0.1:1,"])
def test_addresses_that_cannot_be_used_together_are_refused(addresses: str) -> None:
    with pytest.raises(ValueError, match="dns:///NAME:PORT"):
        Client(addresses)


def test_delays_grow_at_random_to_their_bound_and_begin_where_the_server_s_wish_ends() -> None:
    retry = Retry(initial_s=0.1, max_s=1.0)
    away = ClientError(UNAVAILABLE, "", "away")
    for failures, longest in ((1, 0.1), (2, 0.2), (3, 0.4), (9, 1.0), (10_000, 1.0)):
        delays = [retry.delay_s(failures, away) for _ in range(200)]
        assert max(delays) <= longest
        assert max(delays) > 0.8 * longest
        assert min(delays) < 0.2 * longest
    wish = ClientError(EXHAUSTED, "QUEUE_FULL", "full", retry_after_s=3.0)
    assert all(3.0 <= retry.delay_s(1, wish) <= 3.1 for _ in range(50))


def test_one_attempt_means_no_retries() -> None:
    attempts = Attempts(Retry(attempts=1), 10)
    assert attempts.delay_after(ClientError(UNAVAILABLE, "", "away")) is None


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"initial_s": -1.0}, {"initial_s": 2.0, "max_s": 1.0}])
def test_retries_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is allowed|at least 1"):
        Retry(**wrong)
