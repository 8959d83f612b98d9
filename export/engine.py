"""`python -m export engine`: build a TensorRT engine of a bundle, check it, measure it, and keep it in the cache."""

import hashlib
import json
import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.calibrate import list_folder
from export.checks.checks import Tolerances, check_agreement, compare
from export.inference import load_views, open_session, predict_each
from export.options import EngineOptions
from export.tensorrt_plan import PlanOptions, build_plan
from serving.bundle.folder import open_newest
from serving.bundle.manifest import Artifact, Bundle, Precision
from serving.engine.cuda import Gpu, find_gpu
from serving.engine.tensorrt import LoadedPlan, TensorRTEngine, load_tensorrt
from serving.engine.tensorrt_cache import PLAN, SIDECAR, EngineBuildError, Sidecar, default_engines, read_plan
from serving.system.files import new_folder, sync_folder, write_atomically
from serving.system.output import print_json
from training.console import progress, say
from training.data.images import labels_of

CHECK_IMAGES = 500
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
WARM_UP_CALLS, TIMED_CALLS = 5, 20


def run(options: EngineOptions) -> None:
    """Run the command; errors are those of `build_and_check`."""
    bundle, engines = open_newest(options.bundle), options.engines or default_engines()
    result = build_and_check(bundle, options.precision, options.plan, engines, options.photos)
    if options.json:
        print_json(result)


def build_and_check(
    bundle: Bundle, precision: Precision, options: PlanOptions, engines: Path, folder: Path | None
) -> dict[str, Any]:
    """Build the engine, or take the cached one, compare it with ONNX Runtime, and measure it.

    Args:
        engines: the cache; the engine appears in it once it has passed the parity check.
        folder: images for the parity check; None takes noise, which shows only that the engine runs.

    Returns:
        The sidecar, the parity figures, and milliseconds and images/s by batch size.

    Raises:
        EngineBuildError, CudaError, BundleError: with what to do.
        CheckError: if it differs from ONNX Runtime; then it is not kept.
    """
    artifact = bundle.artifact(precision, "tensorrt")
    graph = bundle.read(artifact)
    gpu = find_gpu()
    release = str(load_tensorrt().__version__)
    wanted = Sidecar(
        onnx_sha256=artifact.sha256,
        precision=precision,
        tensorrt=release,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        min_batch=options.min_batch,
        opt_batch=options.opt_batch,
        max_batch=options.max_batch,
        optimization_level=options.optimization_level,
    )
    place = engines / wanted.key()
    if place.exists():
        plan, sidecar = read_plan(place, gpu=gpu.name, compute_capability=gpu.compute_capability, tensorrt=release)
        say(f"{place} exists and is used again")
        return _check(bundle, artifact, graph, plan, sidecar, gpu, folder)
    timings = engines / f"timings.{_plain(gpu.name)}.{release}.cache"
    with progress(f"building for {gpu.name}", "steps") as on_progress:
        built = build_plan(
            graph,
            bundle.manifest.preprocess.crop,
            precision,
            options,
            timings.read_bytes() if timings.exists() else b"",
            lambda phase, done, total: on_progress(done, total),
        )
    sidecar = replace(wanted, plan_sha256=hashlib.sha256(built.plan).hexdigest(), plan_bytes=len(built.plan))
    with new_folder(engines, "engine") as temporary:
        (temporary / PLAN).write_bytes(built.plan)
        (temporary / SIDECAR).write_text(json.dumps(asdict(sidecar), indent=2) + "\n", encoding="utf-8")
        write_atomically(timings, built.timings)
        result = _check(bundle, artifact, graph, built.plan, sidecar, gpu, folder)
        sync_folder(temporary)
        temporary.rename(place)
    say(f"wrote {place}")
    return result


def _check(
    bundle: Bundle, artifact: Artifact, graph: bytes, plan: bytes, sidecar: Sidecar, gpu: Gpu, folder: Path | None
) -> dict[str, Any]:
    """Check that the engine agrees with ONNX Runtime on the same file; then measure its throughput."""
    images_NHWC, labels_N, names = _load_images(bundle, folder)
    with progress("computing in ONNX Runtime") as on_progress:
        expected_NK = predict_each(open_session(graph), images_NHWC, on_progress)
    with TensorRTEngine(LoadedPlan(plan, gpu)) as engine:
        size = engine.max_batch_size
        batches = [engine.run(images_NHWC[first : first + size]) for first in range(0, len(images_NHWC), size)]
        found = compare(np.concatenate(batches), expected_NK, labels_N)
        # TensorRT's fused kernels round fp16 differently, so the tolerance is fp16's even against the fp16 file
        what, worst = f"the {artifact.precision} engine", names[found.worst]
        check_agreement(found, artifact.precision, Tolerances(), what=what, reference="ONNX Runtime", worst_image=worst)
        rates = [_measure(engine, images_NHWC, batch) for batch in BATCHES if sidecar.min_batch <= batch <= size]
    say(
        f"{found.photos:,} images{'' if folder else ' of noise'}: agreement with ONNX Runtime "
        f"{100 * found.agreement:.2f}%, max |Δp| {found.max_abs_diff:.1e}"
    )
    for rate in rates:
        say(f"batch {rate['batch']:>3}: {rate['milliseconds']:7.2f} ms, {rate['images_per_second']:9,.0f} images/s")
    return {"engine": asdict(sidecar), "parity": found.to_json(), "rates": rates}


def _load_images(bundle: Bundle, folder: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Views `[N, crop, crop, 3]`, labels `[N]` and names of the images for the parity check."""
    preprocess = bundle.manifest.preprocess
    if folder is None:
        say("no --photos were given: the parity check uses noise, which shows little about accuracy")
        crop = preprocess.crop
        noise = np.random.default_rng(0).integers(0, 256, (32, crop, crop, 3), np.uint8)
        return noise, np.zeros(len(noise), np.int64), [f"noise {row}" for row in range(len(noise))]
    listed = list_folder(folder)
    if not listed:
        raise EngineBuildError(f"--photos {folder} contains no images; give a folder with some like those to be served")
    images = [listed[row] for row in np.random.default_rng(0).permutation(len(listed))[:CHECK_IMAGES]]
    with progress("reading images") as on_progress:
        views_NHWC = load_views(images, preprocess, on_progress)
    return views_NHWC, labels_of(images), [str(image.path) for image in images]


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


def _plain(name: str) -> str:
    """A GPU's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)
