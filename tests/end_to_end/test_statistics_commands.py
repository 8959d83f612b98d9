"""`stats --since` and `stats --watch` as a user runs them."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from serving.client import Client
from tests.support.commands import ROOT, run
from tests.support.servers import running_server
from tests.support.statistics import tokens
from tests.support.waiting import LIMIT_S


@contextmanager
def watching(address: str, *arguments: str, **pipes: int) -> Iterator["subprocess.Popen[str]"]:
    command = [
        sys.executable,
        "-m",
        "serving",
        "stats",
        "--watch",
        "--interval",
        "0.2",
        "--server",
        address,
        *arguments,
    ]
    pipes = pipes or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_watch_ends_when_its_reader_ends_even_if_nothing_changes(
    models: Path, tmp_path: Path, arguments: list[str]
) -> None:
    """As `stats --watch | head -1` does."""
    with running_server(models, tmp_path / "state") as address, watching(address, *arguments) as process:
        assert process.stdout
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 1
        assert process.stderr
        assert process.stderr.read() == ""


def test_stats_of_a_window_of_time(models: Path, tmp_path: Path) -> None:
    with running_server(models, tmp_path / "state") as address, Client(address, timeout_s=LIMIT_S) as client:
        (token,) = tokens(client)
        client.record_labels([(token, "red")])
        recent = run("serving", "stats", "--since", "1h", "--json", "--server", address)
        assert json.loads(recent.stdout)["models"][0]["labels"] == 1
        assert json.loads(recent.stdout)["models"][0]["unlabelled"] == 0
        past = run("serving", "stats", "--until", "2020-01-01", "--json", "--server", address)
        assert json.loads(past.stdout)["models"] == []
        shown = run("serving", "stats", "--server", address)
        assert "expected calibration error" in shown.stdout
        turned = run("serving", "stats", "--since", "1h", "--until", "2h", "--server", address)
        assert turned.returncode == 1
        assert "must be before end_time" in turned.stderr


@pytest.mark.parametrize("arguments", [["--since", "yesterday"], ["--watch", "--since", "1h"], ["--interval", "0"]])
def test_wrong_use_of_stats_is_exit_code_2(arguments: list[str]) -> None:
    finished = run("serving", "stats", *arguments)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr


def test_watch_reconnects_after_a_restart_and_ends_on_ctrl_c(models: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with ExitStack() as stack:
        with running_server(models, state) as address, Client(address, timeout_s=LIMIT_S) as client:
            process = stack.enter_context(watching(address, "--json"))
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline()) == {"models": []}
            tokens(client, 2)
            assert json.loads(process.stdout.readline())["models"][0]["predictions"] == 2
        assert "trying again" in process.stderr.readline()
        with running_server(models, state, "--listen", address):
            assert json.loads(process.stdout.readline())["models"][0]["predictions"] == 2
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
            assert process.stderr.read() == ""


def test_watch_on_a_terminal_shows_tables(models: Path, tmp_path: Path) -> None:
    with running_server(models, tmp_path / "state") as address, Client(address, timeout_s=LIMIT_S) as client:
        (token,) = tokens(client)
        client.record_labels([(token, "red")])
        ours, theirs = pty.openpty()
        with watching(address, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            seen = ""
            deadline = time.monotonic() + LIMIT_S
            while "press Ctrl-C to end" not in seen:
                assert time.monotonic() < deadline
                seen += os.read(ours, 4096).decode(errors="replace")
            os.write(ours, b"\x03")
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
        os.close(ours)
    assert "models/colours/versions/1" in seen
    assert "accuracy 100.0%" in seen


def test_watch_of_an_unreachable_server_fails() -> None:
    finished = run("serving", "stats", "--watch", "--server", "127.0.0.1:1")
    assert finished.returncode == 1
    assert "no pawserve answers" in finished.stderr
