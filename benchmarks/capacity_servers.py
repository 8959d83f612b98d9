"""A bundle and a CPU in; a server that runs there alone, and loads for it on other CPUs, out."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.bundle.manifest import Bundle

BATCH = 4
"""What the server is told to use; MODERATE_INT8_BATCH of serving/models/layout.py."""


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A server in a process of its own, on one CPU."""

    address: str
    pid: int
    cpu: int


def two_cpus() -> list[int]:
    """Two CPUs: one for a server, one for the load. Raises ValueError if there are not as many."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise ValueError(f"this process may use {len(cpus)} CPU; measuring takes two, one of them for the load")
    return cpus[:2]


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keep this thread, and the processes that it starts, on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def pinned_server(bundle: Bundle, cpu: int) -> Iterator[Pinned]:
    """A server of this bundle with one single-threaded engine, on one CPU."""
    manifest = bundle.manifest
    with tempfile.TemporaryDirectory() as state:
        command = [
            sys.executable,
            "-m",
            "serving",
            "serve",
            "--models",
            str(bundle.folder.parents[1]),
            "--state",
            state,
        ]
        command += [
            "--model",
            f"{manifest.name}/{manifest.version}",
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "warning",
        ]
        command += ["--instances", "1", "--threads", "1", "--max-batch-size", str(BATCH)]
        with on_cpu(cpu):
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with server:
            try:
                assert server.stdout is not None
                address = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
                assert address, f"{command} did not start"
                yield Pinned(address=address[1], pid=server.pid, cpu=cpu)
            finally:
                server.terminate()


def start_load(cpu: int, servers: Sequence[Pinned], photos: Sequence[Path], **job: Any) -> subprocess.Popen[str]:
    """Start a load on one CPU; `answer_of` waits for its end."""
    everything = {
        "servers": [server.address for server in servers],
        "pids": [server.pid for server in servers],
        "photos": list(map(str, photos)),
        "pictures": 1,
        "pause_s": 0.0,
        **job,
    }
    with on_cpu(cpu):
        load = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.capacity_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    assert load.stdin is not None
    load.stdin.write(json.dumps(everything))
    load.stdin.close()
    load.stdin = None
    return load


def answer_of(load: subprocess.Popen[str]) -> dict[str, Any]:
    """What a load says in the end. Raises RuntimeError if it fails."""
    out, _ = load.communicate(timeout=120)
    if load.returncode:
        raise RuntimeError("the load failed; its output says why")
    answer: dict[str, Any] = json.loads(out)
    return answer
