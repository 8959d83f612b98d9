"""If one of two processes of a node is lost, the other ends too, and both can resume."""

from pathlib import Path

from tests.support.recipes import TINY
from tests.support.torchrun import torchrun
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs.folder import partial_folder
from training.runs.run import open_run

RECIPE = Recipe(
    **TINY,
    stages={"whole": Stage(freeze_to=0, lr=(0.01,), cycle_len=3, augment="side-on")},
)

SECOND_DIES = """
import os, signal, sys
from training.__main__ import main
from training.fitting.trainer import Trainer
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


def test_when_one_of_two_processes_is_killed_the_other_ends_and_both_can_resume(drawings: Path, tmp_path: Path) -> None:
    RECIPE.save(tmp_path / "recipe.yaml")
    named = {"recipe": tmp_path / "recipe.yaml", "data": drawings, "run": tmp_path / "run", "cache": tmp_path / "cache"}
    arguments = ["fit", *(word for name, value in named.items() for word in (f"--{name}", str(value)))]
    arguments += ["--checkpoint-every", "0"]
    (tmp_path / "second_dies.py").write_text(SECOND_DIES)
    steps_an_epoch = 4
    ended = torchrun(tmp_path / "second_dies.py", "--", steps_an_epoch + 2, *arguments)
    assert ended.returncode == 1
    assert "Signal 9 (SIGKILL)" in ended.stderr
    assert not (tmp_path / "run").exists()
    assert (partial_folder(tmp_path / "run") / "checkpoint.pt").exists()
    resumed = torchrun("-m", "training", "--", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after 1 of 3 epochs" in resumed.stderr
    assert resumed.stderr.count("95% interval") == 1  # only one of both reports
    facts = open_run(tmp_path / "run").facts
    assert facts["processes"] == 2
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 3
