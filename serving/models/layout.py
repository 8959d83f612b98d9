"""The layout of a model's engines: options, a static rule, and layouts that the command `tune` has measured.

Options win. Without any, a layout that `tune` measured for this model and host is used; without one, the rule:

- On a CPU: one single-threaded instance for each CPU that the process may use, batches of at most 4 views for INT8 and
  2 otherwise, and one more instance with several threads for single requests.
- On a GPU: two instances, so that one computes while the other's data is copied; batches of at most 32 views.
"""

import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime as ort

from serving.engine.base import EngineLayout
from serving.system.files import write_atomically

CPU_INT8_BATCH, CPU_BATCH, GPU_BATCH = 4, 2, 32
"""INT8 activations are a fourth as large, so that more rows fit into the caches of a CPU."""
GPU_INSTANCES = 2
MANY_CPUS = 8
"""A single request gets no more threads, since the layers are too small to be faster. With more CPUs, workers are not
bound to one each, since a worker that has to wait mostly finds an idle CPU to move to."""

FORMAT = 3
"""Version of the files."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LayoutOptions:
    """The parts of a layout that the operator has set; None for the others."""

    instances: int | None = None
    threads: int | None = None
    max_batch_size: int | None = None

    def __str__(self) -> str:
        """The options as on the command line; empty if none is set."""
        options = {"instances": self.instances, "threads": self.threads, "max-batch-size": self.max_batch_size}
        return " ".join(f"--{name} {value}" for name, value in options.items() if value)


def default_layout(
    options: LayoutOptions, *, cpus: int, on_gpu: bool, precision: str, max_batch_size: int | None = None
) -> EngineLayout:
    """The layout by the static rule, with the parts that are set.

    Args:
        cpus: CPUs that this process may use.
        on_gpu: whether the engines compute on a GPU.
        precision: of the file that is served.
        max_batch_size: most rows that the file takes; None for any number.
    """
    threads = options.threads or 1
    if on_gpu:
        instances = options.instances or GPU_INSTANCES
    elif options.instances:
        instances, threads = options.instances, options.threads or max(1, cpus // options.instances)
    else:
        instances = max(1, cpus // threads)
    batch = options.max_batch_size or preferred_batch(precision, on_gpu=on_gpu)
    fixed = on_gpu or options.instances or options.threads
    return EngineLayout(
        instances=instances,
        threads=threads,
        max_batch_size=min(batch, max_batch_size or batch),
        single_row_threads=0 if fixed else single_row_threads(threads, cpus),
    )


def preferred_batch(precision: str, *, on_gpu: bool) -> int:
    """The largest batch by the static rule."""
    if on_gpu:
        return GPU_BATCH
    return CPU_INT8_BATCH if precision == "int8" else CPU_BATCH


def single_row_threads(threads: int, cpus: int) -> int:
    """Threads of the instance for single requests, beside instances of `threads` threads; 0 for no such instance."""
    several = min(cpus, MANY_CPUS)
    return several if several > threads else 0


def count_workers(layout: EngineLayout, *, cpus: int, on_gpu: bool) -> int:
    """Number of threads that prepare images and run the engines: one for each CPU at least, and for each engine.

    Threads that wait for a GPU prepare nothing meanwhile, so they are added.
    """
    return cpus + layout.instances if on_gpu else max(cpus, layout.instances)


def worker_cpus(layout: EngineLayout, bindable: Sequence[int], *, on_gpu: bool) -> Sequence[int]:
    """The CPUs to which workers are bound, one each (batching/affinity.py); empty if they are not bound.

    Instances of several threads have threads of their own, and workers of instances on a GPU mostly wait.

    Args:
        bindable: CPUs that threads of this process may be bound to.
    """
    return bindable if layout.threads == 1 and not on_gpu and len(bindable) <= MANY_CPUS else ()


@dataclass(frozen=True, kw_only=True)
class TunedLayout:
    """A layout that was measured to be the fastest."""

    layout: EngineLayout
    rows_per_second: float
    latency_s: float
    """Time of one row in an engine."""

    def __post_init__(self) -> None:
        if not (self.rows_per_second > 0 and self.latency_s > 0):
            raise ValueError(f"{self.rows_per_second} rows/s and {self.latency_s} s must be positive")


def layout_key(model_hash: str, runtime: str, device: str, cpus: int) -> str:
    """Key of everything on which measured figures depend: 32 hexadecimal digits of a SHA-256.

    It covers the arguments (the file that runs, its runtime, the GPU, the number of CPUs), the host's name, its CPU and
    the release of ONNX Runtime.
    """
    parts = [FORMAT, model_hash, runtime, device, cpus, _cpu_name(), platform.node(), ort.__version__]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def read_layout(folder: Path, key: str) -> TunedLayout | None:
    """Read a tuned layout; None if there is none, or, with a warning, if it cannot be used."""
    path = folder / f"{key}.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        numbers = fields.pop("layout")
        if not all(type(number) is int for number in numbers.values()):
            raise ValueError(f"the layout is {numbers}")
        return TunedLayout(layout=EngineLayout(**numbers), **fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is ignored, since it cannot be used (%s); run `tune` again, or remove it", path, error)
        return None


def write_layout(folder: Path, key: str, tuned: TunedLayout) -> Path:
    """Write a tuned layout for `read_layout`, and return the file.

    Raises:
        OSError: if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.json"
    write_atomically(path, json.dumps(asdict(tuned), indent=2) + "\n")
    return path


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
