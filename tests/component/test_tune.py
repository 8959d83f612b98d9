"""The command `tune`: what it prints and writes, what `serve` makes of it, and how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.cli.parser import main
from serving.client import Client
from tests.support.commands import ROOT
from tests.support.servers import cold_server
from tests.support.waiting import LIMIT_S


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """`tune` sets the process's, as a command may."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def tune(models: Path, *arguments: object) -> int:
    return main(["tune", "--models", str(models), "--state", str(models.parent / "state"), *map(str, arguments)])


def test_each_candidate_is_printed_and_the_chosen_one_is_served(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(models, "--seconds", 0, "--latency-bound-ms", 60_000) == 0
    printed = capsys.readouterr().out
    (path,) = (models.parent / "state" / "layouts").iterdir()
    assert printed.startswith("models/colours/versions/1:\n")
    assert printed.count("images/s") >= 4
    assert "chosen: " in printed
    assert f"written to {path}" in printed
    with cold_server(models, models.parent / "state") as (_, address), Client(address, timeout_s=LIMIT_S) as client:
        (model,) = client.list_models()
        assert model.plan.rows_per_second > 0
        assert "measured by `tune`" in model.engine_reason
        assert f"chosen: {model.plan.instances} instance" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "birds"), "holds no version of birds"),
        (("--precision", "int8"), "no int8 artifact"),
        (("--engine", "cuda"), "--engine cuda cannot be used"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_command_with_the_reason(
    models: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert tune(models, *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_folder_without_models_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    assert tune(tmp_path / "models") == 1
    assert "holds no model" in capsys.readouterr().err


def test_a_state_folder_that_cannot_be_written_is_an_error(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models.parent / "state").write_text("in the way")
    assert tune(models, "--seconds", 0) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_writes_nothing(models: Path) -> None:
    command = [sys.executable, "-m", "serving", "tune", "--models", models, "--state", models.parent / "state"]
    with subprocess.Popen(
        [*map(str, command), "--seconds", "3600"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "models/colours/versions/1:\n"  # measuring begins
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130
    assert not (models.parent / "state" / "layouts").exists()
