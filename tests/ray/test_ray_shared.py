"""Replicas on a real local Ray whose statistics are in PostgreSQL, and whose callers have tokens."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from serving.client import Client, ClientError, Credentials, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.ray.calls import COLOURS, labelled, picture, refusal
from tests.support.bundles import write_bundle
from tests.support.commands import eventually, run, serving
from tests.support.postgresql import PASSWORD, Postgresql

pytest.importorskip("ray", reason="needs Ray: make ray-check")

from tests.ray.cluster import Cluster, cluster, free_port  # noqa: E402

TOKENS = {name: f"{name}-{'x' * 40}" for name in ("camera", "labeller", "operator")}
CALLERS = (
    f"predict camera {TOKENS['camera']}\nlabel labeller {TOKENS['labeller']}\nadmin operator {TOKENS['operator']}\n"
)


@dataclass(frozen=True)
class Shared:
    """A cluster, and what its replicas share."""

    ray: Cluster
    folder: Path
    callers: Path
    database: str

    def as_(self, name: str) -> Client:
        """A client on a connection of its own."""
        return Client(self.ray.address, timeout_s=60, credentials=Credentials(token=TOKENS[name]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, postgresql: Postgresql) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    write_bundle(folder / "models")
    callers = folder / "callers"
    callers.write_text(CALLERS)
    callers.chmod(0o600)
    database = postgresql.create()
    options = ("--replicas", 2, "--cpus", 0.5, "--auth-tokens", callers)
    with cluster(folder, *options, PAWSERVE_STATISTICS=database) as ray:
        assert eventually(lambda: len(ray.replicas()) == 2, within_s=60)
        yield Shared(ray, folder, callers, database)


def test_labels_count_once_whichever_replica_they_come_to(shared: Shared) -> None:
    for round_ in range(8):  # each connection may lead to another replica
        with shared.as_("camera") as camera, shared.as_("labeller") as labeller, shared.as_("labeller") as again:
            before, _ = labelled(labeller)
            assert before == round_ * len(COLOURS)
            results = camera.classify([picture(colour) for colour in COLOURS]).results
            tokens = [result.token for result in results if isinstance(result, Prediction)]
            for client in (labeller, again):
                recorded = client.record_labels(list(zip(tokens, COLOURS, strict=True)))
                assert not [each for each in recorded if isinstance(each, ClientError)]
            assert labelled(again) == (before + len(COLOURS), before + len(COLOURS))


def test_a_plain_server_on_the_same_database_and_key_knows_the_same(shared: Shared, tmp_path: Path) -> None:
    key = shared.folder / "state" / "token.key"
    with (
        shared.as_("operator") as operator,
        serving(
            shared.folder / "models", tmp_path / "state", "--statistics", shared.database, "--token-key", key
        ) as plain,
        Client(plain) as client,
    ):
        [result] = operator.classify([picture("red")]).results
        assert isinstance(result, Prediction)
        before, _ = labelled(operator)
        [recorded] = client.record_labels([(result.token, "green")])
        assert not isinstance(recorded, ClientError)
        assert labelled(operator)[0] == labelled(client)[0] == before + 1


def classify(metadata: tuple[tuple[str, str], ...]) -> Callable[[grpc.Channel], object]:
    request = pb.ClassifyRequest(images=[pb.ImageInput(content=picture("red"))])
    return lambda channel: pb_grpc.ClassifierStub(channel).Classify(request, metadata=metadata, timeout=60)


def watch(metadata: tuple[tuple[str, str], ...]) -> Callable[[grpc.Channel], object]:
    request = pb.WatchStatisticsRequest()
    return lambda channel: list(pb_grpc.ClassifierStub(channel).WatchStatistics(request, metadata=metadata, timeout=60))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def test_callers_are_refused_as_the_plain_server_refuses_them(shared: Shared, tmp_path: Path) -> None:
    refused: dict[str, tuple[Callable[[grpc.Channel], object], grpc.StatusCode]] = {
        "no token": (classify(()), grpc.StatusCode.UNAUTHENTICATED),
        "a token that nobody has": (classify(bearer("y" * 40)), grpc.StatusCode.UNAUTHENTICATED),
        "no bearer": (classify((("authorization", "Basic cGF3"),)), grpc.StatusCode.UNAUTHENTICATED),
        "another role": (classify(bearer(TOKENS["labeller"])), grpc.StatusCode.PERMISSION_DENIED),
        "another role's stream": (watch(bearer(TOKENS["camera"])), grpc.StatusCode.PERMISSION_DENIED),
    }
    with serving(shared.folder / "models", tmp_path / "state", "--auth-tokens", shared.callers) as plain:
        for what, (ask, code) in refused.items():
            of_ray = refusal(shared.ray.address, ask)
            assert of_ray[0] == code, what
            assert of_ray == refusal(plain, ask), what


def test_health_needs_no_token_and_reflection_is_off(shared: Shared) -> None:
    with Client(shared.ray.address, timeout_s=60) as nobody:
        assert nobody.health() == "SERVING"
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    code, *_ = refusal(shared.ray.address, lambda channel: list(channel.stream_stream(reflection)(iter([b""]))))
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_a_caller_who_is_added_to_the_file_may_call_within_seconds(shared: Shared) -> None:
    token = "newcomer-" + "z" * 40
    replaced = shared.callers.with_name("callers.new")
    replaced.write_text(f"{CALLERS}predict newcomer {token}\n")
    replaced.chmod(0o600)
    replaced.replace(shared.callers)

    def is_let_in() -> bool:
        credentials = Credentials(token=token)
        with Client(shared.ray.address, timeout_s=60, credentials=credentials) as newcomer, suppress(ClientError):
            return bool(newcomer.classify([picture("red")]).results)
        return False

    assert eventually(is_let_in, within_s=60)


def test_without_the_database_photos_are_classified_and_labels_wait_for_it(
    shared: Shared, postgresql: Postgresql
) -> None:
    with shared.as_("camera") as camera, shared.as_("labeller") as labeller:
        before, _ = labelled(labeller)
        postgresql.stop("immediate")
        try:
            [result] = camera.classify([picture("blue")]).results
            assert isinstance(result, Prediction)
            with pytest.raises(ClientError) as refused:
                labeller.record_labels([(result.token, "blue")])
            assert refused.value.code == grpc.StatusCode.UNAVAILABLE
            assert PASSWORD not in refused.value.message
        finally:
            postgresql.start()

        def is_recorded() -> bool:
            with suppress(ClientError):
                return not isinstance(labeller.record_labels([(result.token, "blue")])[0], ClientError)
            return False

        assert eventually(is_recorded, within_s=60)
        assert labelled(labeller)[0] == before + 1


def test_why_replicas_do_not_start_is_said_in_one_line(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    url = f"postgresql://pawserve:{PASSWORD}@127.0.0.1:1/nowhere"
    finished = run(
        *("serving", "ray", "--models", tmp_path / "models", "--state", tmp_path / "state", "--cpus", 0.5),
        *("--listen", f"127.0.0.1:{free_port()}", "--statistics", url),
    )
    assert finished.returncode == 1
    [said] = [line for line in finished.stderr.splitlines() if line.startswith("pawserve: ")]
    assert said.startswith("pawserve: statistics in postgresql://127.0.0.1:1/nowhere are not available")
    assert PASSWORD not in finished.stdout + finished.stderr
