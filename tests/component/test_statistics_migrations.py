"""Statistics of earlier releases are migrated, once even if replicas start together."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from serving.statistics.schema import METADATA, MIGRATIONS, migrate
from serving.statistics.store import (
    LabelExpired,
    ShadowResult,
    StatisticsStore,
    StatisticsUnavailable,
    Window,
    open_database,
)
from tests.support.commands import run_programs_at_once
from tests.support.statistics import CAT, DOG, LONG_AGO_MS, fails, label, rows
from tests.support.waiting import LIMIT_S

GOLDEN = Path(__file__).parent.parent / "golden"
"""Databases of earlier schemas as SQL."""


def written(path: Path, schema: int) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((GOLDEN / f"statistics_schema_{schema}.sql").read_text())
        connection.execute("PRAGMA journal_mode = WAL")
    return path


@pytest.fixture
def old(path: Path) -> Path:
    return written(path, 1)


def described(connection: Connection) -> dict[str, object]:
    """Columns, keys and indexes of every table."""
    found = inspect(connection)
    return {
        table: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(table)],
            found.get_pk_constraint(table)["constrained_columns"],
            sorted((index["name"], tuple(index["column_names"])) for index in found.get_indexes(table)),
            [(key["constrained_columns"], key["referred_table"]) for key in found.get_foreign_keys(table)],
        )
        for table in sorted(found.get_table_names())
        if table != "schema_version"
    }


def test_statistics_of_schema_1_are_migrated(old: Path) -> None:
    with StatisticsStore(old) as store:
        birds, pets = store.read()
        assert pets.classes == ("cat", "dog")
        assert pets.confusion.counts_KK.tolist() == [[2, 0], [1, 1]]
        assert (birds.predictions, pets.predictions) == (1, 10)
        assert pets.last_label_ms == LONG_AGO_MS + 120_001 + 5_000
        assert [each.accuracy.count if each.accuracy else 0 for each in pets.calibration] == [
            0,
            0,
            0,
            1,
            0,
            1,
            0,
            0,
            0,
            2,
        ]
        assert pets.calibration[9].mean_probability == pytest.approx(0.975)
        [early] = store.read("pets", 1, Window(LONG_AGO_MS, LONG_AGO_MS + 1))
        assert early.confusion.counts_KK.tolist() == [[1, 0], [0, 0]]
        assert store.record([label(CAT, token=bytes([2]) * 16, probability=0.55, at_ms=LONG_AGO_MS + 1000)]).result(
            LIMIT_S
        ) == [DOG]
        assert store.read("pets")[0].confusion.counts_KK.tolist() == [[3, 0], [0, 1]]


def test_statistics_of_schema_2_are_migrated(path: Path) -> None:
    with StatisticsStore(written(path, 2)) as store:
        birds, pets = store.read()
        assert pets.confusion.counts_KK.tolist() == [[2, 0], [1, 1]]
        assert (birds.predictions, pets.predictions) == (1, 10)
        check_schema_2(store)


def test_statistics_of_schema_2_are_migrated_in_every_database(url: str) -> None:
    with closing(sqlite3.connect(":memory:")) as old:
        old.executescript((GOLDEN / "statistics_schema_2.sql").read_text())
        tables = ("versions", "labels", "outcomes", "predictions", "prediction_minutes")
        rows_of = {table: old.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    database = open_database(url)
    with database.connect() as connection, database.writing(connection):
        migrate(connection, MIGRATIONS[:2])
        connection.execute(text("UPDATE bookkeeping SET revision = 7, labels_since = 1700000000124"))
        for table, found in rows_of.items():
            for row in found:
                places = ", ".join(f":v{place}" for place in range(len(row)))
                values = {f"v{place}": value for place, value in enumerate(row)}
                connection.execute(text(f"INSERT INTO {table} VALUES ({places})"), values)
    database.close()
    with StatisticsStore(url) as store:
        check_schema_2(store)


def check_schema_2(store: StatisticsStore) -> None:
    """Labels of schema 2 can be corrected and get shadow results; a deleted label stays deleted."""
    deleted = label(CAT, token=bytes([1]) * 16, probability=0.95, at_ms=LONG_AGO_MS)
    [rejected] = store.record([deleted]).result(LIMIT_S)
    assert isinstance(rejected, LabelExpired)
    assert store.read_pairs("pets", 1, 2).counts_K22.tolist() == [[[0, 0], [0, 0]]] * 2
    id_ = bytes([2]) * 16
    assert store.attach_shadows([(id_, ShadowResult(2, DOG, 0.8))]).result(LIMIT_S) == 1
    corrected = label(CAT, token=id_, probability=0.55, at_ms=LONG_AGO_MS + 1000)
    assert store.record([corrected]).result(LIMIT_S) == [DOG]
    assert store.read("pets", 1)[0].confusion.counts_KK.tolist() == [[3, 0], [0, 1]]
    assert store.read("pets", 2)[0].confusion.counts_KK.tolist() == [[0, 1], [0, 0]]
    assert store.read_pairs("pets", 1, 2).counts_K22.tolist() == [[[0, 0], [1, 0]], [[0, 0], [0, 0]]]


def test_migrations_end_at_the_tables_that_the_code_uses(url: str) -> None:
    database = open_database(url)
    with database.connect() as connection:
        with database.writing(connection):
            migrate(connection)
            migrated = described(connection)
            connection.rollback()
        with database.writing(connection):
            METADATA.create_all(connection)
            assert described(connection) == migrated
    database.close()


def test_a_migration_that_fails_leaves_everything_as_it_was(old: Path) -> None:
    before = "\n".join(sqlite3.connect(old).iterdump())
    database = open_database(old)
    with (
        closing(database.connect()) as connection,
        pytest.raises(StatisticsUnavailable, match="syntax|incomplete"),
        database.writing(connection),
    ):
        migrate(connection, (*MIGRATIONS, ("CREATE TABLE nonsense (",)))
    assert "\n".join(sqlite3.connect(old).iterdump()) == before


def test_replicas_that_start_together_migrate_once(url: str) -> None:
    program = (
        "import sys; from serving.bundle.model_version import ModelVersion\n"
        "from serving.statistics.store import StatisticsStore\n"
        "sys.stdin.readline()\n"
        "with StatisticsStore(sys.argv[1]) as store:\n"
        "    store.register_version(ModelVersion('pets', 1), ['cat', 'dog'])\n"
        "    store.count_predictions(ModelVersion('pets', 1), 0)\n"
    )
    run_programs_at_once([(program, url)] * 3)
    with StatisticsStore(url) as store:
        assert store.read()[0].predictions == 3


def test_a_server_rejects_labels_after_a_newer_one_has_migrated_the_tables(store: StatisticsStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE schema_version SET version = 99")
    fails(store.record([label(CAT)]), "schema 99")
    assert rows(path, "SELECT count(*) FROM labels") == [(0,)]


def test_inserts_of_a_server_of_schema_1_fail(store: StatisticsStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(
            "INSERT INTO labels (id, model, version, predicted, actual, probability, predicted_at, labelled_at) "
            "VALUES (x'00', 'pets', 1, 0, 0, 0.5, 0, 0)"
        )
