"""`python -m training find-lr`: the learning-rate range test of one stage."""

from pathlib import Path

from serving.image.decode import Limits
from training.console import say
from training.data.sources import derived_seed
from training.fitting.lr_finder import LrCurve
from training.fitting.session import temporary_session
from training.fitting.steps import find_step_lr, make_trainer, sources_of
from training.networks.layer_groups import broadcast_rates, describe_groups
from training.recipes.recipe import Recipe


def find_lr_for_stage(data: Path, recipe: Recipe, stage: str, cache: Path, *, limits: Limits) -> LrCurve:
    """Run the range test as if the stage were the recipe's first.

    Raises:
        DataError, WeightsError, ValueError: with what to change.
    """
    step = next(step for step in recipe.steps() if step.name == stage)
    with temporary_session(data, recipe, cache, limits=limits) as session:
        trainer = make_trainer(session, step)
        say(describe_groups(trainer.groups, broadcast_rates(step.stage.lr, trainer.groups)))
        train, _ = sources_of(session, step)
        return find_step_lr(session, trainer, train, step, derived_seed(recipe.seed))
