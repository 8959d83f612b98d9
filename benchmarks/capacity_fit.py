"""A bundle and photos in; the costs of one server process on one CPU, each from a measurement, out.

In this process: how long each photo takes to prepare, and an engine call by its rows. With a real server, on a CPU of
its own: the CPU time of its event loop and of its other threads for each request, as the kernel accounts for them,
under loads that keep it busy, with one picture in a request and with several; and under loads that let it rest for
longer and longer between two requests: what a request costs more then.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.capacity_model import LoopCosts, ReplicaModel
from benchmarks.capacity_servers import BATCH, Pinned, answer_of, on_cpu, start_load
from serving.bundle.manifest import Bundle
from serving.engine.base import EngineLayout
from serving.engine.onnx import choose_precision, load_engines
from serving.image.views import look
from serving.system.memory import keep_freed_memory

SIZES = (1, 2, BATCH, 2 * BATCH)
PICTURES = 8
BUSY: dict[str, Any] = {"callers": 2 * BATCH}
BUSY_PICTURES: dict[str, Any] = {"callers": 2, "pictures": PICTURES}
RESTING: tuple[dict[str, Any], ...] = (
    {"callers": 1},
    {"callers": 1, "pause_s": 0.003},
    {"callers": 1, "pause_s": 0.02},
)
"""The loads: two that keep the server busy, and some that let it rest."""
QUANTILES = 100
PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What was measured."""

    model: ReplicaModel
    client: LoopCosts
    """Of the load itself, whose CPU may be one that a replica uses."""
    prepare_s: list[float]
    """Of each photo."""


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What one thread needs without a server."""

    prepare_s: list[float]
    """CPU seconds, of each photo."""
    engine_s: dict[int, NDArray[np.float64]]
    """Rows -> CPU seconds of each engine call."""


class Fitting:
    """Measures all costs, as often as it is asked to: what else the machine does then meets all of them.

    Args:
        bundle: what is served.
        photos: in the order in which requests use them.
        servers: serve the bundle, each on a CPU of its own. The costs of the first are measured; the others, if there
            are any, are under the same loads meanwhile, since they take caches and memory's time from it.
        load_cpus: of each server's load: a CPU that is not the server's.
        seconds: how long each load is kept up.
    """

    def __init__(
        self,
        bundle: Bundle,
        photos: Sequence[Path],
        servers: Sequence[Pinned],
        load_cpus: Sequence[int],
        seconds: float,
    ) -> None:
        self._bundle = bundle
        self._photos = photos
        self._servers = servers
        self._load_cpus = load_cpus
        self._seconds = seconds
        self._inside: list[Inside] = []
        self._loads: list[list[dict[str, Any]]] = []

    def measure(self) -> None:
        """Measure everything once more."""
        with on_cpu(self._servers[0].cpu):
            self._inside.append(measure_inside(self._bundle, self._photos))
        self._loads.append([self._under(load) for load in (BUSY, BUSY_PICTURES, *RESTING)])

    def _under(self, load: dict[str, Any]) -> dict[str, Any]:
        """What the first server's load says in the end."""
        running = [
            start_load(cpu, [server], self._photos, seconds=self._seconds, **load)
            for server, cpu in zip(self._servers, self._load_cpus, strict=True)
        ]
        return [answer_of(each) for each in running][0]

    def result(self) -> Fit:
        """The means of all that was measured."""
        prepare_s = [fmean(times) for times in zip(*(inside.prepare_s for inside in self._inside), strict=True)]
        engine_s = {size: fmean(float(inside.engine_s[size].mean()) for inside in self._inside) for size in SIZES}
        calls = [inside.engine_s[size] / engine_s[size] for inside in self._inside for size in SIZES if size <= BATCH]
        loop_s, pictures_loop_s = (self._mean_s(load, "loop_s") for load in (0, 1))
        picture_s = max(0.0, (pictures_loop_s - loop_s) / (PICTURES - 1))
        # a lone request wakes the loop when it comes, and when its answer is there; busy callers come and go together
        wake_s = max(0.0, self._mean_s(2, "loop_s") - loop_s) / 2
        loop = LoopCosts(request_s=max(1e-6, loop_s - picture_s), picture_s=picture_s, wake_s=wake_s)
        worker_s = self._mean_s(0, "others_s") - fmean(prepare_s) - engine_s[BATCH] / BATCH
        busy_s = loop.seconds(1) + 2 * wake_s + worker_s + fmean(prepare_s) + engine_s[1]
        model = ReplicaModel(
            cpus=1,
            workers=1,
            instances=1,
            max_batch_size=BATCH,
            loop=loop,
            worker_s=worker_s,
            rested_s=tuple(self._rested_s(load, busy_s) for load in range(2, 2 + len(RESTING))),
            prepare_s=quantiles(prepare_s),
            engine_s=engine_s,
            spread=quantiles(np.concatenate(calls), mean=1.0),
            request_bytes=self._loads[0][0]["request_bytes"],
            answer_bytes=self._loads[0][0]["answer_bytes"],
        )
        return Fit(model=model, client=self._client(), prepare_s=prepare_s)

    def _rested_s(self, load: int, busy_s: float) -> tuple[float, float]:
        """For how long the server rests between two requests under a load, and what a request then costs more."""
        used_s = self._mean_s(load, "loop_s") + self._mean_s(load, "others_s")
        elapsed_s = fmean(each[load]["elapsed_s"] / len(each[load]["latencies_s"]) for each in self._loads)
        return elapsed_s - used_s, max(0.0, used_s - busy_s)

    def _client(self) -> LoopCosts:
        """What the load itself takes: a caller who pauses is woken twice for each request, busy ones send at once."""
        loop_s, read_s = (self._mean_s(0, thread, "client") for thread in ("loop_s", "others_s"))
        resting_s = self._mean_s(3, "loop_s", "client") + self._mean_s(3, "others_s", "client")
        wake_s = max(0.0, resting_s - loop_s - read_s) / 2
        return LoopCosts(request_s=loop_s, picture_s=0.0, wake_s=wake_s, read_s=read_s)

    def _mean_s(self, load: int, thread: str, process: str = "server") -> float:
        """CPU seconds for a request."""
        return fmean(
            (each[load]["client"] if process == "client" else each[load]["servers"][0])[thread]
            / len(each[load]["latencies_s"])
            for each in self._loads
        )


def measure_inside(bundle: Bundle, photos: Sequence[Path]) -> Inside:
    """What one thread needs without a server; in this process, on the CPU that it is kept on."""
    keep_freed_memory()
    manifest = bundle.manifest
    preprocess = manifest.preprocess
    plan = EngineLayout(instances=1, threads=1, max_batch_size=max(SIZES))
    (engine,) = load_engines(bundle, choose_precision(manifest), plan)
    contents = [path.read_bytes() for path in photos]
    images = []
    prepare_s = []
    for content in contents:
        times = []
        for _ in range(PASSES):
            begin = time.process_time()
            image = look(preprocess.canvas(content), preprocess.crop)
            times.append(time.process_time() - begin)
        images.append(image)
        prepare_s.append(median(times))
    engine_s = {}
    for size in SIZES:
        batches = [np.concatenate(images[at : at + size]) for at in range(0, len(images) - size + 1, size)][:40]
        engine_s[size] = np.array([timed(engine.run, batch) for batch in batches[:3] + batches][3:])
    engine.close()
    return Inside(prepare_s=prepare_s, engine_s=engine_s)


def timed(work: Callable[[Any], Any], argument: Any) -> float:
    """CPU seconds that it takes: other programs' time does not count, here as in the kernel's account of the server."""
    begin = time.process_time()
    work(argument)
    return time.process_time() - begin


def quantiles(values: Any, mean: float | None = None) -> tuple[float, ...]:
    """About a hundred values that are distributed like these, and have their mean, or another one."""
    parts = np.array_split(np.sort(values), min(QUANTILES, len(values)))
    means = np.array([part.mean() for part in parts])
    return tuple(float(value) for value in means * (mean or np.mean(values)) / means.mean())
