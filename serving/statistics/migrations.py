"""An empty database, or one that an earlier pawserve left, in; the tables of this pawserve out.

Each migration is text, frozen when it was released, and run once, in the order of the list. The caller holds the
database's write lock, so that of replicas that start together one migrates, and the others find it done.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, inspect, text

from serving.statistics.calibration import BIN_EDGES
from serving.statistics.database import Database
from serving.statistics.errors import errors_translated

_BIN = (
    "CASE "
    + " ".join(f"WHEN probability < {edge!r} THEN {index}" for index, edge in enumerate(BIN_EDGES[1:-1]))
    + f" ELSE {len(BIN_EDGES) - 2} END"
)

_OF_VERSION = "FOREIGN KEY (model, version) REFERENCES versions (model, version)"

_FIRST = (
    "CREATE TABLE versions (model TEXT NOT NULL, version BIGINT NOT NULL, classes JSON NOT NULL, "
    "PRIMARY KEY (model, version))",
    "CREATE TABLE labels (id {bytes} NOT NULL PRIMARY KEY, model TEXT NOT NULL, version BIGINT NOT NULL, "
    "predicted INTEGER NOT NULL, actual INTEGER NOT NULL, probability {double} NOT NULL, "
    f"predicted_at BIGINT NOT NULL, labelled_at BIGINT NOT NULL, {_OF_VERSION})",
    "CREATE INDEX labels_by_outcome ON labels (model, version, actual, predicted, labelled_at)",
    "CREATE TABLE predictions (model TEXT NOT NULL, version BIGINT NOT NULL, predicted INTEGER NOT NULL, "
    f"count BIGINT NOT NULL, PRIMARY KEY (model, version, predicted), {_OF_VERSION})",
)

# Statistics by time, calibration, retention. Of predictions that were counted before, only those with a label have a
# known time. The new column has no default: an older server that still runs is refused, and miscounts nothing.
_SECOND = (
    "CREATE TABLE bookkeeping (id INTEGER NOT NULL PRIMARY KEY, revision BIGINT NOT NULL, "
    "labels_since BIGINT NOT NULL)",
    "INSERT INTO bookkeeping VALUES (1, 0, 0)",
    "CREATE TABLE labels_2 (id {bytes} NOT NULL PRIMARY KEY, model TEXT NOT NULL, version BIGINT NOT NULL, "
    "predicted INTEGER NOT NULL, actual INTEGER NOT NULL, probability {double} NOT NULL, "
    "calibration_bin INTEGER NOT NULL, predicted_at BIGINT NOT NULL, labelled_at BIGINT NOT NULL, "
    f"{_OF_VERSION})",
    f"INSERT INTO labels_2 SELECT id, model, version, predicted, actual, probability, {_BIN}, predicted_at, "
    "labelled_at FROM labels",
    "DROP TABLE labels",
    "ALTER TABLE labels_2 RENAME TO labels",
    "CREATE INDEX labels_by_time ON labels (predicted_at)",
    "CREATE TABLE outcomes (model TEXT NOT NULL, version BIGINT NOT NULL, actual INTEGER NOT NULL, "
    "predicted INTEGER NOT NULL, calibration_bin INTEGER NOT NULL, count BIGINT NOT NULL, "
    "probability_sum {double} NOT NULL, last_labelled_at BIGINT NOT NULL, "
    f"PRIMARY KEY (model, version, actual, predicted, calibration_bin), {_OF_VERSION})",
    "INSERT INTO outcomes SELECT model, version, actual, predicted, calibration_bin, count(*), sum(probability), "
    "max(labelled_at) FROM labels GROUP BY model, version, actual, predicted, calibration_bin",
    "CREATE TABLE prediction_minutes (model TEXT NOT NULL, version BIGINT NOT NULL, minute BIGINT NOT NULL, "
    f"count BIGINT NOT NULL, PRIMARY KEY (model, version, minute), {_OF_VERSION})",
    "INSERT INTO prediction_minutes SELECT model, version, predicted_at / 60000, count(*) FROM labels "
    "GROUP BY model, version, predicted_at / 60000",
)

MIGRATIONS: Sequence[Sequence[str]] = (_FIRST, _SECOND)

_TYPES = {
    "sqlite": {"bytes": "BLOB", "double": "DOUBLE"},
    "postgresql": {"bytes": "BYTEA", "double": "DOUBLE PRECISION"},
}


def schema_version(connection: Connection) -> int:
    """How many migrations the database has seen; 0 if it is empty."""
    if not inspect(connection).has_table("schema_version"):
        return 0
    return int(connection.scalar(text("SELECT version FROM schema_version")) or 0)


@contextmanager
def preparing(database: Database, connection: Connection, patience_s: float | None) -> Iterator[None]:
    """A transaction that first makes or changes the tables, if that is still to be done.

    Args:
        database: the connection's.
        connection: one to write with.
        patience_s: how long to wait, in seconds, for another process that does just that; None for as long as for any.

    Raises:
        ValueError: if a newer pawserve wrote the tables.
        StatisticsUnavailable: if the database did not take it.
    """
    with errors_translated(database.name), connection.begin():
        done = schema_version(connection) == len(MIGRATIONS)
    with database.writing(connection, patience_s=None if done else patience_s):
        migrate(connection)
        yield


def check_current(connection: Connection) -> None:
    """See to it that the tables are still those of this pawserve: another one may have migrated them meanwhile.

    Raises:
        ValueError: if they are not.
    """
    found = connection.scalar(text("SELECT version FROM schema_version"))
    if found != len(MIGRATIONS):
        raise ValueError(
            f"the statistics have schema {found}, and this pawserve writes {len(MIGRATIONS)}: another one has changed "
            "them, or none has yet; start the newer one"
        )


def migrate(connection: Connection) -> None:
    """Make or change the tables, as far as that has not been done. The caller holds the write lock.

    Raises:
        ValueError: if a newer pawserve wrote them.
    """
    found = schema_version(connection)
    check_not_newer(found)
    if found == len(MIGRATIONS):
        return
    if found == 0:
        connection.execute(text("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO schema_version VALUES (0)"))
    for statements in MIGRATIONS[found:]:
        for statement in statements:
            connection.execute(text(statement.format(**_TYPES[connection.dialect.name])))
    connection.execute(text("UPDATE schema_version SET version = :version"), {"version": len(MIGRATIONS)})


def check_not_newer(found: int) -> None:
    """See to it that this pawserve knows the schema.

    Raises:
        ValueError: if it is a newer one's.
    """
    if found > len(MIGRATIONS):
        raise ValueError(
            f"the statistics were written by a newer pawserve (schema {found}; this one knows {len(MIGRATIONS)}): "
            "install that one, or name another database"
        )
