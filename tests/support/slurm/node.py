"""A simulated machine with its own host name, network address and processes; it shares the disk."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.commands import ROOT
from tests.support.waiting import LIMIT_S

FIRST_PROCESS = "echo started; sleep infinity & wait"
"""bash, since it also takes leave of processes whose parents are gone."""


@dataclass(frozen=True)
class Node:
    """A simulated machine."""

    name: str
    unshared: "subprocess.Popen[str]"
    first: int
    """Its first process: when that ends, all others of the machine are killed."""
    started: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def command(self, *arguments: object) -> list[str]:
        """The command that runs `arguments` on the machine, in the project's folder."""
        where = ["nsenter", "--target", str(self.first), "--mount", "--net", "--uts", "--pid", f"--wdns={ROOT}", "--"]
        return [*where, *map(str, arguments)]

    def run(self, *arguments: object) -> None:
        """Run a command; raise an error if it fails."""
        subprocess.run(self.command(*arguments), check=True, timeout=LIMIT_S)

    def start(self, output: Path, environment: dict[str, str], *arguments: object) -> None:
        """Start a program that runs as long as the machine does."""
        with output.open("a") as file:
            command = self.command(*arguments)
            self.started.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))

    def processes(self, words: bytes) -> list[int]:
        """Its processes whose command line contains these words."""
        space = os.readlink(f"/proc/{self.first}/ns/pid")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                if words in (folder / "cmdline").read_bytes() and os.readlink(folder / "ns/pid") == space:
                    found.append(int(folder.name))
        return found

    def lose(self) -> None:
        """Kill all of its processes at once, as a power failure does."""
        os.kill(self.first, signal.SIGKILL)
        for process in (self.unshared, *self.started):
            process.wait(timeout=LIMIT_S)


@contextmanager
def machine(name: str, hosts: Path) -> Iterator[Node]:
    """Start a machine that is not connected yet.

    Args:
        name: its host name.
        hosts: what its /etc/hosts says.
    """
    shares = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with subprocess.Popen(
        [*shares, "bash", "-c", FIRST_PROCESS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as unshared:
        try:
            assert unshared.stdout is not None
            assert unshared.stdout.readline() == "started\n"
            (first,) = Path(f"/proc/{unshared.pid}/task/{unshared.pid}/children").read_text().split()
            node = Node(name, unshared, int(first))
            node.run("mount", "--bind", hosts, "/etc/hosts")
            node.run("hostname", name)
            node.run("ip", "link", "set", "lo", "up")
            yield node
            if unshared.poll() is None:
                node.lose()
        finally:
            unshared.kill()


def connect(node: Node, hub: Node, address: str) -> None:
    """Connect a node to the hub's bridge."""
    here, there = f"eth0 netns {node.first}".split(), f"{node.name} netns {hub.first}".split()
    subprocess.run(["ip", "link", "add", *here, "type", "veth", "peer", "name", *there], check=True, timeout=LIMIT_S)
    hub.run("ip", "link", "set", node.name, "master", "bridge", "up")
    node.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
