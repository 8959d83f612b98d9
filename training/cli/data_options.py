"""The options of the commands on runs and data sets. Nothing here loads torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from training.cli.recipe_options import SizeLimits, weights_input
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage, check_range


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
        check_range("--views", self.views, 1, 64)
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out is {self.out}, which is a file; give a folder")

    def inputs(self) -> Iterator[tuple[str, Path]]:
        """What is read: option and path."""
        yield from (("--run", self.run), ("--data", self.data))


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare finished runs on the validation images that they share."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN …", help_behavior_hint="")]
    """Runs that `fit` wrote, two or more. Each is compared with the first."""
    out: Path = Path("comparison.html")
    """The page to write: curves, classes, images that changed, settings that differ."""
    json: bool = False
    """Print the figures as JSON to standard output, instead of tables."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise ValueError(f"{len(self.runs)} run is given; give two or more: compare runs/a runs/b")
        if self.out.is_dir() or not self.out.parent.is_dir():
            raise ValueError(f"--out is {self.out}; give an HTML file in a folder that exists")

    def inputs(self) -> Iterator[tuple[str, Path]]:
        """What is read: option and path."""
        yield from (("run", run) for run in self.runs)


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

    def inputs(self) -> Iterator[tuple[str, Path]]:
        """What is read: option and path."""
        yield from (("--data", self.data), *weights_input(self.weights))

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
        check_range("--shard-mb", self.shard_mb, 1, 1000)
        check_range("--valid-fraction", self.valid_fraction, 0.01, 0.9)

    def inputs(self) -> Iterator[tuple[str, Path]]:
        """What is read: option and path."""
        yield "--data", self.data


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
