"""Options that are paths expand `~`, also in `--data=~/photos`, where no shell does it."""

import re
from pathlib import Path

import pytest

from benchmarks.common import absolute_path, make_parser
from tests.support.commands import ROOT

FOLDERS = ("serving", "training", "export", "benchmarks", "examples", "deploy")


def test_no_option_takes_a_path_as_it_is() -> None:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert [str(file) for file in files if re.search(r"\btype=(pathlib\.)?Path\b", file.read_text("utf-8"))] == []


def test_the_paths_of_benchmarks_are_expanded_and_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = make_parser("", "photos")
    assert parser.parse_args(["--photos=~/cats"]).photos == tmp_path / "cats"
    monkeypatch.chdir(tmp_path)
    assert absolute_path("cats") == tmp_path / "cats"
