"""The tables of the statistics, for SQLite and PostgreSQL alike. Times are Unix milliseconds.

`statistics_migrations` makes them, `statistics_updates` writes and `statistics_queries` reads them. Who changes a table
here adds the migration that changes it there.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

METADATA = MetaData()

bookkeeping = Table(  # one row
    "bookkeeping",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # Grows with every transaction, so that other processes notice that there is something new.
    Column("revision", BigInteger, nullable=False),
    # Labels of predictions that were made before this time are no longer kept: they are in `outcomes` only.
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
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    Index("labels_by_time", "predicted_at"),
)

outcomes = Table(  # of all labels that were ever recorded, kept or not, so that totals cost nothing
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

predictions = Table(  # all that were ever made
    "predictions",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("predicted", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)

prediction_minutes = Table(  # the same by time: half a million rows a year, however many predictions are made
    "prediction_minutes",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),  # Unix minutes
    Column("count", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)
