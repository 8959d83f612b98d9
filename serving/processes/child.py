"""One process of a server: `python -m serving.processes.child NUMBER DESCRIPTOR CPUS`, started by the supervisor.

It reads its settings from the socket DESCRIPTOR, loads the models, waits until all processes have, and listens on the
port that they share. It ends, as on SIGTERM, when the supervisor has ended, even by SIGKILL.
"""

import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

from serving.processes.plain import from_plain, to_plain

if TYPE_CHECKING:  # imported once the process is bound to its CPUs, since libraries count them
    from serving.settings import Settings
    from serving.system.logs import LogFormat

HEADER = struct.Struct("!I")
"""Length of the `Start` in JSON, before it."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a process gets from the supervisor."""

    settings: "Settings"
    log_format: "LogFormat"
    log_level: str


def send_start(end: socket.socket, start: Start) -> None:
    """Send a new process what it gets."""
    content = json.dumps(to_plain(start)).encode()
    end.sendall(HEADER.pack(len(content)) + content)


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

    from serving.context import RequestIdFilter
    from serving.processes.member import Member
    from serving.startup import ServerFailed, StartupError
    from serving.system.logs import ProcessFilter, configure

    start = _receive_start(end)
    configure(start.log_format, start.log_level, RequestIdFilter(), ProcessFilter(number))
    try:
        Member(end).run(start.settings)
    except (ServerFailed, StartupError):
        return 1  # the supervisor knows the reason
    return 0


def _receive_start(end: socket.socket) -> Start:
    with end.makefile("rb", buffering=0) as file:

        def read(size: int) -> bytes:
            content = b""
            while len(content) < size:
                if not (part := file.read(size - len(content))):
                    sys.exit(1)  # the supervisor has ended
                content += part
            return content

        (size,) = HEADER.unpack(read(HEADER.size))
        return parse_start(read(size))


def parse_start(content: bytes) -> Start:
    """What `send_start` has sent, without its header."""
    from serving.models.loader import ServingOptions
    from serving.settings import Settings
    from serving.system.logs import LogFormat

    names = {"ServingOptions": ServingOptions, "Settings": Settings, "LogFormat": LogFormat}
    start: Start = from_plain(Start, json.loads(content), names)
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
