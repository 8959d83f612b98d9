"""The commands, their defaults, and the program that runs them. Nothing here loads torch."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from training.cli.data_options import Check, Compare, Evaluate, FetchPets, Sample, Shard
from training.cli.recipe_options import FindLr, Fit
from training.command import Command, run_command
from training.recipes.presets import PRESETS
from training.recipes.recipe import Recipe

# Read by OpenMP when torch is imported. Threads that spin while they wait for one another make a step ten times
# slower as soon as another process wants the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _recipe_defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """Defaults from the preset or the recipe file, so that options given beside it take precedence."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", type=lambda word: Path(word).expanduser(), nargs="?")
    parser.add_argument("--preset", nargs="?")
    given = parser.parse_known_args([word for word in arguments if word not in ("-h", "--help")])[0]
    preset = given.preset if given.preset in PRESETS else "quick"  # tyro reports an unknown one
    return {
        "data": tyro.MISSING,
        "preset": preset,
        "recipe": given.recipe,
        "settings": Recipe.load(given.recipe) if given.recipe else PRESETS[preset](),
    }


COMMANDS = {
    "fit": Command(
        Fit, "training.cli.model_commands:fit", lambda words: Fit(run=tyro.MISSING, **_recipe_defaults(words))
    ),
    "find-lr": Command(
        FindLr,
        "training.cli.model_commands:find_lr",
        lambda words: FindLr(**_recipe_defaults(words)),
        interrupted="no plot was written; computed activations are kept: run the same command to start again",
    ),
    "evaluate": Command(
        Evaluate,
        "training.cli.model_commands:evaluate",
        interrupted="nothing was kept; run the same command to start again",
    ),
    "compare": Command(Compare, "training.cli.model_commands:compare"),
    "check": Command(
        Check,
        "training.cli.model_commands:check",
        interrupted="no list was written; computed activations are kept: run the same command to start again",
    ),
    "shard": Command(Shard, "training.cli.data_commands:shard"),
    "sample": Command(Sample, "training.cli.data_commands:sample"),
    "fetch-pets": Command(FetchPets, "training.cli.data_commands:fetch_pets"),
}


def main(arguments: Sequence[str], called_as: str | None = None) -> int:
    """Run the command that the arguments name, which the user called `called_as`; returns the exit code."""
    if arguments[:1] == ["--"]:  # torchrun passes on the -- that keeps it from taking --run for an option of its own
        arguments = arguments[1:]
    about = "From a folder of labelled images to a trained classifier."
    return run_command("python -m training", about, COMMANDS, arguments, called_as)
