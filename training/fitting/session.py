"""A folder of images and a recipe in; everything that the steps of a fit work with out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.console import progress, say
from training.data.images import LabelledImage, Skipped, Split, read_split, shared_images
from training.data.shards import index_of, is_sharded, load_index
from training.distributed import ProcessGroup
from training.features.activations import Activations
from training.features.lookup import ActivationProvider, readable, resized
from training.fitting.checkpoint import Checkpoints
from training.hardware import Hardware
from training.networks.layer_groups import broadcast_rates, layer_groups
from training.networks.model import Backbone, Body, Classifier, Head, count_features, describe_backbone, head_width
from training.networks.weights import fingerprint, load_weights
from training.recipes.recipe import Recipe


@dataclass(frozen=True)
class FitSession:
    """What every step of a fit works with."""

    recipe: Recipe
    split: Split
    """Of images that can be read."""
    backbone: Backbone
    classifier: Classifier
    hardware: Hardware
    processes: ProcessGroup
    cache: Path
    """For activations of the pretrained body."""
    folder: Path
    """For everything that belongs to this run."""
    pretrained_sha256: str
    checkpoints: Checkpoints

    def lookup(self, classifier: Classifier, size: int | None) -> ActivationProvider:
        """Activations of a body as it is now; those of a body that was trained are kept with the run."""
        sha256 = fingerprint(classifier.body.network.state_dict())
        cache = self.cache if sha256 == self.pretrained_sha256 else self.folder
        preprocess = resized(self.backbone.preprocess, size)
        return ActivationProvider(classifier.body, preprocess, sha256, cache, self.hardware, self.processes)


def set_up(
    data: Path,
    recipe: Recipe,
    cache: Path,
    *,
    folder: Path,
    hardware: Hardware,
    processes: ProcessGroup,
    checkpoint_every_s: float,
    stage: Callable[[str], AbstractContextManager[None]],
) -> tuple[FitSession, list[Skipped], list[Activations]]:
    """Read images and weights, leave out what cannot be read, check the rates.

    Args:
        stage: entered by the name of each part of the work, to time it.

    Returns:
        The setting, the files left out, and the activations that were looked up or computed.

    Raises:
        DataError, WeightsError, ValueError: with what to change.
    """
    with stage("read images"):
        split, skipped = _read(data, recipe)
    say(
        f"{len(split.classes):,} classes, {len(split.train):,} images to train on, {len(split.valid):,} to validate "
        f"on: {shortened(split.classes)}"
    )
    with stage("load weights"):
        torch.manual_seed(recipe.seed)
        backbone = describe_backbone(recipe.arch)
        classifier = _classifier(backbone, recipe, len(split.classes))
        pretrained_sha256 = fingerprint(classifier.body.network.state_dict())
        _check_rates(classifier, recipe)
    with stage("activations"):
        split, unreadable, activations = _screen(
            split, recipe, classifier, backbone, pretrained_sha256, cache, hardware, processes
        )
    say_skipped(skipped + unreadable)
    _say_shared(split)
    checkpoints = Checkpoints(folder, recipe=recipe.as_fields(), data=split.fingerprint(), every_s=checkpoint_every_s)
    setting = FitSession(
        recipe, split, backbone, classifier, hardware, processes, cache, folder, pretrained_sha256, checkpoints
    )
    return setting, skipped + unreadable, activations


def labels_of(images: Sequence[LabelledImage]) -> NDArray[np.int64]:
    """Class indices int64 `[len(images)]`."""
    return np.array([image.label for image in images], np.int64)


def shortened(classes: Sequence[str]) -> str:
    """The first eight classes, and how many more there are."""
    return ", ".join(classes[:8]) + (f" and {len(classes) - 8:,} more" if len(classes) > 8 else "")


def _read(data: Path, recipe: Recipe) -> tuple[Split, list[Skipped]]:
    if is_sharded(data):
        split = load_index(data).split()
        split.check()
        return split, []
    with progress("reading images") as on_progress:
        return read_split(data, valid_fraction=recipe.valid_fraction, seed=recipe.seed, on_progress=on_progress)


def _classifier(backbone: Backbone, recipe: Recipe, classes: int) -> Classifier:
    body = Body(backbone)
    load_weights(body.network, recipe.arch, recipe.weights)
    first = resized(backbone.preprocess, recipe.sizes[0] if recipe.sizes else None)
    features = count_features(body, first.crop)
    width = recipe.head_width or head_width(body, features, classes)
    return Classifier(body, Head(features, classes, recipe.dropout, width=width))


def _check_rates(classifier: Classifier, recipe: Recipe) -> None:
    """A wrong number of rates is found before hours of work, not after."""
    for name, stage in recipe.stages.items():
        if stage.learn_from == "photos":
            try:
                broadcast_rates(stage.lr, layer_groups(classifier, recipe.groups), first=stage.freeze_to)
            except ValueError as error:
                raise ValueError(f"stage {name}: {error}") from error


def _screen(
    split: Split,
    recipe: Recipe,
    classifier: Classifier,
    backbone: Backbone,
    pretrained_sha256: str,
    cache: Path,
    hardware: Hardware,
    processes: ProcessGroup,
) -> tuple[Split, list[Skipped], list[Activations]]:
    """Leave out what cannot be decoded, by computing the first step's activations if it wants any.

    Returns:
        The split that is left, what is left out, and the activations.
    """
    first = recipe.steps()[0]
    if first.stage.learn_from == "photos" and index_of(split.train[0]):
        return split, [], []  # every image was decoded before it was put into a shard
    if first.stage.learn_from == "photos":
        (train, bad_train), (valid, bad_valid) = readable(split.train), readable(split.valid)
        left = Split(split.classes, train, valid)
        left.check()
        return left, bad_train + bad_valid, []
    preprocess = resized(backbone.preprocess, first.size)
    lookup = ActivationProvider(classifier.body, preprocess, pretrained_sha256, cache, hardware, processes)

    of_train = lookup.activations(split.train, views=first.stage.views, title="activations, training")
    of_valid = lookup.activations(split.valid, views=1, title="activations, validation")
    left = Split(split.classes, of_train.images, of_valid.images)
    left.check()
    computed = of_train.computed + of_valid.computed
    say(f"activations: {computed:,} computed, {len(left.train) + len(left.valid) - computed:,} reused from {cache}")
    return left, of_train.skipped + of_valid.skipped, [of_train, of_valid]


def say_skipped(skipped: Sequence[Skipped]) -> None:
    """Name the files that are left out, the first ten of them with the reason."""
    if skipped:
        many = f"{len(skipped):,} files that cannot be read as images are"
        say(f"{many if len(skipped) > 1 else '1 file that cannot be read as an image is'} left out:")
        for file in skipped[:10]:
            say(f"  {file.path}: {file.reason}")


def _say_shared(split: Split) -> None:
    if shared := shared_images(split):
        say(
            f"{len(shared):,} validation images are also among the training images (by SHA-256), so accuracy will look "
            f"too good: {shared[0][1].path} is {shared[0][0].path}"
        )
