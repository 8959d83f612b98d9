"""Runs containers of an image, and reports how they ended."""

import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import Finished
from tests.support.containers.storage import Storage
from tests.support.waiting import LIMIT_S


@dataclass
class Container:
    """A container whose server is ready."""

    storage: Storage
    name: str
    process: subprocess.Popen[str]
    address: str
    started_in_s: float
    """From `podman run` to the line that says so."""

    def health(self) -> int:
        """Run the image's HEALTHCHECK; return its exit code, 0 for healthy."""
        command = [*self.storage.podman_command(), "healthcheck", "run", self.name]
        return subprocess.run(command, capture_output=True, check=False, timeout=LIMIT_S).returncode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its first process."""
        self.storage.podman("kill", "--signal", number.name, self.name)

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode

    def execute(self, *command: object) -> Finished:
        """Run a command in the container as its user."""
        finished = subprocess.run(
            [*self.storage.podman_command(), "exec", self.name, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        return Finished(finished.returncode, finished.stdout, finished.stderr)


@contextmanager
def running(
    storage: Storage, image: str, models: Path, *options: object, serve: tuple[object, ...] = ()
) -> Iterator[Container]:
    """Run a server on a free port of the loopback address; yield when it is ready; kill it if it still runs at the end.

    Args:
        options: of `podman run`.
        serve: further arguments of `serve`.
    """
    name = f"pawserve-check-{secrets.token_hex(4)}"
    with socket.create_server(("127.0.0.1", 0)) as free:  # known beforehand, since the image's health check asks it
        address = f"127.0.0.1:{free.getsockname()[1]}"
    mounts = ["--volume", f"{models}:/models:ro", "--name", name, "--env", f"PAWSERVE_SERVER={address}"]
    listen = ["serve", "--models", "/models", "--state", "/state", "--listen", address, *serve]
    command = storage.run_command(*mounts, *options, image, *listen)
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            started_in_s = time.perf_counter() - began
            assert f"ready on {address}" in line, line + process.stderr.read()
            yield Container(storage, name, process, address, started_in_s)
        finally:
            if process.poll() is None:
                _kill(storage, name, process)


def _kill(storage: Storage, name: str, process: subprocess.Popen[str]) -> None:
    """Kill a container that is still running."""
    subprocess.run([*storage.podman_command(), "kill", name], capture_output=True, check=False, timeout=LIMIT_S)
    process.communicate(timeout=LIMIT_S)


def refused(storage: Storage, image: str, *options: object, serve: tuple[object, ...] = ()) -> Finished:
    """Run a container that cannot start, until it has ended."""
    listen = serve or ("serve", "--models", "/models", "--state", "/state", "--listen", "127.0.0.1:0")
    command = storage.run_command(*options, image, *listen)
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    return Finished(finished.returncode, finished.stdout, finished.stderr)
