"""A server whose database fails: images are still classified, and labels are rejected until the database is back."""

import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import psycopg
import pytest

from serving.client import Client
from tests.support.commands import run
from tests.support.postgresql import PASSWORD, Postgresql
from tests.support.servers import running_server, stoppable_server
from tests.support.statistics import record, rejected, stub_of, tokens
from tests.support.waiting import LIMIT_S, eventually


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def gone(file: Path) -> Iterator[None]:
    aside = file.with_name("aside")
    file.rename(aside)
    yield
    aside.rename(file)


@contextmanager
def replaced_by_another(file: Path) -> Iterator[None]:
    aside = file.with_name("aside")
    file.rename(aside)
    file.write_bytes(b"no database")
    yield
    aside.rename(file)


@pytest.mark.parametrize("outage", [locked, gone, replaced_by_another])
def test_images_are_classified_and_labels_rejected_while_the_file_cannot_be_written(
    models: Path, tmp_path: Path, outage: Callable[[Path], "contextmanager[None]"]
) -> None:
    state = tmp_path / "state"
    with (
        running_server(models, state) as address,
        Client(address, timeout_s=LIMIT_S) as client,
        stub_of(address) as stub,
    ):
        first, second = tokens(client, 2)
        client.record_labels([(first, "red")])
        with outage(state / "statistics.sqlite"):  # type: ignore[attr-defined]
            with rejected(grpc.StatusCode.UNAVAILABLE, "STATISTICS_UNAVAILABLE"):
                record(stub, [(second, "red")])
            assert len(tokens(client, 3)) == 3
            assert client.health() == "SERVING"
        client.record_labels([(second, "red")])
        [statistics] = client.statistics()
        assert (statistics.labels, statistics.predictions) == (2, 5)


def test_images_are_classified_and_labels_rejected_while_the_disk_is_full(models: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        stoppable_server(models, state) as (server, address),
        Client(address, timeout_s=LIMIT_S) as client,
        stub_of(address) as stub,
    ):
        made = tokens(client, 64)
        client.record_labels([(made[0], "red")])
        limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        # beyond the first byte, the kernel refuses to let the server write to any file
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, limits[1]))
        for _ in range(2):
            with rejected(grpc.StatusCode.UNAVAILABLE, "STATISTICS_UNAVAILABLE"):
                record(stub, [(token, "red") for token in made])
            assert len(tokens(client, 3)) == 3
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limits)
        recorded = client.record_labels([(token, "red") for token in made])
        assert [label.HasField("previous_label") for label in recorded] == [True] + [False] * 63
        [statistics] = client.statistics()
        assert (statistics.labels, statistics.predictions) == (64, 70)


def test_postgresql_restarted_under_load(models: Path, tmp_path: Path, postgresql: Postgresql) -> None:
    url = postgresql.create()
    acknowledged: set[str] = set()
    refusals: list[grpc.StatusCode] = []
    predicted = 0
    stop = threading.Event()

    def predict_and_label() -> None:
        nonlocal predicted
        with Client(address, timeout_s=LIMIT_S) as client, stub_of(address) as stub:
            while not stop.is_set():
                (token,) = tokens(client)  # raises if it is not answered
                predicted += 1
                while not stop.is_set():
                    try:
                        record(stub, [(token, "red")])
                        acknowledged.add(token)
                        break
                    except grpc.RpcError as error:
                        refusals.append(error.code())
                        time.sleep(0.05)

    def predict() -> None:
        nonlocal predicted
        with Client(address, timeout_s=LIMIT_S) as client:
            while not stop.is_set():
                predicted += len(tokens(client))

    with running_server(models, tmp_path / "state", "--statistics", url) as address:
        threads = [threading.Thread(target=work) for work in (predict_and_label, predict_and_label, predict)]
        for thread in threads:
            thread.start()
        try:
            assert eventually(lambda: len(acknowledged) > 20)
            postgresql.stop("immediate")
            before = predicted
            assert eventually(lambda: len(refusals) > 5 and predicted > before + 20)
            postgresql.start()
            before = len(acknowledged)
            assert eventually(lambda: len(acknowledged) > before + 20)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        with Client(address, timeout_s=LIMIT_S) as client:
            [statistics] = client.statistics()
    assert set(refusals) == {grpc.StatusCode.UNAVAILABLE}
    with psycopg.connect(url) as connection:
        [(kept,)] = connection.execute("SELECT count(*) FROM labels").fetchall()
    assert len(acknowledged) <= kept == statistics.labels <= len(acknowledged) + 2
    assert statistics.predictions >= kept


def test_two_servers_on_one_database_count_the_same_label_once(
    models: Path, tmp_path: Path, postgresql: Postgresql
) -> None:
    url, state = postgresql.create(), tmp_path / "state"  # they share the key
    with (
        running_server(models, state, "--statistics", url) as one_address,
        running_server(models, state, "--statistics", url) as other_address,
        Client(one_address) as one,
        Client(other_address) as other,
    ):
        made = tokens(one, 5) + tokens(other, 5)
        threads = [
            threading.Thread(target=client.record_labels, args=([(token, "red") for token in made],))
            for client in (one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.record_labels([(made[0], "blue")])
        assert eventually(lambda: one.statistics()[0].predictions == 10)
        assert [client.statistics()[0].labels for client in (one, other)] == [10, 10]
        assert one.statistics()[0].accuracy.value == 0.9


def test_a_password_is_neither_logged_nor_sent(models: Path, tmp_path: Path, postgresql: Postgresql) -> None:
    url = postgresql.create()
    with (
        stoppable_server(models, tmp_path / "state", "--statistics", url) as (server, address),
        Client(address, timeout_s=LIMIT_S) as client,
    ):
        (token,) = tokens(client)
        postgresql.stop()
        try:
            with stub_of(address) as stub, pytest.raises(grpc.RpcError) as caught:
                record(stub, [(token, "red")])
        finally:
            postgresql.start()
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "postgresql://127.0.0.1" in server.stderr
    assert PASSWORD not in server.stdout + server.stderr + caught.value.details()


def test_a_database_that_does_not_respond_fails_the_start_with_one_line(models: Path, tmp_path: Path) -> None:
    arguments = ["serving", "serve", "--models", models, "--state", tmp_path, "--listen", "127.0.0.1:0"]
    finished = run(*arguments, PAWSERVE_STATISTICS=f"postgresql://u:{PASSWORD}@127.0.0.1:1/x")
    assert finished.returncode == 1
    assert "statistics in postgresql://127.0.0.1:1/x are not available" in finished.stderr
    assert PASSWORD not in finished.stderr
    assert "Traceback" not in finished.stderr
