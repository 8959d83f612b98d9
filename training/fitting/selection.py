"""Tries the steps of a recipe on halves of the training images, to keep only those that improve on the step before.

Each half is trained on and measured on the other half, as it is and shifted (`training.data.shifts`). So every training
image is held out once, and the validation images decide nothing. Between a step and the one before, several mixtures of
their weights are measured (WiSE-FT, Wortsman et al. 2022).
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch

from serving.system.files import write_atomically
from training.console import progress, say
from training.data.images import LabelledImage, Split, labels_of
from training.data.layout import listed
from training.data.sources import derived_seed
from training.evaluation.trials import HeldOut, Trial, judge
from training.fitting.checkpoint import FitState
from training.fitting.held_out import HeldOutImages
from training.fitting.session import FitSession
from training.fitting.snapshots import State, interpolated
from training.fitting.steps import run_step
from training.networks.model import network_like
from training.recipes.recipe import Step

PARTS = (0.5, 1.0)
"""Of a step's change of the weights, that are measured."""
MAX_HELD_OUT = 5_000
"""Images of a half that are measured on: more would not change a choice."""
MAX_REPORTED = 200
"""Of them, those that the loss after each epoch is reported of, which decides nothing."""
HALVES = "halves"
SPLIT = 1_000_001
"""A part of the seed that no step has."""


def try_steps(session: FitSession, state: FitState) -> None:
    """Measure the steps that a checkpoint has not, if the recipe asks for it; adds to `state.trials`.

    Raises:
        TrainingError, DataError, ValueError: with what to change.
    """
    recipe, steps = session.recipe, session.recipe.steps()
    if recipe.keep == "last" or len(steps) == 1 or len(state.trials) == len(steps):
        return
    splits = session.split.halves(derived_seed(recipe.seed, SPLIT))
    _check(splits)
    halves = [_Half(session, number, split) for number, split in enumerate(splits, 1)]
    if session.processes.first:
        session.checkpoints.save(state)  # what the halves keep is then kept, too, if the fit is interrupted
    for index, step in enumerate(steps):
        if index < len(state.trials):
            continue
        state.trials.append(_try_step(halves, index, step, len(steps), state.trials))
        say(state.trials[-1].describe())
        if session.processes.first:
            session.checkpoints.save(state)
        session.processes.wait()
    kept = [trial.name for trial in state.trials if trial.part]
    if len(kept) == 1:
        say(f"on held-out training images, no step improves on {kept[0]}: it is the only one that is run")
    elif len(kept) < len(steps):
        say(f"on held-out training images, these steps improve on those before, and are run: {', '.join(kept)}")
    if recipe.average != "none" and not state.trials[-1].part:
        say(f"the last step is left out, so no {recipe.average} are averaged")


def _try_step(halves: Sequence["_Half"], index: int, step: Step, count: int, trials: Sequence[Trial]) -> Trial:
    """Train a step on each half and measure it on the other; if it is far worse on the first, that is enough."""
    began = time.monotonic()
    found: list[dict[float, HeldOut]] = []
    for half in halves:
        say(f"trying step {index + 1} of {count}, {step.name}, on half {half.number} of the training images")
        half.train(index, trials)
        found.append(half.measure(index, step, trials))
        trial = judge(step.name, step.size, _joined(found), time.monotonic() - began)
        if trial.hopeless:
            break
    return trial


class _Half:
    """The steps, trained on one half of the training images and measured on the other."""

    def __init__(self, session: FitSession, number: int, split: Split) -> None:
        recipe = session.recipe
        # a range test that decides nothing is shown once, in the fit itself
        stages = {
            name: replace(stage, find_lr="no") if stage.find_lr == "show" else stage
            for name, stage in recipe.stages.items()
        }
        self.number = number
        self.session = replace(
            session,
            recipe=replace(recipe, stages=stages),
            split=replace(split, valid=_thinned(split.valid, MAX_REPORTED)),
            classifier=copy.deepcopy(session.classifier),
            folder=session.folder / HALVES / str(number),
            views_at_once=session.most_views(),
        )
        self.session.folder.mkdir(parents=True, exist_ok=True)
        self._held_out = HeldOutImages(self.session, _thinned(split.valid, MAX_HELD_OUT))
        self._measured: tuple[int, int | None, dict[float, HeldOut]] | None = None
        """Of the last step that was measured: its index, size and logits by part. Later ones are left out."""

    def train(self, index: int, trials: Sequence[Trial]) -> None:
        """Run a step from what is kept of the steps before; what an interrupted fit has done is not done again."""
        session, path = self.session, self._after(index)
        if path.exists():
            return
        state = session.checkpoints.load(session.hardware.device)
        if state.step == index and state.epoch:
            session.classifier.load_state_dict(state.network)
        else:
            state = FitState(step=index)
            if index:
                session.classifier.load_state_dict(self.kept(trials))
        epochs = session.recipe.steps()[index].stage.epochs
        network = run_step(session, state, index, lambda result: None, epochs=epochs, measured_on="held-out")
        if session.processes.first:
            tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
            write_atomically(path, safetensors.torch.save(tensors))
        session.processes.wait()

    def kept(self, trials: Sequence[Trial]) -> State:
        """The network after the steps that were tried."""
        kept = self.after(0)
        for index, trial in enumerate(trials[1:], 1):
            if trial.part:
                kept = interpolated(kept, self.after(index), trial.part)
        return kept

    def after(self, index: int) -> State:
        """The network as the step has trained it."""
        return safetensors.torch.load_file(self._after(index))

    def measure(self, index: int, step: Step, trials: Sequence[Trial]) -> dict[float, HeldOut]:
        """Logits of the other half, by the part of the step's change of the weights."""
        kept, after = self.kept(trials) if index else {}, self.after(index)
        parts: Sequence[float] = [1.0]
        if index:
            ensemble = any("members" in name.split(".") for name in after)
            parts = [0.0, 1.0] if ensemble else [0.0, *PARTS]
        known = {}
        if self._measured is not None:
            last, size, logits = self._measured
            known = {0.0: logits[trials[last].part]} if size == step.size else {}
        found = {}
        with progress(f"{step.name}, measuring on held-out images", "networks") as on_progress:
            for done, part in enumerate(parts, 1):
                if part in known:
                    found[part] = known[part]
                else:
                    state = interpolated(kept, after, part)
                    network = network_like(self.session.backbone, state)
                    network.load_state_dict(state)
                    found[part] = self._held_out.measure(network, step.size)
                on_progress(done, len(parts))
        self._measured = index, step.size, found
        return found

    def _after(self, index: int) -> Path:
        return self.session.folder / f"after-{index + 1}.safetensors"


def _joined(found: Sequence[Mapping[float, HeldOut]]) -> dict[float, HeldOut]:
    """Both halves as one."""
    return {
        part: HeldOut(
            np.concatenate([each[part].clean_NK for each in found]),
            np.concatenate([each[part].shifted_NK for each in found]),
            np.concatenate([each[part].labels_N for each in found]),
        )
        for part in found[0]
    }


def _thinned(images: list[LabelledImage], most: int) -> list[LabelledImage]:
    """At most so many of the images, evenly spaced: of each class its part."""
    return images[:: 1 + (len(images) - 1) // most]


def _check(halves: Sequence[Split]) -> None:
    """Raise ValueError unless each class is in each half."""
    classes = halves[0].classes
    lacking = {name for half in halves for label, name in enumerate(classes) if label not in labels_of(half.train)}
    if lacking:
        raise ValueError(
            f"keep is 'best', which trains on one half of the training images and measures on the other, and these "
            f"classes have a single training image, not counting copies: {listed(lacking)}. Add images, or use "
            "--keep last, which runs all steps without comparing them"
        )
