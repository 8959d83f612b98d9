"""A model and the plans to try in; the one that serves most pictures a second within the latency bound out.

Each plan is tried as it would serve: encoded pictures come from several callers through a batcher, whose workers decode
them and run the engines. The plans are tried by turns, the worse half leaves after each round, and what is left is
tried for longer, so that a moment's noise decides little.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import log2

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from serving.batcher import DynamicBatcher
from serving.classifier import Classifier
from serving.decode import Limits
from serving.engine import Engine, Plan
from serving.plan import DEFAULT_BATCH, DEFAULT_GPU_BATCH, ChosenPlan, count_workers
from serving.preprocess import Preprocess

PHOTO_HEIGHT, PHOTO_WIDTH = 375, 500
CALLERS_PER_CPU = 16
ROUND_SHARES = (0.5, 0.3, 0.2)
"""Of the time that remains once the engines are loaded; the first round has the most plans to try."""
TIE = 0.05
"""Plans whose throughput differs by no more serve alike: the one with the most moderate batch is taken. A batch also
saves work around the engine that no trial sees, and a large one makes others wait."""


@dataclass
class _Trial:
    """What is known of one plan so far."""

    plan: Plan
    engines: Sequence[Engine]
    latency_s: float
    rows: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0


class _Capped:
    """An engine that is asked for smaller batches than it could take."""

    def __init__(self, engine: Engine, max_batch_size: int) -> None:
        self.run = engine.run
        self.close = engine.close
        self.max_batch_size = max_batch_size


def search(
    plans: Sequence[Plan],
    make: Callable[[Plan], Sequence[Engine]],
    preprocess: Preprocess,
    *,
    cpus: int,
    on_gpu: bool,
    latency_bound_ms: float,
    seconds: float,
) -> ChosenPlan:
    """Try plans, and take the best. Called by a thread that runs no event loop.

    Args:
        plans: at least one.
        make: makes a plan's engines; raises BundleError.
        cpus: CPUs that this process may use.
        on_gpu: whether the engines compute elsewhere than the workers.
        latency_bound_ms: how long a full batch may take in an engine, alone; a batch of one may always.
        seconds: how long all of it may take; a model that needs longer for a few rows takes longer.
    """
    end = time.monotonic() + seconds
    layouts: dict[tuple[int, int], Sequence[Engine]] = {}
    trials: list[_Trial] = []
    try:
        for key in dict.fromkeys((plan.instances, plan.threads) for plan in plans):
            own = [plan for plan in plans if (plan.instances, plan.threads) == key]
            layouts[key] = make(max(own, key=lambda plan: plan.max_batch_size))
            trials += _begin(own, layouts[key], preprocess.crop, latency_bound_ms / 1000)
        photo = _photo()
        callers = CALLERS_PER_CPU * cpus
        remaining = max(0.0, end - time.monotonic())
        for part in ROUND_SHARES:
            share = part * remaining / len(trials)
            for trial in trials:
                workers = count_workers(trial.plan, cpus=cpus, on_gpu=on_gpu)
                asyncio.run(_try(trial, preprocess, photo, workers, callers, share))
            keep = max(2, len(trials) // 2)
            trials = sorted(trials, key=lambda trial: -trial.rate)[:keep]
    finally:
        for engines in layouts.values():
            for engine in engines:
                engine.close()
    fastest = trials[0].rate
    moderate = DEFAULT_GPU_BATCH if on_gpu else DEFAULT_BATCH
    tied = [trial for trial in trials if trial.rate >= (1 - TIE) * fastest]
    best = min(tied, key=lambda trial: (abs(log2(trial.plan.max_batch_size / moderate)), trial.latency_s))
    return ChosenPlan(
        plan=best.plan,
        reason=f"the fastest of {len(plans)} plans that were measured, with batches of at most {latency_bound_ms:g} ms",
        rows_per_second=best.rate,
        latency_s=best.latency_s,
    )


def _begin(plans: list[Plan], engines: Sequence[Engine], crop: int, bound_s: float) -> list[_Trial]:
    """Warm the engines up, time one row, and leave out the batches that would take too long."""
    row = np.full((1, crop, crop, 3), 127, np.uint8)
    latency_s = min([_time(engines[0], row) for _ in range(4)][1:])
    for engine in engines[1:]:
        engine.run(row)
    trials: list[_Trial] = []
    for plan in sorted(plans, key=lambda plan: plan.max_batch_size):
        batch = np.repeat(row, plan.max_batch_size, axis=0)
        # twice where need be: the first batch of a size also waits for its memory
        if trials and _time(engines[0], batch) > bound_s and _time(engines[0], batch) > bound_s:
            break
        trials.append(_Trial(plan, [_Capped(engine, plan.max_batch_size) for engine in engines], latency_s))
    return trials


def _time(engine: Engine, images_NHWC: NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    engine.run(images_NHWC)
    return time.perf_counter() - began


async def _try(trial: _Trial, preprocess: Preprocess, photo: bytes, workers: int, callers: int, seconds: float) -> None:
    """Serve callers for a while, and add what was answered to the trial."""
    batcher = DynamicBatcher(trial.engines, workers=workers, max_rows=callers)
    classifier = Classifier(preprocess, batcher, Limits())
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
