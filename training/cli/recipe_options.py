"""The options of the commands that follow a recipe: fit and find-lr. Nothing here loads torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from training.recipes.recipe import Recipe
from training.recipes.stage import RANGES, check_range
from training.tracking.tracker import TrackerName

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
            check_range("--epochs", given["epochs"], *RANGES["cycle_len"])
            given |= {"cycles": 1, "cycle_len": given.pop("epochs"), "cycle_mult": 1}
        if "lr" in given:
            given["lr"] = (given["lr"],)
        if "train_views" in given:
            check_range("--train-views", given["train_views"], *RANGES["views"])
            given["views"] = given.pop("train_views")
        return replace(recipe, stages=recipe.stages | {name: replace(stage, **given)})


@dataclass(frozen=True, kw_only=True)
class SizeLimits:
    """The largest images that are read."""

    max_image_mib: int = 256
    """Larger files are left out, in MiB: 1 to 2000."""
    max_pixels: int = 200_000_000
    """Images with more pixels are left out: 1 to 10^9. Large ones are decoded one at a time."""

    def __post_init__(self) -> None:
        check_range("--max-image-mib", self.max_image_mib, 1, 2000)
        check_range("--max-pixels", self.max_pixels, 1, 10**9)

    def limits(self) -> "Limits":
        """The limits for the decoder."""
        from serving.image.decode import OWN_IMAGE_LIMITS  # loads NumPy and Pillow, which the help does without

        return replace(OWN_IMAGE_LIMITS, max_bytes=self.max_image_mib * 2**20, max_pixels=self.max_pixels)


def weights_input(weights: str) -> list[tuple[str, Path]]:
    """The option of the weights with their path, if they are a file or a run."""
    return [] if weights in ("pretrained", "none") else [("--weights", Path(weights).expanduser())]


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

    def inputs(self) -> Iterator[tuple[str, Path]]:
        """What is read: option and path."""
        yield "--data", self.data
        yield from weights_input(self.settings.weights)


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
    log: tuple[TrackerName, ...] = ("tensorboard",)
    """Where to keep parameters, metrics by epoch, the report and the model: `tensorboard` (files in the run), `mlflow`
    (MLFLOW_TRACKING_URI), `wandb` (WANDB_MODE=offline for local files); several may be given. One that fails does not
    end the fit."""
    check: bool = True
    """Check the data: label suspects, near duplicates, and images that stand out."""
    first: Annotated[FirstStage, tyro.conf.arg(name="")] = field(default_factory=FirstStage)

    def __post_init__(self) -> None:
        check_range("--checkpoint-every", self.checkpoint_every, 0, 86_400)
        if (self.labels is None) != (self.images is None):
            given, missing = ("--labels", "--images") if self.images is None else ("--images", "--labels")
            raise ValueError(f"{given} is given without {missing}; give both: --labels labels.csv --images FOLDER")
        self.resolved_recipe()

    def inputs(self) -> Iterator[tuple[str, Path]]:
        """What is read: option and path."""
        yield from super().inputs()
        yield from (("--exclude", path) for path in self.exclude)
        if self.labels and self.images:
            yield from (("--labels", self.labels), ("--images", self.images))

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
        if self.plot.suffix.lower() != ".png" or self.plot.is_dir() or not self.plot.parent.is_dir():
            raise ValueError(f"--plot is {self.plot}; give a .png file in a folder that exists")
