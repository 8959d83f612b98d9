"""The commands of docs/containers.md to serve on CPUs work in their order, with podman instead of Docker."""

import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

from tests.support.bundles import write_bundle
from tests.support.commands import ROOT
from tests.support.containers.build import Images
from tests.support.http import ask
from tests.support.waiting import LIMIT_S, eventually


def commands() -> list[list[str]]:
    page = (ROOT / "docs/containers.md").read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line[2:] for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("docker ")]


def test_build_run_health_and_stop(images: Images, work: Path) -> None:
    build, run, health, stop = commands()
    # the image has been built, by the same Dockerfile; here it gets the page's name
    assert build[:4] == ["docker", "build", "--target", images.cpu.rpartition(":")[2]]
    images.storage.podman("tag", images.cpu, build[build.index("--tag") + 1])

    folder = work / "page"
    write_bundle(folder / "models")
    for port in (50051, 8080):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        run[run.index(f"127.0.0.1:{port}:{port}")] = f"{address}:{port}"
    assert run[1] == "run"

    def podman(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        command = [*images.storage.podman_command(), *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT_S)

    started = podman([run[1], *images.storage.limits(), *run[2:]])
    assert started.returncode == 0, started.stderr
    try:
        assert eventually(lambda: podman(health[1:]).stdout.startswith("SERVING"))
        assert "<html" in ask(f"http://{address}", "/").content.decode()
        stopped = podman(stop[1:])
        assert stopped.returncode == 0, stopped.stderr
        # 0: it ended by itself, at SIGTERM
        assert images.storage.podman("inspect", "--format", "{{.State.ExitCode}}", stop[-1]) == "0"
    finally:
        podman(["rm", "--force", stop[-1]])
    shutil.rmtree(folder)
