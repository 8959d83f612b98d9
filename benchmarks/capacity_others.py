"""Time in; what programs that are no part of a measurement took of which CPU, and when, out.

A machine at rest is not idle: the kernel's own threads, agents and monitors run for some milliseconds at a time, and
what came for the server waits meanwhile. Where the kernel gives each its turn, that makes the 99th percentile of a load
that keeps the CPUs half busy.
"""

import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

SAMPLE_S = 0.02
LISTED_S = 0.25
"""How often programs are looked for that are new."""
LEAST_S = 0.0001
"""What is shorter is not noted."""
LONGEST_S = 0.1
"""What goes on for longer is noted as several."""
OWN = "thread-self"
"""As whose the watching thread's own time is noted."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A CPU was somebody else's for some time."""

    at: float
    """When it began, by the system's clock."""
    cpu: int
    pid: int | str
    """Whose; OWN for the one that watches."""
    seconds: float


class Others:
    """Watches all programs but this one's children, from the beginning of the block to its end.

    What the watching itself takes, some hundredths of a CPU, is noted too.

    Args:
        too: children that are watched nonetheless.
    """

    def __init__(self, too: Collection[int] = ()) -> None:
        self.taken: list[Taken] = []
        """In the order in which it was noticed."""
        self._too = too
        self._watched: dict[int, float] = {}
        self._children: set[int] = set()
        self._going_on: dict[int | str, int] = {}  # whose -> which of `taken` the look before this one found
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="others")

    def __enter__(self) -> "Others":
        self._list()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        listed = time.monotonic()
        own_s = time.thread_time()
        while not self._ended.wait(SAMPLE_S):
            if time.monotonic() - listed > LISTED_S:
                self._list()
                listed = time.monotonic()
            before, self._going_on = self._going_on, {}
            for pid, before_s in list(self._watched.items()):
                try:
                    used_s = _cpu_seconds(pid)
                except OSError:  # it has ended
                    del self._watched[pid]
                    continue
                self._watched[pid] = used_s
                if used_s - before_s > LEAST_S:
                    self._note(pid, used_s - before_s, before.get(pid))
            before_s, own_s = own_s, time.thread_time()
            self._note(OWN, own_s - before_s, None)

    def _list(self) -> None:
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) in self._watched.keys() | self._children:
                continue
            pid = int(folder.name)
            try:
                ours = pid == os.getpid() or _stat(pid)[1] == str(os.getpid())
                if ours and pid not in self._too:
                    self._children.add(pid)
                else:
                    self._watched[pid] = _cpu_seconds(pid)
            except OSError:
                continue

    def _note(self, process: int | str, seconds: float, earlier: int | None) -> None:
        """Note what was used since the last look; `earlier` is what that look found, which then went on."""
        try:
            cpu = int(_stat(process)[36])
        except OSError:
            return
        if earlier is not None and self.taken[earlier].cpu == cpu and self.taken[earlier].seconds < LONGEST_S:
            began = self.taken[earlier]
            self.taken[earlier] = replace(began, seconds=began.seconds + seconds)
            self._going_on[process] = earlier
        else:
            self._going_on[process] = len(self.taken)
            self.taken.append(Taken(time.time() - seconds, cpu, process, seconds))


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process; its clock's number is that of clock_getcpuclockid(3) on Linux."""
    return time.clock_gettime((~pid << 3) | 2)


def _stat(process: int | str) -> list[str]:
    """The fields of /proc/PROCESS/stat (proc_pid_stat(5)) from the third on, which is the state."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
