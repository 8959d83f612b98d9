"""Options of commands that use the statistics: the database and the time window."""

import argparse
import os
from pathlib import Path

from serving.cli.options import model_resource, path, time

MAX_URL_BYTES = 8192


def add_database_options(parser: argparse.ArgumentParser) -> None:
    """`--state` and `--statistics`, for `find_statistics`."""
    add = parser.add_argument
    add(
        "--state",
        type=path,
        default=Path("state"),
        metavar="DIR",
        help="folder of the statistics and the key that signs tokens; created if it does not exist (state)",
    )
    add(
        "--statistics",
        metavar="URL",
        help="database of the statistics: postgresql://USER@HOST/DATABASE, which servers may share, or the path of an "
        "SQLite file ($PAWSERVE_STATISTICS, or the content of the file $PAWSERVE_STATISTICS_FILE: both keep a password "
        "out of the list of processes; otherwise statistics.sqlite in --state)",
    )


def find_statistics(given: str | None) -> str:
    """The URL or path of the statistics database.

    Args:
        given: the value of --statistics. Without it, $PAWSERVE_STATISTICS is used; without that, the content of the
            file that $PAWSERVE_STATISTICS_FILE names, as containers are given secrets.

    Returns:
        The URL or path; empty if none is given.

    Raises:
        ValueError: if the file cannot be read, or does not hold one URL. The message does not contain the URL.
    """
    if url := given or os.environ.get("PAWSERVE_STATISTICS"):
        return url
    path = os.environ.get("PAWSERVE_STATISTICS_FILE")
    if not path:
        return ""
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            text = file.read(MAX_URL_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"PAWSERVE_STATISTICS_FILE is {path}, which cannot be read: {reason}") from error
    if len(text.split()) != 1:
        raise ValueError(f"PAWSERVE_STATISTICS_FILE is {path}, which must hold one URL and nothing else")
    return text


def add_window_options(parser: argparse.ArgumentParser) -> None:
    """The model and the time window of predictions."""
    add = parser.add_argument
    add("--model", type=model_resource, default="", metavar="NAME[/VERSION]", help="only this model (all)")
    add(
        "--since",
        type=time,
        metavar="TIME",
        help="only predictions made at this time or later: 24h, 7d, 2026-11-30 (the first prediction)",
    )
    add("--until", type=time, metavar="TIME", help="only predictions made before this time (now)")
