"""One process of a server: `python -m serving.processes.child NUMBER DESCRIPTOR CPUS`, started by the supervisor.

It reads its settings from the socket DESCRIPTOR, loads the models, waits until all processes have, and listens on the
port that they share. It ends, as on SIGTERM, when the supervisor has ended, even by SIGKILL.
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread

from serving.context import add_request_id
from serving.processes.plain import from_plain, to_plain
from serving.settings import Settings
from serving.startup import ServerFailed, StartupError
from serving.system.logs import LogFormat, add_process, configure


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a process gets from the supervisor."""

    settings: Settings
    log_format: LogFormat
    log_level: str


def send_start(end: socket.socket, start: Start) -> None:
    """Send a new process what it gets, as one line."""
    end.sendall(json.dumps(to_plain(start)).encode() + b"\n")


def main(arguments: Sequence[str]) -> int:
    """Run one process.

    Returns:
        0 after a stop, 1 if it could not start or serve; the supervisor has the reason.
    """
    number, descriptor = map(int, arguments[:2])
    if arguments[2]:
        os.sched_setaffinity(0, map(int, arguments[2].split(",")))
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    Thread(target=_follow_supervisor, args=(end.fileno(),), name="supervisor", daemon=True).start()

    from serving.processes.member import Member  # now that the process is bound to its CPUs, which libraries count

    start = _receive_start(end)
    configure(start.log_format, start.log_level, add_request_id, add_process(number))
    try:
        Member(end).run(start.settings)
    except (ServerFailed, StartupError):
        return 1  # the supervisor knows the reason
    return 0


def _receive_start(end: socket.socket) -> Start:
    with end.makefile("rb", buffering=0) as file:  # without a buffer, which would take what comes after the line
        if not (line := file.readline()).endswith(b"\n"):
            sys.exit(1)  # the supervisor has ended
    return parse_start(line)


def parse_start(content: bytes) -> Start:
    """What `send_start` has sent."""
    from serving.models.loader import ServingOptions  # loads libraries that count the CPUs

    start: Start = from_plain(Start, json.loads(content), {"ServingOptions": ServingOptions})
    return start


def _follow_supervisor(descriptor: int) -> None:
    """Stop this process when the other end of the socket is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)  # the end of the other side is always reported
    with suppress(OSError):
        poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
