"""Runs the steps of a recipe, one after another, from a pretrained network to a trained one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

from serving.system.memory import all_freed_memory_kept
from training.console import progress, say
from training.data.image_files import say_skipped
from training.data.images import labels_of
from training.data.shard_source import image_source
from training.data.sources import Source, derived_seed
from training.distributed import ProcessGroup
from training.features.activations import ActivationSource
from training.fitting.checkpoint import FitState, StepResult
from training.fitting.loop import EpochResult, train_epochs
from training.fitting.lr_finder import RECIPE, LrCurve, find_lr
from training.fitting.session import FitSession
from training.fitting.snapshots import average_snapshots, interpolated, save_snapshot
from training.fitting.trainer import Trainer, balanced_weights
from training.hardware import threads
from training.networks.layer_groups import broadcast_rates, describe_groups, group_rows
from training.networks.model import Network, network_like
from training.recipes.recipe import Step

FINDER = 1_000_000
"""A part of the seed that no epoch has."""


@dataclass(frozen=True)
class StepTrace:
    """What the report shows of a step: its layer groups and learning rates."""

    step: Step
    rates: list[float]
    """Highest learning rate of each group that is trained."""
    rows: int
    """Rows in an epoch."""
    groups: list[tuple[str, str, str, str, str]]
    """The table of layer groups."""


@dataclass
class FitResult:
    """The trained network and how it came about."""

    network: Network
    state: FitState
    traces: list[StepTrace] = field(default_factory=list)


def run_steps(session: FitSession, state: FitState, record: Callable[[EpochResult], None]) -> FitResult:
    """Run the steps that a checkpoint has not.

    Raises:
        TrainingError, DataError, ValueError: with what to change.
    """
    steps = session.recipe.steps()
    parts = [trial.part for trial in state.trials] or [1.0] * len(steps)
    epochs = sum(step.stage.epochs for step, part in zip(steps, parts, strict=True) if part)
    result = FitResult(session.classifier, state)
    if state.network:
        if state.step == len(steps):
            result.network = network_like(session.backbone, state.network)
        result.network.load_state_dict(state.network)
    for index, (step, part) in enumerate(zip(steps, parts, strict=True)):
        if not part:
            continue
        if index >= state.step:
            say(f"step {index + 1} of {len(steps)}, {step.name}")
            result.network = run_step(session, state, index, record, epochs=epochs, part=part)
        result.traces.append(_trace(session, state, step))
    return result


def run_step(
    session: FitSession,
    state: FitState,
    index: int,
    record: Callable[[EpochResult], None],
    *,
    epochs: int,
    part: float = 1.0,
    measured_on: str = "validation",
) -> Network:
    """Run one step, or what a checkpoint has not of it, and measure it on the validation images.

    Args:
        epochs: of all steps that are run, for messages.
        part: of the step's change of the weights that is kept; with an ensemble, 1.
        measured_on: what the validation images of the session are, for messages.
    """
    recipe, steps = session.recipe, session.recipe.steps()
    step, stage = steps[index], steps[index].stage
    averaged = index == len(steps) - 1 and recipe.average != "none"
    trainer = make_trainer(session, step)
    if state.trainer:
        trainer.load_state(state.trainer)
    elif part < 1:
        state.before = copy.deepcopy(session.classifier.state_dict())
    train, valid = sources_of(session, step)
    if stage.find_lr != "no" and _curve_of(state, step) is None:
        seed = derived_seed(recipe.seed, index, FINDER)
        state.curves.append(find_step_lr(session, trainer, train, step, seed))
    rates = _trace(session, state, step).rates
    if measured_on == "validation":  # once is enough
        say(describe_groups(trainer.groups, rates))
    labels_N = valid.labels()
    on_images = stage.learn_from == "images"
    computing = all_freed_memory_kept() if on_images else threads(1)
    with progress(step.name) as on_progress, computing:
        for epoch in train_epochs(
            trainer,
            stage,
            name=step.name,
            train=train,
            valid=valid,
            rates=rates,
            batch_size=recipe.batch_size,
            seed=derived_seed(recipe.seed, index),
            done=state.epoch,
            before=len(state.history) - state.epoch,
            on_batch=on_progress,
        ):
            result, logits = epoch.result, epoch.logits
            state.history.append(result)
            state.epoch += 1
            if averaged and epoch.ended_cycle is not None:
                if session.processes.first:
                    save_snapshot(session.folder, epoch.ended_cycle, trainer.network.state_dict())
                name = f"snapshot of cycle {epoch.ended_cycle + 1}"
                state.snapshots.append(StepResult.of(name, step.size, logits, labels_N, result.seconds))
            if session.processes.first:
                record(result)
                if session.checkpoints.due and state.epoch < stage.epochs:
                    _save(session, state, session.classifier, trainer)
            say(
                f"epoch {result.epoch} of {epochs}: training loss {result.train_loss:.4f}, {measured_on} loss "
                f"{result.valid_loss:.4f}, accuracy {100 * result.valid_accuracy:.2f}%; {result.rate:,.0f} images/s, "
                f"{result.seconds:.2f} s"
            )
    seconds = sum(result.seconds for result in state.history if result.stage == step.name)
    name, network = step.name, cast(Network, session.classifier)
    if averaged:
        state.results += state.snapshots
        session.processes.wait()
        seed = derived_seed(recipe.seed, index, FINDER + 1)
        network, logits = average_snapshots(session, trainer, stage.cycles, train=train, valid=valid, seed=seed)
        name = f"mean {recipe.average} of {stage.cycles} snapshots"
    if part < 1:
        network.load_state_dict(interpolated(state.before, network.state_dict(), part))
        logits = trainer.predict(valid)
    state.results.append(replace(StepResult.of(name, step.size, logits, labels_N, seconds), part=part))
    state.step, state.epoch, state.trainer, state.before = index + 1, 0, {}, {}
    if session.processes.first and (on_images or session.checkpoints.due):
        _save(session, state, network, None)
    session.processes.wait()
    return network


def _trace(session: FitSession, state: FitState, step: Step) -> StepTrace:
    stage, groups = step.stage, session.groups(step)
    rates = broadcast_rates(stage.lr, groups)
    curve = _curve_of(state, step)
    if stage.find_lr == "use" and curve is not None:
        rates = curve.applied(rates)
    rows = len(session.split.train) * stage.views
    return StepTrace(step, rates, rows, group_rows(groups, rates))


def _curve_of(state: FitState, step: Step) -> LrCurve | None:
    return next((curve for curve in state.curves if curve.name == step.name), None)


def make_trainer(session: FitSession, step: Step) -> Trainer:
    """The trainer of a step: of the head alone on activations, otherwise of the whole classifier."""
    recipe, on_images = session.recipe, step.stage.learn_from == "images"
    weights = None
    if recipe.class_weights == "balanced":
        weights = balanced_weights(labels_of(session.split.train), len(session.split.classes))
    return Trainer(
        session.classifier if on_images else session.classifier.head,
        session.groups(step),
        momentum=recipe.momentum,
        weight_decay=0.0 if step.stage.decoupled_decay else step.stage.weight_decay,
        freeze_bn=recipe.freeze_bn,
        # The head on activations takes seconds: every process trains the same one, on all rows, in float32.
        hardware=session.hardware if on_images else replace(session.hardware, autocast=None),
        processes=session.processes if on_images else ProcessGroup(),
        compiled=recipe.compile and on_images,
        class_weights=weights,
    )


def sources_of(session: FitSession, step: Step) -> tuple[Source, Source]:
    """The training and the validation rows of a step."""
    if step.stage.learn_from == "activations":
        of_train, of_valid = session.step_activations(step)
        say_skipped([*of_train.skipped, *of_valid.skipped])
        return ActivationSource(of_train), ActivationSource(of_valid)
    split, preprocess = session.split, session.backbone.preprocess_at(step.size)
    train = image_source(split.train, preprocess, step.stage.augment, session.hardware)
    return train, image_source(split.valid, preprocess, "none", session.hardware)


def find_step_lr(session: FitSession, trainer: Trainer, train: Source, step: Step, seed: int) -> LrCurve:
    """Run the range test for a step and report its suggestions."""
    rates = broadcast_rates(step.stage.lr, trainer.groups)
    with progress(f"{step.name}, learning-rate range test", "steps") as on_progress, all_freed_memory_kept():
        curve = find_lr(
            trainer,
            train,
            name=step.name,
            ratios=[rate / rates[-1] for rate in rates],
            batch_size=session.recipe.batch_size,
            seed=seed,
            on_step=on_progress,
        )
    rate, why = curve.recommendation()
    others = ", ".join(f"{rule} {lr:.2g}" for rule, lr in curve.suggestions().items() if rate is None or rule != RECIPE)
    recommended = "no recommendation" if rate is None else f"recommended {rate:.2g}"
    used = f"; used: {curve.applied(rates)[-1]:.2g}" if step.stage.find_lr == "use" else ""
    say(
        f"learning rate for {step.name}: {recommended}: {why}; other rules: {others}; the recipe's is "
        f"{rates[-1]:g}{used}"
    )
    return curve


def _save(session: FitSession, state: FitState, network: Network, trainer: Trainer | None) -> None:
    state.network = network.state_dict()
    state.trainer = trainer.state() if trainer else {}
    state.trainer.pop("network", None)
    session.checkpoints.save(state)
