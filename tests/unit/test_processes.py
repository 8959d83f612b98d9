"""One server of several processes: merged states and metrics, divided limits, a reserved port."""

import asyncio
import json
import logging
import os
import socket
from pathlib import Path

import pytest

from serving.bundle.model_version import ModelVersion
from serving.image.decode import Limits
from serving.models.loader import ServingOptions
from serving.models.repository import State, VersionStatus
from serving.observability.settings import ObservabilitySettings
from serving.processes import shares
from serving.processes.channel import Channel, ChannelClosed, Handler, RemoteError
from serving.processes.metrics import merge as merge_metrics
from serving.processes.ports import reserved_port
from serving.processes.shares import automatic_count, share_cpus, share_settings
from serving.processes.statuses import merge, to_rows
from serving.settings import Settings
from serving.system.logs import JsonFormatter, TextFormatter, add_process

ONE, TWO = ModelVersion("pets", 1), ModelVersion("pets", 2)


def settings(**options: object) -> Settings:
    limits = Limits(max_bytes=2**20, max_pixels=10**6)
    return Settings(models=Path("models"), options=ServingOptions(max_rows=1024, limits=limits), **options)  # type: ignore[arg-type]


def test_a_version_is_ready_if_it_is_ready_in_all_processes() -> None:
    rows = to_rows([VersionStatus(ONE, State.READY)])
    assert merge([rows, rows]) == [VersionStatus(ONE, State.READY)]
    assert merge([rows, []]) == [VersionStatus(ONE, State.LOADING, "ready in 1 of 2 processes")]


def test_a_version_has_the_state_that_is_furthest_from_ready_and_its_reason() -> None:
    ready, failed = VersionStatus(TWO, State.READY), VersionStatus(TWO, State.FAILED, "no memory")
    assert merge([to_rows([ready]), to_rows([failed])]) == [
        VersionStatus(TWO, State.FAILED, "in 1 of 2 processes: no memory")
    ]
    assert merge([to_rows([failed]), to_rows([failed])]) == [failed]


def test_versions_are_ordered_and_reasons_of_served_ones_stay() -> None:
    removed = VersionStatus(ONE, State.READY, "its folder was removed")
    rows = to_rows([VersionStatus(TWO, State.READY), removed])
    assert merge([rows, to_rows([VersionStatus(ONE, State.READY), VersionStatus(TWO, State.READY)])]) == [
        removed,
        VersionStatus(TWO, State.READY),
    ]


def test_metrics_of_processes_get_the_process_as_a_label() -> None:
    def families(value: float) -> list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]:
        return [("rows", "Rows.", "counter", [("rows_total", {"model": "pets"}, value)])]

    (metric,) = merge_metrics({2: families(20), 1: families(10)})
    assert [(each.labels, each.value) for each in metric.samples] == [
        ({"process": "1", "model": "pets"}, 10),
        ({"process": "2", "model": "pets"}, 20),
    ]


@pytest.mark.parametrize(
    ("cpus", "count", "shared"),
    [
        (range(8), 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ([3, 5, 7], 2, [[3], [5, 7]]),
        ([0, 1], 3, [[0], [1], [0]]),
    ],
)
def test_processes_have_a_share_of_the_cpus(
    monkeypatch: pytest.MonkeyPatch, cpus: list[int], count: int, shared: list[list[int]]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus))
    monkeypatch.setattr(shares, "cgroup_quota", lambda: None)
    assert share_cpus(count) == shared


def test_with_a_quota_processes_may_run_on_any_cpu_and_count_their_share_of_the_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "cgroup_quota", lambda: 6.0)
    monkeypatch.setattr(shares, "available_cpus", lambda: 6)
    assert share_cpus(2) == [[], []]
    assert share_settings(settings(), 2).options.cpu_limit == 3.0


@pytest.mark.parametrize(("cpus", "count"), [(1, 1), (7, 1), (8, 2), (64, 16)])
def test_auto_is_one_process_for_four_cpus(monkeypatch: pytest.MonkeyPatch, cpus: int, count: int) -> None:
    monkeypatch.setattr(shares, "available_cpus", lambda: cpus)
    assert automatic_count() == count


def test_limits_are_divided_and_only_the_supervisor_serves_the_metrics() -> None:
    whole = settings(max_bytes_in_flight=1000, observability=ObservabilitySettings(metrics="127.0.0.1:0"))
    share = share_settings(whole, 4)
    assert share.options.max_rows == 256
    assert share.max_bytes_in_flight == 250
    assert share.connections.max_connections == whole.connections.max_connections // 4
    assert share.reuse_port
    assert not share.observability.endpoint


def test_a_share_must_hold_one_request() -> None:
    with pytest.raises(ValueError, match=r"1024 divided by --processes 100 is 10, but a request may ask for 16 views"):
        share_settings(settings(), 100)


def test_a_reserved_port_is_shared_only_with_sockets_that_ask_for_it() -> None:
    with reserved_port("127.0.0.1:0") as address, socket.socket() as server, socket.socket() as stranger:
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()


def test_a_port_is_not_reserved_twice_nor_if_it_is_in_use() -> None:
    with (
        reserved_port("127.0.0.1:0") as address,
        pytest.raises(OSError, match="the port is in use"),
        reserved_port(address),
    ):
        pass
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="the port is in use"), reserved_port(f"127.0.0.1:{other.getsockname()[1]}"):
            pass


def test_log_lines_say_which_process_wrote_them() -> None:
    record = logging.LogRecord("serving", logging.INFO, "", 0, "loaded", (), None)
    assert add_process(2)(record)
    assert TextFormatter().format(record).startswith("[2] ")
    assert json.loads(JsonFormatter().format(record))["process"] == 2


async def _two_ends(ours: dict[str, Handler], theirs: dict[str, Handler]) -> tuple[object, list[str]]:
    """The result of a call from one end, and what became of calls that fail or outlive the other end."""
    one, other = socket.socketpair()
    near, far = Channel(one, ours), Channel(other, theirs)
    running = [asyncio.create_task(each.run()) for each in (near, far)]
    await asyncio.sleep(0)
    while True:
        try:
            answer = await near.call("double", 21)
            break
        except ChannelClosed:  # not connected yet
            await asyncio.sleep(0)
    failures = []
    for verb in ("fail", "hang"):
        try:
            await near.call(verb)
        except (RemoteError, ChannelClosed) as error:
            failures.append(f"{type(error).__name__} {error}".strip())
        running[1].cancel()  # the other end closes
    await asyncio.gather(*running, return_exceptions=True)
    return answer, failures


def test_a_channel_returns_results_and_errors_and_ends_with_the_other_end() -> None:
    async def double(number: int) -> int:
        return 2 * number

    async def fail(_: object) -> None:
        raise ValueError("no")

    async def hang(_: object) -> None:
        await asyncio.Event().wait()

    answer, failures = asyncio.run(_two_ends({}, {"double": double, "fail": fail, "hang": hang}))
    assert answer == 42
    assert failures == ["RemoteError no", "ChannelClosed"]
