"""How many images a second this machine decodes and computes without a server.

A process for each CPU, bound to it, with a single-threaded session and nothing to wait for: no server around the same
engine and the same decoding can be faster.
"""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier

from benchmarks.common import images_of
from benchmarks.in_process import InProcessClassifier

BATCH = 4
IMAGES = 250
WARM_UP_S = 0.3


def measure_limit(bundle: Path, photos: Path, seconds: float) -> float:
    """Images a second of all CPUs together."""
    cpus = sorted(os.sched_getaffinity(0))
    context = get_context("forkserver")
    with context.Manager() as manager, ProcessPoolExecutor(len(cpus), mp_context=context) as processes:
        measure = partial(_measure, bundle, photos, loaded=manager.Barrier(len(cpus)), seconds=seconds)
        return sum(processes.map(measure, cpus))


def _measure(bundle: Path, photos: Path, cpu: int, *, loaded: Barrier, seconds: float) -> float:
    """Images a second on one CPU, once all processes have loaded."""
    os.sched_setaffinity(0, {cpu})
    classifier = InProcessClassifier(bundle)
    contents = images_of(photos, IMAGES)
    loaded.wait()
    begin = time.monotonic() + WARM_UP_S
    at = images = 0
    elapsed = 0.0
    while elapsed < seconds:
        batch = [contents[(at + place) % len(contents)] for place in range(BATCH)]
        classifier.classify([classifier.decode(content) for content in batch])
        at += BATCH
        now = time.monotonic()
        if now > begin:  # until then it warms up
            images += BATCH
            elapsed = now - begin
    return images / elapsed
