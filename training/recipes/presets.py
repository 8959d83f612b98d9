"""The recipes that `--preset` names."""

from dataclasses import replace

from training.recipes.recipe import Recipe
from training.recipes.stage import Stage


def course() -> Recipe:
    """The eight steps of the fast.ai course, 2018.

    1 precompute, 2 find a learning rate, 3 head on activations; 4 head with augmentation; 5 unfreeze, lower learning
    rates for earlier groups, 6 find a learning rate, 7 whole network with growing cycles; 8 test-time augmentation.
    """
    head = Recipe().stages["head"]
    return Recipe(
        stages={
            "head": replace(head, find_lr="show"),
            "augmented": Stage(lr=(0.003,), cycles=2, weight_decay=head.weight_decay, augment="side-on"),
            "whole": Stage(
                freeze_to=0, lr=(1e-3, 3e-3, 1e-2), find_lr="show", cycles=3, cycle_mult=2, augment="side-on"
            ),
        },
        # a few epochs at a low learning rate give no better statistics than the pretrained ones
        freeze_bn=True,
        keep="best",
    )


def from_scratch() -> Recipe:
    """Train the whole network from random weights: one cycle, stronger regularisation."""
    return Recipe(
        weights="none",
        dropout=(0.0, 0.25),
        stages={
            "whole": Stage(
                freeze_to=0, lr=(0.05,), schedule="one-cycle", cycle_len=30, weight_decay=5e-4, augment="side-on"
            )
        },
    )


PRESETS = {"quick": Recipe, "course": course, "from-scratch": from_scratch}
