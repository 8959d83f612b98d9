"""CPUs in; how fast each of them was, all the time, as a program sees it that only takes what nobody else wants, out.

A CPU of a virtual machine has no pace of its own: what other guests do on the same core slows it, by up to a half, for
seconds, and the kernel's account of stolen time says nothing of it. A probe counts in a loop under SCHED_IDLE, so it
takes no time from anybody, and tells how far it came for each second of CPU time that it had. It also keeps the CPU
from halting, so that neither the host nor programs of less weight use the pauses between requests.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from select import select

import numpy as np
from numpy.typing import NDArray

SAMPLE_S = 0.02
UNIT = 1000
SMOOTHED_S = 0.2
"""Over how long samples are averaged."""
EXPONENT = 0.4
"""A CPU on which counting takes twice as long serves in 2 ** EXPONENT times as long, since serving waits for memory
too. Chosen on two runs of `check` that are not among the results: 0.4, 0.5 and 0.6 follow light loads alike, and above
0.4 what is predicted for heavy ones is too long."""

Interval = tuple[float, float]
"""Two times of the system's clock."""


class Probes:
    """One probe for each CPU, from the beginning of the block to its end."""

    def __init__(self, cpus: Sequence[int]) -> None:
        self._probes = [
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(cpu)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for cpu in cpus
        ]
        self.samples: list[NDArray[np.float64]] = []
        """Of each CPU, once the block has ended: float64 [S, 2], the times and the paces in counts for a second."""

    def __enter__(self) -> "Probes":
        return self

    def __exit__(self, *_: object) -> None:
        for probe in self._probes:
            out, _ = probe.communicate(timeout=60)  # which closes its input, and so ends it
            self.samples.append(np.array(json.loads(out), np.float64).reshape(-1, 2))


def slowness(
    samples_S2: NDArray[np.float64], usual: Sequence[Interval], begin: float, seconds: float
) -> Callable[[float], float]:
    """How much longer than usual a CPU's work took, at times after `begin`; between samples it is interpolated.

    Args:
        samples_S2: the CPU's times and paces.
        usual: in these intervals the pace was, on average, the usual one: costs were fitted there.
        begin: of what is simulated, by the system's clock.
        seconds: of its length.
    """
    at, pace = samples_S2.T
    fitted = np.logical_or.reduce([(since <= at) & (at < until) for since, until in usual])
    middles = np.arange(0.0, seconds + SMOOTHED_S, SMOOTHED_S / 2)
    near = [np.abs(at - begin - middle) <= SMOOTHED_S / 2 for middle in middles]
    known = [(middle, pace[chosen].mean()) for middle, chosen in zip(middles, near, strict=True) if chosen.any()]
    if not fitted.any() or not known:  # the CPU had no pause
        return lambda _: 1.0
    times, paces = np.array(known).T
    slower = (pace[fitted].mean() / paces) ** EXPONENT
    return lambda time_s: float(np.interp(time_s, times, slower))


def main() -> None:
    """Count on one CPU until standard input ends; then say how fast, as JSON."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    samples: list[tuple[float, float]] = []
    while not select([sys.stdin], [], [], 0)[0]:
        count, begin, began = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < begin + SAMPLE_S:
            for _ in range(UNIT):
                pass
            count += UNIT
        if count:  # else others had the CPU all the while
            samples.append((time.time(), count / (time.process_time() - began)))
    json.dump(samples, sys.stdout)


if __name__ == "__main__":
    main()
