"""`python -m export engine`: build a TensorRT engine of a bundle, check it, measure it, and keep it in the cache."""

import hashlib
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.calibrate import list_folder
from export.checks.checks import CheckError, Tolerances, check_agreement, compare
from export.engine_layers import summarize
from export.inference import load_views, predict_each
from export.options import EngineOptions
from export.tensorrt_plan import PlanOptions, build_plan
from serving.bundle.folder import open_newest
from serving.bundle.manifest import Artifact, Bundle, Precision
from serving.engine.cuda import CudaError, Gpu, find_gpu, has_gpu_driver
from serving.engine.onnx import load_graph
from serving.engine.tensorrt import LoadedPlan, TensorRTEngine
from serving.engine.tensorrt_cache import PLAN, SIDECAR, Sidecar, default_engines, read_plan, read_sidecar
from serving.engine.tensorrt_choice import PRECISIONS
from serving.engine.tensorrt_library import EngineBuildError, TensorRTLibrary
from serving.engine.tensorrt_rtx import LIBRARIES, TENSORRT, default_flavor, runs_on
from serving.system.files import new_folder, sync_folder, write_atomically
from serving.system.output import print_json
from training.console import progress, say
from training.data.images import LabelledImage, labels_of

CHECK_IMAGES = 500
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
WARM_UP_CALLS, TIMED_CALLS = 5, 20


def run(options: EngineOptions) -> None:
    """Run the command; errors are those of `build_and_check`."""
    bundle, engines = open_newest(options.bundle), options.engines or default_engines()
    library = LIBRARIES[default_flavor() if options.flavor == "auto" else options.flavor]
    precision = default_precision(bundle) if options.precision == "auto" else options.precision
    result = build_and_check(bundle, precision, options.plan, engines, options.images, library)
    if options.json:
        print_json(result)


def default_precision(bundle: Bundle) -> Precision:
    """The first of PRECISIONS that the bundle has a file of for TensorRT."""
    artifacts = bundle.manifest.artifacts
    present = {each.precision for each in artifacts if each.runtime == "tensorrt" or each.precision != "int8"}
    return next((precision for precision in PRECISIONS if precision in present), "fp16")


def build_and_check(
    bundle: Bundle,
    precision: Precision,
    options: PlanOptions,
    engines: Path,
    folder: Path | None,
    library: TensorRTLibrary = TENSORRT,
) -> dict[str, Any]:
    """Build the engine, or take the cached one, compare it with ONNX Runtime, and measure it.

    An engine of TensorRT for RTX is compared and measured only if this host has a GPU that it runs on.

    Args:
        engines: the cache; the engine appears in it once it has passed the parity check. A damaged one is replaced.
        folder: images for the parity check; None takes noise, which shows only that the engine runs.

    Returns:
        The sidecar, the parity figures (None if it did not run), and milliseconds and images/s by batch size.

    Raises:
        EngineBuildError, CudaError, BundleError: with what to do.
        CheckError: if it differs from ONNX Runtime; then it is not kept.
    """
    artifact = bundle.artifact(precision, "tensorrt")
    graph = bundle.read(artifact)
    release = library.version()
    gpu = _find_gpu_of_portable(options) if library.portable else find_gpu()
    if folder is not None and gpu is None:
        say(f"the images of {folder} are not used")
    elif folder is not None:
        _list_images(folder)  # a mistake in its name shows before the build
    wanted = Sidecar(
        flavor=library.flavor,
        onnx_sha256=artifact.sha256,
        precision=precision,
        tensorrt=release,
        gpu="" if library.portable or gpu is None else gpu.name,
        compute_capability="" if library.portable or gpu is None else gpu.compute_capability,
        compute_capabilities=options.compute_capability if library.portable else (),
        min_batch=options.min_batch,
        opt_batch=options.opt_batch,
        max_batch=options.max_batch,
        optimization_level=options.optimization_level,
        workspace_mib=options.workspace_mib,
        check="not run",
    )
    place = engines / wanted.key()
    if cached := _open_cached(place, gpu, library):
        say(f"{place} exists and is used again")
        loaded, sidecar = cached
        try:
            found, sidecar = _check(bundle, artifact, graph, loaded, sidecar, folder)
        except CheckError:
            shutil.rmtree(place)
            raise
        write_atomically(place / SIDECAR, sidecar.to_json())
        return found
    built_for = re.sub(r"[^A-Za-z0-9]+", "-", gpu.name if gpu else library.flavor)
    timings = engines / f"timings.{built_for}.{release}.cache"
    known = timings.read_bytes() if timings.exists() else b""
    built = build_plan(graph, bundle.manifest.preprocess.crop, precision, options, library, gpu, known)
    if built.timings:
        engines.mkdir(parents=True, exist_ok=True)
        write_atomically(timings, built.timings)
    sidecar = replace(
        wanted,
        plan_sha256=hashlib.sha256(built.plan).hexdigest(),
        plan_bytes=len(built.plan),
        layers=summarize(built.layers),
    )
    with new_folder(engines, "engine") as temporary:
        (temporary / PLAN).write_bytes(built.plan)
        loaded = LoadedPlan(built.plan, library) if gpu else None
        found, sidecar = _check(bundle, artifact, graph, loaded, sidecar, folder)
        (temporary / SIDECAR).write_text(sidecar.to_json(), encoding="utf-8")
        sync_folder(temporary)
        temporary.rename(place)
    say(f"wrote {place}")
    return found


def _find_gpu_of_portable(options: PlanOptions) -> Gpu | None:
    """This host's GPU, if a portable engine runs on it; otherwise None, and why is said."""
    try:
        gpu = find_gpu() if has_gpu_driver() else None
    except CudaError as error:
        say(f"the engine is not run here: {error}")
        return None
    if gpu is None:
        say("the engine is not run here: this host has no NVIDIA GPU")
    elif not runs_on(options.compute_capability, gpu.compute_capability):
        say(f"the engine is not run here: {gpu.name} has compute capability {gpu.compute_capability}")
        return None
    return gpu


def _open_cached(place: Path, gpu: Gpu | None, library: TensorRTLibrary) -> tuple[LoadedPlan | None, Sidecar] | None:
    """The engine that was built before, on the GPU if there is one; None if there is none, or it was damaged."""
    if not place.exists():
        return None
    try:
        sidecar = read_sidecar(place)
        if sidecar.key() != place.name:
            raise EngineBuildError(f"{place / SIDECAR} describes another engine than its folder's name")
        plan = read_plan(place, sidecar)
        return (LoadedPlan(plan, library) if gpu else None), sidecar
    except EngineBuildError as error:
        say(f"the engine that was built before cannot be used, and is built again: {error}")
        shutil.rmtree(place)
        return None


def _check(
    bundle: Bundle, artifact: Artifact, graph: bytes, loaded: LoadedPlan | None, sidecar: Sidecar, folder: Path | None
) -> tuple[dict[str, Any], Sidecar]:
    """Check that the engine agrees with ONNX Runtime on the same file; then measure its throughput.

    Returns:
        What `build_and_check` returns, and the sidecar with the result; a check that passed before stays so.
    """
    if loaded is None:
        return {"engine": asdict(sidecar), "parity": None, "rates": []}, sidecar
    images_NHWC, labels_N, names = _load_images(bundle, folder)
    with progress("computing in ONNX Runtime") as on_progress:
        expected_NK = predict_each(load_graph(graph), images_NHWC, on_progress)
    with TensorRTEngine(loaded) as engine:
        size = engine.max_batch_size
        batches = [engine.run(images_NHWC[first : first + size]) for first in range(0, len(images_NHWC), size)]
        found = compare(np.concatenate(batches), expected_NK, labels_N)
        what, worst = f"the {artifact.precision} engine", names[found.worst]
        # INT8 is checked by its accuracy, which noise says nothing about
        if folder is not None or artifact.precision != "int8":
            sidecar = replace(sidecar, check="passed")
            # TensorRT's fused kernels round fp16 differently, so the tolerance is fp16's even against the fp16 file
            check_agreement(
                found, artifact.precision, Tolerances(), what=what, reference="ONNX Runtime", worst_image=worst
            )
        elif not np.isfinite(found.max_abs_diff):
            raise CheckError(f"{what} gives values that are not finite, on {worst}")
        elif sidecar.check != "passed":
            sidecar = replace(sidecar, check="unchecked")
            say("the accuracy of INT8 is not checked without --images; `serve --engine auto` leaves this engine out")
        rates = [_measure(engine, images_NHWC, batch) for batch in BATCHES if sidecar.min_batch <= batch <= size]
    say(
        f"{found.images:,} images{'' if folder else ' of noise'}: agreement with ONNX Runtime "
        f"{100 * found.agreement:.2f}%, max |Δp| {found.max_abs_diff:.1e}"
    )
    for rate in rates:
        say(f"batch {rate['batch']:>3}: {rate['milliseconds']:7.2f} ms, {rate['images_per_second']:9,.0f} images/s")
    by_batch = {str(rate["batch"]): round(rate["images_per_second"], 1) for rate in rates}
    sidecar = replace(sidecar, images_per_second=by_batch)
    return {"engine": asdict(sidecar), "parity": found.to_json(), "rates": rates}, sidecar


def _load_images(bundle: Bundle, folder: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Views `[N, crop, crop, 3]`, labels `[N]` and names of the images for the parity check."""
    preprocess = bundle.manifest.preprocess
    if folder is None:
        say("no --images were given: the parity check uses noise, which shows little about accuracy")
        crop = preprocess.crop
        noise = np.random.default_rng(0).integers(0, 256, (32, crop, crop, 3), np.uint8)
        return noise, np.zeros(len(noise), np.int64), [f"noise {row}" for row in range(len(noise))]
    listed = _list_images(folder)
    images = [listed[row] for row in np.random.default_rng(0).permutation(len(listed))[:CHECK_IMAGES]]
    with progress("reading images") as on_progress:
        views_NHWC = load_views(images, preprocess, on_progress)
    return views_NHWC, labels_of(images), [str(image.path) for image in images]


def _list_images(folder: Path) -> Sequence[LabelledImage]:
    listed = list_folder(folder)
    if not listed:
        raise EngineBuildError(f"--images {folder} contains no images; give a folder with some like those to be served")
    return listed


def _measure(engine: TensorRTEngine, images_NHWC: NDArray[np.uint8], batch: int) -> dict[str, float]:
    """Median milliseconds of a batch after a warm-up, including the copies to and from the GPU."""
    images = np.resize(images_NHWC, (batch, *images_NHWC.shape[1:]))
    milliseconds = []
    for _ in range(WARM_UP_CALLS + TIMED_CALLS):
        began = time.perf_counter()
        engine.run(images)
        milliseconds.append(1000 * (time.perf_counter() - began))
    median = float(np.median(milliseconds[WARM_UP_CALLS:]))
    return {"batch": batch, "milliseconds": median, "images_per_second": 1000 * batch / median}
