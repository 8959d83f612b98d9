"""Results of files in; lines of CSV or JSON, on the disk within a second, out.

What is written stays: a line is there as a whole or not at all, and a later run goes on behind what this one has done.
"""

import csv
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from serving.cli.classify_files import FileResult, describe
from serving.client import Prediction
from serving.system.files import write_atomically

COLUMNS = ("file", "label", "probability", "views", "model", "token", "error", "message")
SYNC_INTERVAL_S = 1.0
ENCODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
"""Names of files need not be UTF-8; they are written as they are."""


class ResultsFile:
    """FILE.csv, with the most probable class of each file, or FILE.jsonl, with all of them.

    Args:
        path: where to write.
        resume: go on with what is there; the lines of files that failed are dropped, since those are tried again.

    Raises:
        ValueError: if the name ends otherwise, the file is there already and `resume` was not asked for, or what is
            there is something else.
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        if path.suffix not in (".csv", ".jsonl"):
            raise ValueError(f"{path} ends in {path.suffix or 'nothing'}; .csv and .jsonl are written")
        self._as_csv = path.suffix == ".csv"
        self.done: set[str] = set()
        """Files that have their predictions from before."""
        kept = ",".join(COLUMNS) + "\n" if self._as_csv else ""
        if path.exists():
            if not resume:
                raise ValueError(f"{path} is there already; go on with it by --resume, or name another file")
            kept += self._kept(path)
        write_atomically(path, kept.encode(ENCODING["encoding"], ENCODING["errors"]))
        # unbuffered: what a full disk refuses must not come up again when the file is closed
        self._stream = path.open("ab", buffering=0)
        self._sync_at = 0.0

    def __enter__(self) -> "ResultsFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Bring all to the disk."""
        self._sync()
        self._stream.close()

    def write(self, result: FileResult) -> None:
        """Add a line.

        Raises:
            OSError: if it cannot be written.
        """
        line = self._line(_to_row(result) if self._as_csv else to_dict(result))
        left = memoryview(line.encode(ENCODING["encoding"], ENCODING["errors"]))
        while left:
            left = left[self._stream.write(left) :]
        if time.monotonic() >= self._sync_at:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._sync_at = time.monotonic() + SYNC_INTERVAL_S

    def _line(self, fields: dict[str, Any]) -> str:
        if not self._as_csv:
            return json.dumps(fields, ensure_ascii=_has_surrogates(fields["file"])) + "\n"
        line = io.StringIO()
        # its own end of lines, without which a name with "\r" is not quoted
        csv.DictWriter(line, COLUMNS, lineterminator="\r\n").writerow(fields)
        return line.getvalue().removesuffix("\r\n") + "\n"

    def _kept(self, path: Path) -> str:
        """The lines of files that have their predictions; the last is dropped if a crash cut it short."""
        with path.open(**ENCODING) as stream:  # ends of lines as they are: names may have any of them
            text = stream.read()
        whole = text[: text.rfind("\n") + 1]
        try:
            rows = self._rows(whole)
            kept = [row for row in rows if not row["error"]] if self._as_csv else [r for r in rows if "error" not in r]
            self.done = {row["file"] for row in kept}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds something else than earlier results; name another file") from error
        return "".join(map(self._line, kept))

    def _rows(self, whole: str) -> Iterable[dict[str, Any]]:
        if not self._as_csv:
            return [json.loads(line) for line in whole.split("\n") if line]
        rows = csv.DictReader(io.StringIO(whole, newline=""))
        if whole and tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError
        return [row for row in rows if None not in row.values()]  # the last, if it ends within a name of two lines


def to_dict(result: FileResult) -> dict[str, Any]:
    """A result for programs: the file, with its classes or its error."""
    if isinstance(result.outcome, Prediction):
        classes = [{"label": label, "probability": probability} for label, probability in result.outcome.classes]
        return {
            "file": str(result.file),
            "model": result.model,
            "classes": classes,
            "views": result.outcome.views,
            "token": result.outcome.token,
        }
    reason, message = describe(result.outcome)
    return {"file": str(result.file), "error": {"reason": reason, "message": message}}


def _to_row(result: FileResult) -> dict[str, Any]:
    if isinstance(result.outcome, Prediction):
        label, probability = result.outcome.classes[0]
        return {
            "file": str(result.file),
            "label": label,
            "probability": f"{probability:.6f}",
            "views": result.outcome.views,
            "model": result.model,
            "token": result.outcome.token,
        }
    reason, message = describe(result.outcome)
    return {"file": str(result.file), "error": reason, "message": message}


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
