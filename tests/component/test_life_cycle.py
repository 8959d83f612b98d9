"""A server from start to shutdown: what prevents the start, and what becomes of calls in flight."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.client import Client, ClientError
from serving.pb.pawserve.v1 import classifier_pb2, classifier_pb2_grpc
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT, run
from tests.support.images import RED
from tests.support.servers import ObservedServer, observed_server, running_server, stoppable_server
from tests.support.waiting import LIMIT_S, eventually


def failed_start(*arguments: object) -> tuple[int, str]:
    finished = run("serving", "serve", "--listen", "127.0.0.1:0", *arguments)
    assert "Traceback" not in finished.stderr
    return finished.returncode, finished.stderr


def has_rows_in_flight(server: ObservedServer) -> bool:
    return bool(server.metric("pawserve_rows_in_flight", model="colours", version="1"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_shutdown_answers_calls_in_flight_reports_not_serving_and_exits_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    write_bundle(tmp_path / "models", slowness=20)
    with observed_server(tmp_path, "--instances", 1) as server:
        answers: list[object] = []
        with Client(server.address, timeout_s=LIMIT_S) as client, grpc.insecure_channel(server.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            in_flight = threading.Thread(target=lambda: answers.append(client.classify([RED], views=4)))
            in_flight.start()
            assert eventually(lambda: has_rows_in_flight(server))
            server.process.send_signal(number)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            in_flight.join(LIMIT_S)
        assert len(answers) == 1
        assert server.process.wait() == 0


def test_tokens_stay_valid_after_a_restart(models: Path, tmp_path: Path) -> None:
    with running_server(models, tmp_path / "state") as address, Client(address, timeout_s=LIMIT_S) as client:
        (result,) = client.classify([RED]).results
    with running_server(models, tmp_path / "state") as address, Client(address, timeout_s=LIMIT_S) as client:
        (recorded,) = client.record_labels([(result.token, "red")])
        assert recorded.label == "red"
    with running_server(models, tmp_path / "another state") as address, Client(address, timeout_s=LIMIT_S) as client:
        (rejected,) = client.record_labels([(result.token, "red")])
        assert rejected.reason == "TOKEN_INVALID"


def test_a_label_must_be_a_class_of_the_version_that_predicted(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", version=1)
    with (
        running_server(tmp_path / "models", tmp_path / "state") as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        (result,) = client.classify([RED]).results
    write_bundle(tmp_path / "models", version=2, classes=("azure", "lime", "red"))
    with (
        running_server(tmp_path / "models", tmp_path / "state") as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        assert client.classify([RED]).model == "models/colours/versions/2"
        rejected, recorded = client.record_labels([(result.token, "azure"), (result.token, "blue")])
        assert rejected.reason == "LABEL_UNKNOWN"
        assert recorded.model == "models/colours/versions/1"
        (statistics,) = client.statistics("models/colours/versions/1")
        assert list(statistics.classes) == ["blue", "green", "red"]


def test_a_second_server_on_the_same_port_does_not_start(models: Path, tmp_path: Path) -> None:
    with running_server(models, tmp_path / "state") as address:
        code, errors = failed_start("--models", models, "--state", tmp_path / "other", "--listen", address)
    assert code == 1
    assert errors.startswith(f"pawserve: cannot listen on {address}")  # before it loads models
    assert len(errors.splitlines()) == 1


def test_a_damaged_bundle_prevents_the_start_with_the_reason(models: Path, tmp_path: Path) -> None:
    graph = models / "colours" / "1" / "model.fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    code, errors = failed_start("--models", models, "--state", tmp_path / "state")
    assert code == 1
    assert "changed after the export" in errors
    write_bundle(models, "birds", classes=("a", "b"))
    code, errors = failed_start("--models", models, "--model", "birds", "--state", tmp_path / "state")
    assert code == 1
    assert "expected probabilities tensor(float) [N, 2]" in errors


@pytest.mark.parametrize(("below", "kind"), [("colours", "the versions of one model"), ("colours/1", "one bundle")])
def test_a_folder_within_the_model_folder_is_recognised(models: Path, tmp_path: Path, below: str, kind: str) -> None:
    code, errors = failed_start("--models", models / below, "--state", tmp_path / "state")
    assert code == 1
    assert kind in errors
    assert f"give --models {models}\n" in errors


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_start_without_models_fails_with_the_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    code, errors = failed_start("--models", tmp_path / folder, "--state", tmp_path / "state")
    assert code == 1
    assert folder in errors


def test_an_unusable_state_folder_prevents_the_start(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, errors = failed_start("--models", models, "--state", tmp_path / "file")
    assert code == 1
    assert "--state" in errors


def test_an_unusable_file_of_keys_prevents_the_start(models: Path, tmp_path: Path) -> None:
    code, errors = failed_start("--models", models, "--state", tmp_path, "--token-key", tmp_path / "none" / "token.key")
    assert code == 1
    assert "none/token.key" in errors
    assert "--token-key" in errors


def test_reflection_lists_the_services(models: Path, tmp_path: Path) -> None:
    with running_server(models, tmp_path / "state") as address, grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=LIMIT_S)
        names = {service.name for service in answer.list_services_response.service}
    assert {"pawserve.v1.Classifier", "grpc.health.v1.Health"} <= names


def test_the_server_imports_neither_torch_nor_training_nor_export() -> None:
    program = (
        "import sys, serving.server, serving.__main__; "
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'timm', 'training', 'export', 'onnx')])"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_a_second_signal_ends_the_calls_in_flight(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=20)
    with observed_server(tmp_path, "--instances", 1, "--grace", 600) as server:
        failures: list[ClientError] = []

        def ask() -> None:
            try:
                client.classify([RED] * 64, views=4)
            except ClientError as error:
                failures.append(error)

        with Client(server.address, timeout_s=LIMIT_S) as client:
            in_flight = threading.Thread(target=ask)
            in_flight.start()
            assert eventually(lambda: has_rows_in_flight(server))
            server.process.send_signal(signal.SIGTERM)
            server.process.wait_until(lambda: "shutting down" in server.process.stderr)
            assert server.process.returncode is None  # it waits for the call
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait() == 0
            in_flight.join(LIMIT_S)
    assert [error.code for error in failures] == [grpc.StatusCode.UNAVAILABLE]


def test_the_grace_period_ends_slow_calls_and_counts_are_kept(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=20)
    with (
        observed_server(tmp_path, "--instances", 1, "--grace", 0.2) as server,
        Client(server.address, timeout_s=LIMIT_S) as client,
    ):
        client.classify([RED])
        in_flight = threading.Thread(target=lambda: pytest.raises(ClientError, client.classify, [RED] * 64, views=4))
        in_flight.start()
        assert eventually(lambda: has_rows_in_flight(server))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait() == 0
        in_flight.join(LIMIT_S)
    with (
        stoppable_server(tmp_path / "models", tmp_path / "state") as (_, address),
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        (statistics,) = client.statistics()
    assert statistics.predictions == 1


def test_a_new_call_during_the_shutdown_is_unavailable(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", slowness=20)
    with observed_server(tmp_path, "--instances", 1, "--grace", LIMIT_S) as server:
        with Client(server.address, timeout_s=LIMIT_S) as client, Client(server.address, timeout_s=LIMIT_S) as late:
            late.health()
            in_flight = threading.Thread(target=lambda: client.classify([RED] * 8))
            in_flight.start()
            assert eventually(lambda: has_rows_in_flight(server))
            server.process.send_signal(signal.SIGTERM)

            def is_unavailable() -> bool:
                try:
                    late.classify([RED])
                except ClientError as error:
                    return error.code == grpc.StatusCode.UNAVAILABLE
                return False

            assert eventually(is_unavailable)
            in_flight.join(LIMIT_S)
        assert server.process.wait() == 0


def test_reflection_can_be_disabled(models: Path, tmp_path: Path) -> None:
    with (
        running_server(models, tmp_path / "state", "--no-reflection") as address,
        grpc.insecure_channel(address) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ServerReflectionInfo(iter([request]), timeout=LIMIT_S))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_calls_that_a_shutdown_under_load_ends_are_unavailable_so_that_clients_repeat_them(
    models: Path, tmp_path: Path
) -> None:
    codes: Counter[grpc.StatusCode] = Counter()
    with stoppable_server(models, tmp_path / "state") as (server, address):
        served = threading.Barrier(17)

        def call() -> None:
            # a connection each, and the next call right after each response
            with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = classifier_pb2_grpc.ClassifierStub(channel)
                for number in range(100_000):
                    try:
                        stub.ListModels(classifier_pb2.ListModelsRequest(), timeout=LIMIT_S)
                    except grpc.RpcError as error:
                        codes[error.code()] += 1
                        return
                    if number == 20:
                        served.wait(LIMIT_S)

        clients = [threading.Thread(target=call) for _ in range(16)]
        for client in clients:
            client.start()
        served.wait(LIMIT_S)
        server.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(LIMIT_S)
        assert server.wait() == 0
    # without DrainInterceptor two thirds are CANCELLED; a client that a busy machine suspends may still be
    assert codes[grpc.StatusCode.UNAVAILABLE] >= 12
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
