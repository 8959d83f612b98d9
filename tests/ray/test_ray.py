"""The classifier on a real local Ray: `make ray-check` installs Ray and runs this."""

import inspect
import os
import resource
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client import Client, ClientError, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.ray.ingress import CLASSIFIER
from tests.support.bundles import write_bundle
from tests.support.commands import ROOT, run
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S, eventually

pytest.importorskip("ray", reason="needs Ray: make ray-check")

from tests.support.ray.calls import COLOURS, count_labels, error_of, image  # noqa: E402
from tests.support.ray.cluster import Cluster, cluster  # noqa: E402

CLIENTS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    for version in (1, 2, 3):
        write_bundle(folder / "models", version=version, slowness=2)
    return folder


@pytest.fixture(scope="module")
def ray(folder: Path) -> Iterator[Cluster]:
    options = ("--replicas", "1-2", "--target-requests", 2, "--upscale-delay", 0, "--downscale-delay", 2)
    with cluster(folder, *options, "--cpus", 0.5, "--more-versions", 1, "--max-message-mib", 1) as started:
        yield started


@pytest.fixture
def client(ray: Cluster) -> Iterator[Client]:
    with Client(ray.address, timeout_s=LIMIT_S) as client:
        yield client


class Load:
    """Clients that classify one image after another and record each label twice."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._executor = ThreadPoolExecutor(CLIENTS)
        self._threads = [self._executor.submit(self._call, name) for name in list(COLOURS) * (CLIENTS // len(COLOURS))]
        self.classified = 0

    def _call(self, colour: str) -> int:
        classified = 0
        with Client(self._address, timeout_s=LIMIT_S) as client:
            while not self._stopping.is_set():
                [result] = client.classify([image(colour)]).results
                assert isinstance(result, Prediction), result
                assert result.classes[0][0] == colour
                for _ in range(2):
                    [recorded] = client.record_labels([(result.token, colour)])
                    assert not isinstance(recorded, ClientError), recorded
                classified += 1
                self.classified += 1
        return classified

    def stop(self) -> int:
        """Stop; the number of images that were classified and labelled. Raises the first error of any client."""
        self._stopping.set()
        try:
            return sum(thread.result(timeout=LIMIT_S) for thread in self._threads)
        finally:
            self._executor.shutdown()


def test_replicas_follow_the_load_and_no_request_fails_when_one_is_killed(ray: Cluster, client: Client) -> None:
    before, _ = count_labels(client)
    load = Load(ray.address)
    try:
        assert eventually(lambda: len(ray.replicas()) == 2), "no second replica was added"
        seen = load.classified
        assert eventually(lambda: load.classified > seen + 20)
        killed = min(ray.replicas())
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: killed not in ray.replicas() and len(ray.replicas()) == 2)
        seen = load.classified
        assert eventually(lambda: load.classified > seen + 20)
    finally:
        classified = load.stop()
    labels, correct = count_labels(client)
    assert labels == before + classified
    assert correct == labels
    assert eventually(lambda: len(ray.replicas()) == 1), "the second replica was not removed"
    assert client.health() == "SERVING"


def test_a_replica_without_memory_is_replaced_or_continues(ray: Cluster, client: Client) -> None:
    starved = min(ray.replicas())
    status = Path(f"/proc/{starved}/status").read_text()
    used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize")) * 1024
    resource.prlimit(starved, resource.RLIMIT_AS, (used + 2**20, used + 2**20))
    large = image("red", 4000)

    for _ in range(3):
        with suppress(ClientError):  # the error depends on where the memory ran out
            client.classify([large], views=16)
    if starved in ray.replicas():  # it survived, so kill it as the kernel would
        os.kill(starved, signal.SIGKILL)
    assert eventually(lambda: bool(ray.replicas() - {starved}))
    [result] = client.classify([large], views=16).results
    assert isinstance(result, Prediction)


def test_versions_are_loaded_when_clients_name_them_a_few_at_a_time(ray: Cluster, client: Client) -> None:
    assert eventually(lambda: len(ray.replicas()) == 1)  # otherwise another one may answer ListModels

    def served() -> list[str]:
        return [model.name for model in client.list_models() if model.state == pb.MODEL_STATE_READY]

    newest, older, oldest = (f"models/colours/versions/{version}" for version in (3, 2, 1))
    assert client.classify([image("red")]).model == newest
    assert client.classify([image("red")], model=older).model == older
    assert set(served()) == {newest, older}
    assert client.classify([image("red")], model=oldest).model == oldest
    assert eventually(lambda: set(served()) == {newest, oldest})
    answers = client.classify_many([image("green"), image("blue")] * 4, model=older)
    assert {(answer.model, type(answer.result)) for answer in answers} == {(older, Prediction)}
    assert client.classify([image("red")]).model == newest
    with pytest.raises(ClientError, match="versions/9 is not served"):
        client.classify([image("red")], model="models/colours/versions/9")


def test_metadata_choose_the_version_if_the_request_names_none(ray: Cluster) -> None:
    request = pb.ClassifyRequest(images=[pb.ImageInput(content=image("red"))])
    metadata = (("multiplexed_model_id", "models/colours/versions/1"),)
    with grpc.insecure_channel(ray.address) as channel:
        answer = pb_grpc.ClassifierStub(channel).Classify(request, metadata=metadata, timeout=LIMIT_S)
    assert answer.model == "models/colours/versions/1"


BAD: dict[str, Callable[[grpc.Channel], object]] = {
    "no images": lambda channel: pb_grpc.ClassifierStub(channel).Classify(pb.ClassifyRequest(), timeout=LIMIT_S),
    "too many views": lambda channel: pb_grpc.ClassifierStub(channel).Classify(
        pb.ClassifyRequest(views=99, images=[pb.ImageInput()]), timeout=LIMIT_S
    ),
    "not a model name": lambda channel: pb_grpc.ClassifierStub(channel).Classify(
        pb.ClassifyRequest(model="cats", images=[pb.ImageInput()]), timeout=LIMIT_S
    ),
    "not a message": lambda channel: channel.unary_unary("/pawserve.v1.Classifier/Classify")(
        b"\xff\xff", timeout=LIMIT_S
    ),
    "too large": lambda channel: channel.unary_unary("/pawserve.v1.Classifier/Classify")(bytes(2**21), timeout=LIMIT_S),
    "statistics of an invalid name": lambda channel: pb_grpc.ClassifierStub(channel).GetStatistics(
        pb.GetStatisticsRequest(model="cats"), timeout=LIMIT_S
    ),
    "watching an invalid name": lambda channel: list(
        pb_grpc.ClassifierStub(channel).WatchStatistics(pb.WatchStatisticsRequest(model="cats"), timeout=LIMIT_S)
    ),
    "an unknown method": lambda channel: channel.unary_unary("/pawserve.v1.Classifier/Nap")(b"", timeout=LIMIT_S),
    "health of an unknown service": lambda channel: health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service="cats"), timeout=LIMIT_S
    ),
}


def test_errors_are_those_of_the_plain_server(ray: Cluster, folder: Path, tmp_path: Path) -> None:
    with running_server(folder / "models", tmp_path / "state", "--max-message-mib", 1) as plain:
        for what, call in BAD.items():
            assert error_of(ray.address, call) == error_of(plain, call), what


def test_responses_carry_the_request_id(ray: Cluster) -> None:
    with grpc.insecure_channel(ray.address) as channel:
        call = channel.unary_unary("/pawserve.v1.Classifier/ListModels").with_call
        _, answered = call(b"", metadata=(("x-request-id", "web-17"),), timeout=LIMIT_S)
    assert dict(answered.trailing_metadata())["x-request-id"] == "web-17"


def test_statistics_are_watched_through_the_ingress(ray: Cluster, client: Client) -> None:
    before, _ = count_labels(client)
    [result] = client.classify([image("red")]).results
    assert isinstance(result, Prediction)
    with grpc.insecure_channel(ray.address) as channel:
        watch = pb_grpc.ClassifierStub(channel).WatchStatistics(pb.WatchStatisticsRequest(), timeout=LIMIT_S)
        next(watch)
        client.record_labels([(result.token, "blue")])
        for statistics in watch:
            if sum(model.labels for model in statistics.models) == before + 1:
                break
        else:
            pytest.fail("the stream ended before it reported the label")
        watch.cancel()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--models", "nowhere"), 1, "nowhere is not a folder"),
        (("--replicas", 99), 2, "99 replicas of 1 CPUs need 99"),
        (("--tls-cert", "a.pem", "--tls-key", "a.key"), 2, "--tls-cert is not supported on Ray"),
        (("--metrics", "127.0.0.1:0"), 2, "--metrics is not supported on Ray"),
        (("--listen", "127.0.0.1:0"), 2, "needs a port other than 0"),
    ],
)
def test_unsupported_options_are_rejected_before_ray_starts(
    arguments: tuple[object, ...], code: int, message: str
) -> None:
    finished = run("serving", "ray", *arguments)
    assert finished.returncode == code
    assert message in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_a_replica_has_every_method_of_the_classifier() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        from serving.ray.app import ClassifierReplica

    for method in CLASSIFIER.methods:
        behaviour = getattr(ClassifierReplica, method.name)
        assert inspect.isasyncgenfunction(behaviour) == method.server_streaming


def test_ray_serve_accepts_the_configuration_file() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        from ray.serve.schema import ServeDeploySchema

        from serving.ray.app import DEPLOYMENT, build

        configuration = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text()))
        [application] = configuration.applications
        assert [deployment.name for deployment in application.deployments] == [DEPLOYMENT]
        build(application.args)
        with pytest.raises(ValueError, match="args has flag; flags and more_versions are allowed"):
            build({"flag": []})
