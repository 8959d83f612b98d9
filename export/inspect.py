"""A bundle in; what is in it on the terminal: `python -m export inspect`."""

from rich.console import Console
from rich.table import Table

from export.page import PARITY_COLUMNS, describe_adaptive, parity_row
from serving.bundle.manifest import Bundle
from serving.engine.tensorrt_cache import Sidecar


def print_bundle(bundle: Bundle, engines: list[Sidecar]) -> None:
    """Facts, files with their parity, and the TensorRT engines that this host has of them."""
    manifest = bundle.manifest
    accuracy = manifest.metrics["accuracy"]
    preprocess = manifest.preprocess
    facts = Table(show_header=False, box=None)
    for name, value in (
        ("model", manifest.resource),
        ("created", manifest.created),
        ("network", manifest.arch),
        ("classes", f"{len(manifest.classes):,}: {', '.join(manifest.classes[:10])}"),
        ("input", f"{preprocess.crop} of {preprocess.resize} pixels, {preprocess.interpolation}"),
        (
            "accuracy",
            f"{100 * accuracy['value']:.2f}% of {manifest.metrics['n']:,} photos "
            f"({100 * accuracy['lower']:.2f}% to {100 * accuracy['upper']:.2f}%)",
        ),
        ("temperature", f"{manifest.temperature:.3f}"),
        ("adaptive", describe_adaptive(manifest)),
        ("files", "all have the sizes and hashes that model.json says"),
    ):
        facts.add_row(name, value)
    files = Table(*PARITY_COLUMNS)
    for artifact in manifest.artifacts:
        files.add_row(*parity_row(artifact))
    console = Console(highlight=False)
    console.print(facts)
    console.print(files)
    if not engines:
        console.print("no TensorRT engine of it is cached on this host; build one with python -m export engine")
        return
    built = Table("engine", "GPU", "TensorRT", "batch min/opt/max", "ONNX")
    for engine in engines:
        batches = f"{engine.min_batch} / {engine.opt_batch} / {engine.max_batch}"
        built.add_row(engine.precision, engine.gpu, engine.tensorrt, batches, f"{engine.onnx_sha256[:12]}…")
    console.print(built)
