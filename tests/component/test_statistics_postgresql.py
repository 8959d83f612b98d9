"""PostgreSQL shared by replicas, restarted, read-only, locked or unresponsive."""

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import make_url

from serving.statistics.databases.postgresql import WRITE_LOCK, PostgresqlDatabase
from serving.statistics.store import Label, StatisticsStore, StatisticsUnavailable
from tests.support.postgresql import PASSWORD, Postgresql
from tests.support.statistics import CAT, CLASSES, DOG, PETS, SHORT_S, fails, label, matrix, predictions
from tests.support.waiting import LIMIT_S, eventually


@pytest.fixture
def shared(postgresql: Postgresql) -> str:
    """The URL of an empty database."""
    return postgresql.create()


@pytest.fixture
def replicas(shared: str) -> Iterator[tuple[StatisticsStore, StatisticsStore]]:
    with StatisticsStore(shared) as one, StatisticsStore(shared) as other:
        one.register_version(PETS, CLASSES)
        other.register_version(PETS, CLASSES)
        yield one, other


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


def test_the_same_labels_sent_to_two_replicas_at_once_count_once(
    replicas: tuple[StatisticsStore, StatisticsStore], shared: str
) -> None:
    batches = [[label(DOG) for _ in range(20)] for _ in range(20)]
    together = threading.Barrier(2)

    def send(store: StatisticsStore) -> list[object]:
        together.wait()
        return [before for batch in batches for before in store.record(batch).result(LIMIT_S)]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(send, replicas)
    # of each label, one replica was the first
    assert all({one, other} == {None, DOG} for one, other in zip(first, second, strict=True))
    assert [matrix(store) for store in replicas] == [[[0, 0], [400, 0]]] * 2
    assert rows(shared, "SELECT count(*) FROM labels") == [(400,)]


def test_a_correction_at_another_replica_moves_the_count_once(
    replicas: tuple[StatisticsStore, StatisticsStore],
) -> None:
    sent = [label(DOG, probability=0.25 * (index % 4)) for index in range(50)]
    replicas[0].record(sent).result(LIMIT_S)
    corrected = [Label(each.record, CAT) for each in sent]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda store: store.record(corrected).result(LIMIT_S), replicas)
    assert all(sorted(pair) == [CAT, DOG] for pair in zip(first, second, strict=True))
    assert [matrix(store) for store in replicas] == [[[50, 0], [0, 0]]] * 2
    assert [each.accuracy.count for each in replicas[0].read()[0].calibration if each.accuracy] == [13, 13, 12, 12]


def test_predictions_of_replicas_add_up(replicas: tuple[StatisticsStore, StatisticsStore]) -> None:
    for store in replicas:
        store.count_predictions(PETS, CAT, 5)
        store.register_version(PETS, CLASSES)
    assert [predictions(store) for store in replicas] == [10, 10]


def test_labels_are_rejected_while_the_database_is_down_and_only_stored_ones_are_acknowledged(
    replicas: tuple[StatisticsStore, StatisticsStore], postgresql: Postgresql, shared: str
) -> None:
    store, _ = replicas
    acknowledged: list[bytes] = []
    rejected = 0
    stop = threading.Event()

    def send() -> None:
        nonlocal rejected
        while not stop.is_set():
            sent = [label(DOG) for _ in range(5)]
            store.count_predictions(PETS, CAT, 5)
            try:
                store.record(sent).result(LIMIT_S)
                acknowledged.extend(each.record.id for each in sent)
            except StatisticsUnavailable:
                rejected += 1
                time.sleep(0.01)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            before = len(acknowledged)
            assert eventually(lambda before=before: len(acknowledged) > before + 100)  # type: ignore[misc]
            postgresql.stop("immediate")
            down = rejected
            assert eventually(lambda down=down: rejected > down + 5)  # type: ignore[misc]
            with pytest.raises(StatisticsUnavailable):
                store.read()
            postgresql.start()
        before = len(acknowledged)
        assert eventually(lambda: len(acknowledged) > before + 100)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    kept = {bytes(id_) for (id_,) in rows(shared, "SELECT id FROM labels")}  # type: ignore[call-overload]
    assert set(acknowledged) <= kept
    assert len(kept) == matrix(store)[DOG][CAT]
    assert predictions(store) >= len(kept)


def test_a_restart_of_an_idle_database_fails_no_request(
    shared: str, postgresql: Postgresql, caplog: pytest.LogCaptureFixture
) -> None:
    with StatisticsStore(shared, max_idle_s=0.0) as store:
        store.register_version(PETS, CLASSES)
        postgresql.stop("immediate")
        postgresql.start()
        assert store.record([label(DOG)]).result(LIMIT_S) == [None]
    assert not caplog.records


def test_a_read_only_database_rejects_labels_until_it_is_writable(shared: str) -> None:
    name = shared.rpartition("/")[2]
    with StatisticsStore(shared) as store, psycopg.connect(shared, autocommit=True) as administrator:
        store.register_version(PETS, CLASSES)
        administrator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        others = "pid <> pg_backend_pid() AND datname = %s"
        end_others = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
        administrator.execute(end_others, (name,))
        fails(store.record([label(DOG)]), "terminating connection")
        fails(store.record([label(DOG)]), "read-only")
        assert matrix(store) == [[0, 0], [0, 0]]
        with pytest.raises(StatisticsUnavailable, match="read-only"):
            StatisticsStore(shared)
        administrator.execute("SET default_transaction_read_only = off")
        administrator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert store.record([label(CAT)]).result(LIMIT_S) == [None]
        assert matrix(store) == [[1, 0], [0, 0]]


def test_a_hanging_writer_delays_others_until_the_lock_timeout(shared: str) -> None:
    with StatisticsStore(shared, lock_timeout_s=SHORT_S) as store:
        store.register_version(PETS, CLASSES)
        with psycopg.connect(shared) as hanging:
            hanging.execute(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
            fails(store.record([label(DOG)]), "lock timeout")
            assert matrix(store) == [[0, 0], [0, 0]]  # reads do not wait
        assert store.record([label(CAT)]).result(LIMIT_S) == [None]


def test_commits_are_synced_even_if_the_database_s_default_is_not_to(shared: str) -> None:
    name = shared.rpartition("/")[2]
    with psycopg.connect(shared, autocommit=True) as administrator:
        administrator.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    database = PostgresqlDatabase(make_url(shared))
    with database.connect() as connection:
        with database.writing(connection):
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off"
    database.close()


def test_errors_of_connecting_do_not_show_the_password(shared: str, postgresql: Postgresql) -> None:
    for url, message in (
        (shared.replace(PASSWORD, "wrong-horse"), "password authentication failed"),
        (postgresql.url("nowhere"), 'database "nowhere" does not exist'),
        (f"postgresql://u:{PASSWORD}@127.0.0.1:1/x", "refused"),
    ):
        with pytest.raises(StatisticsUnavailable, match=message) as caught:
            StatisticsStore(url)
        assert "horse" not in str(caught.value)


def test_other_spellings_of_the_url_are_accepted(shared: str) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        with StatisticsStore(f"{scheme}://{shared.partition('://')[2]}?sslmode=prefer&connect_timeout=60") as store:
            store.register_version(PETS, CLASSES)
            token = secrets.token_bytes(16)
            assert store.record([label(CAT, token=token)]).result(LIMIT_S) == [None]


def test_a_database_without_an_encoding_works(postgresql: Postgresql) -> None:
    """What `initdb` makes where no locale is set."""
    classes = ("Kätzchen", "犬")
    with StatisticsStore(postgresql.create("SQL_ASCII")) as store:
        store.register_version(PETS, classes)
        assert store.classes_of(PETS) == classes
        assert store.record([label(CAT)]).result(LIMIT_S) == [None]
