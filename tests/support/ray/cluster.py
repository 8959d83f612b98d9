"""A local Ray cluster with the application, as the command `ray` starts it, and the processes of its replicas."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import ROOT, free_port
from tests.support.waiting import LIMIT_S

REPLICA = "ray::ServeReplica:pawserve:Classifier"


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    process: subprocess.Popen[str]
    address: str

    def replicas(self) -> set[int]:
        """Process IDs of the replicas."""
        parents = dict(filter(None, map(_parent_of, Path("/proc").iterdir())))
        return {
            pid
            for pid in parents
            if _title(pid).startswith(REPLICA[:20]) and self.process.pid in _ancestors(pid, parents)
        }


@contextmanager
def cluster(folder: Path, *arguments: object, **environment: str) -> Iterator[Cluster]:
    """Start a cluster for `folder`/models on the loopback device; it must stop with exit code 0."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "serving", "ray", "--models", folder / "models", "--state", folder / "state"]
    command += ["--listen", address, *arguments]
    environment = {
        **os.environ,
        **environment,
        "RAY_AUTH_TOKEN_PATH": str(folder / "ray-token"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    (folder / "ray-token").write_text("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
    (folder / "ray-token").chmod(0o600)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert re.match(rf"pawserve ready on {re.escape(address)}", line), (folder / "log").read_text()
            yield Cluster(process, address)
        finally:
            process.terminate()
            process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, (folder / "log").read_text()


def _parent_of(entry: Path) -> tuple[int, int] | None:
    try:
        status = (entry / "status").read_text() if entry.name.isdigit() else ""
    except OSError:
        return None
    found = re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)
    return (int(entry.name), int(found[1])) if found and "State:\tZ" not in status else None


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0")
    except OSError:
        return ""


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.add(pid)
    return found
