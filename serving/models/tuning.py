"""Measurement of engine layouts, for the command `tune`.

Each candidate is loaded alone, and measured as it would serve: concurrent clients classify JPEG images through a
batcher, whose workers decode them and run the engines. The fastest candidate wins, with two corrections for the noise
of short measurements: layouts of several threads must be clearly faster than single-threaded ones, and of batch sizes
that are about as fast the one nearest to the default is taken.
"""

import asyncio
import time
import timeit
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path

import numpy as np
import simplejpeg

from serving.bundle.manifest import Bundle
from serving.engine.base import Engine, EngineLayout
from serving.engine.selection import choose_engine
from serving.models.classifier import Classifier
from serving.models.layout import (
    LayoutOptions,
    TunedLayout,
    layout_key,
    preferred_batch,
    single_row_threads,
    write_layout,
)
from serving.models.loader import ServingOptions, load_model
from serving.system.cpus import available_cpus
from serving.system.memory import return_memory

CPU_BATCHES = (1, 2, 4, 8, 16)
GPU_BATCHES = (4, 16, 32, 64, 128)
MAX_SINGLE_THREADED_BATCH = 4
"""Largest batch of single-threaded instances side by side: each needs memory for its batches, and larger ones were not
faster."""
MAX_CPUS_FOR_TWO_THREADS = 8
"""With more CPUs, instances of two threads are no candidates: each has a copy of the model."""
CLIENTS_PER_CPU = 16
MULTI_THREAD_HANDICAP = 1.25
"""Instances of more threads must be this many times as fast. Candidates are measured one after the other, and other
programs may change the pace of the machine between them; fewer threads are the fastest nearly everywhere."""
TIE = 0.15
"""Candidates whose rates differ by no more than this part are a tie. A batch also saves work around the engine that
short measurements do not show, and a large one makes other requests wait."""
TOO_SLOW = "a full batch takes longer than the latency bound; raise it"


class TuningError(Exception):
    """No candidate could be measured."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of one candidate."""

    latency_s: float
    """Time of one row in an engine."""
    batch_s: float
    """Time of a full batch in an engine."""
    rows_per_second: float | None
    """None if a full batch takes longer than the latency bound; its rate is not measured then."""


@dataclass(frozen=True)
class Result:
    """One candidate, with its measurement or the reason of its failure.

    Not the exception itself: its traceback would keep the model in memory while the next candidate is measured.
    """

    layout: EngineLayout
    outcome: Measurement | str


Measure = Callable[[EngineLayout], Measurement]
Report = Callable[[Result], None]


def tune_model(
    bundle: Bundle,
    options: ServingOptions,
    folder: Path,
    *,
    latency_bound_ms: float,
    seconds: float,
    report: Report,
) -> tuple[TunedLayout, Path]:
    """Measure all candidates for a model on this host, and write the best one. Called without a running event loop.

    Args:
        options: how the model will be served; its layout is not used.
        folder: where layouts are kept.
        latency_bound_ms: most time of a full batch in an engine; a batch of one row may always take longer.
        seconds: duration of the measurement of each candidate.
        report: is called with each result as soon as it is known.

    Returns:
        The chosen layout, and its file.

    Raises:
        BundleError: if the engine that is asked for cannot be used with this bundle.
        TuningError: if no candidate could be measured.
        OSError: if the layout cannot be written.
    """
    choice = choose_engine(bundle, options.engine, options.precision)
    cpus = available_cpus(limit=options.cpu_limit)
    key = layout_key(choice.model_hash, choice.runtime, choice.device, cpus)
    layouts = candidates(cpus=cpus, on_gpu=choice.on_gpu, max_batch_size=choice.max_batch_size)
    preferred = preferred_batch(choice.precision, on_gpu=choice.on_gpu)
    del choice  # it holds the model, and on a GPU its memory

    def measure(layout: EngineLayout) -> Measurement:
        return measure_layout(bundle, options, layout, cpus * CLIENTS_PER_CPU, latency_bound_ms / 1000, seconds)

    tuned = choose_best(measure_all(layouts, measure, report), preferred)
    return tuned, write_layout(folder, key, tuned)


def candidates(*, cpus: int, on_gpu: bool, max_batch_size: int | None) -> list[EngineLayout]:
    """The layouts to measure.

    Args:
        cpus: CPUs that this process may use.
        on_gpu: whether the engines compute on a GPU.
        max_batch_size: most rows that the file takes; None for any number.
    """
    if on_gpu:
        sides = [(1, 1), (2, 1)]
    else:
        threads = {1, cpus, max(1, cpus // 2), 2 if cpus <= MAX_CPUS_FOR_TWO_THREADS else 1}
        sides = [(cpus // each, each) for each in sorted(threads) if each <= cpus]
    most = max_batch_size or max(GPU_BATCHES)
    batches = [batch for batch in (GPU_BATCHES if on_gpu else CPU_BATCHES) if batch <= most] or [most]
    return [
        EngineLayout(
            instances=instances,
            threads=threads,
            max_batch_size=batch,
            single_row_threads=0 if on_gpu else single_row_threads(threads, cpus),
        )
        for instances, threads in sides
        for batch in batches
        if on_gpu or threads > 1 or instances == 1 or batch <= MAX_SINGLE_THREADED_BATCH
    ]


def measure_all(layouts: Iterable[EngineLayout], measure: Measure, report: Report) -> list[Result]:
    """Measure layouts one after the other; one that raises an exception has failed, and cannot be chosen."""
    results = []
    for layout in layouts:
        try:
            result = Result(layout, measure(layout))
        except Exception as error:  # of any kind: the other candidates may work
            result = Result(layout, f"{type(error).__name__}: {error}")
        report(result)
        results.append(result)
    return results


def choose_best(results: Sequence[Result], preferred: int) -> TunedLayout:
    """Choose the best of the layouts that were measured.

    Args:
        preferred: the batch size to take of those that are about as fast.

    Raises:
        TuningError: if no layout was measured within the latency bound.
    """
    measured = [
        TunedLayout(
            layout=result.layout, rows_per_second=result.outcome.rows_per_second, latency_s=result.outcome.latency_s
        )
        for result in results
        if isinstance(result.outcome, Measurement) and result.outcome.rows_per_second
    ]
    if not measured:
        first = next((result.outcome for result in results if isinstance(result.outcome, str)), TOO_SLOW)
        raise TuningError(f"none of the {len(results)} layouts could be measured; the first one failed: {first}")
    fewest = min(tuned.layout.threads for tuned in measured)

    def merit(tuned: TunedLayout) -> float:
        return tuned.rows_per_second / (MULTI_THREAD_HANDICAP if tuned.layout.threads > fewest else 1.0)

    best = max(map(merit, measured))
    tied = [tuned for tuned in measured if merit(tuned) >= (1 - TIE) * best]
    return min(tied, key=lambda tuned: (abs(log2(tuned.layout.max_batch_size / preferred)), -merit(tuned)))


def measure_layout(
    bundle: Bundle, options: ServingOptions, layout: EngineLayout, clients: int, latency_bound_s: float, seconds: float
) -> Measurement:
    """Load a model with a layout, and measure it; see `tune_model`.

    Raises:
        Exception: what loading raises, or the error of the first image that was not classified.
    """
    given = LayoutOptions(instances=layout.instances, threads=layout.threads, max_batch_size=layout.max_batch_size)
    model = load_model(bundle, replace(options, layout=given, layouts=None, max_rows=clients, make_observer=None))
    try:
        row_1HWC = np.full((1, *2 * [bundle.manifest.preprocess.crop], 3), 127, np.uint8)
        latency_s = _engine_seconds(model.engines[0], row_1HWC)
        batch_s = _engine_seconds(model.engines[0], np.repeat(row_1HWC, layout.max_batch_size, axis=0))
        if batch_s > latency_bound_s and layout.max_batch_size > 1:
            return Measurement(latency_s=latency_s, batch_s=batch_s, rows_per_second=None)
        rate = asyncio.run(measure_rate(model.classifier, _jpeg(), clients, seconds, 2 * layout.max_batch_size))
        return Measurement(latency_s=latency_s, batch_s=batch_s, rows_per_second=rate)
    finally:
        model.close()
        return_memory()


def _engine_seconds(engine: Engine, images_NHWC: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    """The shorter one of two runs: the first may wait for memory."""
    return min(timeit.repeat(lambda: engine.run(images_NHWC), repeat=2, number=1))


async def measure_rate(classifier: Classifier, image: bytes, clients: int, seconds: float, least: int) -> float:
    """Classify with concurrent clients for some seconds, and until more than `least` images are classified.

    Returns:
        Images per second.

    Raises:
        Exception: the error of the first image that was not classified.
    """
    answered: list[float] = []

    async def classify() -> None:
        while True:
            (outcome,) = await classifier.classify([image])
            if isinstance(outcome, Exception):
                raise outcome
            answered.append(time.perf_counter())

    tasks = [asyncio.create_task(classify()) for _ in range(clients)]
    end = time.perf_counter() + seconds
    try:
        while (remaining_s := end - time.perf_counter()) > 0 or len(answered) <= least:
            done, _ = await asyncio.wait(tasks, timeout=max(remaining_s, 0.05), return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    # from the first answers to the last ones: answers come in batches, and the first ones waited for their decoding
    first = sum(1 for at in answered if at - answered[0] < 0.001)
    return (len(answered) - first) / (answered[-1] - answered[0])


def _jpeg() -> bytes:
    """An image of usual size and detail, 500 x 375 pixels, as a JPEG of some 50 kB."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (15, 20, 3))
    smooth_HWC = coarse.repeat(25, axis=0).repeat(25, axis=1)
    noisy_HWC = smooth_HWC + rng.integers(-20, 21, smooth_HWC.shape)
    encoded: bytes = simplejpeg.encode_jpeg(np.clip(noisy_HWC, 0, 255).astype(np.uint8), quality=75)
    return encoded
