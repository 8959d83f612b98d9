"""Work in; the simulated time at which it is done out: a clock, CPUs that threads share, and loops.

A process is a generator. What it yields is called with a function that resumes it: `yield partial(cores.compute, 0.1)`
goes on when 0.1 s of CPU time were had. Nothing here is random.
"""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush

Act = Callable[[], None]
Process = Iterator[Callable[[Act], None]]


class Clock:
    """Simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Act]] = []
        self._number = 0  # what is due at one time happens in the order in which it was asked for

    def at(self, time: float, act: Act) -> None:
        """Do something at a time that is not yet past."""
        self._number += 1
        heappush(self._events, (time, self._number, act))

    def run(self) -> None:
        """Go on until nothing is left to do."""
        while self._events:
            self.now, _, act = heappop(self._events)
            act()


def spawn(process: Process) -> None:
    """Let a process run until it waits; it resumes by itself."""
    for wait in process:
        wait(lambda: spawn(process))
        return


class Cores:
    """CPUs that threads share evenly: n threads on C CPUs run at min(1, C / n) each (egalitarian processor sharing).

    `slowness` says how many times longer than usual work takes that begins at a time.
    """

    def __init__(self, clock: Clock, cpus: int, slowness: Callable[[float], float] | None = None) -> None:
        self._clock = clock
        self._cpus = cpus
        self._slowness = slowness
        self._served = 0.0  # CPU seconds that each thread has had, had it been there from the beginning
        self._since = 0.0
        self._running: list[tuple[float, int, Act]] = []  # with what will have been served when each is done
        self._number = 0
        self._planned = 0  # only the last plan counts: whoever comes or goes changes all others' pace
        self.busy_s = 0.0
        """CPU seconds that were used."""

    def compute(self, seconds: float, then: Act) -> None:
        """Use a CPU for so many seconds of its time, and go on."""
        if self._slowness:
            seconds *= self._slowness(self._clock.now)
        self._catch_up()
        self._number += 1
        heappush(self._running, (self._served + seconds, self._number, then))
        self._plan()

    def _catch_up(self) -> None:
        if self._running:
            pace = min(1.0, self._cpus / len(self._running))
            self._served += (self._clock.now - self._since) * pace
            self.busy_s += (self._clock.now - self._since) * pace * len(self._running)
        self._since = self._clock.now

    def _plan(self) -> None:
        self._planned += 1
        if self._running:
            slowness = max(1.0, len(self._running) / self._cpus)
            due = self._clock.now + max(0.0, self._running[0][0] - self._served) * slowness
            plan = self._planned
            self._clock.at(due, lambda: self._end_first(plan))

    def _end_first(self, plan: int) -> None:
        if plan != self._planned:
            return
        self._catch_up()
        _, _, then = heappop(self._running)
        self._plan()
        then()


class Loop:
    """A thread that does one thing after the other, first come, first served. Each wake costs extra."""

    def __init__(self, cores: Cores, wake_s: float = 0.0) -> None:
        self._cores = cores
        self._wake_s = wake_s
        self._waiting: deque[tuple[float, Act]] = deque()
        self._awake = False

    def do(self, seconds: float, then: Act) -> None:
        """Queue something that takes so many CPU seconds."""
        self._waiting.append((seconds, then))
        if not self._awake:
            self._awake = True
            spawn(self._run())

    def _run(self) -> Process:
        extra = self._wake_s
        while self._waiting:
            seconds, then = self._waiting.popleft()
            yield lambda resume, needed=seconds + extra: self._cores.compute(needed, resume)
            extra = 0.0
            then()
        self._awake = False
