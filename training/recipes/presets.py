"""The recipes that `--preset` names."""

from dataclasses import replace

from training.recipes.recipe import Recipe
from training.recipes.stage import Stage


def course() -> Recipe:
    """The eight steps of the fast.ai course, 2018, with what it takes to make no step worse than the one before.

    1 precompute, 2 find a learning rate, 3 head on activations; 4 head with augmentation; 5 unfreeze, lower learning
    rates for earlier groups, 6 find a learning rate, 7 train the upper layers; 8 test-time augmentation.

    Unlike the course's: augmented images are computed once, like the others; the first layers, which have few weights
    and take half of the time, stay frozen; the learning rates are lower; each step is tried first (`keep`).
    """
    head = Recipe().stages["head"]
    return Recipe(
        stages={
            "head": replace(head, find_lr="show"),
            "augmented": replace(head, views=8),
            "upper": Stage(freeze_to=1, lr=(3e-4, 1e-3, 2e-3), cycle_len=2, augment="varied"),
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
