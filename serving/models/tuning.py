"""A model and the plans to try in; the one that serves most pictures a second within the latency bound out.

Each plan is tried as it would serve: encoded pictures come from several callers through a batcher, whose workers decode
them and run the engines. One layout of instances and threads is loaded at a time, so that measuring takes no more
memory than serving. First each layout is tried with a moderate batch and with its largest; then the one of fewest
threads, and those that were about as fast as the fastest, are loaded once more, and tried with all of their batches.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import log2

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from serving.batching.admission import Admission
from serving.batching.batcher import DynamicBatcher
from serving.batching.workers import WorkerOptions
from serving.engine.base import Engine, EngineLayout
from serving.image.decode import Limits
from serving.image.preprocess import Preprocess
from serving.models.classifier import Classifier
from serving.models.layout import TunedLayout, count_workers, worker_cpus
from serving.system.memory import return_memory

PHOTO_HEIGHT, PHOTO_WIDTH = 375, 500
CALLERS_PER_CPU = 16
FIRST_SHARE = 0.65
"""Of the time, for the first look at all layouts."""
NEAR = 0.85
"""Layouts that were at least so fast, compared with the fastest one, are looked at again."""
HOPELESS = 0.5
"""A layout that is so much slower than another one with a moderate batch is not tried with its largest."""
MUCH_FASTER = 1.25
"""A layout of more threads must be so many times as fast as the one of fewest, which is the fastest nearly everywhere:
layouts are tried one after the other, and a machine that others use as well may change its pace between them."""
MIN_TRIAL_S = 0.03
SURELY = 1.5
"""A batch that would take so many times the latency bound, by the pace of the one before, is not timed."""
TIE = 0.15
"""Plans whose throughput differs by no more are taken for alike, since short trials tell no better: the one with the
most moderate batch is taken. A batch also saves work around the engine that no trial sees, and a large one makes others
wait."""


@dataclass
class _Trial:
    """What is known of one plan so far."""

    plan: EngineLayout
    latency_s: float
    handicap: float
    rows: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def merit(self) -> float:
        """The rate, as far as it can be relied on to be better than that of another layout."""
        return self.rate / self.handicap


class _Capped:
    """An engine that is asked for smaller batches than it could take."""

    def __init__(self, engine: Engine, max_batch_size: int) -> None:
        self.run = engine.run
        self.close = engine.close
        self.max_batch_size = max_batch_size


def search(
    plans: Sequence[EngineLayout],
    make: Callable[[EngineLayout], Sequence[Engine]],
    preprocess: Preprocess,
    *,
    cpus: int,
    on_gpu: bool,
    moderate: int,
    latency_bound_ms: float,
    seconds: float,
) -> TunedLayout:
    """Try plans, and take the best. Called by a thread that runs no event loop.

    Args:
        plans: at least one.
        make: makes a plan's engines; raises BundleError.
        cpus: CPUs that this process may use.
        on_gpu: whether the engines compute elsewhere than the workers.
        moderate: the batch to prefer, where others are no faster.
        latency_bound_ms: how long a full batch may take in an engine, alone; a batch of one may always.
        seconds: how long all of it may take; a model that needs longer for a few rows takes longer.
    """
    begin = time.monotonic()
    by_layout: dict[tuple[int, int], list[EngineLayout]] = {}
    for plan in plans:
        by_layout.setdefault((plan.instances, plan.threads), []).append(plan)
    serve = partial(_serve, preprocess=preprocess, photo=_photo(), cpus=cpus, on_gpu=on_gpu)
    fewest = min(plan.threads for plan in plans)
    looks: list[list[_Trial]] = []
    for number, layout in enumerate(by_layout.values(), 1):
        handicap = MUCH_FASTER if layout[0].threads > fewest else 1.0
        with _loaded(layout, make) as engines:
            found = _begin(layout, engines, preprocess.crop, latency_bound_ms / 1000, handicap)
            usual = min(found, key=lambda trial: _distance(trial.plan, moderate))
            end = begin + FIRST_SHARE * seconds * number / len(by_layout)
            largest = found[-1:] if found[-1] is not usual else []
            serve(engines, [usual], end - (end - time.monotonic()) / 2 if largest else end)
            if usual.merit >= HOPELESS * max(map(_best, looks), default=0):
                serve(engines, largest, end)
        looks.append(found)
    fastest = max(map(_best, looks))
    again = [found for found in looks if _best(found) >= NEAR * fastest or found[0].plan.threads == fewest]
    for number, found in enumerate(again, 1):
        now = time.monotonic()
        with _loaded([trial.plan for trial in found], make) as engines:
            serve(engines, found, now + (begin + seconds - now) / (len(again) - number + 1))
    trials = [trial for found in again for trial in found]
    tied = [trial for trial in trials if trial.merit >= (1 - TIE) * _best(trials)]
    best = min(tied, key=lambda trial: (_distance(trial.plan, moderate), trial.latency_s))
    return TunedLayout(
        plan=best.plan,
        reason=f"the fastest of {len(plans)} plans that were measured, with batches of at most {latency_bound_ms:g} ms",
        rows_per_second=best.rate,
        latency_s=best.latency_s,
    )


def _begin(
    plans: list[EngineLayout], engines: Sequence[Engine], crop: int, bound_s: float, handicap: float
) -> list[_Trial]:
    """Warm the engines up, time one row, and leave out the batches that would take too long."""
    row = np.full((1, crop, crop, 3), 127, np.uint8)
    latency_s = min([_time(engines[0], row) for _ in range(3)][1:])
    for engine in engines[1:]:
        engine.run(row)
    trials: list[_Trial] = []
    row_s = 0.0  # of the batch before: a larger one is seldom much faster for each row, so it need not be run to know
    for plan in sorted(plans, key=lambda plan: plan.max_batch_size):
        batch = np.repeat(row, plan.max_batch_size, axis=0)
        if trials:
            if row_s * len(batch) > SURELY * bound_s:
                break
            took_s = _time(engines[0], batch)
            # twice where need be: the first batch of a size also waits for its memory
            if took_s > bound_s and (took_s := _time(engines[0], batch)) > bound_s:
                break
            row_s = took_s / len(batch)
        trials.append(_Trial(plan, latency_s, handicap))
    return trials


@contextmanager
def _loaded(plans: list[EngineLayout], make: Callable[[EngineLayout], Sequence[Engine]]) -> Iterator[Sequence[Engine]]:
    """The engines of one layout, for the largest of its batches; closed in the end, and their memory returned."""
    engines = make(max(plans, key=lambda plan: plan.max_batch_size))
    try:
        yield engines
    finally:
        for engine in engines:
            engine.close()
        return_memory()


def _best(trials: list[_Trial]) -> float:
    return max(trial.merit for trial in trials)


def _distance(plan: EngineLayout, moderate: int) -> float:
    """How far a plan's batch is from a moderate one."""
    return abs(log2(plan.max_batch_size / moderate))


def _serve(
    engines: Sequence[Engine],
    trials: list[_Trial],
    end: float,
    *,
    preprocess: Preprocess,
    photo: bytes,
    cpus: int,
    on_gpu: bool,
) -> None:
    """Try some plans of the layout that is loaded, one after the other, until a time of time.monotonic()."""
    for number, trial in enumerate(trials):
        share = max(MIN_TRIAL_S, (end - time.monotonic()) / (len(trials) - number))
        callers = CALLERS_PER_CPU * cpus
        batcher = partial(
            DynamicBatcher,
            [_Capped(engine, trial.plan.max_batch_size) for engine in engines],
            Admission(callers),
            WorkerOptions(
                count=count_workers(trial.plan, cpus=cpus, on_gpu=on_gpu), cpus=worker_cpus(trial.plan, on_gpu=on_gpu)
            ),
        )
        asyncio.run(_try(trial, batcher, preprocess, photo, callers, share))


def _time(engine: Engine, images_NHWC: NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    engine.run(images_NHWC)
    return time.perf_counter() - began


async def _try(
    trial: _Trial,
    begin: Callable[[], DynamicBatcher],
    preprocess: Preprocess,
    photo: bytes,
    callers: int,
    seconds: float,
) -> None:
    """Serve callers for a while, and add what was answered to the trial."""
    classifier = Classifier(preprocess, begin(), Limits())
    answered: list[float] = []
    wanted = asyncio.Event()

    async def call() -> None:
        while True:
            await classifier.classify([photo])
            answered.append(time.perf_counter())
            wanted.set()

    tasks = [asyncio.create_task(call()) for _ in range(callers)]
    try:
        await asyncio.sleep(seconds)
        while len(answered) <= 2 * trial.plan.max_batch_size:  # a model so slow that little was answered
            wanted.clear()
            await wanted.wait()
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        await asyncio.to_thread(classifier.close)
    # From the first answers to the last ones: answers come in batches, and the first had to wait for their decoding.
    together = sum(1 for at in answered if at - answered[0] < 0.001)
    trial.rows += len(answered) - together
    trial.seconds += answered[-1] - answered[0]


def _photo() -> bytes:
    """A picture of usual size and detail, as a JPEG of some 50 kB."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (PHOTO_HEIGHT // 25, PHOTO_WIDTH // 25, 3))
    smooth_HWC = coarse.repeat(25, axis=0).repeat(25, axis=1)
    noisy_HWC = smooth_HWC + rng.integers(-20, 21, smooth_HWC.shape)
    encoded: bytes = simplejpeg.encode_jpeg(np.clip(noisy_HWC, 0, 255).astype(np.uint8), quality=75)
    return encoded
