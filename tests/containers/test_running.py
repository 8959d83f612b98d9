"""Containers of the serving-cpu image, read-only and without capabilities, serve gRPC clients."""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

from serving.client import Client
from tests.support.bundles import write_bundle
from tests.support.commands import free_port
from tests.support.containers.build import Images
from tests.support.containers.running import running
from tests.support.images import RED
from tests.support.postgresql import Postgresql
from tests.support.waiting import LIMIT_S, eventually


def test_a_container_becomes_ready_and_predicts(
    images: Images, models: Path, measured: list[dict[str, object]]
) -> None:
    with running(images.storage, images.cpu, models, "--volume", "first:/state") as container:
        with Client(container.address) as client:
            (result,) = client.classify([RED]).results
            assert result.classes[0][0] == "red"
        assert container.health() == 0
        first_s = container.started_in_s
        container.signal(signal.SIGTERM)
        assert container.wait() == 0
    with running(images.storage, images.cpu, models, "--volume", "first:/state") as again:
        again_s = again.started_in_s
    measured.append({"what": "start to ready", "first s": round(first_s, 2), "later s": round(again_s, 2)})


def test_the_demo_image_brings_a_model(images: Images, tmp_path: Path) -> None:
    described = images.storage.inspect(images.demo)
    assert described["Config"]["Labels"]["org.opencontainers.image.title"] == "pawserve serving-cpu-demo"
    command = images.storage.run_command(images.demo, "serve", "--models", "/models", "--state", "/state")
    with subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "models/colours/versions/1" in process.stdout.readline()
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_sigterm_finishes_requests_in_flight_and_labels_outlive_the_container(images: Images, work: Path) -> None:
    slow = work / "slow"
    write_bundle(slow, slowness=20)
    volume = ("--volume", "labels:/state")
    metrics = f"127.0.0.1:{free_port()}"

    def in_flight() -> bool:
        with urlopen(f"http://{metrics}/metrics", timeout=LIMIT_S) as answer:
            return b'pawserve_requests_in_flight{method="pawserve.v1.Classifier/Classify"} 1.0' in answer.read()

    with running(images.storage, images.cpu, slow, *volume, serve=("--metrics", metrics)) as container:
        with Client(container.address) as client:
            (result,) = client.classify([RED]).results
            client.record_labels([(result.token, "red")])
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(client.classify, [RED] * 8)
                assert eventually(in_flight)
                container.signal(signal.SIGTERM)
                assert len(asked.result(LIMIT_S).results) == 8
        assert container.wait() == 0
    with (
        running(images.storage, images.cpu, slow, *volume) as container,
        Client(container.address) as client,
    ):
        (statistics,) = client.statistics()
        assert statistics.labels == 1


def test_a_killed_container_loses_no_acknowledged_label(images: Images, models: Path) -> None:
    volume = ("--volume", "killed:/state")
    with running(images.storage, images.cpu, models, *volume) as container, Client(container.address) as client:
        results = client.classify([RED] * 5).results
        client.record_labels([(result.token, "red") for result in results])
        container.signal(signal.SIGKILL)
        assert container.wait() == 137
    with running(images.storage, images.cpu, models, *volume) as container, Client(container.address) as client:
        (statistics,) = client.statistics()
        assert statistics.labels == 5


def test_sigterm_during_the_start_ends_the_container(images: Images, models: Path) -> None:
    """The kernel drops signals to a first process that has no handler yet; dumb-init has one."""
    mounts = ("--volume", f"{models}:/models:ro", "--name", "starting")
    serve = ("serve", "--models", "/models", "--state", "/state", "--listen", "127.0.0.1:0")
    command = images.storage.run_command(*mounts, images.cpu, *serve)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        listing = ("ps", "--filter", "status=running", "--format", "{{.Names}}")
        assert eventually(lambda: "starting" in images.storage.podman(*listing).split())
        images.storage.podman("kill", "--signal", "TERM", "starting")
        assert process.wait() in (0, 128 + signal.SIGTERM)
        assert process.stdout is not None


def test_statistics_go_to_the_database_that_a_mounted_secret_names(
    images: Images, work: Path, models: Path, postgresql: Postgresql
) -> None:
    secret = work / "statistics-url"
    secret.write_text(postgresql.create() + "\n")
    secret.chmod(0o444)
    options = ("--volume", f"{secret}:/run/secrets/statistics-url:ro")
    options += ("--env", "PAWSERVE_STATISTICS_FILE=/run/secrets/statistics-url")
    with running(images.storage, images.cpu, models, *options) as container, Client(container.address) as client:
        (result,) = client.classify([RED]).results
        client.record_labels([(result.token, "red")])
    with running(images.storage, images.cpu, models, *options) as container, Client(container.address) as client:
        (statistics,) = client.statistics()  # of another container, with another state folder
        assert statistics.labels == 1


def test_health_needs_no_credentials(images: Images, work: Path, models: Path) -> None:
    clients = work / "clients.txt"
    clients.write_text(f"predict camera sha256:{'0' * 64}\n")
    clients.chmod(0o644)
    volume = ("--volume", f"{clients}:/clients.txt:ro")
    with running(images.storage, images.cpu, models, *volume, serve=("--auth-tokens", "/clients.txt")) as container:
        assert container.health() == 0
        finished = container.execute("python", "-m", "serving", "health")
        assert (finished.returncode, finished.stdout.split()) == (0, ["SERVING"]), finished.stderr
