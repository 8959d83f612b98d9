"""Choice of a TensorRT engine for a bundle, out of the cache of this host and the bundle itself."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serving.bundle.engine_file import EngineFile
from serving.bundle.manifest import Bundle, BundleError, Precision
from serving.engine.cuda import Gpu
from serving.engine.first_run import check_first_run
from serving.engine.tensorrt import LoadedPlan
from serving.engine.tensorrt_cache import Sidecar, default_engines, find_engines, read_plan
from serving.engine.tensorrt_library import EngineBuildError, TensorRTLibrary
from serving.engine.tensorrt_rtx import ALL_CAPABILITIES, runs_on

PRECISIONS: tuple[Precision, ...] = ("fp16", "int8", "fp32")
"""Order in which engines are built by default, and tried without a measured throughput: fp16 moves the least memory
(docs/design/tensorrt.md)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """An engine that may compute a bundle."""

    sidecar: Sidecar
    place: Path
    read: Callable[[], bytes]
    """Raises EngineBuildError or BundleError if the file is damaged."""


@dataclass(frozen=True)
class ChosenPlan:
    """The engine that computes a bundle."""

    plan: LoadedPlan
    sidecar: Sidecar
    reason: str
    """Why this one, for people."""


def choose_plan(
    bundle: Bundle, precision: Precision | None, gpu: Gpu, library: TensorRTLibrary, kernels: Path | None
) -> ChosenPlan:
    """Load the fastest engine of a library that fits this host and passed its check.

    Engines that were measured on this host come first, the fastest of them before the others. A damaged one is left
    out with a warning.

    Args:
        precision: None for any.
        kernels: folder of compiled kernels, see LoadedPlan.

    Raises:
        EngineBuildError: if there is none; the message says why each one that exists is not used.
    """
    if library.portable and not runs_on(ALL_CAPABILITIES, gpu.compute_capability):
        raise EngineBuildError(
            f"{library.title} does not run on {gpu.name}, whose compute capability is {gpu.compute_capability}; "
            "use --engine tensorrt"
        )
    release = library.version()
    candidates, obstacles = _candidates(bundle, library)
    fitting: list[Candidate] = []
    for candidate in candidates:
        sidecar = candidate.sidecar
        if precision not in (None, sidecar.precision):
            continue
        if misfit := sidecar.misfit(gpu, release):
            obstacles.append(f"{candidate.place} {misfit}")
        elif precision is None and sidecar.check == "unchecked":
            obstacles.append(
                f"the accuracy of {candidate.place} was not checked: build it with --images, or ask for it with "
                f"--precision {sidecar.precision}"
            )
        else:
            fitting.append(candidate)
    for candidate in sorted(fitting, key=_rank):
        sidecar = candidate.sidecar
        try:
            loaded = LoadedPlan(candidate.read(), library, _kernel_file(kernels, sidecar, gpu))
            if sidecar.check == "not run":
                check_first_run(loaded, bundle, sidecar.precision)
        except (EngineBuildError, BundleError) as error:
            obstacles.append(str(error))
            logger.warning("%s: an engine is left out: %s", bundle.manifest.resource, error)
            continue
        return ChosenPlan(loaded, sidecar, _reason(sidecar, precision))
    found = f": {'; '.join(dict.fromkeys(obstacles))}" if obstacles else ""
    places = f"{default_engines()} and the bundle have" if library.portable else f"{default_engines()} has"
    options = " --flavor rtx" * library.portable + (f" --precision {precision}" if precision else "")
    raise EngineBuildError(
        f"{places} no {library.title} engine of {bundle.folder} for {gpu.name} and {library.title} {release}{found}; "
        f"build one with python -m export engine {bundle.folder}{options}"
    )


def _candidates(bundle: Bundle, library: TensorRTLibrary) -> tuple[list[Candidate], list[str]]:
    """The engines of a library, and what is wrong with damaged sidecars of the cache."""
    hashes = {artifact.sha256 for artifact in bundle.manifest.artifacts}
    cached, damaged = find_engines(default_engines(), hashes, library.flavor)
    found = [Candidate(sidecar, folder, partial(read_plan, folder, sidecar)) for folder, sidecar in cached]
    if library.portable:
        found += [_bundled(bundle, engine) for engine in bundle.manifest.engines]
    return found, damaged


def _bundled(bundle: Bundle, engine: EngineFile) -> Candidate:
    sidecar = Sidecar(
        flavor="rtx",
        onnx_sha256=engine.onnx_sha256,
        precision=engine.precision,
        tensorrt=engine.release,
        compute_capabilities=engine.compute_capabilities,
        min_batch=engine.min_batch,
        opt_batch=engine.opt_batch,
        max_batch=engine.max_batch,
        optimization_level=0,
        plan_sha256=engine.sha256,
        plan_bytes=engine.bytes,
        check="not run",
    )
    return Candidate(sidecar, bundle.folder / engine.file, partial(bundle.read, engine))


def _rank(candidate: Candidate) -> tuple[bool, float, int, int]:
    """The first is tried first."""
    sidecar = candidate.sidecar
    return (
        sidecar.check != "passed",
        -sidecar.best_rate,
        PRECISIONS.index(sidecar.precision),
        -sidecar.max_batch,
    )


def _reason(sidecar: Sidecar, precision: Precision | None) -> str:
    if precision:
        return f"--precision {precision}"
    if sidecar.best_rate:
        return f"{sidecar.precision} is the fastest engine measured here ({sidecar.best_rate:,.0f} images/s)"
    return f"{sidecar.precision} is the first engine found of {', '.join(PRECISIONS)}; none was measured here"


def _kernel_file(kernels: Path | None, sidecar: Sidecar, gpu: Gpu) -> Path | None:
    if kernels is None:
        return None
    key = hashlib.sha256(f"{sidecar.plan_sha256} {sidecar.tensorrt} {gpu.name} {gpu.compute_capability}".encode())
    return kernels / f"{key.hexdigest()[:32]}.bin"
