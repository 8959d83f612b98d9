"""One of a server's processes, as its supervisor sees it: started, ended, and started again."""

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum

from serving.processes.channel import Channel


class ProcessState(Enum):
    """State of a process."""

    DOWN = "down"
    STARTING = "starting"
    LOADED = "loaded"
    """It has loaded the models, and waits until all others have."""
    SERVING = "serving"


@dataclass(eq=False)
class Process:
    """One process of the server, which may be restarted."""

    number: int
    """Number of the process, from 1."""
    cpus: Sequence[int]
    """CPUs that it may use; empty for all."""
    state: ProcessState = ProcessState.DOWN
    restarts: int = -1
    """How often it was started again."""
    settled: bool = False
    """Whether it has served, or has ended once: it does not keep the start waiting."""
    reason: str = ""
    """Why it could not start, or could not serve any more, in its own words."""
    description: str = ""
    """Address and models, when it serves."""
    names: frozenset[str] | None = None
    """Resource names that it serves; None until it has reported them."""
    changes: int = 0
    """How many of the changes that clients have made it was sent."""
    popen: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    channel: Channel | None = field(default=None, repr=False)

    def start(self) -> socket.socket:
        """Start it; this end of its sockets.

        Raises:
            OSError: if the system has no process, memory or file descriptor left.
        """
        ours, theirs = socket.socketpair()
        with ExitStack() as opened:
            opened.enter_context(ours)
            with theirs:
                cpus = ",".join(map(str, self.cpus))
                command = [sys.executable, "-m", "serving.processes.child"]
                self.popen = subprocess.Popen(
                    [*command, str(self.number), str(theirs.fileno()), cpus],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,  # Ctrl-C reaches the supervisor only, which passes it on
                )
            opened.pop_all()
        self.restarts += 1
        self.reason = self.description = ""
        self.state = ProcessState.STARTING
        return ours

    def wait(self) -> None:
        """Wait until it has ended."""
        if self.popen:
            self.popen.wait()

    def describe_end(self) -> str:
        """How it ended, after its name in a sentence."""
        if self.reason:
            return f"failed: {self.reason}"
        code = self.popen.returncode if self.popen else None
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"
