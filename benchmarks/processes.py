"""Processes of a benchmark: servers, functions in a process of their own, and what a process uses of the machine."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from benchmarks.common import REPOSITORY

ANY_PORT = "127.0.0.1:0"
STOP_TIMEOUT_S = 30

P = ParamSpec("P")
T = TypeVar("T")


class NotStarted(RuntimeError):
    """A server ended before it was ready."""


@dataclass(frozen=True)
class RunningServer:
    """A server in a process of its own."""

    address: str
    pid: int
    start_s: float
    """Seconds from the command until it was ready."""
    ready: str
    """What it says about itself once it is ready."""
    http_address: str
    """HOST:PORT of HTTP; empty without it."""
    metrics_url: str
    """URL of the metrics; empty without them."""


@contextmanager
def running(
    module: str, *arguments: object, folder: Path = REPOSITORY, errors: IO[str] | None = None
) -> Iterator[RunningServer]:
    """Run `python -m module arguments…`, which prints `ready on HOST:PORT` once it serves; stop it at the end.

    Args:
        folder: the checkout whose modules run.
        errors: the file for its standard error; None for that of this process.

    Raises:
        NotStarted: if it ends without that line.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()

            def printed(pattern: str) -> str:
                match = re.search(pattern, line)
                return match[1] if match else ""

            address = printed(r"ready on (127\.0\.0\.1:\d+)")
            if not address:
                raise NotStarted(f"{' '.join(command)} did not start")
            yield RunningServer(
                address,
                server.pid,
                start_s=time.perf_counter() - began,
                ready=printed(r"ready on \S+: (.*)"),
                http_address=printed(r"HTTP on http://(\S+:\d+)"),
                metrics_url=printed(r"metrics on (http://\S+)"),
            )
        finally:
            server.terminate()
            server.communicate(timeout=STOP_TIMEOUT_S)


@contextmanager
def pawserve(
    models: Path,
    *options: object,
    module: str = "serving",
    folder: Path = REPOSITORY,
    errors: IO[str] | None = None,
) -> Iterator[RunningServer]:
    """Run `serve` on a free port, with a state of its own.

    Args:
        models: a folder of models, or one bundle in it.
        options: others of `serve`, or in place of these.
        module: whose `serve` is run.
        folder, errors: as for `running`.
    """
    is_bundle = (models / "model.json").exists()
    served = (models.parents[1], "--model", f"{models.parent.name}/{models.name}") if is_bundle else (models,)
    with tempfile.TemporaryDirectory() as state:
        common = ("serve", "--models", *served, "--state", state, "--listen", ANY_PORT)
        with running(module, *common, *options, folder=folder, errors=errors) as server:
            yield server


def call_in_process(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a module's function in a process of its own, so that it shares no interpreter with anything else."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments, **options).result()


def memory_mib(pid: int, name: str) -> float:
    """A process's memory in MiB, by proc_pid_status(5): VmRSS now, VmHWM at most, RssAnon now without files."""
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def cpu_s(pid: int, thread: int | None = None) -> float:
    """CPU time of a process, or of one of its threads, in seconds: proc_pid_stat(5)."""
    part = f"task/{thread}/stat" if thread else "stat"
    fields = Path(f"/proc/{pid}/{part}").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
