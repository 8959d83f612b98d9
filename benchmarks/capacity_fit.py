"""A bundle and photos in; the costs of one server process on one CPU, each from a measurement, out.

In this process: how long each photo takes to prepare, and an engine call by its rows. With a real server, on a CPU of
its own: the CPU time of its event loop and of its other threads for each request, with one caller and with several, and
with one picture in a request and with eight; the kernel accounts for it by thread. A loop that is woken for each
request costs more than a busy one, and how often it is woken the kernel counts too, so three loads give its three
costs: for each request, for each picture, and for each wake.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.capacity_model import LoopCosts, ReplicaModel
from serving.bundle import Bundle
from serving.engine import Plan, choose_precision, load_engines
from serving.memory import keep_freed_memory
from serving.views import look

BATCH = 4
"""What the server is told to use; DEFAULT_BATCH of serving/plan.py."""
SIZES = (1, 2, BATCH, 2 * BATCH)
PICTURES = 8
CALLERS = 8
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
    """Of each photo."""
    engine_s: dict[int, NDArray[np.float64]]
    """Rows -> seconds of each engine call."""


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A server in a process of its own, on one CPU."""

    address: str
    pid: int
    cpu: int


def two_cpus() -> list[int]:
    """Two CPUs: one for a server, one for the load. Raises ValueError if there are not as many."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise ValueError(f"this process may use {len(cpus)} CPU; measuring takes two, one of them for the load")
    return cpus[:2]


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keep this thread, and the processes that it starts, on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def pinned_server(bundle: Bundle, cpu: int) -> Iterator[Pinned]:
    """A server of this bundle with one single-threaded engine, on one CPU."""
    manifest = bundle.manifest
    with tempfile.TemporaryDirectory() as state:
        command = [
            sys.executable,
            "-m",
            "serving",
            "serve",
            "--models",
            str(bundle.folder.parents[1]),
            "--state",
            state,
        ]
        command += [
            "--model",
            f"{manifest.name}/{manifest.version}",
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "warning",
        ]
        command += ["--instances", "1", "--threads", "1", "--max-batch-size", str(BATCH)]
        with on_cpu(cpu):
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with server:
            try:
                assert server.stdout is not None
                address = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
                assert address, f"{command} did not start"
                yield Pinned(address=address[1], pid=server.pid, cpu=cpu)
            finally:
                server.terminate()


def start_load(cpu: int, servers: Sequence[Pinned], photos: Sequence[Path], **job: Any) -> subprocess.Popen[str]:
    """Start a load on one CPU; `answer_of` waits for its end."""
    everything = {
        "servers": [server.address for server in servers],
        "pids": [server.pid for server in servers],
        "photos": list(map(str, photos)),
        "pictures": 1,
        **job,
    }
    with on_cpu(cpu):
        load = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.capacity_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    assert load.stdin is not None
    load.stdin.write(json.dumps(everything))
    load.stdin.close()
    load.stdin = None
    return load


def answer_of(load: subprocess.Popen[str]) -> dict[str, Any]:
    """What a load says in the end. Raises RuntimeError if it fails."""
    out, _ = load.communicate(timeout=120)
    if load.returncode:
        raise RuntimeError("the load failed; its output says why")
    answer: dict[str, Any] = json.loads(out)
    return answer


class Fitting:
    """Measures all costs, as often as it is asked to: what else the machine does then meets all of them.

    Args:
        bundle: what is served.
        photos: in the order in which requests use them.
        server: serves the bundle, on a CPU that is idle otherwise.
        load_cpu: another one.
        seconds: how long each load is kept up.
    """

    def __init__(self, bundle: Bundle, photos: Sequence[Path], server: Pinned, load_cpu: int, seconds: float) -> None:
        self._bundle = bundle
        self._photos = photos
        self._server = server
        self._load_cpu = load_cpu
        self._seconds = seconds
        self._inside: list[Inside] = []
        self._loads: list[tuple[dict[str, Any], ...]] = []

    def measure(self) -> None:
        """Measure everything once more."""
        with on_cpu(self._server.cpu):
            self._inside.append(measure_inside(self._bundle, self._photos))
        loads: list[dict[str, Any]] = [{"callers": 1}, {"callers": CALLERS}, {"callers": 1, "pictures": PICTURES}]
        self._loads.append(
            tuple(
                answer_of(start_load(self._load_cpu, [self._server], self._photos, seconds=self._seconds, **load))
                for load in loads
            )
        )

    def result(self) -> Fit:
        """The means of all that was measured."""
        prepare_s = [fmean(times) for times in zip(*(inside.prepare_s for inside in self._inside), strict=True)]
        engine_s = {size: fmean(float(inside.engine_s[size].mean()) for inside in self._inside) for size in SIZES}
        spread = [inside.engine_s[size] / engine_s[size] for inside in self._inside for size in SIZES if size <= BATCH]
        others_s = fmean(one["servers"][0]["others_s"] / len(one["latencies_s"]) for one, _, _ in self._loads)
        model = ReplicaModel(
            cpus=1,
            workers=1,
            instances=1,
            max_batch_size=BATCH,
            loop=loop_costs(self._loads, lambda answer: answer["servers"][0]),
            worker_s=max(0.0, others_s - fmean(prepare_s) - engine_s[1]),
            prepare_s=quantiles(prepare_s),
            engine_s=engine_s,
            engine_spread=quantiles(np.concatenate(spread), mean=1.0),
            request_bytes=self._loads[0][0]["request_bytes"],
            answer_bytes=self._loads[0][0]["answer_bytes"],
        )
        client = loop_costs(self._loads, lambda answer: answer["client"])
        return Fit(model=model, client=client, prepare_s=prepare_s)


def loop_costs(seen: Sequence[tuple[dict[str, Any], ...]], of: Callable[[dict[str, Any]], Any]) -> LoopCosts:
    """Three costs from three loads: one caller, several, and one whose requests have several pictures each.

    A loop's CPU time for a request is request_s + pictures * picture_s + wakes * wake_s. Its other threads (gRPC's own)
    are counted with a client's loop.
    """

    def mean(load: int, key: str) -> float:
        return fmean(of(each[load])[key] / len(each[load]["latencies_s"]) for each in seen)

    (one_s, several_s, pictures_s), (one, several, pictures) = (
        [mean(load, key) for load in range(3)] for key in ("loop_s", "wakes")
    )
    wake_s = max(0.0, (one_s - several_s) / (one - several)) if one > several else 0.0
    picture_s = max(0.0, (pictures_s - one_s - (pictures - one) * wake_s) / (PICTURES - 1))
    return LoopCosts(request_s=max(1e-6, one_s - picture_s - one * wake_s), picture_s=picture_s, wake_s=wake_s)


def measure_inside(bundle: Bundle, photos: Sequence[Path]) -> Inside:
    """What one thread needs without a server; in this process, on the CPU that it is kept on."""
    keep_freed_memory()
    manifest = bundle.manifest
    preprocess = manifest.preprocess
    plan = Plan(instances=1, threads=1, max_batch_size=max(SIZES))
    (engine,) = load_engines(bundle, choose_precision(manifest), plan)
    contents = [path.read_bytes() for path in photos]
    images = []
    prepare_s = []
    for content in contents:
        times = []
        for _ in range(PASSES):
            begin = time.perf_counter()
            image = look(preprocess.canvas(content), preprocess.crop)
            times.append(time.perf_counter() - begin)
        images.append(image)
        prepare_s.append(median(times))
    engine_s = {}
    for size in SIZES:
        batches = [np.concatenate(images[at : at + size]) for at in range(0, len(images) - size + 1, size)][:40]
        engine_s[size] = np.array([timed(engine.run, batch) for batch in batches[:3] + batches][3:])
    engine.close()
    return Inside(prepare_s=prepare_s, engine_s=engine_s)


def timed(work: Callable[[Any], Any], argument: Any) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    work(argument)
    return time.perf_counter() - begin


def quantiles(values: Any, mean: float | None = None) -> tuple[float, ...]:
    """About a hundred values that are distributed like these, and have their mean, or another one."""
    parts = np.array_split(np.sort(values), min(QUANTILES, len(values)))
    means = np.array([part.mean() for part in parts])
    return tuple(float(value) for value in means * (mean or np.mean(values)) / means.mean())
