"""The Dockerfile's commands, without containers: make container-check builds and runs the images."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import write_bundle
from tests.support.commands import ROOT, WarmProcess, main_of
from tests.support.http import ask
from tests.support.images import RED
from tests.support.waiting import LIMIT_S

CHECK = re.compile(r'RUN python3 -c "(import sys; [^"]+)"')


@pytest.mark.parametrize(("version", "said"), [("3.11.2", ""), ("3.12.1", "_IMAGE has Python 3.12.1; ")])
def test_base_images_with_another_python_are_rejected_before_pip_runs(version: str, said: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    bases = re.findall(r"^FROM \$\{(\w+)\} AS (?:wheels|gpu-runtime)$", dockerfile, re.MULTILINE)
    checks = CHECK.findall(dockerfile.replace("\\\n", ""))
    assert len(bases) == len(checks) == 2
    for base, check in zip(bases, checks, strict=True):
        numbers = tuple(map(int, version.split(".")))
        as_if = f"import sys; sys.version, sys.version_info = '{version} (main)', {numbers}; "
        finished = subprocess.run(
            [sys.executable, "-c", check.replace("import sys; ", as_if, 1)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert finished.returncode == bool(said)
        assert said in finished.stderr
        assert (base in finished.stderr) == bool(said)


def test_the_command_of_the_image_serves_the_page_and_rest_at_a_published_port(tmp_path: Path) -> None:
    """Browsers name the port of the host, which the server does not know."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    first, second = re.findall(r'^CMD (\["serve".*\])$', dockerfile, re.MULTILINE)
    assert first == second
    command = [argument.replace("/models", str(tmp_path / "models")) for argument in json.loads(first)]
    command = [argument.replace("/state", str(tmp_path / "state")) for argument in command]
    command = [re.sub(r"^0\.0\.0\.0:\d+$", "0.0.0.0:0", argument) for argument in command]
    assert command.count("0.0.0.0:0") == 2
    write_bundle(tmp_path / "models")
    server = WarmProcess(main_of, "serving", *command)
    try:
        port = server.printed(r"HTTP on http://0\.0\.0\.0:(\d+)")[1]
        url, published = f"http://127.0.0.1:{port}", {"host": "127.0.0.1:18080", "origin": "http://127.0.0.1:18080"}
        assert "<html" in ask(url, "/", headers=published).content.decode()
        answer = ask(url, "/v1/classify", RED, published)
        assert answer.json()["results"][0]["prediction"]["classes"][0]["label"] == "red"
        foreign = ask(url, "/v1/classify", RED, {**published, "origin": "http://attacker.example"})
        assert (foreign.status, foreign.reason) == (403, "ORIGIN_NOT_ALLOWED")
    finally:
        server.close()
