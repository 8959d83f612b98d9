"""Iterators of `classify_many` that end early: by an error, by leaving them, with the client or the program."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from serving.client import Client, ClientError
from tests.support.client_streams import IMAGES, assert_each_once, classify
from tests.support.commands import ROOT
from tests.support.scripted_server import ScriptedServer, answer, scripted_server
from tests.support.waiting import LIMIT_S


@pytest.fixture
def server() -> Iterator[tuple[ScriptedServer, str]]:
    with scripted_server() as server:
        yield server


def test_an_exception_of_the_source_is_raised(server: tuple[ScriptedServer, str]) -> None:
    def failing() -> Iterator[bytes]:
        yield b"image 0"
        raise FileNotFoundError("no such image")

    with pytest.raises(FileNotFoundError, match="no such image"):
        classify(server[1], failing())


def test_leaving_the_iterator_early_ends_the_streams(server: tuple[ScriptedServer, str]) -> None:
    ended = threading.Event()

    def watched(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        for request in requests:
            yield answer(request)

    server[0].on_stream = watched
    with Client(server[1]) as client:
        for each in client.classify_many(IMAGES * 100):
            assert each.model
            break
    assert ended.wait(LIMIT_S)


def test_all_clients_share_one_thread_and_print_nothing(server: tuple[ScriptedServer, str]) -> None:
    program = """
import sys, threading
from serving.client import Client
for _ in range(3):
    with Client(sys.argv[1]) as client:
        print(len(list(client.classify_many([b"a", b"b"]))))
print([thread.name for thread in threading.enumerate()].count("client-loop"))
"""
    command = [sys.executable, "-c", program, server[1]]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert finished.stdout.split() == ["2", "2", "2", "1"]
    assert finished.stderr == ""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("1 / 0  # with the iterator in the frame of the traceback", 1),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
        ("", 0),
    ],
)
@pytest.mark.parametrize(
    "iterator",
    ["client.classify_many([b'a'] * 9000)", "client.classify_many(blocking())", "client.watch_statistics()"],
)
def test_a_program_ends_with_its_own_exit_code_while_an_iterator_is_half_read(
    server: tuple[ScriptedServer, str], iterator: str, ending: str, code: int
) -> None:
    program = f"""
import os, queue, signal, sys
from serving.client import Client

def blocking():
    yield b"a"
    yield queue.SimpleQueue().get()

def main():
    client = Client(sys.argv[1])
    results = {iterator}
    next(results)
    kept.append(results)
    {ending}

kept = []
main()
"""
    command = [sys.executable, "-c", program, server[1]]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert finished.returncode == code, finished.stderr
    assert finished.stderr.count("Traceback") == (code not in (0, 3))
    assert "never awaited" not in finished.stderr
    assert "destroyed" not in finished.stderr


def test_closing_the_client_ends_its_iterators(server: tuple[ScriptedServer, str]) -> None:
    client = Client(server[1])
    results = client.classify_many(IMAGES * 100)
    next(results)
    client.close()
    with pytest.raises(ClientError) as caught:
        list(results)
    assert caught.value.code == grpc.StatusCode.CANCELLED
    with pytest.raises(ValueError, match="closed"):
        next(client.classify_many(IMAGES))


def test_the_client_works_inside_a_running_event_loop(server: tuple[ScriptedServer, str]) -> None:
    async def notebook() -> None:
        assert_each_once(classify(server[1]))

    asyncio.run(notebook())
