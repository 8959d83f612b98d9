"""The options of each command and the program that runs them. Nothing here loads torch."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from training.command import Command, run_command
from training.recipes.presets import PRESETS
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage, check_range

# Read by OpenMP when torch is imported. Threads that spin while they wait for one another make a step ten times
# slower as soon as another process wants the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from serving.image.decode import Limits

Preset = Literal["quick", "course", "from-scratch"]


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """Short forms of settings of the recipe's first stage."""

    lr: float | None = None
    """Highest learning rate of the first stage, for all layer groups."""
    epochs: int | None = None
    """Epochs of the first stage, in one cycle; instead of --cycles, --cycle-len and --cycle-mult."""
    cycles: int | None = None
    """Cycles of the first stage; the learning rate falls along a cosine within each and restarts."""
    cycle_len: int | None = None
    """Epochs of the first stage's first cycle."""
    cycle_mult: int | None = None
    """Each cycle of the first stage is this many times as long as the one before."""
    weight_decay: float | None = None
    """L2 penalty on the weights that are trained in the first stage."""
    train_views: int | None = None
    """Views of each training image whose activations are computed, those that serving averages: 1 to 64."""

    def apply(self, recipe: Recipe) -> Recipe:
        """The recipe with the values given here.

        Raises:
            ValueError: for a value out of range.
        """
        name, stage = next(iter(recipe.stages.items()))
        given: dict[str, Any] = {key: value for key, value in vars(self).items() if value is not None}
        if "epochs" in given:
            if twice := [name for name in ("cycles", "cycle_len", "cycle_mult") if name in given]:
                options = ", ".join(f"--{name.replace('_', '-')}" for name in twice)
                raise ValueError(f"--epochs is one cycle of that many epochs: leave it out, or {options}")
            given |= {"cycles": 1, "cycle_len": given.pop("epochs"), "cycle_mult": 1}
        if "lr" in given:
            given["lr"] = (given["lr"],)
        if "train_views" in given:
            given["views"] = given.pop("train_views")
        return replace(recipe, stages=recipe.stages | {name: replace(stage, **given)})


@dataclass(frozen=True, kw_only=True)
class SizeLimits:
    """The largest images that are read."""

    max_image_mib: int = 256
    """Larger files are left out, in MiB: 1 to 2000."""
    max_pixels: int = 200_000_000
    """Images with more pixels are left out: 1 to 1,000,000,000. Large ones are decoded one at a time."""

    def __post_init__(self) -> None:
        check_range("max-image-mib", self.max_image_mib, 1, 2000)
        check_range("max-pixels", self.max_pixels, 1, 10**9)

    def limits(self) -> "Limits":
        """As the decoder takes them."""
        from training.data.images import TRAINING_LIMITS  # loads NumPy and Pillow, which the help does without

        return replace(TRAINING_LIMITS, max_bytes=self.max_image_mib * 2**20, max_pixels=self.max_pixels)


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Options of the commands that follow a recipe."""

    data: Path
    """Images: train/CLASS/* and valid/CLASS/*, or CLASS/* of which a part is held out for validation, or the folder
    of the shards that `shard` wrote."""
    preset: Preset = "quick"
    """What to start from: `quick` trains a head on precomputed activations, `course` does the eight steps of the
    fast.ai course, `from-scratch` trains a network with random weights. The options below change it."""
    recipe: Path | None = None
    """A recipe.yaml to start from instead of a preset."""
    cache: Path | None = None
    """Where activations are kept between runs. Default: $XDG_CACHE_HOME/pawserve or ~/.cache/pawserve."""
    json: bool = False
    """Print the results as JSON to standard output."""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    size: Annotated[SizeLimits, tyro.conf.arg(name="")] = field(default_factory=SizeLimits)


@dataclass(frozen=True, kw_only=True)
class Fit(RecipeOptions):
    """Train a classifier on a folder of images; write a run with a report."""

    run: Path
    """Folder to write. A finished run there is kept as NAME.previous once the new one is whole."""
    resume: bool = False
    """Continue a run that did not finish; everything else must be as it was."""
    auto_resume: bool = False
    """Continue an unfinished run, start one if there is none, and leave a finished one alone: for launchers that start
    the same command again."""
    checkpoint_every: float = 20.0
    """Seconds between checkpoints, which are written at the ends of epochs."""
    exclude: tuple[Path, ...] = ()
    """Lists of images to leave out or to relabel: `suspects.csv` of an earlier run or of `check`, after you edited it.
    Nothing on the disk is moved."""
    labels: Path | None = None
    """Labels from serving (`export-labels`), whose images are trained on too; none is held out for validation. Needs
    --images."""
    images: Path | None = None
    """The folder of the images of --labels: a label's reference is its image's path below this folder."""
    check: bool = True
    """Check the data: label suspects, near duplicates, and images that stand out."""
    first: Annotated[FirstStage, tyro.conf.arg(name="")] = field(default_factory=FirstStage)

    def __post_init__(self) -> None:
        check_range("checkpoint-every", self.checkpoint_every, 0, 86_400)
        if (self.labels is None) != (self.images is None):
            given, missing = ("--labels", "--images") if self.images is None else ("--images", "--labels")
            raise ValueError(f"{given} is given without {missing}; give both: --labels labels.csv --images FOLDER")
        self.resolved_recipe()

    def resolved_recipe(self) -> Recipe:
        """The recipe with the short options applied."""
        return self.first.apply(self.settings)


@dataclass(frozen=True, kw_only=True)
class FindLr(RecipeOptions):
    """Run the learning-rate range test for a stage; plot the losses."""

    stage: str | None = None
    """The recipe's stage whose layers are trained. Default: the first."""
    plot: Path = Path("lr.png")
    """The PNG file to write."""

    def __post_init__(self) -> None:
        if self.stage is not None and self.stage not in self.settings.stages:
            raise ValueError(f"there is no stage {self.stage!r}; there are {', '.join(self.settings.stages)}")
        if self.plot.is_dir() or not self.plot.parent.is_dir():
            raise ValueError(f"--plot is {self.plot}; give a PNG file in a folder that exists")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a finished run on a folder of labelled images."""

    run: Path
    """A run that `fit` wrote."""
    data: Path
    """Images: CLASS/* with classes of the run, a folder with valid/CLASS/*, or shards."""
    views: int = 1
    """Views to average over (test-time augmentation), those that serving uses: 1 to 64."""
    cache: Path | None = None
    """Where activations are kept, for later evaluations of the same run. Default: they are not kept."""
    out: Path | None = None
    """Folder to write: report.html, predictions.csv with a row for each image, evaluation.json and plots."""
    json: bool = False
    """Print the figures to standard output."""
    size: Annotated[SizeLimits, tyro.conf.arg(name="")] = field(default_factory=SizeLimits)

    def __post_init__(self) -> None:
        check_range("views", self.views, 1, 64)
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out is {self.out}, which is a file; give a folder")


@dataclass(frozen=True, kw_only=True)
class Check:
    """Check a data set without training: labels, near duplicates, odd images."""

    data: Path
    """Images: train/CLASS/* and valid/CLASS/*, or CLASS/* of which a part is held out for validation, or the folder
    of the shards that `shard` wrote."""
    out: Path
    """Folder to write: suspects.csv, duplicates.csv and data.html."""
    arch: str = "resnet34"
    """The pretrained network whose activations are compared. `tf_efficientnet_lite0` needs no download."""
    weights: str = "pretrained"
    """`pretrained`, a file with the network's weights, or a run, whose trained body is taken."""
    cache: Path | None = None
    """Where activations are kept, which `fit` uses too. Default: $XDG_CACHE_HOME/pawserve or ~/.cache/pawserve."""
    valid_fraction: float = 0.2
    """Part of each class held out for validation, where the data has no `valid` folder."""
    seed: int = 0
    """Decides which images are held out, and the folds."""
    json: bool = False
    """Print the figures to standard output."""
    size: Annotated[SizeLimits, tyro.conf.arg(name="")] = field(default_factory=SizeLimits)

    def __post_init__(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out is {self.out}, which is a file; give a folder")
        self.recipe()

    def recipe(self) -> Recipe:
        """A recipe that needs the activations of each image."""
        stages = {"check": Stage(learn_from="activations", views=1)}
        return Recipe(
            arch=self.arch,
            weights=self.weights,
            valid_fraction=self.valid_fraction,
            seed=self.seed,
            stages=stages,
        )


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Pack images into WebDataset shards, for object storage and many processes."""

    data: Path
    """Images: train/CLASS/* and valid/CLASS/*, or CLASS/* of which a part is held out for validation."""
    out: Path
    """Folder to write: train-*.tar, valid-*.tar and shards.json. It must not exist, or be empty."""
    shard_mb: int = 64
    """Size of a shard, in millions of bytes: 1 to 1000. Each process holds a few of them in memory."""
    url: str | None = None
    """Where the shards will be read from (https://… or http://…) where they are not beside shards.json."""
    valid_fraction: float = 0.2
    """Part of each class held out for validation, where the data has no `valid` folder."""
    seed: int = 0
    """Decides which images are held out and their order; the same seed and images make the same bytes."""
    size: Annotated[SizeLimits, tyro.conf.arg(name="")] = field(default_factory=SizeLimits)

    def __post_init__(self) -> None:
        check_range("shard-mb", self.shard_mb, 1, 1000)
        check_range("valid-fraction", self.valid_fraction, 0.01, 0.9)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw a small data set of cats and dogs; nothing is downloaded."""

    out: Path
    """Folder to write: train/cats, train/dogs, valid/cats and valid/dogs. It must not exist, or be empty."""
    per_class: int = 150
    """Training images of each class."""
    valid_per_class: int = 50
    """Validation images of each class."""
    seed: int = 0
    """The same seed draws the same images."""


@dataclass(frozen=True, kw_only=True)
class FetchPets:
    """Download the Oxford-IIIT Pet images: 7,400 cats and dogs, 800 MB."""

    out: Path
    """Folder to write: train and valid, each with cats and dogs, or with the 37 breeds."""
    breeds: bool = False
    """One class for each of the 37 breeds instead of cats and dogs."""


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
