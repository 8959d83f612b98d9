"""`pawserve COMMAND`: all commands under one name."""

import importlib
import sys
import tomllib
import types
from pathlib import Path

import pytest

from serving.cli import parser, pawserve
from serving.engine.onnx_package import check_complete
from tests.support.commands import ROOT


def test_the_console_script_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["pawserve"].partition(":")
    assert getattr(importlib.import_module(module), function) is pawserve.main


def test_every_command_of_the_packages_has_a_name() -> None:
    pytest.importorskip("torch")
    program = importlib.import_module("training.cli.program")
    export = importlib.import_module("export.__main__")
    there = {("training", name) for name in program.COMMANDS}
    there |= {("export", name) for name in export.COMMANDS}
    there |= {("serving", name) for name in parser.COMMANDS}
    assert {(command.package, command.command) for command in pawserve.COMMANDS.values()} == there


def test_help_lists_the_commands_and_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert pawserve.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in pawserve.COMMANDS)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("given", "meant"), [("fit", "train"), ("bundle", "export"), ("predikt", "predict")])
def test_the_error_for_an_unknown_command_suggests_a_similar_one(
    given: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pawserve.run([given]) == 2
    assert capsys.readouterr().err == f"pawserve: there is no command {given!r}; did you mean {meant}?\n"


@pytest.mark.parametrize("name", ["train", "inspect", "stats"])
def test_help_of_a_command_names_it_as_it_was_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name != "stats":
        pytest.importorskip("torch")
    with pytest.raises(SystemExit) as end:
        pawserve.run([name, "--help"])
    assert end.value.code == 0
    assert f"usage: pawserve {name} " in capsys.readouterr().out


def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'tyro'", name="tyro")

    monkeypatch.setattr(pawserve, "import_module", missing)
    assert pawserve.run(["train"]) == 1
    assert "the package tyro is missing" in (text := capsys.readouterr().err)
    assert "pip install 'pawserve[training]'" in text


def test_an_incomplete_onnx_runtime_ends_every_command_with_the_commands_that_repair_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extract = pytest.importorskip("training.features.extract")
    # the folder that is left over after uninstalling one of the packages
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    monkeypatch.delitem(sys.modules, "export.engine", raising=False)
    monkeypatch.delitem(sys.modules, "export.calibrate", raising=False)
    monkeypatch.setattr(parser, "import_module", lambda place: check_complete())
    assert pawserve.run(["serve"]) == pawserve.run(["engine", "models/pets"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all("pip uninstall -y onnxruntime onnxruntime-gpu, then" in line for line in errors)
    with pytest.raises(ImportError, match="is incomplete: pip uninstall"):
        extract.onnx_extractor(None, 224, Path("graph"))
