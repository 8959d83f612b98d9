"""One server of several processes: start, stop, restart, model updates and metrics, as its clients see them."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.bundle.primary_choice import PrimaryChoice, write_choice
from serving.client import Client
from serving.pb.inference import open_inference_pb2, open_inference_pb2_grpc
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.commands import WarmProcess, main_of, run
from tests.support.images import RED
from tests.support.labelling import LabellingClient, check_labels
from tests.support.servers import ObservedServer, observed_server, stoppable_server
from tests.support.waiting import LIMIT_S, eventually

PROCESSES = ("1", "2")
CHILD = "serving.processes.child"


def children(supervisor: int) -> dict[str, int]:
    """The process IDs of a supervisor's processes, by their numbers."""
    found = {}
    for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if CHILD in words:
            found[words[words.index(CHILD) + 1]] = int(pid)
    return found


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def up(server: ObservedServer) -> list[float | None]:
    return [server.metric("pawserve_process_up", process=process) for process in PROCESSES]


def has_served(server: ObservedServer, process: str) -> bool:
    method = "pawserve.v1.Classifier/Classify"
    samples = (line for line in server.scrape().splitlines() if line.startswith("pawserve_requests_total"))
    return any(f'process="{process}"' in line and method in line for line in samples)


@contextmanager
def connections(address: str, count: int) -> Iterator[list[grpc.Channel]]:
    """So many connections, which the kernel divides between the processes."""
    with ExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        yield [stack.enter_context(grpc.insecure_channel(address, options)) for _ in range(count)]


def tokens_of_all_processes(server: ObservedServer) -> list[str]:
    """Classify images until every process has; the tokens of all predictions."""
    tokens: list[str] = []
    while not all(has_served(server, process) for process in PROCESSES):
        with connections(server.address, 4) as channels:
            for channel in channels:
                request = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)])
                answer = pb_grpc.ClassifierStub(channel).Classify(request, timeout=LIMIT_S)
                tokens.append(answer.results[0].prediction.token)
    return tokens


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ObservedServer]:
    write_bundle(tmp_path / "models")
    with observed_server(tmp_path, "--processes", 2, "--poll-interval", 0) as server:
        started = children(server.process.pid)
        yield server
    assert not any(map(is_alive, started.values()))


def test_both_processes_serve_with_the_same_keys_and_statistics_and_are_one_scrape(server: ObservedServer) -> None:
    assert "; 2 processes; metrics on " in server.process.stdout
    tokens = tokens_of_all_processes(server)
    with Client(server.address) as client:  # on one of the processes, with tokens of both
        recorded = client.record_labels([(token, "red") for token in tokens])
        assert [each.label for each in recorded] == ["red"] * len(tokens)
        (statistics,) = client.statistics()
        assert statistics.labels == len(tokens)
    text = server.scrape("application/openmetrics-text")
    assert text.count("# TYPE pawserve_rows_in_flight gauge") == 1
    limits = [server.metric("pawserve_rows_in_flight_limit", process=p, model="colours", version="1") for p in "12"]
    assert limits == [512, 512]


def test_a_killed_process_is_restarted_while_the_other_serves_and_no_acknowledged_label_is_lost(
    server: ObservedServer, tmp_path: Path
) -> None:
    rng = random.Random(0)
    clients: list[LabellingClient] = []
    threads: list[threading.Thread] = []
    while not all(has_served(server, process) for process in PROCESSES):
        clients.append(LabellingClient(rng.getrandbits(32)))
        threads.append(threading.Thread(target=clients[-1].call_until_gone, args=(server.address,)))
        threads[-1].start()
    killed = children(server.process.pid)["1"]
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: not all(thread.is_alive() for thread in threads))
    going_on = [client for client, thread in zip(clients, threads, strict=True) if thread.is_alive()]
    before = [len(client.acknowledged) for client in going_on]
    assert eventually(lambda: [len(client.acknowledged) for client in going_on] > before)
    assert eventually(lambda: up(server) == [1, 1])
    assert server.metric("pawserve_process_restarts_total", process="1") == 1
    assert server.metric("pawserve_process_restarts_total", process="2") == 0
    assert children(server.process.pid)["1"] != killed
    assert "process 1 was ended by SIGKILL; it is started again" in server.process.stderr
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait() == 0
    for thread in threads:
        thread.join(LIMIT_S)
    assert check_labels(tmp_path / "state" / "statistics.sqlite", clients) > 0


def test_models_are_listed_and_healthy_once_all_processes_serve_them(server: ObservedServer, tmp_path: Path) -> None:
    new = "models/colours/versions/2"
    write_bundle(tmp_path / "models", version=2)
    server.process.send_signal(signal.SIGHUP)
    with connections(server.address, 8) as channels, Client(server.address) as client:
        assert eventually(lambda: {m.name: m.state for m in client.list_models()} == {new: pb.MODEL_STATE_READY})
        for channel in channels:
            request = pb.ClassifyRequest(model=new, images=[pb.ImageInput(content=RED)])
            assert pb_grpc.ClassifierStub(channel).Classify(request, timeout=LIMIT_S).model == new
        health = [health_pb2_grpc.HealthStub(channel) for channel in channels]
        check = health_pb2.HealthCheckRequest(service=new)
        assert eventually(lambda: all(each.Check(check).status == 1 for each in health))


def test_a_client_unloads_and_loads_a_model_in_all_processes_and_in_those_that_start_later(
    server: ObservedServer,
) -> None:
    with connections(server.address, 8) as channels:
        stubs = [open_inference_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in channels]
        ready = open_inference_pb2.ModelReadyRequest(name="colours")
        assert all(stub.ModelReady(ready, timeout=LIMIT_S).ready for stub in stubs)
        stubs[0].RepositoryModelUnload(
            open_inference_pb2.RepositoryModelUnloadRequest(model_name="colours"), timeout=LIMIT_S
        )
        assert not any(stub.ModelReady(ready, timeout=LIMIT_S).ready for stub in stubs)
    os.kill(children(server.process.pid)["2"], signal.SIGKILL)
    assert eventually(lambda: server.metric("pawserve_process_restarts_total", process="2") == 1)
    assert eventually(lambda: up(server) == [1, 1])
    with connections(server.address, 8) as channels:
        stubs = [open_inference_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in channels]
        assert not any(stub.ModelReady(ready, timeout=LIMIT_S).ready for stub in stubs)
        load = open_inference_pb2.RepositoryModelLoadRequest(model_name="colours")
        stubs[0].RepositoryModelLoad(load, timeout=LIMIT_S)
        assert all(stub.ModelReady(ready, timeout=LIMIT_S).ready for stub in stubs)


def test_no_process_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with stoppable_server(tmp_path / "models", tmp_path / "state", "--processes", 2) as (server, _):
        started = children(server.pid)
        server.send_signal(signal.SIGKILL)
        server.wait()
    assert len(started) == 2
    assert eventually(lambda: not any(map(is_alive, started.values())))


def test_a_second_signal_ends_the_calls_in_flight_of_all_processes(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=20)
    with (
        observed_server(tmp_path, "--processes", 2, "--grace", 600) as server,
        connections(server.address, 8) as channels,
    ):
        request = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)] * 32, views=4)
        calls = [pb_grpc.ClassifierStub(channel).Classify.future(request, timeout=LIMIT_S) for channel in channels]
        labels = {"model": "colours", "version": "1"}
        assert eventually(
            lambda: all(server.metric("pawserve_rows_in_flight", process=process, **labels) for process in PROCESSES)
        )
        server.process.send_signal(signal.SIGINT)
        server.process.wait_until(lambda: server.process.stderr.count("shutting down") == 2)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait() == 0
        assert any(call.exception() for call in calls)


def test_a_process_that_ends_while_it_starts_does_not_keep_the_other_from_serving(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    options = ("--models", tmp_path / "models", "--state", tmp_path / "state", "--listen", "127.0.0.1:0")
    server = WarmProcess(main_of, "serving", "serve", *options, "--http", "off", "--processes", 2)
    try:
        server.wait_until(lambda: len(children(server.pid)) == 2)
        os.kill(children(server.pid)["2"], signal.SIGKILL)
        server.printed("ready on .*; 1 of 2 processes")
        server.wait_until(lambda: "process 2 serves again" in server.stderr)
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        server.close()


def test_a_start_fails_with_one_reason_if_no_process_comes_up(tmp_path: Path) -> None:
    options = ("--models", tmp_path / "none", "--state", tmp_path / "state", "--listen", "127.0.0.1:0")
    finished = run("serving", "serve", "--processes", 2, *options)
    assert finished.returncode == 1
    assert finished.stderr.count(str(tmp_path / "none")) == 1
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--processes", 2, "--listen", "unix:/tmp/pawserve.sock"), "not on one Unix socket"),
        (("--processes", 100), "a request may ask for 16 views"),
        (("--processes", "many"), "'many' is not a whole number from 1 to 256, or auto"),
    ],
)
def test_options_that_several_processes_cannot_have_are_wrong_use(
    tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    finished = run("serving", "serve", "--models", tmp_path, *options)
    assert finished.returncode == 2
    assert message in finished.stderr


def test_a_label_is_joined_with_the_shadow_result_of_another_process(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    write_bundle(tmp_path / "models", version=2)
    with observed_server(tmp_path, "--processes", 2, "--poll-interval", 0, "--shadow", "colours/2") as server:
        tokens = tokens_of_all_processes(server)
        with Client(server.address) as client:  # on one of the processes, with tokens of both
            assert {model.name: model.shadow_share for model in client.list_models()} == {
                "models/colours/versions/1": 0.0,
                "models/colours/versions/2": 1.0,
            }
            client.record_labels([(token, "red") for token in tokens])
            assert eventually(lambda: [each.labels for each in client.statistics()] == [len(tokens)] * 2)
            assert [each.predictions for each in client.statistics()] == [len(tokens)] * 2


def test_all_processes_follow_a_promotion_and_so_does_one_that_starts_later(
    server: ObservedServer, tmp_path: Path
) -> None:
    def primary_versions() -> set[str]:
        with connections(server.address, 8) as channels:
            request = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)], model="models/colours")
            return {pb_grpc.ClassifierStub(each).Classify(request, timeout=LIMIT_S).model[-1] for each in channels}

    write_bundle(tmp_path / "models", version=2)
    write_choice(tmp_path / "models" / "colours", PrimaryChoice(1))
    server.process.send_signal(signal.SIGHUP)
    with Client(server.address, timeout_s=LIMIT_S) as client:
        assert eventually(lambda: [model.name[-1] for model in client.list_models() if model.engine] == ["1", "2"])
    assert primary_versions() == {"1"}
    write_choice(tmp_path / "models" / "colours", PrimaryChoice(2))
    server.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: primary_versions() == {"2"})
    write_choice(tmp_path / "models" / "colours", PrimaryChoice(1))
    os.kill(children(server.process.pid)["2"], signal.SIGKILL)
    server.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: up(server) == [1.0, 1.0] and primary_versions() == {"1"})
