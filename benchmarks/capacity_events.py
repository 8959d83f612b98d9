"""Work in; the simulated time at which it is done out: a clock, CPUs that threads share, and loops.

A process is a generator. What it yields is called with a function that resumes it: `yield partial(cores.compute, 0.1)`
goes on when 0.1 s of CPU time were had. Nothing here is random.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush

SLICE_S = 0.003
"""How long a thread keeps its CPU while others wait: Linux looks at its ticks, every 4 ms with HZ=250, whether the one
that runs has had its slice of 1.4 ms (EEVDF's base slice on two CPUs). Chosen by the medians of two runs that are not
among the results; percentiles are much the same from 2 to 4 ms."""

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


@dataclass(frozen=True, slots=True)
class _Work:
    """What a thread wants, or something that is not simulated."""

    seconds: float
    then: Act | None
    thread: object


class Cores:
    """CPUs that threads take by turns: who finds all of them busy waits until somebody rests, or has had a slice.

    `slowness` says how many times longer than usual work takes that begins at a time.
    """

    def __init__(self, clock: Clock, cpus: int, slowness: Callable[[float], float] | None = None) -> None:
        self._clock = clock
        self._cpus = self._idle = cpus
        self._idle_s = self._since = 0.0
        self._slowness = slowness
        self._waiting: deque[_Work] = deque()
        self._ending: object = None  # the thread that may go on at once
        self._continued: _Work | None = None
        self.busy_s = 0.0
        """CPU seconds that were used, but for interruptions."""

    @property
    def idle_s(self) -> float:
        """For how long a CPU had nothing to do so far, on average."""
        return self._idle_s + (self._clock.now - self._since) * self._idle / self._cpus

    def compute(self, seconds: float, then: Act, thread: object = None) -> None:
        """Use a CPU for so many seconds of its time, and go on.

        A thread that is named, and goes on with more work at once, keeps its CPU for the rest of its slice.
        """
        if self._slowness:
            seconds *= self._slowness(self._clock.now)
        work = _Work(seconds, then, thread)
        if thread is not None and thread is self._ending:
            self._continued = work
        else:
            self._waiting.append(work)
            self._turn()

    def interrupt(self, seconds: float) -> None:
        """Give a CPU to something that is not simulated, before all that waits; then it takes its turns, too."""
        self._waiting.appendleft(_Work(seconds, None, None))
        self._turn()

    def _set_idle(self, cpus: int) -> None:
        self._idle_s, self._since = self.idle_s, self._clock.now
        self._idle = cpus

    def _turn(self) -> None:
        while self._idle and self._waiting:
            self._set_idle(self._idle - 1)
            self._run(self._waiting.popleft(), SLICE_S)

    def _run(self, work: _Work, slice_s: float) -> None:
        taken_s = min(work.seconds, slice_s)

        def end() -> None:
            self._continued = None
            if work.then:
                self.busy_s += taken_s
            if work.seconds > taken_s:
                self._continued = replace(work, seconds=work.seconds - taken_s)
            elif work.then:
                self._ending = work.thread
                work.then()
                self._ending = None
            if self._continued and slice_s > taken_s:
                self._run(self._continued, slice_s - taken_s)
                return
            if self._continued:
                self._waiting.append(self._continued)
            self._set_idle(self._idle + 1)
            self._turn()

        self._clock.at(self._clock.now + taken_s, end)


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
            yield lambda resume, needed=seconds + extra: self._cores.compute(needed, resume, self)
            extra = 0.0
            then()
        self._awake = False
