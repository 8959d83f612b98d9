"""Errors against the number of training images: how many images a data set needs.

    python -m benchmarks.training.images --data photos [--counts 100 200 500 1000 2000] [--presets quick course]

Each count is a random part of the training images, as many of each class as possible; the validation images are always
all. `--plot FILE` draws the figures of the day. The day's results keep the presets, counts and seeds that were measured
before, so that the slow preset can be measured at fewer counts.
"""

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from benchmarks.common import absolute_path, circumstances, heading, make_parser, results_of_today, table, write_results
from benchmarks.training.engines import ARCH
from serving.image.decode import OWN_IMAGE_LIMITS
from training.data.image_files import read_images
from training.data.images import LabelledImage
from training.distributed import joined_processes
from training.features.activations import default_cache
from training.fitting.checkpoint import FitState
from training.fitting.selection import try_steps
from training.fitting.session import FitSession, set_up
from training.fitting.steps import run_steps
from training.hardware import choose_hardware
from training.recipes.presets import PRESETS

COLOURS = {"quick": "#1f5fa8", "course": "#d9722e", "from-scratch": "#8a8f98"}


def main() -> None:
    """Parse the arguments, train, and write the result page and the plot."""
    parser = make_parser(__doc__, "data")
    parser.add_argument("--counts", type=int, nargs="*", default=[100, 200, 500, 1000, 2000], help="training images")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["quick", "course"], help="presets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the parts and of the training")
    parser.add_argument("--cache", type=absolute_path, default=default_cache(), help="of activations")
    parser.add_argument("--plot", type=absolute_path, help="the SVG file to write")
    arguments = parser.parse_args()
    results = results_of_today(circumstances("training-images", ("torch", "timm")))
    rows = {(row["preset"], row["images"], row["seed"]): row for row in results.get("rows", [])}
    for preset in arguments.presets:
        for count in arguments.counts:
            for seed in arguments.seeds:
                rows[preset, count, seed] = measure_fit(arguments.data, preset, count, seed, arguments.cache)
                results["rows"] = [rows[key] for key in sorted(rows)]
                write_results(results, to_markdown(results))
    if arguments.plot:
        arguments.plot.write_text(plot_errors(results["rows"]), encoding="utf-8")


def measure_fit(data: Path, preset: str, count: int, seed: int, cache: Path) -> dict[str, Any]:
    """Train on a part of the images, and count the errors on all validation images, seen in one view."""
    began = monotonic()
    with fit_session(data, preset, count, seed, cache) as session:
        state = FitState()
        try_steps(session, state)
        run_steps(session, state, lambda result: None)
    metrics = state.results[-1].metrics
    return {
        "preset": preset,
        "images": len(session.split.train),
        "seed": seed,
        "errors": metrics["n"] - metrics["correct"],
        "of": metrics["n"],
        "nll": metrics["nll"]["value"],
        "kept": {trial.name: trial.part for trial in state.trials},
        "seconds": round(monotonic() - began, 1),
    }


@contextmanager
def fit_session(data: Path, preset: str, count: int, seed: int, cache: Path) -> Iterator[FitSession]:
    """What a fit of a preset on a part of the training images needs; its files are removed at the end."""
    hardware = choose_hardware()
    recipe = replace(PRESETS[preset](), arch=ARCH, seed=seed)
    with tempfile.TemporaryDirectory() as name, joined_processes(hardware.device) as processes:
        (Path(name) / "run").mkdir()
        yield set_up(
            link_part(data, count, seed, Path(name) / "data"),
            recipe,
            cache,
            limits=OWN_IMAGE_LIMITS,
            targets=(),
            folder=Path(name) / "run",
            hardware=hardware,
            processes=processes,
            checkpoint_every_s=86_400,
            stage=lambda name: nullcontext(),
        )


def link_part(data: Path, count: int, seed: int, folder: Path) -> Path:
    """Make a folder of links to a part of the training images and to all validation images; returns it."""
    images = read_images(data)
    for image in part_of(images.train, count, seed):
        link = folder / "train" / images.classes[image.label] / f"{image.sha256.hex()}{image.path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.path)
    (folder / "valid").symlink_to(data / "valid")
    return folder


def part_of(images: Sequence[LabelledImage], count: int, seed: int) -> list[LabelledImage]:
    """`count` of the images at random, as many of each class as possible.

    With the same seed, a larger part contains a smaller one.
    """
    rng = np.random.default_rng(seed)
    shuffled = [images[index] for index in rng.permutation(len(images))]
    by_label: dict[int, list[LabelledImage]] = {}
    for image in shuffled:
        by_label.setdefault(image.label, []).append(image)
    ranked = [(rank, label, image) for label, of_label in by_label.items() for rank, image in enumerate(of_label)]
    return [image for _, _, image in sorted(ranked, key=lambda each: each[:2])[:count]]


def to_markdown(results: dict[str, Any]) -> list[str]:
    """A row for each preset and count."""
    facts = f"{ARCH} with pretrained weights; errors on the validation images, one view; a column for all seeds."
    rows = []
    for preset, count in sorted({(row["preset"], row["images"]) for row in results["rows"]}):
        of_seeds = [row for row in results["rows"] if (row["preset"], row["images"]) == (preset, count)]
        errors = ", ".join(f"{row['errors']}" for row in of_seeds)
        nll = fmean(row["nll"] for row in of_seeds)
        kept = {", ".join(name for name, part in row["kept"].items() if part) or "all" for row in of_seeds}
        seconds = f"{fmean(row['seconds'] for row in of_seeds):.0f}"
        rows.append((preset, count, errors, of_seeds[0]["of"], f"{nll:.4f}", "; ".join(sorted(kept)), seconds))
    head = ("preset", "training images", "errors by seed", "of", "mean log loss", "stages kept", "mean seconds")
    return [*heading("Errors against training images", results, facts), table(head, rows)]


def plot_errors(rows: Sequence[dict[str, Any]]) -> str:
    """Errors against training images as SVG: a dot for each seed, a line through their means."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for preset in sorted({row["preset"] for row in rows}, reverse=True):
        points = [(row["images"], 100 * row["errors"] / row["of"]) for row in rows if row["preset"] == preset]
        counts = sorted({images for images, _ in points})
        means = [fmean(percent for images, percent in points if images == count) for count in counts]
        axes.plot(counts, means, color=COLOURS[preset], label=f"--preset {preset}")
        across, up = zip(*points, strict=True)
        axes.scatter(across, up, s=16, color=COLOURS[preset], alpha=0.6)
    counts = sorted({row["images"] for row in rows})
    axes.set(xscale="log", xlabel="training images", ylabel="errors on the validation images (%)", ylim=(0, None))
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{count:,}" for count in counts]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4)
    axes.legend(frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


if __name__ == "__main__":
    main()
