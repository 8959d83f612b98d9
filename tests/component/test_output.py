"""Commands write any text to a standard output of any encoding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT

SCRIPT = """
from serving.system.output import accept_any_text, print_json
accept_any_text()
text = "grün 日本 😀 \\udcff"
print(text, "50–60 ↓ → █░ …")
print_json({"text": text})
"""


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("utf-8", "grün 日本 😀 \\udcff 50–60 ↓ → █░ …"),
        ("latin-1", "grün \\u65e5\\u672c \\U0001f600 \\udcff 50-60 v > #. ~"),
        ("ascii", "gr\\xfcn \\u65e5\\u672c \\U0001f600 \\udcff 50-60 v > #. ~"),
    ],
)
def test_what_an_encoding_lacks_is_written_as_ascii_and_json_stays_valid(encoding: str, line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    text, document = done.stdout.decode(encoding).splitlines()
    assert text == line
    assert json.loads(document) == {"text": "grün 日本 😀 \udcff"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "serving", "rotate-key", "--token-key", tmp_path / "token.key"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "pawserve: the output cannot be used: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "command",
    ["training --help", "training fit --help", "export --version", "export bundle --help", "serving health --help"],
)
def test_help_that_cannot_be_written_is_one_line_and_exit_code_1(command: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
