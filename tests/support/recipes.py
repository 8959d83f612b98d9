"""Recipes for a network of few layers, and runs of them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from tests.support.commands import Finished, main_of, run_here
from training import fit as fit_module
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage

TINY = {"arch": "test_resnet", "weights": "none", "sizes": (32,), "batch_size": 8}
"""A network of timm's with few layers: what is tried here is how it is trained, not how well it does."""


def write_recipes(folder: Path) -> Path:
    """Write recipe files, by name, into a folder."""
    head = Stage(learn_from="activations", find_lr="show", weight_decay=0.01)
    whole = Stage(freeze_to=0, lr=(1e-4, 1e-3, 1e-2), find_lr="show", cycles=3, augment="side-on")
    for name, recipe in {
        "course": Recipe(
            **TINY,
            views=3,
            stages={"head": head, "augmented": Stage(lr=(0.001,), augment="top-down"), "whole": whole},
        ),
        "whole": Recipe(**TINY, stages={"whole": Stage(freeze_to=0, lr=(0.01,), cycle_len=4, augment="side-on")}),
        "weights": Recipe(**TINY, average="weights", stages={"head": head, "whole": whole}),
        "networks": Recipe(**TINY, average="predictions", stages={"head": head, "whole": whole}),
        "heads": Recipe(
            **TINY, average="predictions", stages={"head": Stage(learn_from="activations", cycles=3, weight_decay=0.01)}
        ),
        "growing": Recipe(
            **(TINY | {"sizes": (32, 48)}), stages={"head": head, "whole": Stage(freeze_to=1, schedule="one-cycle")}
        ),
        "processes": Recipe(
            **TINY, dropout=(0.0, 0.0), stages={"head": head, "whole": Stage(freeze_to=0, lr=(0.001,), cycle_len=2)}
        ),
    }.items():
        recipe.save(folder / f"{name}.yaml")
    return folder


def write_long_recipe(path: Path) -> None:
    """Write a recipe of so many epochs that a test interrupts the fit."""
    Recipe(**TINY, stages={"whole": Stage(freeze_to=0, lr=(0.01,), cycle_len=900)}).save(path)


def fit(recipe: Path, data: Path, run: Path, cache: Path, *more: object) -> Finished:
    return run_here("training", "fit", "--recipe", recipe, "--data", data, "--run", run, "--cache", cache, *more)


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model.safetensors")


def killed_in_epoch(epoch: int, *arguments: str) -> int:
    """`python -m training arguments…`, killed after it has reported an epoch."""
    recorded = fit_module.recorded

    @contextmanager
    def recording(*folder: Any) -> Iterator[Any]:
        with recorded(*folder) as record:

            def record_and_die(result: Any) -> None:
                record(result)
                if result.epoch == epoch:
                    os.kill(os.getpid(), signal.SIGKILL)

            yield record_and_die

    fit_module.recorded = recording
    return main_of("training", *arguments)
