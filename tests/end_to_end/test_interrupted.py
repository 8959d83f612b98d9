"""Ctrl-C: exit code 130, and one line with what is kept and how to continue."""

import signal
from pathlib import Path

import pytest

from tests.support.commands import ROOT, WarmProcess, main_of, run, run_cold
from tests.support.recipes import write_long_recipe
from training.command import INTERRUPTED
from training.runs.folder import can_resume, partial_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def arguments(drawings: Path, tmp_path: Path) -> list[object]:
    """The arguments of a fit that does not end within the test, and saves a checkpoint after each epoch."""
    write_long_recipe(tmp_path / "recipe.yaml")
    named = {"recipe": tmp_path / "recipe.yaml", "data": drawings, "run": tmp_path / "run", "cache": tmp_path / "cache"}
    return ["fit", *(word for name, value in named.items() for word in (f"--{name}", value)), "--checkpoint-every", 0]


def test_an_interrupted_fit_reports_what_is_kept_and_how_to_continue(arguments: list[object], tmp_path: Path) -> None:
    fit = WarmProcess(main_of, "training", *arguments)
    fit.wait_until(lambda: can_resume(tmp_path / "run"))
    fit.send_signal(signal.SIGINT)
    finished = fit.finish()
    partial = partial_folder(tmp_path / "run")
    assert finished.returncode == 130, finished.stderr
    assert finished.stderr.endswith(
        f"python -m training fit: interrupted; what was done is kept in {partial}: run the same command with --resume "
        "to continue\n"
    )
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run").exists()
    exported = run("export", "bundle", "--run", partial, "--models", tmp_path, "--name", "half")
    assert exported.returncode == 1
    assert "is no finished run" in exported.stderr


def test_a_fit_interrupted_before_its_first_checkpoint_leaves_nothing(arguments: list[object], tmp_path: Path) -> None:
    fit = WarmProcess(main_of, "training", *arguments[:-1], 3600)
    fit.wait_until(lambda: "epoch 1 of" in fit.stderr)
    fit.send_signal(signal.SIGINT)
    finished = fit.finish()
    assert finished.returncode == 130, finished.stderr
    assert "interrupted; no checkpoint had been written yet; run the same command to start again" in finished.stderr
    assert not partial_folder(tmp_path / "run").exists()


def test_an_interrupt_within_compiled_source_text_gives_the_exit_code_and_not_a_signal(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import sys; from dataclasses import dataclass; from training.command import Command, run_command\n"
        "@dataclass\nclass Nothing: 'Does nothing.'\n"
        "def work(options): exec('raise KeyboardInterrupt')\n"
        "command = Command(Nothing, '__main__:work', interrupted='all is well')\n"
        "sys.exit(run_command('p', 'about', {'work': command}, ['work']))"
    )
    finished = run_cold("program", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert finished.returncode == INTERRUPTED
    assert finished.stderr == "p work: interrupted; all is well\n"
