"""CPU time of a server by kind of thread. Run as `python -m benchmarks.serving.thread_times serve …`, it is the server
of the command `serve`, whose threads have their names in the kernel too, as Python 3.14 gives them."""

import ctypes
import sys
from pathlib import Path
from threading import Thread

from serving.cli.parser import main

LOOP, WORKERS, NETWORK, OTHER = "event loop", "workers", "gRPC's I/O", "others"
KINDS = (LOOP, WORKERS, NETWORK, OTHER)
_PR_SET_NAME = 15
"""Option of prctl(2), from <sys/prctl.h>."""
_NETWORK = ("event_engine", "grpc", "Thread-1 (_poll", "lifeguard", "resolver", "timer")
"""How names of gRPC's threads begin, at most 15 characters; the third hands its events to the event loop."""


def name_threads() -> None:
    """Give each thread that Python starts its name in the kernel."""
    libc = ctypes.CDLL(None)
    bootstrap = Thread._bootstrap_inner  # type: ignore[attr-defined]

    def named(thread: Thread) -> None:
        libc.prctl(_PR_SET_NAME, thread.name.encode()[:15], 0, 0, 0)
        bootstrap(thread)

    Thread._bootstrap_inner = named  # type: ignore[attr-defined]


def read_thread_times(pid: int) -> dict[str, float]:
    """CPU seconds of a process's threads until now, by kind."""
    times = dict.fromkeys(KINDS, 0.0)
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            spent_s = int((task / "schedstat").read_text().split()[0]) * 1e-9
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended
        times[_kind(name, is_main=int(task.name) == pid)] += spent_s
    return times


def _kind(name: str, *, is_main: bool) -> str:
    if is_main:
        return LOOP
    if name.startswith(_NETWORK):
        return NETWORK
    return WORKERS if name.startswith("worker") else OTHER


if __name__ == "__main__":
    name_threads()
    sys.exit(main(sys.argv[1:]))
