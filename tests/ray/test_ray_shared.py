"""Replicas on a real local Ray with statistics in PostgreSQL and clients with tokens."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from serving.client import Client, ClientError, Credentials, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import write_bundle
from tests.support.commands import free_port, run
from tests.support.postgresql import PASSWORD, Postgresql
from tests.support.ray.calls import COLOURS, count_labels, error_of, image
from tests.support.servers import running_server, write_clients
from tests.support.waiting import LIMIT_S, eventually

pytest.importorskip("ray", reason="needs Ray: make ray-check")

from tests.support.ray.cluster import Cluster, cluster  # noqa: E402

TOKENS = {name: f"{name}-{'x' * 40}" for name in ("camera", "labeller", "operator")}
CLIENTS = (
    f"predict camera {TOKENS['camera']}\nlabel labeller {TOKENS['labeller']}\nadmin operator {TOKENS['operator']}\n"
)


@dataclass(frozen=True)
class Shared:
    """A cluster and what its replicas share."""

    ray: Cluster
    folder: Path
    clients: Path
    database: str

    def as_(self, name: str) -> Client:
        """A client on a connection of its own."""
        return Client(self.ray.address, timeout_s=LIMIT_S, credentials=Credentials(token=TOKENS[name]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, postgresql: Postgresql) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    write_bundle(folder / "models")
    clients = write_clients(folder / "clients", CLIENTS)
    database = postgresql.create()
    options = ("--replicas", 2, "--cpus", 0.5, "--clients", clients)
    with cluster(folder, *options, PAWSERVE_STATISTICS=database) as ray:
        assert eventually(lambda: len(ray.replicas()) == 2)
        yield Shared(ray, folder, clients, database)


def test_labels_count_once_whichever_replica_records_them(shared: Shared) -> None:
    for round_ in range(8):  # each connection may lead to another replica
        with shared.as_("camera") as camera, shared.as_("labeller") as labeller, shared.as_("labeller") as again:
            before, _ = count_labels(labeller)
            assert before == round_ * len(COLOURS)
            results = camera.classify([image(colour) for colour in COLOURS]).results
            tokens = [result.token for result in results if isinstance(result, Prediction)]
            for client in (labeller, again):
                recorded = client.record_labels(list(zip(tokens, COLOURS, strict=True)))
                assert not [each for each in recorded if isinstance(each, ClientError)]
            assert count_labels(again) == (before + len(COLOURS), before + len(COLOURS))


def test_a_plain_server_with_the_same_database_and_key_has_the_same_statistics(shared: Shared, tmp_path: Path) -> None:
    key = shared.folder / "state" / "token.key"
    with (
        shared.as_("operator") as operator,
        running_server(
            shared.folder / "models", tmp_path / "state", "--statistics", shared.database, "--token-key", key
        ) as plain,
        Client(plain) as client,
    ):
        [result] = operator.classify([image("red")]).results
        assert isinstance(result, Prediction)
        before, _ = count_labels(operator)
        [recorded] = client.record_labels([(result.token, "green")])
        assert not isinstance(recorded, ClientError)
        assert count_labels(operator)[0] == count_labels(client)[0] == before + 1


def classify(metadata: tuple[tuple[str, str], ...]) -> Callable[[grpc.Channel], object]:
    request = pb.ClassifyRequest(images=[pb.ImageInput(content=image("red"))])
    return lambda channel: pb_grpc.ClassifierStub(channel).Classify(request, metadata=metadata, timeout=LIMIT_S)


def watch(metadata: tuple[tuple[str, str], ...]) -> Callable[[grpc.Channel], object]:
    request = pb.WatchStatisticsRequest()
    return lambda channel: list(
        pb_grpc.ClassifierStub(channel).WatchStatistics(request, metadata=metadata, timeout=LIMIT_S)
    )


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def test_rejected_calls_have_the_errors_of_the_plain_server(shared: Shared, tmp_path: Path) -> None:
    rejected: dict[str, tuple[Callable[[grpc.Channel], object], grpc.StatusCode]] = {
        "no token": (classify(()), grpc.StatusCode.UNAUTHENTICATED),
        "an unknown token": (classify(bearer("y" * 40)), grpc.StatusCode.UNAUTHENTICATED),
        "not a bearer token": (classify((("authorization", "Basic cGF3"),)), grpc.StatusCode.UNAUTHENTICATED),
        "another role": (classify(bearer(TOKENS["labeller"])), grpc.StatusCode.PERMISSION_DENIED),
        "another role's stream": (watch(bearer(TOKENS["camera"])), grpc.StatusCode.PERMISSION_DENIED),
    }
    with running_server(shared.folder / "models", tmp_path / "state", "--clients", shared.clients) as plain:
        for what, (call, code) in rejected.items():
            of_ray = error_of(shared.ray.address, call)
            assert of_ray[0] == code, what
            assert of_ray == error_of(plain, call), what


def test_health_needs_no_token_and_reflection_is_off(shared: Shared) -> None:
    with Client(shared.ray.address, timeout_s=LIMIT_S) as client:
        assert client.health() == "SERVING"
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    code, *_ = error_of(shared.ray.address, lambda channel: list(channel.stream_stream(reflection)(iter([b""]))))
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_a_client_that_is_added_to_the_file_is_accepted(shared: Shared) -> None:
    token = "newcomer-" + "z" * 40
    replaced = write_clients(shared.clients.with_name("clients.new"), f"{CLIENTS}predict newcomer {token}\n")
    replaced.replace(shared.clients)

    def is_accepted() -> bool:
        credentials = Credentials(token=token)
        with Client(shared.ray.address, timeout_s=LIMIT_S, credentials=credentials) as newcomer, suppress(ClientError):
            return bool(newcomer.classify([image("red")]).results)
        return False

    assert eventually(is_accepted)


def test_without_the_database_images_are_classified_and_labels_are_rejected(
    shared: Shared, postgresql: Postgresql
) -> None:
    with shared.as_("camera") as camera, shared.as_("labeller") as labeller:
        before, _ = count_labels(labeller)
        postgresql.stop("immediate")
        try:
            [result] = camera.classify([image("blue")]).results
            assert isinstance(result, Prediction)
            with pytest.raises(ClientError) as rejected:
                labeller.record_labels([(result.token, "blue")])
            assert rejected.value.code == grpc.StatusCode.UNAVAILABLE
            assert PASSWORD not in rejected.value.message
        finally:
            postgresql.start()

        def is_recorded() -> bool:
            with suppress(ClientError):
                return not isinstance(labeller.record_labels([(result.token, "blue")])[0], ClientError)
            return False

        assert eventually(is_recorded)
        assert count_labels(labeller)[0] == before + 1


def test_the_reason_why_replicas_do_not_start_is_one_line(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    url = f"postgresql://pawserve:{PASSWORD}@127.0.0.1:1/nowhere"
    finished = run(
        *("serving", "ray", "--models", tmp_path / "models", "--state", tmp_path / "state", "--cpus", 0.5),
        *("--listen", f"127.0.0.1:{free_port()}", "--statistics", url),
    )
    assert finished.returncode == 1
    [line] = [line for line in finished.stderr.splitlines() if line.startswith("pawserve: ")]
    assert line.startswith("pawserve: statistics in postgresql://127.0.0.1:1/nowhere are not available")
    assert PASSWORD not in finished.stdout + finished.stderr
