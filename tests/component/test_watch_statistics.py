"""WatchStatistics on a real server: what watchers get and when, and that they delay nothing else."""

import asyncio
import inspect
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from serving.api.pawserve.statistics import StatisticsService
from serving.bundle.model_version import ModelVersion
from serving.client import AsyncClient, Client
from serving.pb.pawserve.v1 import classifier_pb2 as pb
from serving.pb.pawserve.v1 import classifier_pb2_grpc as pb_grpc
from serving.statistics.changes import StatisticsFeed
from serving.statistics.store import StatisticsStore
from tests.support.bundles import write_bundle
from tests.support.servers import running_server, stoppable_server
from tests.support.statistics import PETS, RED, rejected, stub_of, tokens
from tests.support.waiting import LIMIT_S, eventually

FAST = Duration(nanos=100_000_000)


def labels(response: pb.WatchStatisticsResponse) -> int:
    return sum(model.labels for model in response.models)


def test_watchers_get_the_statistics_at_once_and_after_each_change(models: Path, tmp_path: Path) -> None:
    with (
        running_server(models, tmp_path / "state") as address,
        Client(address, timeout_s=LIMIT_S) as client,
        stub_of(address) as stub,
    ):
        watch = stub.WatchStatistics(pb.WatchStatisticsRequest(min_interval=FAST), timeout=LIMIT_S)
        assert labels(next(watch)) == 0
        (token,) = tokens(client)
        assert next(watch).models[0].predictions == 1
        client.record_labels([(token, "red")])
        assert labels(next(watch)) == 1
        client.record_labels([(token, "red")])  # changes nothing
        client.record_labels([(token, "blue")])
        corrected = next(watch)
        assert labels(corrected) == 1
        assert corrected.models[0].accuracy.value == 0


def test_both_clients_have_the_same_methods_for_statistics(models: Path, tmp_path: Path) -> None:
    async def watch(address: str) -> None:
        async with AsyncClient(address, timeout_s=LIMIT_S) as other:
            changes = other.watch_statistics(min_interval_s=0.1)
            assert not await anext(changes)
            (token,) = await asyncio.to_thread(tokens, client)
            assert (await anext(changes))[0].predictions == 1
            await other.record_labels([(token, "red")])
            assert (await anext(changes))[0].labels == 1
            (recent,) = await other.statistics(start=datetime.now(UTC) - timedelta(hours=1))
            assert recent.labels == 1
            assert not await other.statistics(end=datetime.now(UTC) - timedelta(hours=1))
            await changes.aclose()

    with running_server(models, tmp_path / "state") as address, Client(address, timeout_s=LIMIT_S) as client:
        asyncio.run(watch(address))
        assert next(client.watch_statistics())[0].labels == 1
        now = datetime.now(UTC)
        assert client.statistics(start=now - timedelta(hours=1))[0].labels == 1
        assert not client.statistics(end=now - timedelta(hours=1))
    for name in (
        "classify",
        "classify_many",
        "record_labels",
        "statistics",
        "watch_statistics",
        "list_models",
        "health",
    ):
        ours, theirs = (inspect.signature(getattr(each, name)).parameters for each in (AsyncClient, Client))
        assert list(ours) == list(theirs), name


def test_the_last_of_several_responses_is_up_to_date(models: Path, tmp_path: Path) -> None:
    with (
        running_server(models, tmp_path / "state") as address,
        Client(address, timeout_s=LIMIT_S) as client,
        stub_of(address) as stub,
    ):
        watch = stub.WatchStatistics(pb.WatchStatisticsRequest(min_interval=FAST), timeout=LIMIT_S)
        next(watch)
        for token in tokens(client, 20):
            client.record_labels([(token, "red")])
        while labels(response := next(watch)) < 20:
            pass
        assert response.models[0].unlabelled == 0


def test_a_watcher_waits_for_its_interval_after_each_response(
    store: StatisticsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []

    async def stopped_within(feed: StatisticsFeed, seconds: float) -> bool:
        events.append(seconds)
        store.count_predictions(PETS, 0)
        return len(events) == 6

    async def write(response: pb.WatchStatisticsResponse) -> None:
        events.append("response")

    monkeypatch.setattr(StatisticsFeed, "stopped_within", stopped_within)
    service = StatisticsService(store, lambda model: None, lambda version: None)
    asyncio.run(service.watch(pb.WatchStatisticsRequest(min_interval=Duration(seconds=60)), write))
    assert events == ["response", 60] * 3


def test_a_watch_of_one_model_has_only_that_model(models: Path, tmp_path: Path) -> None:
    write_bundle(models, "birds")
    with (
        running_server(models, tmp_path / "state") as address,
        Client(address, timeout_s=LIMIT_S) as client,
        stub_of(address) as stub,
    ):
        request = pb.WatchStatisticsRequest(model="models/birds", min_interval=FAST)
        watch = stub.WatchStatistics(request, timeout=LIMIT_S)
        assert not next(watch).models
        client.classify([RED], model="models/colours")
        client.classify([RED], model="models/birds")
        assert [model.model for model in next(watch).models] == ["models/birds/versions/1"]


def test_labels_recorded_by_another_server_are_reported_too(models: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_server(models, state) as address, stub_of(address) as stub:
        watch = stub.WatchStatistics(pb.WatchStatisticsRequest(min_interval=FAST), timeout=LIMIT_S)
        next(watch)
        with running_server(models, state) as elsewhere, Client(elsewhere, timeout_s=LIMIT_S) as client:
            client.record_labels([(token, "red") for token in tokens(client, 3)])
            while labels(next(watch)) < 3:
                pass


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (pb.WatchStatisticsRequest(model="models/cats"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model"),
        (pb.WatchStatisticsRequest(model="cats"), grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NAME_INVALID", "model"),
        (
            pb.WatchStatisticsRequest(min_interval=Duration(nanos=99_000_000)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "INTERVAL_OUT_OF_RANGE",
            "min_interval",
        ),
        (
            pb.WatchStatisticsRequest(min_interval=Duration(seconds=3601)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "INTERVAL_OUT_OF_RANGE",
            "min_interval",
        ),
    ],
)
def test_invalid_watches_are_rejected(
    models: Path,
    tmp_path: Path,
    request_: pb.WatchStatisticsRequest,
    code: grpc.StatusCode,
    reason: str,
    field: str,
) -> None:
    with running_server(models, tmp_path / "state") as address, stub_of(address) as stub, rejected(code, reason, field):
        next(stub.WatchStatistics(request_, timeout=LIMIT_S))


def test_the_number_of_watchers_is_limited_and_those_that_leave_make_room(models: Path, tmp_path: Path) -> None:
    with running_server(models, tmp_path / "state") as address, stub_of(address) as stub:
        watches = [stub.WatchStatistics(pb.WatchStatisticsRequest(), timeout=LIMIT_S) for _ in range(64)]
        for watch in watches:
            next(watch)
        with rejected(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS"):
            next(stub.WatchStatistics(pb.WatchStatisticsRequest(), timeout=LIMIT_S))
        for watch in watches[:10]:
            watch.cancel()

        def admitted() -> bool:
            try:
                return bool(next(stub.WatchStatistics(pb.WatchStatisticsRequest(), timeout=LIMIT_S)))
            except grpc.RpcError:
                return False

        assert eventually(admitted)


def test_a_shutdown_ends_the_watchers_calls_with_ok_and_does_not_wait_for_them(models: Path, tmp_path: Path) -> None:
    with (
        stoppable_server(models, tmp_path / "state", "--grace", 86_400) as (server, address),
        stub_of(address) as stub,
    ):
        watches = [stub.WatchStatistics(pb.WatchStatisticsRequest(), timeout=LIMIT_S) for _ in range(60)]
        for watch in watches:  # the server may not know yet that the last response was written
            next(watch)
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        for watch in watches:
            assert list(watch) == []
            assert watch.code() == grpc.StatusCode.OK


def test_a_watcher_that_does_not_read_delays_no_other_and_a_shutdown_only_for_the_grace_period(
    models: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with StatisticsStore(state / "statistics.sqlite") as store:
        store.register_version(ModelVersion("wide", 1), [f"class {index}" for index in range(1_500)])
        store.count_predictions(ModelVersion("wide", 1), 0)  # megabytes of zeros, more than the connection takes unread
    with stoppable_server(models, state, "--grace", 2) as (server, address), stub_of(address) as stub:
        unlimited = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(address, unlimited) as channel:
            request = pb.WatchStatisticsRequest(min_interval=FAST)
            unread = pb_grpc.ClassifierStub(channel).WatchStatistics(request, timeout=LIMIT_S)
            next(unread)
            request = pb.WatchStatisticsRequest(model="models/colours", min_interval=FAST)
            read = stub.WatchStatistics(request, timeout=LIMIT_S)
            next(read)
            with Client(address, timeout_s=LIMIT_S) as client:
                for _ in range(20):
                    tokens(client)
                    next(read)  # the change
            assert unread.is_active()
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0


def test_watchers_get_an_error_when_the_statistics_cannot_be_read(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "state" / "statistics.sqlite"
    with running_server(models, tmp_path / "state") as address, stub_of(address) as stub:
        watch = stub.WatchStatistics(pb.WatchStatisticsRequest(min_interval=FAST), timeout=LIMIT_S)
        next(watch)
        file.rename(file.with_name("aside"))
        with rejected(grpc.StatusCode.UNAVAILABLE, "STATISTICS_UNAVAILABLE"):
            next(watch)
        file.with_name("aside").rename(file)
        next(stub.WatchStatistics(pb.WatchStatisticsRequest(min_interval=FAST), timeout=LIMIT_S))
