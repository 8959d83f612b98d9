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

from tests.support.warm import ROOT, Finished, WarmProcess, call


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


def run(*arguments: object, file_limit: int | None = None, **environment: str) -> Finished:
    """`python -m arguments…` for our packages, with its output and exit code.

    Args:
        arguments: package, command and options.
        file_limit: most bytes in any file that it writes.
        environment: variables that it has beside those of the tests.
    """
    return WarmProcess(call, *arguments, file_limit=file_limit, **environment).finish()


def run_cold(*arguments: object, **environment: str) -> Finished:
    """`python -m arguments…` for any module, or where it matters how its libraries are loaded."""
    finished = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


@contextmanager
def serving(models: Path, state: Path, *arguments: object) -> Iterator[str]:
    """A server of its own on a free port; yields its address, and asks it to stop in the end."""
    with stoppable(models, state, *arguments) as (server, address):
        yield address
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, server.stderr


@contextmanager
def stoppable(models: Path, state: Path, *arguments: object) -> Iterator[tuple[WarmProcess, str]]:
    """As `serving`, for tests that stop it themselves; yields the process too."""
    server = WarmProcess(call, "serving", "serve", *_listening(models, state), *arguments)
    try:
        yield server, server.printed(r"ready on (127\.0\.0\.1:\d+)")[1]
    finally:
        server.close()


def _listening(models: Path, state: Path) -> tuple[object, ...]:
    return ("--models", models, "--state", state, "--listen", "127.0.0.1:0")


@contextmanager
def cold_server(
    models: Path, state: Path, *arguments: object, stderr: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """As `serving`, but begun as a user does, for tests of what the process itself costs."""
    command = [sys.executable, "-m", "serving", "serve", *map(str, (*_listening(models, state), *arguments))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
            assert address, "the server did not say that it is ready"
            yield server, address[1]
        finally:
            if server.poll() is None:
                server.terminate()
                server.communicate(timeout=60)


@dataclass(frozen=True)
class Observed:
    """A server that tells of itself."""

    address: str
    metrics_url: str
    process: WarmProcess


@contextmanager
def observed(folder: Path, *arguments: object) -> Iterator[Observed]:
    """A server of `folder`/models with metrics; it must stop well."""
    where = _listening(folder / "models", folder / "state")
    server = WarmProcess(call, "serving", "serve", *where, "--metrics", "127.0.0.1:0", *arguments)
    try:
        ready = server.printed(r"ready on (\S+): .*metrics on (http\S+)")
        yield Observed(ready[1], ready[2], server)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, server.stderr
    finally:
        server.close()


def eventually(holds: Callable[[], bool], within_s: float = 20.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
