"""New model versions while the server serves: no request fails, whether the new version is good or bad.

PAWSERVE_RELOADS is how many follow each other under load.
"""

import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client import Client, ClientError
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from tests.support.bundles import write_bundle
from tests.support.images import RED
from tests.support.servers import cold_server, observed_server
from tests.support.waiting import LIMIT_S, eventually

RELOADS = int(os.environ.get("PAWSERVE_RELOADS", "20"))


def states(client: Client) -> dict[str, str]:
    """Resource name -> state."""
    return {model.name: pb.ModelState.Name(model.state).removeprefix("MODEL_STATE_") for model in client.list_models()}


def resident_kib(server: subprocess.Popen[str]) -> int:
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


class Load:
    """Clients that send requests continuously; their answers by version, and their failures."""

    def __init__(self, address: str, clients: int = 4, model: str = "") -> None:
        self._model = model
        self.answers: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._classify, args=(address,)) for _ in range(clients)]

    def _classify(self, address: str) -> None:
        with Client(address, timeout_s=LIMIT_S) as client:
            while not self._stop.is_set():
                try:
                    answer = client.classify([RED, RED], model=self._model, views=2)
                    assert [result.classes[0][0] for result in answer.results] == ["red", "red"]
                    self.answers[answer.model] += 1
                except BaseException as error:
                    self.failures.append(error)
                    return

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LIMIT_S)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", version=1)
    return tmp_path / "models"


@contextmanager
def server(models: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], Client, str]]:
    """A server that scans its model folder on SIGHUP only."""
    state = models.parent / "state"
    with (
        cold_server(models, state, "--poll-seconds", "0", *arguments) as (process, address),
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        yield process, client, address


def test_reloads_under_load_fail_no_request_and_leak_no_memory(models: Path) -> None:
    with server(models) as (process, client, address), Load(address) as load:
        memory_kib: list[int] = []
        for version in range(2, RELOADS + 2):
            write_bundle(models, version=version)
            process.send_signal(signal.SIGHUP)
            resource = f"models/colours/versions/{version}"
            assert eventually(lambda resource=resource: load.answers[resource] > 0 or bool(load.failures))
            shutil.rmtree(models / "colours" / str(version - 1))
            assert eventually(lambda resource=resource: states(client) == {resource: "READY"})
            memory_kib.append(resident_kib(process))
        assert load.failures == []
    assert len(load.answers) == RELOADS + 1
    before, after = (sorted(part)[len(part) // 2] for part in (memory_kib[5:10], memory_kib[-5:]))
    print(
        f"\n{RELOADS} reloads, {sum(load.answers.values())} answers; resident memory {before / 1024:.1f} MiB after the "
        f"first ten, {after / 1024:.1f} in the end"
    )
    assert after < 1.05 * before, memory_kib


@contextmanager
def half_copied(models: Path) -> Iterator[None]:
    write_bundle(models, version=2)
    graph = models / "colours" / "2" / "model.fp32.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    yield
    graph.write_bytes(whole)


def test_a_version_that_is_scanned_while_it_is_copied_is_served_once_it_is_complete(models: Path) -> None:
    with server(models) as (process, client, address), Load(address) as load:
        with half_copied(models):
            process.send_signal(signal.SIGHUP)
            assert eventually(lambda: states(client).get("models/colours/versions/2") == "REFUSED")
            failed = client.list_models()[1]
            assert "bytes" in failed.state_reason
            assert not failed.classes
            assert client.classify([RED]).model == "models/colours/versions/1"
            with pytest.raises(ClientError) as caught:
                client.classify([RED], model="models/colours/versions/2")
            assert caught.value.code == grpc.StatusCode.NOT_FOUND
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: load.answers["models/colours/versions/2"] > 0 or bool(load.failures))
        assert eventually(lambda: states(client) == {"models/colours/versions/2": "READY"})
        assert load.failures == []


BAD = {
    "no manifest": (lambda folder: (folder / "model.json").unlink(), "has no model.json"),
    "no graph": (lambda folder: (folder / "model.fp32.onnx").unlink(), "cannot be read"),
    "a changed graph": (
        lambda folder: (folder / "model.fp32.onnx").write_bytes((folder / "model.fp32.onnx").read_bytes()[:-1] + b"\0"),
        "changed after the export",
    ),
    "no JSON": (lambda folder: (folder / "model.json").write_text("{"), "model.json"),
    "another version's": (
        lambda folder: (folder / "model.json").write_text(
            (folder / "model.json").read_text().replace('"version": ', '"version": 7')
        ),
        "as the manifest says",
    ),
}


def test_a_bad_version_fails_to_load_with_the_reason_and_the_old_one_stays(models: Path) -> None:
    with server(models) as (process, client, _):
        for old, (spoil, reason) in zip(range(1, 100, 2), BAD.values(), strict=False):
            good, bad, next_good = (f"models/colours/versions/{version}" for version in (old, old + 1, old + 2))
            write_bundle(models, version=old + 1)
            spoil(models / "colours" / str(old + 1))
            process.send_signal(signal.SIGHUP)
            assert eventually(lambda bad=bad: states(client).get(bad) == "REFUSED")
            assert states(client)[good] == "READY"
            assert reason in {model.name: model.state_reason for model in client.list_models()}[bad]
            assert client.classify([RED], model="models/colours").model == good
            write_bundle(models, version=old + 2)  # the bad one does not prevent the next
            process.send_signal(signal.SIGHUP)
            assert eventually(lambda next_good=next_good: states(client).get(next_good) == "READY")


def test_a_version_with_other_classes_than_the_statistics_have_fails_to_load(models: Path) -> None:
    with server(models, "--keep-versions", 2) as (process, client, _):
        write_bundle(models, version=2)
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: states(client).get("models/colours/versions/2") == "READY")
        shutil.rmtree(models / "colours" / "2")
        write_bundle(models, version=2, classes=("azure", "lime", "red"))
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: bool(client.list_models()[1].state_reason))
        assert "classes" in client.list_models()[1].state_reason
        assert list(client.list_models()[1].classes) == ["blue", "green", "red"]
        assert client.classify([RED], model="models/colours").model == "models/colours/versions/2"


def test_a_version_whose_folder_is_removed_is_replaced_by_the_newest_that_is_there(models: Path) -> None:
    write_bundle(models, version=2)
    write_bundle(models, "shapes", 1)
    with server(models) as (process, client, address), Load(address, model="models/colours") as load:
        assert states(client)["models/colours/versions/2"] == "READY"
        shutil.rmtree(models / "colours" / "2")
        process.send_signal(signal.SIGHUP)
        assert eventually(
            lambda: states(client) == {"models/colours/versions/1": "READY", "models/shapes/versions/1": "READY"}
        )
        assert load.failures == []
        shutil.rmtree(models / "colours")  # the last version of a name: a server that starts now does not serve it
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: states(client) == {"models/shapes/versions/1": "READY"})
        shutil.rmtree(models / "shapes")  # the last one of all
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: "removed" in client.list_models()[0].state_reason)
        assert client.classify([RED]).model == "models/shapes/versions/1"


def test_pinned_versions_and_names_are_served_together_and_pins_stay(models: Path) -> None:
    for version in (2, 3):
        write_bundle(models, version=version)
    write_bundle(models, "shapes", 1)
    pins = ("--model", "colours/1", "--model", "colours/3", "--model", "shapes")
    with server(models, *pins) as (process, client, address):
        assert list(states(client)) == [
            "models/colours/versions/1",
            "models/colours/versions/3",
            "models/shapes/versions/1",
        ]
        write_bundle(models, version=4)
        write_bundle(models, "shapes", 2)
        process.send_signal(signal.SIGHUP)
        assert eventually(lambda: states(client).get("models/shapes/versions/2") == "READY")
        assert eventually(lambda: len(states(client)) == 3)
        for version in (1, 3):
            resource = f"models/colours/versions/{version}"
            assert client.classify([RED], model=resource).model == resource
        assert client.classify([RED], model="models/colours").model == "models/colours/versions/3"
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            for name in ("models/colours", "models/shapes", "models/shapes/versions/2"):
                assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
            gone = health.Check(health_pb2.HealthCheckRequest(service="models/shapes/versions/1"))
            assert gone.status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_new_versions_are_found_by_polling(models: Path) -> None:
    with (
        cold_server(models, models.parent / "state", "--poll-seconds", "0.1") as (_, address),
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        write_bundle(models, version=2)
        assert eventually(lambda: states(client) == {"models/colours/versions/2": "READY"})


def test_a_request_that_began_with_the_old_version_is_answered_by_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_bundle(models, version=1, slowness=40)
    answers: list[str] = []
    with (
        observed_server(tmp_path, "--poll-seconds", 0, "--instances", 1) as server,
        Client(server.address, timeout_s=LIMIT_S) as client,
    ):

        def classify() -> None:
            with Client(server.address, timeout_s=LIMIT_S) as other:
                answers.append(other.classify([RED], views=8).model)

        thread = threading.Thread(target=classify)
        thread.start()
        in_flight = {"model": "colours", "version": "1"}
        assert eventually(lambda: bool(answers) or bool(server.metric("pawserve_rows_in_flight", **in_flight)))
        write_bundle(models, version=2)
        server.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: states(client).get("models/colours/versions/2") == "READY")
        assert client.classify([RED]).model == "models/colours/versions/2"
        thread.join(LIMIT_S)
        assert eventually(lambda: "models/colours/versions/1" not in states(client))
    assert answers == ["models/colours/versions/1"]
