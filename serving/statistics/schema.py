"""The tables of the statistics for SQLite and PostgreSQL, and the migrations that create and change them.

Times are Unix milliseconds. `updates` writes the tables and `queries` reads them. A change of a table needs a
migration. Each migration is text, frozen when it was released, and run once, in the order of the list. The caller holds
the database's write lock, so of replicas that start together one migrates and the others find it done.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    inspect,
    text,
)

from serving.statistics.calibration import BIN_EDGES
from serving.statistics.databases.database import Database, errors_translated

METADATA = MetaData()

bookkeeping = Table(  # one row
    "bookkeeping",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # Incremented by every transaction, so that other processes notice changes.
    Column("revision", BigInteger, nullable=False),
    # Labels of predictions from before this time have been deleted; they remain in `outcomes` only.
    Column("labels_since", BigInteger, nullable=False),
)

versions = Table(
    "versions",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("classes", JSON, nullable=False),
)

labels = Table(
    "labels",
    METADATA,
    Column("id", LargeBinary(16), primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("predicted", Integer, nullable=False),
    Column("actual", Integer, nullable=False),
    Column("probability", Double, nullable=False),
    Column("calibration_bin", Integer, nullable=False),
    Column("predicted_at", BigInteger, nullable=False),
    Column("labelled_at", BigInteger, nullable=False),
    Column("reference", Text),  # the client's own name of the image
    # The result of a shadow version of the same model for the same image; all NULL if there is none.
    Column("shadow_version", BigInteger),
    Column("shadow_predicted", Integer),  # among the shadow version's classes
    Column("shadow_probability", Double),
    Column("shadow_calibration_bin", Integer),
    Column("shadow_actual", Integer),  # the label among the shadow version's classes; NULL if it is none of them
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    Index("labels_by_time", "predicted_at"),
)

outcomes = Table(  # totals of all labels ever recorded, deleted ones too
    "outcomes",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("actual", Integer, primary_key=True, autoincrement=False),
    Column("predicted", Integer, primary_key=True, autoincrement=False),
    Column("calibration_bin", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("probability_sum", Double, nullable=False),
    Column("last_labelled_at", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)

predictions = Table(  # totals of all predictions ever made
    "predictions",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("predicted", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)

prediction_minutes = Table(  # the same by minute: at most half a million rows a year for each version
    "prediction_minutes",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),  # Unix minutes
    Column("count", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)

paired_outcomes = Table(  # totals of all labels ever recorded for two versions at once, deleted ones too
    "paired_outcomes",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("shadow_version", BigInteger, primary_key=True, autoincrement=False),
    Column("actual", Integer, primary_key=True, autoincrement=False),  # among the classes of `version`
    Column("version_correct", Integer, primary_key=True, autoincrement=False),  # 0 or 1
    Column("shadow_correct", Integer, primary_key=True, autoincrement=False),  # 0, 1 or NO_SUCH_CLASS
    Column("count", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    ForeignKeyConstraint(["model", "shadow_version"], ["versions.model", "versions.version"]),
)

NO_SUCH_CLASS = -1
"""`shadow_correct` of labels that are no class of the shadow version: such a pair compares nothing."""

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

# Statistics by time, calibration, retention. Of earlier predictions only those with a label have a known time. The new
# column has no default, so that inserts of an older server that still runs fail instead of being miscounted.
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

# Results of shadow versions, and the client's own names of images.
_THIRD = (
    "ALTER TABLE labels ADD COLUMN reference TEXT",
    "ALTER TABLE labels ADD COLUMN shadow_version BIGINT",
    "ALTER TABLE labels ADD COLUMN shadow_predicted INTEGER",
    "ALTER TABLE labels ADD COLUMN shadow_probability {double}",
    "ALTER TABLE labels ADD COLUMN shadow_calibration_bin INTEGER",
    "ALTER TABLE labels ADD COLUMN shadow_actual INTEGER",
    "CREATE TABLE paired_outcomes (model TEXT NOT NULL, version BIGINT NOT NULL, shadow_version BIGINT NOT NULL, "
    "actual INTEGER NOT NULL, version_correct INTEGER NOT NULL, shadow_correct INTEGER NOT NULL, "
    "count BIGINT NOT NULL, PRIMARY KEY (model, version, shadow_version, actual, version_correct, shadow_correct), "
    f"{_OF_VERSION}, FOREIGN KEY (model, shadow_version) REFERENCES versions (model, version))",
)

MIGRATIONS: Sequence[Sequence[str]] = (_FIRST, _SECOND, _THIRD)

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
def migrating(database: Database, connection: Connection, lock_timeout_s: float | None) -> Iterator[None]:
    """Open a write transaction that first migrates the tables if they need it.

    Args:
        database: the connection's.
        connection: one to write with.
        lock_timeout_s: how long to wait for another process that migrates, in seconds; None for the database's default.

    Raises:
        ValueError: if a newer pawserve wrote the tables.
        StatisticsUnavailable: if the transaction failed.
    """
    with errors_translated(database.name), connection.begin():
        done = schema_version(connection) == len(MIGRATIONS)
    with database.writing(connection, lock_timeout_s=None if done else lock_timeout_s):
        migrate(connection)
        yield


def check_current(connection: Connection) -> None:
    """Check that no other pawserve has migrated the tables meanwhile.

    Raises:
        ValueError: if the tables are not those of this pawserve.
    """
    found = connection.scalar(text("SELECT version FROM schema_version"))
    if found != len(MIGRATIONS):
        raise ValueError(
            f"the statistics have schema {found}, and this pawserve writes {len(MIGRATIONS)}: they were migrated by "
            "another pawserve, or not yet by this one; start the newer one"
        )


def migrate(connection: Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Create the tables, or change those of an earlier pawserve. The caller holds the write lock.

    Raises:
        ValueError: if a newer pawserve wrote the tables.
    """
    found = schema_version(connection)
    if found > len(migrations):
        raise ValueError(
            f"the statistics were written by a newer pawserve (schema {found}; this one supports {len(migrations)}): "
            "install that one, or use another database"
        )
    if found == len(migrations):
        return
    if found == 0:
        connection.execute(text("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO schema_version VALUES (0)"))
    for statements in migrations[found:]:
        for statement in statements:
            connection.execute(text(statement.format(**_TYPES[connection.dialect.name])))
    connection.execute(text("UPDATE schema_version SET version = :version"), {"version": len(migrations)})
