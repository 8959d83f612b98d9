"""Faults during a fit: a full disk, a process killed at the last moment."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.commands import WarmProcess, main_of, run
from tests.support.recipes import TINY
from training import fit
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs import folder as run_folder
from training.runs.folder import partial_folder

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    **TINY,
    stages={"whole": Stage(freeze_to=0, lr=(0.01,), cycle_len=3, augment="side-on")},
)


def killed_while(moment: str, *arguments: str) -> int:
    """`python -m training arguments…`, killed at a moment."""
    place = {"writing the model": (fit, "write_model"), "taking its place": (run_folder, "_put_in_place")}[moment]
    setattr(*place, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    return main_of("training", *arguments)


@pytest.fixture
def arguments(drawings: Path, tmp_path: Path) -> list[str]:
    """The arguments of a fit that saves a checkpoint after each epoch."""
    RECIPE.save(tmp_path / "recipe.yaml")
    named = {"recipe": tmp_path / "recipe.yaml", "data": drawings, "run": tmp_path / "run", "cache": tmp_path / "cache"}
    options = [word for name, value in named.items() for word in (f"--{name}", str(value))]
    return ["fit", *options, "--checkpoint-every", "0"]


@pytest.fixture(scope="module")
def undisturbed(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The final weights of an undisturbed fit."""
    folder = tmp_path_factory.mktemp("undisturbed")
    RECIPE.save(folder / "recipe.yaml")
    options = ("--recipe", folder / "recipe.yaml", "--data", drawings, "--run", folder / "run", "--cache", folder)
    finished = run("training", "fit", *options)
    assert finished.returncode == 0, finished.stderr
    return load_file(folder / "run" / "model.safetensors")


def same(folder: Path, weights: dict[str, np.ndarray]) -> bool:
    found = load_file(folder / "model.safetensors")
    return found.keys() == weights.keys() and all(np.array_equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("moment", ["writing the model", "taking its place"])
def test_a_fit_killed_while_it_writes_the_run_gives_the_same_result_when_resumed(
    moment: str, arguments: list[str], tmp_path: Path, undisturbed: dict[str, np.ndarray]
) -> None:
    killed = WarmProcess(killed_while, moment, *arguments).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run").exists()
    resumed = run("training", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after 3 of 3 epochs" in resumed.stderr
    assert same(tmp_path / "run", undisturbed)
    assert not partial_folder(tmp_path / "run").exists()


def test_a_disk_that_fills_up_while_the_report_is_written_loses_no_training(
    arguments: list[str], tmp_path: Path, undisturbed: dict[str, np.ndarray]
) -> None:
    killed = WarmProcess(killed_while, "taking its place", *arguments).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    partial = partial_folder(tmp_path / "run")
    report = (partial / "report.html").stat().st_size
    full = run("training", *arguments, "--resume", file_limit=report // 2)
    assert full.returncode == 1
    assert f"File too large ({partial / 'report.html'})" in full.stderr
    assert "--resume to continue" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (tmp_path / "run").exists()
    resumed = run("training", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert same(tmp_path / "run", undisturbed)
