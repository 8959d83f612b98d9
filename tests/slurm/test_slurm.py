"""deploy/slurm/train.sbatch on a real Slurm: the result is that of a run without Slurm, and lost jobs resume."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.support.commands import ROOT
from tests.support.recipes import TINY
from tests.support.slurm.cluster import NODES, Cluster
from tests.support.torchrun import torchrun
from tests.support.waiting import LIMIT_S, eventually
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs.folder import partial_folder
from training.runs.run import open_run

EPOCHS = 30
SCRIPT = "deploy/slurm/train.sbatch"
# the nodes have neither GPUs nor many CPUs
SBATCH = ("--gpus-per-node=0", f"--cpus-per-task={os.cpu_count()}")
TRAINING = b"-m\0training\0fit\0"

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Job:
    """A submitted job and its log."""

    cluster: Cluster
    number: str
    log_file: Path
    run: Path

    @property
    def state(self) -> str:
        return self.cluster.job(self.number)["JobState"]

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def epochs_done(self) -> int:
        history = partial_folder(self.run) / "history.jsonl"
        return len(history.read_text().splitlines()) if history.exists() else 0

    def goes_on(self, epochs: int) -> None:
        """Wait until some more epochs are done."""
        before = self.epochs_done()
        assert eventually(lambda: self.epochs_done() >= before + epochs), self.log

    def ends(self) -> str:
        """Wait until it has ended; return its state."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        assert eventually(lambda: self.state in ended), self.log
        return self.state

    def starts_again(self) -> None:
        """Wait until it is queued again, and start it at once, because Slurm would wait for two minutes."""
        assert eventually(lambda: self.state == "PENDING"), self.log
        assert eventually(self.cluster.idle)
        let = self.cluster.slurm("scontrol", "update", f"JobId={self.number}", "StartTime=now")
        assert let.returncode == 0, let.stderr
        assert eventually(lambda: self.state == "RUNNING"), self.cluster.job(self.number)


@pytest.fixture
def arguments(drawings: Path, tmp_path: Path) -> list[object]:
    """The arguments of `fit`."""
    recipe = Recipe(
        **TINY,
        stages={"whole": Stage(freeze_to=0, lr=(0.001,), cycle_len=EPOCHS, augment="side-on")},
    )
    recipe.save(tmp_path / "recipe.yaml")
    named = {"data": drawings, "recipe": tmp_path / "recipe.yaml", "cache": tmp_path / "cache"}
    return [word for name, value in named.items() for word in (f"--{name}", value)] + ["--checkpoint-every", "0"]


@pytest.fixture
def submit(cluster: Cluster, arguments: list[object], tmp_path: Path) -> Callable[..., Job]:
    """Submit the script with a folder for the run."""

    def submit(run: Path, *options: object) -> Job:
        log = tmp_path / "job.log"
        command = [*SBATCH, f"--output={log}", *options, SCRIPT, *arguments, "--run", run]
        submitted = cluster.slurm("sbatch", *command, PROCESSES="1")
        assert submitted.returncode == 0, submitted.stderr
        return Job(cluster, submitted.stdout.split()[-1], log, run)

    return submit


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def check_whole(job: Job, restarts: int) -> None:
    """Assert that each epoch was trained once by two processes."""
    assert job.ends() == "COMPLETED", job.log
    assert [epoch["epoch"] for epoch in history(job.run)] == list(range(1, EPOCHS + 1))
    assert open_run(job.run).facts["processes"] == 2
    assert cluster_restarts(job) == restarts


def cluster_restarts(job: Job) -> int:
    return int(job.cluster.job(job.number)["Restarts"])


def test_two_nodes_under_slurm_train_the_same_network_as_two_processes_without_slurm(
    submit: Callable[..., Job], arguments: list[object], tmp_path: Path
) -> None:
    job = submit(tmp_path / "run")
    check_whole(job, restarts=0)
    plain = torchrun("-m", "training", "--", "fit", *arguments, "--run", tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr
    learned, expected = (load_file(folder / "model.safetensors") for folder in (job.run, tmp_path / "plain"))
    assert learned.keys() == expected.keys()
    for name, values in expected.items():
        assert learned[name] == pytest.approx(values, rel=1e-4, abs=1e-5), name
    losses = [[epoch["valid_loss"] for epoch in history(folder)] for folder in (job.run, tmp_path / "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_lost_process_is_restarted_within_the_job(submit: Callable[..., Job], tmp_path: Path) -> None:
    job = submit(tmp_path / "run")
    job.goes_on(4)
    [worker] = job.cluster.nodes["node2"].processes(TRAINING)
    os.kill(worker, signal.SIGKILL)
    check_whole(job, restarts=0)
    assert "resuming after" in job.log


def test_a_job_resumes_after_its_time_limit_a_preemption_and_the_loss_of_its_nodes(
    submit: Callable[..., Job], cluster: Cluster, tmp_path: Path
) -> None:
    job = submit(tmp_path / "run")
    job.goes_on(4)
    # what --signal=B:USR1@120 does 120 s before the end of --time
    cluster.slurm("scancel", "--signal=USR1", "--batch", job.number)
    job.starts_again()
    assert "the time limit is near" in job.log
    job.goes_on(4)
    urgent = cluster.slurm(
        "sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true"
    )
    assert urgent.returncode == 0, urgent.stderr
    job.starts_again()
    for name in NODES:  # the first is where the script runs and where the processes meet
        job.goes_on(4)
        cluster.nodes[name].lose()
        assert eventually(lambda: job.state == "PENDING"), job.log
        cluster.join(name)
        job.starts_again()
    check_whole(job, restarts=4)
    went_on = [int(line.split()[2]) for line in job.log.splitlines() if line.startswith("resuming after")]
    assert len(went_on) == 4
    assert went_on == sorted(set(went_on))  # further each time


def test_a_resubmitted_job_resumes_from_the_last_checkpoint(
    submit: Callable[..., Job], cluster: Cluster, tmp_path: Path
) -> None:
    cancelled = submit(tmp_path / "run")
    cancelled.goes_on(4)
    cluster.slurm("scancel", cancelled.number)
    assert cancelled.ends() == "CANCELLED"
    done = cancelled.epochs_done()
    again = submit(tmp_path / "run")
    check_whole(again, restarts=0)
    resumed = re.search(rf"resuming after (\d+) of {EPOCHS} epochs", again.log)
    assert resumed, again.log
    # it may have been cancelled between the line of an epoch and its checkpoint
    assert int(resumed[1]) in (done - 1, done)


def test_a_folder_that_cannot_be_written_ends_the_job_with_an_error_that_names_it(
    submit: Callable[..., Job], cluster: Cluster, tmp_path: Path
) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    for node in cluster.nodes.values():
        node.run("mount", "-t", "tmpfs", "-o", "ro", "none", folder)
    job = submit(folder / "run")
    assert job.ends() == "FAILED"
    # of the node that fails first, or of the other, which is then ended
    assert cluster.job(job.number)["ExitCode"] in ("1:0", "143:0")
    assert f"--run {folder / 'run'} cannot be written: Read-only file system; give another --run" in job.log


def test_a_job_submitted_from_another_folder_prints_where_to_submit_it(cluster: Cluster, tmp_path: Path) -> None:
    command = cluster.controller.command(
        "env",
        f"--chdir={tmp_path}",
        cluster.tools.programs["sbatch"],
        *SBATCH,
        f"--output={tmp_path}/log",
        ROOT / SCRIPT,
    )
    submitted = subprocess.run(
        command, env=cluster.environment(), capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    job = Job(cluster, submitted.stdout.split()[-1], tmp_path / "log", tmp_path / "run")
    assert job.ends() == "FAILED"
    assert cluster.job(job.number)["ExitCode"] == "2:0"
    assert job.log.endswith("submit the job from the project's folder\n")
