"""Failed calls of both clients: which are tried again, and when."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.api.errors import ApiError, Code
from serving.client import AsyncClient, Classified, Client, ClientError, Retry
from serving.client.channel import to_target
from serving.client.retries import Attempts, is_retryable
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.images import RED
from tests.support.scripted_server import ScriptedServer, rejection, scripted_server
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S, eventually

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
QUICK = Retry(initial_s=0.02)
Classify = Callable[..., Classified]


def classify_sync(address: str, *, timeout_s: float = LIMIT_S, retry: Retry = QUICK, **options: Any) -> Classified:
    with Client(address, timeout_s=timeout_s, retry=retry) as client:
        return client.classify([b"cat"], **options)


def classify_async(address: str, *, timeout_s: float = LIMIT_S, retry: Retry = QUICK, **options: Any) -> Classified:
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
        rejection(UNAVAILABLE),
        rejection(EXHAUSTED, "QUEUE_FULL", 0.05),
        rejection(EXHAUSTED),
        ApiError(Code.CANCELLED, "", "CANCELLED"),
        ApiError(Code.INTERNAL, "", "Stream removed (RST_STREAM (Received RST_STREAM with error code 0))"),
    ],
    ids=["unavailable", "queue full", "a proxy's limit", "not started by a stopping server", "reset by a proxy"],
)
def test_temporary_failures_are_tried_again(
    server: tuple[ScriptedServer, str], classify: Classify, error: Exception
) -> None:
    script, address = server
    script.fail = [error, error]  # type: ignore[list-item]
    assert classify(address).results[0].classes == (("cat", 1.0),)  # type: ignore[union-attr]
    assert len(script.called_at) == 3


@both
def test_the_delay_that_the_server_asks_for_is_kept(server: tuple[ScriptedServer, str], classify: Classify) -> None:
    script, address = server
    script.fail = [rejection(EXHAUSTED, "QUEUE_FULL", 0.4)]
    classify(address)
    first, second = script.called_at
    assert second - first >= 0.4


@both
@pytest.mark.parametrize(
    "error",
    [
        rejection(grpc.StatusCode.INVALID_ARGUMENT, "VIEWS_OUT_OF_RANGE"),
        rejection(grpc.StatusCode.INTERNAL, "ENGINE_FAILED"),
        rejection(EXHAUSTED, "TOO_MANY"),
    ],
    ids=["invalid", "internal", "exhausted for good"],
)
def test_permanent_failures_are_not_tried_again(
    server: tuple[ScriptedServer, str], classify: Classify, error: Any
) -> None:
    script, address = server
    script.fail = [error] * 5
    with pytest.raises(ClientError) as caught:
        classify(address)
    assert (caught.value.code.name, caught.value.reason) == (error.code.name, error.reason)
    assert len(script.called_at) == 1


@both
def test_attempts_are_bounded_and_the_last_error_is_raised(
    server: tuple[ScriptedServer, str], classify: Classify
) -> None:
    script, address = server
    script.fail = [rejection(UNAVAILABLE)] * 9
    with pytest.raises(ClientError) as caught:
        classify(address, retry=Retry(attempts=3, initial_s=0.01))
    assert caught.value.code == UNAVAILABLE
    assert len(script.called_at) == 3


@both
def test_no_try_starts_after_the_deadline(server: tuple[ScriptedServer, str], classify: Classify) -> None:
    script, address = server
    script.fail = [rejection(EXHAUSTED, "QUEUE_FULL", LIMIT_S)] * 9
    with pytest.raises(ClientError) as caught:
        classify(address)
    assert caught.value.reason == "QUEUE_FULL"
    assert len(script.called_at) == 1


@both
def test_images_with_labels_are_not_sent_twice_after_the_connection_broke(
    server: tuple[ScriptedServer, str], classify: Classify
) -> None:
    script, address = server
    script.fail = [rejection(UNAVAILABLE)]
    with pytest.raises(ClientError):
        classify(address, labels=["cat"])
    script.fail = [rejection(EXHAUSTED, "QUEUE_FULL", 0.01)]  # the server reports that it has not started the request
    classify(address, labels=["cat"])
    assert len(script.called_at) == 3


@both
def test_an_unreachable_server_is_an_error_once_retries_are_used_up(classify: Classify) -> None:
    with pytest.raises(ClientError, match="no pawserve answers at 127.0.0.1:1"):
        classify("127.0.0.1:1")


@both
def test_messages_over_the_server_s_limit_are_not_sent_again(tmp_path: Path, classify: Classify) -> None:
    write_bundle(tmp_path / "models")
    with running_server(tmp_path / "models", tmp_path / "state", "--max-message-mib", 1) as address:
        with Client(address) as client, pytest.raises(ClientError, match="larger than max"):
            client.classify([RED + bytes(2**20)])
        with pytest.raises(ClientError, match="larger than max") as caught:
            classify(address, model="m" * 2**20)
        assert not is_retryable(caught.value)


@both
def test_calls_rotate_over_the_servers_that_are_reachable(classify: Classify) -> None:
    with scripted_server() as (first, one), scripted_server() as (second, two):
        several = f"{one},{two},127.0.0.1:1"
        with Client(several, retry=QUICK) as client:
            client.classify([b"cat"])
            assert eventually(lambda: bool(client.classify([b"cat"]) and first.called_at and second.called_at))
            before = len(first.called_at), len(second.called_at)
            for _ in range(10):
                client.classify([b"cat"])
            calls = len(first.called_at) - before[0], len(second.called_at) - before[1]
            assert sum(calls) == 10
            assert min(calls) >= 1  # gRPC begins its rotation anew while it tries the third address
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
def test_addresses_become_grpc_targets(address: str, target: str) -> None:
    assert to_target(address) == target


@pytest.mark.parametrize("addresses", ["127.0.0.1:1,[::1]:2", "a:1,b:2", "127.0.0.1,127.0.0.2", "127.0.0.1:1,"])
def test_addresses_that_cannot_be_used_together_are_rejected(addresses: str) -> None:
    with pytest.raises(ValueError, match="dns:///NAME:PORT"):
        Client(addresses)


def test_delays_are_random_grow_to_their_bound_and_add_to_the_server_s_delay() -> None:
    retry = Retry(initial_s=0.1, max_s=1.0)
    away = ClientError(UNAVAILABLE, "", "away")
    for failures, longest in ((1, 0.1), (2, 0.2), (3, 0.4), (9, 1.0), (10_000, 1.0)):
        delays = [retry.delay_s(failures, away) for _ in range(200)]
        assert max(delays) <= longest
        assert max(delays) > 0.8 * longest
        assert min(delays) < 0.2 * longest
    full = ClientError(EXHAUSTED, "QUEUE_FULL", "full", retry_after_s=3.0)
    assert all(3.0 <= retry.delay_s(1, full) <= 3.1 for _ in range(50))


def test_one_attempt_means_no_retries() -> None:
    attempts = Attempts(Retry(attempts=1), 10)
    assert attempts.delay_after(ClientError(UNAVAILABLE, "", "away")) is None


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"initial_s": -1.0}, {"initial_s": 2.0, "max_s": 1.0}])
def test_retry_numbers_out_of_range_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is allowed|at least 1"):
        Retry(**wrong)


def test_a_closed_client_rejects_calls(server: tuple[ScriptedServer, str]) -> None:
    client = Client(server[1])
    client.close()
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.classify([b"cat"])


def test_closing_the_client_ends_calls_in_other_threads(server: tuple[ScriptedServer, str]) -> None:
    script, address = server
    script.on_classify = lambda context: client.close()
    client = Client(address)
    with pytest.raises(ClientError) as caught:
        client.classify([b"cat"])
    assert caught.value.code == grpc.StatusCode.CANCELLED


def test_ctrl_c_interrupts_a_call_and_cancels_it_at_the_server(server: tuple[ScriptedServer, str]) -> None:
    script, address = server
    cancelled = threading.Event()

    def interrupt(context: grpc.ServicerContext) -> None:
        context.add_callback(cancelled.set)
        signal.raise_signal(signal.SIGINT)
        cancelled.wait(LIMIT_S)

    script.on_classify = interrupt
    with Client(address) as client, pytest.raises(KeyboardInterrupt):
        client.classify([b"cat"])
    assert cancelled.wait(LIMIT_S)


def test_a_client_cannot_be_used_in_a_forked_process(server: tuple[ScriptedServer, str]) -> None:
    program = """
import os, sys
from serving.client import Client
client = Client(sys.argv[1])
child = os.fork()
if child == 0:
    try:
        client.classify([b"cat"])
    except RuntimeError:
        os._exit(5)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-c", program, server[1]]
    assert subprocess.run(command, cwd=ROOT, timeout=LIMIT_S, check=False).returncode == 5


def test_many_threads_share_a_client(server: tuple[ScriptedServer, str]) -> None:
    with Client(server[1]) as client, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: client.classify([str(number).encode()]), range(400)))
    labels = [answer.results[0].classes[0][0] for answer in answers]  # type: ignore[union-attr]
    assert labels == [str(number) for number in range(400)]
