"""A server in a process of its own, whose insides the test may count."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import ROOT


@dataclass(frozen=True)
class CountedServer:
    """A running server."""

    process: subprocess.Popen[str]
    address: str

    def counts(self) -> dict[str, int]:
        """What it holds now: tasks, rows, descriptors, threads."""
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
    """Start one on a free port; asked to stop in the end, it must end well."""
    command = [sys.executable, "-m", "tests.support.counted_server", "serve", "--models", models, "--state", state]
    command += ["--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"ready on (127\.0\.0\.1:\d+)", process.stdout.readline())
            assert address, "the server did not say that it is ready"
            yield CountedServer(process, address[1])
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert process.returncode == 0


def eventually(happens: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Whether it happens in time."""
    deadline = time.monotonic() + within_s
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
