"""Runs the project's commands as a user does: in a process of their own."""

import importlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Finished:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_here(*arguments: object) -> Finished:
    """`python -m arguments…` for `training` and `export`, in this process: it has torch already."""
    main = importlib.import_module(f"{arguments[0]}.__main__").main
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            code = main([str(argument) for argument in arguments[1:]])
        except SystemExit as ended:  # tyro's way to refuse options
            code = ended.code
    return Finished(code, out.getvalue(), errors.getvalue())


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m arguments…`, with its output and exit code."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@contextmanager
def serving(models: Path, state: Path, *arguments: object) -> Iterator[str]:
    """A server of its own on a free port; yields its address, and asks it to stop in the end."""
    with server_process(models, state, *arguments) as (server, address):
        yield address
    assert server.returncode == 0


@contextmanager
def server_process(models: Path, state: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """As `serving`, for tests that also want the process."""
    command = [sys.executable, "-m", "serving", "serve", "--models", str(models), "--state", str(state)]
    # the plan of the defaults, so that tests neither wait for a measurement nor differ by its outcome
    command += ["--listen", "127.0.0.1:0", "--plan-seconds", "0", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
            assert address, "the server did not say that it is ready"
            yield server, address[1]
        finally:
            server.terminate()
            server.communicate(timeout=60)


def interrupt_when(happened: Callable[[], bool], *arguments: object) -> tuple[int, str]:
    """Run `python -m arguments…`, press Ctrl-C once `happened()` is true; returns exit code and standard error."""
    command = [sys.executable, "-m", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not happened():
            assert process.poll() is None, "it ended before it could be interrupted"
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@dataclass(frozen=True)
class Observed:
    """A server that tells of itself."""

    address: str
    metrics_url: str
    log: Path
    """Its standard error."""


@contextmanager
def observed(folder: Path, *arguments: object) -> Iterator[Observed]:
    """A server of `folder`/models with metrics, that logs to a file; it must stop well."""
    command = [sys.executable, "-m", "serving", "serve", "--models", str(folder / "models"), "--metrics", "127.0.0.1:0"]
    command += [
        "--state",
        str(folder / "state"),
        "--listen",
        "127.0.0.1:0",
        "--plan-seconds",
        "0",
        *map(str, arguments),
    ]
    log = folder / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            ready = re.search(r"ready on (\S+): .*metrics on (http\S+)", server.stdout.readline())
            assert ready, log.read_text()
            yield Observed(ready[1], ready[2], log)
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert server.returncode == 0


def eventually(holds: Callable[[], bool], within_s: float = 20.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
