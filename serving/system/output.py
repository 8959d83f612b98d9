"""Standard output of commands: any text in any encoding, JSON, and output that cannot be written."""

import codecs
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ASCII = {"–": "-", "…": "~", "→": ">", "↓": "v", "█": "#", "░": ".", "×": "x", "Δ": "d"}
"""What our own texts use, as one ASCII character each, so that columns stay aligned."""


def describe_version() -> str:
    """The name and version of the installed package, as `--version` prints them."""
    from importlib.metadata import PackageNotFoundError, version  # slow to load

    try:
        return f"pawserve {version('pawserve')}"
    except PackageNotFoundError:
        return "pawserve (not installed as a package)"


def accept_any_text() -> None:
    """Let standard output and standard error write any text.

    Characters that their encoding lacks, and bytes of file names that are not UTF-8, are written as ASCII: the symbols
    of our own texts as similar ones, others as escapes such as \\u65e5.
    """
    codecs.register_error("pawserve", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="pawserve")


def print_json(document: Any, *, indent: int | None = None) -> None:
    """Print a document as JSON, with escapes if standard output is not UTF-8."""
    print(json.dumps(document, ensure_ascii=not is_utf8(sys.stdout), indent=indent), flush=True)


def is_utf8(stream: Any) -> bool:
    """Whether a text stream writes UTF-8; streams without an encoding take any text."""
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "utf-8"


def flush_output() -> None:
    """Write what standard output still holds.

    Raises:
        OSError: if it cannot be written. At its exit, Python would report that with a traceback and exit code 120.
    """
    if sys.stdout is not None:  # it is closed
        sys.stdout.flush()


@contextmanager
def flushed_output() -> Iterator[None]:
    """Write at the end of the block what standard output holds, also if the block ends the process as `--help` does.

    Raises:
        OSError: as `flush_output` does.
    """
    try:
        yield
    except SystemExit:
        flush_output()
        raise
    flush_output()


def discard_output() -> None:
    """Drop what standard output still holds and all that follows, since it cannot be written."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and (known := _ASCII.get(error.object[error.start])):
        return known, error.start + 1
    return codecs.backslashreplace_errors(error)
