"""Builds images with buildah and runs containers with podman, all kept in one folder."""

import json
import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import LIMIT_S

TOOLS = ("buildah", "debootstrap", "podman", "runc")
"""Packages of Debian; each has a program of the same name."""
BUILD_S = 1500
DRIVER = "PAWSERVE_CONTAINERS_DRIVER"
"""Set it to vfs where the kernel or the file system has no overlays: each layer and container is then a whole copy."""


@dataclass(frozen=True)
class Storage:
    """A folder of images and containers, apart from the machine's own."""

    folder: Path

    def buildah(self, *arguments: object) -> str:
        """Run buildah; return its output. Chroot isolation needs neither namespaces nor a daemon."""
        return _run(["buildah", *self._where(), *map(str, arguments)])

    def podman(self, *arguments: object) -> str:
        """Run podman; return its output."""
        return _run([*self.podman_command(), *map(str, arguments)])

    def podman_command(self) -> list[str]:
        """The command podman with the options for this storage."""
        return ["podman", *self._where(), "--cgroup-manager", "cgroupfs", "--runtime", "runc"]

    def run_command(self, *options: object) -> list[str]:
        """`podman run` with strict options: a read-only image, no capabilities,
        no new privileges. It shares the host's network, so that the tests reach it on the loopback address."""
        strict = ["--network", "host", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
        return [*self.podman_command(), "run", "--rm", *self.limits(), *strict, *map(str, options)]

    def limits(self) -> list[str]:
        """Options of `podman run` that keep limits as they are: it would raise them, which not every host allows."""
        limits = []
        for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
            low = min(4096, resource.getrlimit(kind)[0])
            limits += ["--ulimit", f"{name}={low}:{low}"]
        return limits

    def inspect(self, image: str) -> dict[str, Any]:
        """The metadata of an image."""
        [described] = json.loads(self.podman("image", "inspect", image))
        return dict(described)

    def remove(self, *, images: bool) -> None:
        """Remove the containers with their volumes, and optionally the images."""
        for command in ("rm", "--all", "--force"), ("volume", "rm", "--all", "--force"):
            subprocess.run([*self.podman_command(), *command], capture_output=True, check=False, timeout=LIMIT_S)
        if images:
            shutil.rmtree(self.folder)

    def _where(self) -> list[str]:
        places = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        return [*places, "--storage-driver", os.environ.get(DRIVER, "overlay")]


def missing_tools() -> list[str]:
    """The tools that are not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None and not Path("/usr/sbin", tool).exists()]


def _run(command: list[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert finished.returncode == 0, f"{' '.join(command)}\n{finished.stdout[-4000:]}\n{finished.stderr[-4000:]}"
    return finished.stdout.strip()
