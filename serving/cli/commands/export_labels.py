"""`export-labels`: write the labels of a statistics database to a file."""

import argparse
from datetime import UTC, datetime

from serving.bundle.model_version import parse_resource
from serving.cli.errors import DONE, CommandError
from serving.cli.options import path
from serving.cli.signals import exit_on_signals
from serving.cli.statistics_options import add_database_options, add_window_options, find_statistics
from serving.statistics.databases.database import StatisticsUnavailable
from serving.statistics.export import ExportError, export_labels
from serving.statistics.queries import Window, WindowExpired


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `export-labels`."""
    parser.description = (
        "Write every stored label to a file, one on each row: the prediction's ID, model version, predicted class, "
        "probability and time, the label and its time, and the client's reference of the image. The command reads the "
        "database itself; no server is needed, and running servers are not disturbed."
    )
    parser.add_argument("out", type=path, metavar="FILE", help="FILE.csv or FILE.parquet")
    add_database_options(parser)
    add_window_options(parser)
    parser.add_argument("--incorrect", action="store_true", help="only labels that differ from the predicted class")


def run(arguments: argparse.Namespace) -> int:
    """Write the whole file, or nothing."""
    name, version = parse_resource(arguments.model) if arguments.model else (None, None)
    window = Window(_milliseconds(arguments.since), _milliseconds(arguments.until))
    try:
        with exit_on_signals():
            source = find_statistics(arguments.statistics) or arguments.state / "statistics.sqlite"
            count = export_labels(source, arguments.out, name, version, window, incorrect=arguments.incorrect)
    except WindowExpired as error:
        since = datetime.fromtimestamp(error.labels_since_ms / 1000, UTC).isoformat(timespec="milliseconds")
        raise CommandError(
            f"labels of predictions before {since} are no longer stored; give a later --since"
        ) from error
    except (ExportError, StatisticsUnavailable, ValueError) as error:
        raise CommandError(str(error)) from error
    print(f"{count:,} labels written to {arguments.out}")
    return DONE


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)
