"""Engines of TensorRT for RTX for a bundle, built from its ONNX files."""

import hashlib
from collections.abc import Sequence

from export.engine_layers import summarize
from export.options import BundleOptions
from export.tensorrt_plan import PlanOptions, build_plan
from serving.bundle.engine_file import EngineFile
from serving.bundle.manifest import Artifact
from serving.engine.tensorrt_choice import PRECISIONS
from serving.engine.tensorrt_library import EngineBuildError
from serving.engine.tensorrt_rtx import RTX
from training.console import say


def build_engine_files(
    exported: Sequence[tuple[Artifact, bytes]], options: BundleOptions, crop: int
) -> tuple[list[tuple[EngineFile, bytes]], str]:
    """Build an engine for each of some precisions; stop at the first that cannot be built.

    Args:
        exported: artifacts and their graphs.
        crop: side of the input in pixels.

    Returns:
        The engines, and why the next one is missing: its graph is missing, or cannot be parsed (with node and operator)
        or built; empty if none is missing.

    Raises:
        KeyboardInterrupt: if Ctrl-C was pressed; the build is stopped first.
    """
    sources = {
        artifact.precision: (artifact, graph)
        for artifact, graph in exported
        if artifact.runtime == "tensorrt" or artifact.precision != "int8"
    }
    chosen = options.engine_precisions or [next(precision for precision in PRECISIONS if precision in sources)]
    engines: list[tuple[EngineFile, bytes]] = []
    try:
        for precision in chosen:
            if precision not in sources:
                target = "int8-trt" if precision == "int8" else precision
                raise EngineBuildError(f"there is no {precision} file for an engine: add {target} to --precisions")
            engines.append(_build(*sources[precision], crop, options.plan))
    except EngineBuildError as error:
        say(f"no {precision} engine: {error}")
        return engines, str(error)
    return engines, ""


def _build(artifact: Artifact, graph: bytes, crop: int, options: PlanOptions) -> tuple[EngineFile, bytes]:
    built = build_plan(graph, crop, artifact.precision, options, RTX)
    engine = EngineFile(
        file=f"model.{artifact.precision}.rtx.engine",
        precision=artifact.precision,
        onnx_sha256=artifact.sha256,
        sha256=hashlib.sha256(built.plan).hexdigest(),
        bytes=len(built.plan),
        release=RTX.version(),
        compute_capabilities=options.compute_capability,
        min_batch=options.min_batch,
        opt_batch=options.opt_batch,
        max_batch=options.max_batch,
        build={"seconds": round(built.seconds, 1), "layers": summarize(built.layers)},
    )
    return engine, built.plan
