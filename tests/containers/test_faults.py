"""Containers that cannot start print the reason in one line and end with exit code 1."""

import os
import socket
from pathlib import Path

from tests.support.commands import Finished
from tests.support.containers.build import Images
from tests.support.containers.running import refused

SERVE = ("serve", "--models", "/models", "--state", "/state", "--listen")


def assert_said(finished: Finished, *words: str) -> None:
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    message = [line for line in finished.stderr.splitlines() if line.startswith("pawserve: ")]
    assert len(message) == 1, finished.stderr
    for word in words:
        assert word in message[0]


def test_a_missing_model(images: Images) -> None:
    assert_said(refused(images.storage, images.cpu), "/models holds no model")


def test_a_model_that_only_root_may_read(images: Images, work: Path) -> None:
    closed = work / "closed"
    closed.mkdir(mode=0o700)
    assert_said(refused(images.storage, images.cpu, "--volume", f"{closed}:/models:ro"), "/models")


def test_a_state_folder_that_is_read_only(images: Images, work: Path, models: Path) -> None:
    state = work / "state"
    state.mkdir()
    os.chown(state, 65532, 65532)
    volumes = ("--volume", f"{models}:/models:ro", "--volume", f"{state}:/state:ro")
    assert_said(refused(images.storage, images.cpu, *volumes), "/state", "--state")


def test_a_state_folder_of_another_user(images: Images, work: Path, models: Path) -> None:
    state = work / "foreign"
    state.mkdir(mode=0o755)
    volumes = ("--volume", f"{models}:/models:ro", "--volume", f"{state}:/state")
    assert_said(refused(images.storage, images.cpu, *volumes), "/state", "--state")


def test_a_port_in_use(images: Images, models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        mounts = ("--volume", f"{models}:/models:ro")
        assert_said(
            refused(images.storage, images.cpu, *mounts, serve=(*SERVE, address)), address, "Address already in use"
        )


def test_a_requested_gpu_that_is_missing(images: Images, models: Path) -> None:
    mounts = ("--volume", f"{models}:/models:ro")
    gpu = (*SERVE, "127.0.0.1:0", "--engine", "tensorrt")
    assert_said(refused(images.storage, images.cpu, *mounts, serve=gpu), "--engine tensorrt cannot be used")


def test_a_database_that_does_not_answer(images: Images, work: Path, models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    secret = work / "statistics-url"
    secret.write_text(f"postgresql://pawserve:correct-horse@127.0.0.1:{port}/pawserve\n")
    secret.chmod(0o444)
    mounts = ("--volume", f"{models}:/models:ro", "--volume", f"{secret}:/run/secrets/statistics-url:ro")
    environment = ("--env", "PAWSERVE_STATISTICS_FILE=/run/secrets/statistics-url")
    finished = refused(images.storage, images.cpu, *mounts, *environment)
    assert_said(finished, f"127.0.0.1:{port}")
    assert "correct-horse" not in finished.stdout + finished.stderr
