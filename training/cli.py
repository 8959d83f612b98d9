"""The commands of `python -m training` that make a set of images: shard, sample and fetch-pets.

The commands of `python -m training`: images in, a run out.
"""

import argparse
import json as json_module
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from serving.system.files import write_atomically
from training.command import Command, MaybePath, MaybeText, UsageError, run_command
from training.console import progress, say
from training.recipes.overrides import FirstStage
from training.recipes.presets import PRESETS
from training.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Pack images into WebDataset shards, for object storage and many processes."""

    data: Path
    """Images: train/CLASS/* and valid/CLASS/*, or CLASS/* of which a part is held out for validation."""
    out: Path
    """Folder to write: train-*.tar, valid-*.tar and shards.json. It must not exist, or be empty."""
    shard_mb: int = 64
    """Size of a shard, in millions of bytes: 1 to 1000. Each process holds a few of them in memory."""
    url: MaybeText = None
    """Where the shards will be read from (https://… or http://…) where they are not beside shards.json."""
    valid_fraction: float = 0.2
    """Part of each class held out for validation, where the data has no `valid` folder."""
    seed: int = 0
    """Of what is held out and of the images' order; the same seed and images make the same bytes."""


def shard(options: Shard) -> None:
    """Write shards, and say what is in them."""
    from training.data.shard_writer import write_shards

    if not 1 <= options.shard_mb <= 1000:
        raise UsageError(f"shard-mb is {options.shard_mb}; it must lie between 1 and 1000")
    if not 0.01 <= options.valid_fraction <= 0.9:
        raise UsageError(f"valid-fraction is {options.valid_fraction}; it must lie between 0.01 and 0.9")
    split, skipped, count = write_shards(
        options.data,
        options.out,
        shard_bytes=options.shard_mb * 10**6,
        valid_fraction=options.valid_fraction,
        seed=options.seed,
        url=options.url,
    )
    for file in skipped[:10]:
        say(f"left out {file.path}: {file.reason}")
    if len(skipped) > 10:
        say(f"and {len(skipped) - 10:,} more")
    say(
        f"{len(split.train):,} images to train on and {len(split.valid):,} to validate on, of {len(split.classes):,} "
        f"classes, in {count:,} shards in {options.out}"
    )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw a small set of cats and dogs, so that everything runs with no download."""

    out: Path
    """Folder to write: train/cats, train/dogs, valid/cats and valid/dogs. It must not exist, or be empty."""
    per_class: int = 150
    """Drawings of each kind to train on."""
    valid_per_class: int = 50
    """Drawings of each kind to validate on."""
    seed: int = 0
    """The same seed draws the same images."""


def sample(options: Sample) -> None:
    """Draw images."""
    from training.samples.sample import write_sample

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
    """Download the Oxford-IIIT Pet images: 7,400 cats and dogs, 800 MB."""

    out: Path
    """Folder to write: train and valid, each with cats and dogs, or with the 37 breeds."""
    breeds: bool = False
    """One class for each of the 37 breeds instead of cats and dogs."""


def fetch(options: FetchPets) -> None:
    """Download images."""
    from training.data.pets import fetch_pets

    counts = fetch_pets(options.out, breeds=options.breeds)
    say(f"wrote {counts:,} images to {options.out}")


if TYPE_CHECKING:
    from training.evaluation.evaluation import Evaluation

# Read by OpenMP when torch is imported. Threads that spin while they wait for one another make a step ten times
# slower as soon as another process wants the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


Preset = Literal["quick", "course", "from-scratch"]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Train a classifier on a folder of images; write a run to look at and to export."""

    data: Path
    """Images: train/CLASS/* and valid/CLASS/*, or CLASS/* of which a part is held out for validation, or the folder
    of the shards that `shard` wrote."""
    run: Path
    """Folder to write. A finished run there is kept as NAME.previous once the new one is whole."""
    preset: Preset = "quick"
    """What to start from: `quick` trains a head on precomputed activations, `course` does the eight steps of the
    fast.ai course, `from-scratch` trains a network with random weights. The options below change it."""
    recipe_file: Annotated[MaybePath, tyro.conf.arg(name="recipe")] = None
    """A recipe.yaml to start from instead of a preset."""
    resume: bool = False
    """Go on with a run that did not finish; everything else must be as it was."""
    auto_resume: bool = False
    """Go on with a run if there is an unfinished one, begin it if not, and leave a finished one alone: for launchers
    that start the same command again."""
    checkpoint_every: float = 20.0
    """Seconds between checkpoints, which are written at the ends of epochs."""
    cache: MaybePath = None
    """Where activations are kept between runs. Default: $XDG_CACHE_HOME/pawserve or ~/.cache/pawserve."""
    json: bool = False
    """Print run.json to standard output at the end."""
    first: Annotated[FirstStage, tyro.conf.arg(name="")] = field(default_factory=FirstStage)
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


@dataclass(frozen=True, kw_only=True)
class FindLr:
    """Run the learning-rate range test for a stage; plot the loss, suggest rates."""

    data: Path
    """Images, as `fit` takes them."""
    stage: MaybeText = None
    """The recipe's stage whose layers learn. Default: the first."""
    plot: Path = Path("lr.png")
    """The PNG file to write."""
    preset: Preset = "quick"
    """The recipe to start from."""
    recipe_file: Annotated[MaybePath, tyro.conf.arg(name="recipe")] = None
    """A recipe.yaml to start from instead of a preset."""
    cache: MaybePath = None
    """Where activations are kept between runs. Default: $XDG_CACHE_HOME/pawserve or ~/.cache/pawserve."""
    json: bool = False
    """Print rates, losses and suggestions to standard output."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


def _start(arguments: Sequence[str]) -> dict[str, Any]:
    """A preset or a recipe file gives the defaults, so that what is given beside it wins."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", type=Path, nargs="?")
    parser.add_argument("--preset", nargs="?")
    given = parser.parse_known_args([word for word in arguments if word not in ("-h", "--help")])[0]
    preset = given.preset if given.preset in PRESETS else "quick"  # another one is tyro's to refuse
    return {
        "data": tyro.MISSING,
        "preset": preset,
        "recipe_file": given.recipe,
        "settings": Recipe.load(given.recipe) if given.recipe else PRESETS[preset](),
    }


def _fit(options: Fit) -> None:
    from training.features.activations import default_cache  # torch takes seconds to import: only where it is needed
    from training.fit import fit
    from training.runs.folder import can_resume, is_finished
    from training.runs.run import RUN_FILE

    if not 0 <= options.checkpoint_every <= 86_400:
        raise UsageError(f"checkpoint-every is {options.checkpoint_every}; it must lie between 0 and 86,400 seconds")
    recipe = options.first.apply(options.settings)
    is_first = os.environ.get("RANK", "0") == "0"  # of several processes, one speaks
    if options.auto_resume and is_finished(options.run, recipe):
        if is_first:
            say(f"{options.run} is finished: there is nothing to do")
        return
    evaluation = fit(
        options.data,
        options.run,
        recipe,
        options.cache or default_cache(),
        resume=options.resume or (options.auto_resume and can_resume(options.run)),
        checkpoint_every_s=options.checkpoint_every,
    )
    if not is_first:
        return
    say_accuracy(evaluation)
    facts = json_module.loads((options.run / RUN_FILE).read_text(encoding="utf-8"))
    if options.json:
        print(json_module.dumps(facts, ensure_ascii=False))
    say(f"run written in {facts['seconds']['total']:.1f} s; look at {options.run / 'report.html'}")


def say_accuracy(evaluation: "Evaluation") -> None:
    """The figures that matter, in words."""
    metrics = evaluation.metrics
    accuracy = metrics.accuracy
    say(
        f"{metrics.correct:,} of {metrics.n:,} images right: {100 * accuracy.value:.2f}% "
        f"(95% interval {100 * accuracy.lower:.2f}% to {100 * accuracy.upper:.2f}%)"
    )
    if evaluation.test_time:
        test_time = evaluation.test_time
        paired, adaptive = test_time.paired, test_time.adaptive
        say(
            f"averaged over {test_time.views} views {test_time.metrics.correct:,} are right: {paired.gained} gained, "
            f"{paired.lost} lost (McNemar p = {paired.p_value:.2f}); looking again only below a confidence of "
            f"{adaptive.threshold:.3f}, {adaptive.correct:,} with {adaptive.mean_views:.2f} views an image"
        )


def _find_lr(options: FindLr) -> None:
    from training.features.activations import default_cache
    from training.find_lr import find_rate_for
    from training.reports.plots import plot_lr_curve

    if options.stage is not None and options.stage not in options.settings.stages:
        raise UsageError(f"there is no stage {options.stage!r}; there are {', '.join(options.settings.stages)}")
    stage = options.stage or next(iter(options.settings.stages))
    curve = find_rate_for(options.data, options.settings, stage, options.cache or default_cache())
    write_atomically(options.plot, plot_lr_curve(curve))
    say(f"plotted in {options.plot}")
    if options.json:
        print(json_module.dumps(vars(curve) | {"suggestions": curve.suggestions()}, ensure_ascii=False))


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Try a finished run on a folder of labelled images."""

    run: Path
    """A run that `fit` wrote."""
    data: Path
    """Images: CLASS/* with the run's classes, a folder with valid/CLASS/*, or shards."""
    views: int = 1
    """Views to average over (test-time augmentation), those that serving uses: 1 to 64."""
    json: bool = False
    """Print the figures to standard output."""


def _evaluate(options: Evaluate) -> None:
    from training.evaluate import evaluate_run, evaluation_facts
    from training.runs.run import open_run

    if not 1 <= options.views <= 64:
        raise UsageError(f"views is {options.views}; it must lie between 1 and 64")
    evaluation, skipped = evaluate_run(open_run(options.run), options.data, options.views)
    say_accuracy(evaluation)
    if options.json:
        print(json_module.dumps(evaluation_facts(evaluation, skipped), ensure_ascii=False))


COMMANDS = {
    "fit": Command(Fit, _fit, lambda arguments: Fit(run=tyro.MISSING, **_start(arguments))),
    "find-lr": Command(
        FindLr,
        _find_lr,
        lambda arguments: FindLr(**_start(arguments)),
        interrupted="no plot was written; activations that were computed are kept: the same command starts anew",
    ),
    "evaluate": Command(Evaluate, _evaluate, interrupted="nothing was kept; the same command starts anew"),
    "shard": Command(Shard, shard),
    "sample": Command(Sample, sample),
    "fetch-pets": Command(FetchPets, fetch),
}


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--"]:  # torchrun passes on the -- that keeps it from taking --run for an option of its own
        arguments = arguments[1:]
    return run_command(
        "python -m training", "From a folder of labelled images to a trained classifier.", COMMANDS, arguments
    )
