"""The command in run.json and in the report repeats the run."""

import html
import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.commands import run_here

pytestmark = pytest.mark.slow


def test_the_command_of_a_run_gives_the_same_weights(drawings: Path, shared_cache: Path, tmp_path: Path) -> None:
    data = tmp_path / "it's data"
    shutil.copytree(drawings, data)
    wrong = sorted(data.glob("train/cats/*"))[:2]
    (tmp_path / "wrong.csv").write_text(
        f"path,corrected\n{wrong[0].relative_to(data)},dogs\n{wrong[1].relative_to(data)},\n"
    )
    arguments = ("--run", tmp_path / "run", "--cache", shared_cache, "--arch", "test_resnet", "--weights", "none")
    more = ("--seed", 3, "--lr", 0.02, "--exclude", tmp_path / "wrong.csv", "--max-pixels", 50_000_000, "--no-check")
    first = run_here("training", "fit", "--data", data, *arguments, *more)
    assert first.returncode == 0, first.stderr
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert f"<pre>{html.escape(facts['command'])}</pre>" in (tmp_path / "run/report.html").read_text()

    python, option, *command = shlex.split(facts["command"])
    assert (python, option) == ("python", "-m")
    again = run_here(*command, "--cache", shared_cache)

    assert again.returncode == 0, again.stderr
    repeated = json.loads((tmp_path / "run-again/run.json").read_text())
    assert repeated["fingerprints"] == facts["fingerprints"]
    assert repeated["data"]["exclusions"]["relabelled"] == 1
    assert repeated["data"]["limits"] == facts["data"]["limits"]
    assert repeated["data"]["checks"] is None
