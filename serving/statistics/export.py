"""A statistics database in; its labels in a CSV or Parquet file, one a row, out. No server is needed or disturbed."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serving.statistics.database import open_database
from serving.statistics.migrations import check_current, schema_version
from serving.statistics.queries import ALL_TIME, LabelRow, Window, select_all_classes, select_labels
from serving.system.files import replacing

COLUMNS = ("id", "model", "version", "predicted", "label", "probability", "predicted_at", "labelled_at")
ROWS_AT_ONCE = 10_000

Rows = Iterable[Sequence[tuple[Any, ...]]]
"""Chunks of rows, each with the values of COLUMNS; times are datetimes in UTC."""


class CannotWrite(Exception):
    """The file that labels are exported to cannot be written; no OSError, which would be said of the database."""


def write_labels(
    source: str | Path,
    out: Path,
    write: Callable[[Path, Rows], None],
    model: str | None = None,
    version: int | None = None,
    window: Window = ALL_TIME,
) -> int:
    """Write the labels of a database, as they are at one moment, in the order of their predictions; how many they are.

    Raises:
        StatisticsUnavailable: if there is no such database, or it cannot be read.
        ValueError: if its tables are not those of this pawserve.
        CannotWrite: if the file cannot be written.
    """
    database = open_database(source)
    database.attach()
    count = 0
    try:
        with database.reading() as connection, _whole(out) as temporary:
            if not schema_version(connection):
                raise ValueError(f"{database.name} holds no statistics of pawserve")
            check_current(connection)
            classes = select_all_classes(connection)

            def rows() -> Iterator[list[tuple[Any, ...]]]:
                nonlocal count
                for chunk in select_labels(connection, model, version, window, ROWS_AT_ONCE):
                    count += len(chunk)
                    yield [_values(row, classes[row.model, row.version]) for row in chunk]

            write(temporary, rows())
    finally:
        database.close()
    return count


def write_csv(path: Path, rows: Rows) -> None:
    """One header line; times in ISO 8601, UTC, to the millisecond."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for chunk in rows:
            writer.writerows((*row[:-2], *(_iso(time) for time in row[-2:])) for row in chunk)


def write_parquet(path: Path, rows: Rows) -> None:
    """The same columns with their types: text, int64, float64, and timestamps of milliseconds in UTC."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    time, text = pa.timestamp("ms", tz="UTC"), pa.string()
    types = (text, text, pa.int64(), text, text, pa.float64(), time, time)
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    with pq.ParquetWriter(path, schema) as writer:
        for chunk in rows:
            columns = [pa.array(values, type_) for values, type_ in zip(zip(*chunk, strict=True), types, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def writer_for(out: Path) -> Callable[[Path, Rows], None]:
    """The writer of FILE.csv or FILE.parquet.

    Raises:
        ValueError: for another suffix, or if pyarrow is missing.
    """
    if out.suffix == ".csv":
        return write_csv
    if out.suffix != ".parquet":
        raise ValueError(f"{out} is neither FILE.csv nor FILE.parquet")
    if find_spec("pyarrow") is None:
        raise ValueError("a Parquet file needs pyarrow: pip install 'pawserve[parquet]', or write FILE.csv")
    return write_parquet


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """As `replacing`; raises CannotWrite instead of OSError."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {os.strerror(error.errno) if error.errno else error}") from error


def _values(row: LabelRow, classes: Sequence[str]) -> tuple[Any, ...]:
    times = (_time(row.predicted_at), _time(row.labelled_at))
    return (row.id.hex(), row.model, row.version, classes[row.predicted], classes[row.actual], row.probability, *times)


def _time(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
