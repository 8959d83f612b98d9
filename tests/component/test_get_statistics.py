"""GetStatistics on a real server: time windows, calibration, invalid requests."""

import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from serving.client import Client, Prediction
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from tests.support.statistics import RED, rejected, stub_of, tokens
from tests.support.waiting import LIMIT_S


@pytest.fixture
def stub(address: str) -> Iterator[pb_grpc.ClassifierStub]:
    with stub_of(address) as stub:
        yield stub


def now(offset_s: float = 0.0) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns() + int(offset_s * 1e9))
    return stamp


def test_a_window_has_the_labels_of_the_predictions_made_in_it(client: Client, stub: pb_grpc.ClassifierStub) -> None:
    early = tokens(client, 3)
    time.sleep(0.01)
    middle = now()
    late = tokens(client, 5)
    time.sleep(0.01)
    end = now()
    # labelled later: the time of the prediction counts
    client.record_labels([(token, "red") for token in early] + [(token, "blue") for token in late[:4]])

    [late_ones] = stub.GetStatistics(pb.GetStatisticsRequest(start_time=middle), timeout=LIMIT_S).models
    assert late_ones.labels == 4
    assert late_ones.accuracy.value == 0
    [early_ones] = stub.GetStatistics(pb.GetStatisticsRequest(end_time=middle), timeout=LIMIT_S).models
    assert early_ones.labels == 3
    assert early_ones.accuracy.value == 1
    [both] = stub.GetStatistics(pb.GetStatisticsRequest(start_time=now(-3600), end_time=end), timeout=LIMIT_S).models
    assert (both.predictions, both.labels, both.unlabelled) == (8, 7, 1)
    assert not stub.GetStatistics(pb.GetStatisticsRequest(start_time=now(120)), timeout=LIMIT_S).models
    assert not stub.GetStatistics(pb.GetStatisticsRequest(end_time=now(-3600)), timeout=LIMIT_S).models


def test_calibration_bins_have_mean_probability_and_accuracy(client: Client, stub: pb_grpc.ClassifierStub) -> None:
    start = now()
    ((token, probability),) = [
        (result.token, result.classes[0][1])
        for result in client.classify([RED]).results
        if isinstance(result, Prediction)
    ]
    client.record_labels([(token, "red")])
    [statistics] = stub.GetStatistics(pb.GetStatisticsRequest(start_time=start), timeout=LIMIT_S).models
    ends = [(each.lower, each.upper) for each in statistics.calibration_bins]
    assert ends == [(k / 10, (k + 1) / 10) for k in range(10)]
    [filled] = [each for each in statistics.calibration_bins if each.HasField("accuracy")]
    assert filled.lower <= probability <= filled.upper
    assert filled.mean_probability == pytest.approx(probability)
    assert (filled.accuracy.value, filled.accuracy.count) == (1, 1)
    assert statistics.expected_calibration_error == pytest.approx(1 - probability)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GetStatisticsRequest(start_time=Timestamp(seconds=5), end_time=Timestamp(seconds=5)), "end_time"),
        (pb.GetStatisticsRequest(start_time=Timestamp(seconds=6), end_time=Timestamp(seconds=5)), "end_time"),
        (pb.GetStatisticsRequest(start_time=Timestamp(seconds=1, nanos=-1)), "start_time"),
        (pb.GetStatisticsRequest(end_time=Timestamp(seconds=2**62)), "end_time"),
        (
            pb.GetStatisticsRequest(
                start_time=Timestamp(seconds=253_402_300_799, nanos=999_999_999), end_time=Timestamp(seconds=5)
            ),
            "end_time",
        ),
    ],
)
def test_an_invalid_window_is_rejected(
    stub: pb_grpc.ClassifierStub, request_: pb.GetStatisticsRequest, field: str
) -> None:
    with rejected(grpc.StatusCode.INVALID_ARGUMENT, "TIME_WINDOW_INVALID", field):
        stub.GetStatistics(request_, timeout=LIMIT_S)


def test_the_longest_window_has_all_predictions(stub: pb_grpc.ClassifierStub, client: Client) -> None:
    tokens(client)
    request = pb.GetStatisticsRequest(
        start_time=Timestamp(seconds=-62_135_596_800), end_time=Timestamp(seconds=253_402_300_799, nanos=999_999_999)
    )
    assert stub.GetStatistics(request, timeout=LIMIT_S).models[0].predictions == client.statistics()[0].predictions
