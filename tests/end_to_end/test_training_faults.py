"""Faults during a fit: a full disk, a process killed at the last moment."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.commands import WarmProcess, main_of, run, run_here
from tests.support.recipes import TINY
from training import fit
from training.data.layout import DataError
from training.fitting.checkpoint import CHECKPOINT_FILE
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs import folder as run_folder
from training.runs.folder import building, partial_folder
from training.runs.run import open_run

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
    facts = open_run(tmp_path / "run").facts
    assert facts["seconds"]["train"] >= facts["steps"][0]["seconds"]  # of both attempts
    assert not partial_folder(tmp_path / "run").exists()


def removing(path: Path, place: tuple[object, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file vanish as soon as a function has returned."""
    function = getattr(*place)

    def run_and_remove(*arguments: object, **named: object) -> object:
        result = function(*arguments, **named)
        path.unlink(missing_ok=True)
        return result

    monkeypatch.setattr(*place, run_and_remove)


@pytest.mark.parametrize("moment", ["run_steps", "set_up"])
def test_a_validation_file_that_vanishes_during_a_fit_is_left_out(
    moment: str, drawings: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run_folder = tmp_path / "images", tmp_path / "run"
    shutil.copytree(drawings, data)
    gone = next((data / "valid/cats").iterdir())
    removing(gone, (fit, moment), monkeypatch)
    stages = {"head": Stage(learn_from="activations"), "again": Stage(learn_from="activations", cycles=2)}
    Recipe(**(TINY | {"sizes": (36, 44)}), average="weights", stages=stages).save(tmp_path / "recipe.yaml")
    options = ("--data", data, "--run", run_folder, "--cache", tmp_path / "cache")
    finished = run_here("training", "fit", "--recipe", tmp_path / "recipe.yaml", *options)
    assert finished.returncode == 0, finished.stderr
    assert f"left out: 1 file or folder\n  {gone}: " in finished.stderr
    finished_run = open_run(run_folder)
    assert (finished_run.facts["metrics"]["n"], finished_run.facts["data"]["valid"]) == (15, 15)
    assert [file["path"] for file in finished_run.facts["data"]["skipped"]] == [str(gone)]
    assert gone not in [image.path for image in finished_run.validation()[0]]


def test_a_training_file_that_vanishes_does_not_end_a_fit_after_the_training(
    arguments: list[str], drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(drawings, tmp_path / "images")
    gone = sorted((tmp_path / "images/train/cats").iterdir())[0]  # the one that the report would show augmented
    removing(gone, (fit, "run_steps"), monkeypatch)
    finished = run_here("training", *arguments, "--data", tmp_path / "images")
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "run/plots/augmentation.png").exists()


def test_images_that_changed_during_a_fit_must_be_restored_before_it_is_resumed(tmp_path: Path) -> None:
    def fail() -> None:
        with building(tmp_path / "run", resume=False) as folder:
            (folder / CHECKPOINT_FILE).touch()
            raise DataError("a.jpg has changed since it was first read")

    with pytest.raises(DataError) as caught:
        fail()
    assert "restore the images, then run the same command with --resume" in caught.value.__notes__[0]


def test_a_disk_that_fills_up_while_the_run_is_written_loses_no_training(
    arguments: list[str], tmp_path: Path, undisturbed: dict[str, np.ndarray]
) -> None:
    killed = WarmProcess(killed_while, "taking its place", *arguments).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    partial = partial_folder(tmp_path / "run")
    model = (partial / "model.safetensors").stat().st_size
    full = run("training", *arguments, "--resume", file_limit=model // 2)
    assert full.returncode == 1
    assert f"File too large ({partial / 'model.safetensors'})" in full.stderr
    assert "--resume to continue" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (tmp_path / "run").exists()
    resumed = run("training", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert same(tmp_path / "run", undisturbed)
