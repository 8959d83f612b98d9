"""Build a plan from an ONNX graph: with TensorRT for this host's GPU, or with TensorRT for RTX for several GPUs.

Networks are strongly typed: the graph says which parts are float16 or INT8, and TensorRT does not change that. Its
calls report failure by returning None or False and log the reason, which every error here quotes.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from export.checks.tensorrt_parser import parse_problems
from export.engine_layers import Layer, describe, read_layers, summarize
from serving.bundle.manifest import INPUT_NAME, Precision
from serving.engine.cuda import CudaError, Gpu, free_memory
from serving.engine.tensorrt_library import EngineBuildError, TensorRTLibrary, make_logger
from serving.engine.tensorrt_rtx import ALL_CAPABILITIES, CAPABILITIES
from training.console import progress, say

SIGNAL_CHECK_S = 0.1


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How a plan is built."""

    min_batch: int = 1
    """Fewest views that the engine takes at once."""
    opt_batch: int = 16
    """The batch size that the engine is tuned for."""
    max_batch: int = 64
    """Most views that the engine takes at once."""
    workspace_mib: int = 2048
    """Most device memory that a layer's tactic may use."""
    optimization_level: int = 3
    """0 builds fastest, 5 searches longest."""
    compute_capability: tuple[str, ...] = CAPABILITIES
    """TensorRT for RTX: the GPUs that the engine is for. 12.0 includes newer ones; 7.5 (Turing) has no float32 matrix
    products."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch <= 4096:
            raise ValueError(
                f"the batch sizes are {self.min_batch}, {self.opt_batch} and {self.max_batch}; needed: "
                "1 <= min <= opt <= max <= 4096"
            )
        if not 16 <= self.workspace_mib <= 1_000_000:
            raise ValueError(f"workspace_mib is {self.workspace_mib}; it must lie between 16 and 1,000,000")
        if not 0 <= self.optimization_level <= 5:
            raise ValueError(f"optimization_level is {self.optimization_level}; TensorRT has 0 to 5")
        given = self.compute_capability
        if not given or len(set(given)) < len(given) or not set(given) <= set(ALL_CAPABILITIES):
            raise ValueError(
                f"compute_capability is {' '.join(given) or 'empty'}; TensorRT for RTX builds for one or several of "
                f"{', '.join(ALL_CAPABILITIES)}, each given once (9.0, Hopper, needs --flavor tensorrt)"
            )


@dataclass(frozen=True)
class BuiltPlan:
    """The result of a build."""

    plan: bytes
    timings: bytes
    """The timing cache, including the measurements of this build; empty for TensorRT for RTX."""
    layers: tuple[Layer, ...]
    """Layers of the engine."""
    seconds: float
    """Duration of the build."""


def build_plan(
    graph: bytes,
    crop: int,
    precision: Precision,
    options: PlanOptions,
    library: TensorRTLibrary,
    gpu: Gpu | None = None,
    timings: bytes = b"",
) -> BuiltPlan:
    """Build a plan, and print the progress, and then its size, the duration and the types of its layers.

    Args:
        graph: a serialised ModelProto, weights inside.
        crop: side of the input in pixels.
        library: the one that builds, and will run the plan.
        gpu: this host's, for the messages; not used for portable engines.
        timings: the timing cache of earlier builds on this GPU, or nothing.

    Raises:
        EngineBuildError: if the graph cannot be parsed (the message names node and operator) or built.
        KeyboardInterrupt: if Ctrl-C was pressed; the build is stopped first.
    """
    trt = library.load()
    logger = make_logger(trt)
    began = time.perf_counter()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:
        raise EngineBuildError(f"{library.title} cannot use this GPU ({error}); {logger.reason()}") from error
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if problems := parse_problems(parser, graph):
        raise EngineBuildError(f"{library.title} cannot read the ONNX file: {'; '.join(problems)} ({logger.reason()})")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the builder logs the layers that it made
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default; it rounds fp32 to 10 bits of mantissa
    profile = builder.create_optimization_profile()
    try:
        profile.set_shape(
            INPUT_NAME,
            (options.min_batch, crop, crop, 3),
            (options.opt_batch, crop, crop, 3),
            (options.max_batch, crop, crop, 3),
        )
    except (ValueError, RuntimeError) as error:
        raise EngineBuildError(f"TensorRT rejects the batch sizes: {error}; {logger.reason()}") from error
    if config.add_optimization_profile(profile) < 0:
        raise EngineBuildError(f"TensorRT rejects the optimization profile: {logger.reason()}")
    library.prepare_build(config, logger, timings, options.compute_capability)
    target = f"compute capability {', '.join(options.compute_capability)}"
    if gpu is not None and not library.portable:
        target = gpu.name
    cancelled = threading.Event()
    with progress(f"building for {target}", "steps") as on_step:
        monitor = make_monitor(trt, on_step, cancelled)
        config.progress_monitor = monitor
        plan = _build_interruptibly(lambda: builder.build_serialized_network(network, config), cancelled)
    if plan is None:
        raise EngineBuildError(f"{library.title} could not build the engine: {logger.reason()}.{_memory_advice()}")
    layers, seconds = read_layers(logger.layers), time.perf_counter() - began
    built = BuiltPlan(bytes(plan), library.read_timings(config), layers, seconds)
    say(f"{precision} engine, {len(built.plan) / 1e6:.1f} MB, built in {seconds:.1f} s for {target}")
    say(describe(summarize(layers)))
    return built


def _memory_advice() -> str:
    """Free memory of the GPU, on hosts with one."""
    try:
        free = free_memory() / 2**20
    except CudaError:
        return ""
    return f" {free:,.0f} MiB of GPU memory are free: if that is too little, lower --max-batch or --workspace-mib"


def _build_interruptibly(build: Callable[[], Any], cancelled: threading.Event) -> Any:
    """Run a build in another thread, so that Ctrl-C reaches this one and can cancel the build."""
    with ThreadPoolExecutor(1, thread_name_prefix="tensorrt-build") as pool:  # it waits until the build has ended
        try:
            building = pool.submit(build)  # inside the try: Ctrl-C may come before this call has returned
            while not building.done():
                # with a limit, so that a signal that another thread received is handled here soon
                wait([building], timeout=SIGNAL_CHECK_S)
            return building.result()
        except Exception as error:
            raise EngineBuildError(f"TensorRT failed while building: {error}") from error
        except BaseException:  # such as Ctrl-C
            cancelled.set()
            raise


def make_monitor(trt: Any, on_step: Callable[[int, int], None], cancelled: threading.Event) -> Any:
    """An IProgressMonitor that reports the build's steps and stops the build once `cancelled` is set.

    TensorRT calls it from several threads. Keep a reference until the build has ended.

    Args:
        on_step: called with (steps done, steps known so far, of all phases).
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._done = self._total = 0
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._total += num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._done += 1
                on_step(self._done, max(self._done, self._total))
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
