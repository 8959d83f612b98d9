"""What the operator fixed of a plan in; the plans to try, and what was chosen with its figures, out.

A plan that was measured in; the same plan at the next start out.

One small file for each model and host, in a folder; its name is a hash of everything that the measurement depends on.
A file that cannot be used is as good as none, and one that cannot be written costs a measurement at the next start.
"""

import hashlib
import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime as ort

from serving.engine.base import EngineLayout
from serving.system.cpus import bindable_cpus
from serving.system.files import write_atomically

BATCHES = (1, 2, 4, 8, 16)
GPU_BATCHES = (4, 16, 32, 64, 128)
MODERATE_INT8_BATCH, MODERATE_BATCH, MODERATE_GPU_BATCH = 4, 2, 32
"""Taken where nothing else is known to be better. On CPUs, what is computed in INT8 is a fourth as large, so that more
rows of it fit into the caches."""
MOST_SIDE_BY_SIDE = 4
"""Largest batch of single-threaded instances side by side: each has the memory of its batches, and larger ones were no
faster."""
MANY_CPUS = 8
"""From more CPUs on, instances of two threads are not tried, since each is a copy of the model; and a lone row gets no
more threads, since its layers are too small to gain by them; and workers are not bound, since there mostly is an idle
CPU to move to."""


@dataclass(frozen=True, kw_only=True)
class LayoutOptions:
    """How a version's plan is found. What is given is kept, and the rest measured."""

    instances: int | None = None
    threads: int | None = None
    max_batch_size: int | None = None
    latency_bound_ms: float = 50.0
    """A full batch may keep an engine busy for so long: the time that whoever comes next may have to wait."""
    seconds: float = 0.8
    """How long measuring may take; 0 takes a plan unmeasured."""

    @property
    def given(self) -> str:
        """The flags that were given, for people."""
        names = ("instances", "threads", "max_batch_size")
        return " ".join(
            f"--{name.replace('_', '-')} {value}" for name in names if (value := getattr(self, name)) is not None
        )


@dataclass(frozen=True, kw_only=True)
class TunedLayout:
    """A plan, why it was chosen, and what was measured then."""

    plan: EngineLayout
    reason: str
    rows_per_second: float | None = None
    """None if it was not measured."""
    latency_s: float | None = None
    """How long one row alone took in the engine; None if it was not measured."""


def candidates(options: LayoutOptions, *, cpus: int, on_gpu: bool, max_batch_size: int | None) -> list[EngineLayout]:
    """The plans to try: all that keep what was given.

    Args:
        cpus: CPUs that this process may use.
        on_gpu: whether the engines compute on a GPU; their threads then mean nothing.
        max_batch_size: most rows that the file takes; None for any number.
    """
    if options.instances and options.threads:
        layouts = [(options.instances, options.threads)]
    elif on_gpu:
        layouts = [(options.instances, 1)] if options.instances else [(1, options.threads or 1), (2, 1)]
    elif options.instances:
        layouts = [(options.instances, max(1, cpus // options.instances))]
    elif options.threads:
        layouts = [(max(1, cpus // options.threads), options.threads)]
    else:
        threads = {1, cpus, max(1, cpus // 2), 2 if cpus <= MANY_CPUS else 1}
        layouts = [(cpus // each, each) for each in sorted(threads) if each <= cpus]
    fixed = on_gpu or options.instances or options.threads
    single_row_threads = 0 if fixed else min(cpus, MANY_CPUS)
    most = max_batch_size or max(GPU_BATCHES)
    if options.max_batch_size:
        batches = [min(options.max_batch_size, max_batch_size or options.max_batch_size)]
    else:
        batches = [batch for batch in (GPU_BATCHES if on_gpu else BATCHES) if batch <= most] or [most]
    plans = [
        EngineLayout(
            instances=instances,
            threads=each,
            max_batch_size=batch,
            single_row_threads=single_row_threads if single_row_threads > each else 0,
        )
        for instances, each in dict.fromkeys(layouts)
        for batch in batches
    ]
    if on_gpu or options.max_batch_size:
        return plans
    return [
        plan for plan in plans if plan.threads > 1 or plan.instances == 1 or plan.max_batch_size <= MOST_SIDE_BY_SIDE
    ]


def moderate_batch(precision: str, *, on_gpu: bool) -> int:
    """Rows in a call that serve well nearly everywhere."""
    if on_gpu:
        return MODERATE_GPU_BATCH
    return MODERATE_INT8_BATCH if precision == "int8" else MODERATE_BATCH


def unmeasured(plans: list[EngineLayout], moderate: int, *, on_gpu: bool) -> EngineLayout:
    """The plan to take where nothing can be measured: single-threaded instances, and a moderate batch."""
    return min(
        plans, key=lambda plan: (plan.threads, plan.instances if on_gpu else 0, abs(plan.max_batch_size - moderate))
    )


def count_workers(plan: EngineLayout, *, cpus: int, on_gpu: bool) -> int:
    """How many threads prepare pictures and run the engines: one for each CPU at least, and for each engine.

    Where the engines compute on a GPU, those that wait for them prepare nothing meanwhile, and come on top.
    """
    return cpus + plan.instances if on_gpu else max(cpus, plan.instances)


def worker_cpus(plan: EngineLayout, *, on_gpu: bool) -> list[int]:
    """The CPUs that the workers keep to, one after the other (binding.py); none where they do not.

    Instances of several threads have threads of their own, and workers of those on a GPU mostly wait.
    """
    cpus = bindable_cpus() if plan.threads == 1 and not on_gpu else []
    return cpus if len(cpus) <= MANY_CPUS else []


FORMAT = 2

logger = logging.getLogger(__name__)


def plan_key(model_hash: str, runtime: str, device: str, cpus: int, options: LayoutOptions) -> str:
    """32 hexadecimal digits: SHA-256 of the model, the host, the runtime's release and what was asked for."""
    parts = [FORMAT, model_hash, runtime, device, cpus, _cpu_name(), platform.node(), ort.__version__]
    fixed = [options.instances, options.threads, options.max_batch_size, options.latency_bound_ms]
    return hashlib.sha256(json.dumps([*parts, *fixed]).encode()).hexdigest()[:32]


def read_plan(folder: Path, key: str) -> TunedLayout | None:
    """The plan of a key; None if there is none that can be used."""
    path = folder / f"{key}.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        numbers = fields.pop("plan")
        if not all(type(number) is int for number in numbers.values()):
            raise ValueError(f"the plan is {numbers}")
        plan = EngineLayout(**numbers)
        chosen = TunedLayout(plan=plan, **fields)
        rows_per_second, latency_s = float(fields["rows_per_second"]), float(fields["latency_s"])
        if not (rows_per_second > 0 and latency_s > 0):
            raise ValueError(f"{rows_per_second} rows/s, {latency_s} s")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s cannot be used (%s): the plan is measured again", path, error)
        return None
    return chosen


def write_plan(folder: Path, key: str, chosen: TunedLayout) -> None:
    """Keep a plan, written whole; where that fails, the log says so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{key}.json", json.dumps(asdict(chosen), indent=2))
    except OSError as error:
        logger.warning("the plan cannot be kept in %s (%s): it is measured at each start", folder, error)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
