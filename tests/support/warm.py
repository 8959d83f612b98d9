"""The packages' commands in processes of their own, forked from one that has loaded their libraries already.

To load them takes torch seconds, and the server half a second. What begins cold, as a user's command does, is tried in
tests/reliability, by the README's commands and by the demo.
"""

import multiprocessing
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_S = 240

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


def call(package: str, *arguments: object) -> int:
    """`python -m package arguments…`; its exit code."""
    return int(import_module(f"{package}.__main__").main([str(argument) for argument in arguments]))


class WarmProcess:
    """`sys.exit(function(*arguments))`, begun in a process of its own; negative exit codes are signals.

    Args:
        function: of a module, so that the process can find it: `call`, for a command.
        arguments: what can be pickled.
        folder: where it runs.
        file_limit: most bytes in any file that it writes.
        environment: variables that it has beside those of this process.
    """

    def __init__(
        self,
        function: Callable[..., int],
        *arguments: object,
        folder: Path = ROOT,
        file_limit: int | None = None,
        **environment: str,
    ) -> None:
        self._folder = TemporaryDirectory()
        self._output = Path(self._folder.name)
        self._finished: Finished | None = None
        for name in ("stdout", "stderr"):
            (self._output / name).touch()
        given = (self._output, folder, file_limit, {**os.environ, **environment}, function, arguments)
        self._process = _context.Process(target=_begin, args=given)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._finished.stdout if self._finished else (self._output / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._finished.stderr if self._finished else (self._output / "stderr").read_text()

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.exitcode

    def wait(self, timeout_s: float = LIMIT_S) -> int | None:
        """As `returncode`, once it has ended or the time has passed."""
        self._process.join(timeout_s)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """A signal for it, unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Wait for what it does; that it ends before is an error."""
        deadline = time.monotonic() + LIMIT_S
        while not happened():
            assert self._process.exitcode is None, self.stderr
            assert time.monotonic() < deadline, f"it never came so far\n{self.stderr}"
            time.sleep(0.005)

    def printed(self, pattern: str) -> re.Match[str]:
        """Wait until what it has printed matches a pattern."""
        self.wait_until(lambda: re.search(pattern, self.stdout))
        match = re.search(pattern, self.stdout)
        assert match
        return match

    def finish(self) -> Finished:
        """Wait until it has ended; kill it if it does not."""
        if self.wait() is None:
            self._process.kill()
            self._process.join()
        assert self._process.exitcode is not None
        if self._finished is None:
            self._finished = Finished(self._process.exitcode, self.stdout, self.stderr)
            self._folder.cleanup()
        return self._finished

    def close(self) -> None:
        """End it if it has not ended; show what it said if the test fails."""
        if self._process.exitcode is None:
            self._process.kill()
        print(self.finish().stderr, file=sys.stderr)


def two_processes(function: Callable[..., int], *arguments: object) -> list[Finished]:
    """The same in two processes that find each other as torchrun's do, without the seconds that it takes to start."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [WarmProcess(function, *arguments, **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
    return [process.finish() for process in processes]


def _begin(
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
