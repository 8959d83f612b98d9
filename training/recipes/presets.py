"""Recipes by name: where `--preset` starts from."""

from training.recipes.recipe import Recipe
from training.recipes.stage import Stage


def quick() -> Recipe:
    """A head on precomputed activations: seconds, and most of the accuracy."""
    return Recipe()


def course() -> Recipe:
    """The eight steps of the fast.ai course, 2018.

    1 precompute, 2 find a rate, 3 head on activations; 4 head with augmentation; 5 unfreeze, lower rates for earlier
    groups, 6 find a rate, 7 whole network with growing cycles; 8 test-time augmentation, and look at the report.
    """
    quick_stages = quick().stages
    return Recipe(
        stages={
            "head": Stage(**(vars(quick_stages["head"]) | {"find_lr": "show"})),
            "augmented": Stage(
                lr=(0.003,), cycles=2, weight_decay=quick_stages["head"].weight_decay, augment="side-on"
            ),
            "whole": Stage(
                freeze_to=0, lr=(1e-3, 3e-3, 1e-2), find_lr="show", cycles=3, cycle_mult=2, augment="side-on"
            ),
        },
        # a few epochs at a low rate do not make better statistics than the pretrained ones
        freeze_bn=True,
        views=5,
    )


def from_scratch() -> Recipe:
    """Random weights: the whole network from the first step, one cycle, stronger regularisation."""
    return Recipe(
        weights="none",
        dropout=(0.0, 0.25),
        stages={
            "whole": Stage(
                freeze_to=0, lr=(0.05,), schedule="one-cycle", cycle_len=30, weight_decay=5e-4, augment="side-on"
            )
        },
    )


PRESETS = {"quick": quick, "course": course, "from-scratch": from_scratch}
