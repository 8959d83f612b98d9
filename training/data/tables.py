"""CSV files that a person has edited, as spreadsheets write them."""

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from training.data.layout import DataError


@dataclass(frozen=True)
class Table:
    """The rows of a CSV file."""

    sha256: str
    """SHA-256 of the file's content, in hexadecimal."""
    rows: list[dict[str, str]]
    """Rows by column. A spreadsheet shows the first of them as row 2."""


def read_table(path: Path, columns: tuple[str, ...], hint: str) -> Table:
    """Read a CSV file, also with a byte order mark, and with semicolons or tabs instead of commas.

    Args:
        columns: those that it must have.
        hint: what to give instead, for messages.

    Raises:
        DataError: if it cannot be read, or lacks a column.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{path} cannot be read: {reason}; {hint}") from error
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), restval="")
    try:
        if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise DataError(f"{path} has no column {missing[0]} in its first line ({header.strip()!r:.80}); {hint}")
        rows = [{name: value for name, value in row.items() if isinstance(name, str)} for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: line {reader.line_num}: {error}; {hint}") from error
    return Table(hashlib.sha256(content).hexdigest(), rows)
