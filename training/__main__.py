"""The commands of `python -m training`: photos in, a run out."""

import argparse
import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from training.commands import Command, run_command
from training.progress import progress, say
from training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Train a classifier on a folder of photos; write a run to look at, to repeat and to export."""

    data: Path
    """Photos: train/CLASS/* and valid/CLASS/*, or CLASS/* of which a part is held out for validation."""
    run: Path
    """Folder to write. A finished run there is kept as NAME.previous once the new one is whole."""
    recipe_file: Annotated[Path | None, tyro.conf.arg(name="recipe")] = None
    """A recipe.yaml to start from; the options below change it."""
    cache: Path | None = None
    """Where activations are kept between runs. Default: $XDG_CACHE_HOME/pawserve or ~/.cache/pawserve."""
    json: bool = False
    """Print run.json to standard output at the end."""
    recipe: Recipe = field(default_factory=Recipe)


def _fit_defaults(arguments: Sequence[str]) -> Fit:
    """A recipe file gives the defaults, so that what is given beside it wins."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", type=Path)
    path = parser.parse_known_args(arguments)[0].recipe
    recipe = Recipe.load(path) if path else Recipe()
    return Fit(data=tyro.MISSING, run=tyro.MISSING, recipe=recipe)


def _fit(options: Fit) -> None:
    from training.activations import default_cache  # torch takes seconds to import: only where it is needed
    from training.fit import fit
    from training.run import RUN_FILE

    evaluation = fit(options.data, options.run, options.recipe, options.cache or default_cache())
    metrics = evaluation.metrics
    accuracy = metrics.accuracy
    say(
        f"{metrics.correct:,} of {metrics.n:,} validation photos right: {100 * accuracy.value:.2f}% "
        f"(95% interval {100 * accuracy.lower:.2f}% to {100 * accuracy.upper:.2f}%)"
    )
    facts = json_module.loads((options.run / RUN_FILE).read_text(encoding="utf-8"))
    if options.json:
        print(json_module.dumps(facts, ensure_ascii=False))
    say(f"run written in {facts['seconds']['total']:.1f} s; look at {options.run / 'report.html'}")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw a small set of cats and dogs (drawings, not photos), so that everything runs with no download."""

    out: Path
    """Folder to write: train/cats, train/dogs, valid/cats and valid/dogs. It must not exist, or be empty."""
    per_class: int = 150
    """Drawings of each kind to train on."""
    valid_per_class: int = 50
    """Drawings of each kind to validate on."""
    seed: int = 0
    """The same seed draws the same pictures."""


def _sample(options: Sample) -> None:
    from training.sample import write_sample

    with progress("drawing", "drawings") as on_progress:
        write_sample(
            options.out,
            per_class=options.per_class,
            valid_per_class=options.valid_per_class,
            seed=options.seed,
            on_progress=on_progress,
        )
    say(f"drew {2 * (options.per_class + options.valid_per_class):,} cats and dogs in {options.out}")


@dataclass(frozen=True, kw_only=True)
class FetchPets:
    """Download the Oxford-IIIT Pet photos (7,400 cats and dogs, 800 MB) through torchvision; needs a network."""

    out: Path
    """Folder to write: train and valid, each with cats and dogs, or with the 37 breeds."""
    breeds: bool = False
    """One class for each of the 37 breeds instead of cats and dogs."""


def _fetch_pets(options: FetchPets) -> None:
    from training.pets import fetch_pets

    counts = fetch_pets(options.out, breeds=options.breeds)
    say(f"wrote {counts:,} photos to {options.out}")


COMMANDS = {
    "fit": Command(Fit, _fit, _fit_defaults),
    "sample": Command(Sample, _sample),
    "fetch-pets": Command(FetchPets, _fetch_pets),
}


def main(arguments: Sequence[str]) -> int:
    return run_command(
        "python -m training", "From a folder of labelled photos to a trained classifier.", COMMANDS, arguments
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
