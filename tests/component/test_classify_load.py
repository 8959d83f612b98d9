"""Classify under load: the queue is bounded, cancelled requests leave it, and the counts of many clients agree."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from serving.client import Client, ClientError, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.bundles import COLOURS, write_bundle
from tests.support.images import RED, encoded
from tests.support.servers import running_server
from tests.support.waiting import LIMIT_S


def top(outcome: Prediction | ClientError) -> str:
    assert isinstance(outcome, Prediction), outcome
    return outcome.classes[0][0]


def test_the_confusion_matrix_of_many_clients_equals_scikit_learn_s(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (120, 3))
    labels = [COLOURS[k] for k in rng.integers(0, 3, 120)]
    with (
        running_server(tmp_path / "models", tmp_path / "state") as address,
        Client(address, timeout_s=LIMIT_S) as client,
    ):

        def classify(index: int) -> str:
            image = encoded(Image.new("RGB", (64, 64), tuple(colours[index].tolist())), "PNG")
            (result,) = client.classify([image], labels=[labels[index]]).results
            return top(result)

        with ThreadPoolExecutor(16) as pool:
            predicted = list(pool.map(classify, range(120)))
        (statistics,) = client.statistics()
    expected = confusion_matrix(labels, predicted, labels=list(COLOURS))
    assert [list(row.predicted) for row in statistics.confusion_matrix] == expected.tolist()
    assert statistics.accuracy.value == pytest.approx(np.trace(expected) / 120)


@pytest.fixture(scope="module")
def slow_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with one slow engine, whose queue has room for four views."""
    folder = tmp_path_factory.mktemp("slow")
    write_bundle(folder / "models", slowness=20)
    arguments = ("--instances", 1, "--max-batch-size", 1, "--max-queue-views", 4, "--max-views", 4)
    with running_server(folder / "models", folder / "state", *arguments) as address:
        yield address


def test_a_full_queue_rejects_with_a_retry_hint(slow_address: str) -> None:
    with Client(slow_address, timeout_s=LIMIT_S) as client, ThreadPoolExecutor(12) as pool:

        def ask(_: int) -> object:
            try:
                return client.classify([RED])
            except ClientError as error:
                return error

        outcomes = list(pool.map(ask, range(12)))
        rejected = [outcome for outcome in outcomes if isinstance(outcome, ClientError)]
        assert 1 <= len(rejected) <= 8
        for error in rejected:
            assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.reason == "QUEUE_FULL"
            assert error.retry_after_s > 0
        assert top(client.classify([RED]).results[0]) == "red"


def test_more_views_than_the_queue_can_hold_are_rejected_without_a_retry_hint(slow_address: str) -> None:
    with Client(slow_address, timeout_s=LIMIT_S) as client, pytest.raises(ClientError) as caught:
        client.classify([RED, RED], views=3)
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.reason == "COUNT_OUT_OF_RANGE"
    assert caught.value.retry_after_s is None
    assert "6 views; at most 4" in caught.value.message


def test_cancelled_and_expired_requests_leave_the_queue(slow_address: str) -> None:
    with grpc.insecure_channel(slow_address) as channel, Client(slow_address, timeout_s=LIMIT_S) as client:
        stub = pb_grpc.ClassifierStub(channel)
        request = pb.ClassifyRequest(images=[pb.ImageInput(content=RED)] * 4)
        for _ in range(5):
            stub.Classify.future(request, timeout=LIMIT_S).cancel()
            with pytest.raises(grpc.RpcError) as caught:
                stub.Classify(request, timeout=0.001)
            assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        # the queue has room for four views: if the abandoned ones had stayed, this request would be rejected
        assert top(client.classify([RED] * 3).results[0]) == "red"
