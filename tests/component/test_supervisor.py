"""The supervisor of several processes, whose processes are sockets here: changes of models, and failed starts."""

import asyncio
import logging
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving.image.decode import Limits
from serving.models.loader import ServingOptions
from serving.processes.channel import Channel
from serving.processes.slot import Process
from serving.processes.supervisor import Supervisor
from serving.settings import Settings
from serving.startup import StartupError
from tests.support.waiting import LIMIT_S


def supervisor(count: int = 2) -> Supervisor:
    limits = Limits(max_bytes=2**20, max_pixels=10**6)
    options = ServingOptions(max_rows=1024, limits=limits)
    settings = Settings(models=Path("models"), options=options, listen="127.0.0.1:0")
    return Supervisor(settings, count, "text", "info")


@asynccontextmanager
async def member(end: socket.socket, made: list[list[str]]) -> AsyncIterator[Channel]:
    """A process's end of the sockets; it adds to `made` the changes that it is told to make."""

    async def change(change: list[str]) -> None:
        await asyncio.sleep(0.01)
        made.append(change)

    channel = Channel(end, {"change": change})
    running = asyncio.create_task(channel.run())
    while channel._writer is None:
        await asyncio.sleep(0)
    yield channel
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_change_while_a_process_opens_its_port_reaches_it() -> None:
    async def test() -> None:
        whole = supervisor()
        first, second = whole._processes
        whole._may_listen = True
        made: list[list[str]] = []
        ours, theirs = socket.socketpair()
        second.channel = Channel(
            ours,
            {
                "loaded": lambda argument: whole._on_loaded(second, argument),
                "serving": lambda argument: whole._on_serving(second, argument),
            },
        )
        running = asyncio.create_task(second.channel.run())
        async with member(theirs, made) as process:
            await whole._on_change(first, ["load", "a"])
            assert await process.call("loaded") == [["load", "a"]]
            await whole._on_change(first, ["load", "b"])
            await whole._on_change(first, ["unload", "b"])
            await process.call("serving", "it serves")
            assert made == [["load", "b"], ["unload", "b"]]
            await whole._on_change(first, ["unload", "a"])
            assert made[2:] == [["unload", "a"]]
        await running

    asyncio.run(test())


class NoMoreProcesses(subprocess.Popen):  # type: ignore[type-arg]
    """What starting a process is without one left."""

    def __init__(self, command: list[str], **options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    def __del__(self) -> None:
        pass


def test_a_start_fails_with_the_reason_if_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", NoMoreProcesses)
    with pytest.raises(StartupError, match="cannot be started: Resource temporarily unavailable"):
        asyncio.run(asyncio.wait_for(supervisor().run(), LIMIT_S))


def test_a_process_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        whole = supervisor()
        process = whole._processes[0]
        whole._may_listen = True
        tries: list[int] = []
        start = Process.start

        def fail_once(self: Process) -> socket.socket:
            tries.append(1)
            if len(tries) == 1:
                return start(self)
            whole.stop()
            raise BlockingIOError(11, "again")

        monkeypatch.setattr(subprocess, "Popen", NoMoreProcesses)
        monkeypatch.setattr(Process, "start", fail_once)
        await asyncio.wait_for(whole._keep(process), LIMIT_S)
        assert len(tries) == 2

    with caplog.at_level(logging.ERROR):
        asyncio.run(test())
    assert "process 1 failed: it cannot be started: Resource temporarily unavailable" in caplog.text
    assert "started again in 0.5 s" in caplog.text
