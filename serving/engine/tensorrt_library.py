"""The libraries with TensorRT's interface: what they have in common, and TensorRT itself.

TensorRT for RTX (tensorrt_rtx.py) has the same interface; a subclass holds what differs: the module's name, timing
caches or target GPUs in a build, and how execution contexts are made.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

Flavor = Literal["tensorrt", "rtx"]


class EngineBuildError(RuntimeError):
    """A TensorRT engine cannot be built, loaded or run; the message says why, and what to do."""


class Contexts:
    """Makes the execution contexts of one engine; their scratch memory is the caller's, so that several share it."""

    def __init__(self, trt: Any, engine: Any, cache: Path | None) -> None:
        """Prepare an engine.

        Args:
            cache: file of kernels that were compiled on this host, which TensorRT does not use; None to keep none.
        """
        self.engine = engine
        self._strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED

    def create(self) -> Any:
        """A context, or None if TensorRT makes none."""
        return self.engine.create_execution_context(self._strategy)

    def can_capture(self, context: Any, stream: int) -> bool:
        """Whether a CUDA graph can be captured of what the context does."""
        return True

    def save(self) -> None:
        """Keep what was compiled for this GPU, for the next start."""


class TensorRTLibrary:
    """TensorRT 11, whose engines run on the GPU model that they were built on."""

    flavor: ClassVar[Flavor] = "tensorrt"
    title: ClassVar[str] = "TensorRT"
    release: ClassVar[str] = "11.4"
    """The release that this code is written for."""
    module: ClassVar[str] = "tensorrt"
    install: ClassVar[str] = (
        "pip install 'pawserve[gpu]', with the extra package index that NVIDIA's install guide for TensorRT names"
    )
    portable: ClassVar[bool] = False
    """Whether engines are built without a GPU, for several GPU models."""
    contexts: ClassVar[type[Contexts]] = Contexts
    """Makes execution contexts; called with the module, an engine, and the file of kernels compiled on this host."""

    def is_installed(self) -> bool:
        """Whether the module is there, without loading it."""
        return find_spec(self.module) is not None

    def load(self) -> Any:
        """Import the module.

        Raises:
            EngineBuildError: if it is not installed, or of another major release.
        """
        try:
            trt = import_module(self.module)
        except (ImportError, OSError) as error:
            raise EngineBuildError(f"{self.title} cannot be imported ({error}): {self.install}") from error
        release, major = str(trt.__version__), self.release.split(".")[0]
        if release.split(".")[0] != major:
            raise EngineBuildError(f"{self.title} {release} is installed; this pawserve needs {major}.x")
        return trt

    def version(self) -> str:
        """The installed release.

        Raises:
            EngineBuildError: as `load`.
        """
        return str(self.load().__version__)

    def prepare_build(self, config: Any, logger: Any, timings: bytes, capabilities: Sequence[str]) -> None:
        """Set the timing cache of a builder configuration; engines are for this host's GPU.

        Args:
            timings: the cache of earlier builds, or nothing.
            capabilities: not used.

        Raises:
            EngineBuildError: if TensorRT makes no cache.
        """
        cache = config.create_timing_cache(timings)
        if cache is None:  # it is of another release or GPU
            cache = config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, False):
            raise EngineBuildError(f"TensorRT cannot make a timing cache: {logger.reason()}")

    def read_timings(self, config: Any) -> bytes:
        """The timing cache after a build; empty where the library has none."""
        return bytes(config.get_timing_cache().serialize())


def make_logger(trt: Any) -> Any:
    """Make a logger that stores errors: TensorRT's calls return None or False, and log the reason.

    `layers` has the description of a built engine's layers, one on each line, which a builder logs if its profiling
    verbosity is DETAILED.
    """

    class StoringLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(msg)
            elif ", LayerType: " in msg:
                self.layers = msg

        def reason(self) -> str:
            """The last errors, for the end of a sentence."""
            return "; ".join(self.errors[-3:]) or "TensorRT gave no reason"

    return StoringLogger()
