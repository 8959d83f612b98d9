"""`python -m export inspect`: what a bundle contains, whether its files are intact, and this host's engines of it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.cards.licenses import card_license
from export.cards.page import PARITY_COLUMNS, describe_accuracy, describe_engine, describe_model, parity_row
from export.options import InspectOptions
from serving.bundle.folder import open_newest
from serving.bundle.manifest import CARD, Bundle
from serving.engine.tensorrt_cache import Sidecar, default_engines, find_engines
from serving.engine.tensorrt_rtx import LIBRARIES
from serving.system.output import print_json

MAX_WIDTH = 10_000
MIN_TABLE_WIDTH = 100
"""Columns of a terminal below which rows are printed as blocks, also where a table would just fit."""


def run(options: InspectOptions) -> None:
    """Run the command.

    Raises:
        BundleError: if a file is missing or was changed.
    """
    bundle = open_newest(options.bundle)
    for artifact in bundle.manifest.artifacts:
        bundle.read(artifact)
    for bundled in bundle.manifest.engines:
        bundle.read(bundled)
    hashes = {artifact.sha256 for artifact in bundle.manifest.artifacts}
    engines = [sidecar for _, sidecar in find_engines(options.engines or default_engines(), hashes)[0]]
    if options.json:
        facts = asdict(bundle.manifest)
        facts |= {"engines": [asdict(engine) for engine in engines], "bundled_engines": facts["engines"]}
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
    facts.add_row("model card", _describe_card(bundle.folder / CARD))
    facts.add_row("files", "all match the sizes and hashes in model.json")
    console = Console(highlight=False)
    console.print(facts)
    _print_rows(console, PARITY_COLUMNS, [parity_row(artifact) for artifact in manifest.artifacts])
    for engine in manifest.engines:
        console.print(f"{engine.file}: {describe_engine(engine)}")
    if not engines:
        console.print("no TensorRT engine of it is cached on this host; build one with python -m export engine")
        return
    built = [
        (
            engine.precision,
            engine.gpu or ", ".join(engine.compute_capabilities),
            f"{LIBRARIES[engine.flavor].title} {engine.tensorrt}",
            f"{engine.min_batch} / {engine.opt_batch} / {engine.max_batch}",
            f"{engine.onnx_sha256[:12]}…",
        )
        for engine in engines
    ]
    _print_rows(console, ("engine", "GPU", "built with", "batch min/opt/max", "ONNX"), built)


def _describe_card(path: Path) -> str:
    try:
        return f"{path.name}, license {card_license(path.read_text(encoding='utf-8'))}"
    except FileNotFoundError:
        return "none"


def _print_rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table if the console is wide enough for it; otherwise a block of lines for each row."""
    table = Table()
    for name in columns:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    unbounded = console.options.update(width=MAX_WIDTH)
    if MIN_TABLE_WIDTH <= console.width >= console.measure(table, options=unbounded).maximum:
        console.print(table)
        return
    for row in rows:
        block = Table(show_header=False, box=None)
        block.add_column(no_wrap=True)
        for name, value in zip(columns, row, strict=True):
            block.add_row(name, value)
        console.print()
        console.print(block)
