"""Servers for tests, each in a process of its own on a free port.

Run as `python -m tests.support.servers serve …`, it is the server of the command `serve`, which prints as JSON what it
holds for each line on its standard input.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import serving.server
from serving.__main__ import main
from serving.client import Client
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT, WarmProcess, main_of
from tests.support.waiting import LIMIT_S


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one model, which tells colours apart."""
    write_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server for one test file; its model tells colours apart."""
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder / "models")
    with running_server(folder / "models", folder / "state") as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """A client of that server."""
    with Client(address, timeout_s=LIMIT_S) as client:
        yield client


def write_clients(path: Path, text: str) -> Path:
    """Write a file of clients with their roles and tokens, as `serve` reads it."""
    path.write_text(text)
    path.chmod(0o600)
    return path


@contextmanager
def running_server(models: Path, state: Path, *arguments: object) -> Iterator[str]:
    """Start a server and yield its address; at the end it must stop with exit code 0."""
    with stoppable_server(models, state, *arguments) as (server, address):
        yield address
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0, server.stderr


@contextmanager
def stoppable_server(models: Path, state: Path, *arguments: object) -> Iterator[tuple[WarmProcess, str]]:
    """Start a server and yield its process and its address, for tests that stop it themselves."""
    server = WarmProcess(main_of, "serving", "serve", *_options(models, state), *arguments)
    try:
        yield server, server.printed(r"ready on (127\.0\.0\.1:\d+)")[1]
    finally:
        server.close()


@dataclass(frozen=True)
class HttpServerProcess:
    """A running server that speaks HTTP too."""

    address: str
    url: str
    process: WarmProcess


@contextmanager
def http_server(folder: Path, *arguments: object) -> Iterator[HttpServerProcess]:
    """Start a server of `folder`/models with HTTP; at the end it must stop with exit code 0."""
    pattern = r"ready on (\S+): .*HTTP on (http[^\s;]+)"
    with _announced(pattern, folder, "--http", "127.0.0.1:0", *arguments) as (address, url, server):
        yield HttpServerProcess(address, url, server)


@contextmanager
def _announced(pattern: str, folder: Path, *arguments: object) -> Iterator[tuple[str, str, WarmProcess]]:
    """Start a server; yields the two groups of the pattern in what it prints, and its process."""
    options = _options(folder / "models", folder / "state")
    server = WarmProcess(main_of, "serving", "serve", *options, *arguments)
    try:
        ready = server.printed(pattern)
        yield ready[1], ready[2], server
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0, server.stderr
    finally:
        server.close()


def _options(models: Path, state: Path) -> tuple[object, ...]:
    # the default layout, so that tests neither wait for a measurement nor depend on its outcome
    return ("--models", models, "--state", state, "--listen", "127.0.0.1:0", "--http", "off")


@dataclass(frozen=True)
class ObservedServer:
    """A running server that exports metrics."""

    address: str
    metrics_url: str
    process: WarmProcess

    def scrape(self, accept: str = "text/plain") -> str:
        """All metrics, in the format named by the HTTP header Accept."""
        request = urllib.request.Request(self.metrics_url, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a sample; None if there is none with these labels."""
        for family in text_string_to_metric_families(self.scrape()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None


@contextmanager
def observed_server(folder: Path, *arguments: object) -> Iterator[ObservedServer]:
    """Start a server of `folder`/models with metrics; at the end it must stop with exit code 0."""
    pattern = r"ready on (\S+): .*metrics on (http\S+)"
    with _announced(pattern, folder, "--metrics", "127.0.0.1:0", *arguments) as (address, url, server):
        yield ObservedServer(address, url, server)


@contextmanager
def cold_server(
    models: Path, state: Path, *arguments: object, stderr: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server as a user does; yield its process and address. For tests of what the process itself costs."""
    command = [sys.executable, "-m", "serving", "serve", *map(str, (*_options(models, state), *arguments))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True) as server:
        try:
            yield server, _ready_address(server)
        finally:
            if server.poll() is None:
                server.terminate()
                server.communicate()


@dataclass(frozen=True)
class CountedServer:
    """A running server that tells what it holds."""

    process: subprocess.Popen[str]
    address: str

    def counts(self) -> dict[str, int]:
        """The numbers of its tasks, rows in flight, open file descriptors and threads."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("count\n")
        self.process.stdin.flush()
        counts: dict[str, int] = json.loads(self.process.stdout.readline())
        return counts

    def resident_mib(self) -> float:
        """Resident memory, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


@contextmanager
def counted_server(models: Path, state: Path, *arguments: object) -> Iterator[CountedServer]:
    """Start a server that tells what it holds; at the end it must stop with exit code 0."""
    options = map(str, (*_options(models, state), *arguments))
    command = [sys.executable, "-m", "tests.support.servers", "serve", *options]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield CountedServer(process, _ready_address(process))
        finally:
            process.terminate()
            process.communicate()
    assert process.returncode == 0


class KilledServer:
    """A server that tests kill with SIGKILL at any moment, even while it starts."""

    def __init__(self, models: Path, state: Path, *arguments: object) -> None:
        command = [sys.executable, "-m", "serving", "serve", *map(str, (*_options(models, state), *arguments))]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.address = ""

    def wait_until_ready(self) -> None:
        """Raise AssertionError with the server's standard error if it ends instead."""
        self.address = _ready_address(self._process)

    def kill(self) -> None:
        """Kill it; it gets no chance to clean up."""
        self._process.send_signal(signal.SIGKILL)
        _, errors = self._process.communicate()
        assert self._process.returncode == -signal.SIGKILL, errors


def _ready_address(server: subprocess.Popen[str]) -> str:
    """Wait until a server is ready; its address."""
    assert server.stdout is not None
    ready = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
    assert ready, f"the server did not become ready\n{server.stderr.read() if server.stderr else ''}"
    return ready[1]


class _CountingServer(serving.server.Server):
    """The server in the process that `counted_server` starts."""

    async def serve(self) -> None:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._count)
        await super().serve()

    def _count(self) -> None:
        if not os.read(sys.stdin.fileno(), 1000):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            return
        counts = {
            "tasks": len(asyncio.all_tasks()),
            "rows": sum(model.classifier.rows_in_flight for model in self.repository.models),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
        }
        print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    serving.server.Server = _CountingServer  # type: ignore[misc]
    sys.exit(main(sys.argv[1:]))
