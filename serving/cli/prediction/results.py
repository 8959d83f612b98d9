"""Files of results: CSV or JSON Lines, written line by line.

A line is written whole or not at all, and is on the disk within a second. A later run continues the file.
"""

import csv
import io
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from serving.cli.prediction.files import FileResult, describe
from serving.client import Prediction
from serving.system.csv_cells import escape_formula
from serving.system.files import write_atomically

COLUMNS = ("file", "label", "probability", "views", "model", "token", "error", "message", "id", "reference")
SYNC_INTERVAL_S = 1.0
ENCODING, ENCODING_ERRORS = "utf-8", "surrogateescape"
"""File names need not be UTF-8; they are written as they are."""


class ResultsFile:
    """FILE.csv with the most probable class of each image, or FILE.jsonl with all classes.

    Args:
        path: the file.
        resume: continue an existing file. Its lines of failed images are removed, since these are tried again.

    Raises:
        ValueError: if the suffix is another one, the file exists and `resume` is not set, or it holds anything but
            results.
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        if path.suffix not in _FORMATS:
            raise ValueError(f"{path} ends in {path.suffix or 'no suffix'}; use .csv or .jsonl")
        self._format = _FORMATS[path.suffix]
        self.done: dict[str, str] = {}
        """Images that the file has predictions of from earlier runs, and the predicted class of each."""
        lines = self._format.header
        if path.exists():
            if not resume:
                raise ValueError(f"{path} exists; continue it with --resume, or name another file")
            lines += self._read(path)
        write_atomically(path, lines.encode(ENCODING, ENCODING_ERRORS))
        # unbuffered: otherwise closing the file would try again to write what a full disk did not take
        self._stream = path.open("ab", buffering=0)
        self._sync_at = 0.0

    def __enter__(self) -> "ResultsFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write everything to the disk."""
        self._sync()
        self._stream.close()

    def write(self, result: FileResult) -> None:
        """Add a line.

        Raises:
            OSError: if it cannot be written.
        """
        left = memoryview(self._format.line(self._format.fields(result)).encode(ENCODING, ENCODING_ERRORS))
        while left:
            left = left[self._stream.write(left) :]
        if time.monotonic() >= self._sync_at:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._sync_at = time.monotonic() + SYNC_INTERVAL_S

    def _read(self, path: Path) -> str:
        """The lines of images with predictions. A last line that a crash cut off is dropped."""
        with path.open(encoding=ENCODING, errors=ENCODING_ERRORS, newline="") as stream:  # names may hold line ends
            text = stream.read()
        try:
            kept = [row for row in self._format.parse(text[: text.rfind("\n") + 1]) if not row.get("error")]
            self.done = {row["file"]: self._format.predicted(row) for row in kept}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds something else than results; name another file") from error
        return "".join(map(self._format.line, kept))


class _Csv:
    """The lines of a CSV file."""

    header = ",".join(COLUMNS) + "\n"

    def fields(self, result: FileResult) -> dict[str, Any]:
        reference = escape_formula(result.reference)
        if not isinstance(result.outcome, Prediction):
            reason, message = describe(result.outcome)
            return {"file": str(result.file), "error": reason, "message": message, "reference": reference}
        label, probability = result.outcome.classes[0]
        return {
            "file": str(result.file),
            "label": label,
            "probability": f"{probability:.6f}",
            "views": result.outcome.views,
            "model": result.model,
            "token": result.outcome.token,
            "id": result.outcome.id,
            "reference": reference,
        }

    def predicted(self, fields: dict[str, Any]) -> str:
        return str(fields["label"])

    def line(self, fields: dict[str, Any]) -> str:
        line = io.StringIO()
        # the module's own line end: with another, it does not quote a name that contains "\r"
        csv.DictWriter(line, COLUMNS, lineterminator="\r\n").writerow(fields)
        return line.getvalue().removesuffix("\r\n") + "\n"

    def parse(self, text: str) -> list[dict[str, Any]]:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if text and tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError
        return [row for row in rows if None not in row.values()]  # the last one, if cut off within a name of two lines


class _JsonLines:
    """The lines of a JSON Lines file."""

    header = ""

    def fields(self, result: FileResult) -> dict[str, Any]:
        return to_dict(result)

    def predicted(self, fields: dict[str, Any]) -> str:
        return str(fields["classes"][0]["label"])

    def line(self, fields: dict[str, Any]) -> str:
        # JSON cannot hold the bytes of a name that is not UTF-8 but as escapes
        has_surrogates = any("\ud800" <= character <= "\udfff" for character in fields["file"])
        return json.dumps(fields, ensure_ascii=has_surrogates) + "\n"

    def parse(self, text: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in text.split("\n") if line]


_FORMATS: dict[str, _Csv | _JsonLines] = {".csv": _Csv(), ".jsonl": _JsonLines()}


def to_dict(result: FileResult) -> dict[str, Any]:
    """A result for JSON: the file with its classes or its error."""
    if not isinstance(result.outcome, Prediction):
        reason, message = describe(result.outcome)
        failure = {"reason": reason, "message": message}
        return {"file": str(result.file), "error": failure, "reference": result.reference}
    classes = [{"label": label, "probability": probability} for label, probability in result.outcome.classes]
    return {
        "file": str(result.file),
        "model": result.model,
        "classes": classes,
        "views": result.outcome.views,
        "token": result.outcome.token,
        "id": result.outcome.id,
        "reference": result.reference,
    }
