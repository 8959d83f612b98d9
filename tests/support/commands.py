"""Commands of the packages, run in processes of their own.

Most are forked from a process that has already loaded the libraries: loading takes seconds for torch and half a second
for the server. tests/reliability, the README's commands and the demo start commands as a user does.
"""

import atexit
import importlib.util
import io
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.waiting import LIMIT_S

ROOT = Path(__file__).resolve().parent.parent.parent

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "export.bundle",
        "export.graphs.quantize",
        "onnxscript",
        "serving.__main__",
        "serving.cli.commands.export_labels",
        "serving.cli.commands.health",
        "serving.cli.commands.label",
        "serving.cli.commands.predict",
        "serving.cli.commands.serve",
        "serving.cli.commands.stats",
        "training.evaluate",
        "training.fit",
    ]
)


@dataclass(frozen=True)
class Finished:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def main_of(package: str, *arguments: object) -> int:
    """The exit code of `python -m package arguments…`, run in this process."""
    return int(importlib.import_module(f"{package}.__main__").main([str(argument) for argument in arguments]))


@cache
def _outputs() -> Path:
    """The folder of what processes print. It goes with this process, even if a test fails before it ends its own."""
    folder = Path(tempfile.mkdtemp(prefix="pawserve-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class WarmProcess:
    """`sys.exit(function(*arguments))` in a process forked from one that has loaded the libraries.

    Nothing here limits how long the process takes: pytest's own timeout ends a test that hangs.

    Args:
        function: a function at the top of a module, so that the process can find it: `main_of`, for a command.
        arguments: anything that can be pickled.
        folder: the working directory.
        file_limit: the most bytes that any file which the process writes may have.
        environment: variables added to those of this process.
    """

    def __init__(
        self,
        function: Callable[..., int],
        *arguments: object,
        folder: Path = ROOT,
        file_limit: int | None = None,
        **environment: str,
    ) -> None:
        if function is main_of and arguments[0] in ("training", "export"):
            importlib.util.find_spec("torch")  # skips the test where torch is absent; see tests/conftest.py
        self._output = Path(tempfile.mkdtemp(dir=_outputs()))
        self._finished: Finished | None = None
        for name in ("stdout", "stderr"):
            (self._output / name).touch()
        given = (self._output, folder, file_limit, {**os.environ, **environment}, function, arguments)
        self._process = _context.Process(target=_run, args=given)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        """What it has written to its standard output so far."""
        return self._finished.stdout if self._finished else (self._output / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has written to its standard error so far."""
        return self._finished.stderr if self._finished else (self._output / "stderr").read_text()

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs, -N if signal N ended it."""
        return self._process.exitcode

    def wait(self) -> int:
        """Wait until it has ended; the exit code."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Wait for something that the process does; it is an error if the process ends before."""
        while not happened():
            assert self._process.exitcode is None, self.stderr
            time.sleep(0.005)

    def printed(self, pattern: str) -> re.Match[str]:
        """Wait until its standard output matches a pattern."""
        self.wait_until(lambda: re.search(pattern, self.stdout))
        match = re.search(pattern, self.stdout)
        assert match
        return match

    def finish(self) -> Finished:
        """Wait until it has ended; kill it if the wait is interrupted, as by pytest's timeout."""
        if self._finished is None:
            try:
                returncode = self.wait()
            except BaseException:
                print(self.stderr, file=sys.stderr)
                self._process.kill()
                raise
            finally:
                self._process.join()
            self._finished = Finished(returncode, self.stdout, self.stderr)
            shutil.rmtree(self._output)
        return self._finished

    def close(self) -> None:
        """Kill it if it still runs; print its standard error, which pytest shows if the test fails."""
        if self._process.exitcode is None:
            self._process.kill()
        print(self.finish().stderr, file=sys.stderr)


def run_here(*arguments: object) -> Finished:
    """Run `python -m arguments…` of `training` or `export` in this process, which has loaded torch already."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            code = main_of(str(arguments[0]), *arguments[1:])
        except SystemExit as ended:  # tyro's way to reject options
            code = int(ended.code or 0)
    return Finished(code, out.getvalue(), errors.getvalue())


def run(*arguments: object, file_limit: int | None = None, **environment: str) -> Finished:
    """Run `python -m arguments…` of one of our packages in a process of its own.

    Args:
        arguments: package, command and options.
        file_limit: the most bytes that any file which the command writes may have.
        environment: variables added to those of this process.
    """
    return WarmProcess(main_of, *arguments, file_limit=file_limit, **environment).finish()


def run_cold(*arguments: object, **environment: str) -> Finished:
    """Run `python -m arguments…` for any module, and for tests of how the libraries are loaded."""
    finished = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


def two_processes(function: Callable[..., int], *arguments: object) -> list[Finished]:
    """Run a function in two processes that find each other as torchrun's do, without torchrun's start-up time."""
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    processes = [WarmProcess(function, *arguments, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
    return [process.finish() for process in processes]


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _run(
    output: Path,
    folder: Path,
    file_limit: int | None,
    environment: Mapping[str, str],
    function: Callable[..., int],
    arguments: tuple[object, ...],
) -> None:
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        with (output / name).open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.exit(function(*arguments))


def run_programs_at_once(programs: Sequence[Sequence[object]]) -> None:
    """Start Python programs that wait for a line, send it to all, and assert that all succeed.

    Args:
        programs: the text of each, followed by its arguments.
    """
    commands = [[sys.executable, "-c", *map(str, program)] for program in programs]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for command in commands]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=LIMIT_S)
    assert [process.returncode for process in started] == [0] * len(started)
