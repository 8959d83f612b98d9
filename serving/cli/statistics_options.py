"""Argument parsers in; what the commands take that is about statistics, added to them."""

import argparse
from datetime import datetime
from pathlib import Path

from serving.cli.commands import export_labels
from serving.cli.common import model_resource, number
from serving.system.times import parse_time


def add_database_options(parser: argparse.ArgumentParser) -> None:
    """Where a server keeps its statistics, and for how long."""
    add = parser.add_argument
    add(
        "--statistics",
        metavar="URL",
        help="keep the statistics in postgresql://USER@HOST/DATABASE, which servers may share, or in another SQLite "
        "file ($PAWSERVE_STATISTICS, or what the file $PAWSERVE_STATISTICS_FILE holds, which hide a password from the "
        "list of processes; or statistics.sqlite in --state)",
    )
    add(
        "--retention",
        type=number("days", 1, 36_500),
        metavar="DAYS",
        help="drop labels this long after their prediction; totals keep them (labels are kept for good)",
    )


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """What `stats` shows, and how."""
    parser.add_argument(
        "--since", type=_time, metavar="TIME", help="only of predictions made since: 24h, 7d, 2026-11-30 (the first)"
    )
    parser.add_argument("--until", type=_time, metavar="TIME", help="only of predictions made before (now)")
    view = parser.add_mutually_exclusive_group()
    view.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the confusion matrix of one version")
    view.add_argument("--watch", action="store_true", help="show them whenever they change, until Ctrl-C")
    parser.add_argument(
        "--interval", type=number("seconds", 0.1, 3600), default=1.0, metavar="S", help="--watch no more often (1)"
    )


def add_export_labels(parser: argparse.ArgumentParser) -> None:
    """The command `export-labels`."""
    parser.description = (
        "Write every label that is kept to a file, one a row: the prediction's ID, which version predicted what, how "
        "sure and when, and what was said to be true, when. Reads the database itself; servers may go on meanwhile."
    )
    add = parser.add_argument
    add("out", type=Path, metavar="FILE", help="FILE.csv or FILE.parquet")
    add("--state", type=Path, default=Path("state"), metavar="DIR", help="the server's folder (state)")
    add("--statistics", metavar="URL", help="as for serve ($PAWSERVE_STATISTICS, or statistics.sqlite in --state)")
    add("--model", type=model_resource, default="", metavar="NAME[/VERSION]", help="only this model (all)")
    add("--since", type=_time, metavar="TIME", help="only of predictions made since then: 24h, 7d, 2026-11-30")
    add("--until", type=_time, metavar="TIME", help="only of predictions made before")
    parser.set_defaults(run=export_labels)


def _time(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
