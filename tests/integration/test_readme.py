"""Every command that the README shows works, in the order in which it shows them."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT

TESTED_ELSEWHERE = {"make demo", "make test"}
"""The tests are what is running, and the demo has a test of its own."""


def readme_commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ") and line[2:] not in TESTED_ELSEWHERE]


def test_the_readme_shows_commands() -> None:
    assert len(readme_commands()) >= 8


@pytest.mark.slow
def test_the_readme_s_commands_work_in_their_order(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    server = None
    try:
        for command in readme_commands():
            if " serve " in command:
                arguments = shlex.split(re.sub(r"--listen \S+", "--listen 127.0.0.1:0", command))
                server = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
                assert server.stdout is not None
                address = re.search(r"ready on (127\.0\.0\.1:\d+)", server.stdout.readline())
                assert address, "the server did not say that it is ready"
                environment["PAWSERVE_SERVER"] = address[1]
                continue
            finished = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert finished.returncode == 0, f"{command}\n{finished.stderr}"
    finally:
        if server:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
    assert server is not None
    assert server.returncode == 0
    for name in ("runs/pets/report.html", "models/pets/1/model.json", "confusion.png"):
        assert (tmp_path / name).stat().st_size > 0
