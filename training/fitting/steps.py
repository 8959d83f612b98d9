"""A recipe, images and a pretrained network in; the trained network out: the steps, one after another."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from training.console import progress, say
from training.data.shard_source import image_source
from training.data.sources import ActivationSource, Source, derived_seed
from training.distributed import ProcessGroup
from training.fitting.checkpoint import FitState, StepResult
from training.fitting.loop import EpochResult, Hooks, fit_stage
from training.fitting.lr_finder import RECIPE, LrCurve, find_lr
from training.fitting.session import FitSession, labels_of
from training.fitting.snapshots import average_snapshots, save_snapshot
from training.fitting.trainer import Trainer
from training.hardware import threads
from training.networks.layer_groups import (
    LayerGroup,
    broadcast_rates,
    describe_groups,
    group_rows,
    head_group,
    layer_groups,
)
from training.networks.model import Network, network_like
from training.recipes.recipe import Recipe, Step

FINDER = 1_000_000
"""A part of the seed that no epoch has."""


@dataclass(frozen=True)
class StepTrace:
    """What the plots show of a step: its groups and rates."""

    step: Step
    rates: list[float]
    """Highest, one for each group that learns."""
    rows: int
    """Rows that an epoch learns from."""
    groups: list[tuple[str, str, str, str, str]]
    """The table of layer groups."""


@dataclass
class FitResult:
    """What the steps came to."""

    network: Network
    reached: FitState
    tracks: list[StepTrace] = field(default_factory=list)


def run_steps(setting: FitSession, reached: FitState, record: Callable[[EpochResult], None]) -> FitResult:
    """Run the steps that a checkpoint has not.

    Raises:
        TrainingError, DataError, ValueError: with what to change.
    """
    steps = setting.recipe.steps()
    fitted = FitResult(setting.classifier, reached)
    if reached.network:
        if reached.step == len(steps):
            fitted.network = network_like(setting.backbone, reached.network)
        fitted.network.load_state_dict(reached.network)
    for index, step in enumerate(steps):
        if index >= reached.step:
            say(f"step {index + 1} of {len(steps)}, {step.name}")
        _run_step(setting, fitted, index, step, record)
    return fitted


def _run_step(
    setting: FitSession, fitted: FitResult, index: int, step: Step, record: Callable[[EpochResult], None]
) -> None:
    recipe, stage, reached = setting.recipe, step.stage, fitted.reached
    on_images = stage.learn_from == "photos"
    classifier = setting.classifier
    groups = groups_of(setting, step)
    rates = broadcast_rates(stage.lr, groups, first=stage.freeze_to)
    curve = next((curve for curve in reached.curves if curve.name == step.name), None)
    seed = derived_seed(recipe.seed, index)
    rows = len(setting.split.train) * stage.views

    def rates_by(found: LrCurve | None) -> list[float]:
        if stage.find_lr != "use" or found is None:
            return rates
        return [found.suggestions()[RECIPE] * rate / rates[-1] for rate in rates]

    def track() -> StepTrace:
        highest = rates_by(curve)
        return StepTrace(step, highest, rows, group_rows(groups, first=stage.freeze_to, rates=highest))

    if index < reached.step:
        fitted.tracks.append(track())
        return
    trainer = make_trainer(setting, step, groups)
    if reached.trainer:
        trainer.load_state(reached.trainer)
    train, valid = sources_of(setting, step)
    if stage.find_lr != "no" and curve is None:
        curve = find_rate(trainer, train, step, rates, recipe, derived_seed(recipe.seed, index, FINDER))
        reached.curves.append(curve)
    fitted.tracks.append(track())
    say(describe_groups(groups, first=stage.freeze_to, rates=rates_by(curve)))
    before = sum(earlier.stage.epochs for earlier in recipe.steps()[:index])
    last = index == len(recipe.steps()) - 1
    cycle_ended: list[int] = []
    newest: list[Tensor] = []
    labels_N = labels_of(setting.split.valid)

    def on_cycle(cycle: int) -> None:
        cycle_ended.append(cycle)
        if last and recipe.average != "none" and setting.processes.first:
            save_snapshot(setting.folder, cycle, trainer.network.state_dict())

    def on_epoch(done: int, result: EpochResult, logits: Tensor) -> None:
        newest[:] = [logits]
        reached.history.append(result)
        reached.epoch = done
        if cycle_ended and last and recipe.average != "none":
            name = f"snapshot of cycle {cycle_ended.pop() + 1}"
            reached.snapshots.append(StepResult.of(name, step.size, logits, labels_N, result.seconds))
        cycle_ended.clear()
        if setting.processes.first:
            record(result)
            if setting.checkpoints.due and done < stage.epochs:
                _save(setting, reached, classifier, trainer)
        say(
            f"epoch {result.epoch} of {recipe.epochs}: loss {result.train_loss:.4f} in training, "
            f"{result.valid_loss:.4f} in validation; accuracy {100 * result.valid_accuracy:.2f}%; "
            f"{result.rate:,.0f} images/s, {result.seconds:.2f} s"
        )

    with progress(step.name) as on_progress, threads(None if on_images else 1):

        def on_batch(done: int, count: int) -> None:
            on_progress(reached.epoch * count + done, stage.epochs * count)

        fit_stage(
            trainer,
            stage,
            name=step.name,
            train=train,
            valid=valid,
            rates=rates_by(curve),
            batch_size=recipe.batch_size,
            seed=seed,
            done=reached.epoch,
            before=before,
            hooks=Hooks(on_batch, on_cycle, on_epoch, time.monotonic),
        )
    seconds = sum(result.seconds for result in reached.history if result.stage == step.name)
    if last and recipe.average != "none":
        reached.results += reached.snapshots
        setting.processes.wait()
        fitted.network, logits = average_snapshots(
            recipe.average,
            setting.folder,
            stage.cycles,
            trainer=trainer,
            classifier=classifier,
            train=train,
            valid=valid,
            batch_size=recipe.batch_size,
            seed=derived_seed(recipe.seed, index, FINDER + 1),
        )
        title = f"mean {recipe.average} of {stage.cycles} snapshots"
        reached.results.append(StepResult.of(title, step.size, logits, labels_N, seconds))
    else:
        reached.results.append(StepResult.of(step.name, step.size, newest[0], labels_N, seconds))
    reached.step, reached.epoch, reached.trainer = index + 1, 0, {}
    if setting.processes.first and (on_images or setting.checkpoints.due):
        _save(setting, reached, fitted.network, None)
    setting.processes.wait()


def groups_of(setting: FitSession, step: Step) -> list[LayerGroup]:
    """The layer groups that a step knows: on activations there is only the head."""
    if step.stage.learn_from == "activations":
        return [head_group(setting.classifier.head)]
    return layer_groups(setting.classifier, setting.recipe.groups)


def make_trainer(setting: FitSession, step: Step, groups: Sequence[LayerGroup]) -> Trainer:
    """What trains a step: the head alone on activations, otherwise the whole classifier."""
    recipe, on_images = setting.recipe, step.stage.learn_from == "photos"
    return Trainer(
        setting.classifier if on_images else setting.classifier.head,
        groups,
        first=step.stage.freeze_to,
        momentum=recipe.momentum,
        weight_decay=0.0 if step.stage.decoupled_decay else step.stage.weight_decay,
        freeze_bn=recipe.freeze_bn,
        # The head on activations takes seconds: every process trains the same one, on all rows, in float32.
        hardware=setting.hardware if on_images else setting.hardware.exact(),
        processes=setting.processes if on_images else ProcessGroup(),
        compiled=recipe.compile and on_images,
    )


def sources_of(setting: FitSession, step: Step) -> tuple[Source, Source]:
    split, stage = setting.split, step.stage
    lookup = setting.lookup(setting.classifier, step.size)
    if stage.learn_from == "photos":
        train = image_source(split.train, lookup.preprocess, stage.augment, setting.hardware)
        return train, image_source(split.valid, lookup.preprocess, "none", setting.hardware)
    of_train = lookup.activations(split.train, views=stage.views, title="activations, training")
    of_valid = lookup.activations(split.valid, views=1, title="activations, validation")
    return ActivationSource(of_train), ActivationSource(of_valid)


def find_rate(
    trainer: Trainer, train: Source, step: Step, rates: Sequence[float], recipe: Recipe, seed: int
) -> LrCurve:
    """Run the range test for a step, and say what it suggests."""
    with progress(f"{step.name}, finding a rate", "steps") as on_progress:
        curve = find_lr(
            trainer,
            train,
            name=step.name,
            ratios=[rate / rates[-1] for rate in rates],
            batch_size=recipe.batch_size,
            seed=seed,
            on_step=on_progress,
        )
    rules = ", ".join(f"{rule} {rate:.2g}" for rule, rate in curve.suggestions().items())
    say(f"rates suggested for {step.name}: {rules}; its own is {rates[-1]:g}")
    return curve


def _save(setting: FitSession, reached: FitState, network: Network, trainer: Trainer | None) -> None:
    reached.network = network.state_dict()
    state = trainer.state() if trainer else {}
    reached.trainer = {name: value for name, value in state.items() if name != "network"}
    setting.checkpoints.save(reached)
