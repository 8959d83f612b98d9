"""Start and stop the server and its peers, each with its best setting."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import REPOSITORY
from benchmarks.processes import ANY_PORT, pawserve

START_TIMEOUT_S = 40
STOP_TIMEOUT_S = 10

# The best of those that benchmarks/results/2026-11-24-peers.md lists, on two CPUs.
SETTINGS: dict[str, Mapping[str, str]] = {
    "pawserve": {},
    # number of processes, largest batch of the dynamic batcher, threads of each process
    "triton": {"instances": "2", "batch": "8", "threads": "1"},
    "litserve": {"workers": "2", "max-batch-size": "1", "api-servers": "1", "fast-queue": ""},
    "bentoml": {"WORKERS": "2", "THREADS": "2", "MAX_BATCH_SIZE": "1"},
}
"""Each server's options by name."""
HTTP_TOO = ("pawserve", "triton")
"""Servers that are called over gRPC, or over HTTP by this name with "-http"."""


@dataclass(frozen=True)
class RunningPeer:
    """A running server."""

    peer: str
    address: str


@dataclass(frozen=True)
class _Place:
    """Files, environment and port of a server."""

    bundle: Path
    environment: Path
    """The peer's virtual environment."""
    folder: Path
    """Folder for files of its own."""
    port: int
    http: bool
    """Whether a server that has both listens for HTTP, and not for gRPC."""


_Command = tuple[list[object], dict[str, str]]
"""A command line, and variables for its environment."""


@contextmanager
def running_peer(peer: str, bundle: Path, peers_dir: Path) -> Iterator[RunningPeer]:
    """Start a server; stop it and all of its processes at the end.

    Args:
        peer: a name in `SETTINGS`, or one of `HTTP_TOO` with "-http".

    Raises:
        RuntimeError: if it does not listen within 40 s; the message holds the end of its log.
    """
    name, http = peer.removesuffix("-http"), peer.endswith("-http")
    if name == "pawserve":
        with pawserve(bundle, "--http", ANY_PORT if http else "off") as server:
            yield RunningPeer(peer, server.http_address or server.address)
        return
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="peers-") as text:
        folder = Path(text)
        command, variables = _COMMANDS[name](SETTINGS[name], _Place(bundle, peers_dir / name, folder, port, http))
        log = folder / "log"
        with log.open("wb") as file:
            # cwd: the peers import benchmarks.peers and serving from the repository
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_for(port, process, log)
            yield RunningPeer(peer, f"127.0.0.1:{port}")
        finally:
            _stop(process)


def describe(setting: Mapping[str, str]) -> str:
    """A setting in one line, for people."""
    return ", ".join(f"{name.lower().replace('_', '-')} {value}".strip() for name, value in setting.items())


def _triton(setting: Mapping[str, str], at: _Place) -> _Command:
    packages = at.environment / "lib/python3.11/site-packages"
    server = packages / "pytriton/tritonserver"
    backend = at.folder / "backends/python"
    shutil.copytree(server / "backends/python", backend)
    shutil.copy(server / "python_backend_stubs/3.11/triton_python_backend_stub", backend)
    model = at.folder / "models/pets"
    (model / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("triton_model.py"), model / "1/model.py")
    (model / "config.pbtxt").write_text(
        f'backend: "python"\nmax_batch_size: {setting["batch"]}\n'
        'input [{ name: "images" data_type: TYPE_STRING dims: [1] }]\n'
        'output [{ name: "probabilities" data_type: TYPE_FP32 dims: [-1] }]\n'
        f"instance_group [{{ count: {setting['instances']} kind: KIND_CPU }}]\n"
        "dynamic_batching { max_queue_delay_microseconds: 0 }\n"
        f'parameters [{{ key: "bundle" value: {{ string_value: "{at.bundle}" }} }},\n'
        f'            {{ key: "threads" value: {{ string_value: "{setting["threads"]}" }} }}]\n'
    )
    command: list[object] = [server / "bin/tritonserver", f"--model-repository={at.folder / 'models'}"]
    protocol, other = ("http", "grpc") if at.http else ("grpc", "http")
    command += [f"--backend-directory={at.folder / 'backends'}", f"--allow-{other}=false", "--allow-metrics=false"]
    command += [f"--{protocol}-address=127.0.0.1", f"--{protocol}-port={at.port}", "--exit-timeout-secs=2"]
    # the backend's interpreter finds the environment by PATH
    return command, {
        "PATH": f"{at.environment / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
    }


def _litserve(setting: Mapping[str, str], at: _Place) -> _Command:
    command: list[object] = [at.environment / "bin/python", "-m", "benchmarks.peers.litserve_server"]
    command += ["--bundle", at.bundle, "--port", at.port]
    for name, value in setting.items():
        command += [f"--{name}", value] if value else [f"--{name}"]
    return command, {}


def _bentoml(setting: Mapping[str, str], at: _Place) -> _Command:
    command: list[object] = [at.environment / "bin/bentoml", "serve", "benchmarks.peers.bentoml_server:Classify"]
    command += ["--host", "127.0.0.1", "--port", at.port, "--working-dir", REPOSITORY]
    variables = {f"PEERS_{name}": value for name, value in setting.items()}
    home = {"BENTOML_HOME": str(at.folder), "BENTOML_DO_NOT_TRACK": "True"}
    return command, {"PEERS_BUNDLE": str(at.bundle), **variables, **home}


_COMMANDS: dict[str, Callable[[Mapping[str, str], _Place], _Command]] = {
    "triton": _triton,
    "litserve": _litserve,
    "bentoml": _bentoml,
}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    for number in (signal.SIGTERM, signal.SIGKILL):  # workers that the server left running
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        time.sleep(0.2)
    process.wait()
