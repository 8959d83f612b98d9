"""Servers killed with SIGKILL at any moment, even while they start, and started again on the same folders."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.commands import ROOT

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class KilledServer:
    """A server of `models` and `state` on a free port. It has to be killed."""

    def __init__(self, models: Path, state: Path) -> None:
        command = [sys.executable, "-m", "serving", "serve", "--models", models, "--state", state]
        command += ["--listen", "127.0.0.1:0"]
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.address = ""
        self.start_s = 0.0
        """From the command to readiness, in seconds."""
        self.start_cpu_s = 0.0
        """Of that, time on a CPU: what is left of it on a machine that does other things besides."""

    def wait_until_ready(self) -> None:
        """Raises AssertionError with what the server wrote, if it ends instead."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        ready = re.search(r"ready on (127\.0\.0\.1:\d+)", self._process.stdout.readline())
        assert ready, self._process.stderr.read()
        self.address = ready[1]
        self.start_s = time.monotonic() - self._began
        # the fields after the name in parentheses, which may hold anything (proc(5)): utime and stime
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        self.start_cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def kill(self) -> None:
        """At once: it runs nothing more of its own."""
        self._process.send_signal(signal.SIGKILL)
        _, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == -signal.SIGKILL, errors
