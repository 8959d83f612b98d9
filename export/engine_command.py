"""A bundle in; a cached, checked TensorRT engine of it out: the whole of `python -m export engine`."""

import hashlib
import json
import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.calibrate import list_calibration
from export.checks.agreement import check_agreement, compare
from export.checks.checks import Tolerances
from export.inference import answer_each, load_views, open_session
from export.tensorrt import EngineOptions, build_plan
from serving.bundle.manifest import Artifact, Bundle, Precision
from serving.engine.cuda import Gpu, find_gpu
from serving.engine.tensorrt import LoadedPlan, TensorRTEngine, load_tensorrt
from serving.engine.tensorrt_cache import PLAN, SIDECAR, EngineBuildError, Sidecar, read_plan
from serving.system.files import new_folder, sync_folder, write_atomically
from training.console import progress, say

CHECK_PHOTOS = 500
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


def build_and_check(
    bundle: Bundle, precision: Precision, options: EngineOptions, engines: Path, photos: Path | None
) -> dict[str, Any]:
    """Build the engine, or take the cached one, hold it against ONNX Runtime, and measure it.

    Args:
        engines: the cache; the engine appears in it once it has passed its gate.
        photos: folder of photos for the gate; None takes noise, which shows that it runs and no more.

    Returns:
        The sidecar, the parity figures and milliseconds and images/s by batch size.

    Raises:
        EngineBuildError, CudaError, BundleError: with what to do.
        CheckError: if its answers differ; then it is not kept.
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
        say(f"{place} is there already and is used again")
        return _check(bundle, artifact, graph, plan, sidecar, gpu, photos)
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
    with new_folder(engines, "engine") as folder:
        (folder / PLAN).write_bytes(built.plan)
        (folder / SIDECAR).write_text(json.dumps(asdict(sidecar), indent=2) + "\n", encoding="utf-8")
        write_atomically(timings, built.timings)
        result = _check(bundle, artifact, graph, built.plan, sidecar, gpu, photos)
        sync_folder(folder)
        folder.rename(place)
    say(f"wrote {place}")
    return result


def _check(
    bundle: Bundle, artifact: Artifact, graph: bytes, plan: bytes, sidecar: Sidecar, gpu: Gpu, photos: Path | None
) -> dict[str, Any]:
    """Gate: the engine answers as ONNX Runtime does with the same file; then its throughput."""
    images_NHWC, labels_N, names = _images(bundle, photos)
    with progress("ONNX Runtime's answers") as on_progress:
        expected_NK = answer_each(open_session(graph), images_NHWC, on_progress)
    with TensorRTEngine(LoadedPlan(plan, gpu)) as engine:
        size = engine.max_batch_size
        answers_NK = np.concatenate(
            [engine.run(images_NHWC[first : first + size]) for first in range(0, len(images_NHWC), size)]
        )
        found = compare(answers_NK, expected_NK, labels_N)
        # fp16 rounds differently in TensorRT's fused kernels, so it is held to fp16's bound against the fp16 file
        check_agreement(found, artifact.precision, Tolerances(), f"the {artifact.precision} engine", names[found.worst])
        rates = [_measure(engine, images_NHWC, batch) for batch in BATCHES if sidecar.min_batch <= batch <= size]
    say(
        f"{found.photos:,} {'photos' if photos else 'pictures of noise'}: {100 * found.agreement:.2f}% same answers as "
        f"ONNX Runtime, max |Δp| {found.max_abs_diff:.1e}"
    )
    for rate in rates:
        say(f"batch {rate['batch']:>3}: {rate['milliseconds']:7.2f} ms, {rate['images_per_second']:9,.0f} images/s")
    return {"engine": asdict(sidecar), "parity": found.to_json(), "rates": rates}


def _images(bundle: Bundle, photos: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    preprocess = bundle.manifest.preprocess
    if photos is None:
        say("no --photos were given: the gate compares answers to noise, which shows little about accuracy")
        crop = preprocess.crop
        noise = np.random.default_rng(0).integers(0, 256, (32, crop, crop, 3), np.uint8)
        return noise, np.zeros(len(noise), np.int64), [f"noise {row}" for row in range(len(noise))]
    listed = list_calibration(photos)
    if not listed:
        raise EngineBuildError(f"--photos {photos} holds no photos; give a folder with some like those to be served")
    chosen = [listed[row] for row in np.random.default_rng(0).permutation(len(listed))[:CHECK_PHOTOS]]
    with progress("reading photos") as on_progress:
        views_NHWC = load_views(chosen, preprocess, on_progress)
    return views_NHWC, np.array([photo.label for photo in chosen], np.int64), [str(photo.path) for photo in chosen]


def _measure(engine: TensorRTEngine, images_NHWC: NDArray[np.uint8], batch: int) -> dict[str, float]:
    """Median milliseconds of a batch, copies both ways included, after a warm-up."""
    images = np.resize(images_NHWC, (batch, *images_NHWC.shape[1:]))
    milliseconds = []
    for call in range(25):
        began = time.perf_counter()
        engine.run(images)
        if call >= 5:
            milliseconds.append(1000 * (time.perf_counter() - began))
    median = float(np.median(milliseconds))
    return {"batch": batch, "milliseconds": median, "images_per_second": 1000 * batch / median}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name)
