"""Two nodes on this machine, each with a torchrun: lost processes resume from the last checkpoint."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.commands import ROOT, free_port
from tests.support.recipes import TINY
from tests.support.torchrun import ENVIRONMENT
from tests.support.waiting import LIMIT_S, eventually
from training.recipes.recipe import Recipe
from training.recipes.stage import Stage
from training.runs.folder import partial_folder
from training.runs.run import open_run

EPOCHS = 60
RECIPE = Recipe(
    **TINY,
    stages={"whole": Stage(freeze_to=0, lr=(0.001,), cycle_len=EPOCHS, augment="side-on")},
)
Node = tuple["subprocess.Popen[str]", Path]
"""A torchrun, and what it and its processes print."""


@pytest.fixture
def launch(drawings: Path, tmp_path: Path) -> Iterator[Callable[..., list[Node]]]:
    """Starts two nodes of one process each, and ends their remaining processes after the test."""
    RECIPE.save(tmp_path / "recipe.yaml")
    with ExitStack() as ending:

        def start(nodes: str) -> list[Node]:
            port = free_port()
            environment = ENVIRONMENT | {"NODES": nodes, "HEAD": f"127.0.0.1:{port}", "PROCESSES": "1"}
            environment |= {"LOCAL": "127.0.0.1", "PYTHON": str(Path(sys.executable))}
            options = {"data": drawings, "run": tmp_path / "run", "recipe": tmp_path / "recipe.yaml", "cache": tmp_path}
            arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            command = ["sh", "deploy/torchrun/launch.sh", *arguments, "--checkpoint-every", "0"]
            started = []
            for number in range(2):
                log = tmp_path / f"node-{number}.log"
                output = ending.enter_context(log.open("w"))
                node = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=output, stderr=output, text=True, start_new_session=True
                )
                ending.callback(end, node)
                started.append((node, log))
                assert eventually(lambda: listens(port))  # the first node is where they meet
            return started

        yield start


def end(node: "subprocess.Popen[str]") -> None:
    for process in [*workers(node), node.pid]:
        if node.poll() is None or process != node.pid:
            os.kill(process, signal.SIGKILL)
    node.wait()


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def workers(node: "subprocess.Popen[str]") -> list[int]:
    """The training processes of a torchrun."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def epochs_done(run: Path) -> int:
    history = partial_folder(run) / "history.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0


def check_whole(run: Path, log: str) -> None:
    went_on = re.search(rf"resuming after (\d+) of {EPOCHS} epochs", log)
    assert went_on, log
    assert int(went_on[1]) >= 3
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("busy", [False, True], ids=["at once", "the other one notices late"])
def test_a_lost_process_is_restarted_and_both_nodes_continue(
    launch: Callable[..., list[Node]], tmp_path: Path, busy: bool
) -> None:
    (first, log), (second, _) = launch("2")
    assert eventually(lambda: epochs_done(tmp_path / "run") >= 4), log.read_text()
    (lost,) = workers(second)
    if busy:  # its torchrun hears of the loss first, and the nodes count different numbers of starts
        os.kill(*workers(first), signal.SIGSTOP)
    os.kill(lost, signal.SIGKILL)
    assert first.wait(timeout=2 * LIMIT_S) == 0, log.read_text()
    assert second.wait(timeout=LIMIT_S) == 0
    check_whole(tmp_path / "run", log.read_text())
    assert open_run(tmp_path / "run").facts["processes"] == 2


def test_training_continues_without_a_lost_node(launch: Callable[..., list[Node]], tmp_path: Path) -> None:
    (first, log), (second, _) = launch("1:2")
    assert eventually(lambda: epochs_done(tmp_path / "run") >= 4), log.read_text()
    assert len(workers(second)) == 1
    end(second)
    assert first.wait(timeout=2 * LIMIT_S) == 0, log.read_text()
    check_whole(tmp_path / "run", log.read_text())
    assert open_run(tmp_path / "run").facts["processes"] == 1


def test_a_node_without_a_gpu_needs_the_number_of_processes() -> None:
    environment = {
        **ENVIRONMENT,
        "NODES": "1",
        "HEAD": "127.0.0.1:1",
        "PYTHON": sys.executable,
        "CUDA_VISIBLE_DEVICES": "",
    }
    environment.pop("PROCESSES", None)
    command = ["sh", ROOT / "deploy/torchrun/launch.sh", "--data", "photos", "--run", "run"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("launch.sh: torch finds no GPU on this node; set the number of processes")
