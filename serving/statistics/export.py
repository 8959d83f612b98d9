"""Export of labels from a statistics database to a CSV or Parquet file, while servers may be running or not."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serving.bundle.model_version import ModelVersion
from serving.statistics.queries import LabelRow, Window, select_all_classes, select_labels
from serving.statistics.schema import check_current, schema_version
from serving.statistics.store import ALL_TIME, open_database
from serving.system.csv_cells import escape_formula
from serving.system.files import replacing
from serving.system.times import format_time

COLUMNS = ("id", "model", "version", "predicted", "label", "probability", "predicted_at", "labelled_at", "reference")
CHUNK_ROWS = 10_000

Rows = Iterable[Sequence[tuple[Any, ...]]]
"""Chunks of rows, each with the values of COLUMNS; times are Unix milliseconds."""


class ExportError(Exception):
    """The file of labels cannot be written. Not an OSError, which would be reported as the database's."""


def export_labels(
    source: str | Path,
    out: Path,
    model: str | None = None,
    version: int | None = None,
    window: Window = ALL_TIME,
    *,
    incorrect: bool = False,
) -> int:
    """Write the labels of a database, as they are at one moment, ordered by the time of their predictions.

    Args:
        source: the database's path or URL.
        out: FILE.csv or FILE.parquet, which is written whole or not at all.
        model: only this model; None for all.
        version: only this version number; None for all.
        window: only labels of predictions of this time.
        incorrect: only labels that differ from the predicted class.

    Returns:
        How many labels were written.

    Raises:
        StatisticsUnavailable: if there is no such database, or it cannot be read.
        WindowExpired: if labels of the window have been deleted.
        ValueError: if the file's name or the database's tables are of another kind.
        ExportError: if the file cannot be written.
    """
    write = _writer_for(out)
    database = open_database(source)
    count = 0
    try:
        with database.reading() as connection, _replacing(out) as temporary:
            if not schema_version(connection):
                raise ValueError(f"{database.name} holds no statistics of pawserve")
            check_current(connection)
            classes = select_all_classes(connection)

            def rows() -> Iterator[list[tuple[Any, ...]]]:
                nonlocal count
                for chunk in select_labels(connection, model, version, window, CHUNK_ROWS):
                    wanted = [row for row in chunk if not incorrect or row.predicted != row.actual]
                    count += len(wanted)
                    if wanted:
                        yield [_values(row, classes[ModelVersion(row.model, row.version)]) for row in wanted]

            write(temporary, rows())
    finally:
        database.close()
    return count


def write_csv(path: Path, rows: Rows) -> None:
    """Write a header line and one line for each row.

    Times are ISO 8601, UTC, to the millisecond. References are escaped where a spreadsheet would evaluate them.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for chunk in rows:
            writer.writerows(
                (*row, format_time(predicted_at), format_time(labelled_at), escape_formula(reference))
                for *row, predicted_at, labelled_at, reference in chunk
            )


def write_parquet(path: Path, rows: Rows) -> None:
    """Write the same columns with their types: text, int64, float64, and timestamps of milliseconds in UTC."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    time, text = pa.timestamp("ms", tz="UTC"), pa.string()
    types = (text, text, pa.int64(), text, text, pa.float64(), time, time, text)
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    with pq.ParquetWriter(path, schema) as writer:
        for chunk in rows:
            columns = [pa.array(values, type_) for values, type_ in zip(zip(*chunk, strict=True), types, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _writer_for(out: Path) -> Callable[[Path, Rows], None]:
    if out.suffix == ".csv":
        return write_csv
    if out.suffix != ".parquet":
        raise ValueError(f"{out} is neither FILE.csv nor FILE.parquet")
    if find_spec("pyarrow") is None:
        raise ValueError("a Parquet file needs pyarrow: pip install 'pawserve[parquet]', or write FILE.csv")
    return write_parquet


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """As `replacing`, but raise ExportError instead of OSError."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {os.strerror(error.errno) if error.errno else error}") from error


def _values(row: LabelRow, classes: Sequence[str]) -> tuple[Any, ...]:
    predicted, label = classes[row.predicted], classes[row.actual]
    facts = (row.id.hex(), row.model, row.version, predicted, label, row.probability)
    return (*facts, row.predicted_at, row.labelled_at, row.reference or "")
