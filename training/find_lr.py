"""`python -m training find-lr`: the learning-rate range test of one stage."""

import tempfile
from contextlib import nullcontext
from pathlib import Path

from serving.image.decode import Limits
from training.console import say
from training.data.images import TRAINING_LIMITS
from training.data.sources import derived_seed
from training.distributed import ProcessGroup
from training.fitting.lr_finder import LrCurve
from training.fitting.session import set_up
from training.fitting.steps import find_step_lr, groups_of, make_trainer, sources_of
from training.hardware import choose_hardware
from training.networks.layer_groups import broadcast_rates, describe_groups
from training.recipes.recipe import Recipe


def find_lr_for_stage(
    data: Path, recipe: Recipe, stage: str, cache: Path, *, limits: Limits = TRAINING_LIMITS
) -> LrCurve:
    """Run the range test as if the stage were the recipe's first.

    Raises:
        DataError, WeightsError, ValueError: with what to change.
    """
    step = next(step for step in recipe.steps() if step.name == stage)
    with tempfile.TemporaryDirectory() as folder:
        session = set_up(
            data.resolve(),
            recipe,
            cache,
            limits=limits,
            targets=(cache.resolve(),),
            folder=Path(folder),
            hardware=choose_hardware(),
            processes=ProcessGroup(),
            checkpoint_every_s=0,
            stage=lambda name: nullcontext(),
        )
        groups = groups_of(session, step)
        rates = broadcast_rates(step.stage.lr, groups, first=step.stage.freeze_to)
        say(describe_groups(groups, first=step.stage.freeze_to, rates=rates))
        train, _ = sources_of(session, step)
        trainer = make_trainer(session, step, groups)
        return find_step_lr(session, trainer, train, step, groups, derived_seed(recipe.seed))
