"""Authentication by tokens, and what each role allows."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from serving.api.access import NEEDS
from serving.client import AsyncClient, Client, ClientError, Credentials, Prediction
from serving.pb.inference import open_inference_pb2 as inference_pb
from serving.pb.inference import open_inference_pb2_grpc as inference_grpc
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.commands import run
from tests.support.images import RED
from tests.support.servers import running_server, stoppable_server, write_clients
from tests.support.waiting import LIMIT_S, eventually

TOKENS = {name: f"{name}-{'x' * 40}" for name in ("camera", "labeller", "operator", "both")}
CLIENTS = f"""
predict         camera    {TOKENS["camera"]}    # plain
label           labeller  {TOKENS["labeller"]}
admin           operator  {TOKENS["operator"]}
predict,label   both      {TOKENS["both"]}
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guarded")
    write_bundle(folder / "models")
    clients = write_clients(folder / "clients", CLIENTS)
    with running_server(folder / "models", folder / "state", "--auth-tokens", clients) as address:
        yield address


def as_(name: str, address: str) -> Client:
    return Client(address, timeout_s=LIMIT_S, credentials=Credentials(token=TOKENS.get(name, name)))


def rejected(call: object) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call()  # type: ignore[operator]
    assert "xxxx" not in caught.value.message
    return caught.value.code.name, caught.value.reason


def test_each_role_allows_its_methods_and_no_others(address: str) -> None:
    with as_("camera", address) as camera, as_("labeller", address) as labeller, as_("operator", address) as operator:
        (result,) = camera.classify([RED]).results
        assert isinstance(result, Prediction)
        assert labeller.record_labels([(result.token, "red")])
        assert labeller.statistics()
        denied = ("PERMISSION_DENIED", "ROLE_MISSING")
        assert rejected(lambda: camera.record_labels([(result.token, "red")])) == denied
        assert rejected(camera.statistics) == denied
        assert rejected(lambda: labeller.classify([RED])) == denied
        for client in (camera, labeller, operator):
            assert client.list_models()
        assert operator.classify([RED], labels=["red"])
        assert operator.statistics()


def test_the_role_predict_allows_to_list_models_but_not_to_unload_them(address: str) -> None:
    metadata = [("authorization", f"Bearer {TOKENS['camera']}")]
    with grpc.insecure_channel(address) as channel:
        stub = inference_grpc.GRPCInferenceServiceStub(channel)
        (model,) = stub.RepositoryIndex(
            inference_pb.RepositoryIndexRequest(), metadata=metadata, timeout=LIMIT_S
        ).models
        assert model.state == "READY"
        unload = inference_pb.RepositoryModelUnloadRequest(model_name=model.name)
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelUnload(unload, metadata=metadata, timeout=LIMIT_S)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_a_label_in_a_classify_request_needs_the_role_label(address: str) -> None:
    with as_("camera", address) as camera, as_("both", address) as both:
        assert rejected(lambda: camera.classify([RED], labels=["red"])) == ("PERMISSION_DENIED", "ROLE_MISSING")
        assert isinstance(both.classify([RED], labels=["red"]).results[0], Prediction)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "CREDENTIALS_MISSING"),
        ([("authorization", "Bearer wrong")], "CREDENTIALS_INVALID"),
        ([("authorization", "Bearer ")], "CREDENTIALS_INVALID"),
        ([("authorization", TOKENS["camera"])], "CREDENTIALS_INVALID"),
        ([("authorization", f"Basic {TOKENS['camera']}")], "CREDENTIALS_INVALID"),
        ([("authorization", f"Bearer {TOKENS['camera'][:-1]}")], "CREDENTIALS_INVALID"),
        ([("authorization", f"Bearer {'x' * 5000}")], "CREDENTIALS_INVALID"),
        ([("authorization", f"Bearer {TOKENS['camera']}"), ("authorization", "Bearer b")], "CREDENTIALS_INVALID"),
    ],
)
@pytest.mark.parametrize("method", ["Classify", "ClassifyStream", "RecordLabels", "WatchStatistics", "NoSuchMethod"])
def test_a_call_without_valid_credentials_is_unauthenticated_for_every_kind_of_method(
    address: str, metadata: list[tuple[str, str]], reason: str, method: str
) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(f"/pawserve.v1.Classifier/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b""]), metadata=metadata, timeout=LIMIT_S))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert reason in str(rpc_status.from_call(caught.value).details[0].value)


def test_a_large_request_of_an_unknown_client_is_rejected_before_it_is_read(address: str) -> None:
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        stub = pb_grpc.ClassifierStub(channel)
        request = pb.ClassifyRequest(images=[pb.ImageInput(content=b"\0" * (33 * 2**20))])
        with pytest.raises(grpc.RpcError) as caught:
            stub.Classify(request, timeout=LIMIT_S)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED  # RESOURCE_EXHAUSTED if it were read


def test_the_health_command_needs_no_token(address: str) -> None:
    told = run("serving", "health", "--server", address)
    assert (told.returncode, told.stdout.split()) == (0, ["SERVING"])


def test_health_needs_no_role_and_reflection_needs_admin(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S).status == 1
        assert next(health.Watch(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)).status == 1
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    for name, code in (("camera", grpc.StatusCode.PERMISSION_DENIED), ("operator", None)):
        with grpc.insecure_channel(address) as channel:
            answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([request]), timeout=LIMIT_S, metadata=[("authorization", f"Bearer {TOKENS[name]}")]
            )
            if code is None:
                assert next(answers).list_services_response.service
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    next(answers)
                assert caught.value.code() == code


def test_the_asyncio_client_sends_the_token_too(address: str) -> None:
    async def classify() -> int:
        async with AsyncClient(address, timeout_s=LIMIT_S, credentials=Credentials(token=TOKENS["camera"])) as client:
            return len((await client.classify([RED])).results)

    assert asyncio.run(classify()) == 1


def test_every_method_has_its_required_role() -> None:
    served = {f"/{service.full_name}/{method.name}" for service in pb.DESCRIPTOR.services_by_name.values()
              for method in service.methods}  # fmt: skip
    assert served <= NEEDS.keys()


def test_a_changed_file_of_clients_takes_effect_without_a_restart_and_an_invalid_one_does_not(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    path = write_clients(tmp_path / "clients", CLIENTS)

    def code(client: Client) -> str:
        try:
            client.list_models()
        except ClientError as error:
            return error.code.name
        return "OK"

    with (
        stoppable_server(tmp_path / "models", tmp_path / "state", "--auth-tokens", path) as (server, address),
        as_("camera", address) as old,
        as_("y" * 40, address) as new,
    ):
        assert (code(old), code(new)) == ("OK", "UNAUTHENTICATED")
        write_clients(path, f"predict camera {'y' * 40}")
        assert eventually(lambda: code(new) == "OK")
        assert code(old) == "UNAUTHENTICATED"
        write_clients(path, "nonsense")
        assert eventually(lambda: code(new) != "OK" or "cannot be used" in server.stderr)
        assert code(new) == "OK"


def test_tokens_in_plaintext_are_rejected_beyond_this_machine(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    path = write_clients(tmp_path / "clients", CLIENTS)
    common = ("serving", "serve", "--models", tmp_path / "models", "--state", tmp_path / "state", "--auth-tokens", path)
    finished = run(*common, "--listen", "0.0.0.0:0")
    assert finished.returncode == 1
    assert "--allow-plaintext-tokens" in finished.stderr
    with pytest.raises(ValueError, match="in plaintext"):
        Client("photos.example:50051", credentials=Credentials(token="t" * 40))
    told = run("serving", "health", "--server", "photos.example:50051", PAWSERVE_TOKEN="t" * 40)
    assert told.returncode == 1
    assert "in plaintext" in told.stderr
    assert "tttt" not in told.stderr


def test_the_commands_send_the_token_of_a_file(address: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKENS["labeller"] + "\n")
    assert run("serving", "stats", "--server", address, "--token-file", file).returncode == 0
    assert run("serving", "stats", "--server", address, PAWSERVE_TOKEN_FILE=str(file)).returncode == 0
    rejected = run("serving", "stats", "--server", address)
    assert rejected.returncode == 1
    assert "give --token-file FILE, or set $PAWSERVE_TOKEN" in rejected.stderr


def test_a_new_token_opens_a_running_server(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    path = tmp_path / "clients"
    first = run("serving", "new-token", "camera", "--roles", "predict,label", "--file", path)
    assert first.returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.stdout.strip() not in path.read_text()
    with (
        running_server(tmp_path / "models", tmp_path / "state", "--auth-tokens", path) as address,
        as_(first.stdout.strip(), address) as client,
    ):
        assert client.list_models()
    wrong = run("serving", "new-token", "camera", "--roles", "root", "--file", path)
    assert wrong.returncode == 1
    assert "predict, label, admin" in wrong.stderr


@pytest.mark.parametrize(
    ("mode", "reason"), [(0o644, "sha256:HEX"), (0o620, "others may add clients"), (0o602, "others may add clients")]
)
def test_a_file_that_others_may_write_or_read_tokens_in_is_rejected(tmp_path: Path, mode: int, reason: str) -> None:
    write_bundle(tmp_path / "models")
    path = write_clients(tmp_path / "clients", CLIENTS)
    os.chmod(path, mode)
    finished = run(
        "serving", "serve", "--models", tmp_path / "models", "--state", tmp_path / "state", "--auth-tokens", path
    )
    assert finished.returncode == 1
    assert reason in finished.stderr
    assert "xxxx" not in finished.stderr
