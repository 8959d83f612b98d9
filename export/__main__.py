"""The commands of `python -m export`: a run in, a bundle out."""

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from serving.bundle import open_bundle
from training.commands import Command, run_command
from training.progress import say


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Export a run to ONNX, prove that it answers as trained, and write models/NAME/VERSION."""

    run: Path
    """A finished run of `python -m training fit`."""
    models: Path
    """Folder of models; the next free version of NAME is written in it."""
    name: str
    """The model's name: a-z, 0-9, '.', '_' and '-'."""
    data: Path | None = None
    """Where the run's photos are now, if they have moved."""


def _bundle(options: Bundle) -> None:
    from export.bundle import export_bundle  # torch takes seconds to import: only where it is needed
    from training.run import open_run

    folder = export_bundle(open_run(options.run), options.models, options.name, options.data)
    parity = open_bundle(folder).manifest.artifacts[0].parity
    say(
        f"{parity['photos']:,} validation photos: {parity['correct']:,} right, as trained; probabilities differ by at "
        f"most {parity['max_abs_diff']:.1e}"
    )
    say(f"wrote {folder}")


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show what is in a bundle, and check its files against their hashes."""

    bundle: Annotated[Path, tyro.conf.Positional]
    """A folder models/NAME/VERSION."""
    json: bool = False
    """Print the manifest as JSON."""


def _inspect(options: Inspect) -> None:
    bundle = open_bundle(options.bundle)
    manifest = bundle.manifest
    for artifact in manifest.artifacts:
        bundle.read(artifact)
    if options.json:
        print(json_module.dumps(asdict(manifest), ensure_ascii=False))
        return
    facts = Table(show_header=False, box=None)
    accuracy = manifest.metrics["accuracy"]
    preprocess = manifest.preprocess
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
    ):
        facts.add_row(name, value)
    files = Table("file", "precision", "MB", "SHA-256", "max |Δp|", "same answers", "photos")
    for artifact in manifest.artifacts:
        parity = artifact.parity
        files.add_row(
            artifact.file,
            artifact.precision,
            f"{artifact.bytes / 1e6:.1f}",
            f"{artifact.sha256[:12]}… checked",
            f"{parity['max_abs_diff']:.1e}",
            f"{100 * parity['agreement']:.2f}%",
            f"{parity['photos']:,}",
        )
    console = Console(highlight=False)
    console.print(facts)
    console.print(files)


COMMANDS = {"bundle": Command(Bundle, _bundle), "inspect": Command(Inspect, _inspect)}


def main(arguments: Sequence[str]) -> int:
    return run_command("python -m export", "From a run to a bundle that can be deployed.", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
