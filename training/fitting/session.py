"""Prepares a fit: images, pretrained weights and activations."""

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from serving.image.decode import Limits
from serving.image.folders import Skipped
from training.console import progress, say
from training.data.dark import say_dark
from training.data.exclusions import Exclusions
from training.data.image_files import decodable, read_images, say_skipped
from training.data.images import ImageSet, Split
from training.data.layout import DataError, listed
from training.data.served_labels import ServedLabels
from training.data.shards import ShardImage, is_sharded, load_index
from training.distributed import ProcessGroup
from training.features.activations import Activations
from training.features.provider import ActivationProvider
from training.fitting.checkpoint import Checkpoints
from training.hardware import Hardware, choose_hardware
from training.networks.layer_groups import LayerGroup, broadcast_rates, head_group, layer_groups
from training.networks.model import Backbone, Body, Classifier, Head, count_features, describe_backbone, head_width
from training.networks.weights import check_weights, fingerprint, load_weights
from training.recipes.recipe import Recipe, Step

MAX_CLASSES = 8
"""Named in a message."""


@dataclass(frozen=True)
class FitSession:
    """The data, network and settings that all steps of a fit share."""

    recipe: Recipe
    data: Path
    """The folder of images or of shards; paths in lists are relative to it."""
    limits: Limits
    """Larger images are left out."""
    split: Split
    """The images that can be read."""
    backbone: Backbone
    classifier: Classifier
    pretrained_sha256: str
    hardware: Hardware
    processes: ProcessGroup
    cache: Path
    """Folder for activations of the pretrained body."""
    folder: Path
    """Folder of the run."""
    checkpoint_every_s: float
    skipped: list[Skipped] = field(default_factory=list)
    activations: list[Activations] = field(default_factory=list)
    """Activations for the first step, if it is trained on activations."""
    exclusions: dict[str, Any] | None = None
    """What was left out or relabelled by a person's list, for run.json."""
    labels: dict[str, Any] | None = None
    """Use of the labels from serving, for run.json."""
    views_at_once: int | None = None
    """As `ActivationProvider.max_views`; None counts them."""

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoint of this run."""
        data = self.split.fingerprint()
        return Checkpoints(self.folder, recipe=self.recipe.as_fields(), data=data, every_s=self.checkpoint_every_s)

    def provider(self, classifier: Classifier, size: int | None) -> ActivationProvider:
        """Activations of a body with its current weights; those of a trained body are kept with the run."""
        sha256 = fingerprint(classifier.body.network.state_dict())
        preprocess, max_views = self.backbone.preprocess_at(size), len(self.split.valid) * self.recipe.views
        cache = self.folder
        if sha256 == self.pretrained_sha256:
            cache, max_views = self.cache, self.views_at_once or self.most_views()
        return ActivationProvider(classifier.body, preprocess, sha256, cache, self.hardware, self.processes, max_views)

    def most_views(self) -> int:
        """The most views of the pretrained body that the recipe asks for at once."""
        stages = [stage for stage in self.recipe.stages.values() if stage.learn_from == "activations"]
        of_train = [len(self.split.train) * stage.views for stage in stages]
        return max([len(self.split.valid) * self.recipe.views, *of_train])

    def groups(self, step: Step) -> list[LayerGroup]:
        """The layer groups of a step: on activations there is only the head."""
        if step.stage.learn_from == "activations":
            return [head_group(self.classifier.head)]
        return layer_groups(self.classifier, self.recipe.groups, step.stage.freeze_to)

    def step_activations(self, step: Step) -> tuple[Activations, Activations]:
        """Activations of the training and of the validation images, for a step on activations."""
        provider = self.provider(self.classifier, step.size)
        of_train = provider.activations(self.split.train, views=step.stage.views, title="activations, training")
        return of_train, provider.activations(self.split.valid, views=1, title="activations, validation")


def set_up(
    data: Path,
    recipe: Recipe,
    cache: Path,
    *,
    limits: Limits,
    targets: Collection[Path],
    folder: Path,
    hardware: Hardware,
    processes: ProcessGroup,
    checkpoint_every_s: float,
    stage: Callable[[str], AbstractContextManager[None]],
    exclusions: Exclusions | None = None,
    labels: ServedLabels | None = None,
) -> FitSession:
    """Read images and weights, leave out what cannot be read, check the learning rates.

    Args:
        data: folder of images, or of shards.
        limits: larger images are left out.
        targets: folders that the command writes: they hold no images.
        stage: entered with the name of each part of the work, to time it.
        exclusions: images to leave out or to relabel.
        labels: labels from serving, whose images are trained on too.

    Raises:
        DataError, WeightsError, ValueError: with what to change.
    """
    data, backbone = data.resolve(), describe_backbone(recipe.arch)
    check_weights(recipe.weights)
    with stage("read images"):
        images = _read(data, limits, [target.resolve() for target in targets])
        labels_record = record = None
        all_images = images
        if exclusions is not None:  # before labels are compared with the images
            images = exclusions.apply(images, data)
        if labels is not None:
            if is_sharded(data):
                raise DataError(f"{data} holds shards, to which --labels cannot add images; give the folder of images")
            with progress("reading labelled images") as on_progress:
                images, labels_record, lines = labels.apply(images, limits, on_progress)
            say("\n  ".join([f"labels of {labels.file}, of images below {labels.root}:", *lines]))
        if exclusions is not None:
            all_images = replace(all_images, train_only=images.train_only, skipped=images.skipped)
            record = exclusions.record(all_images, data)
            images = exclusions.apply(images, data)  # labelled images, too
            say(f"by the lists given: {record['excluded']:,} images left out, {record['relabelled']:,} relabelled")
        split = images.split(valid_fraction=recipe.valid_fraction, seed=recipe.seed)
    for note in images.notes:
        say(note)
    say(
        f"{len(split.classes):,} classes, {len(split.train):,} training images, {len(split.valid):,} validation "
        f"images: {listed(split.classes, MAX_CLASSES)}"
    )
    with stage("load weights"):
        torch.manual_seed(recipe.seed)
        classifier = _classifier(backbone, recipe, len(split.classes))
        _check_rates(classifier, recipe)
        sha256 = fingerprint(classifier.body.network.state_dict())
    session = FitSession(
        recipe,
        data,
        limits,
        split,
        backbone,
        classifier,
        sha256,
        hardware,
        processes,
        cache,
        folder,
        checkpoint_every_s,
        exclusions=record,
        labels=labels_record,
    )
    with stage("activations"):
        session = _without_unreadable(session, images)
    say_skipped(session.skipped)
    if processes.first and not is_sharded(data):  # `shard` warns of what it packs
        say_dark(session.split)
    if shared := session.split.shared():
        train, valid = shared[0]
        say(
            "warning: validation images that are also training images (by SHA-256), so accuracy will be too high: "
            f"{len(shared):,}\n  {valid.path} is {train.path}"
        )
    if contradictory := session.split.contradictory():
        one, other = contradictory[0]
        say(
            "warning: images that are also in another class (by SHA-256), so one of the labels is incorrect: "
            f"{len(contradictory):,}\n  {other.path} is {one.path}"
        )
    return session


@contextmanager
def temporary_session(
    data: Path, recipe: Recipe, cache: Path, *, limits: Limits, targets: Collection[Path] = ()
) -> Iterator[FitSession]:
    """What a command works with that trains no run: one process, and a folder that is removed in the end.

    Args and errors are those of `set_up`.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield set_up(
            data,
            recipe,
            cache,
            limits=limits,
            targets=(cache, *targets),
            folder=Path(folder),
            hardware=choose_hardware(),
            processes=ProcessGroup(),
            checkpoint_every_s=0,
            stage=lambda name: nullcontext(),
        )


def _read(data: Path, limits: Limits, targets: Collection[Path]) -> ImageSet:
    if is_sharded(data):
        split = load_index(data).split()
        return ImageSet(split.classes, split.train, split.valid)
    with progress("reading images") as on_progress:
        return read_images(data, limits=limits, targets=targets, on_progress=on_progress)


def _classifier(backbone: Backbone, recipe: Recipe, classes: int) -> Classifier:
    body = Body(backbone)
    load_weights(body.network, recipe.arch, recipe.weights)
    first = backbone.preprocess_at(recipe.sizes[0] if recipe.sizes else None)
    features = count_features(body, first.crop)
    width = recipe.head_width or head_width(body, features, classes)
    return Classifier(body, Head(features, classes, recipe.dropout, width=width))


def _check_rates(classifier: Classifier, recipe: Recipe) -> None:
    """Report a wrong number of learning rates before hours of work, not after."""
    for name, stage in recipe.stages.items():
        if stage.learn_from == "images":
            try:
                broadcast_rates(stage.lr, layer_groups(classifier, recipe.groups, stage.freeze_to))
            except ValueError as error:
                raise ValueError(f"stage {name}: {error}") from error


def _without_unreadable(session: FitSession, images: ImageSet) -> FitSession:
    """Leave out what cannot be decoded, by computing the first step's activations if it needs any.

    What is held out is chosen among the images that can be decoded: if some cannot, the others are divided anew.
    """
    recipe, first = session.recipe, session.recipe.steps()[0]

    def split(unreadable: Collection[Skipped]) -> Split:
        return images.split(valid_fraction=recipe.valid_fraction, seed=recipe.seed, unreadable=unreadable)

    if first.stage.learn_from != "activations":
        if isinstance(session.split.train[0], ShardImage):
            return session  # every image was decoded before it was put into a shard
        unreadable = decodable(images.train + (images.valid or []) + images.train_only)[1]
        return replace(session, split=split(unreadable), skipped=images.skipped + unreadable)
    unreadable = []
    passes: list[tuple[Activations, Activations]] = []
    while not passes or (images.valid is None and any(each.skipped for each in passes[-1])):
        passes.append(session.step_activations(first))
        unreadable += [skipped for each in passes[-1] for skipped in each.skipped]
        session = replace(session, split=split(unreadable))
    activations = [_total(list(of_part)) for of_part in zip(*passes, strict=True)]
    computed, count = sum(each.computed for each in activations), len(session.split.train) + len(session.split.valid)
    say(f"activations: {computed:,} computed, {count - computed:,} reused from {session.cache}")
    return replace(session, skipped=images.skipped + unreadable, activations=activations)


def _total(passes: list[Activations]) -> Activations:
    """The activations of the last pass, with what was computed in all passes."""
    works = [each.work for each in passes if each.work]
    return replace(passes[-1], computed=sum(each.computed for each in passes), work=works[0] if works else None)
