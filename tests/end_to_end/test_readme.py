"""The commands and the program of the README work, in their order."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT, WarmProcess, main_of

TESTED_ELSEWHERE = {"make demo", "make test"}
"""The demo has its own test; `make test` runs this one. tests/containers runs `docker`."""

FEWER = "sample --per-class 40 --valid-per-class 20"
"""Fewer drawings than by default, so that the later commands are fast."""


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def readme_commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in readme_blocks("console") for line in block.splitlines()]
    commands = [line[2:] for line in lines if line.startswith("$ ")]
    return [each for each in commands if each not in TESTED_ELSEWHERE and not each.startswith("docker ")]


def test_the_readme_shows_commands() -> None:
    assert len(readme_commands()) >= 8


def words(command: str, folder: Path) -> list[str]:
    """The words of a command, with file patterns expanded as by the shell."""
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], cwd=folder, capture_output=True, check=True)
    return printed.stdout.decode().split("\0")[:-1]


@pytest.mark.slow
def test_the_commands_of_the_readme_work_in_their_order(tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    server = None
    try:
        for command in readme_commands():
            command = re.sub(r"--listen \S+", "--listen 127.0.0.1:0", command)
            command = command.replace("sample --out", f"{FEWER} --out")
            python, module, *arguments = words(command, tmp_path)
            assert (python, module) == ("python", "-m")
            process = WarmProcess(main_of, *arguments, folder=tmp_path, **environment)
            if arguments[:2] == ["serving", "serve"]:
                server = process
                environment["PAWSERVE_SERVER"] = server.printed(r"ready on (127\.0\.0\.1:\d+)")[1]
            else:
                finished = process.finish()
                assert finished.returncode == 0, f"{command}\n{finished.stderr}"
        assert server is not None
        [program] = readme_blocks("python")
        program = program.replace("127.0.0.1:50051", environment["PAWSERVE_SERVER"])
        asked = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, asked.stderr
        assert re.match(r"drawings/valid/cats/cat\.\d+\.jpg \w+ 0\.\d+\n", asked.stdout)
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        if server:
            server.close()
    for name in ("runs/pets/report.html", "models/pets/1/model.json", "confusion.png"):
        assert (tmp_path / name).stat().st_size > 0
