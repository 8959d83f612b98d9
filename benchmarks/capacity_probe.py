"""CPUs in; how fast each of them was, all the time, for just the work that a server does, out.

A CPU of a virtual machine has no pace of its own: what other guests do on the same core slows it, for a tenth of a
second or for seconds, and the kernel's account of stolen time says nothing of it. A probe computes one row every
PERIOD_S, at the priority of the server, so that a busy CPU tells its pace too, and notes the CPU time that it took. It
is itself a program that takes the server's CPU: capacity_others.py sees it like any other.

Beside each probe something counts under SCHED_IDLE. It takes no time from anybody, and keeps the CPU from halting, so
that the host does not use the pauses between requests.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from select import select

import numpy as np
from numpy.typing import NDArray

from serving.bundle.manifest import Bundle, open_bundle
from serving.engine.base import EngineLayout
from serving.engine.onnx import choose_precision, load_engines

PERIOD_S = 0.12
SMOOTHED_S = 0.2
"""Over how long samples are averaged."""

Interval = tuple[float, float]
"""Two times of the system's clock."""


class Probes:
    """One probe for each CPU, from the beginning of the block to its end."""

    def __init__(self, bundle: Bundle, cpus: Sequence[int]) -> None:
        self._idlers = [_start("idle", cpu) for cpu in cpus]
        self._probes = [_start("probe", cpu, bundle.folder) for cpu in cpus]
        self.pids = [probe.pid for probe in self._probes]
        """Of those that take time from others."""
        self.samples: list[NDArray[np.float64]] = []
        """Of each CPU, once the block has ended: float64 [S, 2], the times and the paces in rows for a second."""

    def __enter__(self) -> "Probes":
        return self

    def __exit__(self, *_: object) -> None:
        for probe in self._probes:
            out, _ = probe.communicate(timeout=60)  # which closes its input, and so ends it
            self.samples.append(np.array(json.loads(out), np.float64).reshape(-1, 2))
        for idler in self._idlers:
            idler.communicate(timeout=60)


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
    known = [(middle, np.mean(1 / pace[chosen])) for middle, chosen in zip(middles, near, strict=True) if chosen.any()]
    if not fitted.any() or not known:
        return lambda _: 1.0
    times, row_s = np.array(known).T
    slower = row_s / np.mean(1 / pace[fitted])
    return lambda time_s: float(np.interp(time_s, times, slower))


def _start(what: str, cpu: int, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", __spec__.name, what, str(cpu), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _asked_to_end(wait_s: float) -> bool:
    return bool(select([sys.stdin], [], [], wait_s)[0])


def probe(folder: Path) -> None:
    """Compute rows until standard input ends; then say how fast, as JSON."""
    bundle = open_bundle(folder)
    plan = EngineLayout(instances=1, threads=1, max_batch_size=1)
    (engine,) = load_engines(bundle, choose_precision(bundle.manifest), plan)
    crop = bundle.manifest.preprocess.crop
    images_NHWC = np.random.default_rng(0).integers(0, 256, (1, crop, crop, 3), np.uint8)
    samples: list[tuple[float, float]] = []
    while not _asked_to_end(PERIOD_S):
        engine.run(images_NHWC)  # which finds the server's data in the caches, rather than its own
        began = time.thread_time()
        engine.run(images_NHWC)
        samples.append((time.time(), 1 / (time.thread_time() - began)))
    json.dump(samples, sys.stdout)


def idle() -> None:
    """Count until standard input ends."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while not _asked_to_end(0):
        for _ in range(100_000):
            pass


def main() -> None:
    what, cpu, *arguments = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu)})
    if what == "idle":
        idle()
    else:
        probe(Path(arguments[0]))


if __name__ == "__main__":
    main()
