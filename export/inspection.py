"""`python -m export inspect`: what a bundle contains, whether its files are intact, and this host's engines of it."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from export.options import InspectOptions
from export.page import PARITY_COLUMNS, describe_accuracy, describe_model, parity_row
from serving.bundle.manifest import Bundle, open_bundle
from serving.engine.tensorrt_cache import Sidecar, default_engines, find_engines
from serving.system.output import print_json


def run(options: InspectOptions) -> None:
    """Run the command.

    Raises:
        BundleError: if a file is missing or was changed.
    """
    bundle = open_bundle(options.bundle)
    for artifact in bundle.manifest.artifacts:
        bundle.read(artifact)
    hashes = {artifact.sha256 for artifact in bundle.manifest.artifacts}
    engines = [sidecar for _, sidecar in find_engines(options.engines or default_engines(), hashes)]
    if options.json:
        facts = asdict(bundle.manifest) | {"engines": [asdict(engine) for engine in engines]}
        print_json(facts)
    else:
        print_bundle(bundle, engines)


def print_bundle(bundle: Bundle, engines: Sequence[Sidecar]) -> None:
    """Print facts, files with their parity, and the TensorRT engines that this host has of them."""
    manifest = bundle.manifest
    facts = Table(show_header=False, box=None)
    facts.add_row("model", manifest.resource)
    facts.add_row("accuracy", describe_accuracy(manifest))
    for name, value in describe_model(manifest, most_classes=10).items():
        facts.add_row(name, value)
    facts.add_row("files", "all match the sizes and hashes in model.json")
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
