"""A Slurm cluster of two nodes on this machine: munged, slurmctld, two slurmd, and Slurm's commands."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.commands import ROOT
from tests.support.slurm.node import Node, connect, machine
from tests.support.slurm.tools import Tools
from tests.support.waiting import LIMIT_S, eventually

NODES = ("node1", "node2")
CONFIGURATION = """
ClusterName=check
SlurmctldHost=controller
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,requeue_delay=1
SlurmdTimeout=10
KillWait=5
MessageTimeout=20
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node[1-2] CPUs={cpus} RealMemory=1000
PartitionName=work Nodes=node[1-2] Default=YES MaxTime=60 State=UP PriorityTier=1
PartitionName=urgent Nodes=node[1-2] MaxTime=60 State=UP PriorityTier=2
"""


@dataclass
class Cluster:
    """A running cluster."""

    tools: Tools
    folder: Path
    controller: Node
    running: ExitStack
    """Ends the nodes."""
    nodes: dict[str, Node] = field(default_factory=dict)

    def slurm(self, name: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run one of Slurm's commands on the controller; the job inherits the environment."""
        return subprocess.run(
            self.controller.command(self.tools.programs[name], *arguments),
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """The environment of all processes in the cluster."""
        path = os.pathsep.join([str(self.tools.programs["srun"].parent), os.environ["PATH"]])
        ours = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path, "PYTHONPATH": str(ROOT)}
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **self.tools.environment, **ours}

    def job(self, number: str) -> dict[str, str]:
        """Slurm's fields of a job, such as JobState."""
        told = self.slurm("scontrol", "show", "job", number)
        assert told.returncode == 0, told.stderr
        return dict(re.findall(r"(\w+)=(\S*)", told.stdout))

    def idle(self) -> bool:
        """Whether both nodes are idle."""
        told = self.slurm("sinfo", "--noheader", "--Node", "--partition=work", "--format=%N %t")
        return sorted(told.stdout.split("\n")[:-1]) == [f"{name} idle" for name in NODES]

    def join(self, name: str) -> None:
        """Start a node; a lost node is replaced by a new one."""
        shutil.rmtree(self.folder / f"spool-{name}", ignore_errors=True)
        node = self.running.enter_context(machine(name, self.folder / "hosts"))
        connect(node, self.controller, f"10.77.0.{1 + NODES.index(name)}")
        self.nodes[name] = node
        slurmstepd = self.tools.programs["slurmstepd"]
        command = (self.tools.programs["slurmd"], "-D", "-s", "-N", name, "-d", slurmstepd)
        node.start(self.folder / f"{name}.out", self.environment(), *command)


@contextmanager
def running_cluster(tools: Tools, folder: Path) -> Iterator[Cluster]:
    """Start a cluster and yield it when both nodes are idle.

    Args:
        tools: Slurm's programs.
        folder: a folder for its configuration, state and logs, readable by all users.
    """
    (folder / "hosts").write_text(
        "127.0.0.1 localhost\n10.77.0.254 controller\n10.77.0.1 node1\n10.77.0.2 node2\n", encoding="utf-8"
    )
    facts = {"folder": folder, "plugins": tools.plugins, "cpus": os.cpu_count()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**facts), encoding="utf-8")
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    with ExitStack() as running:
        controller = running.enter_context(machine("controller", folder / "hosts"))
        cluster = Cluster(tools, folder, controller, running)
        controller.run("ip", "link", "add", "bridge", "type", "bridge")
        controller.run("ip", "address", "add", "10.77.0.254/24", "dev", "bridge")
        controller.run("ip", "link", "set", "bridge", "up")
        options = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        options.append(f"--socket={folder}/munge.socket")
        output = folder / "controller.out"
        controller.start(output, cluster.environment(), tools.programs["munged"], "--foreground", "--force", *options)
        assert eventually((folder / "munge.socket").exists), (folder / "munge.log").read_text()
        controller.start(output, cluster.environment(), tools.programs["slurmctld"], "-D", "-i")
        for name in NODES:
            cluster.join(name)
        assert eventually(cluster.idle), (folder / "slurmctld.log").read_text()
        yield cluster
