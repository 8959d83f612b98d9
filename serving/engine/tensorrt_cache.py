"""The cache of TensorRT engines that were built on this host.

A plan runs only with the release that built it and on the GPU model (TensorRT) or the compute capabilities (TensorRT
for RTX) that it was built for, and it contains code. So each plan has a folder named by a hash of all that it depends
on, with a sidecar file that describes it. It is loaded only if the sidecar fits this host and the plan has the SHA-256
of the sidecar.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from serving.bundle.manifest import Precision
from serving.engine.cuda import Gpu
from serving.engine.tensorrt_library import EngineBuildError, Flavor
from serving.engine.tensorrt_rtx import LIBRARIES, runs_on

PLAN, SIDECAR = "engine.plan", "engine.json"
Check = Literal["passed", "unchecked", "not run"]
_FOUND_LATER = ("plan_sha256", "plan_bytes", "images_per_second", "check", "layers")
"""Fields that are known after the build, so that the cache's key does not depend on them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Description of a plan: what it was built from, where, and how."""

    flavor: Flavor = "tensorrt"
    onnx_sha256: str
    precision: Precision
    tensorrt: str
    """The library's release."""
    gpu: str = ""
    """The GPU that it was built on; empty for TensorRT for RTX."""
    compute_capability: str = ""
    """Compute capability of that GPU, such as `9.0`."""
    compute_capabilities: tuple[str, ...] = ()
    """TensorRT for RTX: those that it was built for."""
    min_batch: int
    opt_batch: int
    max_batch: int
    optimization_level: int
    workspace_mib: int = 2048
    plan_sha256: str = ""
    plan_bytes: int = 0
    images_per_second: Mapping[str, float] = field(default_factory=dict)
    """Throughput by batch size on this host's GPU; empty if it was not measured."""
    check: Check = "passed"
    """Whether its output agreed with ONNX Runtime's: "unchecked" for INT8 that ran on noise only, "not run" for an
    engine that was built where it could not run."""
    layers: Mapping[str, Any] = field(default_factory=dict)
    """Summary of the layers that the builder made."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Sidecar).items():
            value, origin = getattr(self, name), get_origin(kind)
            if not (value in get_args(kind) if origin is Literal else isinstance(value, origin or kind)):
                raise ValueError(f"{name} is {value!r}")
        if not all(isinstance(rate, int | float) for rate in self.images_per_second.values()):
            raise ValueError(f"images_per_second is {self.images_per_second!r}")

    def key(self) -> str:
        """The folder's name: 32 hexadecimal digits of the SHA-256 of all fields that do not depend on the plan."""
        fields = {name: value for name, value in asdict(self).items() if name not in _FOUND_LATER}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]

    def to_json(self) -> str:
        """The content of the sidecar file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def best_rate(self) -> float:
        """Images per second of the fastest batch size; 0 if none was measured."""
        return max(self.images_per_second.values(), default=0.0)

    def misfit(self, gpu: Gpu, release: str) -> str | None:
        """Why the engine does not run on a GPU with the installed release; None if it does."""
        title = LIBRARIES[self.flavor].title
        if self.tensorrt != release:
            return f"was built for {title} {self.tensorrt}, and this host has {release}"
        if self.flavor == "rtx":
            if runs_on(self.compute_capabilities, gpu.compute_capability):
                return None
            return (
                f"was built for GPUs of compute capability {', '.join(self.compute_capabilities)}, and {gpu.name} has "
                f"{gpu.compute_capability}"
            )
        if (self.gpu, self.compute_capability) == (gpu.name, gpu.compute_capability):
            return None
        return (
            f"was built for GPU {self.gpu} ({self.compute_capability}), and this host has {gpu.name} "
            f"({gpu.compute_capability})"
        )


def default_engines() -> Path:
    """The cache: `$PAWSERVE_ENGINES`, or `$XDG_CACHE_HOME/pawserve/engines`, or `~/.cache/pawserve/engines`."""
    if given := os.environ.get("PAWSERVE_ENGINES"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pawserve" / "engines"


def read_sidecar(folder: Path) -> Sidecar:
    """Read the description of the engine in a folder.

    Raises:
        EngineBuildError: if there is none, or it cannot be read.
    """
    try:
        fields = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
        if "compute_capabilities" in fields:
            fields["compute_capabilities"] = tuple(fields["compute_capabilities"])
        return Sidecar(**fields)
    except (OSError, ValueError, TypeError) as error:
        raise EngineBuildError(
            f"{folder / SIDECAR} cannot be read ({error}): build the engine again with python -m export engine"
        ) from error


def find_engines(
    engines: Path, onnx_sha256: set[str], flavor: Flavor | None = None
) -> tuple[list[tuple[Path, Sidecar]], list[str]]:
    """Find the engines that were built from ONNX files with these hashes, with their folders.

    Args:
        flavor: of this library only; None for all.

    Returns:
        The engines, and what is wrong with damaged sidecars, which are left out with a warning.
    """
    found, damaged = [], []
    for path in sorted(engines.glob(f"*/{SIDECAR}")):
        try:
            sidecar = read_sidecar(path.parent)
        except EngineBuildError as error:
            damaged.append(str(error))
            logger.warning("an engine is left out: %s", error)
            continue
        if sidecar.onnx_sha256 in onnx_sha256 and flavor in (None, sidecar.flavor):
            found.append((path.parent, sidecar))
    return found, damaged


def read_plan(folder: Path, sidecar: Sidecar) -> bytes:
    """Read a plan, after checking that it is the one that its sidecar describes.

    Raises:
        EngineBuildError: if it is not, or cannot be read.
    """
    path = folder / PLAN
    try:
        size = path.stat().st_size
        if size != sidecar.plan_bytes:
            raise EngineBuildError(
                f"{path} has {size:,} bytes, and its sidecar says {sidecar.plan_bytes:,}: build it again"
            )
        plan = path.read_bytes()
    except OSError as error:
        raise EngineBuildError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(plan).hexdigest() != sidecar.plan_sha256:
        raise EngineBuildError(f"{path} is not the plan that its sidecar describes: it was changed. Build it again")
    return plan
