"""What breaks while a fit runs: the disk fills up, a process is killed at the last moment or among several."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.commands import ROOT, run
from tests.warm import WarmProcess, call
from training import fit, run_folder
from training.recipe import Recipe
from training.run import open_run
from training.run_folder import partial_folder
from training.stage import Stage

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    arch="test_resnet",
    weights="none",
    sizes=(32,),
    batch_size=8,
    stages={"whole": Stage(freeze_to=0, lr=(0.01,), cycle_len=3, augment="side-on")},
)

SECOND_DIES = """
import os, signal, sys
from training.__main__ import main
from training.trainer import Trainer
given = [word for word in sys.argv[1:] if word != "--"]  # torchrun may pass it on
steps, step = [], Trainer.step
def dying(*arguments, **named):
    steps.append(1)
    if os.environ["RANK"] == "1" and len(steps) == int(given[0]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments, **named)
Trainer.step = dying
sys.exit(main(given[1:]))
"""


def killed_while(moment: str, *arguments: str) -> int:
    """`python -m training arguments…`, which dies at a moment."""
    place = {"writing the model": (fit, "write_model"), "taking its place": (run_folder, "_put_in_place")}[moment]
    setattr(*place, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    return call("training", *arguments)


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes of a program."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture
def arguments(drawings: Path, tmp_path: Path) -> list[str]:
    """Of a fit that saves a checkpoint after each epoch."""
    RECIPE.save(tmp_path / "recipe.yaml")
    named = {"recipe": tmp_path / "recipe.yaml", "data": drawings, "run": tmp_path / "run", "cache": tmp_path / "cache"}
    options = [word for name, value in named.items() for word in (f"--{name}", str(value))]
    return ["fit", *options, "--checkpoint-every", "0"]


@pytest.fixture(scope="module")
def undisturbed(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The weights that a fit ends with if nothing happens."""
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
def test_a_fit_killed_while_it_writes_the_run_ends_the_same_when_resumed(
    moment: str, arguments: list[str], tmp_path: Path, undisturbed: dict[str, np.ndarray]
) -> None:
    killed = WarmProcess(killed_while, moment, *arguments).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run").exists()
    resumed = run("training", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after 3 of 3 epochs" in resumed.stderr
    assert same(tmp_path / "run", undisturbed)
    assert not partial_folder(tmp_path / "run").exists()


def test_a_disk_that_fills_up_when_the_report_is_written_costs_no_training(
    arguments: list[str], tmp_path: Path, undisturbed: dict[str, np.ndarray]
) -> None:
    killed = WarmProcess(killed_while, "taking its place", *arguments).finish()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    partial = partial_folder(tmp_path / "run")
    report = (partial / "report.html").stat().st_size
    full = run("training", *arguments, "--resume", file_limit=report // 2)
    assert full.returncode == 1
    assert "File too large" in full.stderr
    assert "--resume goes on from there" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (tmp_path / "run").exists()
    resumed = run("training", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert same(tmp_path / "run", undisturbed)


def test_when_one_of_two_processes_is_killed_the_other_ends_too_and_both_can_go_on(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "second_dies.py").write_text(SECOND_DIES)
    steps_an_epoch = 4
    ended = torchrun(tmp_path / "second_dies.py", "--", steps_an_epoch + 2, *arguments)
    assert ended.returncode == 1
    assert "Signal 9 (SIGKILL)" in ended.stderr
    assert not (tmp_path / "run").exists()
    assert (partial_folder(tmp_path / "run") / "checkpoint.pt").exists()
    resumed = torchrun("-m", "training", "--", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after 1 of 3 epochs" in resumed.stderr
    facts = open_run(tmp_path / "run").facts
    assert facts["processes"] == 2
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 3
