"""Short options in; the recipe with its first stage changed accordingly out."""

from dataclasses import dataclass, replace

from training.command import MaybeFloat, MaybeInt, UsageError
from training.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """Short forms of settings of the recipe's first stage."""

    lr: MaybeFloat = None
    """Highest learning rate of the first stage, for all layer groups."""
    cycles: MaybeInt = None
    """Cycles of the first stage; the rate falls along a cosine within each and restarts."""
    cycle_len: MaybeInt = None
    """Epochs of the first stage's first cycle."""
    cycle_mult: MaybeInt = None
    """Each cycle of the first stage is this many times as long as the one before."""
    weight_decay: MaybeFloat = None
    """L2 penalty on the weights that learn in the first stage."""
    train_views: MaybeInt = None
    """Views of each training image that its activations are computed of: 1 as it is, 2 with its mirror image."""

    def apply(self, recipe: Recipe) -> Recipe:
        """The recipe with what was given here.

        Raises:
            UsageError: for a value out of range.
        """
        name, stage = next(iter(recipe.stages.items()))
        given = {key: value for key, value in vars(self).items() if value is not None}
        if "lr" in given:
            given["lr"] = (given["lr"],)
        if "train_views" in given:
            given["views"] = given.pop("train_views")
        try:
            return replace(recipe, stages=recipe.stages | {name: replace(stage, **given)})
        except ValueError as error:
            raise UsageError(error) from error
